//! A scripted softphone: it registers, calls and is called, holds, hangs up, and can misbehave.
//!
//! Owns: its script (what it does when), what it has heard, its calls.
//! Never: shares code with the product above the transaction layer.
//!
//! A phone does an [`Act`] when it is told to, or by itself some time after something that it heard
//! ([`Phone::when`]). An act that makes no sense at its time (hanging up what is over) is nothing.

mod call;
mod midcall;
mod register;
mod script;

pub use script::{Act, Habit, Heard, On};

use super::{
    agent::{Agent, Happened},
    sdes::Sdes,
    sound::Agreement,
    world::Node,
};
use crate::{
    ids::{Flow, Transport},
    sip::digest::{Algorithm, Challenge},
};
use bytes::Bytes;
use call::PhoneCall;
use register::Registration;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Who a phone is and what it can do.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The user part of its address, and its digest user name.
    pub user: Box<str>,
    /// The digest password.
    pub password: Box<str>,
    /// What it shows as its name.
    pub display: Option<Box<str>>,
    /// The host part of its address, and of whom it calls.
    pub domain: Box<str>,
    /// Where it listens.
    pub local: SocketAddr,
    /// Where it sends everything outside dialogs.
    pub registrar: SocketAddr,
    /// How.
    pub transport: Transport,
    /// Which challenge it answers, where there are several.
    pub algorithm: Algorithm,
    /// `PCMU`, `PCMA`, `G722`, `OPUS`, `TELEPHONE-EVENT`; best first.
    pub codecs: Vec<&'static str>,
    /// What it asks for when it registers, in seconds.
    pub expires_s: u32,
    /// What it asks for in Session-Expires (RFC 4028), in seconds.
    pub session_s: Option<u32>,
    /// Where it wants RTP; `None`: at an address that only the simulated world has.
    pub rtp: Option<SocketAddr>,
    /// How it speaks SRTP; `None`: it does not.
    pub srtp: Option<Sdes>,
    /// What is special about it.
    pub habits: BTreeSet<Habit>,
}

impl Setup {
    /// Describes an ordinary UDP phone.
    pub fn new(user: &str, password: &str, local: SocketAddr, registrar: SocketAddr) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
            display: None,
            domain: match registrar.ip() {
                IpAddr::V4(ip) => ip.to_string().into(),
                IpAddr::V6(ip) => format!("[{ip}]").into(),
            },
            local,
            registrar,
            transport: Transport::Udp,
            algorithm: Algorithm::Md5,
            codecs: vec!["PCMU", "PCMA", "TELEPHONE-EVENT"],
            expires_s: 3600,
            session_s: None,
            rtp: None,
            srtp: None,
            habits: BTreeSet::new(),
        }
    }

    /// Adds a habit.
    #[must_use]
    pub fn with(mut self, habit: Habit) -> Self {
        self.habits.insert(habit);
        self
    }
}

/// Something that a phone does some time after it heard something.
#[derive(Clone, Debug)]
struct Reaction {
    on: On,
    after: Duration,
    act: Act,
}

/// Something that a phone is about to do.
#[derive(Clone, Debug)]
struct Plan {
    at: Instant,
    /// In which call; `None`: the latest.
    call: Option<u64>,
    act: Act,
}

/// A scripted softphone.
#[derive(Debug)]
pub struct Phone {
    setup: Setup,
    agent: Agent,
    /// The last challenge, and how often its nonce was used.
    challenge: Option<(Challenge, u32)>,
    registration: Registration,
    calls: Vec<PhoneCall>,
    next_call: u64,
    reactions: Vec<Reaction>,
    plans: Vec<Plan>,
    heard: Vec<Heard>,
}

impl Phone {
    /// Creates a phone; the same seed makes the same tags and nonces.
    pub fn new(setup: Setup, seed: u64) -> Self {
        let agent = Agent::new(setup.local, seed);
        Self {
            setup,
            agent,
            challenge: None,
            registration: Registration::default(),
            calls: vec![],
            next_call: 0,
            reactions: vec![],
            plans: vec![],
            heard: vec![],
        }
    }

    /// Makes it do something some milliseconds after it hears something, each time.
    pub fn when(&mut self, on: On, after_ms: u64, act: Act) -> &mut Self {
        self.reactions.push(Reaction { on, after: Duration::from_millis(after_ms), act });
        self
    }

    /// Does something now, in the latest call.
    pub fn act(&mut self, act: Act, now: Instant) {
        self.carry_out(None, act, now);
    }

    /// Ends all its calls: takes back, refuses, hangs up.
    pub fn leave(&mut self, now: Instant) {
        for serial in self.calls.iter().map(|call| call.serial).collect::<Vec<_>>() {
            for act in [Act::Reject(480), Act::HangUp] {
                self.carry_out(Some(serial), act, now);
            }
        }
    }

