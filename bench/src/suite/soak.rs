//! `soak`: mixed traffic for as long as asked, and what is left of it.
//!
//! Owns: the rounds, and the verdict on what they leave. Never: a load of its own.

use super::{
    place::Network,
    stage::Stage,
    subjects::{FROM_USER, PASSWORD, Running, Setup, TARGET},
};
use crate::process::Usage;
use anyhow::{Context, Result};
use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// Longer than anything outlives its call or its request: 32 s, and the record's two.
const REST: Duration = Duration::from_secs(40);
/// Where the target tells its counters.
const METRICS: &str = "127.0.0.1:8090";
/// What must be zero when nobody calls any more.
const GAUGES: [&str; 5] =
    ["calls", "sip_dialogs", "sip_transactions", "sip_timers", "rtp_port_pairs_used"];
/// How often it is looked at for the chart.
const CHART_EVERY: Duration = Duration::from_secs(2);
/// How wide the chart is at most.
const CHART_WIDTH: usize = 100;
/// How many rounds there are before the first rest. While the second one runs, the transactions of the first live on: only
/// then has the allocator had what it may need later, and keeps what it may keep. After one round the rest was from
/// 6 MB above to 9 MB below the last one, as nine runs had it.
const ROUNDS_BEFORE: usize = 2;
/// What may stay beside the memory of the first rest, in KB: pages that the allocator and the database keep. Over
/// 60,000 calls, a leak of 140 bytes a call is more.
const KEPT_MAX_KB: u64 = 8192;
/// Phones that register in each round.
const PHONES: u32 = 1000;

/// How long, and where to write.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Tandem's binary: a release build.
    #[arg(long, default_value = "target/release/tandem")]
    pub tandem: PathBuf,
    /// For how long.
    #[arg(long, default_value_t = 10.0)]
    pub minutes: f64,
    /// The document.
    #[arg(long, default_value = "target/bench/SOAK.md")]
    pub out: PathBuf,
}

/// What the target had at one moment.
#[derive(Clone, Debug)]
struct Moment {
    at: Duration,
    usage: Usage,
    gauges: [f64; GAUGES.len()],
}

/// What it had between two rounds.
#[derive(Clone, Debug)]
struct Look {
    /// Calls until then.
    calls: f64,
    moment: Moment,
}

/// Everything that was seen.
#[derive(Debug, Default)]
struct Seen {
    /// After the first rest, after each further round, and after the last rest.
    looks: Vec<Look>,
    /// Every two seconds.
    chart: Vec<Moment>,
    /// What went wrong.
    faults: Vec<String>,
}

/// Lets it all happen again and again; true if nothing failed and nothing is left.
///
/// # Errors
/// If there is no network namespace to be had, or a load cannot be run.
pub fn run(args: &Args) -> Result<bool> {
    let stage = Stage::set(&args.tandem, Network::Own)?;
    let soak = Soak::begin(&stage, Duration::from_secs_f64(args.minutes * 60.0))?;
    let mut seen = soak.go_on()?;
    seen.faults.extend(left(&seen.looks));
    let document = document(&seen);
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&args.out, &document).with_context(|| args.out.display().to_string())?;
    eprint!("{document}");
    Ok(seen.faults.is_empty())
}

struct Soak<'s> {
    stage: &'s Stage,
    running: Running,
    began: Instant,
    until: Instant,
}

impl<'s> Soak<'s> {
    fn begin(stage: &'s Stage, length: Duration) -> Result<Self> {
        let running = stage.tandem(Setup { phones: PHONES, ..Setup::default() })?;
        let began = Instant::now();
        Ok(Self { stage, running, began, until: began + length })
    }

    /// Goes on to the end, with somebody beside it who looks.
    fn go_on(&self) -> Result<Seen> {
        let is_over = AtomicBool::new(false);
        let (pid, began) = (self.running.pid(), self.began);
        thread::scope(|scope| {
            let watching = scope.spawn(|| watch((pid, began), &is_over));
            let seen = self.rounds();
            is_over.store(true, Ordering::Relaxed);
            let chart = watching.join().unwrap_or_default();
            seen.map(|seen| Seen { chart, ..seen })
        })
    }

