//! A queue of deadlines by owner: an index over deadlines that live in the state machines.
//!
//! Owns: which owner is due next.
//! Never: decides when; after each step the owner is armed again with its own `poll_timeout()`.
//!
//! An entry that no longer matches is skipped when it surfaces, so disarming needs no search and a
//! deadline cannot outlive its owner.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Instant,
};

/// Below this many entries, stale ones are not worth clearing out.
const COMPACT_ABOVE: usize = 1024;

/// Deadlines by owner.
#[derive(Debug)]
pub struct Timers<K> {
    armed: BTreeMap<K, Instant>,
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Copy + Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { armed: BTreeMap::new(), heap: BinaryHeap::new() }
    }
}

impl<K: Copy + Ord> Timers<K> {
    /// Sets the owner's next deadline, or none.
    pub fn arm(&mut self, owner: K, at: Option<Instant>) {
        let Some(at) = at else {
            self.armed.remove(&owner);
            return;
        };
        if self.armed.insert(owner, at) != Some(at) {
            self.heap.push(Reverse((at, owner)));
            self.compact();
        }
    }

    /// Returns the next deadline of all.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        self.drop_stale();
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one owner whose deadline has passed, earliest first. It is no longer armed.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        self.drop_stale();
        let Reverse((at, owner)) = *self.heap.peek()?;
        (at <= now).then(|| {
            self.heap.pop();
            self.armed.remove(&owner);
            owner
        })
    }

    /// Returns how many owners are armed.
    pub fn len(&self) -> usize {
        self.armed.len()
    }

    /// Returns whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    fn drop_stale(&mut self) {
        while let Some(Reverse((at, owner))) = self.heap.peek() {
            if self.armed.get(owner) == Some(at) {
                return;
            }
            self.heap.pop();
        }
    }

    /// Keeps the heap within a constant factor of what is armed, at a constant cost per entry.
    fn compact(&mut self) {
        if self.heap.len() > COMPACT_ABOVE.max(self.armed.len().saturating_mul(4)) {
            self.heap = self.armed.iter().map(|(owner, at)| Reverse((*at, *owner))).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rearming_and_disarming_need_no_search() {
        let t0 = crate::sim::epoch();
        let at = |s| t0 + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.arm('a', Some(at(5)));
        timers.arm('b', Some(at(3)));
        timers.arm('a', Some(at(1)));
        timers.arm('b', None);

        assert_eq!(timers.len(), 1);
        assert_eq!(timers.next_deadline(), Some(at(1)));
        assert_eq!(timers.pop_due(at(0)), None);
        assert_eq!(timers.pop_due(at(9)), Some('a'));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.next_deadline(), None);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_deadline_that_was_put_off_does_not_fire_early() {
        let t0 = crate::sim::epoch();
        let at = |s| t0 + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.arm('a', Some(at(1)));
        timers.arm('a', Some(at(5)));
        assert_eq!(timers.next_deadline(), Some(at(5)));
        assert_eq!(timers.pop_due(at(4)), None);
        assert_eq!(timers.pop_due(at(5)), Some('a'));
    }

    #[test]
    fn the_earliest_comes_first_and_only_once() {
        let t0 = crate::sim::epoch();
        let at = |ms| t0 + Duration::from_millis(ms);
        let mut timers = Timers::default();
        for (owner, ms) in [(1, 5), (1, 9), (1, 5), (2, 7), (3, 5)] {
            timers.arm(owner, Some(at(ms)));
        }
        let mut order = vec![];
        while let Some(owner) = timers.pop_due(at(100)) {
            order.push(owner);
        }
        assert_eq!(order, [1, 3, 2]);
    }

    #[test]
    fn stale_entries_do_not_pile_up() {
        let t0 = crate::sim::epoch();
        let mut timers = Timers::default();
        for ms in 0..100_000 {
            timers.arm('a', Some(t0 + Duration::from_millis(200_000 - ms)));
        }
        assert!(timers.heap.len() <= COMPACT_ABOVE + 1);
        assert_eq!(timers.next_deadline(), Some(t0 + Duration::from_millis(100_001)));
    }
}
