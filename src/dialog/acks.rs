//! ACKs of 2xx responses, kept to be repeated (RFC 3261 13.2.2.4).
//!
//! Owns: the bytes of each ACK for as long as the peer may repeat its 2xx (64*T1).
//! Never: decides whether a 2xx is acknowledged; the leg did, once.

use crate::{ids::Flow, table::Table, transaction::ClientId};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// RFC 6026's timer M: no 2xx of a transaction arrives later.
const KEEP: Duration = Duration::from_secs(32);

/// How many answers one INVITE may have.
const FORKS_MAX: usize = 16;

/// The ACKs of one shard.
#[derive(Debug, Default)]
pub struct Acks {
    /// By the INVITE: one for each answer.
    sent: Table<ClientId, Vec<Ack>>,
    /// In the order of their ends.
    ends: VecDeque<(Instant, ClientId)>,
}

/// One of them.
#[derive(Debug)]
struct Ack {
    to_tag: Box<str>,
    flow: Flow,
    bytes: Bytes,
}

impl Acks {
    /// Keeps the ACK of the 2xx with this To tag.
    pub fn keep(&mut self, tx: ClientId, to_tag: &str, flow: Flow, ack: Bytes, now: Instant) {
        let answers = self.sent.get_or_insert_with(tx, || Vec::with_capacity(1));
        let (bytes, is_first) = (ack, answers.is_empty());
        match answers.iter_mut().find(|answer| *answer.to_tag == *to_tag) {
            Some(answer) => (answer.flow, answer.bytes) = (flow, bytes),
            None => answers.push(Ack { to_tag: to_tag.into(), flow, bytes }),
        }
        if is_first && let Some(end) = now.checked_add(KEEP) {
            self.ends.push_back((end, tx));
        }
    }

    /// Returns whether another answer to this INVITE may be acknowledged. Forks behind the peer are
    /// few; more are made up.
    pub fn has_room(&self, tx: ClientId) -> bool {
        self.sent.get(tx).is_none_or(|answers| answers.len() < FORKS_MAX)
    }

    /// Returns the ACK of a 2xx that was acknowledged before.
    pub fn find(&self, tx: ClientId, to_tag: &str) -> Option<(Flow, Bytes)> {
        let answer = self.sent.get(tx)?.iter().find(|answer| *answer.to_tag == *to_tag)?;
        Some((answer.flow, answer.bytes.clone()))
    }

    /// Forgets what is too old to be asked for again.
    pub fn sweep(&mut self, now: Instant) {
        while let Some((end, _)) = self.ends.front()
            && *end <= now
            && let Some((_, tx)) = self.ends.pop_front()
        {
            self.sent.remove(tx);
        }
    }

    /// Returns when [`Self::sweep`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Returns whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}
