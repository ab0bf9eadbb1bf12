//! Calls from the PSTN to the PBX.
//!
//! Owns: the INVITE as Twilio writes it, and what is checked of the answers.
//! Never: answers a challenge.

use super::{
    super::{agent::finish, talk::Talk},
    ALLOW, CallNumber, Event, GATEWAY, PRIVATE, Rule, Stage, Step, Twilio, uri,
};
use crate::{
    ids::Transport,
    sip::{HeaderName, Message, Method, NameAddr, quote},
    transaction::ClientId,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long a caller on the PSTN listens to the ringing tone.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call from the PSTN.
#[derive(Clone, Debug)]
pub struct CallIn {
    /// The number called, in E.164.
    pub did: Box<str>,
    /// The caller's number, in E.164.
    pub from: Box<str>,
    /// The caller's name (CNAM).
    pub name: Option<Box<str>>,
    /// The origination URI's address.
    pub to: SocketAddr,
    /// Its transport.
    pub transport: Transport,
    /// The address of ours that it comes from; `None`: the first.
    pub through: Option<SocketAddr>,
    /// How long the caller talks before it hangs up; `None`: until the PBX does.
    pub talks_for: Option<Duration>,
    /// How long the caller waits for an answer; `None`: a minute.
    pub waits: Option<Duration>,
}

impl Twilio {
    /// Calls the PBX.
    pub fn call_in(&mut self, call: &CallIn, now: Instant) -> CallNumber {
        let CallIn { did, from, name, to, transport, .. } = call;
        let proxy = match call.through {
            Some(address) => Some(address),
            None => self
                .setup
                .edges
                .iter()
                .flat_map(|edge| &edge.proxies)
                .next()
                .map(|p| p.at(*transport)),
        };
        let mut flow = self.agent.flow_to(*transport, *to);
        flow.local = proxy.unwrap_or(flow.local);
        let domain = &self.setup.account.termination;
        let mut caller = format!("<sip:{from}@{domain}:5060>");
        if let Some(name) = name {
            caller = format!("{} {caller}", quote(name));
        }
        let target = uri(did, to, *transport);
        let callee = format!("<sip:{did}@{to}>");
        let mut talk = Talk::outgoing(&caller, &callee, &target, &mut self.agent, flow);
        talk.call_id.push_str("@0.0.0.0");
        let index = self.open_call(talk, Stage::Calling, from);
        let opened = &mut self.calls[index];
        opened.talks_for = call.talks_for;
        let number = opened.number;
        self.plan(now + call.waits.unwrap_or(PATIENCE), number, Step::GiveUp);
        if self.calls[index].sound.is_some() {
            self.send_invite(index, now);
        }
        number
    }

    /// Sends the INVITE as it leaves the proxies.
    pub(super) fn send_invite(&mut self, index: usize, now: Instant) {
        let party = self.calls[index].party.clone();
        let (contact, [near, far]) = (self.contact(&party), self.routes(index));
        let (sid, branch_inside) = (self.agent.token(), self.agent.token());
        let termination = self.setup.account.termination.clone();
        let call = &mut self.calls[index];
        let Some(sound) = &mut call.sound else { return };
        let sdp = sound.offer();
        let did = call.talk.target.trim_start_matches("sip:").split('@').next();
        let did = did.unwrap_or_default().to_owned();
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
        let flow = call.talk.flow;
        let bytes = finish(invite, Some(&sdp));
        call.invite_tx = Some(self.agent.request(Method::Invite, &branch, bytes, flow, now));
    }

    /// Takes an answer of the PBX's to a call from the PSTN.
    pub(super) fn take_answer(
        &mut self,
        index: usize,
        tx: ClientId,
        response: &Message,
        now: Instant,
    ) {
        match response.status() {
            ..=100 => {}
            101..200 => {
                self.check_answer(index, response);
                self.calls[index].talk.learn(response);
                self.hear_answer(index, response);
            }
            200..300 => self.take_success(index, tx, response, now),
            status @ (401 | 407) => {
                self.deviate(Rule::NeverChallenges, format!("{status} to a call of ours"));
                self.end_call(index, status);
            }
            status => self.end_call(index, status),
        }
    }

    fn take_success(&mut self, index: usize, tx: ClientId, response: &Message, now: Instant) {
        self.check_answer(index, response);
        self.calls[index].talk.learn(response);
        self.calls[index].talk.retarget(response);
        self.calls[index].talk.routes = vec![];
        self.hear_answer(index, response);
        self.acknowledge(index, tx, response, now);
        let call = &mut self.calls[index];
        let (number, talks_for) = (call.number, call.talks_for);
        self.plans.retain(|plan| plan.call != number || plan.step != Step::GiveUp);
        if call.stage == Stage::Cancelling {
            return self.bye(index, now);
        }
        call.stage = Stage::Up;
        self.events.push_back(Event::Up { call: number });
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

    /// RFC 3261 12.1.1, and a Contact that leads back to where we called.
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
        let port = contact.and_then(|contact| Some(contact.parsed_uri()?.port.unwrap_or(5060)));
        let called = self.calls[index].talk.flow.remote.port();
        if port != Some(called) {
            let evidence = format!("Contact names port {port:?}, {called} was called");
            self.deviate(Rule::ContactOfListener, evidence);
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
