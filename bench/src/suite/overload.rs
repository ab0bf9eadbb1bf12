//! `overload`: how many calls there is time for, and what becomes of twice and of five times as many.
//!
//! Owns: the order of the runs, and the verdict. Never: a load of its own.

use super::{
    place::Network,
    stage::Stage,
    subjects::{FROM_USER, Setup},
};
use crate::{Sample, process};
use anyhow::{Context, Result};
use std::{
    fmt::Write as _,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

/// By how much the rate rises while there is time for all calls.
const STEP: f64 = 1.2;
/// As many calls of those asked for must complete for that.
const CARRIED: f64 = 0.9;
/// So many rates in a row that are not carried end the search.
const BEYOND: usize = 2;
/// How long each of those runs is, in seconds.
const SEARCH_S: f64 = 2.5;
/// How many times what there is time for.
const TIMES: [f64; 2] = [2.0, 5.0];
/// How long it is watched afterwards, in seconds.
const AFTER_S: f64 = 8.0;
/// What must be: the share of the capacity, the 99th percentile from INVITE to 200, and when all is as it was.
const GOODPUT_MIN: f64 = 0.9;
const SETUP_MAX_MS: f64 = 1000.0;
const NORMAL_MAX_S: f64 = 5.0;

/// Of what, and where to write it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Tandem's binary: a release build.
    #[arg(long, default_value = "target/release/tandem")]
    pub tandem: PathBuf,
    /// The least rate that is tried, in calls a second.
    #[arg(long, default_value_t = 2000.0)]
    pub least: f64,
    /// For how long there is too much.
    #[arg(long, default_value_t = 6.0)]
    pub seconds: f64,
    /// The document.
    #[arg(long, default_value = "target/bench/OVERLOAD.md")]
    pub out: PathBuf,
}

/// A run, and how long the host took a core away meanwhile.
struct Run {
    sample: Sample,
    stolen: Duration,
}

impl Run {
    fn figure(&self, name: &str) -> f64 {
        self.sample.figure(name).unwrap_or(f64::NAN)
    }

    fn asked(&self) -> f64 {
        self.sample.asked.get("calls_per_s").copied().unwrap_or(f64::NAN)
    }

    fn goodput(&self) -> f64 {
        self.figure("done_in_time_per_s")
    }

    /// What is not as it must be, where there is time for so many calls.
    fn faults(&self, capacity: f64) -> Vec<String> {
        let asked = self.asked();
        let mut faults = vec![];
        let mut hold = |holds: bool, what: String| {
            if !holds {
                faults.push(format!("{asked:.0} asked: {what}"));
            }
        };
        let share = self.goodput() / capacity;
        hold(share >= GOODPUT_MIN, format!("{:.1} % of the capacity", 100.0 * share));
        let setup_ms = self.figure("setup_p99_ms");
        hold(setup_ms <= SETUP_MAX_MS, format!("INVITE to 200 takes {setup_ms:.0} ms (p99)"));
        let normal_s = self.figure("normal_after_s");
        hold(normal_s <= NORMAL_MAX_S, format!("normal after {normal_s} s"));
        faults
    }
}

/// Plays the series; true if all is as it must be.
///
/// # Errors
/// If there is no network namespace to be had, or a load cannot be run.
pub fn run(args: &Args) -> Result<bool> {
    let stage = Stage::set(&args.tandem, Network::Own)?;
    let mut runs = search(&stage, args.least)?;
    let capacity = runs.iter().map(Run::goodput).fold(0.0, f64::max);
    let mut faults = vec![];
    for times in TIMES {
        let run = load(&stage, times * capacity, args.seconds, AFTER_S)?;
        faults.extend(run.faults(capacity));
        runs.push(run);
    }
    let document = document(&runs, capacity, &faults);
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&args.out, &document).with_context(|| args.out.display().to_string())?;
    eprint!("{document}");
    Ok(faults.is_empty())
}

