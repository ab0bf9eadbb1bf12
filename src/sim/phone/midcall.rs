//! What happens in a phone's calls while they are up: hold, resume, refresh, keys (RFC 3261 14,
//! RFC 3311, RFC 4028).
//!
//! Owns: re-INVITE, UPDATE and INFO, ours and theirs; glare.
//! Never: begins a call.

use super::{
    super::agent::{Asked, Hears, finish},
    Act, Habit, Heard, Phone,
    call::{Purpose, Stage},
};
use crate::{
    sdp::Direction,
    sip::{HeaderName, Message, Method, default_reason},
    transaction::ClientId,
};
use std::time::{Duration, Instant};

impl Phone {
    /// Changes a call that is up, unless it is changing already: then a little later.
    pub(super) fn change(&mut self, index: usize, act: Act, now: Instant) {
        let call = &self.calls[index];
        let is_changing = call.pending.values().any(|purpose| match purpose {
            Purpose::Reinvite | Purpose::Ask | Purpose::Update => true,
            Purpose::Invite | Purpose::Info | Purpose::Prack | Purpose::Bye => false,
        });
        if is_changing || call.answer_in_ack.is_some() {
            let serial = call.serial;
            return self.plan(now + Duration::from_millis(500), serial, act);
        }
        match act {
            Act::Hold => self.offer(index, Method::Invite, Direction::SendOnly, now),
            Act::HoldByUpdate => self.offer(index, Method::Update, Direction::SendOnly, now),
            Act::Resume => self.offer(index, Method::Invite, Direction::SendRecv, now),
            Act::Reinvite => self.send(index, (Method::Invite, Purpose::Ask), None, now),
            Act::Refresh if self.has(Habit::LacksUpdate) => {
                let wants = self.calls[index].sound.wants;
                self.offer(index, Method::Invite, wants, now);
            }
            Act::Refresh => self.send(index, (Method::Update, Purpose::Update), None, now),
            Act::Press(key) => self.press(index, key, now),
            Act::Register
            | Act::Unregister
            | Act::UnregisterAll
            | Act::Call(_)
            | Act::Ring
            | Act::EndFork
            | Act::Progress
            | Act::Answer
            | Act::AnswerAgain
            | Act::Reject(_)
            | Act::Redirect(_)
            | Act::Cancel
            | Act::HangUp => {}
        }
    }

    fn offer(&mut self, index: usize, method: Method, wants: Direction, now: Instant) {
        let call = &mut self.calls[index];
        call.sound.wants = wants;
        let sdp = call.sound.offer();
        let purpose = if method == Method::Invite { Purpose::Reinvite } else { Purpose::Update };
        self.send(index, (method, purpose), Some(&sdp), now);
    }

    fn send(
        &mut self,
        index: usize,
        (method, purpose): (Method, Purpose),
        sdp: Option<&str>,
        now: Instant,
    ) {
        let session_s = self.setup.session_s;
        let call = &mut self.calls[index];
        let flow = call.talk.flow;
        let (mut builder, branch) = call.talk.request(method, &mut self.agent);
        if let Some(seconds) = session_s {
            let by = if self.calls[index].is_ours { "uac" } else { "uas" };
            builder.header(HeaderName::SessionExpires, format_args!("{seconds};refresher={by}"));
        }
        self.introduce(&mut builder);
        let bytes = finish(builder, sdp);
        let tx = self.agent.request(method, &branch, bytes, flow, now);
        self.calls[index].pending.insert(tx, purpose);
    }

    fn press(&mut self, index: usize, key: char, now: Instant) {
        let call = &mut self.calls[index];
        let flow = call.talk.flow;
        let (builder, branch) = call.talk.request(Method::Info, &mut self.agent);
        let body = format!("Signal={key}\r\nDuration=160\r\n");
        let bytes = builder.body("application/dtmf-relay", body.as_bytes());
        let tx = self.agent.request(Method::Info, &branch, bytes, flow, now);
        self.calls[index].pending.insert(tx, Purpose::Info);
    }

