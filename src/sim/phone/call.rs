//! How a phone's calls begin and end (RFC 3261 9, 13, 15; RFC 3262; RFC 4028).
//!
//! Owns: the INVITE, its answers, CANCEL and BYE.
//! Never: changes a call that is up; `midcall` does.

use super::{
    super::{
        agent::{Asked, Hears, finish, text_of},
        sound::Sound,
        talk::Talk,
    },
    Act, Habit, Heard, Phone,
};
use crate::{
    sip::{Builder, HeaderName, Message, Method, default_reason},
    transaction::{ClientId, ServerId},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How long a phone rings out before it gives up by itself.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a phone's call stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// We called; no final answer yet.
    Calling,
    /// We were called; no final answer yet.
    Called,
    /// We sent 200 and wait for the ACK.
    Answered,
    /// Both sides know.
    Up,
    /// We sent CANCEL.
    Cancelling,
    /// We sent BYE.
    Leaving,
    /// Nothing is left.
    Over,
}

/// What a request of ours is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    Invite,
    /// A re-INVITE with our offer.
    Reinvite,
    /// A re-INVITE that asks for theirs.
    Ask,
    Update,
    Info,
    Prack,
    Bye,
}

/// A phone's call.
#[derive(Debug)]
pub(super) struct PhoneCall {
    pub(super) serial: u64,
    pub(super) talk: Talk,
    pub(super) stage: Stage,
    pub(super) sound: Sound,
    /// The INVITE that called us.
    pub(super) invite: Option<Asked>,
    pub(super) pending: BTreeMap<ClientId, Purpose>,
    /// CSeq of a 2xx of ours whose ACK must bring the answer.
    pub(super) answer_in_ack: Option<u32>,
    /// Whether it was we who called.
    pub(super) is_ours: bool,
    /// Whether the present INVITE has been challenged or refused for its session interval.
    retries: u8,
    session_s: Option<u32>,
    rseq: u32,
    /// Whether a change was refused already.
    pub(super) has_refused: bool,
}

impl PhoneCall {
    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }
}

impl Phone {
    /// Calls a number.
    pub(super) fn call(&mut self, number: &str, now: Instant) {
        let claimed = self.setup.habits.iter().find_map(|habit| {
            if let Habit::ClaimsToBe(name) = habit { Some(name.clone()) } else { None }
        });
        let user = claimed.unwrap_or_else(|| self.setup.user.clone());
        let mut from = self.address_of(&user);
        if let Some(display) = &self.setup.display {
            from = format!("\"{display}\" {from}");
        }
        let target = format!("sip:{}@{}", escape(number), self.setup.domain);
        let flow = self.agent.flow_to(self.setup.transport, self.setup.registrar);
        let to = format!("<{target}>");
        let talk = Talk::outgoing(&from, &to, &target, &mut self.agent, flow);
        let index = self.open_call(talk, Stage::Calling, None);
        self.plan(now + PATIENCE, self.calls[index].serial, Act::Cancel);
        self.send_invite(index, now);
    }

    fn open_call(&mut self, talk: Talk, stage: Stage, invite: Option<Asked>) -> usize {
        let serial = self.next_call;
        self.next_call += 1;
        let port = 40_000 + u16::try_from(serial % 5000).unwrap_or(0) * 2;
        let pretended = SocketAddr::new(self.setup.local.ip(), port);
        let rtp = self.setup.rtp.unwrap_or(pretended);
        self.calls.push(PhoneCall {
            serial,
            talk,
            stage,
            sound: Sound::new(rtp, &self.setup.codecs).with_sdes(self.setup.srtp.as_ref()),
            is_ours: invite.is_none(),
            invite,
            pending: BTreeMap::new(),
            answer_in_ack: None,
            retries: 0,
            session_s: self.setup.session_s,
            rseq: 100,
            has_refused: false,
        });
        self.calls.len() - 1
    }

    fn send_invite(&mut self, index: usize, now: Instant) {
        let offer = match self.has(Habit::OffersLate) {
            true => None,
            false => Some(self.calls[index].sound.offer()),
        };
        let call = &mut self.calls[index];
        let (flow, uri) = (call.talk.flow, call.talk.target.clone());
        let session_s = call.session_s;
        let (mut builder, branch) = call.talk.request(Method::Invite, &mut self.agent);
        if self.has(Habit::RequiresReliable) {
            builder.header(HeaderName::Require, "100rel");
        }
        if let Some(seconds) = session_s {
            builder.header(HeaderName::SessionExpires, format_args!("{seconds};refresher=uac"));
        }
        self.introduce(&mut builder);
        self.authorize(&mut builder, Method::Invite, &uri);
        let bytes = finish(builder, offer.as_deref());
        let tx = self.agent.invite(&branch, bytes, flow, now);
        self.calls[index].pending.insert(tx, Purpose::Invite);
    }

