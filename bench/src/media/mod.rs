//! `media`: streams of RTP through a relay or a B2BUA, both ends of every call here: what is lost,
//! how late packets come, and what they cost.
//!
//! Owns: the run. Never: takes its own lateness for the target's.

pub mod engine;
pub mod ng;
pub mod packet;
pub mod phones;
pub mod schedule;
pub mod sockets;
pub mod tally;
pub mod text;
pub mod way;

use crate::{
    Sample,
    process::{Meter, Reading, Usage},
};
use anyhow::{Context, Result};
use engine::{Aside, Engine, Outcome, Timing};
use ng::Ng;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use phones::{Phones, Setting};
use sockets::{raise_descriptors, v4};
use std::{net::SocketAddr, time::Duration};
use way::Way;

/// What a relay must do to be said to carry its calls.
const LOSS_MAX: f64 = 0.001;
const DELAY_P99_MAX: Duration = Duration::from_millis(5);
/// A sender that is later than this sends in heaps, and what becomes of those is its own fault.
const LATE_P99_MAX: Duration = Duration::from_millis(2);

/// More than this of a core taken away by the host makes delays that are not the target's.
const STOLEN_MAX: f64 = 0.005;
/// How often a number of calls is tried in a search.
const ATTEMPTS: u32 = 3;

/// What to stream through what.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    through: Through,
    #[command(flatten)]
    amount: Amount,
    /// The target's process; its children count. Without it nothing is said of its cost.
    #[arg(long)]
    pub pid: Option<u32>,
    /// What it is called in the line.
    #[arg(long, default_value = "tandem")]
    pub subject: String,
    /// Address of the callers' media, and their SIP address and port.
    #[arg(long, default_value = "127.0.0.10:5060")]
    pub near: SocketAddr,
    /// Address of the called's media, and their SIP address and port, where the target sends calls.
    #[arg(long, default_value = "127.0.0.20:5060")]
    pub far: SocketAddr,
    /// Keep to this core.
    #[arg(long)]
    pub core: Option<usize>,
}

#[derive(Clone, Copy, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Through {
    /// A SIP B2BUA, which sends calls to +14152000000 and up to `--far`, and needs no password.
    #[arg(long)]
    sip: Option<SocketAddr>,
    /// A relay with pairs of ports from this one on, such as `floor-relay`.
    #[arg(long)]
    direct: Option<SocketAddr>,
    /// rtpengine, by its control port of the ng protocol.
    #[arg(long)]
    ng: Option<SocketAddr>,
}

#[derive(Clone, Debug, clap::Args)]
struct Amount {
    /// How many calls, each with a stream either way.
    #[arg(long, default_value_t = 800)]
    calls: usize,
    /// Instead: so many, then so many, until the target no longer carries them.
    #[arg(long, value_delimiter = ',')]
    search: Vec<usize>,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How long to stream before.
    #[arg(long, default_value_t = 2.0)]
    warm: f64,
    /// How many streams share a socket of the generator, and so its address.
    #[arg(long, default_value_t = 1)]
    share: usize,
    /// How many calls a second are set up and ended.
    #[arg(long, default_value_t = 200.0)]
    calls_per_s: f64,
}

/// Streams; one sample, or with `--search` one for each number of calls.
///
/// # Errors
/// If calls do not come up, or something needed is not to be had.
pub fn run(args: &Args) -> Result<Vec<Sample>> {
    if let Some(core) = args.core {
        let mut cores = CpuSet::new();
        cores.set(core)?;
        sched_setaffinity(Pid::from_raw(0), &cores)?;
    }
    raise_descriptors()?;
    let ips = [v4(args.near)?, v4(args.far)?];
    let mut run = Run {
        engine: Engine::new(ips, args.amount.share),
        target: Target {
            way: args.through.open(args)?,
            meter: args.pid.map(Meter::new).transpose()?,
        },
        before: args.pid.map(Usage::of).transpose()?,
    };
    let mut samples = vec![];
    for calls in args.amount.steps() {
        let sample = run.try_step(args, calls)?;
        let goes_on = sample.figure("carried") == Some(1.0);
        samples.push(sample);
        if !goes_on {
            break;
        }
    }
    let lost = run.target.way.close()?;
    if let Some(last) = samples.last_mut().filter(|_| lost > 0) {
        last.faults.push(format!("{lost} calls ended before they were to"));
    }
    Ok(samples)
}

