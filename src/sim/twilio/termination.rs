//! Calls from the PBX to the PSTN: how they ring and answer.
//!
//! Owns: what the far end does until somebody answers.
//! Never: judges whether it may be called (`admission` does), nor touches a call that is up.

use super::{
    super::{
        agent::{Asked, Hears, finish},
        talk::Talk,
    },
    ALLOW, At, FarEnd, GATEWAY, Ring, Stage, Step, Then, Twilio,
    admission::Refused,
    far_end,
    memory::called,
};
use crate::{
    sip::{Builder, HeaderName, default_reason},
    transaction::ServerId,
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What Twilio says at once.
const TRYING: &str = "trying -- your call is important to us";
/// How long anything rings.
const PATIENCE: Duration = Duration::from_secs(180);
/// From 183 to the next one, where the far end's media moves.
const MOVES_AFTER: Duration = Duration::from_millis(700);

impl Twilio {
    /// Takes a call to the PSTN.
    pub(super) fn take_invite(&mut self, asked: &Asked, now: Instant) {
        let mut trying = self.agent.reply(asked, (100, TRYING), None);
        trying.header(HeaderName::Server, GATEWAY);
        self.agent.respond(asked.tx, 100, trying.finish(), now);
        if let Err(refused) = self.check_first(asked) {
            return self.refuse(asked, None, refused, now);
        }
        if self.setup.account.credentials.is_some() && !self.has_credentials(&asked.message) {
            return self.challenge(asked, now);
        }
        let checked = self.check_digest(&asked.message).and_then(|()| self.check(asked, now));
        if let Err(refused) = checked {
            return self.refuse(asked, None, refused, now);
        }
        let number = called(&asked.message).to_owned();
        let mut talk = Talk::incoming(&asked.message, &mut self.agent, asked.flow);
        if asked.flow.transport.is_reliable() {
            talk.flow = asked.flow;
        }
        let index = self.open_call(talk, Stage::Trying, &number);
        let call = &mut self.calls[index];
        call.far_end = far_end(&number);
        call.invite = Some(asked.clone());
        // What the proxies recorded is what the PBX must send back to them.
        call.talk.routes = vec![];
        if call.sound.is_some() {
            self.begin(index, now);
        }
    }

    /// The call has its media address: it takes its course.
    pub(super) fn begin(&mut self, index: usize, now: Instant) {
        let (number, far_end) = (self.calls[index].number, self.calls[index].far_end);
        let ring_at = now + self.setup.timing.post_dial;
        let answer_at = ring_at + self.setup.timing.ring;
        self.plan(now + PATIENCE, number, Step::GiveUp);
        match far_end {
            FarEnd::Answers { ring: Ring::Not, .. } => self.plan(ring_at, number, Step::Answer),
            FarEnd::Answers { ring, .. } => {
                self.plan(ring_at, number, Step::Ring);
                if ring == Ring::MovingMedia {
                    self.plan(ring_at + MOVES_AFTER, number, Step::RingElsewhere);
                }
                self.plan(answer_at, number, Step::Answer);
            }
            FarEnd::RingsForever => self.plan(ring_at, number, Step::Ring),
            FarEnd::Refuses { at: At::Later, .. } => {
                self.plan(ring_at, number, Step::Ring);
                self.plan(answer_at, number, Step::Refuse);
            }
            FarEnd::Refuses { .. } | FarEnd::Silent => self.refuse_as_planned(index, now),
        }
    }

    pub(super) fn refuse_as_planned(&mut self, index: usize, now: Instant) {
        let call = &self.calls[index];
        let (far_end, talk) = (call.far_end, call.talk.clone());
        if let (FarEnd::Refuses { status, reason, error, .. }, Some(invite)) =
            (far_end, call.invite.clone())
        {
            let refused = Refused { status, reason, error, because: None };
            self.refuse(&invite, Some(&talk), refused, now);
            self.end_call(index, status);
        }
    }

    /// Has rung long enough.
    pub(super) fn give_up(&mut self, index: usize, now: Instant) {
        let talk = self.calls[index].talk.clone();
        if let Some(invite) = self.calls[index].invite.clone() {
            self.agent.refuse(&invite, 480, Some(&talk), now);
        }
        self.end_call(index, 480);
    }

    /// Rings: 183 with early media, or 180.
    pub(super) fn ring(&mut self, index: usize, now: Instant) {
        let is_plain =
            matches!(self.calls[index].far_end, FarEnd::Answers { ring: Ring::Plain, .. });
        let status = if is_plain { 180 } else { 183 };
        self.progress(index, status, now);
    }

    /// Rings on, with media from another place.
    pub(super) fn ring_elsewhere(&mut self, index: usize, now: Instant) {
        if let Some(sound) = &mut self.calls[index].sound {
            let port = sound.rtp.port().wrapping_add(1000);
            sound.rtp = SocketAddr::new(sound.rtp.ip(), port);
        }
        self.change_stream(index);
        self.progress(index, 183, now);
    }

    fn progress(&mut self, index: usize, status: u16, now: Instant) {
        let Some(invite) = self.calls[index].invite.clone() else { return };
        let sdp = match (status, invite.message.sdp(), &mut self.calls[index].sound) {
            (183, Some(offer), Some(sound)) => sound.answer(&offer),
            (_, _, _) => None,
        };
        let builder = self.answer_head(index, &invite, (status, default_reason(status)));
        self.agent.respond(invite.tx, status, finish(builder, sdp.as_deref()), now);
        if sdp.is_some() {
            self.start_media(index);
        }
    }

    /// Answers: 200.
    pub(super) fn answer(&mut self, index: usize, now: Instant) {
        let call = &mut self.calls[index];
        let (Some(invite), Some(sound)) = (call.invite.clone(), &mut call.sound) else { return };
        let sdp = match invite.message.sdp() {
            Some(offer) => sound.answer(&offer),
            None => {
                call.answer_in_ack = true;
                Some(sound.offer())
            }
        };
        call.stage = Stage::Answered;
        let call_id = call.talk.call_id.clone();
        let builder = self.answer_head(index, &invite, (200, "OK"));
        let bytes = finish(builder, sdp.as_deref());
        let hears = Hears::Ack(invite.message.cseq().number);
        self.agent.respond_until((invite.tx, &call_id), hears, (200, bytes), now);
        self.change_stream(index);
        self.start_media(index);
    }

    /// Starts an answer as it comes out of the proxies: two Record-Routes, a private Contact.
    fn answer_head(&mut self, index: usize, invite: &Asked, status: (u16, &str)) -> Builder {
        let call = &self.calls[index];
        let (talk, party) = (call.talk.clone(), call.party.clone());
        let moves = matches!(call.far_end, FarEnd::Answers { then: Then::Moves, .. });
        let mut builder = self.agent.reply(invite, status, Some(&talk));
        let [near, far] = self.routes(index);
        builder.header(HeaderName::RecordRoute, far).header(HeaderName::RecordRoute, near);
        let mut contact = self.contact(&party);
        if moves && status.0 == 200 {
            contact = self.moved_contact(&party);
        }
        builder
            .header(HeaderName::Contact, contact)
            .header(HeaderName::Allow, ALLOW)
            .header(HeaderName::Server, GATEWAY);
        builder
    }

    /// Takes the CANCEL of a call to the PSTN.
    pub(super) fn take_cancel(&mut self, tx: ServerId, now: Instant) {
        let is_it = |invite: &Option<Asked>| invite.as_ref().is_some_and(|asked| asked.tx == tx);
        let known = self.calls.iter().position(|call| is_it(&call.invite));
        let Some(index) = known.filter(|index| self.calls[*index].stage == Stage::Trying) else {
            return;
        };
        let talk = self.calls[index].talk.clone();
        if let Some(invite) = self.calls[index].invite.clone() {
            self.agent.refuse(&invite, 487, Some(&talk), now);
        }
        self.end_call(index, 487);
    }
}
