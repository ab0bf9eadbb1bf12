//! The simulated trunk: what a PBX sees of Twilio's Elastic SIP Trunking.
//!
//! Owns: the trunk's calls, how its addresses can be reached, and the list of what the PBX did wrong.
//! Never: opens a socket: it is a [`Node`] of the simulated world, and a shell may run it for real.
//!
//! Run for real it does not know media addresses: [`Event::MediaWanted`] asks for one, which
//! [`Twilio::media_at`] gives; and it must be told of packets ([`Twilio::rtp_arrives`]) and of TLS
//! handshakes ([`Twilio::tls_arrives`], [`Twilio::tls_failed`]).

mod admission;
mod call;
mod inside;
mod media;
mod memory;
mod numbers;
mod offer;
mod origination;
mod rules;
mod setup;
mod streams;
mod termination;
mod transfer;
mod zone;

pub use call::CallNumber;
pub use media::Packet;
pub use numbers::{At, FarEnd, NUMBERS, ORDINARY, Ring, Then, far_end};
pub use origination::{CallIn, Origination};
pub use rules::{Deviation, Entry, Known, Rule};
pub use setup::{Account, Edge, Limits, Policy, Proxy, Setup, State, Timing};
pub use zone::{Answer, Data, Kind, TTL_S, Zone};

use super::{
    agent::{Agent, Asked, Happened},
    sound::Agreement,
    talk::Talk,
    world::{Node, Reach},
};
use crate::{
    ids::{Flow, Transport},
    sip::{HeaderName, Message, Method, Uri},
    tls::Failure,
    transaction::ClientId,
};
use bytes::Bytes;
use call::{Call, Plan, Stage, Step};
use memory::{Memory, Pace, called};
use setup::is_mute;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use streams::Streams;

/// What Twilio's machines call themselves.
const GATEWAY: &str = "Twilio Gateway";
/// The media gateway behind the proxies; nobody outside can reach it.
const PRIVATE: Ipv4Addr = Ipv4Addr::new(172, 25, 75, 240);
/// What it understands (facts of recorded dialogs).
const ALLOW: &str = "ACK, BYE, CANCEL, INVITE, OPTIONS, REFER, NOTIFY";
/// A 200 that is not acknowledged ends the call after this.
const ACK_PATIENCE: Duration = Duration::from_secs(30);

/// What whoever runs the trunk gets to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A call wants an RTP address: [`Twilio::media_at`].
    MediaWanted {
        /// Which.
        call: CallNumber,
    },
    /// The far end may speak and listen; again when the PBX moves.
    MediaStart {
        /// Which.
        call: CallNumber,
        /// How.
        agreed: Agreement,
        /// Another one than before: another SSRC, from another port.
        stream: u32,
    },
    /// The call has no media any more.
    MediaStop {
        /// Which.
        call: CallNumber,
    },
    /// The call is up.
    Up {
        /// Which.
        call: CallNumber,
    },
    /// The call is over: 200 after BYE, else the status that ended it; 408 for silence.
    Over {
        /// Which.
        call: CallNumber,
        /// See above.
        status: u16,
    },
}

/// The simulated trunk.
#[derive(Debug)]
pub struct Twilio {
    setup: Setup,
    agent: Agent,
    calls: Vec<Call>,
    next_call: u64,
    plans: Vec<Plan>,
    memory: Memory,
    streams: Streams,
    reach: BTreeMap<SocketAddr, Reach>,
    /// INVITEs to the PBX that nobody waits for any more.
    abandoned: Vec<(ClientId, Talk)>,
    deviations: Vec<Deviation>,
    events: VecDeque<Event>,
}

impl Twilio {
    /// Opens the account; the same seed makes the same tags and nonces.
    pub fn new(setup: Setup, seed: u64) -> Self {
        let local = setup.addresses().into_iter().next();
        let nowhere = || SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut agent = Agent::new(local.unwrap_or_else(nowhere), seed);
        agent.give_up = ACK_PATIENCE;
        agent.sees = setup.sees;
        agent.say_own_trying();
        Self {
            setup,
            agent,
            calls: vec![],
            next_call: 1,
            plans: vec![],
            memory: Memory::default(),
            streams: Streams::default(),
            reach: BTreeMap::new(),
            abandoned: vec![],
            deviations: vec![],
            events: VecDeque::new(),
        }
    }

    /// Returns the names under which a PBX finds it.
    pub fn zone(&self, seed: u64) -> Zone {
        Zone::new(&self.setup.account.termination, &self.setup.edges, seed)
    }

