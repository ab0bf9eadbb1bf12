//! The layer: finds the transaction of each message, carries out what its machine asks for.
//!
//! Owns: both tables, the deadlines, what is answered without the user.
//! Never: opens a connection, resolves a name, retransmits a 2xx.

mod receive;

use super::{
    Class, ClientEffect, ClientInput, Discard, Discards, Reply, ServerEffect, ServerInput,
    client::{Audience, Client, ClientId, Clients, Request},
    event::{Event, Output},
    follow_up,
    invite_client::Late,
    matching::{ClientKey, MergeKey, ServerKey},
    server::{Server, ServerId, Servers},
};
use crate::{
    ids::{Flow, Mint},
    sip::{Builder, Message, Method, default_reason},
    timers::{Armed, Owners, Queue},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// How many server transactions there may be, unless the owner says otherwise. Above that, answered ones go
/// early.
pub const SERVERS_MAX: usize = 100_000;

/// A transaction of either kind.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Slot {
    Server(ServerId),
    Client(ClientId),
}

/// The transactions, each of which keeps what it waits for.
struct Slots<'a>(&'a mut Servers, &'a mut Clients);

impl Slots<'_> {
    fn of(&mut self, slot: Slot) -> Option<&mut Option<Armed>> {
        match slot {
            Slot::Server(id) => self.0.get_mut(id).map(|server| &mut server.armed),
            Slot::Client(id) => self.1.get_mut(id).map(|client| &mut client.armed),
        }
    }
}

impl Owners<Slot> for Slots<'_> {
    fn armed(&mut self, slot: Slot) -> Option<&mut Armed> {
        self.of(slot)?.as_mut()
    }

    fn release(&mut self, slot: Slot) {
        if let Some(armed) = self.of(slot) {
            *armed = None;
        }
    }
}

/// The message that is being handled, and where it came from.
type Cause<'m> = Option<(&'m Message, Flow)>;

/// Every transaction of one owner: a shard, a simulated phone.
///
/// After each call the owner carries out what was pushed to `out`, in order, and calls
/// [`Self::handle_timeout`] no earlier than [`Self::poll_timeout`] says.
#[derive(Debug)]
pub struct Layer {
    pub(super) mint: Mint,
    serial: u64,
    pub(super) servers: Servers,
    clients: Clients,
    /// Who is concerned when a flow fails: requests of ours, and over connections answers, too.
    by_flow: BTreeMap<Flow, BTreeSet<Slot>>,
    timers: Queue<Slot>,
    discards: Discards,
    retransmissions: u64,
    /// Whether INVITEs get their 100 from us.
    says_trying: bool,
    /// Room for what a machine asks for, kept from one step to the next.
    effects: (Vec<ServerEffect>, Vec<ClientEffect>),
}

impl Layer {
    /// Creates an empty layer.
    pub fn new(mint: Mint) -> Self {
        Self {
            mint,
            serial: 0,
            servers: Servers::new(SERVERS_MAX),
            clients: Clients::default(),
            by_flow: BTreeMap::new(),
            timers: Queue::default(),
            discards: Discards::default(),
            retransmissions: 0,
            says_trying: true,
            effects: (vec![], vec![]),
        }
    }

    /// Leaves 100 (Trying) to the owner, who must then send it within 200 ms (RFC 3261 17.2.1).
    pub fn leave_trying(&mut self) {
        self.says_trying = false;
    }

    /// Sets how many server transactions there may be; above that, requests get a 503 without
    /// state.
    #[must_use]
    pub fn with_servers_max(mut self, max: usize) -> Self {
        self.servers = Servers::new(max);
        self
    }

    /// Returns the maker of branches, tags and Call-IDs.
    pub fn mint(&mut self) -> &mut Mint {
        &mut self.mint
    }

    /// Accepts one message from the network.
    pub fn receive(&mut self, message: Message, flow: Flow, now: Instant, out: &mut Vec<Output>) {
        if !message.is_request() {
            self.receive_response(&message, flow, now, out);
        } else if message.method() == Method::Ack {
            self.receive_ack(message, flow, now, out);
        } else {
            let key = ServerKey::of(&message, self.mint.key());
            if self.is_repeated(key, now, out) {
                return;
            }
            match message.method() == Method::Cancel {
                true => self.receive_cancel(message, key, flow, now, out),
                false => self.receive_request(message, key, flow, now, out),
            }
        }
    }

