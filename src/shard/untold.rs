//! What another process of an upgrade is still to be told.
//!
//! Owns: the news of each leg at each trunk; that of the guards is their own.
//! Never: grows with calls that are over, however long the other one does not listen; or forgets one.

use super::succession::{Change, Note};
use crate::{guard, ids::LegId, trunk::Count};
use std::{collections::BTreeMap, time::Instant};

/// What one other process is to hear.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Whether a leg is carried by a trunk, where the other one knows otherwise.
    counts: BTreeMap<(Box<str>, LegId), bool>,
    guards: guard::Untold,
}

impl Untold {
    /// Adds what was counted at `at`.
    pub(super) fn add(&mut self, change: &Change, at: Instant) {
        match change {
            Change::Trunk(Count { trunk, leg, is_carried }) => {
                let key = (trunk.clone(), *leg);
                // What has changed back unheard of need not be told.
                if self.counts.remove(&key).is_none() {
                    self.counts.insert(key, *is_carried);
                }
            }
            Change::Guard(note) => self.guards.add(note, at),
        }
    }

    /// Takes the next thing to say.
    pub(super) fn next(&mut self, now: Instant) -> Option<Note> {
        if let Some(((trunk, leg), is_carried)) = self.counts.pop_first() {
            return Some(Note::new(Change::Trunk(Count { trunk, leg, is_carried }), now, now));
        }
        let (at, note) = self.guards.next(now)?;
        Some(Note::new(Change::Guard(note), at, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::ShardId, sim::epoch, trunk::Trunks};

    fn tell(from: &mut Trunks, untold: &mut Untold) {
        for count in from.take_untold() {
            untold.add(&Change::Trunk(count), epoch());
        }
    }

    fn hear(untold: &mut Untold, to: &mut Trunks) {
        while let Some(note) = untold.next(epoch()) {
            let Change::Trunk(count) = note.change else { panic!("{note:?}") };
            to.hear(&count);
        }
    }

    /// Ten thousand calls while nobody listens, of which one stays; and the end of one that was told of.
    #[test]
    fn who_has_not_listened_learns_what_is_carried_and_no_more() {
        let leg = |n| LegId::new(ShardId(1), n);
        let (mut here, mut there, mut untold) =
            (Trunks::default(), Trunks::default(), Untold::default());
        here.keep_untold(true);
        assert!(here.claim("t", leg(0), None));
        tell(&mut here, &mut untold);
        hear(&mut untold, &mut there);
        assert_eq!(there.calls("t"), 1);
        for n in 1..=10_000 {
            assert!(here.claim("t", leg(n), None));
            tell(&mut here, &mut untold);
            if n < 10_000 {
                here.release("t", leg(n));
                tell(&mut here, &mut untold);
            }
            assert!(untold.counts.len() <= 1);
        }
        here.release("t", leg(0));
        tell(&mut here, &mut untold);
        assert_eq!(untold.counts.len(), 2);
        hear(&mut untold, &mut there);
        assert_eq!(there.counts(), here.counts());
        assert_eq!(there.calls("t"), 1);
        // It is carried no more and carried again: as the other one knows it.
        here.release("t", leg(10_000));
        assert!(here.claim("t", leg(10_000), None));
        tell(&mut here, &mut untold);
        assert!(untold.next(epoch()).is_none());
    }
}
