//! A queue of deadlines by owner: an index over deadlines that live in the state machines.
//!
//! Owns: which owner is due next.
//! Never: decides when; after each step the owner is armed again with its own `poll_timeout()`.
//!
//! Deadlines are put into buckets of 16 ms, and only those of the bucket that is due next are kept in order: a
//! deadline far away costs a push, whatever there is beside it. A deadline that is put off stays where it is
//! and moves on when it surfaces, and one that is disarmed is skipped there. So nothing is ever searched.

use crate::table::Table;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    hash::Hash,
    time::Instant,
};

/// Below this many entries, stale ones are not worth clearing out.
const COMPACT_ABOVE: usize = 1024;
/// The length of a bucket: 2^24 ns.
const BUCKET_BITS: u32 = 24;

/// Deadlines by owner.
#[derive(Debug)]
pub struct Timers<K> {
    /// What each owner waits for, as long as an entry of its is queued.
    owners: Table<K, Armed>,
    /// How many of them wait for anything.
    armed: usize,
    /// The entries up to the bucket `horizon`, in order.
    near: BinaryHeap<Reverse<(Instant, K)>>,
    /// The others, by bucket.
    far: BTreeMap<u128, Vec<(Instant, K)>>,
    horizon: u128,
    /// Where the first bucket begins.
    epoch: Option<Instant>,
    /// How many entries there are, near and far.
    queued: usize,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    /// The deadline; `None` once it is disarmed.
    at: Option<Instant>,
    /// Under which instant its entry is queued, no later than the deadline.
    queued: Instant,
}

impl<K> Default for Timers<K>
where
    K: Copy + Hash + Ord,
{
    fn default() -> Self {
        Self {
            owners: Table::default(),
            armed: 0,
            near: BinaryHeap::new(),
            far: BTreeMap::new(),
            horizon: 0,
            epoch: None,
            queued: 0,
        }
    }
}

impl<K: Copy + Hash + Ord> Timers<K> {
    /// Sets the owner's next deadline, or none.
    pub fn arm(&mut self, owner: K, at: Option<Instant>) {
        match (self.owners.get_mut(owner), at) {
            (Some(armed), at) => {
                self.armed -= usize::from(armed.at.is_some());
                self.armed += usize::from(at.is_some());
                armed.at = at;
                if let Some(at) = at.filter(|at| *at < armed.queued) {
                    armed.queued = at;
                    self.push(at, owner);
                }
            }
            (None, Some(at)) => {
                self.owners.insert(owner, Armed { at: Some(at), queued: at });
                self.armed += 1;
                self.push(at, owner);
            }
            (None, None) => {}
        }
    }

    /// Returns the next deadline of all.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        self.surface();
        self.near.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one owner whose deadline has passed, earliest first. It is no longer armed.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        self.surface();
        let Reverse((at, owner)) = *self.near.peek()?;
        (at <= now).then(|| {
            self.pop();
            self.owners.remove(owner);
            self.armed -= 1;
            owner
        })
    }

    /// Returns how many owners are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Returns whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    fn bucket(&mut self, at: Instant) -> u128 {
        let epoch = *self.epoch.get_or_insert(at);
        at.saturating_duration_since(epoch).as_nanos() >> BUCKET_BITS
    }

    fn push(&mut self, at: Instant, owner: K) {
        let bucket = self.bucket(at);
        if bucket <= self.horizon {
            self.near.push(Reverse((at, owner)));
        } else {
            self.far.entry(bucket).or_default().push((at, owner));
        }
        self.queued += 1;
        self.compact();
    }

    fn pop(&mut self) {
        self.queued -= usize::from(self.near.pop().is_some());
    }

    /// Brings the next deadline of all to the front, if there is one.
    fn surface(&mut self) {
        loop {
            while let Some(Reverse((queued, owner))) = self.near.peek().copied() {
                match self.owners.get_mut(owner).filter(|armed| armed.queued == queued) {
                    Some(Armed { at: Some(at), .. }) if *at == queued => return,
                    Some(armed) => match armed.at {
                        Some(at) => {
                            armed.queued = at;
                            self.pop();
                            self.push(at, owner);
                        }
                        None => {
                            self.owners.remove(owner);
                            self.pop();
                        }
                    },
                    None => self.pop(),
                }
            }
            let Some((bucket, entries)) = self.far.pop_first() else { return };
            self.horizon = bucket;
            self.near.extend(entries.into_iter().map(Reverse));
        }
    }

    /// Keeps the entries within a constant factor of what is armed, at a constant cost per entry.
    fn compact(&mut self) {
        if self.queued <= COMPACT_ABOVE.max(self.armed.saturating_mul(4)) {
            return;
        }
        let Self { owners, near, far, .. } = self;
        let mut stays = |queued: Instant, owner: K| {
            let armed = owners.get(owner).filter(|armed| armed.queued == queued);
            let (is_queued, is_armed) = (armed.is_some(), armed.is_some_and(|a| a.at.is_some()));
            if is_queued && !is_armed {
                owners.remove(owner);
            }
            is_armed
        };
        near.retain(|Reverse((at, owner))| stays(*at, *owner));
        for entries in far.values_mut() {
            entries.retain(|(at, owner)| stays(*at, *owner));
        }
        far.retain(|_, entries| !entries.is_empty());
        self.queued = near.len() + far.values().map(Vec::len).sum::<usize>();
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
        assert!(timers.queued <= COMPACT_ABOVE + 1);
        assert_eq!(timers.next_deadline(), Some(t0 + Duration::from_millis(100_001)));
    }

    /// Against the plainest index there is: a list of who waits for what.
    #[test]
    fn it_agrees_with_a_list() {
        let t0 = crate::sim::epoch();
        let mut entropy = crate::ids::Entropy::from_u64(1);
        let (mut timers, mut list) = (Timers::default(), BTreeMap::new());
        let mut now = t0;
        for _ in 0..20_000 {
            let owner = entropy.below(50);
            let far = if entropy.below(4) == 0 { 40_000 } else { 100 };
            match entropy.below(8) {
                0 => {
                    timers.arm(owner, None);
                    list.remove(&owner);
                }
                1..=5 => {
                    let at = now + Duration::from_millis(entropy.below(far));
                    timers.arm(owner, Some(at));
                    list.insert(owner, at);
                }
                _ => {
                    now += Duration::from_millis(entropy.below(60));
                    while let Some(owner) = timers.pop_due(now) {
                        let first = list.iter().map(|(owner, at)| (*at, *owner)).min();
                        assert_eq!(first.map(|(_, owner)| owner), Some(owner));
                        list.remove(&owner);
                    }
                    assert!(list.values().all(|at| *at > now));
                }
            }
            assert_eq!(timers.next_deadline(), list.values().min().copied());
            assert_eq!(timers.len(), list.len());
        }
    }
}
