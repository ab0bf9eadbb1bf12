//! `overload`: how many calls there is time for, and what becomes of twice and of five times as many.
//!
//! The machine is never as fast as a moment before. What becomes of more is therefore held against the most that any run of
//! the same round completed, and the middle round counts; the best moment of the whole series is a matter of luck.
//!
//! Owns: the order of the runs, and the verdict. Never: a load of its own.

use super::{
    place::Network,
    runs::Spread,
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
/// How many times what there was time for a moment before.
const TIMES: [f64; 2] = [2.0, 5.0];
/// How long it is watched after too much, in seconds.
const AFTER_S: f64 = 8.0;
/// What must be: the share of the most that is completed, the 99th percentile from INVITE to 200, and when all is
/// as it was.
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
    /// How many rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,
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
}

/// As many calls as there is time for, and right after it [`TIMES`] as many as those that were completed.
type Round = [Run; 1 + TIMES.len()];

/// What became of so many times as many calls, over the rounds.
struct Outcome {
    times: f64,
    /// Of the most that was completed in the same round.
    share: Spread,
    /// The worst round's.
    setup_p99_ms: f64,
    /// The worst round's.
    normal_after_s: f64,
}

impl Outcome {
    /// Of the runs of the nth of [`TIMES`]; none without rounds.
    fn of(rounds: &[Round], nth: usize) -> Option<Self> {
        let place = 1 + nth;
        let most = |round: &Round| round.iter().map(Run::goodput).fold(0.0, f64::max);
        let share = |round: &Round| round[place].goodput() / most(round);
        // A figure that is missing is no number, which is more than any.
        let worst = |name| {
            let all = rounds.iter().map(|round| round[place].figure(name));
            all.max_by(f64::total_cmp)
        };
        Some(Self {
            times: TIMES[nth],
            share: Spread::of(rounds.iter().map(share).collect())?,
            setup_p99_ms: worst("setup_p99_ms")?,
            normal_after_s: worst("normal_after_s")?,
        })
    }

    /// What is not as it must be.
    fn faults(&self) -> Vec<String> {
        let mut faults = vec![];
        let mut hold = |holds: bool, what: String| {
            if !holds {
                faults.push(format!("{} times as many: {what}", self.times));
            }
        };
        let (share, setup_ms, normal_s) =
            (self.share.median, self.setup_p99_ms, self.normal_after_s);
        hold(share >= GOODPUT_MIN, format!("{:.1} % of the capacity", 100.0 * share));
        hold(setup_ms <= SETUP_MAX_MS, format!("INVITE to 200 takes {setup_ms:.0} ms (p99)"));
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
    let searched = search(&stage, args.least)?;
    let most = searched.iter().map(Run::goodput).fold(0.0, f64::max);
    let rounds = (0..args.rounds).map(|_| round(&stage, most, args.seconds));
    let rounds = rounds.collect::<Result<Vec<_>>>()?;
    let outcomes = (0..TIMES.len()).map(|nth| Outcome::of(&rounds, nth));
    let outcomes: Vec<_> = outcomes.collect::<Option<_>>().context("no round")?;
    let document = document(&searched, &rounds, &outcomes);
    if let Some(folder) = args.out.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&args.out, &document).with_context(|| args.out.display().to_string())?;
    eprint!("{document}");
    Ok(outcomes.iter().all(|outcome| outcome.faults().is_empty()))
}

