//! A queue of deadlines by owner: an index over deadlines that live in the state machines.
//!
//! Owns: which owner is due next.
//! Never: decides when; after each step the owner is armed again with its own `poll_timeout()`.
//!
//! Deadlines are put into buckets of 16 ms, and only those of the bucket that is due next are kept in order: a
//! deadline far away costs a push, whatever there is beside it. A deadline that is put off stays where it is
//! and moves on when it surfaces, and one that is disarmed is skipped there. So nothing is ever searched.
//!
//! Owners that are many and found by their number anyhow keep what they wait for themselves (a [`Queue`]): a table
//! beside theirs would be the largest of all. The others have one here ([`Timers`]).

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

/// What an owner waits for, as long as an entry of its is queued.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    /// The deadline; `None` once it is disarmed.
    at: Option<Instant>,
    /// Under which instant its entry is queued, no later than the deadline.
    queued: Instant,
}

/// Where the owners keep what they wait for.
pub trait Owners<K> {
    /// Returns what an owner waits for; `None` if nothing of it is queued, or there is no such owner any more.
    fn armed(&mut self, owner: K) -> Option<&mut Armed>;
    /// Notes that nothing of an owner is queued.
    fn release(&mut self, owner: K);
}

impl<K: Copy + Eq + Hash> Owners<K> for Table<K, Armed> {
    fn armed(&mut self, owner: K) -> Option<&mut Armed> {
        self.get_mut(owner)
    }

    fn release(&mut self, owner: K) {
        self.remove(owner);
    }
}

/// Deadlines by owner, where each owner keeps what it waits for. No owner may come back after it is gone.
#[derive(Debug)]
pub struct Queue<K> {
    /// How many owners wait for anything.
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

impl<K: Ord> Default for Queue<K> {
    fn default() -> Self {
        Self {
            armed: 0,
            near: BinaryHeap::new(),
            far: BTreeMap::new(),
            horizon: 0,
            epoch: None,
            queued: 0,
        }
    }
}

impl<K: Copy + Ord> Queue<K> {
    /// Sets the owner's next deadline, or none: an owner that goes is to be disarmed.
    pub fn arm(&mut self, armed: &mut Option<Armed>, owner: K, at: Option<Instant>) {
        match armed {
            Some(armed) => self.change(armed, owner, at),
            None => *armed = at.map(|at| self.begin(owner, at)),
        }
    }

