//! Inside a call's dialog: what the proxies let through, hold, and the end.
//!
//! Owns: ACK, BYE and re-INVITE, the PBX's and our own.
//! Never: lets pass what the real proxies would lose.

use super::{
    super::agent::{Asked, Hears, finish},
    ALLOW, FarEnd, GATEWAY, Rule, Stage, Step, Then, Twilio,
};
use crate::{
    ids::Flow,
    sdp::Direction,
    sip::{HeaderName, Message, Method, Uri},
    transaction::ClientId,
};
use std::time::{Duration, Instant};

/// How long a far end listens to nothing.
const DEAF_FOR: Duration = Duration::from_secs(60);
/// When a holding far end holds, and for how long.
const HOLDS_AFTER: Duration = Duration::from_secs(1);
const HOLDS_FOR: Duration = Duration::from_secs(2);

impl Twilio {
    /// Takes a request inside a dialog.
    pub(super) fn take_inside(&mut self, index: usize, asked: &Asked, now: Instant) {
        let message = &asked.message;
        let talk = self.calls[index].talk.clone();
        let method = message.method();
        if !self.calls[index].talk.note(message) {
            let evidence = format!("{method} with CSeq {} again", message.cseq().number);
            self.deviate(Rule::CseqAdvances, evidence);
            return self.agent.ignore(asked.tx);
        }
        if !self.is_routed(index, message, asked.flow) {
            self.agent.refuse(asked, 481, Some(&talk), now);
            if method == Method::Bye {
                // The far end hears nothing any more, and has enough of it after a minute.
                self.plan(now + DEAF_FOR, self.calls[index].number, Step::HangUp);
            }
            return;
        }
        self.note_connection(index, asked);
        match method {
            Method::Bye => {
                self.agent.refuse(asked, 200, Some(&talk), now);
                let invite = self.calls[index].invite.as_ref();
                let cseq = invite.map_or(0, |invite| invite.message.cseq().number);
                self.agent.heard(&talk.call_id, Hears::Ack(cseq));
                if let Some(tx) = self.calls[index].invite_tx {
                    self.agent.cancel(tx, now);
                }
                self.end_call(index, 200);
            }
            Method::Invite => self.take_reinvite(index, asked, now),
            Method::Options => self.agent.refuse(asked, 200, Some(&talk), now),
            Method::Refer => self.take_refer(index, asked, now),
            Method::Ack
            | Method::Cancel
            | Method::Info
            | Method::Message
            | Method::Notify
            | Method::Prack
            | Method::Publish
            | Method::Register
            | Method::Subscribe
            | Method::Update
            | Method::Other => {
                self.deviate(Rule::KnownMethods, message.method_token());
                self.refuse_method(asked, Some(&talk), now);
            }
        }
    }

    /// Returns whether the proxies know where a request inside this dialog goes: by its Routes, then
    /// by the Contact that they hide.
    fn is_routed(&mut self, index: usize, message: &Message, flow: Flow) -> bool {
        let routes: Vec<String> = message
            .values(HeaderName::Route)
            .map(|route| String::from_utf8_lossy(&route).into_owned())
            .collect();
        let method = message.method();
        if routes != self.routes(index) {
            let said = if routes.is_empty() { "no Route".to_owned() } else { routes.join(", ") };
            self.deviate(Rule::RouteSet, format!("{method} with {said}"));
            return false;
        }
        let recorded = self.calls[index].talk.flow.local;
        if flow.local != recorded {
            let evidence = format!("{method} at {}, {recorded} is the route", flow.local);
            self.deviate(Rule::RouteSet, evidence);
            return false;
        }
        let party = self.calls[index].party.clone();
        let target = format!("<{}>", message.uri());
        if target == self.contact(&party) {
            return true;
        }
        let uri = Uri::parse(message.uri());
        let rule = if target == self.moved_contact(&party) || message.uri().contains(";twnat=") {
            Rule::IgnoresTwnat
        } else if uri.is_some_and(|uri| uri.user == Some(&*party)) {
            Rule::PrivateAddresses
        } else {
            Rule::RemoteTarget
        };
        self.deviate(rule, format!("{method} {}", message.uri()));
        false
    }

