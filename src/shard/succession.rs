//! When a newer process takes over: which messages are for it, and which for the one before; what both count.
//!
//! Owns: who is there beside this process, the one rule of whose a message is, and who is told what was counted.
//! Never: carries a message across; the shell does.

use super::{Output, Shard};
use crate::{
    guard,
    ids::{Digest, Flow, LegId},
    sip::Message,
    trunk,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Instant};

/// Another process with the same sockets and the same key of identifiers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kin {
    /// It had the sockets before us, and ends with its last call.
    Predecessor,
    /// It has them now; we end with our last call.
    Successor,
}

impl Kin {
    const BOTH: [Self; 2] = [Self::Predecessor, Self::Successor];
}

/// A change of what is counted, told to another process.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Note {
    /// What trunks carry.
    Trunk(trunk::Count),
    /// What guards count.
    Guard(guard::Note),
}

/// What a process leaves to the next one, beside what the shell has.
#[derive(Debug, Default)]
pub struct Legacy {
    /// The requests that it has received, or those before it, and that stay with it; and the INVITEs that were
    /// turned away, whose copies must be.
    pub received: Vec<Digest>,
    /// What its calls, and those before it, count for: at trunks, and in budgets.
    pub notes: Vec<Note>,
}

/// Who is there beside this process.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// The requests that the process before us had received when it left, until it is gone.
    predecessor: Option<BTreeSet<Digest>>,
    has_successor: bool,
    /// Until when a free place at a trunk is left to the process before us.
    pub(super) gives_way_until: Option<Instant>,
}

impl Family {
    fn has(&self, kin: Kin) -> bool {
        match kin {
            Kin::Predecessor => self.predecessor.is_some(),
            Kin::Successor => self.has_successor,
        }
    }

    /// Returns whether the process before us had received a request when it left.
    pub(super) fn predecessor_has(&self, digest: Digest) -> bool {
        self.predecessor.as_ref().is_some_and(|received| received.contains(&digest))
    }

    /// Returns whether the process before us still has calls.
    pub(super) fn predecessor_is_there(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Returns whether this process answers for its calls only.
    pub(super) fn is_leaving(&self) -> bool {
        self.has_successor
    }
}

impl Shard {
    /// Takes over from a process that leaves this.
    pub fn succeed(&mut self, legacy: Legacy, now: Instant) {
        self.family.predecessor = Some(legacy.received.into_iter().collect());
        legacy.notes.iter().for_each(|note| self.count(note, now));
        // Users and trunks may have gone with the former configuration.
        self.configure_guards(now);
        self.keep_journals();
        self.settle(now);
    }

    /// Learns that the process before us is gone, and all of its calls.
    pub fn outlive_predecessor(&mut self, now: Instant) {
        self.family.predecessor = None;
        let own = self.id;
        let is_elders = |leg: LegId| leg.shard().0.wrapping_sub(own.0) > 127;
        self.core.trunks.release_all(is_elders);
        self.core.watch.end_all(is_elders, now);
        self.settle(now);
        self.keep_journals();
    }

    /// Takes what another process has counted: limits hold for all of them together.
    pub fn handle_note(&mut self, from: Kin, note: Note, now: Instant) {
        self.count(&note, now);
        self.tell(Some(from), &note);
        self.settle(now);
    }

    fn count(&mut self, note: &Note, now: Instant) {
        match note {
            Note::Trunk(count) => self.core.trunks.hear(count),
            Note::Guard(note) => self.core.watch.hear(note, now),
        }
    }

    /// Tells the others what was counted here.
    pub(super) fn tell_kin(&mut self) {
        let counts = self.core.trunks.take_untold().into_iter().map(Note::Trunk);
        let notes = self.core.watch.journal.take().into_iter().map(Note::Guard);
        counts.chain(notes).for_each(|note| self.tell(None, &note));
    }

    fn tell(&mut self, from: Option<Kin>, note: &Note) {
        let others =
            Kin::BOTH.into_iter().filter(|kin| self.family.has(*kin) && from != Some(*kin));
        self.out.extend(others.map(|kin| Output::Tell { kin, note: note.clone() }));
    }

