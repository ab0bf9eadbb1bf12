//! Whether more comes than the shard can take.
//!
//! Owns: since when something has waited all the time.
//! Never: looks at what waits.

use std::time::{Duration, Instant};

/// How long something may wait without a break. Bursts are shorter; the kernel has room for as much at
/// least, and peers repeat requests after half a second.
const PATIENCE: Duration = Duration::from_millis(100);

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
        let turns = [
            (true, 0, false),
            (true, 99, false),
            (false, 99, false),
            (true, 100, false),
            (true, 199, false),
            (true, 200, true),
            (false, 201, false),
            (true, 400, false),
        ];
        for (is_left, ms, want) in turns {
            assert_eq!(backlog.note(is_left, at(ms)), want, "{ms} ms");
        }
    }
}