    /// Says who and what we are.
    pub(super) fn introduce(&self, builder: &mut Builder) {
        let update = if self.has(Habit::LacksUpdate) { "" } else { ", UPDATE" };
        builder
            .header(HeaderName::Contact, self.contact())
            .header(
                HeaderName::Allow,
                format_args!("INVITE, ACK, CANCEL, BYE, INFO, PRACK{update}"),
            )
            .header(HeaderName::Supported, "100rel, timer")
            .header(HeaderName::UserAgent, "simulated phone");
    }

    /// Takes a request: a new call, or something in one.
    pub(super) fn take_request(&mut self, asked: Asked, now: Instant) {
        let known = self.calls.iter().position(|call| call.talk.owns(&asked.message));
        match (known, asked.message.method()) {
            (Some(index), _) => self.take_in_call(index, &asked, now),
            (None, Method::Invite) if asked.message.to_tag().is_none() => {
                self.take_invite(asked, now);
            }
            (None, Method::Options) => self.agent.refuse(&asked, 200, None, now),
            (None, _) => self.agent.refuse(&asked, 481, None, now),
        }
    }

    fn take_invite(&mut self, asked: Asked, now: Instant) {
        let talk = Talk::incoming(&asked.message, &mut self.agent, asked.flow);
        let from = asked.message.from();
        let heard = Heard::Called {
            from: from.parsed_uri().map(|uri| uri.user_unescaped().into()).unwrap_or_default(),
            name: from.display_str().map(|name| name.into()),
        };
        let index = self.open_call(talk, Stage::Called, Some(asked));
        self.plan(now + PATIENCE, self.calls[index].serial, Act::Reject(480));
        self.hear(Some(self.calls[index].serial), heard, now);
    }

    /// Does something in a call.
    pub(super) fn act_in_call(&mut self, index: usize, act: Act, now: Instant) {
        let call = &self.calls[index];
        let (stage, serial) = (call.stage, call.serial);
        if matches!(act, Act::Ring | Act::EndFork | Act::Progress | Act::Answer)
            && self.agent.waits_for_prack(&call.talk.call_id)
        {
            // RFC 3262 3: one reliable response at a time, and no 200 before its PRACK.
            return self.plan(now + Duration::from_millis(100), serial, act);
        }
        match (act, stage) {
            (Act::Ring, Stage::Called) => self.progress(index, 180, now),
            (Act::EndFork, Stage::Called) => self.progress(index, 199, now),
            (Act::Progress, Stage::Called) => self.progress(index, 183, now),
            (Act::Answer, Stage::Called) => self.answer(index, now),
            (Act::AnswerAgain, _) => self.answer_again(index, now),
            (Act::Reject(status), Stage::Called) => self.reject(index, status, None, now),
            (Act::Redirect(uri), Stage::Called) => self.reject(index, 302, Some(&uri), now),
            (Act::Cancel, Stage::Calling) => self.take_back(index, now),
            (Act::HangUp, Stage::Up) => self.hang_up(index, now),
            (Act::HangUp, Stage::Calling) => self.take_back(index, now),
            (act, Stage::Up) | (act @ Act::HoldByUpdate, Stage::Calling) => {
                self.change(index, act, now);
            }
            (
                _,
                Stage::Calling
                | Stage::Called
                | Stage::Answered
                | Stage::Cancelling
                | Stage::Leaving
                | Stage::Over,
            ) => {}
        }
    }

    /// Sends 180, or 183 with early media; reliably where that is our habit or their demand.
    fn progress(&mut self, index: usize, status: u16, now: Instant) {
        let call = &mut self.calls[index];
        let Some(invite) = call.invite.clone() else { return };
        let sdp = match (status, invite.message.sdp()) {
            (183, Some(offer)) => call.sound.answer(&offer),
            (183, None) | (_, _) => None,
        };
        let is_able = invite.message.has_option(HeaderName::Supported, "100rel");
        let is_asked = invite.message.has_option(HeaderName::Require, "100rel");
        let is_reliable = is_asked || (is_able && self.has(Habit::RingsReliably));
        let reason = default_reason(status);
        let talk = self.calls[index].talk.clone();
        let mut builder = self.agent.reply(&invite, (status, reason), Some(&talk));
        builder.copy(&invite.message, HeaderName::RecordRoute);
        self.introduce(&mut builder);
        if !is_reliable {
            self.agent.respond(invite.tx, status, finish(builder, sdp.as_deref()), now);
            return;
        }
        let call = &mut self.calls[index];
        call.rseq += 1;
        let rseq = call.rseq;
        builder.header(HeaderName::Require, "100rel").header(HeaderName::RSeq, rseq);
        let answer = (status, finish(builder, sdp.as_deref()));
        let key = (invite.tx, &*talk.call_id);
        self.agent.respond_until(key, Hears::Prack(rseq), answer, now);
    }

