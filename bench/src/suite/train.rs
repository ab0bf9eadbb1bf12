//! `train`: what a profile-guided build learns from: a little of everything that is frequent.
//!
//! Owns: the loads, and that each was carried. Never: the profile, which Tandem itself writes when it ends.

use super::{
    place::Network,
    stage::Stage,
    subjects::{FROM_USER, PASSWORD, Setup, TARGET},
};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// How often a load is played until it is carried as it should be.
const TRIES: usize = 6;
/// How many phones register.
const PHONES: u32 = 2000;

/// Of what, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Tandem's binary: one that writes a profile.
    #[arg(long)]
    pub tandem: PathBuf,
    /// In this network instead of an empty one: in a container, which has one to itself.
    #[arg(long)]
    pub here: bool,
}

/// How much of a load must be carried, so that it is not something else that is learned.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Carried {
    /// All but a tenth: somebody else may want the machine for a moment.
    Most,
    /// More is asked for than there is time for: some calls are made, and some refused.
    Some,
}

/// Plays the loads. They are small: a binary that counts what it does takes several times as long, and counts are
/// soon enough.
///
/// # Errors
/// If Tandem does not start, or a load is not carried.
pub fn run(args: &Args) -> Result<()> {
    let network = if args.here { Network::Here } else { Network::Own };
    let stage = Stage::set(&args.tandem, network)?;
    let running = stage.tandem(Setup { phones: PHONES, ..Setup::default() })?;
    let phones = PHONES.to_string();
    let calls = ["calls", "--from-user", FROM_USER, "--settle", "1"];
    let digest = ["--user", "1001", "--password", PASSWORD, "--caller", "127.0.0.11:5060"];
    for (what, carried, load, per_s) in [
        ("calls", Carried::Most, [&calls[..], &["--count", "1000"]].concat(), 100.0),
        (
            "calls with digest",
            Carried::Most,
            [&calls[..], &digest, &["--count", "500"]].concat(),
            100.0,
        ),
        (
            "registrations",
            Carried::Most,
            vec!["register", "--phones", &phones, "--rounds", "2"],
            500.0,
        ),
        ("too many calls", Carried::Some, [&calls[..], &["--count", "8000"]].concat(), 8000.0),
    ] {
        let (mut per_s, mut tries_left) = (per_s, TRIES);
        loop {
            let rate = per_s.to_string();
            let load = [&load[..], &["--rate", &rate]].concat();
            let samples = stage.load(("tandem", &running), &load)?;
            let sample = samples.first().with_context(|| format!("{what}: nothing is told"))?;
            let count = |figure| sample.figure(figure).with_context(|| format!("{what}: {figure}"));
            let (begun, done) = (count("begun")?, count("done")?);
            eprintln!("{what}: {done} of {begun} at {rate}/s");
            let Some(change) = pace(carried, begun, done) else { break };
            tries_left -= 1;
            ensure!(tries_left > 0, "{what}: {done} of {begun} are carried");
            per_s *= change;
        }
    }
    let media = ["media", "--calls", "50", "--seconds", "4", "--warm", "1", "--sip", TARGET];
    for sample in stage.load(("tandem", &running), &media)? {
        let packets = sample.figure("received").context("media: received")?;
        eprintln!("media: {packets} packets");
        ensure!(packets > 0.0, "media: no packet is relayed");
    }
    Ok(())
}

/// How much faster it is to be played again where it was not carried as it should be: machines are not alike.
fn pace(carried: Carried, begun: f64, done: f64) -> Option<f64> {
    match carried {
        Carried::Most => (begun <= 0.0 || done < 0.9 * begun).then_some(0.5),
        Carried::Some if done <= 0.0 => Some(0.5),
        Carried::Some => (done >= begun).then_some(2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_learned_from_a_load_that_was_another() {
        for (carried, begun, done, change) in [
            (Carried::Most, 100.0, 100.0, None),
            (Carried::Most, 100.0, 90.0, None),
            (Carried::Most, 100.0, 89.0, Some(0.5)),
            (Carried::Most, 0.0, 0.0, Some(0.5)),
            (Carried::Some, 100.0, 40.0, None),
            (Carried::Some, 100.0, 100.0, Some(2.0)),
            (Carried::Some, 100.0, 0.0, Some(0.5)),
        ] {
            assert_eq!(pace(carried, begun, done), change, "{carried:?} {begun} {done}");
        }
    }
}
