//! Two layers and a bad network: whatever is lost, doubled or overtaken, every call ends once, on both
//! sides, and nothing is left.
//!
//! Owns: a caller and a callee that do what a dialog must (2xx and its ACK), and nothing else.
//! Never: part of the program.
#![expect(clippy::arithmetic_side_effects, reason = "times of a test, not of a peer")]

use super::{
    ClientId, Event, Layer, Output, ServerId,
    timer::{T1, T1_X64, T2},
};
use crate::{
    ids::{Entropy, Flow, Mint, MintKey, ShardId, Transport},
    sim::{Network, Node, World, check},
    sip::{Builder, HeaderName, Message, Method, default_reason},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long a callee rings whom nobody answers.
const RING: Duration = Duration::from_secs(60);

#[test]
fn an_answered_call_on_a_clean_network() {
    let mut world = world(1, Network::CLEAN, Transport::Udp);
    world.at(0, |world| dial(world, "answer", None));
    assert!(world.run(Duration::from_secs(120)));
    assert_eq!(
        world.ladder(),
        "     0 ms  caller -> callee  INVITE
    20 ms  callee -> caller  100 Trying (INVITE)
    20 ms  callee -> caller  180 Ringing (INVITE)
  1020 ms  callee -> caller  200 OK (INVITE)
  1040 ms  caller -> callee  ACK
  3040 ms  caller -> callee  BYE
  3060 ms  callee -> caller  200 OK (BYE)
"
    );
    assert_settled(&mut world, &[Outcome::Answered]);
}

#[test]
fn a_cancelled_call_on_a_clean_network() {
    let mut world = world(1, Network::CLEAN, Transport::Tcp);
    world.at(0, |world| dial(world, "ring", Some(10)));
    assert!(world.run(Duration::from_secs(120)));
    assert_eq!(
        world.ladder(),
        "     0 ms  caller -> callee  INVITE
    20 ms  callee -> caller  100 Trying (INVITE)
    20 ms  callee -> caller  180 Ringing (INVITE)
    40 ms  caller -> callee  CANCEL
    60 ms  callee -> caller  200 OK (CANCEL)
    60 ms  callee -> caller  487 Request Terminated (INVITE)
    80 ms  caller -> callee  ACK
"
    );
    assert_settled(&mut world, &[Outcome::Refused(487)]);
}

/// Five calls at once: answered, busy, cancelled while ringing, cancelled at once, cancelled as it
/// is answered.
#[test]
fn a_thousand_bad_networks() {
    for seed in 0..1000 {
        let transport = if seed % 8 == 0 { Transport::Tcp } else { Transport::Udp };
        let mut world = world(seed, Network::BAD, transport);
        for (ms, user, cancel_ms) in [
            (0, "answer", None),
            (10, "busy", None),
            (20, "ring", Some(3000)),
            (30, "ring", Some(1)),
            (40, "answer", Some(1000)),
        ] {
            world.at(ms, move |world| dial(world, user, cancel_ms));
        }
        let is_idle = world.run(Duration::from_secs(240));
        let ladder = world.ladder();
        let violations = check::violations(&world);
        assert!(is_idle, "seed {seed} does not settle:\n{ladder}");
        assert!(world.busy().is_empty(), "seed {seed}: {:?}\n{ladder}", world.busy());
        assert!(violations.is_empty(), "seed {seed}: {violations:#?}\n{ladder}");
        let outcomes = outcomes(&mut world);
        assert_eq!(outcomes.len(), 5, "seed {seed}: {outcomes:?}\n{ladder}");
        for (call, outcome) in outcomes.iter().enumerate() {
            assert_eq!(outcome.len(), 1, "seed {seed}, call {call}: {outcome:?}\n{ladder}");
        }
    }
}

/// A callee that is cut off in the middle: the caller gives up, and so does the callee.
#[test]
fn a_partition_ends_in_timeouts() {
    let mut world = world(1, Network::CLEAN, Transport::Udp);
    world.partition("caller", "callee", 1000, 100_000);
    world.at(0, |world| dial(world, "busy", Some(5000)));
    world.at(0, |world| dial(world, "ring", Some(2000)));
    world.at(2000, |world| dial(world, "answer", None));
    assert!(world.run(Duration::from_secs(240)));
    assert_settled(&mut world, &[Outcome::Timeout, Outcome::Timeout, Outcome::Timeout]);
}

#[test]
fn a_lost_connection_fails_what_is_new_and_spares_what_is_old() {
    let mut world = world(1, Network::CLEAN, Transport::Tcp);
    world.at(0, |world| dial(world, "answer", None));
    world.at(500, |world| dial(world, "answer", None));
    world.at(510, |world| world.disconnect("caller", "callee"));
    assert!(world.run(Duration::from_secs(240)));
    assert_settled(&mut world, &[Outcome::Answered, Outcome::Failed]);
}

/// How a call ended, as its caller sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Answered,
    Refused(u16),
    Timeout,
    Failed,
}

