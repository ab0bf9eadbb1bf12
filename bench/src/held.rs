//! `held`: calls that are up and have nothing to say, and what others cost beside them.
//!
//! Owns: the order of events and the measurement. Never: a message.

use crate::{
    Sample, calls,
    engine::{self, Ends, Engine},
    pace::Pace,
    process::Usage,
};
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

/// How many calls are held, for how long, and how many short ones are made beside them.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The target and who speaks to it.
    #[command(flatten)]
    pub ends: Ends,
    /// Calls that are held.
    #[arg(long, default_value_t = 1000)]
    pub calls: u64,
    /// How fast they come and go.
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// For how long they are held with nothing else to do.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Short calls made after that, while the others are held.
    #[arg(long, default_value_t = 0)]
    pub beside: u64,
    /// How fast those come.
    #[arg(long, default_value_t = 500.0)]
    pub beside_rate: f64,
    /// What is waited for before each reading: records may still be written, memory be returned.
    #[arg(long, default_value_t = 2.5)]
    pub settle: f64,
}

/// Raises the calls, holds them, makes others, and hangs up.
///
/// # Errors
/// If the calls cannot be raised, or the target's process is not there.
pub fn run(args: &Args) -> Result<Sample> {
    let ends = &args.ends;
    let mut engine = Engine::new(ends, Duration::ZERO)?;
    let mut sample = Sample::new("held", &ends.subject)
        .asked("held", args.calls as f64)
        .asked("beside", args.beside as f64)
        .asked("beside_per_s", args.beside_rate);
    sample = engine::asked(ends, sample);
    let before = engine::usage(ends)?;
    raise(&mut engine, args)?;
    let settle = Duration::from_secs_f64(args.settle);
    engine.linger(settle)?;
    let held = engine::usage(ends)?;
    engine.linger(Duration::from_secs_f64(args.seconds))?;
    let holding = engine::usage(ends)?;
    if let (Some(before), Some(held), Some(holding)) = (before, held, holding) {
        sample = per_call(args.calls as f64, before, held, sample);
        let cores = (holding.cpu - held.cpu).as_secs_f64() / args.seconds.max(1e-3);
        sample = sample.got("holding_cores", cores);
    }
    if args.beside > 0 {
        let first = engine::usage(ends)?;
        let start = Instant::now();
        calls::make(&mut engine, args.beside_rate, args.beside, |_| Ok(()))?;
        engine.linger(settle)?;
        if let (Some(first), Some(last)) = (first, engine::usage(ends)?) {
            // What the held ones cost in the meantime is theirs.
            let cores = sample.figure("holding_cores").unwrap_or(0.0);
            let theirs = cores * start.elapsed().as_secs_f64();
            let cpu = (last.cpu - first.cpu).as_secs_f64() - theirs;
            sample = sample.got("beside_cpu_ms_per_call", 1e3 * cpu / args.beside as f64);
        }
    }
    release(&mut engine, args)?;
    engine.linger(settle)?;
    if let Some(after) = engine::usage(ends)? {
        sample = after.note("after", sample);
    }
    let tally = engine.tally();
    sample = tally.setup.note("setup", sample);
    Ok(tally.note(Duration::from_secs_f64(args.calls as f64 / args.rate), sample))
}

/// Begins the calls and waits until all are up.
fn raise(engine: &mut Engine, args: &Args) -> Result<()> {
    let start = Instant::now();
    let mut pace = Pace::new(start, args.rate, args.calls);
    while pace.next().is_some() || (engine.caller.staying() as u64) < args.calls {
        let now = Instant::now();
        let new = pace.take_due(now);
        (0..new).for_each(|_| engine.caller.begin(true, now));
        engine.turn(now)?;
        let failed = engine.caller.chapters().find(|chapter| chapter.failed > 0);
        ensure!(failed.is_none(), "calls that were to be held failed: {failed:?}");
    }
    Ok(())
}

fn release(engine: &mut Engine, args: &Args) -> Result<()> {
    let mut pace = Pace::new(Instant::now(), args.rate, engine.caller.staying() as u64);
    while pace.next().is_some() || engine.caller.live() > 0 {
        let now = Instant::now();
        for _ in 0..pace.take_due(now) {
            ensure!(engine.caller.hang_up(now), "a held call has gone");
        }
        engine.turn(now).context("hanging up")?;
    }
    Ok(())
}

fn per_call(calls: f64, before: Usage, held: Usage, sample: Sample) -> Sample {
    let more = |after: u64, before: u64| (after as f64 - before as f64) / calls;
    let sample = sample
        .got("pss_kb_per_call", more(held.pss_kb, before.pss_kb))
        .got("fds_per_call", more(held.fds, before.fds))
        .got("threads_per_call", more(held.threads, before.threads));
    held.note("held", before.note("before", sample))
}