/// Asks for more and more, until that is too much.
fn search(stage: &Stage, least: f64) -> Result<Vec<Run>> {
    let (mut runs, mut beyond, mut rate) = (vec![], 0, least);
    while beyond < BEYOND {
        let run = load(stage, rate, SEARCH_S, 0.0)?;
        beyond = if run.goodput() < CARRIED * rate { beyond + 1 } else { 0 };
        runs.push(run);
        rate *= STEP;
    }
    Ok(runs)
}

/// Each run has a Tandem of its own.
fn load(stage: &Stage, rate: f64, seconds: f64, after: f64) -> Result<Run> {
    let (rate, seconds, after) = (format!("{rate:.0}"), seconds.to_string(), after.to_string());
    let load = ["calls", "--from-user", FROM_USER, "--rate", &rate, "--seconds", &seconds];
    let more = ["--after", &after, "--settle", "0.2"];
    let running = stage.tandem(Setup::default())?;
    let (began, before) = (Instant::now(), process::stolen()?);
    let samples = stage.load(("tandem", &running), &[&load[..], &more].concat())?;
    let stolen = process::stolen()?.saturating_sub(before);
    let sample = samples.into_iter().next().context("a line of figures")?;
    eprintln!("{rate} calls/s asked: {:.0} s", began.elapsed().as_secs_f64());
    Ok(Run { sample, stolen })
}

fn document(runs: &[Run], capacity: f64, faults: &[String]) -> String {
    let mut text = format!(
        "# Overload\n\nMade by `tandem-bench overload`; not written by hand. There is time for {capacity:.0} calls a second: \
         the most of any run of the search, which the first lines are.\n\n\
         | asked/s | completed/s | of the capacity | INVITE to 200, p50 and p99, ms | memory, MB | normal after, s | \
         generator late, ms | host took, ms |\n|---|---|---|---|---|---|---|---|\n"
    );
    for run in runs {
        let normal = run.sample.figure("normal_after_s").map_or("-".to_owned(), |s| s.to_string());
        _ = writeln!(
            text,
            "| {:.0} | {:.0} | {:.1} % | {:.1}, {:.1} | {:.0} | {normal} | {:.0} | {} |",
            run.asked(),
            run.goodput(),
            100.0 * run.goodput() / capacity,
            run.figure("setup_p50_ms"),
            run.figure("setup_p99_ms"),
            run.figure("peak_pss_kb") / 1024.0,
            run.figure("late_max_ms"),
            run.stolen.as_millis(),
        );
    }
    _ = writeln!(text, "\n{} faults.", faults.len());
    faults.iter().for_each(|fault| _ = writeln!(text, "- {fault}"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(done: f64, p99_ms: f64, normal_s: Option<f64>) -> Run {
        let sample = Sample::new("calls", "tandem").asked("calls_per_s", 6000.0);
        let sample = sample.got("done_in_time_per_s", done).got("setup_p99_ms", p99_ms);
        let sample = match normal_s {
            Some(normal_s) => sample.got("normal_after_s", normal_s),
            None => sample,
        };
        Run { sample, stolen: Duration::ZERO }
    }

    #[test]
    fn each_promise_is_held_to() {
        assert_eq!(ran(2700.0, 1000.0, Some(5.0)).faults(3000.0), [""; 0]);
        let ill = ran(2600.0, 1001.0, None).faults(3000.0);
        let want = [
            "6000 asked: 86.7 % of the capacity",
            "6000 asked: INVITE to 200 takes 1001 ms (p99)",
            "6000 asked: normal after NaN s",
        ];
        assert_eq!(ill, want);
        let told = document(&[ran(2600.0, 1001.0, None)], 3000.0, &ill);
        assert!(told.contains("| 6000 | 2600 | 86.7 % | NaN, 1001.0 |"), "{told}");
        assert!(told.ends_with("3 faults.\n- 6000 asked: 86.7 % of the capacity\n- 6000 asked: INVITE to 200 takes 1001 ms (p99)\n- 6000 asked: normal after NaN s\n"), "{told}");
    }
}