    fn rounds(&self) -> Result<Seen> {
        let (mut seen, mut calls) = (Seen::default(), 0.0);
        loop {
            let is_first = seen.looks.is_empty();
            for _ in 0..if is_first { ROUNDS_BEFORE } else { 1 } {
                calls += self.round(&mut seen.faults)?;
            }
            let is_last = !is_first && Instant::now() + REST >= self.until;
            if is_first || is_last {
                sleep(REST);
            }
            let moment = look(self.running.pid(), self.began)?;
            seen.looks.push(Look { calls, moment });
            eprintln!("{calls} calls, {} faults", seen.faults.len());
            if is_last {
                return Ok(seen);
            }
        }
    }

    /// Everything once. Returns how many calls that were.
    fn round(&self, faults: &mut Vec<String>) -> Result<f64> {
        let phones = PHONES.to_string();
        let mut calls = 0.0;
        for load in [
            &["calls", "--from-user", FROM_USER, "--rate", "300", "--seconds", "30"][..],
            &[
                "calls",
                "--from-user",
                FROM_USER,
                "--rate",
                "200",
                "--seconds",
                "4",
                "--user",
                "1001",
                "--password",
                PASSWORD,
                "--caller",
                "127.0.0.11:5060",
            ],
            &["calls", "--from-user", FROM_USER, "--rate", "100", "--seconds", "2", "--hold", "2"],
            &["register", "--phones", &phones, "--rate", "500"],
            &[
                "held",
                "--calls",
                "300",
                "--beside",
                "200",
                "--from-user",
                FROM_USER,
                "--seconds",
                "2",
            ],
            &["media", "--calls", "60", "--seconds", "3", "--warm", "1", "--sip", TARGET],
        ] {
            for sample in self.stage.load(("tandem", &self.running), load)? {
                let is_call = sample.what == "calls";
                calls += sample.figure("done").filter(|_| is_call).unwrap_or_default();
                // What the machine could not do is not the target's fault.
                let told = sample.faults.iter().filter(|fault| !fault.starts_with("no verdict"));
                faults.extend(told.map(|fault| format!("{}: {fault}", load[0])));
            }
        }
        Ok(calls)
    }
}

/// Looks again and again, until it is over; a look that fails is left out of the chart.
fn watch((pid, began): (u32, Instant), is_over: &AtomicBool) -> Vec<Moment> {
    let mut chart = vec![];
    while !is_over.load(Ordering::Relaxed) {
        chart.extend(look(pid, began).ok());
        sleep(CHART_EVERY);
    }
    chart
}

fn look(pid: u32, began: Instant) -> Result<Moment> {
    let page = fetch()?;
    let gauges = GAUGES.map(|name| gauge(&page, name));
    Ok(Moment { at: began.elapsed(), usage: Usage::of(pid)?, gauges })
}

/// Reads the counters.
fn fetch() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}

/// The sum of a gauge over its labels; -1 where there is none, which is no zero.
fn gauge(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix("tandem_")?.strip_prefix(name)?;
        let is_it = rest.starts_with([' ', '{']);
        rest.rsplit_once(' ').filter(|_| is_it)?.1.parse::<f64>().ok()
    });
    values.reduce(|sum, value| sum + value).unwrap_or(-1.0)
}

/// What is left at the end that was not there after the first rest.
fn left(looks: &[Look]) -> Vec<String> {
    let [Look { moment: first, .. }, .., Look { moment: last, .. }] = looks else {
        return vec!["there were no two rounds to compare".to_owned()];
    };
    let mut faults = vec![];
    for (name, value) in GAUGES.iter().zip(last.gauges) {
        if value != 0.0 {
            faults.push(format!("{name} is {value} when all is over"));
        }
    }
    for (name, before, after) in [
        ("descriptors", first.usage.fds, last.usage.fds),
        ("threads", first.usage.threads, last.usage.threads),
    ] {
        if after > before {
            faults.push(format!("{after} {name}, {before} after the first rest"));
        }
    }
    if last.usage.pss_kb > first.usage.pss_kb.saturating_add(KEPT_MAX_KB) {
        faults.push(format!(
            "{} KB of memory, {} after the first rest",
            last.usage.pss_kb, first.usage.pss_kb
        ));
    }
    faults
}

/// Growth of memory between the two rests, in KB for a million calls.
fn leak_kb_per_million(looks: &[Look]) -> f64 {
    let [first, .., last] = looks else { return 0.0 };
    let grown = last.moment.usage.pss_kb as f64 - first.moment.usage.pss_kb as f64;
    1e6 * grown / (last.calls - first.calls).max(1.0)
}