    /// Sets how one of its proxies can be reached from now on, by either of its addresses.
    pub fn set_reach(&mut self, address: SocketAddr, reach: Reach) {
        let proxies = self.setup.edges.iter().flat_map(|edge| &edge.proxies);
        for proxy in proxies.filter(|proxy| proxy.is_at(address)) {
            self.reach.extend([(proxy.plain, reach), (proxy.tls, reach)]);
        }
    }

    /// Lets nothing in or out of one of its proxies from now on.
    pub fn blackhole(&mut self, address: SocketAddr) {
        self.set_reach(address, Reach::Blackholed);
    }

    /// Returns what the PBX did wrong so far.
    pub fn deviations(&self) -> &[Deviation] {
        &self.deviations
    }

    /// Returns the next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns how many calls there are.
    pub fn calls(&self) -> usize {
        self.calls.iter().filter(|call| call.stage != Stage::Over).count()
    }

    /// Ends a call from the far end's side: CANCEL or BYE.
    pub fn hang_up(&mut self, call: CallNumber, now: Instant) {
        self.carry_out(call, Step::HangUp, now);
    }

    /// Puts the PBX on hold, or takes it back.
    pub fn hold(&mut self, call: CallNumber, on: bool, now: Instant) {
        self.carry_out(call, if on { Step::Hold } else { Step::Resume }, now);
    }

    fn index(&self, number: CallNumber) -> Option<usize> {
        self.calls.iter().position(|call| call.number == number)
    }

    fn deviate(&mut self, rule: Rule, evidence: impl Into<String>) {
        self.deviations.push(Deviation { rule, evidence: evidence.into() });
    }

    fn plan(&mut self, at: Instant, call: CallNumber, step: Step) {
        self.plans.push(Plan { at, call, step });
    }

    /// What a dialog's requests must carry, in order: the proxy as the PBX sees it, its other side.
    fn routes(&self, index: usize) -> [String; 2] {
        let Flow { transport, local, .. } = self.calls[index].talk.flow;
        let ip = local.ip();
        let host = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        let port = match local.port() {
            5060 => String::new(),
            port => format!(":{port}"),
        };
        let other_side = format!("<sip:{host}:5061;transport=tls;r2=on;lr>");
        match transport {
            Transport::Udp => [format!("<sip:{host}{port};r2=on;lr>"), other_side],
            Transport::Tcp => [format!("<sip:{host}{port};transport=tcp;r2=on;lr>"), other_side],
            Transport::Tls => [
                format!("<sip:{host}{port};transport=tls;r2=on;lr>"),
                format!("<sip:{host};r2=on;lr>"),
            ],
        }
    }

    /// The gateway's Contact.
    fn contact(&self, party: &str) -> String {
        format!("<sip:{party}@{PRIVATE}:5060;transport=udp>")
    }

    /// The Contact that is none: where a proxy thinks that the gateway is now.
    fn moved_contact(&self, party: &str) -> String {
        format!("<sip:{party}@172.18.0.9:5060;twnat=sip:203.0.113.77:1024>")
    }

    /// Takes the peer's Contact. What came over a connection is answered over it.
    fn retarget(&mut self, index: usize, message: &Message) {
        let talk = &mut self.calls[index].talk;
        let flow = talk.flow;
        talk.retarget(message);
        if self.streams.is_open(flow) {
            talk.flow = flow;
        }
    }

    fn open_call(&mut self, mut talk: Talk, stage: Stage, party: &str) -> usize {
        talk.hops = 60;
        let number = CallNumber(self.next_call);
        self.next_call += 1;
        let sound = self.first_sound(number);
        if sound.is_none() {
            self.events.push_back(Event::MediaWanted { call: number });
        }
        self.calls.push(Call {
            number,
            talk,
            stage,
            far_end: ORDINARY,
            party: party.into(),
            invite: None,
            invite_tx: None,
            bye_tx: None,
            sound,
            stream: 0,
            is_sounding: false,
            answer_in_ack: false,
            is_redialled: false,
            inbound: None,
            complained: BTreeSet::new(),
        });
        self.calls.len() - 1
    }

    /// Both sides know: the call lasts until somebody has had enough of it.
    fn goes_up(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        call.stage = Stage::Up;
        let number = call.number;
        self.events.push_back(Event::Up { call: number });
        self.plans.retain(|plan| plan.call != number || plan.step != Step::GiveUp);
        self.plan(now + self.setup.limits.duration, number, Step::HangUp);
    }

    fn end_call(&mut self, index: usize, status: u16) {
        let call = &mut self.calls[index];
        let number = call.number;
        if std::mem::replace(&mut call.stage, Stage::Over) == Stage::Over {
            return;
        }
        if std::mem::take(&mut call.is_sounding) {
            self.events.push_back(Event::MediaStop { call: number });
        }
        self.events.push_back(Event::Over { call: number, status });
        self.plans.retain(|plan| plan.call != number);
    }

