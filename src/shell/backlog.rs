//! Whether more comes than the shard can take.
//!
//! Owns: since when something has waited all the time.
//! Never: looks at what waits.

use std::time::{Duration, Instant};

/// How long something may wait without a break. Bursts are shorter; what waits in the kernel is lost
/// after a few times this, and peers repeat requests after half a second.
const PATIENCE: Duration = Duration::from_millis(50);

/// What waits for a shard, as its loop sees it.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    since: Option<Instant>,
}

impl Backlog {
    /// Notes after a turn whether something was left. Returns whether that has been so for too long.
    pub(super) fn note(&mut self, is_left: bool, now: Instant) -> bool {
        if !is_left {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_no_overload_and_a_break_ends_one() {
        let start = crate::shell::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut backlog = Backlog::default();
        let seen = [
            (true, 0),
            (true, 49),
            (false, 49),
            (true, 50),
            (true, 99),
            (true, 100),
            (false, 101),
            (true, 200),
        ]
        .map(|(is_left, ms)| backlog.note(is_left, at(ms)));
        assert_eq!(seen, [false, false, false, false, false, true, false, false]);
    }
}
