//! The table of client transactions: by identifier, and by the branch that their responses carry.
//!
//! Owns: the machines, what each needs to repeat or follow up its request.
//! Never: carries out an effect.

use super::{
    ClientEffect, ClientInput, Reliability, invite_client, invite_client::InviteClient,
    other_client, other_client::OtherClient,
};
use crate::{
    ids::Flow,
    sip::{Message, Method},
};
use bytes::Bytes;
use std::{collections::BTreeMap, fmt, time::Instant};

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
pub(super) struct Request<'b> {
    pub(super) bytes: Bytes,
    /// Of its only Via.
    pub(super) branch: &'b str,
    pub(super) method: Method,
    pub(super) flow: Flow,
    pub(super) audience: Audience,
}

/// One request that we sent.
#[derive(Debug)]
pub(super) struct Client {
    machine: Machine,
    branch: Box<str>,
    method: Method,
    pub(super) flow: Flow,
    /// Kept for the ACK and the CANCEL.
    pub(super) request: Bytes,
    pub(super) audience: Audience,
    /// The Reason of a CANCEL that may have to wait.
    pub(super) reason: Option<Box<str>>,
}

#[derive(Debug)]
enum Machine {
    Invite(InviteClient),
    Other(OtherClient),
}

impl Client {
    /// Creates the transaction and sends its request.
    pub(super) fn start(request: Request<'_>, now: Instant, out: &mut Vec<ClientEffect>) -> Self {
        let Request { bytes, branch, method, flow, audience } = request;
        let (copy, reliability) = (bytes.clone(), Reliability::from(flow.transport));
        let machine = if method == Method::Invite {
            Machine::Invite(InviteClient::start(copy, reliability, now, out))
        } else {
            Machine::Other(OtherClient::start(copy, reliability, now, out))
        };
        let branch = branch.into();
        Self { machine, branch, method, flow, request: bytes, audience, reason: None }
    }

    pub(super) fn branch(&self) -> &str {
        &self.branch
    }

    pub(super) fn handle(&mut self, input: ClientInput, now: Instant, out: &mut Vec<ClientEffect>) {
        match &mut self.machine {
            Machine::Invite(tx) => tx.handle(input, now, out),
            Machine::Other(tx) => tx.handle(input, now, out),
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
        write!(f, "client {} {state:?} {} {}", self.method, self.flow, self.branch)
    }
}

/// Every client transaction of a layer.
#[derive(Debug, Default)]
pub(super) struct Clients {
    entries: BTreeMap<ClientId, Client>,
    by_branch: BTreeMap<Box<str>, ClientId>,
    /// A CANCEL has the branch of its INVITE.
    cancels: BTreeMap<Box<str>, ClientId>,
}

impl Clients {
    pub(super) fn insert(&mut self, id: ClientId, client: Client) {
        let branch = client.branch.clone();
        let previous = self.index(client.method).insert(branch, id);
        debug_assert!(previous.is_none(), "a branch was used twice");
        self.entries.insert(id, client);
    }

    pub(super) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.entries.remove(&id)?;
        let index = self.index(client.method);
        if index.get(&client.branch) == Some(&id) {
            index.remove(&client.branch);
        }
        Some(client)
    }

    /// Returns the transaction that a response belongs to (RFC 3261 17.1.3).
    pub(super) fn find(&self, response: &Message) -> Option<ClientId> {
        let method = response.cseq().method;
        let index = if method == Method::Cancel { &self.cancels } else { &self.by_branch };
        let id = *index.get(response.branch())?;
        self.entries.get(&id).filter(|client| client.method == method).map(|_| id)
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.entries.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.entries.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Client> {
        self.entries.values()
    }

    fn index(&mut self, method: Method) -> &mut BTreeMap<Box<str>, ClientId> {
        if method == Method::Cancel { &mut self.cancels } else { &mut self.by_branch }
    }
}
