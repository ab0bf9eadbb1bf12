//! Where Tandem is played: a place of its own, and the loads put on it there.
//!
//! Owns: the start of a Tandem and of a load beside it. Never: an order of runs.

use super::{
    place::{self, Network, Place},
    subjects::{self, Running, Setup},
};
use crate::Sample;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

/// A place, and the Tandem that is played there.
pub(super) struct Stage {
    /// The network, the cores and the folder.
    pub(super) place: Place,
    /// How many descriptors a process may have.
    pub(super) descriptors: u64,
    program: PathBuf,
}

impl Stage {
    /// Sets it up; the process must have one thread.
    ///
    /// # Errors
    /// If the program is not there, or there is no network namespace to be had.
    pub(super) fn set(program: &Path, network: Network) -> Result<Self> {
        ensure!(program.exists(), "{} is not there: build it first", program.display());
        let program = fs::canonicalize(program)?;
        let descriptors = place::raise_descriptors()?;
        Ok(Self { place: Place::enter(network)?, descriptors, program })
    }

    /// Tandem, ready.
    ///
    /// # Errors
    /// If it does not get ready.
    pub(super) fn tandem(&self, setup: Setup) -> Result<Running> {
        subjects::tandem(&self.place, &self.program, setup)
    }

    /// One load against what is running, as its samples.
    ///
    /// # Errors
    /// If the generator fails, or says what is not a line of figures.
    pub(super) fn load(
        &self,
        subject: (&str, &Running),
        arguments: &[&str],
    ) -> Result<Vec<Sample>> {
        let mut command = subjects::own();
        command.args(arguments).args(["--subject", subject.0]);
        command.args(["--pid", &subject.1.pid().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = self.place.spawn_on(self.place.own_core, &mut command)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(Sample::read).collect::<Result<_>>().context("a line of figures")
    }
}
