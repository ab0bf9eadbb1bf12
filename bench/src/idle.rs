//! `idle`: what a process uses while nobody asks anything of it.
//!
//! Owns: the two readings. Never: a packet.

use crate::{Sample, process::Usage};
use anyhow::Result;
use std::{thread, time::Duration};

/// Whom to watch, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The process; its children count.
    #[arg(long)]
    pub pid: u32,
    /// What it is called in the line.
    #[arg(long, default_value = "tandem")]
    pub subject: String,
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
}

/// Watches.
///
/// # Errors
/// If the process is not there, or ends.
pub fn run(args: &Args) -> Result<Sample> {
    let before = Usage::of(args.pid)?;
    thread::sleep(Duration::from_secs_f64(args.seconds));
    let after = Usage::of(args.pid)?;
    let cores = (after.cpu - before.cpu).as_secs_f64() / args.seconds;
    let sample = Sample::new("idle", &args.subject).asked("seconds", args.seconds);
    Ok(after.note("after", sample.got("cores", cores)))
}