fn world(seed: u64, network: Network, transport: Transport) -> World {
    let mut world = World::new(seed, network);
    let (caller, callee) = (addr(1), addr(2));
    let flow = Flow { transport, local: caller, remote: callee };
    world.add("caller", &[caller], Caller { wire: Wire::new(seed, 0), flow, calls: vec![] });
    let wire = Wire::new(seed, 1);
    world.add("callee", &[callee], Callee { wire, ringing: BTreeMap::new() });
    world
}

fn dial(world: &mut World, user: &str, cancel_ms: Option<u64>) {
    let (user, cancel_after) = (user.to_owned(), cancel_ms.map(Duration::from_millis));
    world.with("caller", |caller: &mut Caller, now| caller.dial(&user, cancel_after, now));
}

fn outcomes(world: &mut World) -> Vec<Vec<Outcome>> {
    let read =
        |caller: &mut Caller, _| caller.calls.iter().map(|call| call.ended.clone()).collect();
    world.with("caller", read).unwrap()
}

#[track_caller]
fn assert_settled(world: &mut World, want: &[Outcome]) {
    assert_eq!(outcomes(world), want.iter().map(|outcome| vec![*outcome]).collect::<Vec<_>>());
    assert!(world.busy().is_empty());
    assert_eq!(check::violations(world), Vec::<String>::new(), "{}", world.ladder());
}

/// A layer, what it wants sent, and the owner's own deadlines.
struct Wire<T> {
    layer: Layer,
    outbox: VecDeque<(Flow, Bytes)>,
    alarms: Vec<(Instant, T)>,
}

impl<T> Wire<T> {
    fn new(seed: u64, shard: u8) -> Self {
        let mut entropy = Entropy::from_u64(seed * 2 + u64::from(shard));
        let key = MintKey::draw(&mut entropy);
        let layer = Layer::new(Mint::new(ShardId(shard), key, entropy));
        Self { layer, outbox: VecDeque::new(), alarms: vec![] }
    }

    /// Sends what is to be sent, returns what is to be told.
    fn settle(&mut self, out: Vec<Output>) -> Vec<Event> {
        let mut events = vec![];
        for output in out {
            match output {
                Output::Send { flow, bytes } => self.outbox.push_back((flow, bytes)),
                Output::Event(event) => events.push(event),
            }
        }
        events
    }

    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) -> Vec<Event> {
        let mut out = vec![];
        self.layer.receive(Message::parse(bytes).unwrap(), flow, now, &mut out);
        self.settle(out)
    }

    fn closed(&mut self, flow: Flow, now: Instant) -> Vec<Event> {
        let mut out = vec![];
        self.layer.send_failed(flow, now, &mut out);
        self.settle(out)
    }

    fn handle_timeout(&mut self, now: Instant) -> (Vec<Event>, Vec<T>) {
        let mut out = vec![];
        self.layer.handle_timeout(now, &mut out);
        let due = self.alarms.extract_if(.., |(at, _)| *at <= now).map(|(_, alarm)| alarm);
        let due = due.collect();
        (self.settle(out), due)
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let alarms = self.alarms.iter().map(|(at, _)| *at);
        alarms.chain(self.layer.poll_timeout()).min()
    }

    fn is_idle(&self) -> bool {
        self.layer.is_empty() && self.alarms.is_empty() && self.outbox.is_empty()
    }
}

/// Calls; acknowledges a 2xx each time it comes; hangs up after 2 s.
struct Caller {
    wire: Wire<CallerAlarm>,
    flow: Flow,
    calls: Vec<Call>,
}

enum CallerAlarm {
    Cancel(ClientId),
    HangUp(usize),
}

struct Call {
    tx: ClientId,
    user: String,
    call_id: String,
    tag: String,
    remote_tag: Option<String>,
    ack: Option<Bytes>,
    bye: Option<ClientId>,
    ended: Vec<Outcome>,
}

impl Caller {
    fn dial(&mut self, user: &str, cancel_after: Option<Duration>, now: Instant) {
        let mint = self.wire.layer.mint();
        let (call_id, tag, branch) = (mint.call_id(), mint.tag(), mint.branch());
        let mut call = Call {
            tx: ClientId(0),
            user: user.to_owned(),
            call_id,
            tag,
            remote_tag: None,
            ack: None,
            bye: None,
            ended: vec![],
        };
        let invite = call.request(Method::Invite, 1, &branch, self.flow);
        call.tx = self.send(invite, &branch, Method::Invite, now);
        if let Some(after) = cancel_after {
            self.wire.alarms.push((now + after, CallerAlarm::Cancel(call.tx)));
        }
        self.calls.push(call);
    }