    /// Takes a request inside a call.
    pub(super) fn take_in_call(&mut self, index: usize, asked: &Asked, now: Instant) {
        let talk = self.calls[index].talk.clone();
        if !self.calls[index].talk.note(&asked.message) {
            return self.agent.refuse(asked, 500, Some(&talk), now);
        }
        match asked.message.method() {
            Method::Bye => self.take_bye(index, asked, now),
            Method::Invite | Method::Update => self.take_offer(index, asked, now),
            Method::Prack => {
                let rack = asked.message.header_str(HeaderName::RAck);
                let rseq = rack.and_then(|rack| rack.split(' ').next()?.parse().ok());
                let is_known = rseq.is_some_and(|rseq| {
                    self.agent.heard(asked.message.call_id(), Hears::Prack(rseq))
                });
                let status = if is_known { 200 } else { 481 };
                self.agent.refuse(asked, status, Some(&talk), now);
            }
            Method::Info | Method::Options => self.agent.refuse(asked, 200, Some(&talk), now),
            Method::Ack
            | Method::Cancel
            | Method::Message
            | Method::Notify
            | Method::Publish
            | Method::Refer
            | Method::Register
            | Method::Subscribe
            | Method::Other => self.agent.refuse(asked, 405, Some(&talk), now),
        }
    }

    fn take_bye(&mut self, index: usize, asked: &Asked, now: Instant) {
        let talk = self.calls[index].talk.clone();
        self.agent.refuse(asked, 200, Some(&talk), now);
        self.stop_asking(index, now);
        let call = &mut self.calls[index];
        let (serial, stage) = (call.serial, call.stage);
        // It may be the answer to a 200 whose ACK is lost for good.
        let cseq = call.invite.as_ref().map(|invite| invite.message.cseq().number);
        if let Some(cseq) = cseq {
            self.agent.heard(&talk.call_id, Hears::Ack(cseq));
        }
        match stage {
            Stage::Over | Stage::Leaving => {}
            Stage::Calling | Stage::Called | Stage::Answered | Stage::Up | Stage::Cancelling => {
                let reason = asked.message.header_str(HeaderName::Reason).map(|r| r.into());
                self.hear(Some(serial), Heard::HungUp(reason), now);
            }
        }
        if stage == Stage::Calling {
            // It may never hear the final response to its INVITE.
            self.take_back(index, now);
        }
        if stage != Stage::Leaving {
            self.calls[index].stage = Stage::Over;
        }
    }

    /// Takes a re-INVITE or UPDATE.
    fn take_offer(&mut self, index: usize, asked: &Asked, now: Instant) {
        let call = &mut self.calls[index];
        let (talk, serial) = (call.talk.clone(), call.serial);
        let is_invite = asked.message.method() == Method::Invite;
        let has_offer = asked.message.sdp().is_some() || is_invite;
        let collides = call.pending.values().any(|p| matches!(p, Purpose::Reinvite | Purpose::Ask));
        match call.stage {
            Stage::Up if collides && has_offer => {
                return self.agent.refuse(asked, 491, Some(&talk), now);
            }
            Stage::Up => {}
            Stage::Answered | Stage::Called | Stage::Calling | Stage::Cancelling => {
                return self.agent.refuse(asked, 500, Some(&talk), now);
            }
            Stage::Leaving | Stage::Over => {
                return self.agent.refuse(asked, 481, Some(&talk), now);
            }
        }
        if self.refuse_first(index, asked, now) {
            return;
        }
        let call = &mut self.calls[index];
        call.talk.retarget(&asked.message);
        let cseq = asked.message.cseq().number;
        let sdp = match asked.message.sdp() {
            Some(offer) => match call.sound.answer(&offer) {
                Some(answer) => Some(answer),
                None => return self.agent.refuse(asked, 488, Some(&talk), now),
            },
            None if is_invite => {
                call.answer_in_ack = Some(cseq);
                Some(call.sound.offer())
            }
            None => None,
        };
        let heard = match &sdp {
            Some(_) => Heard::Offered(call.sound.direction()),
            None => Heard::Refreshed,
        };
        let mut builder = self.agent.reply(asked, (200, default_reason(200)), Some(&talk));
        if let Some(expires) = asked.message.header_str(HeaderName::SessionExpires) {
            builder.header(HeaderName::SessionExpires, expires);
        }
        self.introduce(&mut builder);
        let bytes = finish(builder, sdp.as_deref());
        if is_invite {
            let key = (asked.tx, &*talk.call_id);
            self.agent.respond_until(key, Hears::Ack(cseq), (200, bytes), now);
        } else {
            self.agent.respond(asked.tx, 200, bytes, now);
        }
        self.hear(Some(serial), heard, now);
    }