    fn answer(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        let Some(invite) = call.invite.clone() else { return };
        let cseq = invite.message.cseq().number;
        let sdp = match invite.message.sdp() {
            Some(offer) => call.sound.answer(&offer),
            None => {
                call.answer_in_ack = Some(cseq);
                Some(call.sound.offer())
            }
        };
        let Some(sdp) = sdp else { return self.reject(index, 488, None, now) };
        call.stage = Stage::Answered;
        let talk = call.talk.clone();
        self.agent.forget_provisional(&talk.call_id);
        let answer = (200, self.success(&invite, &talk, &sdp));
        let key = (invite.tx, &*talk.call_id);
        self.agent.respond_until(key, Hears::Ack(cseq), answer, now);
        if self.has(Habit::AnswersTwice) {
            self.answer_again(index, now);
        }
    }

    fn answer_again(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        let Some(invite) = call.invite.clone() else { return };
        let sdp = invite.message.sdp().and_then(|offer| call.sound.answer(&offer));
        let fork = call.talk.with_local_tag(self.agent.token());
        let bytes = self.success(&invite, &fork, &sdp.unwrap_or_default());
        self.agent.respond(invite.tx, 200, bytes, now);
    }

    fn success(&mut self, invite: &Asked, talk: &Talk, sdp: &str) -> bytes::Bytes {
        let mut builder = self.agent.reply(invite, (200, "OK"), Some(talk));
        builder.copy(&invite.message, HeaderName::RecordRoute);
        if let Some(wanted) = text_of(&invite.message, HeaderName::SessionExpires) {
            let seconds = wanted.split(';').next().unwrap_or_default().to_owned();
            builder
                .header(HeaderName::SessionExpires, format_args!("{seconds};refresher=uac"))
                .header(HeaderName::Require, "timer");
        }
        self.introduce(&mut builder);
        finish(builder, Some(sdp))
    }

    fn reject(&mut self, index: usize, status: u16, contact: Option<&str>, now: Instant) {
        let call = &mut self.calls[index];
        let Some(invite) = call.invite.clone() else { return };
        call.stage = Stage::Over;
        let talk = call.talk.clone();
        self.agent.forget_provisional(&talk.call_id);
        let mut builder = self.agent.reply(&invite, (status, default_reason(status)), Some(&talk));
        if let Some(contact) = contact {
            builder.header(HeaderName::Contact, format_args!("<{contact}>"));
        }
        self.agent.respond(invite.tx, status, builder.finish(), now);
    }

    pub(super) fn take_back(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        let invite = call.pending.iter().find(|(_, purpose)| **purpose == Purpose::Invite);
        if let Some((tx, _)) = invite {
            let tx = *tx;
            call.stage = Stage::Cancelling;
            self.agent.cancel(tx, now);
        }
    }

    /// Ends a re-INVITE that would otherwise wait for ever: its dialog is over.
    pub(super) fn stop_asking(&mut self, index: usize, now: Instant) {
        for (tx, purpose) in &self.calls[index].pending {
            if matches!(purpose, Purpose::Reinvite | Purpose::Ask) {
                self.agent.cancel(*tx, now);
            }
        }
    }

    pub(super) fn hang_up(&mut self, index: usize, now: Instant) {
        self.stop_asking(index, now);
        let call = &mut self.calls[index];
        call.stage = Stage::Leaving;
        let (builder, branch) = call.talk.request(Method::Bye, &mut self.agent);
        let flow = call.talk.flow;
        let tx = self.agent.request(Method::Bye, &branch, builder.finish(), flow, now);
        self.calls[index].pending.insert(tx, Purpose::Bye);
    }

    /// Takes the CANCEL of a call to us.
    pub(super) fn take_cancel(&mut self, tx: ServerId, cancel: &Message, now: Instant) {
        let is_it = |call: &PhoneCall| call.invite.as_ref().is_some_and(|invite| invite.tx == tx);
        let Some(index) = self.calls.iter().position(is_it) else { return };
        let serial = self.calls[index].serial;
        if self.calls[index].stage != Stage::Called || self.has(Habit::IgnoresCancel) {
            return;
        }
        self.hear(Some(serial), Heard::Cancelled(text_of(cancel, HeaderName::Reason)), now);
        self.reject(index, 487, None, now);
    }