    /// Returns whether Twilio does not even see a message: it is for another host, is for the number
    /// that nobody answers, or repeats a CSeq number.
    fn is_dropped(&mut self, message: &Message, flow: Flow, now: Instant) -> bool {
        let method = message.method();
        if !message.is_request() || message.to_tag().is_some() {
            return false;
        }
        if method == Method::Cancel && !self.memory.knows_invite_of(message) {
            self.deviate(Rule::CancelMatches, format!("CANCEL {}", message.branch()));
            return false;
        }
        if !matches!(method, Method::Invite | Method::Options) {
            return false;
        }
        let host = Uri::parse(message.uri()).map_or("", |uri| uri.host);
        if !self.setup.is_termination(host) {
            self.deviate(Rule::TerminationUri, format!("{method} {}", message.uri()));
            return true;
        }
        if method != Method::Invite {
            return false;
        }
        let is_repeated = self.memory.invite_comes(message, flow, now);
        if is_repeated {
            let number = message.cseq().number;
            self.deviate(Rule::CseqAdvances, format!("INVITE with CSeq {number} again"));
        }
        is_repeated || far_end(called(message)) == FarEnd::Silent
    }

    /// Sees what goes to an address that nobody can reach.
    fn note_lost(&mut self, message: &Message, flow: Flow, now: Instant) {
        let is_call = message.is_request()
            && message.method() == Method::Invite
            && message.to_tag().is_none();
        let proxies = self.setup.edges.iter().map(|edge| edge.proxies.len()).sum::<usize>();
        if !is_call || proxies < 2 {
            return;
        }
        self.memory.invite_comes(message, flow, now);
        let rule = Rule::FailsOver;
        let is_told = self.deviations.iter().any(|deviation| {
            deviation.rule == rule && deviation.evidence.contains(message.branch())
        });
        if let Some(since) = self.memory.pinned_for(message, flow, now).filter(|_| !is_told) {
            let (branch, ms) = (message.branch(), since.as_millis());
            let evidence = format!("INVITE {branch} still goes to {} after {ms} ms", flow.local);
            self.deviate(rule, evidence);
        }
    }

    fn take(&mut self, happened: Vec<Happened>, now: Instant) {
        for happened in happened {
            match happened {
                Happened::Request(asked) => self.take_request(&asked, now),
                Happened::Cancel { tx, .. } => self.take_cancel(tx, now),
                Happened::Ack { message, flow } => self.take_ack(&message, flow, now),
                Happened::Response { tx, message } => self.take_response(tx, &message, now),
                Happened::Failed { tx } => self.take_failure(tx, now),
                Happened::Unheard { call_id, .. } => self.take_unheard(&call_id, now),
            }
        }
        self.calls.retain(|call| call.stage != Stage::Over);
    }

    fn take_request(&mut self, asked: &Asked, now: Instant) {
        let message = &asked.message;
        let known = self.calls.iter().position(|call| call.talk.owns(message));
        match (known, message.method()) {
            (Some(index), _) => self.take_inside(index, asked, now),
            (None, Method::Invite) if message.to_tag().is_none() => self.take_invite(asked, now),
            (None, Method::Options) => self.take_options(asked, now),
            (None, Method::Register) => {
                self.deviate(Rule::NeverRegisters, format!("REGISTER {}", message.uri()));
                self.refuse_method(asked, None, now);
            }
            (None, _) if message.to_tag().is_none() => {
                self.deviate(Rule::KnownMethods, message.method_token());
                self.refuse_method(asked, None, now);
            }
            (None, _) => self.agent.refuse(asked, 481, None, now),
        }
    }

    /// 405, or 501 for what nobody knows.
    fn refuse_method(&mut self, asked: &Asked, talk: Option<&Talk>, now: Instant) {
        let known = (405, "Method Not Allowed");
        let is_known = asked.message.method() != Method::Other;
        let (status, reason) = if is_known { known } else { (501, "Not Implemented") };
        let mut reply = self.agent.reply(asked, (status, reason), talk);
        reply.header(HeaderName::Allow, ALLOW).header(HeaderName::Server, GATEWAY);
        self.agent.respond(asked.tx, status, reply.finish(), now);
    }