    /// Gives it another password.
    pub fn set_password(&mut self, password: &str) {
        self.setup.password = password.into();
    }

    /// Returns what it has heard so far.
    pub fn heard(&self) -> &[Heard] {
        &self.heard
    }

    /// Returns whether it has heard this.
    pub fn has_heard(&self, what: &Heard) -> bool {
        self.heard.contains(what)
    }

    /// Returns what was agreed about the latest call's media, as this phone understands it.
    pub fn media(&self) -> Option<&Agreement> {
        self.calls.last()?.sound.agreed.as_ref()
    }

    /// Returns how many calls it is in.
    pub fn calls(&self) -> usize {
        self.calls.iter().filter(|call| !call.is_over()).count()
    }

    fn has(&self, habit: Habit) -> bool {
        self.setup.habits.contains(&habit)
    }

    fn contact(&self) -> String {
        let Setup { user, local, transport, .. } = &self.setup;
        match transport {
            Transport::Udp => format!("<sip:{user}@{local}>"),
            Transport::Tcp | Transport::Tls => {
                format!("<sip:{user}@{local};transport={}>", transport.param())
            }
        }
    }

    /// Notes what was heard, and plans what follows from it.
    fn hear(&mut self, call: Option<u64>, what: Heard, now: Instant) {
        let due = self.reactions.iter().filter(|reaction| what.is(reaction.on));
        let plans = due.map(|Reaction { after, act, .. }| {
            let act = act.clone();
            Plan { at: now + *after, call, act }
        });
        self.plans.extend(plans);
        self.heard.push(what);
    }

    fn plan(&mut self, at: Instant, call: u64, act: Act) {
        self.plans.push(Plan { at, call: Some(call), act });
    }

    fn carry_out(&mut self, call: Option<u64>, act: Act, now: Instant) {
        match act {
            Act::Register => self.register(self.setup.expires_s, now),
            Act::Unregister => self.register(0, now),
            Act::UnregisterAll => self.unregister_all(now),
            Act::Call(number) => self.call(&number, now),
            Act::Ring
            | Act::EndFork
            | Act::Progress
            | Act::Answer
            | Act::AnswerAgain
            | Act::Reject(_)
            | Act::Redirect(_)
            | Act::Cancel
            | Act::HangUp
            | Act::Hold
            | Act::Resume
            | Act::Reinvite
            | Act::Refresh
            | Act::HoldByUpdate
            | Act::Press(_) => {
                let serial = call.or_else(|| Some(self.calls.last()?.serial));
                if let Some(index) = self.calls.iter().position(|call| Some(call.serial) == serial)
                {
                    self.act_in_call(index, act, now);
                }
            }
        }
        let latest = self.next_call.checked_sub(1);
        self.calls.retain(|call| !call.is_over() || Some(call.serial) == latest);
        self.tidy();
    }

    /// Drops what was planned for calls that are over.
    fn tidy(&mut self) {
        let calls = &self.calls;
        let is_over = |serial| calls.iter().all(|call| call.serial != serial || call.is_over());
        self.plans.retain(|plan| plan.call.is_none_or(|serial| !is_over(serial)));
    }

    fn take(&mut self, happened: Vec<Happened>, now: Instant) {
        for happened in happened {
            match happened {
                Happened::Request(asked) => self.take_request(asked, now),
                Happened::Cancel { tx, message } => self.take_cancel(tx, &message, now),
                Happened::Ack { message, .. } => self.take_ack(&message, now),
                Happened::Response { tx, message } => self.take_response(tx, &message, now),
                Happened::Failed { tx } => self.take_failure(tx, now),
                Happened::Unheard { call_id, hears } => self.take_unheard(&call_id, hears, now),
            }
        }
        self.tidy();
    }
}

impl Node for Phone {
    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) {
        if self.has(Habit::IsDeaf) {
            return;
        }
        let happened = self.agent.receive(flow, bytes, now);
        self.take(happened, now);
    }

    fn closed(&mut self, flow: Flow, now: Instant) {
        let happened = self.agent.closed(flow, now);
        self.take(happened, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let happened = self.agent.handle_timeout(now);
        self.take(happened, now);
        let due: Vec<Plan> = self.plans.extract_if(.., |plan| plan.at <= now).collect();
        for Plan { call, act, .. } in due {
            self.carry_out(call, act, now);
        }
        if self.registration.refresh_at.is_some_and(|at| at <= now) {
            self.registration.refresh_at = None;
            self.register(self.setup.expires_s, now);
        }
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let plans = self.plans.iter().map(|plan| plan.at).min();
        let all = [self.agent.poll_timeout(), plans, self.registration.refresh_at];
        all.into_iter().flatten().min()
    }

    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.agent.poll_transmit()
    }

    /// A registration that will have to be refreshed one day keeps nobody busy.
    fn is_idle(&self) -> bool {
        self.agent.is_idle() && self.plans.is_empty() && self.calls() == 0
    }
}
