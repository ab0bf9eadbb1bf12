//! Calls from the PSTN to the PBX.
//!
//! Owns: the INVITE as Twilio writes it, whom it tries in which order, and what is checked of the answers.
//! Never: answers a challenge.

use super::{
    super::{agent::finish, talk::Talk},
    ALLOW, CallNumber, Event, GATEWAY, PRIVATE, Rule, Stage, Step, Twilio, offer, uri,
};
use crate::{
    ids::Transport,
    sip::{HeaderName, Message, Method, NameAddr, Uri, quote},
    transaction::ClientId,
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long a caller on the PSTN listens to the ringing tone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Without any answer for so long, the next origination URI is tried.
const NEXT_AFTER: Duration = Duration::from_secs(4);
/// Length of the PASSporT in an Identity header, as it comes with verified callers.
const PASSPORT_LEN: usize = 900;

/// A call from the PSTN.
#[derive(Clone, Debug)]
pub struct CallIn {
    /// The number called, in E.164.
    pub did: Box<str>,
    /// The caller's number, in E.164.
    pub from: Box<str>,
    /// The caller's name (CNAM).
    pub name: Option<Box<str>>,
    /// `X-Twilio-VerStat` (`TN-Validation-Passed-A`), with an Identity header.
    pub verstat: Option<Box<str>>,
    /// Where to; empty: the account's origination URIs.
    pub to: Vec<Origination>,
    /// The address of ours that it comes from; `None`: the first.
    pub through: Option<SocketAddr>,
    /// How long the caller talks before it hangs up; `None`: until the PBX does.
    pub talks_for: Option<Duration>,
    /// How long the caller waits for an answer; `None`: a minute.
    pub waits: Option<Duration>,
}

impl CallIn {
    /// Describes an ordinary call: without a name, until the PBX hangs up.
    pub fn new(did: &str, from: &str, to: Vec<Origination>) -> Self {
        Self {
            did: did.into(),
            from: from.into(),
            name: None,
            verstat: None,
            to,
            through: None,
            talks_for: None,
            waits: None,
        }
    }
}

/// An origination URI.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origination {
    /// The PBX's address.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
    /// The lowest is tried first.
    pub priority: u16,
    /// Among equals, how often this one comes first.
    pub weight: u16,
    /// Headers of the customer's own (`?X-Secret=v`).
    pub headers: Vec<(Box<str>, Box<str>)>,
}

impl Origination {
    /// Describes the only URI of a trunk.
    pub fn new(address: SocketAddr, transport: Transport) -> Self {
        Self { address, transport, priority: 10, weight: 10, headers: vec![] }
    }

    /// Reads `sip:203.0.113.1:5060;transport=tcp?X-Secret=v`. The host must be an address.
    pub fn parse(text: &str) -> Option<Self> {
        let uri = Uri::parse(text)?;
        let transport = uri.transport().unwrap_or(Transport::Udp);
        let port = uri.port.unwrap_or(transport.default_port());
        let pairs = uri.headers.split('&').filter_map(|pair| pair.split_once('='));
        let headers = pairs.map(|(name, value)| (name.into(), value.into())).collect();
        Some(Self { headers, ..Self::new(SocketAddr::new(uri.ip()?, port), transport) })
    }
}

/// What a call from the PSTN has beyond others.
#[derive(Debug)]
pub(super) struct Inbound {
    call: CallIn,
    /// The URI being tried, then those that are left, best first.
    to: Origination,
    left: VecDeque<Origination>,
    is_heard: bool,
    is_redirected: bool,
}

impl Twilio {
    /// Calls the PBX.
    pub fn call_in(&mut self, call: &CallIn, now: Instant) -> CallNumber {
        let uris = if call.to.is_empty() { &self.setup.account.origination } else { &call.to };
        let mut left = self.in_order(uris.clone());
        let Some(to) = left.pop_front() else {
            let number = CallNumber(self.next_call);
            self.next_call += 1;
            self.deviate(Rule::HasOrigination, format!("a call to {}", call.did));
            self.events.push_back(Event::Over { call: number, status: 404 });
            return number;
        };
        let talk = self.talk_to(call, &to);
        let index = self.open_call(talk, Stage::Calling, &call.from);
        let opened = &mut self.calls[index];
        let number = opened.number;
        let call = call.clone();
        let patience = call.waits.unwrap_or(PATIENCE);
        opened.inbound =
            Some(Box::new(Inbound { call, to, left, is_heard: false, is_redirected: false }));
        self.plan(now + patience, number, Step::GiveUp);
        if self.calls[index].sound.is_some() {
            self.send_invite(index, now);
        }
        number
    }

