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
    for (what, carried, load) in [
        ("calls", Carried::Most, [&calls[..], &["--rate", "100", "--seconds", "10"]].concat()),
        (
            "calls with digest",
            Carried::Most,
            [&calls[..], &digest, &["--rate", "100", "--seconds", "5"]].concat(),
        ),
        (
            "registrations",
            Carried::Most,
            vec!["register", "--phones", &phones, "--rounds", "2", "--rate", "500"],
        ),
        (
            "too many calls",
            Carried::Some,
            [&calls[..], &["--rate", "8000", "--seconds", "1"]].concat(),
        ),
    ] {
        for sample in stage.load(("tandem", &running), &load)? {
            let count = |figure| sample.figure(figure).with_context(|| format!("{what}: {figure}"));
            let (begun, done) = (count("begun")?, count("done")?);
            eprintln!("{what}: {done} of {begun}");
            ensure!(is_carried(carried, begun, done), "{what}: {done} of {begun} are carried");
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

fn is_carried(carried: Carried, begun: f64, done: f64) -> bool {
    match carried {
        Carried::Most => begun > 0.0 && done >= 0.9 * begun,
        Carried::Some => begun > done && done > 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_learned_from_a_load_that_was_another() {
        for (carried, begun, done, is) in [
            (Carried::Most, 100.0, 100.0, true),
            (Carried::Most, 100.0, 90.0, true),
            (Carried::Most, 100.0, 89.0, false),
            (Carried::Most, 0.0, 0.0, false),
            (Carried::Some, 100.0, 40.0, true),
            (Carried::Some, 100.0, 100.0, false),
            (Carried::Some, 100.0, 0.0, false),
        ] {
            assert_eq!(is_carried(carried, begun, done), is, "{carried:?} {begun} {done}");
        }
    }
}