    /// OPTIONS is answered without a challenge, and only so often.
    fn take_options(&mut self, asked: &Asked, now: Instant) {
        let pace = self.memory.options_come(asked.flow.remote.ip(), now);
        if let Pace::TooSoon(after) = pace {
            let after_ms = after.as_millis();
            self.deviate(Rule::OptionsPace, format!("OPTIONS again after {after_ms} ms"));
        }
        if pace != Pace::Fine {
            return self.agent.ignore(asked.tx);
        }
        let mut reply = self.agent.reply(asked, (200, "OK"), None);
        reply.header(HeaderName::Allow, ALLOW).header(HeaderName::Server, GATEWAY);
        self.agent.respond(asked.tx, 200, reply.finish(), now);
    }

    fn carry_out(&mut self, call: CallNumber, step: Step, now: Instant) {
        let Some(index) = self.index(call) else { return };
        let call = &self.calls[index];
        match (step, call.stage) {
            (Step::Ring, Stage::Trying) => self.ring(index, now),
            (Step::RingElsewhere, Stage::Trying) => self.ring_elsewhere(index, now),
            (Step::Answer, Stage::Trying) => self.answer(index, now),
            (Step::Refuse, Stage::Trying) => self.refuse_as_planned(index, now),
            (Step::GiveUp, Stage::Trying) => self.give_up(index, now),
            (Step::HangUp, Stage::Up) => self.bye(index, now),
            (Step::HangUp | Step::GiveUp, Stage::Calling) => self.cancel(index, now),
            (Step::NextUri, Stage::Calling) => self.next_uri(index, now),
            (Step::Hold, Stage::Up) => self.reinvite(index, true, now),
            (Step::Resume, Stage::Up) => self.reinvite(index, false, now),
            (Step::Transferred, Stage::Up) => self.transferred(index, now),
            (
                Step::Ring
                | Step::RingElsewhere
                | Step::Answer
                | Step::Refuse
                | Step::HangUp
                | Step::GiveUp
                | Step::Hold
                | Step::Resume
                | Step::NextUri
                | Step::Transferred,
                Stage::Trying
                | Stage::Answered
                | Stage::Calling
                | Stage::Cancelling
                | Stage::Up
                | Stage::Leaving
                | Stage::Over,
            ) => {}
        }
    }
}

impl Node for Twilio {
    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        let is_lost = is_mute(self.reach(flow.local));
        if !is_lost {
            self.stream_speaks(flow, &bytes, now);
        }
        let Ok(message) = Message::parse(bytes.clone()) else { return };
        if is_lost {
            return self.note_lost(&message, flow, now);
        }
        if !self.is_dropped(&message, flow, now) {
            let happened = self.agent.receive(flow, bytes, now);
            self.take(happened, now);
        }
    }

    fn closed(&mut self, flow: Flow, now: Instant) {
        self.stream_ends(flow);
        let happened = self.agent.closed(flow, now);
        self.take(happened, now);
    }

    fn secured(&mut self, flow: Flow, shaken: Result<Option<Box<str>>, Failure>) {
        match shaken {
            Ok(name) => self.tls_arrives(flow, name.as_deref()),
            Err(failure @ Failure::Version) => self.tls_failed(flow, &failure.to_string()),
            // Whoever goes away in the middle, or is no PBX at all, breaks no rule of the trunk's.
            Err(
                Failure::UnknownAuthority
                | Failure::OtherName
                | Failure::Dates
                | Failure::OurCertificate
                | Failure::NotTls
                | Failure::Gone
                | Failure::Unreachable(_)
                | Failure::Other(_),
            ) => {}
        }
    }

    fn poll_close(&mut self) -> Option<Flow> {
        self.streams.poll_close()
    }

    fn reach(&self, address: SocketAddr) -> Reach {
        self.reach.get(&address).copied().unwrap_or_default()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let happened = self.agent.handle_timeout(now);
        self.take(happened, now);
        self.close_idle(now);
        let due: Vec<Plan> = self.plans.extract_if(.., |plan| plan.at <= now).collect();
        for Plan { call, step, .. } in due {
            self.carry_out(call, step, now);
        }
        self.calls.retain(|call| call.stage != Stage::Over);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let plans = self.plans.iter().map(|plan| plan.at).min();
        let streams = self.streams.poll_timeout();
        [self.agent.poll_timeout(), plans, streams].into_iter().flatten().min()
    }

    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        loop {
            let (flow, bytes) = self.agent.poll_transmit()?;
            if !is_mute(self.reach(flow.local)) {
                return Some((flow, bytes));
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.agent.is_idle() && self.plans.is_empty() && self.calls() == 0
    }
}

/// Returns the URI of an address over a transport.
fn uri(user: &str, host: impl std::fmt::Display, transport: Transport) -> String {
    format!("sip:{user}@{host};transport={}", transport.param())
}

#[cfg(test)]
mod tests;