    /// Takes the ACK of a 2xx of ours.
    pub(super) fn take_ack(&mut self, ack: &Message, now: Instant) {
        let cseq = ack.cseq().number;
        let owner = self.calls.iter().position(|call| call.talk.owns(ack));
        let Some(index) = owner.filter(|_| self.agent.heard(ack.call_id(), Hears::Ack(cseq)))
        else {
            return;
        };
        let call = &mut self.calls[index];
        let serial = call.serial;
        if call.answer_in_ack.take_if(|wanted| *wanted == cseq).is_some() {
            let is_good = ack.sdp().is_some_and(|answer| call.sound.accept(&answer));
            if !is_good && call.stage == Stage::Answered {
                call.stage = Stage::Up;
                return self.hang_up(index, now);
            }
        }
        if call.stage == Stage::Answered {
            call.stage = Stage::Up;
            self.hear(Some(serial), Heard::Up, now);
        }
    }

    /// Takes a response.
    pub(super) fn take_response(&mut self, tx: ClientId, response: &Message, now: Instant) {
        if self.take_registration(tx, Some(response), now) {
            return;
        }
        let owner = self.calls.iter().position(|call| call.pending.contains_key(&tx));
        let Some(index) = owner else { return };
        let purpose = self.calls[index].pending[&tx];
        match (purpose, response.status()) {
            (Purpose::Invite, 101..200) => self.take_progress(index, response, now),
            (Purpose::Invite, 200..300) => self.take_success(index, tx, response, now),
            (Purpose::Invite, 300..) => self.take_refusal(index, tx, response, now),
            (_, ..200) => {}
            (Purpose::Bye, status) => self.left(index, status, now),
            (
                Purpose::Reinvite | Purpose::Ask | Purpose::Update | Purpose::Info | Purpose::Prack,
                _,
            ) => {
                self.calls[index].pending.remove(&tx);
                self.take_change(index, (tx, purpose), response, now);
            }
        }
    }

    fn take_progress(&mut self, index: usize, response: &Message, now: Instant) {
        let call = &mut self.calls[index];
        call.talk.learn(response);
        let serial = call.serial;
        if response.has_option(HeaderName::Require, "100rel")
            && let Some(rseq) = response.number(HeaderName::RSeq)
        {
            let is_next = call.rseq < rseq;
            if !is_next || call.stage != Stage::Calling {
                return;
            }
            call.rseq = rseq;
            let invite_cseq = response.cseq().number;
            let (mut prack, branch) = call.talk.request(Method::Prack, &mut self.agent);
            prack.header(HeaderName::RAck, format_args!("{rseq} {invite_cseq} INVITE"));
            let flow = call.talk.flow;
            let tx = self.agent.request(Method::Prack, &branch, prack.finish(), flow, now);
            self.calls[index].pending.insert(tx, Purpose::Prack);
        }
        let call = &mut self.calls[index];
        let has_media = response.sdp().is_some_and(|answer| call.sound.accept(&answer));
        let status = response.status();
        let heard = if has_media { Heard::EarlyMedia(status) } else { Heard::Ringing(status) };
        self.hear(Some(serial), heard, now);
    }

    fn take_success(&mut self, index: usize, tx: ClientId, response: &Message, now: Instant) {
        let is_first = matches!(self.calls[index].stage, Stage::Calling | Stage::Cancelling);
        if is_first && self.has(Habit::NeverAcks) {
            return self.calls[index].talk.learn(response);
        }
        let call = &mut self.calls[index];
        call.talk.learn(response);
        let is_ours = response.to_tag().unwrap_or_default() == call.talk.remote_tag;
        if !is_ours || !is_first {
            let mut fork = call.talk.fork(response);
            let ack = fork.ack(response.cseq().number, &mut self.agent).finish();
            self.agent.acknowledge(tx, &fork.remote_tag, (fork.flow, ack), now);
            let (bye, branch) = fork.request(Method::Bye, &mut self.agent);
            self.agent.request(Method::Bye, &branch, bye.finish(), fork.flow, now);
            return;
        }
        call.talk.retarget(response);
        let answer = match (response.sdp(), self.setup.habits.contains(&Habit::OffersLate)) {
            (Some(offer), true) => call.sound.answer(&offer),
            (Some(answer), false) => {
                call.sound.accept(&answer);
                None
            }
            (None, _) => None,
        };
        let ack = call.talk.ack(response.cseq().number, &mut self.agent);
        let ack = finish(ack, answer.as_deref());
        let (flow, tag) = (call.talk.flow, call.talk.remote_tag.clone());
        self.agent.acknowledge(tx, &tag, (flow, ack), now);
        let call = &mut self.calls[index];
        if call.stage == Stage::Cancelling {
            return self.hang_up(index, now);
        }
        call.stage = Stage::Up;
        let (serial, session) = (call.serial, text_of(response, HeaderName::SessionExpires));
        self.keep_session(serial, session.as_deref(), now);
        self.hear(Some(serial), Heard::Up, now);
    }

