//! `calls`: short calls at a steady rate, whatever becomes of them.
//!
//! Owns: the schedule and the measurement. Never: a message.

use crate::{
    Sample,
    engine::{self, Ends, Engine},
    pace::Pace,
    process::{self, Usage},
    tally::Tally,
};
use anyhow::Result;
use std::time::{Duration, Instant};

/// How many calls, how fast, of what length.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The target and who speaks to it.
    #[command(flatten)]
    pub ends: Ends,
    /// Calls begun per second.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// For how long calls are begun.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Calls to begin, instead of a time.
    #[arg(long)]
    pub count: Option<u64>,
    /// How long a call is up.
    #[arg(long, default_value_t = 0.0)]
    pub hold: f64,
    /// What is waited for after the last call before the target's cost is read: it may still write
    /// records.
    #[arg(long, default_value_t = 2.5)]
    pub settle: f64,
    /// For how long calls are begun after these at 1,000 a second, to see when all is as it was.
    #[arg(long, default_value_t = 0.0)]
    pub after: f64,
}

impl Args {
    fn calls(&self) -> u64 {
        self.count.unwrap_or((self.rate * self.seconds) as u64).max(1)
    }
}

/// Calls from so many on have their memory watched while they go on.
const LONG_RUN: u64 = 200_000;
/// How often that is.
const FIFTHS: u64 = 5;
/// Calls begun per second in `--after`, and for how long they are looked at together.
const AFTER_PER_S: f64 = 1000.0;
const AFTER_WINDOW: Duration = Duration::from_millis(500);

/// Makes the calls.
///
/// # Errors
/// If an address cannot be bound, or the target's process is not there.
pub fn run(args: &Args) -> Result<Sample> {
    let ends = &args.ends;
    let mut engine = Engine::new(ends, Duration::from_secs_f64(args.hold))?;
    let sample = Sample::new("calls", &ends.subject)
        .asked("calls_per_s", args.rate)
        .asked("calls", args.calls() as f64)
        .asked("hold_s", args.hold);
    let sample = engine::asked(ends, sample);

    let before = engine::usage(ends)?;
    let own = process::cpu(std::process::id())?;
    let mut watch = Watch::new(args.calls());
    let busy = begin(&mut engine, args.rate, args.calls(), |begun| watch.see(ends, begun))?;
    let in_time = engine.tally().done;
    let windows = (args.after / AFTER_WINDOW.as_secs_f64()) as usize;
    for _ in 0..windows {
        engine.caller.turn_the_page();
        let calls = AFTER_PER_S * AFTER_WINDOW.as_secs_f64();
        begin(&mut engine, AFTER_PER_S, calls as u64, |_| Ok(()))?;
    }
    end(&mut engine, 0)?;
    let own = process::cpu(std::process::id())? - own;
    engine.linger(Duration::from_secs_f64(args.settle))?;
    let after = engine::usage(ends)?;

    let tally = engine.tally_of(1);
    let sample = tally.note(busy.beginning, sample).got("late_max_ms", busy.late_max_ms());
    let goodput = in_time as f64 / busy.beginning.as_secs_f64().max(1e-9);
    let sample = sample.got("done_in_time_per_s", goodput);
    let sample = match normal_after(engine.caller.chapters().skip(1)) {
        Some(after) if windows > 0 => sample.got("normal_after_s", after.as_secs_f64()),
        Some(_) | None => sample,
    };
    let sample = tally.ending.note("bye", tally.setup.note("setup", sample));
    let sample =
        sample.got("generator_cpu_ms_per_call", 1e3 * own.as_secs_f64() / tally.begun as f64);
    // What was refused was cheap, and is not what is asked about.
    Ok(cost(tally.done.max(1), [before, watch.peak, after], watch.note(sample)))
}

/// From when on no call failed or had to wait for a repetition; `None` if that did not come.
fn normal_after<'a>(windows: impl Iterator<Item = &'a Tally>) -> Option<Duration> {
    let is_clean = |window: &Tally| window.done == window.begun && window.resent == 0;
    let clean: Vec<bool> = windows.map(is_clean).collect();
    let ill = clean.iter().rposition(|is_clean| !is_clean).map_or(0, |last| last + 1);
    (ill < clean.len()).then(|| AFTER_WINDOW * ill as u32)
}

