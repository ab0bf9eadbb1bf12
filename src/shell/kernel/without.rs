//! The kernel path of a tandem that has none.
//!
//! Owns: the same names as the real one.
//! Never: succeeds.

use super::KernelError;
use crate::media::{Flow, Progress};
use std::{convert::Infallible, sync::Arc, time::Instant};

/// There is none.
#[derive(Debug)]
pub(in crate::shell) struct Program(Infallible);

/// There is none.
#[derive(Debug)]
pub(super) struct Table(Infallible);

impl Program {
    pub(super) fn load() -> Result<Self, KernelError> {
        Err(KernelError::NotBuilt)
    }

    pub(super) fn attach(&mut self, _interface: &str) -> Result<(), KernelError> {
        match self.0 {}
    }
}

impl Table {
    pub(super) fn of(program: &Arc<Program>) -> Result<Self, KernelError> {
        match program.0 {}
    }

    pub(super) fn put(&mut self, _flow: &Flow, _way: super::ways::Way, _dscp: u8) -> bool {
        match self.0 {}
    }

    pub(super) fn read(&self, _port: u16, _now: Instant) -> Option<Progress> {
        match self.0 {}
    }

    pub(super) fn remove(&mut self, _port: u16) {
        match self.0 {}
    }
}