    /// Plans the refresh that a session timer makes ours.
    fn keep_session(&mut self, serial: u64, expires: Option<&str>, now: Instant) {
        let Some(expires) = expires.filter(|expires| expires.contains("refresher=uac")) else {
            return;
        };
        let seconds = expires.split(';').next().and_then(|s| s.trim().parse::<u64>().ok());
        if let Some(seconds) = seconds.filter(|_| !self.has(Habit::Forgets)) {
            self.plan(now + Duration::from_secs(seconds / 2), serial, Act::Refresh);
        }
    }

    fn take_refusal(&mut self, index: usize, tx: ClientId, response: &Message, now: Instant) {
        let call = &mut self.calls[index];
        call.pending.remove(&tx);
        let (serial, stage) = (call.serial, call.stage);
        call.retries += 1;
        let may_retry = stage == Stage::Calling && call.retries <= 2;
        match response.status() {
            401 | 407 if may_retry && self.note_challenge(response) => {
                return self.send_invite(index, now);
            }
            422 if may_retry => {
                self.calls[index].session_s = response.number(HeaderName::MinSe);
                return self.send_invite(index, now);
            }
            _ => {}
        }
        self.calls[index].stage = Stage::Over;
        let reason = String::from_utf8_lossy(response.reason());
        self.hear(Some(serial), Heard::Refused(response.status(), reason.into()), now);
    }

    fn left(&mut self, index: usize, status: u16, now: Instant) {
        let call = &mut self.calls[index];
        call.stage = Stage::Over;
        let serial = call.serial;
        self.hear(Some(serial), Heard::Gone(status), now);
    }

    /// Takes the silence after a request of ours.
    pub(super) fn take_failure(&mut self, tx: ClientId, now: Instant) {
        if self.take_registration(tx, None, now) {
            return;
        }
        let owner = self.calls.iter().position(|call| call.pending.contains_key(&tx));
        let Some(index) = owner else { return };
        let (serial, stage) = (self.calls[index].serial, self.calls[index].stage);
        match self.calls[index].pending.remove(&tx) {
            Some(Purpose::Invite) => {
                if matches!(stage, Stage::Calling | Stage::Cancelling) {
                    self.calls[index].stage = Stage::Over;
                    self.hear(Some(serial), Heard::Refused(408, "No Answer".into()), now);
                }
            }
            Some(Purpose::Bye) => self.left(index, 408, now),
            // RFC 3261 12.2.1.2: the dialog is as good as dead.
            Some(
                Purpose::Reinvite | Purpose::Ask | Purpose::Update | Purpose::Info | Purpose::Prack,
            ) => {
                self.hear(Some(serial), Heard::OfferRefused(408), now);
                if stage == Stage::Up {
                    self.hang_up(index, now);
                }
            }
            None => {}
        }
    }

    /// Takes the silence after a 200 or a reliable 18x of ours.
    pub(super) fn take_unheard(&mut self, call_id: &str, hears: Hears, now: Instant) {
        let owner = self.calls.iter().position(|call| call.talk.call_id == call_id);
        let Some(index) = owner else { return };
        let serial = self.calls[index].serial;
        match (hears, self.calls[index].stage) {
            (Hears::Ack(_), Stage::Answered | Stage::Up) => {
                self.hear(Some(serial), Heard::Unheard, now);
                self.hang_up(index, now);
            }
            (Hears::Prack(_), Stage::Called) => {
                self.hear(Some(serial), Heard::Unheard, now);
                self.reject(index, 504, None, now);
            }
            (
                Hears::Ack(_) | Hears::Prack(_),
                Stage::Calling
                | Stage::Called
                | Stage::Answered
                | Stage::Up
                | Stage::Cancelling
                | Stage::Leaving
                | Stage::Over,
            ) => {}
        }
    }
}

/// Escapes what a number may not have in a URI's user part.
fn escape(number: &str) -> String {
    number.replace('#', "%23").replace(' ', "%20")
}