    fn send(&mut self, bytes: Bytes, branch: &str, method: Method, now: Instant) -> ClientId {
        let mut out = vec![];
        let layer = &mut self.wire.layer;
        let tx = if method == Method::Invite {
            layer.invite(bytes, branch, self.flow, now, &mut out)
        } else {
            layer.request(bytes, branch, method, self.flow, now, &mut out)
        };
        self.wire.settle(out);
        tx
    }

    fn tell(&mut self, events: Vec<Event>, now: Instant) {
        for event in events {
            let (tx, outcome) = match event {
                Event::Response { tx, message, .. } => match message.status() {
                    100..=199 => continue,
                    200..=299 => {
                        self.answered(tx, &message, now);
                        continue;
                    }
                    status => (tx, Outcome::Refused(status)),
                },
                Event::Timeout { tx } => (tx, Outcome::Timeout),
                Event::SendFailed { tx } => (tx, Outcome::Failed),
                Event::Request { .. }
                | Event::Cancel { .. }
                | Event::Ack { .. }
                | Event::NeverAcked { .. } => panic!("told a caller: {event:?}"),
            };
            if let Some(call) = self.calls.iter_mut().find(|call| call.tx == tx) {
                call.ended.push(outcome);
            } else {
                assert!(self.calls.iter().any(|call| call.bye == Some(tx)), "whose is {tx:?}?");
            }
        }
    }

    fn answered(&mut self, tx: ClientId, message: &Message, now: Instant) {
        let Some(n) = self.calls.iter().position(|call| call.tx == tx) else { return };
        let branch = self.wire.layer.mint().branch();
        let call = &mut self.calls[n];
        if call.ack.is_none() {
            call.ended.push(Outcome::Answered);
            call.remote_tag = message.to_tag().map(str::to_owned);
            call.ack = Some(call.request(Method::Ack, 1, &branch, self.flow));
            self.wire.alarms.push((now + Duration::from_secs(2), CallerAlarm::HangUp(n)));
        }
        self.wire.outbox.extend(call.ack.clone().map(|ack| (self.flow, ack)));
    }
}

impl Call {
    fn request(&self, method: Method, cseq: u32, branch: &str, flow: Flow) -> Bytes {
        let to_tag = self.remote_tag.as_ref().map(|tag| format!(";tag={tag}")).unwrap_or_default();
        let via = format!("SIP/2.0/{} {};branch={branch}", flow.transport.token(), flow.local);
        let mut request = Builder::request(method.as_str(), &format!("sip:{}@b", self.user));
        request
            .header(HeaderName::Via, via)
            .header(HeaderName::MaxForwards, 70)
            .header(HeaderName::From, format!("<sip:a@a>;tag={}", self.tag))
            .header(HeaderName::To, format!("<sip:{}@b>{to_tag}", self.user))
            .header(HeaderName::CallId, &self.call_id)
            .header(HeaderName::CSeq, format!("{cseq} {method}"))
            .header(HeaderName::Contact, format!("<sip:a@{}>", flow.local));
        request.finish()
    }
}

impl Node for Caller {
    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        let events = self.wire.receive(flow, bytes, now);
        self.tell(events, now);
    }
    fn closed(&mut self, flow: Flow, now: Instant) {
        let events = self.wire.closed(flow, now);
        self.tell(events, now);
    }
    fn handle_timeout(&mut self, now: Instant) {
        let (events, alarms) = self.wire.handle_timeout(now);
        self.tell(events, now);
        for alarm in alarms {
            match alarm {
                CallerAlarm::Cancel(tx) => {
                    let mut out = vec![];
                    self.wire.layer.cancel(tx, None, now, &mut out);
                    self.wire.settle(out);
                }
                CallerAlarm::HangUp(n) => {
                    let branch = self.wire.layer.mint().branch();
                    let bye = self.calls[n].request(Method::Bye, 2, &branch, self.flow);
                    self.calls[n].bye = Some(self.send(bye, &branch, Method::Bye, now));
                }
            }
        }
    }
    fn poll_timeout(&mut self) -> Option<Instant> {
        self.wire.poll_timeout()
    }
    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.wire.outbox.pop_front()
    }
    fn is_idle(&self) -> bool {
        self.wire.is_idle()
    }
}

/// Rings; then, by the name called, answers after a second, is busy, or rings until
/// it gives up.
struct Callee {
    wire: Wire<CalleeAlarm>,
    ringing: BTreeMap<ServerId, Ringing>,
}