    /// Sends an INVITE that is to begin a dialog, with `branch` in its only Via. Whoever answers it after it was
    /// given up is heard all the same (RFC 3261 13.2.2.4).
    pub fn invite(
        &mut self,
        bytes: Bytes,
        branch: &str,
        flow: Flow,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> ClientId {
        let (method, late) = (Method::Invite, Late::Heard);
        let (key, audience) = (ClientKey::new(branch, method, self.mint.key()), Audience::User);
        self.start_client(Request { bytes, key, method, flow, audience, late }, now, out)
    }

    /// Sends any other request that bears `branch` in its only Via: an INVITE that is within a dialog, which tells
    /// whoever answers too late. Not for the ACK of a 2xx, which is no transaction.
    #[expect(clippy::too_many_arguments, reason = "two are the caller's knowledge of the bytes")]
    pub fn request(
        &mut self,
        bytes: Bytes,
        branch: &str,
        method: Method,
        flow: Flow,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> ClientId {
        debug_assert!(method != Method::Ack, "an ACK is no transaction");
        let (audience, late) = (Audience::User, Late::Ignored);
        let key = ClientKey::new(branch, method, self.mint.key());
        self.start_client(Request { bytes, key, method, flow, audience, late }, now, out)
    }

    /// Answers a request. A 2xx to an INVITE may be given again, as its retransmission, until the
    /// transaction ends 32 s after the first; from then on it is dropped and counted.
    pub fn respond(
        &mut self,
        tx: ServerId,
        status: u16,
        bytes: Bytes,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(was_answered) = self.servers.get(tx).map(Server::is_answered) else {
            self.discards.count(Discard::LateReply);
            return;
        };
        let reply = Reply { class: Class::of(status), bytes };
        self.step_server(tx, Some(ServerInput::Reply(reply)), None, now, out);
        if !was_answered && self.servers.get(tx).is_some_and(Server::is_answered) {
            let gives_way = self.servers.note_answered(tx);
            gives_way.into_iter().for_each(|oldest| self.remove(Slot::Server(oldest)));
        }
    }

    /// Forgets a request that shall not be answered at all.
    pub fn abandon(&mut self, tx: ServerId) {
        self.remove(Slot::Server(tx));
    }

    /// Says a request of ours no more, and forgets it: its answer is no longer of interest. Not for
    /// an INVITE, which is cancelled.
    pub fn give_up(&mut self, tx: ClientId) {
        self.remove(Slot::Client(tx));
    }

    /// Cancels an INVITE of ours (RFC 3261 9.1): now if it was heard, else as soon as it is, and
    /// not at all once it is answered. `reason` is the value of a Reason header (RFC 3326). The
    /// INVITE's transaction goes on to a final response, or ends with [`Event::Timeout`].
    pub fn cancel(
        &mut self,
        tx: ClientId,
        reason: Option<&str>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if let Some(client) = self.clients.get_mut(tx) {
            client.reason = reason.map(Box::from).or(client.reason.take());
            self.step_client(tx, Some(ClientInput::Cancel), None, now, out);
        }
    }

    /// Learns that a connection has died, or that a datagram could not be sent.
    ///
    /// Requests without an answer fail. Responses take the way that remains to a client with a
    /// listener of its own (RFC 3261 18.2.2); over UDP, an ICMP error does not end their
    /// repetition.
    pub fn send_failed(&mut self, flow: Flow, now: Instant, out: &mut Vec<Output>) {
        self.lose_flow(flow, ClientInput::SendFailed, now, out);
    }

    /// Learns that a connection which stood has closed, and that another one can be opened.
    ///
    /// What was written to it at the last moment may never have been read: a request without an answer is
    /// sent once more. Otherwise as [`Self::send_failed`].
    pub fn severed(&mut self, flow: Flow, now: Instant, out: &mut Vec<Output>) {
        self.lose_flow(flow, ClientInput::Severed, now, out);
    }

    fn lose_flow(&mut self, flow: Flow, how: ClientInput, now: Instant, out: &mut Vec<Output>) {
        let concerned = self.by_flow.get(&flow).into_iter().flatten().copied();
        for slot in concerned.collect::<Vec<_>>() {
            match slot {
                Slot::Client(id) => {
                    self.step_client(id, Some(how), None, now, out);
                }
                Slot::Server(id) => self.reroute_server(id, flow, now, out),
            }
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.timers.next_deadline(&mut Slots(&mut self.servers, &mut self.clients))
    }

    /// Fires what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        let before = out.len();
        while let Some(slot) = self.pop_due(now) {
            match slot {
                Slot::Server(id) => self.step_server(id, None, None, now, out),
                Slot::Client(id) => self.step_client(id, None, None, now, out),
            }
        }
        let again = out.iter().skip(before).filter(|o| matches!(o, Output::Send { .. })).count();
        self.retransmissions = self.retransmissions.saturating_add(again as u64);
    }

    fn pop_due(&mut self, now: Instant) -> Option<Slot> {
        self.timers.pop_due(&mut Slots(&mut self.servers, &mut self.clients), now)
    }

    /// Forgets what an INVITE of ours said, where it has a 2xx: its user needs it no more.
    pub fn forget_request(&mut self, tx: ClientId) {
        if let Some(client) = self.clients.get_mut(tx) {
            client.forget_request();
        }
    }

    /// Returns what a transaction has sent; `None` once it has ended or is answered, of an INVITE once that
    /// is forgotten.
    pub fn sent(&self, tx: ClientId) -> Option<Message> {
        self.clients.get(tx)?.sent()
    }

    /// Returns how many messages were sent again because time had passed.
    pub fn retransmissions(&self) -> u64 {
        self.retransmissions
    }

    /// Returns how many transactions there are.
    pub fn len(&self) -> usize {
        self.servers.len().saturating_add(self.clients.len())
    }

    /// Returns how many of them wait for a moment.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what was dropped or refused so far.
    pub fn discards(&self) -> Discards {
        self.discards
    }

    /// Returns every transaction as a line of text.
    pub fn dump(&self) -> Vec<String> {
        let servers = self.servers.sorted().map(ToString::to_string);
        servers.chain(self.clients.sorted().map(ToString::to_string)).collect()
    }

    /// Returns whether another request can be taken. Where there are too many, the ones that are answered
    /// are forgotten before their time, the oldest first: copies of their requests come in the first
    /// seconds, and 32 of them are as many as a busy registrar cannot keep.
    fn has_room(&mut self) -> bool {
        while self.servers.is_full() {
            let Some(oldest) = self.servers.take_answered() else { return false };
            self.remove(Slot::Server(oldest));
        }
        true
    }

    /// Answers a request that we know as before.
    fn is_repeated(&mut self, key: ServerKey, now: Instant, out: &mut Vec<Output>) -> bool {
        let known = self.servers.find(key);
        if let Some(tx) = known {
            self.discards.count(Discard::Retransmission);
            self.step_server(tx, Some(ServerInput::Retransmission), None, now, out);
        }
        known.is_some()
    }

    /// Starts an answer of our own; the same request always gets the same tag (RFC 3261 8.2.7).
    fn reply(&self, request: &Message, status: u16, key: ServerKey, flow: Flow) -> Builder {
        let tag = self.mint.tag_of_digest(key.digest());
        Builder::reply(request, status, default_reason(status), Some(&tag), flow.remote)
    }

    /// RFC 3261 9.2: the answer to a CANCEL should bear the tag that the INVITE's answers bear.
    fn tag_of_answer(&self, invite: ServerId) -> Option<String> {
        let server = self.servers.get(invite)?;
        if let Some(tag) = server.success_tag() {
            return Some(tag.to_owned());
        }
        let last = server.last_response()?;
        Message::parse(last.clone()).ok()?.to_tag().map(str::to_owned)
    }

    fn open(
        &mut self,
        request: &Message,
        (key, merge): (ServerKey, Option<MergeKey>),
        flow: Flow,
    ) -> ServerId {
        let id = ServerId(self.next_serial());
        self.servers.insert(id, Server::new(request, key, merge, flow));
        self.concern(flow, Slot::Server(id));
        id
    }

    fn start_client(&mut self, request: Request, now: Instant, out: &mut Vec<Output>) -> ClientId {
        let id = ClientId(self.next_serial());
        self.concern(request.flow, Slot::Client(id));
        let mut effects = std::mem::take(&mut self.effects.1);
        self.clients.insert(id, Client::start(request, now, &mut effects));
        self.settle_client(id, effects, None, now, out);
        id
    }

    /// Notes who is to be told when a flow fails. A datagram that could not be sent ends no answer.
    fn concern(&mut self, flow: Flow, slot: Slot) {
        if flow.transport.is_reliable() || matches!(slot, Slot::Client(_)) {
            self.by_flow.entry(flow).or_default().insert(slot);
        }
    }

    fn unconcern(&mut self, flow: Flow, slot: Slot) {
        if let Some(concerned) = self.by_flow.get_mut(&flow) {
            concerned.remove(&slot);
            if concerned.is_empty() {
                self.by_flow.remove(&flow);
            }
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial = self.serial.wrapping_add(1);
        self.serial
    }

    /// Sends what is left to say over a connection to the client's own listener, if it has one.
    fn reroute_server(&mut self, id: ServerId, dead: Flow, now: Instant, out: &mut Vec<Output>) {
        let Some(server) = self.servers.get_mut(id) else { return };
        let input = match server.take_fallback() {
            Some(fallback) => {
                server.flow = fallback;
                self.unconcern(dead, Slot::Server(id));
                self.concern(fallback, Slot::Server(id));
                ServerInput::Retransmission
            }
            None => ServerInput::SendFailed,
        };
        self.step_server(id, Some(input), None, now, out);
    }

    /// Gives a server transaction its input, or the time if there is none.
    fn step_server(
        &mut self,
        id: ServerId,
        input: Option<ServerInput>,
        cause: Cause<'_>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(server) = self.servers.get_mut(id) else { return };
        let effects = &mut self.effects.0;
        match input {
            Some(input) => server.handle(input, now, effects),
            None => server.handle_timeout(now, effects),
        }
        for effect in effects.drain(..) {
            match (effect, cause) {
                (ServerEffect::Send(bytes), _) => {
                    out.push(Output::Send { flow: server.flow, bytes });
                }
                (ServerEffect::PassUpAck, Some((message, flow))) => {
                    out.push(Output::Event(Event::Ack { message: message.clone(), flow }));
                }
                (ServerEffect::PassUpAck, None) => debug_assert!(false, "an ACK without an ACK"),
                (ServerEffect::NeverAcked, _) => {
                    out.push(Output::Event(Event::NeverAcked { tx: id }));
                }
            }
        }
        if server.is_terminated() {
            self.remove(Slot::Server(id));
        } else {
            let at = server.poll_timeout();
            self.timers.arm(&mut server.armed, Slot::Server(id), at);
        }
    }

    /// Gives a client transaction its input, or the time if there is none.
    fn step_client(
        &mut self,
        id: ClientId,
        input: Option<ClientInput>,
        cause: Cause<'_>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let mut effects = std::mem::take(&mut self.effects.1);
        match input {
            Some(input) => client.handle(input, now, &mut effects),
            None => client.handle_timeout(now, &mut effects),
        }
        self.settle_client(id, effects, cause, now, out);
    }

    fn settle_client(
        &mut self,
        id: ClientId,
        mut effects: Vec<ClientEffect>,
        cause: Cause<'_>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        for effect in effects.drain(..) {
            self.carry_out(id, effect, cause, now, out);
        }
        self.effects.1 = effects;
        let Some(client) = self.clients.get_mut(id) else { return };
        if client.is_terminated() {
            self.remove(Slot::Client(id));
        } else {
            let at = client.poll_timeout();
            self.timers.arm(&mut client.armed, Slot::Client(id), at);
        }
    }

    fn carry_out(
        &mut self,
        tx: ClientId,
        effect: ClientEffect,
        cause: Cause<'_>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(client) = self.clients.get(tx) else { return };
        let event = match (effect, cause) {
            (ClientEffect::Send(bytes), _) => {
                out.push(Output::Send { flow: client.flow, bytes });
                return;
            }
            (ClientEffect::SendAck, Some((response, _))) => {
                let sent = client.sent();
                debug_assert!(sent.is_some(), "our INVITE does not parse");
                let ack = sent.map(|sent| follow_up::ack(&sent, response));
                out.extend(ack.map(|bytes| Output::Send { flow: client.flow, bytes }));
                return;
            }
            (ClientEffect::SendCancel, _) => {
                self.send_cancel(tx, now, out);
                return;
            }
            (ClientEffect::Absorb, _) => {
                self.discards.count(Discard::SpareResponse);
                return;
            }
            (ClientEffect::PassUp, Some((message, flow))) => {
                Event::Response { tx, message: message.clone(), flow }
            }
            (ClientEffect::PassUp | ClientEffect::SendAck, None) => {
                debug_assert!(false, "a response without a response");
                return;
            }
            (ClientEffect::Timeout, _) => Event::Timeout { tx },
            (ClientEffect::SendFailed, _) => Event::SendFailed { tx },
        };
        match client.audience {
            Audience::User => out.push(Output::Event(event)),
            Audience::Nobody => {}
        }
    }

    fn send_cancel(&mut self, invite: ClientId, now: Instant, out: &mut Vec<Output>) {
        let Some(client) = self.clients.get(invite) else { return };
        let (flow, sent) = (client.flow, client.sent());
        debug_assert!(sent.is_some(), "our INVITE does not parse");
        if let Some(sent) = sent {
            let bytes = follow_up::cancel(&sent, client.reason.as_deref());
            let (method, audience) = (Method::Cancel, Audience::Nobody);
            let key = ClientKey::new(sent.branch(), method, self.mint.key());
            let late = Late::Ignored;
            self.start_client(Request { bytes, key, method, flow, audience, late }, now, out);
        }
    }

    fn remove(&mut self, slot: Slot) {
        let removed = match slot {
            Slot::Server(id) => self.servers.remove(id).map(|server| (server.flow, server.armed)),
            Slot::Client(id) => self.clients.remove(id).map(|client| (client.flow, client.armed)),
        };
        if let Some((flow, mut armed)) = removed {
            self.timers.arm(&mut armed, slot, None);
            self.unconcern(flow, slot);
        }
    }
}