    /// A request came over another connection than its call's. Where that is gone, the call has a new
    /// one.
    fn note_connection(&mut self, index: usize, asked: &Asked) {
        let flow = self.calls[index].talk.flow;
        if asked.flow == flow || !flow.transport.is_reliable() {
            return;
        }
        if self.streams.is_open(flow) {
            let method = asked.message.method();
            let evidence = format!("{method} over {}, though {flow} is open", asked.flow);
            self.deviate(Rule::ReusesConnection, evidence);
        } else {
            self.calls[index].talk.flow = asked.flow;
            self.calls[index].is_redialled = true;
        }
    }

    /// Answers a re-INVITE: hold, resume, another address.
    fn take_reinvite(&mut self, index: usize, asked: &Asked, now: Instant) {
        let party = self.calls[index].party.clone();
        let talk = self.calls[index].talk.clone();
        if self.calls[index].stage != Stage::Up {
            return self.agent.refuse(asked, 491, Some(&talk), now);
        }
        let Some(sound) = &mut self.calls[index].sound else { return };
        let sdp = match asked.message.sdp() {
            Some(offer) => sound.answer(&offer),
            None => Some(sound.offer()),
        };
        let Some(sdp) = sdp else { return self.agent.refuse(asked, 488, Some(&talk), now) };
        self.calls[index].answer_in_ack = asked.message.sdp().is_none();
        self.retarget(index, &asked.message);
        let mut reply = self.agent.reply(asked, (200, "OK"), Some(&talk));
        reply.copy(&asked.message, HeaderName::RecordRoute);
        // Over another connection than the first, a proxy adds what it thinks of the gateway.
        let is_redialled = self.calls[index].is_redialled;
        let contact = if is_redialled { self.moved_contact(&party) } else { self.contact(&party) };
        reply.header(HeaderName::Contact, contact);
        reply.header(HeaderName::Allow, ALLOW).header(HeaderName::Server, GATEWAY);
        let hears = Hears::Ack(asked.message.cseq().number);
        let bytes = finish(reply, Some(&sdp));
        self.agent.respond_until((asked.tx, &talk.call_id), hears, (200, bytes), now);
        self.start_media(index);
    }

    /// Takes the ACK of a 200. One that went astray is as good as none.
    pub(super) fn take_ack(&mut self, ack: &Message, flow: Flow, now: Instant) {
        let Some(index) = self.calls.iter().position(|call| call.talk.owns(ack)) else { return };
        if !self.is_routed(index, ack, flow) {
            return;
        }
        if matches!(self.calls[index].far_end, FarEnd::Answers { then: Then::LosesAck, .. }) {
            return;
        }
        if !self.agent.heard(ack.call_id(), Hears::Ack(ack.cseq().number)) {
            return;
        }
        let call = &mut self.calls[index];
        if std::mem::take(&mut call.answer_in_ack)
            && let (Some(answer), Some(sound)) = (ack.sdp(), &mut call.sound)
        {
            sound.accept(&answer);
        }
        if call.stage != Stage::Answered {
            return;
        }
        let (number, far_end) = (call.number, call.far_end);
        self.start_media(index);
        self.goes_up(index, now);
        match far_end {
            FarEnd::Answers { then: Then::HangsUp(after), .. } => {
                self.plan(now + after, number, Step::HangUp);
            }
            FarEnd::Answers { then: Then::Holds, .. } => {
                self.plan(now + HOLDS_AFTER, number, Step::Hold);
                self.plan(now + HOLDS_AFTER + HOLDS_FOR, number, Step::Resume);
            }
            FarEnd::Answers {
                then:
                    Then::Stays
                    | Then::Moves
                    | Then::LosesAck
                    | Then::IsMute
                    | Then::RefusesTransfer { .. },
                ..
            }
            | FarEnd::RingsForever
            | FarEnd::Refuses { .. }
            | FarEnd::Silent => {}
        }
    }

    /// Nobody acknowledged a 200: the call is dropped.
    pub(super) fn take_unheard(&mut self, call_id: &str, now: Instant) {
        let known = self.calls.iter().position(|call| call.talk.call_id == call_id);
        let Some(index) =
            known.filter(|index| matches!(self.calls[*index].stage, Stage::Answered | Stage::Up))
        else {
            return;
        };
        let is_lost =
            matches!(self.calls[index].far_end, FarEnd::Answers { then: Then::LosesAck, .. });
        if !is_lost {
            let evidence = format!("no ACK in 30 s, or one that went astray: {call_id}");
            self.deviate(Rule::Acknowledges, evidence);
        }
        self.bye(index, now);
    }

