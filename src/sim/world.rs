//! The network and everyone on it, in virtual time.
//!
//! Owns: the beginning of time.
//! Never: sleeps.

use std::time::Instant;

/// Returns an arbitrary start of time. The only clock read in a simulation.
#[expect(clippy::disallowed_methods, reason = "virtual time must start somewhere")]
pub fn epoch() -> Instant {
    Instant::now()
}
