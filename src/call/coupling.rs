//! What one leg's media means for the other: early media, answers, holds, re-offers, digits.
//!
//! Owns: whose answer an outstanding offer waits for.
//! Never: decides whom to call.

use super::{Call, Ender, Phase, leg::Stage, wire::Wire};
use crate::{
    ids::LegId,
    media,
    sdp::{self, Description, Direction},
};

/// An offer passed from one leg to the other.
#[derive(Debug)]
pub(super) struct Relayed {
    from: LegId,
    to: LegId,
    offer: Description,
}

impl Call {
    /// Returns the leg at the other end of this one, where there is a connection.
    fn other(&self, leg: LegId) -> Option<LegId> {
        if leg == self.caller { self.peer } else { Some(self.caller) }
            .filter(|other| self.legs.contains_key(other))
    }

    /// Aims both legs' media and joins them, as far as both have agreed on something.
    pub(super) fn connect(&mut self, wire: &mut Wire<'_>) {
        let Some(peer) = self.peer else { return self.aim(self.caller, wire) };
        self.aim(self.caller, wire);
        self.aim(peer, wire);
        let (Some(a), Some(b)) = (self.legs.get(&self.caller), self.legs.get(&peer)) else {
            return;
        };
        let (Some(from), Some(to)) = (a.media.agreed(), b.media.agreed()) else { return };
        let held = a.media.is_held() || b.media.is_held();
        self.draft.codecs(from, to);
        let (a_to_b, b_to_a) = (sdp::path(from, to), sdp::path(to, from));
        let carries_audio = carries(&b_to_a, to) && carries(&a_to_b, from);
        wire.media(
            self.id,
            media::Command::Bridge {
                a: self.caller,
                b: peer,
                a_to_b: super::negotiation::path_map(&a_to_b),
                b_to_a: super::negotiation::path_map(&b_to_a),
            },
        );
        for leg in [self.caller, peer] {
            wire.media(self.id, media::Command::Hold { leg, on: held });
        }
        if !carries_audio && self.phase == Phase::Talking && self.reoffer.is_none() {
            self.reoffer = Some(self.caller);
            self.retry_reoffer(wire);
        }
    }

    fn aim(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        let Some(found) = self.legs.get(&leg) else { return };
        if let Some(agreed) = found.media.agreed() {
            self.draft.encrypted(leg == self.caller, agreed);
        }
        if let Some(command) = found.media.aim(leg, found.latch(), found.signals_from()) {
            wire.media(self.id, command);
        }
    }

    /// The called peer's early answer reaches the caller's ears.
    pub(super) fn early_media(
        &mut self,
        leg: LegId,
        sdp: &Description,
        wire: &mut Wire<'_>,
    ) -> Option<bytes::Bytes> {
        let callee = self.legs.get_mut(&leg)?;
        callee.media.accept_answer(sdp, false).ok()?;
        self.peer = Some(leg);
        let answer = self.answer_caller_offer(leg);
        self.connect(wire);
        answer
    }

    /// Makes our answer to the caller's INVITE, the first time; later ones must not differ.
    pub(super) fn answer_caller_offer(&mut self, leg: LegId) -> Option<bytes::Bytes> {
        let offer = self.caller_offer.as_ref()?;
        let (caller, callee) = self.legs.get_mut_beside(&self.caller, &leg)?;
        let agreed = callee.media.agreed()?;
        if caller.media.agreed().is_some() {
            return caller.media.last_said();
        }
        caller.media.answer_from(offer, agreed).ok()
    }

    /// The caller acknowledged our 200; with a delayed offer its ACK carries the answer.
    pub(super) fn caller_acked(&mut self, sdp: Option<Description>, wire: &mut Wire<'_>) {
        if self.phase == Phase::Talking {
            self.legs.values_mut().for_each(|leg| leg.forget_invite(wire));
        }
        if self.caller_offer.is_some() {
            return;
        }
        let Some(caller) = self.legs.get_mut(&self.caller) else { return };
        let accepted = sdp.is_some_and(|sdp| caller.media.accept_answer(&sdp, true).is_ok());
        if accepted {
            self.connect(wire);
            self.resume_program(wire);
        } else {
            self.end(Ender::Us, 488, Some("SIP;cause=488;text=\"No answer in ACK\""), wire);
        }
    }

    /// One leg offers new media. A mere refresh or a new address is answered here; anything else is
    /// offered to the other leg first.
    pub(super) fn offered(&mut self, leg: LegId, sdp: Description, wire: &mut Wire<'_>) {
        let other = self.other(leg).filter(|_| self.phase == Phase::Talking);
        let Some(other) = other else { return self.answer_here(leg, &sdp, wire) };
        if self.legs.get(&leg).is_some_and(|found| found.media.is_refresh(&sdp)) {
            return self.answer_here(leg, &sdp, wire);
        }
        let offer = self.legs.get_mut(&other).map(|found| found.media.offer_from(&sdp));
        let Some(Ok(offer)) = offer else { return self.refuse_offer(leg, 488, wire) };
        let sent = self.legs.get_mut(&other).is_some_and(|found| found.offer(offer, wire));
        if sent {
            self.relayed = Some(Relayed { from: leg, to: other, offer: sdp });
        } else {
            self.refuse_offer(leg, 491, wire);
        }
    }