    /// By priority, and among equals by weight and chance.
    fn in_order(&mut self, mut uris: Vec<Origination>) -> VecDeque<Origination> {
        let mut ordered = VecDeque::new();
        while let Some(best) = uris.iter().map(|uri| uri.priority).min() {
            let weight = |uri: &Origination| {
                if uri.priority == best { u64::from(uri.weight.max(1)) } else { 0 }
            };
            let mut chosen = self.agent.entropy.below(uris.iter().map(weight).sum());
            let index = uris.iter().position(|uri| {
                let is_it = chosen < weight(uri);
                chosen = chosen.saturating_sub(weight(uri));
                is_it
            });
            ordered.push_back(uris.remove(index.unwrap_or(0)));
        }
        ordered
    }

    fn talk_to(&mut self, call: &CallIn, to: &Origination) -> Talk {
        let Origination { address, transport, .. } = to;
        let mut proxies = self.setup.edges.iter().flat_map(|edge| &edge.proxies);
        let proxy = call.through.or_else(|| proxies.next().map(|proxy| proxy.at(*transport)));
        let mut flow = self.agent.flow_to(*transport, *address);
        flow.local = proxy.unwrap_or(flow.local);
        let CallIn { did, from, name, .. } = call;
        let mut caller = format!("<sip:{from}@{}:5060>", self.setup.account.termination);
        if let Some(name) = name {
            caller = format!("{} {caller}", quote(name));
        }
        let target = uri(did, address, *transport);
        let callee = format!("<sip:{did}@{address}>");
        let mut talk = Talk::outgoing(&caller, &callee, &target, &mut self.agent, flow);
        talk.call_id.push_str("@0.0.0.0");
        talk.hops = 60;
        talk
    }

