//! ACKs of 2xx responses, kept to be repeated (RFC 3261 13.2.2.4).
//!
//! Owns: the bytes of each ACK for as long as the peer may repeat its 2xx (64*T1).
//! Never: decides whether a 2xx is acknowledged; the leg did, once.

use crate::{ids::Flow, transaction::ClientId};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// RFC 6026's timer M: no 2xx of a transaction arrives later.
const KEEP: Duration = Duration::from_secs(32);

/// How many answers one INVITE may have.
const FORKS_MAX: usize = 16;

/// The ACKs of one shard.
#[derive(Debug, Default)]
pub struct Acks {
    sent: BTreeMap<(ClientId, Box<str>), (Flow, Bytes)>,
    /// In the order of their ends.
    ends: VecDeque<(Instant, ClientId, Box<str>)>,
}

impl Acks {
    /// Keeps the ACK of the 2xx with this To tag.
    pub fn keep(&mut self, tx: ClientId, to_tag: &str, flow: Flow, ack: Bytes, now: Instant) {
        let to_tag: Box<str> = to_tag.into();
        if self.sent.insert((tx, to_tag.clone()), (flow, ack)).is_none()
            && let Some(end) = now.checked_add(KEEP)
        {
            self.ends.push_back((end, tx, to_tag));
        }
    }

    /// Returns whether another answer to this INVITE may be acknowledged. Forks behind the peer are
    /// few; more are made up.
    pub fn has_room(&self, tx: ClientId) -> bool {
        self.sent.range((tx, Box::from(""))..).take_while(|((of, _), _)| *of == tx).count()
            < FORKS_MAX
    }

    /// Returns the ACK of a 2xx that was acknowledged before.
    pub fn find(&self, tx: ClientId, to_tag: &str) -> Option<(Flow, Bytes)> {
        self.sent.get(&(tx, to_tag.into())).cloned()
    }

    /// Forgets what is too old to be asked for again.
    pub fn sweep(&mut self, now: Instant) {
        while let Some((end, ..)) = self.ends.front()
            && *end <= now
            && let Some((_, tx, tag)) = self.ends.pop_front()
        {
            self.sent.remove(&(tx, tag));
        }
    }

    /// Returns when [`Self::sweep`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.front().map(|(end, ..)| *end)
    }

    /// Returns whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}