fn document(seen: &Seen) -> String {
    let Seen { looks, chart, faults } = seen;
    let mut text = "# Soak\n\nMade by `make soak`; not written by hand. The first and the last line are after \
                    40 s of rest, the others in the middle of things.\n\n\
                    | min | calls | memory, KB | descriptors | threads |"
        .to_owned();
    GAUGES.iter().for_each(|name| _ = write!(text, " {name} |"));
    text.push_str("\n|---|---|---|---|---|");
    GAUGES.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for Look { calls, moment: Moment { at, usage, gauges } } in looks {
        let Usage { pss_kb, fds, threads, .. } = usage;
        let minutes = at.as_secs_f64() / 60.0;
        _ = write!(text, "| {minutes:.1} | {calls} | {pss_kb} | {fds} | {threads} |");
        gauges.iter().for_each(|value| _ = write!(text, " {value} |"));
        text.push('\n');
    }
    text.push_str("\nFrom the beginning to the end, each against its most:\n\n```text\n");
    let of = |value: fn(&Moment) -> f64| chart.iter().map(value).collect::<Vec<_>>();
    _ = writeln!(text, "{}", curve("memory, KB", &of(|moment| moment.usage.pss_kb as f64)));
    _ = writeln!(text, "{}", curve("descriptors", &of(|moment| moment.usage.fds as f64)));
    for (nth, name) in GAUGES.iter().enumerate() {
        let values: Vec<f64> = chart.iter().map(|moment| moment.gauges[nth]).collect();
        _ = writeln!(text, "{}", curve(name, &values));
    }
    _ = writeln!(
        text,
        "```\n\nMemory grew by {:.0} KB for a million calls. {} faults.\n",
        leak_kb_per_million(looks),
        faults.len()
    );
    faults.iter().for_each(|fault| _ = writeln!(text, "- {fault}"));
    text
}

/// Draws values as columns: of neighbours that share one, the largest. None is a dot.
fn curve(name: &str, values: &[f64]) -> String {
    const COLUMNS: [char; 9] = ['.', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let shared = values.len().div_ceil(CHART_WIDTH).max(1);
    let columns = values.chunks(shared).map(|some| {
        let largest = some.iter().copied().fold(0.0, f64::max);
        // Whatever is not nothing can be seen.
        COLUMNS[(8.0 * largest / most.max(f64::MIN_POSITIVE)).ceil() as usize]
    });
    format!("{name:>20} {most:>8} {}", columns.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(calls: f64, pss_kb: u64, fds: u64, transactions: f64) -> Look {
        let usage = Usage { pss_kb, fds, threads: 6, ..Usage::default() };
        let gauges = [0.0, 0.0, transactions, transactions, 0.0];
        Look { calls, moment: Moment { at: Duration::from_secs(60), usage, gauges } }
    }

    #[test]
    fn a_gauge_is_summed_over_its_labels_and_its_absence_is_no_zero() {
        let page = "# TYPE tandem_calls gauge\ntandem_calls{phase=\"ringing\"} 2\n\
                    tandem_calls{phase=\"talking\"} 3\ntandem_calls_started_total 9\ntandem_sip_dialogs 4\n";
        let seen = ["calls", "sip_dialogs", "sip_transactions"].map(|name| gauge(page, name));
        assert_eq!(seen, [5.0, 4.0, -1.0]);
    }

    #[test]
    fn what_is_left_is_a_fault_and_a_leak_has_a_rate() {
        let well = vec![look(1000.0, 50_000, 40, 0.0), look(501_000.0, 50_500, 40, 0.0)];
        assert_eq!(left(&well), [""; 0]);
        assert_eq!(leak_kb_per_million(&well), 1000.0);
        let chart = well.iter().map(|look| look.moment.clone()).collect();
        let told = document(&Seen { looks: well, chart, faults: vec![] });
        assert!(told.contains("Memory grew by 1000 KB for a million calls. 0 faults."), "{told}");
        assert!(told.contains("          sip_timers        0 ..\n"), "{told}");
        let ill = [look(1000.0, 50_000, 40, 0.0), look(2000.0, 60_000, 41, 7.0)];
        assert_eq!(left(&ill).len(), 4, "{:?}", left(&ill));
        assert_eq!(left(&[]).len(), 1);
        assert_eq!(left(&ill[..1]).len(), 1);
    }

    #[test]
    fn a_curve_is_as_wide_as_it_may_be() {
        assert_eq!(curve("calls", &[0.0, 1.0, 40.0, 80.0]), "               calls       80 .▁▄█");
        let long = curve("calls", &[3.0; 2 * CHART_WIDTH + 1]);
        assert_eq!(long.matches('█').count(), 67);
    }
}