    /// Sends the INVITE as it leaves the proxies.
    pub(super) fn send_invite(&mut self, index: usize, now: Instant) {
        let party = self.calls[index].party.clone();
        let (contact, [near, far]) = (self.contact(&party), self.routes(index));
        let (sid, branch_inside) = (self.agent.token(), self.agent.token());
        let termination = self.setup.account.termination.clone();
        let call = &mut self.calls[index];
        let (Some(sound), Some(inbound)) = (&mut call.sound, &call.inbound) else { return };
        let sdp = sound.offer();
        let did = &inbound.call.did;
        let (mut invite, branch) = call.talk.request(Method::Invite, &mut self.agent);
        invite
            .header(
                HeaderName::Via,
                format_args!("SIP/2.0/UDP {PRIVATE}:5060;rport=5060;branch=z9hG4bK{branch_inside}"),
            )
            .header(HeaderName::RecordRoute, near)
            .header(HeaderName::RecordRoute, far)
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Allow, ALLOW)
            .header(HeaderName::UserAgent, GATEWAY)
            .header(
                HeaderName::Diversion,
                format_args!("<sip:{did}@twilio.com>;reason=unconditional"),
            )
            .header(HeaderName::PAssertedIdentity, format_args!("<sip:{party}@{termination}:5060>"))
            .raw_header("X-Twilio-AccountSid", b"AC00000000000000000000000000000000")
            .raw_header("X-Twilio-CallSid", format!("CA{sid:0>32.32}").as_bytes());
        if let Some(verstat) = &inbound.call.verstat {
            let passport = "x".repeat(PASSPORT_LEN);
            let info = "<https://cr.sansay.com/certificate.crt>;alg=ES256;ppt=shaken";
            invite.raw_header("X-Twilio-VerStat", verstat.as_bytes());
            invite.header(HeaderName::Identity, format_args!("{passport};info={info}"));
        }
        for (name, value) in &inbound.to.headers {
            invite.raw_header(name, value.as_bytes());
        }
        let (flow, number) = (call.talk.flow, call.number);
        let has_more = !inbound.left.is_empty();
        let bytes = finish(invite, Some(&sdp));
        call.invite_tx = Some(self.agent.invite(&branch, bytes, flow, now));
        if has_more {
            self.plan(now + NEXT_AFTER, number, Step::NextUri);
        }
    }

    /// Nobody has said anything for a while.
    pub(super) fn next_uri(&mut self, index: usize, now: Instant) {
        if self.calls[index].inbound.as_ref().is_some_and(|inbound| !inbound.is_heard) {
            self.try_next(index, now);
        }
    }

    /// Tries the next origination URI; returns whether there is one.
    fn try_next(&mut self, index: usize, now: Instant) -> bool {
        let Some(inbound) = &mut self.calls[index].inbound else { return false };
        let Some(next) = inbound.left.pop_front() else { return false };
        inbound.is_heard = false;
        inbound.to = next.clone();
        let call = inbound.call.clone();
        let talk = self.talk_to(&call, &next);
        let call = &mut self.calls[index];
        let number = call.number;
        let before = std::mem::replace(&mut call.talk, talk);
        if let Some(tx) = call.invite_tx.take() {
            self.abandoned.push((tx, before));
            self.agent.cancel(tx, now);
        }
        self.plans.retain(|plan| plan.call != number || plan.step != Step::NextUri);
        self.send_invite(index, now);
        true
    }

    /// Takes what comes of an INVITE that nobody waits for any more; returns whether it was one.
    pub(super) fn take_late(&mut self, tx: ClientId, response: &Message, now: Instant) -> bool {
        let Some(place) = self.abandoned.iter().position(|(known, _)| *known == tx) else {
            return false;
        };
        match response.status() {
            ..200 => {}
            200..300 => {
                let (_, mut talk) = self.abandoned.swap_remove(place);
                talk.learn(response);
                let ack = talk.ack(response.cseq().number, &mut self.agent).finish();
                let tag = talk.remote_tag.clone();
                self.agent.acknowledge(tx, &tag, (talk.flow, ack), now);
                let (bye, branch) = talk.request(Method::Bye, &mut self.agent);
                self.agent.request(Method::Bye, &branch, bye.finish(), talk.flow, now);
            }
            _ => _ = self.abandoned.swap_remove(place),
        }
        true
    }

    /// Takes an answer of the PBX's to a call from the PSTN.
    pub(super) fn take_answer(
        &mut self,
        index: usize,
        tx: ClientId,
        response: &Message,
        now: Instant,
    ) {
        if let Some(inbound) = &mut self.calls[index].inbound {
            inbound.is_heard = true;
        }
        match response.status() {
            ..=100 => {}
            101..200 => {
                self.check_answer(index, response);
                self.learn(index, response);
                self.hear_answer(index, response);
            }
            200..300 => self.take_success(index, tx, response, now),
            status => self.take_refusal(index, status, response, now),
        }
    }

    fn take_refusal(&mut self, index: usize, status: u16, response: &Message, now: Instant) {
        if self.calls[index].stage == Stage::Cancelling {
            return self.end_call(index, status);
        }
        match status {
            300..400 => return self.take_redirect(index, response, now),
            401 | 407 => {
                self.deviate(Rule::NeverChallenges, format!("{status} to a call of ours"));
            }
            // The PBX does not understand what Twilio says, or wants what Twilio does not give.
            400 | 405 | 414 | 416 | 420 | 421 | 493 | 494 | 505 | 513 => {
                self.deviate(Rule::AnswersCalls, format!("{status} to a call of ours"));
            }
            _ => {}
        }
        if !moves_on(status) || !self.try_next(index, now) {
            self.end_call(index, status);
        }
    }

    /// 302: another address, once.
    fn take_redirect(&mut self, index: usize, response: &Message, now: Instant) {
        let status = response.status();
        let contact = response.header_str(HeaderName::Contact).unwrap_or_default().into_owned();
        let address = NameAddr::parse(contact.as_bytes());
        let target = address.as_ref().and_then(NameAddr::parsed_uri);
        let is_ours = target.is_some_and(|uri| {
            let ip = uri.ip();
            uri.host.to_ascii_lowercase().ends_with("twilio.com")
                || self.setup.addresses().iter().any(|known| Some(known.ip()) == ip)
        });
        let to = address.as_ref().and_then(|address| Origination::parse(address.uri));
        let Some(inbound) = &mut self.calls[index].inbound else { return };
        let is_second = std::mem::replace(&mut inbound.is_redirected, true);
        if is_second || is_ours {
            let which = if is_second { "a second redirect" } else { "a redirect" };
            self.deviate(Rule::RedirectsOnce, format!("{which} to {contact}"));
            return self.end_call(index, status);
        }
        if let Some(to) = to {
            inbound.left.push_front(to);
        }
        if !self.try_next(index, now) {
            self.end_call(index, status);
        }
    }

    /// Nobody answered an INVITE, or it could not be sent.
    pub(super) fn take_silence(&mut self, index: usize, now: Instant) {
        self.calls[index].invite_tx = None;
        if self.try_next(index, now) {
            return;
        }
        let call = &self.calls[index];
        if call.inbound.as_ref().is_some_and(|inbound| !inbound.is_heard) {
            let (at, call_id) = (call.talk.flow.remote, &call.talk.call_id);
            let evidence = format!("{at} said nothing to a call of ours: {call_id}");
            self.deviate(Rule::AnswersCalls, evidence);
        }
        self.end_call(index, 408);
    }

    /// Learns who answers. What came over a connection is answered over it.
    fn learn(&mut self, index: usize, response: &Message) {
        let talk = &mut self.calls[index].talk;
        let flow = talk.flow;
        talk.learn(response);
        if self.streams.is_open(flow) {
            talk.flow = flow;
        }
    }

    fn take_success(&mut self, index: usize, tx: ClientId, response: &Message, now: Instant) {
        self.check_answer(index, response);
        self.learn(index, response);
        self.retarget(index, response);
        self.calls[index].talk.routes = vec![];
        self.change_stream(index);
        self.hear_answer(index, response);
        self.acknowledge(index, tx, response, now);
        let call = &self.calls[index];
        let talks_for = call.inbound.as_ref().and_then(|inbound| inbound.call.talks_for);
        let number = call.number;
        if call.stage == Stage::Cancelling {
            return self.bye(index, now);
        }
        self.goes_up(index, now);
        if let Some(after) = talks_for {
            self.plan(now + after, number, Step::HangUp);
        }
    }

    fn hear_answer(&mut self, index: usize, response: &Message) {
        let call = &mut self.calls[index];
        if let (Some(answer), Some(sound)) = (response.sdp(), &mut call.sound)
            && sound.accept(&answer)
        {
            self.start_media(index);
        }
    }

    /// RFC 3261 12.1.1, a Contact that leads back to where we called, and the media's policy.
    fn check_answer(&mut self, index: usize, response: &Message) {
        let recorded: Vec<String> = response
            .values(HeaderName::RecordRoute)
            .map(|route| String::from_utf8_lossy(&route).into_owned())
            .collect();
        if recorded != self.routes(index) {
            let evidence = format!("{} with {recorded:?}", response.status());
            self.deviate(Rule::EchoesRecordRoute, evidence);
        }
        let value = response.values(HeaderName::Contact).next();
        let contact = value.as_ref().and_then(|value| NameAddr::parse(value));
        let uri = contact.as_ref().and_then(NameAddr::parsed_uri);
        let flow = self.calls[index].talk.flow;
        let default = flow.transport.default_port();
        let port = uri.map(|uri| uri.port.unwrap_or(default));
        let called = self.calls[index].inbound.as_ref().map(|inbound| inbound.to.address.port());
        if port != called {
            let evidence = format!("Contact names port {port:?}, {called:?} was called");
            self.deviate(Rule::ContactOfListener, evidence);
        }
        self.note_addresses(response, flow);
        if let Some(sdp) = response.sdp() {
            let sdp = String::from_utf8_lossy(&sdp);
            let fault = offer::media_fault(&sdp, self.setup.policy.secure, true);
            if let Some((rule, evidence)) = fault {
                self.deviate(rule, evidence);
            }
        }
    }

    /// The caller gives up.
    pub(super) fn cancel(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        match call.invite_tx {
            Some(tx) => {
                call.stage = Stage::Cancelling;
                self.agent.cancel(tx, now);
            }
            None => self.end_call(index, 487),
        }
    }
}

/// Returns whether a refusal leads to the next origination URI.
fn moves_on(status: u16) -> bool {
    !matches!(status, 200..300 | 400 | 404 | 405 | 410 | 416 | 482 | 484 | 486 | 600..)
}