/// When calls were begun.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    /// From the first to the last.
    pub beginning: Duration,
    late_max: Duration,
}

impl Busy {
    /// The most that a call was begun after its time: a generator that is itself too slow shows here.
    pub fn late_max_ms(&self) -> f64 {
        self.late_max.as_secs_f64() * 1e3
    }
}

/// Makes so many calls that do not stay, and waits until they are over; those that stay are let alone.
/// `see` is told how many are begun.
///
/// # Errors
/// If a socket is broken.
pub fn make(
    engine: &mut Engine,
    rate: f64,
    calls: u64,
    see: impl FnMut(u64) -> Result<()>,
) -> Result<Busy> {
    let staying = engine.caller.live();
    let busy = begin(engine, rate, calls, see)?;
    end(engine, staying)?;
    Ok(busy)
}

/// Waits until no more than so many calls are left.
fn end(engine: &mut Engine, staying: usize) -> Result<()> {
    while engine.caller.live() > staying {
        engine.turn(Instant::now())?;
    }
    Ok(())
}

/// Begins so many calls that do not stay.
fn begin(
    engine: &mut Engine,
    rate: f64,
    calls: u64,
    mut see: impl FnMut(u64) -> Result<()>,
) -> Result<Busy> {
    let start = Instant::now();
    let mut pace = Pace::new(start, rate, calls);
    let mut busy = Busy { beginning: Duration::ZERO, late_max: Duration::ZERO };
    while let Some(due) = pace.next() {
        let now = Instant::now();
        busy.late_max = busy.late_max.max(now.saturating_duration_since(due));
        busy.beginning = now - start;
        let new = pace.take_due(now);
        (0..new).for_each(|_| engine.caller.begin(false, now));
        engine.turn(now)?;
        if new > 0 {
            see(pace.begun())?;
        }
    }
    Ok(busy)
}

/// The target's use while calls go on.
#[derive(Debug)]
struct Watch {
    calls: u64,
    peak: Option<Usage>,
    seen: Vec<(u64, u64)>,
}

impl Watch {
    fn new(calls: u64) -> Self {
        Self { calls, peak: None, seen: vec![] }
    }

    fn see(&mut self, ends: &Ends, begun: u64) -> Result<()> {
        let next = (self.seen.len() as u64 + 1) * self.calls / FIFTHS;
        let is_long = self.calls >= LONG_RUN;
        if is_long && begun >= next && begun < self.calls {
            let usage = engine::usage(ends)?;
            self.seen.push((begun, usage.map_or(0, |usage| usage.pss_kb)));
        }
        if begun == self.calls {
            self.peak = engine::usage(ends)?;
        }
        Ok(())
    }

    /// Notes how memory grew from the first fifth of a long run to its end, in percent.
    fn note(&self, mut sample: Sample) -> Sample {
        for (begun, pss_kb) in &self.seen {
            sample = sample.got(&format!("at_{begun}_pss_kb"), *pss_kb as f64);
        }
        match (self.seen.first(), self.peak) {
            (Some((_, first)), Some(peak)) if *first > 0 => {
                let growth = 100.0 * (peak.pss_kb as f64 / *first as f64 - 1.0);
                sample.got("pss_growth_percent", growth)
            }
            (Some(_), Some(_)) | (Some(_), None) | (None, _) => sample,
        }
    }
}

/// Notes CPU time per call that was done, and what was used before, at the peak and after.
fn cost(calls: u64, used: [Option<Usage>; 3], sample: Sample) -> Sample {
    let [Some(before), Some(peak), Some(after)] = used else { return sample };
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let sample = sample.got("cpu_ms_per_call", 1e3 * cpu / calls as f64);
    after.note("after", peak.note("peak", before.note("before", sample)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_normal_after_the_last_window_that_was_not() {
        let window = |done, resent| {
            let mut tally = Tally::default();
            (tally.begun, tally.done, tally.resent) = (500, done, resent);
            tally
        };
        let (clean, failed, resent) = (window(500, 0), window(499, 0), window(500, 1));
        for (windows, want) in [
            (vec![&clean, &clean], Some(0)),
            (vec![&failed, &clean, &resent, &clean, &clean], Some(1500)),
            (vec![&clean, &failed], None),
            (vec![], None),
        ] {
            assert_eq!(normal_after(windows.into_iter()), want.map(Duration::from_millis));
        }
    }
}
