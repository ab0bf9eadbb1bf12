//! The simulated trunk: what a PBX sees of Twilio's Elastic SIP Trunking.
//!
//! Owns: the trunk's calls, how its addresses can be reached, and the list of what the PBX did wrong.
//! Never: opens a socket: it is a [`Node`] of the simulated world, and a shell may run it for real.
//!
//! Run for real it does not know media addresses: [`Event::MediaWanted`] asks for one, which
//! [`Twilio::media_at`] gives.

mod inside;
mod numbers;
mod origination;
mod rules;
mod setup;
mod termination;
mod zone;

pub use numbers::{At, FarEnd, NUMBERS, ORDINARY, Ring, Then, far_end};
pub use origination::CallIn;
pub use rules::{Deviation, Rule};
pub use setup::{Account, Edge, Limits, Proxy, Setup, Timing};
pub use zone::{Answer, Data, Kind, TTL_S, Zone};

use setup::is_mute;

use super::{
    agent::{Agent, Asked, Happened},
    sound::{Agreement, Sound},
    talk::Talk,
    world::{Node, Reach},
};
use crate::{
    ids::{Flow, Transport},
    sip::{HeaderName, Message, Method},
    transaction::ClientId,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// What Twilio's machines call themselves.
const GATEWAY: &str = "Twilio Gateway";
/// The media gateway behind the proxies; nobody outside can reach it.
const PRIVATE: Ipv4Addr = Ipv4Addr::new(172, 25, 75, 240);
/// What it understands (facts of recorded dialogs).
const ALLOW: &str = "ACK, BYE, CANCEL, INVITE, OPTIONS, REFER, NOTIFY";
/// A 200 that is not acknowledged ends the call after this.
const ACK_PATIENCE: Duration = Duration::from_secs(30);
/// OPTIONS may come this often.
const OPTIONS_EVERY: Duration = Duration::from_secs(10);
/// Whoever asks more often gets no answer for this long.
const BANNED_FOR: Duration = Duration::from_secs(60);
/// Call-IDs and nonces that are remembered.
const MEMORY: usize = 1000;

/// A call through the trunk.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct CallNumber(pub u64);

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

/// Where a call stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// To the PSTN: no final answer yet.
    Trying,
    /// To the PSTN: 200 sent, no ACK yet.
    Answered,
    /// From the PSTN: no final answer yet.
    Calling,
    /// From the PSTN: CANCEL sent.
    Cancelling,
    /// Both sides know.
    Up,
    /// BYE sent.
    Leaving,
    /// Nothing is left.
    Over,
}

/// What a call waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Ring,
    RingElsewhere,
    Answer,
    Refuse,
    HangUp,
    Hold,
    Resume,
    GiveUp,
}

#[derive(Debug)]
struct Call {
    number: CallNumber,
    talk: Talk,
    stage: Stage,
    far_end: FarEnd,
    /// Who is called on the PSTN, or calls from it.
    party: Box<str>,
    invite: Option<Asked>,
    invite_tx: Option<ClientId>,
    bye_tx: Option<ClientId>,
    sound: Option<Sound>,
    is_sounding: bool,
    /// How long a call from the PSTN talks before it hangs up.
    talks_for: Option<Duration>,
    answer_in_ack: bool,
}

#[derive(Debug)]
struct Plan {
    at: Instant,
    call: CallNumber,
    step: Step,
}