impl Through {
    fn open(&self, args: &Args) -> Result<Way> {
        let ends = [args.near, args.far];
        match (self.direct, self.sip, self.ng) {
            (Some(first), _, _) => Ok(Way::Direct(first, 0)),
            (_, Some(target), _) => {
                let setting = Setting { target, ends, per_s: args.amount.calls_per_s };
                Ok(Way::Sip(Box::new(Phones::new(setting)?)))
            }
            (_, _, Some(control)) => {
                Ok(Way::Ng(Box::new(Ng::new(control, [v4(ends[0])?, v4(ends[1])?])?)))
            }
            (None, None, None) => anyhow::bail!("nothing to stream through"),
        }
    }
}

impl Amount {
    fn steps(&self) -> Vec<usize> {
        if self.search.is_empty() { vec![self.calls] } else { self.search.clone() }
    }
}

/// A target with its calls.
struct Run {
    engine: Engine,
    target: Target,
    before: Option<Usage>,
}

struct Target {
    way: Way,
    meter: Option<Meter>,
}

impl Aside for Target {
    fn tend(&mut self) {
        self.way.tend();
    }

    fn meter(&mut self) -> Result<Reading> {
        self.meter.as_ref().map_or_else(|| Ok(Reading::default()), Meter::read)
    }
}

impl Run {
    /// In a search, again where the target has not carried its calls: a machine that is taken away
    /// for a while makes any target fail, and none succeed.
    fn try_step(&mut self, args: &Args, calls: usize) -> Result<Sample> {
        let attempts = if args.amount.search.is_empty() { 1 } else { ATTEMPTS };
        let mut attempt = 1;
        loop {
            let sample = self.step(args, calls)?.got("attempts", f64::from(attempt));
            if sample.figure("carried") == Some(1.0) || attempt == attempts {
                return Ok(sample);
            }
            attempt += 1;
        }
    }

    /// Brings the calls to this number, and streams.
    fn step(&mut self, args: &Args, calls: usize) -> Result<Sample> {
        let new = calls.saturating_sub(self.engine.calls());
        let ports = (0..new).map(|_| self.engine.open_call()).collect::<Result<Vec<_>>>()?;
        let media = self.target.way.connect(&ports).context("setting up calls")?;
        media.into_iter().try_for_each(|to| self.engine.aim_call(to))?;
        if let Some(pid) = args.pid {
            // What was started for the calls is part of the target.
            self.target.meter = Some(Meter::new(pid)?);
        }

        let timing = Timing {
            warm: Duration::from_secs_f64(args.amount.warm),
            window: Duration::from_secs_f64(args.amount.seconds),
        };
        let outcome = self.engine.stream(timing, &mut self.target)?;
        let mut sample = Sample::new("media", &args.subject)
            .asked("calls", self.engine.calls() as f64)
            .asked("seconds", args.amount.seconds)
            .asked("share", args.amount.share as f64);
        sample = figures(&outcome, sample);
        if let (Some(pid), Some(before)) = (args.pid, self.before) {
            sample = self.cost(&outcome, (before, Usage::of(pid)?), sample);
        }
        Ok(sample)
    }