    /// Answers an offer with what the other leg has agreed on already, or alone.
    fn answer_here(&mut self, leg: LegId, sdp: &Description, wire: &mut Wire<'_>) {
        let other =
            self.other(leg).and_then(|other| self.legs.get(&other)?.media.agreed().cloned());
        let Some(found) = self.legs.get_mut(&leg) else { return };
        let answer = match &other {
            Some(agreed) => found.media.answer_from(sdp, agreed),
            None => found.media.answer_alone(sdp),
        };
        match answer {
            Ok(answer) => {
                found.answer_offer(&answer, wire);
                self.connect(wire);
            }
            Err(_) => self.refuse_offer(leg, 488, wire),
        }
    }

    fn refuse_offer(&mut self, leg: LegId, status: u16, wire: &mut Wire<'_>) {
        if let Some(found) = self.legs.get_mut(&leg) {
            found.refuse_offer(status, wire);
        }
    }

    /// One leg sent a re-INVITE without an offer: we make one from what the other leg has.
    pub(super) fn offer_wanted(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        let theirs =
            self.other(leg).and_then(|other| self.legs.get(&other)?.media.theirs().cloned());
        let Some(found) = self.legs.get_mut(&leg) else { return };
        let offer = match &theirs {
            Some(theirs) => found.media.offer_from(theirs),
            None => found.media.fresh_offer(Direction::SendRecv),
        };
        match offer {
            Ok(offer) => found.answer_offer(&offer, wire),
            Err(_) => self.refuse_offer(leg, 488, wire),
        }
    }

    /// The answer to that offer came in the ACK. Where it changes the direction, the other leg is
    /// told.
    pub(super) fn offer_acked(&mut self, leg: LegId, sdp: &Description, wire: &mut Wire<'_>) {
        let Some(found) = self.legs.get_mut(&leg) else { return };
        let before = found.media.agreed().map(|agreed| agreed.direction);
        if found.media.accept_answer(sdp, true).is_err() {
            return self.end(
                Ender::Us,
                488,
                Some("SIP;cause=488;text=\"Answer unreadable\""),
                wire,
            );
        }
        let after = found.media.agreed().map(|agreed| agreed.direction);
        self.connect(wire);
        if before != after && self.phase == Phase::Talking {
            self.reoffer = self.other(leg);
            self.retry_reoffer(wire);
        }
    }

    /// One leg accepted our offer: its answer goes to the leg that asked.
    pub(super) fn offer_answered(
        &mut self,
        leg: LegId,
        sdp: Option<Description>,
        wire: &mut Wire<'_>,
    ) {
        let accepted = sdp.is_some_and(|sdp| {
            self.legs
                .get_mut(&leg)
                .is_some_and(|found| found.media.accept_answer(&sdp, true).is_ok())
        });
        if !accepted {
            return self.end(
                Ender::Us,
                488,
                Some("SIP;cause=488;text=\"Answer unreadable\""),
                wire,
            );
        }
        let Some(relayed) = self.relayed.take_if(|relayed| relayed.to == leg) else {
            return self.connect(wire);
        };
        let agreed = self.legs.get(&leg).and_then(|found| found.media.agreed().cloned());
        let (Some(agreed), Some(from)) = (agreed, self.legs.get_mut(&relayed.from)) else { return };
        match from.media.answer_from(&relayed.offer, &agreed) {
            Ok(answer) => {
                from.answer_offer(&answer, wire);
                self.connect(wire);
            }
            Err(_) => {
                self.refuse_offer(relayed.from, 488, wire);
                self.reoffer = Some(leg);
                self.retry_reoffer(wire);
            }
        }
    }

    /// One leg refused our offer: so do we, and everything stays as it was.
    pub(super) fn offer_refused(&mut self, leg: LegId, status: u16, wire: &mut Wire<'_>) {
        if let Some(found) = self.legs.get_mut(&leg) {
            found.media.forget_offer();
        }
        match self.relayed.take_if(|relayed| relayed.to == leg) {
            Some(relayed) => {
                let status = if matches!(status, 401 | 407) { 488 } else { status };
                self.refuse_offer(relayed.from, status, wire);
            }
            None if status == 491 => self.reoffer = Some(leg),
            None => {}
        }
    }

    /// Offers one leg what the other has, once the leg may be offered anything.
    pub(super) fn retry_reoffer(&mut self, wire: &mut Wire<'_>) {
        let Some(leg) = self.reoffer.filter(|_| self.phase == Phase::Talking) else { return };
        let theirs =
            self.other(leg).and_then(|other| self.legs.get(&other)?.media.theirs().cloned());
        let (Some(theirs), Some(found)) = (theirs, self.legs.get_mut(&leg)) else { return };
        let may = found.stage() == Stage::Up && found.may_offer(wire.now);
        if !may {
            return;
        }
        self.reoffer = None;
        match found.media.offer_from(&theirs) {
            Ok(offer) => {
                let sent = found.offer(offer, wire);
                debug_assert!(sent, "the leg said it might be offered");
            }
            Err(_) => {
                self.end(Ender::Us, 488, Some("SIP;cause=488;text=\"No common codec\""), wire);
            }
        }
    }

    /// Turns a digit sent by INFO into RFC 4733 events towards the other leg.
    pub(super) fn pass_digit(
        &self,
        to: Option<LegId>,
        digit: char,
        duration_ms: u16,
        wire: &mut Wire<'_>,
    ) {
        if let Some(leg) = to {
            wire.media(self.id, media::Command::Dtmf { leg, digit, duration_ms });
        }
    }
}

/// Returns whether what this leg sends as its codec reaches the other.
fn carries(path: &sdp::Path, from: &sdp::Agreed) -> bool {
    from.accepts
        .iter()
        .any(|format| format.codec.is_speech() && path.get(format.payload_type).is_some())
}
