//! The table of server transactions: by identifier, and by what a request says of itself.
//!
//! Owns: the machines, where their responses go, how many there may be.
//! Never: carries out an effect.

use super::{
    Reliability, ServerEffect, ServerInput,
    invite_server::{self, InviteServer},
    matching::{MergeKey, ServerKey},
    other_server::{self, OtherServer},
};
use crate::{
    ids::{Digest, Flow, Transport},
    sip::{Message, Method},
    table::Table,
    timers::Armed,
};
use bytes::Bytes;
use std::{collections::VecDeque, fmt, net::SocketAddr, time::Instant};

/// A server transaction of one [`super::Layer`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerId(pub(super) u64);

/// One request that we received.
#[derive(Debug)]
pub(super) struct Server {
    machine: Machine,
    key: ServerKey,
    merge: Option<MergeKey>,
    /// Where responses go.
    pub(super) flow: Flow,
    /// Where they go when that connection is gone (RFC 3261 18.2.2).
    fallback: Option<Box<Flow>>,
    /// What it waits for, as its layer has queued it.
    pub(super) armed: Option<Armed>,
}

#[derive(Debug)]
enum Machine {
    Invite(InviteServer),
    Other(OtherServer),
}

impl Server {
    pub(super) fn new(
        request: &Message,
        key: ServerKey,
        merge: Option<MergeKey>,
        flow: Flow,
    ) -> Self {
        let reliability = Reliability::from(flow.transport);
        let machine = if request.method() == Method::Invite {
            Machine::Invite(InviteServer::new(reliability))
        } else {
            Machine::Other(OtherServer::new(reliability))
        };
        let fallback = fallback(request, flow).map(Box::new);
        Self { machine, key, merge, flow, fallback, armed: None }
    }

    /// Returns what its request is known by.
    pub(super) fn digest(&self) -> Digest {
        self.key.digest()
    }

    /// Returns whether this is an INVITE that has no final response yet.
    pub(super) fn is_pending_invite(&self) -> bool {
        match &self.machine {
            Machine::Invite(tx) => tx.state() == invite_server::State::Proceeding,
            Machine::Other(_) => false,
        }
    }

    /// Returns whether it waits for copies of its request, and for nothing else.
    pub(super) fn is_answered(&self) -> bool {
        match &self.machine {
            Machine::Invite(tx) => tx.state() == invite_server::State::Accepted,
            Machine::Other(tx) => tx.state() == other_server::State::Completed,
        }
    }

    /// Returns the response sent last, while the INVITE's machine keeps one.
    pub(super) fn last_response(&self) -> Option<&Bytes> {
        match &self.machine {
            Machine::Invite(tx) => tx.last_response(),
            Machine::Other(_) => None,
        }
    }

    /// Returns the To tag of the 2xx to an INVITE.
    pub(super) fn success_tag(&self) -> Option<&str> {
        match &self.machine {
            Machine::Invite(tx) => tx.success_tag(),
            Machine::Other(_) => None,
        }
    }

    fn is_invite(&self) -> bool {
        matches!(self.machine, Machine::Invite(_))
    }

    /// Takes the way that remains when the flow is gone.
    pub(super) fn take_fallback(&mut self) -> Option<Flow> {
        self.fallback.take().map(|flow| *flow)
    }

