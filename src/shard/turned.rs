//! INVITEs that were turned away, which leaves no transaction: a copy of one gets the same answer, though
//! there is room by then (RFC 3261 8.2.7). Otherwise one request would have two final answers.
//!
//! Owns: what stands for each, for half a minute at least and a minute at most.
//! Never: keeps anything that a peer wrote, or more than so many.

use super::Shard;
use crate::{ids::Digest, sip::Message, table::Table};
use std::time::{Duration, Instant};

/// A client repeats an INVITE for 64 * T1 at most (RFC 3261 17.1.1.2).
const REMEMBER: Duration = Duration::from_secs(32);
/// How many are remembered in each half: as many as fill a table of 4 MiB. Where more come, the older half goes early:
/// at 18,000 a second, copies that come within 12 seconds are known, and most come within two.
const HALF_MAX: usize = 7 << 15;

/// The INVITEs that were turned away lately.
#[derive(Debug)]
pub(super) struct Turned {
    young: Table<Digest, ()>,
    old: Table<Digest, ()>,
    /// When the younger ones become the older ones.
    turns_at: Option<Instant>,
    half_max: usize,
}

impl Default for Turned {
    fn default() -> Self {
        Self { young: Table::default(), old: Table::default(), turns_at: None, half_max: HALF_MAX }
    }
}

impl Turned {
    /// Takes note of one.
    pub(super) fn note(&mut self, digest: Digest, now: Instant) {
        if self.young.len() >= self.half_max {
            self.turn(now);
        }
        self.turns_at.get_or_insert(now + REMEMBER);
        self.young.insert_for_good(digest, ());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    pub(super) fn has(&self, digest: Digest) -> bool {
        self.young.contains(digest) || self.old.contains(digest)
    }

    /// Returns all of them.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let all = [&self.young, &self.old].into_iter().flat_map(Table::sorted);
        all.map(|(digest, ())| digest).collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.turns_at
    }

    /// Forgets those that nobody repeats any more.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.turns_at.is_some_and(|at| at <= now) {
            self.turn(now);
        }
    }

    /// The younger ones become the older ones. The room of those does for the next ones: to make it anew costs more than to
    /// fill it. Where there are none, no room is kept.
    fn turn(&mut self, now: Instant) {
        if self.young.is_empty() {
            *self = Self { half_max: self.half_max, ..Self::default() };
            return;
        }
        let mut emptied = std::mem::take(&mut self.old);
        emptied.clear();
        self.old = std::mem::replace(&mut self.young, emptied);
        self.turns_at = Some(now + REMEMBER);
    }
}

impl Shard {
    /// Returns whether this very INVITE was turned away a while ago.
    pub(super) fn was_turned_away(&self, message: &Message) -> bool {
        !self.turned.is_empty() && self.turned.has(self.core.tx.digest_of(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    fn digest(n: u64) -> Digest {
        Digest::from_bits(u128::from(n) << 3)
    }

    #[test]
    fn one_is_known_for_half_a_minute_and_then_forgotten() {
        let at = |s| epoch() + Duration::from_secs(s);
        let mut turned = Turned::default();
        assert!(turned.is_empty() && turned.poll_timeout().is_none());
        turned.note(digest(1), at(0));
        turned.note(digest(2), at(31));
        assert!(turned.has(digest(1)) && turned.has(digest(2)) && !turned.has(digest(3)));
        while let Some(due) = turned.poll_timeout().filter(|due| *due <= at(62)) {
            turned.handle_timeout(due);
        }
        assert!(turned.has(digest(2)));
        while let Some(due) = turned.poll_timeout().filter(|due| *due <= at(31 + 64)) {
            turned.handle_timeout(due);
        }
        assert!(turned.is_empty() && turned.poll_timeout().is_none());
    }

    #[test]
    fn a_flood_is_remembered_as_far_as_there_is_room() {
        let mut turned = Turned { half_max: 1000, ..Turned::default() };
        for n in 0..100_000 {
            turned.note(digest(n), epoch());
            assert!(turned.young.len() + turned.old.len() <= 2000);
            assert!(turned.has(digest(n.saturating_sub(999))));
        }
        assert!(!turned.has(digest(0)));
        let room = turned.young.room();
        assert!((1000..4000).contains(&room) && turned.old.room() == room, "{room}");
        while let Some(due) = turned.poll_timeout() {
            turned.handle_timeout(due);
        }
        assert_eq!((turned.young.room(), turned.old.room()), (0, 0), "it goes back");
    }
}
