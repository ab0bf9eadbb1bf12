//! The command line: one subcommand a kind of load, one line of JSON a run.

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tandem_bench::{Sample, calls, floor_b2bua, floor_relay, held, idle, media, register, suite};

/// Load for any SIP B2BUA, and what it costs there.
#[derive(Debug, Parser)]
#[command(name = "tandem-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Short calls at a steady rate, caller and called side in one.
    Calls(calls::Args),
    /// The least possible B2BUA, to be measured beside the target.
    FloorB2bua(floor_b2bua::Args),
    /// Calls that are up and silent, and what others cost beside them.
    Held(held::Args),
    /// Phones that register with digest, and come back.
    Register(register::Args),
    /// Everything, in a network of its own, held against what must be.
    Suite(suite::Args),
    /// Mixed traffic for as long as asked, and what is left of it.
    Soak(suite::soak::Args),
    /// Twice and five times as many calls as there is time for, and what becomes of them.
    Overload(suite::overload::Args),
    /// What a build that is guided by a profile learns from.
    Train(suite::train::Args),
    /// What a process and its children use while nobody asks anything of them.
    Idle(idle::Args),
    /// Streams of RTP through a relay or a B2BUA.
    Media(Box<media::Args>),
    /// The least that a forwarder of RTP can be.
    FloorRelay(floor_relay::Args),
}

fn main() -> Result<ExitCode> {
    let mut passes = true;
    match Cli::parse().command {
        Command::Calls(args) => told(&calls::run(&args)?)?,
        Command::FloorB2bua(args) => floor_b2bua::run(&args)?,
        Command::Held(args) => told(&held::run(&args)?)?,
        Command::Register(args) => told(&register::run(&args)?)?,
        Command::Suite(args) => passes = suite::run(&args)?,
        Command::Soak(args) => passes = suite::soak::run(&args)?,
        Command::Overload(args) => passes = suite::overload::run(&args)?,
        Command::Train(args) => suite::train::run(&args)?,
        Command::Idle(args) => told(&idle::run(&args)?)?,
        Command::Media(args) => media::run(&args)?.iter().try_for_each(told)?,
        Command::FloorRelay(args) => floor_relay::run(&args)?,
    }
    Ok(if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the line; what was wrong also goes to standard error, for people.
fn told(sample: &Sample) -> Result<()> {
    println!("{}", sample.line()?);
    for fault in &sample.faults {
        eprintln!("fault: {fault}");
    }
    Ok(())
}
