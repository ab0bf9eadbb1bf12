//! `suite`: everything that is measured, in one run, held against what must be.
//!
//! Owns: the order of the runs. Never: measures: each load is a process of its own.

pub mod overload;
mod place;
mod results;
mod row;
mod runs;
pub mod soak;
mod stage;
mod subjects;
pub mod train;
mod verdict;

use crate::{Sample, process};
use anyhow::{Context, Result, ensure};
use place::Network;
use results::{Document, Head};
use runs::Runs;
use stage::Stage;
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use subjects::{FROM_USER, PASSWORD, Setup};

/// What to measure, and where to write it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Tandem's binary: a release build.
    #[arg(long, default_value = "target/release/tandem")]
    pub tandem: PathBuf,
    /// The document.
    #[arg(long, default_value = "bench/RESULTS.md")]
    pub out: PathBuf,
    /// Every line of every run, beside it.
    #[arg(long)]
    pub lines: Option<PathBuf>,
    /// Short runs, not repeated: a look, not a result.
    #[arg(long)]
    pub quick: bool,
    /// Kamailio and rtpengine too.
    #[arg(long)]
    pub peers: bool,
    /// How often each short run is repeated, in turn with the others.
    #[arg(long, default_value_t = 3)]
    pub repeats: u32,
    /// Only runs whose name has this in it.
    #[arg(long)]
    pub only: Option<String>,
}

/// Measures everything, and writes the document. True if all passes, or if it was but a look.
///
/// # Errors
/// If there is no network namespace to be had, or nothing to measure.
pub fn run(args: &Args) -> Result<bool> {
    let start = Instant::now();
    let stage = Stage::set(&args.tandem, Network::Own)?;
    let mut suite = Suite { args, stage, runs: Runs::default() };
    suite.all();
    let remarks = vec![
        format!(
            "target on core {}, generator on core {}, in a network namespace of their own",
            suite.stage.place.target_core, suite.stage.place.own_core
        ),
        format!(
            "at most {} descriptors a process, so the most held calls are {}; {} s in all",
            suite.stage.descriptors,
            suite.most_held(),
            start.elapsed().as_secs()
        ),
    ];
    let command = match (args.quick, args.peers) {
        (true, _) => "make bench QUICK=1",
        (false, true) => "make bench-peers",
        (false, false) => "make bench",
    };
    let head = Head { command: command.to_owned(), quick: args.quick, remarks };
    let document = Document { head: &head, runs: &suite.runs }.to_string();
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&args.out, &document).with_context(|| args.out.display().to_string())?;
    if let Some(lines) = &args.lines {
        suite.write_lines(lines)?;
    }
    let failed = verdict::CRITERIA.iter().filter(|criterion| !criterion.passes(&suite.runs));
    let failed: Vec<_> = failed.map(|criterion| criterion.what).collect();
    eprintln!("{}: {} do not pass: {failed:#?}", args.out.display(), failed.len());
    suite.runs.troubles.iter().for_each(|trouble| eprintln!("not run: {trouble}"));
    Ok(suite.runs.troubles.is_empty() && (args.quick || failed.is_empty()))
}

struct Suite<'a> {
    args: &'a Args,
    stage: Stage,
    runs: Runs,
}

