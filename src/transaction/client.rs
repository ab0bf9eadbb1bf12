//! The table of client transactions: by identifier, and by the branch that their responses carry.
//!
//! Owns: the machines, what each needs to repeat or follow up its request.
//! Never: carries out an effect.

use super::{
    ClientEffect, ClientInput, Reliability, invite_client,
    invite_client::{InviteClient, Late},
    matching::ClientKey,
    other_client,
    other_client::OtherClient,
};
use crate::{
    ids::Flow,
    sip::{Message, Method},
    table::Table,
    timers::Armed,
};
use bytes::Bytes;
use std::{fmt, time::Instant};

/// A client transaction of one [`super::Layer`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(pub(super) u64);

#[cfg(test)]
impl ClientId {
    /// Names a transaction that no layer has.
    pub(crate) fn for_tests(serial: u64) -> Self {
        Self(serial)
    }
}

/// Who hears of a transaction's progress.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Audience {
    /// The user, who asked for it.
    User,
    /// Nobody: it is a CANCEL, whose INVITE tells the story.
    Nobody,
}

/// What a transaction is to send.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) bytes: Bytes,
    /// By the branch of its only Via.
    pub(super) key: ClientKey,
    pub(super) method: Method,
    pub(super) flow: Flow,
    pub(super) audience: Audience,
    /// For an INVITE.
    pub(super) late: Late,
}

/// One request that we sent.
#[derive(Debug)]
pub(super) struct Client {
    machine: Machine,
    key: ClientKey,
    method: Method,
    pub(super) flow: Flow,
    /// Kept for the ACK and the CANCEL, and for whoever asks; empty once it is answered, and an INVITE once
    /// that was asked for.
    pub(super) request: Bytes,
    pub(super) audience: Audience,
    /// The Reason of a CANCEL that may have to wait.
    pub(super) reason: Option<Box<str>>,
    /// What it waits for, as its layer has queued it.
    pub(super) armed: Option<Armed>,
}

#[derive(Debug)]
enum Machine {
    Invite(InviteClient),
    Other(OtherClient),
}

impl Client {
    /// Creates the transaction and sends its request.
    pub(super) fn start(request: Request, now: Instant, out: &mut Vec<ClientEffect>) -> Self {
        let Request { bytes, key, method, flow, audience, late } = request;
        let (copy, reliability) = (bytes.clone(), Reliability::from(flow.transport));
        let machine = if method == Method::Invite {
            Machine::Invite(InviteClient::start(copy, reliability, late, now, out))
        } else {
            Machine::Other(OtherClient::start(copy, reliability, now, out))
        };
        Self { machine, key, method, flow, request: bytes, audience, reason: None, armed: None }
    }

    /// Returns the request; `None` if it is none.
    pub(super) fn sent(&self) -> Option<Message> {
        Message::parse(self.request.clone()).ok()
    }

    pub(super) fn handle(&mut self, input: ClientInput, now: Instant, out: &mut Vec<ClientEffect>) {
        match &mut self.machine {
            Machine::Invite(tx) => tx.handle(input, now, out),
            Machine::Other(tx) => {
                tx.handle(input, now, out);
                if tx.is_answered() {
                    self.request = Bytes::new();
                }
            }
        }
    }

    /// Forgets what an INVITE with a 2xx said.
    pub(super) fn forget_request(&mut self) {
        match &self.machine {
            Machine::Invite(tx) if tx.is_accepted() => self.request = Bytes::new(),
            Machine::Invite(_) | Machine::Other(_) => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<ClientEffect>) {
        match &mut self.machine {
            Machine::Invite(tx) => tx.handle_timeout(now, out),
            Machine::Other(tx) => tx.handle_timeout(now, out),
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
            Machine::Invite(tx) => tx.state() == invite_client::State::Terminated,
            Machine::Other(tx) => tx.state() == other_client::State::Terminated,
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state: &dyn fmt::Debug = match &self.machine {
            Machine::Invite(tx) => &tx.state(),
            Machine::Other(tx) => &tx.state(),
        };
        let sent = self.sent();
        let branch = sent.as_ref().map_or("", |sent| sent.branch());
        write!(f, "client {} {state:?} {} {branch}", self.method, self.flow)
    }
}

/// Every client transaction of a layer.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Each in a place of its own: a table that grows moves all of itself.
    entries: Table<ClientId, Box<Client>>,
    by_key: Table<ClientKey, ClientId>,
}

impl Clients {
    pub(super) fn insert(&mut self, id: ClientId, client: Client) {
        let previous = self.by_key.insert(client.key, id);
        debug_assert!(previous.is_none(), "a branch was used twice");
        self.entries.insert(id, Box::new(client));
    }

    pub(super) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.entries.remove(id)?;
        if self.by_key.get(client.key) == Some(&id) {
            self.by_key.remove(client.key);
        }
        Some(*client)
    }

    /// Returns the transaction that a response belongs to (RFC 3261 17.1.3).
    pub(super) fn find(&self, key: ClientKey, method: Method) -> Option<ClientId> {
        let id = *self.by_key.get(key)?;
        self.entries.get(id).filter(|client| client.method == method).map(|_| id)
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.entries.get(id).map(|client| &**client)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.entries.get_mut(id).map(|client| &mut **client)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns all of them in the order in which they began. For a dump.
    pub(super) fn sorted(&self) -> impl Iterator<Item = &Client> {
        self.entries.sorted().into_iter().map(|(_, entry)| &**entry)
    }
}
