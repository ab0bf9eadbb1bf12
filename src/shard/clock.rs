//! What the wall clock says, and how much time has really passed.
//!
//! Owns: the readings that the shard was given.
//! Never: reads a clock.

use std::time::{Instant, SystemTime};

/// Two pairs of readings: what the wall clock said at that instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: (Instant, SystemTime),
    latest: (Instant, SystemTime),
}

impl Clock {
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        Self { began: (now, wall), latest: (now, wall) }
    }

    /// Takes what the wall clock says now.
    pub(super) fn set(&mut self, now: Instant, wall: SystemTime) {
        self.latest = (now, wall);
    }

    /// Returns what it said last.
    pub(super) fn last_read(&self) -> SystemTime {
        self.latest.1
    }

    /// Returns what it says now.
    pub(super) fn wall(&self, now: Instant) -> SystemTime {
        let (then, wall) = self.latest;
        wall + now.saturating_duration_since(then)
    }

    /// Returns what it would say if nobody had set it: for what must not grow old, or young, at once.
    pub(super) fn steady(&self, now: Instant) -> SystemTime {
        let (then, wall) = self.began;
        wall + now.saturating_duration_since(then)
    }
}