    /// Returns the next deadline of all.
    pub fn next_deadline(&mut self, owners: &mut impl Owners<K>) -> Option<Instant> {
        self.surface(owners);
        self.near.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one owner whose deadline has passed, earliest first. It is no longer armed.
    pub fn pop_due(&mut self, owners: &mut impl Owners<K>, now: Instant) -> Option<K> {
        self.surface(owners);
        let Reverse((at, owner)) = *self.near.peek()?;
        (at <= now).then(|| {
            self.pop();
            owners.release(owner);
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

    fn begin(&mut self, owner: K, at: Instant) -> Armed {
        self.armed += 1;
        self.push(at, owner);
        Armed { at: Some(at), queued: at }
    }

    fn change(&mut self, armed: &mut Armed, owner: K, at: Option<Instant>) {
        self.armed -= usize::from(armed.at.is_some());
        self.armed += usize::from(at.is_some());
        armed.at = at;
        if let Some(at) = at.filter(|at| *at < armed.queued) {
            armed.queued = at;
            self.push(at, owner);
        }
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
    }

    fn pop(&mut self) {
        self.queued -= usize::from(self.near.pop().is_some());
    }

    /// Brings the next deadline of all to the front, if there is one.
    fn surface(&mut self, owners: &mut impl Owners<K>) {
        self.compact(owners);
        loop {
            while let Some(Reverse((queued, owner))) = self.near.peek().copied() {
                match owners.armed(owner).filter(|armed| armed.queued == queued) {
                    Some(Armed { at: Some(at), .. }) if *at == queued => return,
                    Some(armed) => match armed.at {
                        Some(at) => {
                            armed.queued = at;
                            self.pop();
                            self.push(at, owner);
                        }
                        None => {
                            owners.release(owner);
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
    fn compact(&mut self, owners: &mut impl Owners<K>) {
        if self.queued <= COMPACT_ABOVE.max(self.armed.saturating_mul(4)) {
            return;
        }
        let mut stays = |queued: Instant, owner: K| {
            let armed = owners.armed(owner).copied().filter(|armed| armed.queued == queued);
            let is_armed = armed.is_some_and(|armed| armed.at.is_some());
            if armed.is_some() && !is_armed {
                owners.release(owner);
            }
            is_armed
        };
        self.near.retain(|Reverse((at, owner))| stays(*at, *owner));
        for entries in self.far.values_mut() {
            entries.retain(|(at, owner)| stays(*at, *owner));
        }
        self.far.retain(|_, entries| !entries.is_empty());
        self.queued = self.near.len() + self.far.values().map(Vec::len).sum::<usize>();
    }
}

/// Deadlines by owner.
#[derive(Debug)]
pub struct Timers<K> {
    owners: Table<K, Armed>,
    queue: Queue<K>,
}

impl<K> Default for Timers<K>
where
    K: Copy + Hash + Ord,
{
    fn default() -> Self {
        Self { owners: Table::default(), queue: Queue::default() }
    }
}

impl<K: Copy + Hash + Ord> Timers<K> {
    /// Sets the owner's next deadline, or none.
    pub fn arm(&mut self, owner: K, at: Option<Instant>) {
        match (self.owners.get_mut(owner), at) {
            (Some(armed), at) => self.queue.change(armed, owner, at),
            (None, Some(at)) => {
                self.owners.insert(owner, self.queue.begin(owner, at));
            }
            (None, None) => {}
        }
        self.queue.compact(&mut self.owners);
    }

    /// Returns the next deadline of all.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        self.queue.next_deadline(&mut self.owners)
    }

    /// Takes one owner whose deadline has passed, earliest first. It is no longer armed.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        self.queue.pop_due(&mut self.owners, now)
    }

    /// Returns how many owners are armed.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
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
        assert!(timers.queue.queued <= COMPACT_ABOVE + 1);
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

    /// Owners that keep what they wait for, and go with it.
    #[derive(Default)]
    struct Keepers(BTreeMap<u64, Option<Armed>>);

    impl Owners<u64> for Keepers {
        fn armed(&mut self, owner: u64) -> Option<&mut Armed> {
            self.0.get_mut(&owner)?.as_mut()
        }

        fn release(&mut self, owner: u64) {
            if let Some(armed) = self.0.get_mut(&owner) {
                *armed = None;
            }
        }
    }

    #[test]
    fn owners_may_go_with_what_they_wait_for() {
        let mut now = crate::sim::epoch();
        let mut entropy = crate::ids::Entropy::from_u64(1);
        let (mut queue, mut keepers) = (Queue::default(), Keepers::default());
        let mut list = BTreeMap::new();
        for serial in 0..20_000 {
            keepers.0.insert(serial, None);
            let owner = serial - entropy.below(serial.min(50) + 1);
            let far = if entropy.below(4) == 0 { 40_000 } else { 100 };
            let wait = entropy.below(far);
            let at = (entropy.below(8) > 0).then(|| now + Duration::from_millis(wait));
            if let Some(armed) = keepers.0.get_mut(&owner) {
                queue.arm(armed, owner, at);
                list.remove(&owner);
                list.extend(at.map(|at| (owner, at)));
            }
            let goer = serial - entropy.below(serial.min(50) + 1);
            if let Some(mut armed) = keepers.0.remove(&goer) {
                queue.arm(&mut armed, goer, None);
                list.remove(&goer);
            }
            now += Duration::from_millis(entropy.below(20));
            while let Some(owner) = queue.pop_due(&mut keepers, now) {
                let first = list.iter().map(|(owner, at)| (*at, *owner)).min();
                assert_eq!(first.map(|(_, owner)| owner), Some(owner));
                list.remove(&owner);
            }
            assert_eq!(queue.next_deadline(&mut keepers), list.values().min().copied());
            assert_eq!(queue.len(), list.len());
            assert!(queue.queued <= COMPACT_ABOVE.max(4 * list.len()), "{}", queue.queued);
        }
    }
}