    fn keep_journals(&mut self) {
        let is_anybody_there = Kin::BOTH.into_iter().any(|kin| self.family.has(kin));
        self.core.trunks.keep_untold(is_anybody_there);
        self.core.watch.journal.keep(is_anybody_there);
    }

    /// Leaves everything but its own calls to the next process: no OPTIONS, no registrations, no new
    /// calls. Returns what that one must know.
    pub fn leave(&mut self, now: Instant) -> Legacy {
        self.is_draining = true;
        self.family.has_successor = true;
        self.configure_trunks(now);
        self.follow_bindings(now);
        self.settle(now);
        let theirs = self.family.predecessor.iter().flatten().copied();
        let received = theirs.chain(self.core.tx.digests()).chain(self.turned.digests()).collect();
        let counts = self.core.trunks.counts().into_iter().map(Note::Trunk);
        let of_guards = self.core.watch.notes(now).into_iter().map(Note::Guard);
        let notes = counts.chain(of_guards).collect();
        // From now on each change is told.
        self.keep_journals();
        Legacy { received, notes }
    }

    /// Goes on as before: the next process did not come to stand.
    pub fn stay(&mut self, now: Instant) {
        self.is_draining = false;
        self.family.has_successor = false;
        self.keep_journals();
        self.configure_trunks(now);
        self.follow_bindings(now);
        self.settle(now);
    }

    /// Returns whether the process may end, once it is to: no call is left, nobody before us needs
    /// our sockets, and where another process has taken over, nobody repeats a request that only we
    /// know the answer to.
    pub fn may_end(&self) -> bool {
        let is_asked_again = !self.core.tx.is_empty() || !self.turned.is_empty();
        let is_unknown_elsewhere = self.family.has_successor && is_asked_again;
        self.is_idle() && !self.family.has(Kin::Predecessor) && !is_unknown_elsewhere
    }

    /// Accepts a message that another process has received and that is not for it.
    pub fn handle_passed(&mut self, from: Kin, flow: Flow, bytes: Bytes, now: Instant) {
        self.guarded(|shard| shard.receive(Some(from), flow, bytes, now));
        self.settle(now);
    }

    /// Accepts a message at an address that is ours no more, and the process before us has calls at.
    /// What is not for it is not answered: whoever asks shall look for us where we are.
    pub fn handle_elders(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        let message = Message::parse(bytes).ok();
        let theirs = message.filter(|message| {
            let kin = self.kin_of(message, None);
            kin == Some(Kin::Predecessor)
        });
        match theirs {
            Some(message) => {
                let bytes = message.bytes().clone();
                self.out.push_back(Output::Pass { kin: Kin::Predecessor, flow, bytes });
            }
            None => self.counters.discards.count("former_address"),
        }
        self.settle(now);
    }

    /// Returns for which other process a message is; `None` where it is for this one. Whoever has
    /// passed it on does not get it back.
    ///
    /// A tag or branch that was minted names its shard, and each process is a shard of its own, one
    /// more than the process before it. What has neither belongs to whoever has received its request,
    /// and what is new to the newest.
    pub(super) fn kin_of(&self, message: &Message, from: Option<Kin>) -> Option<Kin> {
        if self.family.predecessor.is_none() && !self.family.has_successor {
            return None;
        }
        let kin = self.whose(message)?;
        (self.family.has(kin) && from != Some(kin)).then_some(kin)
    }

    fn whose(&self, message: &Message) -> Option<Kin> {
        let minted = if message.is_request() { message.to_tag() } else { Some(message.branch()) };
        let owner = minted.and_then(|minted| self.core.shared.key.owner(minted));
        if let Some(owner) = owner {
            // Nobody outlives a hundred upgrades.
            return match owner.0.wrapping_sub(self.id.0) {
                0 => None,
                1..=127 => Some(Kin::Successor),
                128.. => Some(Kin::Predecessor),
            };
        }
        if !message.is_request() || self.core.tx.knows(message) {
            return None;
        }
        let received = self.family.predecessor.as_ref();
        let digests = self.core.tx.digests_of(message);
        if received.is_some_and(|all| digests.iter().any(|digest| all.contains(digest))) {
            return Some(Kin::Predecessor);
        }
        Some(Kin::Successor)
    }
}