    /// Hangs up.
    pub(super) fn bye(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        call.stage = Stage::Leaving;
        if let Some(tx) = call.invite_tx {
            self.agent.cancel(tx, now);
        }
        let (mut bye, branch) = call.talk.request(Method::Bye, &mut self.agent);
        bye.header(HeaderName::Reason, "Q.850;cause=16").header(HeaderName::UserAgent, GATEWAY);
        let flow = call.talk.flow;
        let tx = self.agent.request(Method::Bye, &branch, bye.finish(), flow, now);
        call.bye_tx = Some(tx);
    }

    /// Holds the PBX, or takes it back.
    pub(super) fn reinvite(&mut self, index: usize, on: bool, now: Instant) {
        let party = self.calls[index].party.clone();
        let contact = self.contact(&party);
        let call = &mut self.calls[index];
        let Some(sound) = &mut call.sound else { return };
        sound.wants = if on { Direction::SendOnly } else { Direction::SendRecv };
        let sdp = sound.offer();
        let (mut invite, branch) = call.talk.request(Method::Invite, &mut self.agent);
        invite
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Allow, ALLOW)
            .header(HeaderName::UserAgent, GATEWAY);
        let flow = call.talk.flow;
        let bytes = finish(invite, Some(&sdp));
        call.invite_tx = Some(self.agent.request(Method::Invite, &branch, bytes, flow, now));
    }

    /// Takes a response to a request of ours inside a dialog, or to an INVITE from the PSTN.
    pub(super) fn take_response(&mut self, tx: ClientId, response: &Message, now: Instant) {
        let status = response.status();
        if self.take_late(tx, response, now) {
            return;
        }
        if let Some(index) = self.calls.iter().position(|call| call.bye_tx == Some(tx)) {
            if status >= 200 {
                self.end_call(index, 200);
            }
            return;
        }
        let known = self.calls.iter().position(|call| call.invite_tx == Some(tx));
        let Some(index) = known else { return };
        match self.calls[index].stage {
            Stage::Calling | Stage::Cancelling => self.take_answer(index, tx, response, now),
            Stage::Up | Stage::Leaving => self.take_change(index, tx, response, now),
            Stage::Trying | Stage::Answered | Stage::Over => {}
        }
    }

    fn take_change(&mut self, index: usize, tx: ClientId, response: &Message, now: Instant) {
        match response.status() {
            ..200 => {}
            200..300 => {
                let call = &mut self.calls[index];
                if let (Some(answer), Some(sound)) = (response.sdp(), &mut call.sound) {
                    sound.accept(&answer);
                }
                self.acknowledge(index, tx, response, now);
                self.start_media(index);
            }
            491 => {
                let number = self.calls[index].number;
                let wants = self.calls[index].sound.as_ref().map(|sound| sound.wants);
                let step =
                    if wants == Some(Direction::SendOnly) { Step::Hold } else { Step::Resume };
                let wait = 2100 + self.agent.entropy.below(1900);
                self.plan(now + Duration::from_millis(wait), number, step);
            }
            408 | 481 => self.end_call(index, response.status()),
            _ => {}
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        index: usize,
        tx: ClientId,
        response: &Message,
        now: Instant,
    ) {
        let call = &self.calls[index];
        let ack = call.talk.ack(response.cseq().number, &mut self.agent).finish();
        let (flow, tag) = (call.talk.flow, call.talk.remote_tag.clone());
        self.agent.acknowledge(tx, &tag, (flow, ack), now);
    }

    /// Takes the silence after a request of ours.
    pub(super) fn take_failure(&mut self, tx: ClientId, now: Instant) {
        self.abandoned.retain(|(abandoned, _)| *abandoned != tx);
        let is_its = |call: &super::Call| call.bye_tx == Some(tx) || call.invite_tx == Some(tx);
        let Some(index) = self.calls.iter().position(is_its) else { return };
        if self.calls[index].stage == Stage::Calling {
            return self.take_silence(index, now);
        }
        self.end_call(index, 408);
    }
}
