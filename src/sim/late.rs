//! What arrives later than it was made, for as long as a test wants it to.
//!
//! Owns: what is on its way, in the order in which it was made.
//! Never: knows what it is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A queue that holds things up.
#[derive(Debug)]
pub(super) struct Late<T> {
    takes: Duration,
    waiting: VecDeque<(Instant, T)>,
    held_up: u64,
}

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self { takes: Duration::ZERO, waiting: VecDeque::new(), held_up: 0 }
    }
}

impl<T> Late<T> {
    /// Holds everything up for so long from now on.
    pub(super) fn delay(&mut self, by: Duration) {
        self.takes = by;
    }

    /// Returns it at once, or later by [`Late::due`]: nothing overtakes.
    pub(super) fn pass(&mut self, thing: T, now: Instant) -> Option<T> {
        let last = self.waiting.back().map(|(at, _)| *at);
        if self.takes.is_zero() && last.is_none() {
            return Some(thing);
        }
        self.held_up += 1;
        let at = now + self.takes;
        self.waiting.push_back((last.map_or(at, |last| last.max(at)), thing));
        None
    }

    /// Returns when the next thing arrives.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// Returns the next thing that has arrived.
    pub(super) fn due(&mut self, now: Instant) -> Option<T> {
        self.next_at().filter(|at| *at <= now)?;
        self.waiting.pop_front().map(|(_, thing)| thing)
    }

    /// Returns how much was held up.
    pub(super) fn held_up(&self) -> u64 {
        self.held_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    #[test]
    fn nothing_overtakes_what_is_held_up() {
        let (mut late, now) = (Late::default(), epoch());
        assert_eq!(late.pass("a", now), Some("a"));
        late.delay(Duration::from_secs(3));
        assert_eq!(late.pass("b", now), None);
        late.delay(Duration::ZERO);
        assert_eq!(late.pass("c", now), None);
        let at = now + Duration::from_secs(3);
        assert_eq!((late.next_at(), late.due(now)), (Some(at), None));
        assert_eq!((late.due(at), late.due(at), late.due(at)), (Some("b"), Some("c"), None));
        assert_eq!((late.pass("d", at), late.held_up()), (Some("d"), 2));
    }
}