    /// What the target has used for it.
    fn cost(&self, outcome: &Outcome, (before, held): (Usage, Usage), sample: Sample) -> Sample {
        let [open, close] = &outcome.edges;
        let cpu = close.target.cpu.saturating_sub(open.target.cpu).as_secs_f64();
        let threads = close.target.since(&open.target);
        let cores = |rank: usize| {
            threads.get(rank).map_or(0.0, Duration::as_secs_f64) / outcome.window.as_secs_f64()
        };
        let calls = self.engine.calls() as f64;
        let each = |held: u64, before: u64| (held as f64 - before as f64) / calls;
        let received = outcome.totals.received.max(1) as f64;
        held.note("held", before.note("before", sample))
            .got("cpu_us_per_packet", cpu * 1e6 / received)
            .got("cores", cpu / outcome.window.as_secs_f64())
            .got("busiest_thread_cores", cores(0))
            .got("next_thread_cores", cores(1))
            .got("kb_per_call", each(held.pss_kb, before.pss_kb))
            .got("fds_per_call", each(held.fds, before.fds))
            .got("threads_per_call", each(held.threads, before.threads))
    }
}

/// What was seen of the packets, and whether it may be believed.
fn figures(outcome: &Outcome, sample: Sample) -> Sample {
    let (totals, flawed) = (&outcome.totals, outcome.flawed);
    let lost = outcome.sent.saturating_sub(totals.received + outcome.unsent);
    let loss = lost as f64 / outcome.sent.max(1) as f64;
    let seconds = outcome.window.as_secs_f64();
    let us = |took: Duration| took.as_secs_f64() * 1e6;
    let mut sample = totals.delay.note("delay", sample);
    sample = outcome.lateness.note("late", sample);
    let got = [
        ("sent_per_s", outcome.sent as f64 / seconds),
        ("received", totals.received as f64),
        ("loss_share", loss),
        ("duplicates", totals.duplicates as f64),
        ("reordered", totals.reordered as f64),
        ("header_jumps", totals.header_jumps as f64),
        ("damaged", flawed.damaged as f64),
        ("misled", flawed.misled as f64),
        ("foreign", flawed.foreign as f64),
        ("jitter_mean_us", us(totals.jitter.mean())),
        ("jitter_p99_us", us(totals.jitter.quantile(0.99))),
        ("busy_share", outcome.busy),
        ("own_drops", outcome.own_drops as f64),
        ("stolen_share", stolen_share(outcome)),
    ];
    for (name, value) in got {
        sample = sample.got(name, value);
    }
    let counts = [
        (flawed.damaged, "packets were changed on the way"),
        (flawed.misled, "packets arrived at somebody else's"),
        (totals.duplicates, "packets arrived twice"),
        (u64::from(totals.received == 0), "run in which nothing arrived"),
    ];
    let wrong = counts.iter().filter(|(count, _)| *count > 0);
    sample.faults.extend(wrong.map(|(count, what)| format!("{count} {what}")));
    match verdict(outcome, loss) {
        Ok(carries) => sample = sample.got("carried", f64::from(u8::from(carries))),
        Err(why) => sample.faults.push(format!("no verdict: {why}")),
    }
    sample
}

/// Whether the target carries its calls.
///
/// # Errors
/// Why nothing can be said about it. A target that carries even what comes in heaps carries it.
fn verdict(outcome: &Outcome, loss: f64) -> Result<bool, &'static str> {
    let carries = loss < LOSS_MAX && outcome.totals.delay.quantile(0.99) < DELAY_P99_MAX;
    let faults = [
        (outcome.moved > 0, "the generator could not send as much as it was to"),
        (outcome.own_drops > 0, "the generator's own sockets overflowed"),
        (outcome.unsent > 0, "the kernel did not take all of the generator's packets"),
        (!carries && outcome.lateness.quantile(0.99) > LATE_P99_MAX, "the generator was late"),
        (!carries && stolen_share(outcome) > STOLEN_MAX, "the host took the machine away"),
    ];
    match faults.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, why)) => Err(why),
        None => Ok(carries),
    }
}

/// What the host has taken, of all cores together.
fn stolen_share(outcome: &Outcome) -> f64 {
    let [open, close] = &outcome.edges;
    let stolen = close.stolen.saturating_sub(open.stolen);
    stolen.as_secs_f64() / outcome.window.as_secs_f64()
}

#[cfg(test)]
mod tests;