/// Asks for what there was time for once, and for more than is completed of it now.
fn round(stage: &Stage, most: f64, seconds: f64) -> Result<Round> {
    let enough = load(stage, most, seconds, 0.0)?;
    let more = |times: f64| load(stage, times * enough.goodput(), seconds, AFTER_S);
    let [twice, five] = TIMES.map(more);
    Ok([enough, twice?, five?])
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

fn document(searched: &[Run], rounds: &[Round], outcomes: &[Outcome]) -> String {
    let most = searched.iter().map(Run::goodput).fold(0.0, f64::max);
    let mut text = format!(
        "# Overload\n\nMade by `tandem-bench overload`; not written by hand. More and more calls were asked for, of which {most:.0} a \
         second were completed at most; then, in rounds, just so many, and more than were completed of these.\n\n\
         | round | asked/s | completed/s | INVITE to 200, p50 and p99, ms | memory, MB | normal after, s | \
         generator late, ms | host took, ms |\n|---|---|---|---|---|---|---|---|\n"
    );
    let searched = searched.iter().map(|run| ("search".to_owned(), run));
    let numbered = rounds.iter().zip(1..);
    let played = numbered.flat_map(|(round, n)| round.iter().map(move |run| (n.to_string(), run)));
    for (name, run) in searched.chain(played) {
        let normal = run.sample.figure("normal_after_s").map_or("-".to_owned(), |s| s.to_string());
        _ = writeln!(
            text,
            "| {name} | {:.0} | {:.0} | {:.1}, {:.1} | {:.0} | {normal} | {:.0} | {} |",
            run.asked(),
            run.goodput(),
            run.figure("setup_p50_ms"),
            run.figure("setup_p99_ms"),
            run.figure("peak_pss_kb") / 1024.0,
            run.figure("late_max_ms"),
            run.stolen.as_millis(),
        );
    }
    text.push_str(
        "\n| times as many | completed, of the round's most (least to most) | INVITE to 200, p99, ms, at worst | \
         normal after, s, at worst |\n|---|---|---|---|\n",
    );
    for Outcome { times, share, setup_p99_ms, normal_after_s } in outcomes {
        let [median, min, max] = [share.median, share.min, share.max].map(|share| 100.0 * share);
        _ = writeln!(
            text,
            "| {times} | {median:.1} % ({min:.1} to {max:.1}) | {setup_p99_ms:.0} | {normal_after_s} |"
        );
    }
    let faults: Vec<_> = outcomes.iter().flat_map(Outcome::faults).collect();
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

    fn round(done: [f64; 2], p99_ms: f64, normal_s: Option<f64>) -> Round {
        let [one, more] = done;
        [ran(one, 9.0, None), ran(one, 9.0, Some(0.5)), ran(more, p99_ms, normal_s)]
    }

    #[test]
    fn each_promise_is_held_to_by_the_middle_or_the_worst_round() {
        let well = round([3000.0, 2700.0], 1000.0, Some(5.0));
        let noisy = round([1000.0, 800.0], 20.0, Some(0.5));
        let lucky = round([1000.0, 1100.0], 20.0, Some(0.5));
        let rounds = [noisy, well, lucky];
        let outcome = Outcome::of(&rounds, 1).unwrap();
        assert_eq!(outcome.faults(), [""; 0]);
        let told = document(&[ran(2900.0, 1.0, None)], &rounds, &[outcome]);
        assert!(told.contains("of which 2900 a second"), "{told}");
        assert!(told.contains("| search | 6000 | 2900 | NaN, 1.0 | NaN | - | NaN | 0 |"), "{told}");
        assert!(told.contains("| 2 | 6000 | 2700 | NaN, 1000.0 | NaN | 5 |"), "{told}");
        assert!(
            told.ends_with("| 5 | 90.0 % (80.0 to 100.0) | 1000 | 5 |\n\n0 faults.\n"),
            "{told}"
        );

        let rounds =
            [round([3000.0, 2600.0], 9.0, None), round([3000.0, 2600.0], 1001.0, Some(1.0))];
        let outcome = Outcome::of(&rounds, 1).unwrap();
        let want = [
            "5 times as many: 86.7 % of the capacity",
            "5 times as many: INVITE to 200 takes 1001 ms (p99)",
            "5 times as many: normal after NaN s",
        ];
        assert_eq!(outcome.faults(), want);
        assert_eq!(Outcome::of(&rounds, 0).unwrap().faults(), [""; 0]);
        assert!(Outcome::of(&[], 0).is_none());
    }
}