struct Ringing {
    request: Message,
    remote: SocketAddr,
    tag: String,
    /// The Call-ID, once answered: who is to acknowledge.
    unacknowledged: Option<String>,
}

enum CalleeAlarm {
    Decide(ServerId),
    GiveUp(ServerId),
    Retransmit { tx: ServerId, after: Duration, until: Instant },
}

impl Callee {
    fn tell(&mut self, events: Vec<Event>, now: Instant) {
        for event in events {
            match event {
                Event::Request { tx, message, flow } if message.method() == Method::Invite => {
                    let tag = self.wire.layer.mint().tag();
                    let remote = flow.remote;
                    let ringing = Ringing { request: message, remote, tag, unacknowledged: None };
                    self.ringing.insert(tx, ringing);
                    self.respond(tx, 180, now);
                    let decide = (now + Duration::from_secs(1), CalleeAlarm::Decide(tx));
                    self.wire.alarms.push(decide);
                }
                Event::Request { tx, message, flow } => {
                    self.acknowledged(message.call_id());
                    let ok = Builder::reply(&message, 200, "OK", None, flow.remote).finish();
                    let mut out = vec![];
                    self.wire.layer.respond(tx, 200, ok, now, &mut out);
                    self.wire.settle(out);
                }
                Event::Cancel { tx, .. } => {
                    self.refuse(tx, 487, now);
                }
                Event::Ack { message, .. } => self.acknowledged(message.call_id()),
                Event::NeverAcked { .. } => {}
                Event::Response { .. } | Event::Timeout { .. } | Event::SendFailed { .. } => {
                    panic!("told a callee: {event:?}")
                }
            }
        }
    }

    fn acknowledged(&mut self, call_id: &str) {
        self.ringing.retain(|_, ringing| ringing.unacknowledged.as_deref() != Some(call_id));
    }

    fn respond(&mut self, tx: ServerId, status: u16, now: Instant) {
        let Some(Ringing { request, remote, tag, .. }) = self.ringing.get(&tx) else { return };
        let reason = default_reason(status);
        let reply = Builder::reply(request, status, reason, Some(tag), *remote).finish();
        let mut out = vec![];
        self.wire.layer.respond(tx, status, reply, now, &mut out);
        self.wire.settle(out);
    }

    fn decide(&mut self, tx: ServerId, now: Instant) {
        let Some(ringing) = self.ringing.get_mut(&tx) else { return };
        if ringing.request.uri().contains("busy") {
            self.refuse(tx, 486, now);
        } else if ringing.request.uri().contains("answer") {
            ringing.unacknowledged = Some(ringing.request.call_id().to_owned());
            self.respond(tx, 200, now);
            let alarm = CalleeAlarm::Retransmit { tx, after: T1 * 2, until: now + T1_X64 };
            self.wire.alarms.push((now + T1, alarm));
        } else {
            self.wire.alarms.push((now + RING, CalleeAlarm::GiveUp(tx)));
        }
    }

    fn refuse(&mut self, tx: ServerId, status: u16, now: Instant) {
        self.respond(tx, status, now);
        self.ringing.remove(&tx);
    }

    /// RFC 3261 13.3.1.4.
    fn retransmit(&mut self, tx: ServerId, after: Duration, until: Instant, now: Instant) {
        if now >= until {
            self.ringing.remove(&tx);
        } else if self.ringing.contains_key(&tx) {
            self.respond(tx, 200, now);
            let alarm = CalleeAlarm::Retransmit { tx, after: T2.min(after * 2), until };
            self.wire.alarms.push(((now + after).min(until), alarm));
        }
    }
}

impl Node for Callee {
    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        let events = self.wire.receive(flow, bytes, now);
        self.tell(events, now);
    }
    fn closed(&mut self, flow: Flow, now: Instant) {
        let events = self.wire.closed(flow, now);
        self.tell(events, now);
    }
    fn handle_timeout(&mut self, now: Instant) {
        let (events, alarms) = self.wire.handle_timeout(now);
        self.tell(events, now);
        for alarm in alarms {
            match alarm {
                CalleeAlarm::Decide(tx) => self.decide(tx, now),
                CalleeAlarm::GiveUp(tx) => self.refuse(tx, 480, now),
                CalleeAlarm::Retransmit { tx, after, until } => {
                    self.retransmit(tx, after, until, now);
                }
            }
        }
    }
    fn poll_timeout(&mut self) -> Option<Instant> {
        self.wire.poll_timeout()
    }
    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.wire.outbox.pop_front()
    }
    fn is_idle(&self) -> bool {
        self.ringing.is_empty() && self.wire.is_idle()
    }
}

fn addr(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
