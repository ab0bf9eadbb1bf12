//! The end of a process whose calls are over and whose successor serves: it closes its connections one after the other,
//! since whoever had one connects and registers anew, and thousands at once would be a storm.
//!
//! Owns: the pace.
//! Never: closes one while a call is up.

use super::ShardLoop;
use crate::shell::now;
use std::time::Duration;

/// One in so long: that is 20 s for as many as there may be.
const EVERY: Duration = Duration::from_millis(5);
/// How long the last ones have for their goodbyes.
const FAREWELL: Duration = Duration::from_secs(1);

impl ShardLoop {
    /// Closes the next connection where it is time. Returns whether all are closed.
    pub(super) fn has_parted(&mut self) -> bool {
        if self.family.successor.is_none() {
            return true;
        }
        let now = now();
        if self.family.parts_at.is_some_and(|at| now < at) {
            return false;
        }
        let has_closed = self.streams.close_one();
        let pause = if self.streams.is_empty() { FAREWELL } else { EVERY };
        self.family.parts_at = has_closed.then(|| now + pause);
        !has_closed
    }
}