    /// Refuses a change where that is our habit; returns whether it did.
    fn refuse_first(&mut self, index: usize, asked: &Asked, now: Instant) -> bool {
        let habit = self.setup.habits.iter().find_map(|habit| {
            if let Habit::RefusesChange { status, retry_after_s } = habit {
                Some((*status, *retry_after_s))
            } else {
                None
            }
        });
        let Some((status, retry_after_s)) = habit else { return false };
        if std::mem::replace(&mut self.calls[index].has_refused, true) {
            return false;
        }
        let talk = self.calls[index].talk.clone();
        let mut reply = self.agent.reply(asked, (status, default_reason(status)), Some(&talk));
        if let Some(seconds) = retry_after_s {
            reply.header(HeaderName::RetryAfter, seconds);
        }
        self.agent.respond(asked.tx, status, reply.finish(), now);
        true
    }

    /// Takes the final answer to a re-INVITE, UPDATE, INFO or PRACK of ours.
    pub(super) fn take_change(
        &mut self,
        index: usize,
        (tx, purpose): (ClientId, Purpose),
        response: &Message,
        now: Instant,
    ) {
        let call = &mut self.calls[index];
        let serial = call.serial;
        let status = response.status();
        if matches!(purpose, Purpose::Reinvite | Purpose::Ask) && status < 300 {
            self.acknowledge_change(index, (tx, purpose), response, now);
        }
        let call = &self.calls[index];
        let heard = match (purpose, status) {
            (Purpose::Prack, _) => return,
            (Purpose::Info, 200..300) => Heard::Pressed,
            (Purpose::Update, 200..300) if response.sdp().is_none() => {
                self.plan_refresh(serial, response, now);
                Heard::Refreshed
            }
            (_, 200..300) => {
                self.plan_refresh(serial, response, now);
                let call = &mut self.calls[index];
                if purpose == Purpose::Update
                    && let Some(answer) = response.sdp()
                {
                    call.sound.accept(&answer);
                }
                Heard::Changed(call.sound.direction())
            }
            // RFC 3261 14.1: later, the owner of the Call-ID the latest.
            (Purpose::Reinvite | Purpose::Ask | Purpose::Update, 491 | 500) => {
                let (least, spread) = if call.is_ours { (2100, 1900) } else { (0, 2000) };
                let wants = call.sound.wants;
                let wait = least + self.agent.entropy.below(spread);
                let again = if wants == Direction::SendOnly { Act::Hold } else { Act::Resume };
                self.plan(now + Duration::from_millis(wait), serial, again);
                Heard::OfferRefused(status)
            }
            (_, _) => Heard::OfferRefused(status),
        };
        self.hear(Some(serial), heard, now);
        if matches!(status, 408 | 481) && self.calls[index].stage == Stage::Up {
            self.calls[index].stage = Stage::Over;
        }
    }

    fn acknowledge_change(
        &mut self,
        index: usize,
        (tx, purpose): (ClientId, Purpose),
        response: &Message,
        now: Instant,
    ) {
        let call = &mut self.calls[index];
        let answer = match response.sdp() {
            Some(sdp) if purpose == Purpose::Ask => call.sound.answer(&sdp),
            Some(sdp) => {
                call.sound.accept(&sdp);
                None
            }
            None => None,
        };
        let ack = call.talk.ack(response.cseq().number, &mut self.agent);
        let (flow, tag) = (call.talk.flow, call.talk.remote_tag.clone());
        self.agent.acknowledge(tx, &tag, (flow, finish(ack, answer.as_deref())), now);
    }

    /// Refreshes the session once more, later, instead of what was planned.
    fn plan_refresh(&mut self, serial: u64, response: &Message, now: Instant) {
        let expires = response.header_str(HeaderName::SessionExpires);
        let seconds = expires.and_then(|e| e.split(';').next()?.trim().parse::<u64>().ok());
        if let Some(seconds) = seconds.filter(|_| !self.has(Habit::Forgets)) {
            self.plans.retain(|plan| plan.call != Some(serial) || plan.act != Act::Refresh);
            self.plan(now + Duration::from_secs(seconds / 2), serial, Act::Refresh);
        }
    }
}
