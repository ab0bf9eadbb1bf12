//! When a newer process takes over: which messages are for it, and which for the one before; what both count.
//!
//! Owns: who is there beside this process, the one rule of whose a message is, and who is told what was counted.
//! Never: carries a message across; the shell does.

use super::{Output, Shard, untold::Untold};
use crate::{
    guard::{self, ago_ms, before},
    ids::{Digest, Flow, LegId, ShardId},
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

    /// Returns what `other` is to `own`; `None`: the same. Nobody outlives a hundred upgrades.
    fn of(other: ShardId, own: ShardId) -> Option<Self> {
        match other.0.wrapping_sub(own.0) {
            0 => None,
            1..=127 => Some(Self::Successor),
            128.. => Some(Self::Predecessor),
        }
    }
}

/// A change of what is counted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Change {
    /// What trunks carry.
    Trunk(trunk::Count),
    /// What guards count.
    Guard(guard::Note),
}

/// What is told of it to another process.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Note {
    /// How long ago it was, in milliseconds.
    pub ago_ms: u64,
    /// What.
    pub change: Change,
}

impl Note {
    pub(super) fn new(change: Change, at: Instant, now: Instant) -> Self {
        Self { ago_ms: ago_ms(at, now), change }
    }
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

/// The process before us.
#[derive(Debug)]
struct Elder {
    /// The requests that it had received when it left.
    received: BTreeSet<Digest>,
    untold: Untold,
}

/// Who is there beside this process.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// Until it is gone.
    predecessor: Option<Elder>,
    /// What the next process is to be told, while it is there.
    successor: Option<Untold>,
    /// Everything but our calls was left to a next process, whether it is still there or not.
    has_left: bool,
    /// Until when a free place at a trunk is left to the process before us.
    pub(super) gives_way_until: Option<Instant>,
}

impl Family {
    fn has(&self, kin: Kin) -> bool {
        match kin {
            Kin::Predecessor => self.predecessor.is_some(),
            Kin::Successor => self.successor.is_some(),
        }
    }

    fn untold(&mut self, kin: Kin) -> Option<&mut Untold> {
        match kin {
            Kin::Predecessor => self.predecessor.as_mut().map(|elder| &mut elder.untold),
            Kin::Successor => self.successor.as_mut(),
        }
    }

    /// Returns whether the process before us had received a request when it left.
    pub(super) fn predecessor_has(&self, digest: Digest) -> bool {
        self.predecessor.as_ref().is_some_and(|elder| elder.received.contains(&digest))
    }

    /// Returns whether the process before us still has calls.
    pub(super) fn predecessor_is_there(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Returns whether this process answers for its calls only.
    pub(super) fn is_leaving(&self) -> bool {
        self.has_left
    }
}

impl Shard {
    /// Takes over from a process that leaves this.
    pub fn succeed(&mut self, legacy: Legacy, now: Instant) {
        let received = legacy.received.into_iter().collect();
        self.family.predecessor = Some(Elder { received, untold: Untold::default() });
        legacy.notes.iter().for_each(|note| self.count(note, now));
        // Users and trunks may have gone with the former configuration.
        self.configure_guards(now);
        self.keep_journals();
        self.settle(now);
    }

    /// Learns that another process is gone, and all of its calls. Where that is the next one, we go on with our calls
    /// and with nothing else: who is registered, it knew.
    pub fn outlive(&mut self, kin: Kin, now: Instant) {
        match kin {
            Kin::Predecessor => self.family.predecessor = None,
            Kin::Successor => self.family.successor = None,
        }
        let own = self.id;
        let is_theirs = |leg: LegId| Kin::of(leg.shard(), own) == Some(kin);
        self.core.trunks.release_all(is_theirs);
        self.core.watch.end_all(is_theirs, now);
        self.settle(now);
        self.keep_journals();
    }

    /// Takes what another process has counted: limits hold for all of them together.
    pub fn handle_note(&mut self, from: Kin, note: Note, now: Instant) {
        self.count(&note, now);
        self.tell(Some(from), &note.change, before(now, note.ago_ms));
        self.settle(now);
    }

    fn count(&mut self, note: &Note, now: Instant) {
        match &note.change {
            Change::Trunk(count) => self.core.trunks.hear(count),
            Change::Guard(heard) => self.core.watch.hear(heard, before(now, note.ago_ms)),
        }
    }

    /// Returns the next thing that another process is to be told. Whatever it takes until it can be: nothing is lost.
    pub fn poll_note(&mut self, kin: Kin, now: Instant) -> Option<Note> {
        self.family.untold(kin)?.next(now)
    }

    /// Keeps for the others what was counted here.
    pub(super) fn tell_kin(&mut self, now: Instant) {
        let counts = self.core.trunks.take_untold().into_iter().map(Change::Trunk);
        let notes = self.core.watch.journal.take().into_iter().map(Change::Guard);
        counts.chain(notes).for_each(|change| self.tell(None, &change, now));
    }

    fn tell(&mut self, from: Option<Kin>, change: &Change, at: Instant) {
        for kin in Kin::BOTH.into_iter().filter(|kin| from != Some(*kin)) {
            if let Some(untold) = self.family.untold(kin) {
                untold.add(change, at);
            }
        }
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
        self.family.has_left = true;
        self.configure_trunks(now);
        self.follow_bindings(now);
        self.settle(now);
        let theirs =
            self.family.predecessor.iter().flat_map(|elder| elder.received.iter().copied());
        let received = theirs.chain(self.core.tx.digests()).chain(self.turned.digests()).collect();
        let counts = self.core.trunks.counts().into_iter();
        let counts = counts.map(|count| Note::new(Change::Trunk(count), now, now));
        let of_guards = self.core.watch.notes(now).into_iter();
        let of_guards = of_guards.map(|(at, note)| Note::new(Change::Guard(note), at, now));
        let notes = counts.chain(of_guards).collect();
        // From now on each change is told.
        self.family.successor = Some(Untold::default());
        self.keep_journals();
        Legacy { received, notes }
    }

    /// Goes on as before: the next process did not come to stand.
    pub fn stay(&mut self, now: Instant) {
        self.is_draining = false;
        self.family.has_left = false;
        self.family.successor = None;
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
        let is_unknown_elsewhere = self.family.has(Kin::Successor) && is_asked_again;
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
        if self.family.predecessor.is_none() && self.family.successor.is_none() {
            return None;
        }
        let kin = self.whose(message)?;
        (self.family.has(kin) && from != Some(kin)).then_some(kin)
    }

    fn whose(&self, message: &Message) -> Option<Kin> {
        let minted = if message.is_request() { message.to_tag() } else { Some(message.branch()) };
        let owner = minted.and_then(|minted| self.core.shared.key.owner(minted));
        if let Some(owner) = owner {
            return Kin::of(owner, self.id);
        }
        if !message.is_request() || self.core.tx.knows(message) {
            return None;
        }
        let digests = self.core.tx.digests_of(message);
        if digests.iter().any(|digest| self.family.predecessor_has(*digest)) {
            return Some(Kin::Predecessor);
        }
        Some(Kin::Successor)
    }
}