    pub(super) fn handle(&mut self, input: ServerInput, now: Instant, out: &mut Vec<ServerEffect>) {
        match &mut self.machine {
            Machine::Invite(tx) => tx.handle(input, now, out),
            Machine::Other(tx) => tx.handle(input, now, out),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<ServerEffect>) {
        match &mut self.machine {
            Machine::Invite(tx) => tx.handle_timeout(now, out),
            Machine::Other(tx) => tx.handle_timeout(now),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.machine {
            Machine::Invite(tx) => tx.poll_timeout(),
            Machine::Other(tx) => tx.poll_timeout(),
        }
    }

    pub(super) fn is_terminated(&self) -> bool {
        match &self.machine {
            Machine::Invite(tx) => tx.state() == invite_server::State::Terminated,
            Machine::Other(tx) => tx.state() == other_server::State::Terminated,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, state): (_, &dyn fmt::Debug) = match &self.machine {
            Machine::Invite(tx) => ("INVITE", &tx.state()),
            Machine::Other(tx) => ("other", &tx.state()),
        };
        write!(f, "server {kind} {state:?} {}", self.flow)
    }
}

/// Over a reliable transport: the source's address with the port that the top Via names, or the
/// transport's own (RFC 3261 18.2.1).
fn fallback(request: &Message, flow: Flow) -> Option<Flow> {
    match flow.transport {
        Transport::Udp => None,
        Transport::Tcp | Transport::Tls => {
            let port = request.via().port.unwrap_or(flow.transport.default_port());
            let remote = SocketAddr::new(flow.remote.ip(), port);
            (remote != flow.remote).then_some(Flow { remote, ..flow })
        }
    }
}

/// How many requests other than INVITEs are kept once they are answered. Copies of a request come half a
/// second, one and a half and three and a half seconds after it, until an answer gets through: at 4,000
/// requests a second this is six seconds of them.
const ANSWERED_MAX: usize = 24_000;

/// Every server transaction of a layer.
#[derive(Debug)]
pub(super) struct Servers {
    /// Each in a place of its own: a table that grows moves all of itself.
    entries: Table<ServerId, Box<Server>>,
    by_key: Table<ServerKey, ServerId>,
    by_merge: Table<MergeKey, ServerId>,
    /// Those that are answered, and kept for copies of their request only: the oldest first. INVITEs, whose
    /// 2xx may have to be said again, and the others.
    answered: [VecDeque<ServerId>; 2],
    max: usize,
}

impl Servers {
    pub(super) fn new(max: usize) -> Self {
        let (entries, by_key, by_merge) = (Table::default(), Table::default(), Table::default());
        Self { entries, by_key, by_merge, answered: Default::default(), max }
    }

    pub(super) fn insert(&mut self, id: ServerId, server: Server) {
        self.by_key.insert(server.key, id);
        if let Some(merge) = server.merge {
            self.by_merge.get_or_insert_with(merge, || id);
        }
        self.entries.insert(id, Box::new(server));
    }

    pub(super) fn remove(&mut self, id: ServerId) -> Option<Server> {
        let server = self.entries.remove(id)?;
        self.by_key.remove(server.key);
        if let Some(merge) = server.merge.filter(|merge| self.by_merge.get(*merge) == Some(&id)) {
            self.by_merge.remove(merge);
        }
        Some(*server)
    }

    /// Notes that a transaction has nothing left to do but to wait for copies of its request. Returns one
    /// that gives way to it.
    pub(super) fn note_answered(&mut self, id: ServerId) -> Option<ServerId> {
        let is_invite = self.get(id).is_some_and(Server::is_invite);
        let [invites, others] = &mut self.answered;
        let answered = if is_invite { invites } else { others };
        // What has ended meanwhile is at the front: all wait equally long.
        while let Some(oldest) = answered.front()
            && !self.entries.contains(*oldest)
        {
            answered.pop_front();
        }
        answered.push_back(id);
        if is_invite || answered.len() <= ANSWERED_MAX { None } else { answered.pop_front() }
    }

    /// Takes one that has been answered for longest: where there is no room, it gives way.
    pub(super) fn take_answered(&mut self) -> Option<ServerId> {
        let [invites, others] = &mut self.answered;
        let mut oldest = std::iter::from_fn(|| others.pop_front().or_else(|| invites.pop_front()));
        oldest.find(|id| self.entries.contains(*id))
    }

    pub(super) fn find(&self, key: ServerKey) -> Option<ServerId> {
        self.by_key.get(key).copied()
    }

    /// Returns whether another transaction has the same request already.
    pub(super) fn is_merged(&self, merge: Option<MergeKey>) -> bool {
        merge.is_some_and(|merge| self.by_merge.contains(merge))
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.max
    }

    pub(super) fn get(&self, id: ServerId) -> Option<&Server> {
        self.entries.get(id).map(|server| &**server)
    }

    pub(super) fn get_mut(&mut self, id: ServerId) -> Option<&mut Server> {
        self.entries.get_mut(id).map(|server| &mut **server)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns all of them in the order in which they began. For a dump.
    pub(super) fn sorted(&self) -> impl Iterator<Item = &Server> {
        self.entries.sorted().into_iter().map(|(_, entry)| &**entry)
    }
}