/// The simulated trunk.
#[derive(Debug)]
pub struct Twilio {
    setup: Setup,
    agent: Agent,
    calls: Vec<Call>,
    next_call: u64,
    plans: Vec<Plan>,
    /// Nonces and their `opaque`.
    nonces: VecDeque<(String, String)>,
    /// Call-ID, branch and CSeq of INVITEs outside dialogs.
    invites: VecDeque<(Box<str>, Box<str>, u32)>,
    /// When somebody last asked, and until when it is banned.
    options: BTreeMap<IpAddr, (Instant, Option<Instant>)>,
    pace: VecDeque<Instant>,
    reach: BTreeMap<SocketAddr, Reach>,
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
        agent.say_own_trying();
        Self {
            setup,
            agent,
            calls: vec![],
            next_call: 1,
            plans: vec![],
            nonces: VecDeque::new(),
            invites: VecDeque::new(),
            options: BTreeMap::new(),
            pace: VecDeque::new(),
            reach: BTreeMap::new(),
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

    /// Gives a call its RTP address.
    pub fn media_at(&mut self, call: CallNumber, rtp: SocketAddr, now: Instant) {
        let Some(index) = self.index(call) else { return };
        self.calls[index].sound = Some(self.sound(rtp));
        match self.calls[index].stage {
            Stage::Trying => self.begin(index, now),
            Stage::Calling => self.send_invite(index, now),
            Stage::Answered | Stage::Cancelling | Stage::Up | Stage::Leaving | Stage::Over => {}
        }
    }

    /// Ends a call from the far end's side: CANCEL or BYE.
    pub fn hang_up(&mut self, call: CallNumber, now: Instant) {
        self.carry_out(call, Step::HangUp, now);
    }

    /// Puts the PBX on hold, or takes it back.
    pub fn hold(&mut self, call: CallNumber, on: bool, now: Instant) {
        self.carry_out(call, if on { Step::Hold } else { Step::Resume }, now);
    }

    fn sound(&self, rtp: SocketAddr) -> Sound {
        let mut sound = Sound::new(rtp, &["PCMU", "PCMA", "TELEPHONE-EVENT"]);
        sound.origin = Some(PRIVATE.into());
        sound
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
        match transport {
            Transport::Udp => [
                format!("<sip:{host}{port};r2=on;lr>"),
                format!("<sip:{host}:5061;transport=tls;r2=on;lr>"),
            ],
            Transport::Tcp => [
                format!("<sip:{host}{port};transport=tcp;r2=on;lr>"),
                format!("<sip:{host}:5061;transport=tls;r2=on;lr>"),
            ],
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

    fn open_call(&mut self, talk: Talk, stage: Stage, party: &str) -> usize {
        let number = CallNumber(self.next_call);
        self.next_call += 1;
        let port = 10_000 + u16::try_from(number.0 % 20_000).unwrap_or(0) * 2;
        let sound = self.setup.media.map(|ip| self.sound(SocketAddr::new(ip, port)));
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
            is_sounding: false,
            talks_for: None,
            answer_in_ack: false,
        });
        self.calls.len() - 1
    }

    /// Tells that the far end may speak and listen.
    fn start_media(&mut self, index: usize) {
        let call = &mut self.calls[index];
        let Some(sound) = &call.sound else { return };
        let Some(agreed) = &sound.agreed else { return };
        call.is_sounding = true;
        self.events.push_back(Event::MediaStart { call: call.number, agreed: agreed.clone() });
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

    fn take(&mut self, happened: Vec<Happened>, now: Instant) {
        for happened in happened {
            match happened {
                Happened::Request(asked) => self.take_request(&asked, now),
                Happened::Cancel { tx, .. } => self.take_cancel(tx, now),
                Happened::Ack { message, flow } => self.take_ack(&message, flow, now),
                Happened::Response { tx, message } => self.take_response(tx, &message, now),
                Happened::Failed { tx } => self.take_failure(tx),
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
            (None, _) => self.agent.refuse(asked, 481, None, now),
        }
    }

    /// OPTIONS is answered without a challenge, and only so often.
    fn take_options(&mut self, asked: &Asked, now: Instant) {
        let source = asked.flow.remote.ip();
        let (last, banned) = match self.options.get(&source) {
            Some((last, banned)) => (Some(*last), *banned),
            None => (None, None),
        };
        let too_soon = last.filter(|last| now < *last + OPTIONS_EVERY);
        let banned = match too_soon {
            Some(last) => {
                let after_ms = (now - last).as_millis();
                self.deviate(Rule::OptionsPace, format!("OPTIONS again after {after_ms} ms"));
                Some(now + BANNED_FOR)
            }
            None => banned.filter(|until| now < *until),
        };
        self.options.insert(source, (now, banned));
        if banned.is_some() {
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
            (Step::Hold, Stage::Up) => self.reinvite(index, true, now),
            (Step::Resume, Stage::Up) => self.reinvite(index, false, now),
            (
                Step::Ring
                | Step::RingElsewhere
                | Step::Answer
                | Step::Refuse
                | Step::HangUp
                | Step::GiveUp
                | Step::Hold
                | Step::Resume,
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
        let Ok(message) = Message::parse(bytes.clone()) else { return };
        if !is_mute(self.reach(flow.local)) && !self.is_dropped(&message) {
            let happened = self.agent.receive(flow, bytes, now);
            self.take(happened, now);
        }
    }

    fn closed(&mut self, flow: Flow, now: Instant) {
        let happened = self.agent.closed(flow, now);
        self.take(happened, now);
    }

    fn reach(&self, address: SocketAddr) -> Reach {
        self.reach.get(&address).copied().unwrap_or_default()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let happened = self.agent.handle_timeout(now);
        self.take(happened, now);
        let due: Vec<Plan> = self.plans.extract_if(.., |plan| plan.at <= now).collect();
        for Plan { call, step, .. } in due {
            self.carry_out(call, step, now);
        }
        self.calls.retain(|call| call.stage != Stage::Over);
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let plans = self.plans.iter().map(|plan| plan.at).min();
        [self.agent.poll_timeout(), plans].into_iter().flatten().min()
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