impl Suite<'_> {
    fn all(&mut self) {
        let repeats = if self.args.quick { 1 } else { self.args.repeats };
        for repeat in 0..repeats {
            eprintln!("repeat {} of {repeats}", repeat + 1);
            (0..5).for_each(|_| self.try_run(row::START, Self::start));
            self.calls(row::CALLS_1000, 1000, &[]);
            self.calls(row::CALLS_4000, 4000, &[]);
            self.try_run(row::DIGEST_1000, Self::digest);
            self.registrations();
            self.media(row::MEDIA_800, 800, 0);
            self.media(row::MEDIA_800_COALESCED, 800, 1);
            self.media(row::MEDIA_400, 400, 0);
            if self.args.peers {
                self.peers();
            }
        }
        self.rates();
        self.workers();
        self.held(row::HELD_10, 10);
        self.held(row::HELD_1000, 1000);
        self.held(row::HELD_5000, self.most_held());
        self.try_run(row::IDLE_1000, Self::idle);
        self.try_run(row::PHONES_50000, Self::many_phones);
        if !self.args.quick {
            self.most_media();
            self.second_opinion();
            self.try_run(row::MILLION, Self::million);
        }
    }

    /// Runs something unless it is not wanted; what cannot be run is noted.
    fn try_run(&mut self, row: &str, run: impl FnOnce(&Self) -> Result<Vec<Sample>>) {
        if self.args.only.as_ref().is_some_and(|only| !row.contains(only.as_str())) {
            return;
        }
        match run(self) {
            Ok(samples) => {
                for sample in samples {
                    eprintln!("{row}: {}: {:?}", sample.subject, sample.faults);
                    self.runs.push(row, sample);
                }
            }
            Err(error) => {
                eprintln!("{row}: {error:#}");
                self.runs.troubles.push(format!("{row}: {error:#}"));
            }
        }
    }

    fn seconds(&self, full: u32) -> String {
        if self.args.quick { 2 } else { full }.to_string()
    }

    fn start(&self) -> Result<Vec<Sample>> {
        let running = self.stage.tandem(Setup::default())?;
        let ready_ms = 1e3 * running.ready.as_secs_f64();
        Ok(vec![Sample::new("start", "tandem").got("ready_ms", ready_ms)])
    }

    /// Tandem, then the floor.
    fn calls(&mut self, row: &str, per_s: u32, more: &[&str]) {
        let (rate, seconds) = (per_s.to_string(), self.seconds(4));
        let mut load = vec!["calls", "--from-user", FROM_USER, "--rate", &rate];
        load.extend(["--seconds", &seconds]);
        load.extend(more);
        self.try_run(row, |suite| {
            let running = suite.stage.tandem(Setup::default())?;
            suite.stage.load(("tandem", &running), &load)
        });
        self.try_run(row, |suite| {
            let running = subjects::floor_b2bua(&suite.stage.place)?;
            suite.stage.load(("floor", &running), &load)
        });
    }

    /// Higher rates, until one is not clean; what fails is shown, too.
    fn rates(&mut self) {
        for (row, per_s) in row::RATES.into_iter().zip(row::RATES_PER_S) {
            self.calls(row, per_s, &["--settle", "1"]);
            let sums = self.runs.sum(row, "tandem", &["failed", "resent", "repeated"]);
            if self.args.quick || sums.is_none_or(|sums| sums.max > 0.0) {
                return;
            }
        }
    }

    fn digest(&self) -> Result<Vec<Sample>> {
        let running = self.stage.tandem(Setup::default())?;
        let load = ["calls", "--from-user", FROM_USER, "--rate", "1000", "--user", "1001"];
        let seconds = self.seconds(5);
        let more = ["--password", PASSWORD, "--caller", "127.0.0.11:5060", "--seconds", &seconds];
        self.stage.load(("tandem", &running), &[&load[..], &more].concat())
    }

    fn registrations(&mut self) {
        let rounds = self.seconds(5);
        let load = ["register", "--phones", "12000", "--rate", "12000", "--rounds", &rounds];
        self.try_run(row::REGISTER, |suite| {
            let running = suite.stage.tandem(Setup { phones: 12_000, ..Setup::default() })?;
            suite.stage.load(("tandem", &running), &load)
        });
        self.try_run(row::REGISTER, |suite| {
            let running = subjects::floor_b2bua(&suite.stage.place)?;
            suite.stage.load(("floor", &running), &load)
        });
    }

    /// Four descriptors a call, and some for the rest.
    fn most_held(&self) -> u64 {
        let most = (self.stage.descriptors.saturating_sub(100) / 4).min(5000);
        if self.args.quick { most.min(2000) } else { most }
    }

    fn held(&mut self, row: &str, calls: u64) {
        let (calls, beside) = (calls.to_string(), if self.args.quick { "1000" } else { "3000" });
        let load = ["held", "--calls", &calls, "--beside", beside, "--beside-rate", "1000"];
        let seconds = self.seconds(5);
        let more = ["--rate", "1000", "--from-user", FROM_USER, "--seconds", &seconds];
        self.try_run(row, |suite| {
            let running = suite.stage.tandem(Setup::default())?;
            suite.stage.load(("tandem", &running), &[&load[..], &more].concat())
        });
    }

    fn idle(&self) -> Result<Vec<Sample>> {
        let running = self.stage.tandem(Setup { phones: 1000, ..Setup::default() })?;
        let registered =
            self.stage.load(("tandem", &running), &["register", "--phones", "1000"])?;
        ensure!(registered[0].figure("done") == Some(1000.0), "{:?}", registered[0].faults);
        self.stage.load(("tandem", &running), &["idle", "--seconds", &self.seconds(10)])
    }

    fn many_phones(&self) -> Result<Vec<Sample>> {
        let running = self.stage.tandem(Setup { phones: 50_000, ..Setup::default() })?;
        let load = ["register", "--phones", "50000", "--rate", "5000"];
        self.stage.load(("tandem", &running), &load)
    }

    fn million(&self) -> Result<Vec<Sample>> {
        let running = self.stage.tandem(Setup::default())?;
        let load = ["calls", "--from-user", FROM_USER, "--rate", "3000", "--count", "1000000"];
        self.stage.load(("tandem", &running), &load)
    }

    fn media(&mut self, row: &str, calls: u32, coalesce_ms: u32) {
        let (seconds, number) = (self.seconds(6), calls.to_string());
        let load = ["media", "--calls", &number, "--seconds", &seconds, "--warm", "1"];
        let load = [&load[..], &["--calls-per-s", "400"]].concat();
        self.try_run(row, |suite| {
            let running = suite.stage.tandem(Setup { coalesce_ms, ..Setup::default() })?;
            let way = ["--sip", subjects::TARGET];
            suite.stage.load(("tandem", &running), &[&load[..], &way].concat())
        });
        self.try_run(row, |suite| {
            let running = subjects::floor_relay(&suite.stage.place, calls, coalesce_ms)?;
            let way = ["--direct", "127.0.0.1:20000"];
            suite.stage.load(("floor", &running), &[&load[..], &way].concat())
        });
    }

    /// On two cores, one of which is the generator's as well: with twice the calls for two workers, and
    /// with coalescing, so that no packet is cheap because its worker had to wait for a core.
    fn workers(&mut self) {
        let seconds = self.seconds(6);
        for (subject, workers, calls) in
            [(row::ONE_WORKER, None, 400), (row::TWO_WORKERS, Some(2), 800)]
        {
            let calls = if self.args.quick { calls / 4 } else { calls }.to_string();
            let load = ["media", "--calls", &calls, "--seconds", &seconds, "--warm", "1"];
            let load = [&load[..], &["--calls-per-s", "400", "--sip", subjects::TARGET]].concat();
            self.try_run(row::WORKERS, |suite| {
                let setup = Setup { workers, coalesce_ms: 1, ..Setup::default() };
                suite.stage.load((subject, &suite.stage.tandem(setup)?), &load)
            });
        }
    }

    /// Streams share addresses of the generator here: where each has its own, it is the generator
    /// that first has no time left.
    fn most_media(&mut self) {
        let steps = "800,1200,1600,2000,2400,2800,3200,3600";
        let load = ["media", "--seconds", "4", "--warm", "1", "--share", "20", "--search", steps];
        let load = [&load[..], &["--calls-per-s", "400"]].concat();
        self.try_run(row::MEDIA_MOST, |suite| {
            let running = suite.stage.tandem(Setup::default())?;
            let way = ["--sip", subjects::TARGET];
            suite.stage.load(("tandem", &running), &[&load[..], &way].concat())
        });
        self.try_run(row::MEDIA_MOST, |suite| {
            let running = subjects::floor_relay(&suite.stage.place, 3600, 0)?;
            let way = ["--direct", "127.0.0.1:20000"];
            suite.stage.load(("floor", &running), &[&load[..], &way].concat())
        });
    }

    /// SIPp's own scenarios are the same call; it cannot call much faster.
    fn second_opinion(&mut self) {
        self.try_run(row::SIPP, |suite| {
            let running = suite.stage.tandem(Setup::default())?;
            let _callee = subjects::sipp_callee(&suite.stage.place)?;
            let before = process::cpu(running.pid())?;
            let mut caller = Command::new("sipp");
            caller.args(["-sn", "uac", "-i", "127.0.0.10", "-p", "5060", "-nostdin"]);
            caller.args(["-s", "+14155550199", "-r", "300", "-m", "1500", subjects::TARGET]);
            caller
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .current_dir(suite.stage.place.folder());
            let status =
                suite.stage.place.spawn_on(suite.stage.place.own_core, &mut caller)?.wait()?;
            // As long as ours waits for the records.
            std::thread::sleep(Duration::from_millis(2500));
            let cpu = (process::cpu(running.pid())? - before).as_secs_f64();
            let mut sample =
                Sample::new("sipp", "tandem").got("cpu_ms_per_call", 1e3 * cpu / 1500.0);
            if !status.success() {
                sample.faults.push(format!("SIPp: {status}"));
            }
            Ok(vec![sample])
        });
        self.try_run(row::SIPP_OURS, |suite| {
            let running = suite.stage.tandem(Setup::default())?;
            let load = ["calls", "--from-user", FROM_USER, "--rate", "300", "--count", "1500"];
            suite.stage.load(("tandem", &running), &load)
        });
    }

    /// Others, as columns beside Tandem and the floors. Kamailio is a proxy: it forces no From.
    fn peers(&mut self) {
        let seconds = self.seconds(5);
        self.try_run(row::CALLS_1000, |suite| {
            let running = subjects::kamailio(&suite.stage.place)?;
            let load = ["calls", "--rate", "1000", "--seconds", &seconds];
            suite.stage.load(("kamailio", &running), &load)
        });
        for (row, calls) in [(row::MEDIA_800, "800"), (row::MEDIA_400, "400")] {
            self.try_run(row, |suite| {
                let running = subjects::rtpengine(&suite.stage.place)?;
                let load = ["media", "--calls", calls, "--seconds", &seconds, "--warm", "1"];
                let way = ["--calls-per-s", "400", "--ng", subjects::RTPENGINE];
                suite.stage.load(("rtpengine", &running), &[&load[..], &way].concat())
            });
        }
    }

    fn write_lines(&self, path: &PathBuf) -> Result<()> {
        let mut text = String::new();
        for (_, subjects) in self.runs.rows() {
            for sample in subjects.values().flatten() {
                text.push_str(&sample.line()?);
                text.push('\n');
            }
        }
        fs::write(path, text).with_context(|| path.display().to_string())
    }
}
