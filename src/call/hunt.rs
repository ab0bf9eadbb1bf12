//! Calling targets: groups one after the other, the targets of a group side by side.
//!
//! Owns: who is being rung, until when, and the best refusal so far (RFC 3261 16.7).
//! Never: builds an INVITE; `targets` makes the legs.

use super::{
    Call, Ender, Phase,
    leaving::{Asker, Queued},
    leg::{By, Refused, Stage},
    wire::Wire,
};
use crate::{
    dialplan::{Dial, Target},
    guard,
    ids::LegId,
    media,
    sdp::Description,
    sip::{HeaderName, Uri, default_reason},
};
use std::{collections::BTreeSet, sync::Arc, time::Instant};

/// How many redirections one call follows.
const REDIRECTS_MAX: u8 = 5;
/// The token of our ringing, which no prompt of the program has.
const RINGBACK: u64 = 0;
/// What the losing forks are told (RFC 3326).
const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// One `dial` step.
#[derive(Debug)]
pub(super) struct Hunt {
    dial: Arc<Dial>,
    next_group: usize,
    ringing: BTreeSet<LegId>,
    ring_until: Option<Instant>,
    best: Option<Refused>,
    redirects: u8,
    /// Targets that wait for their turn at a trunk.
    pub(super) queued: Vec<Queued>,
    /// A number that a carrier has refused in a way that no other trunk is asked for.
    settled: Option<Box<str>>,
}

impl Hunt {
    pub(super) fn new(dial: Arc<Dial>) -> Self {
        let (ringing, best) = (BTreeSet::new(), None);
        let (queued, settled) = (vec![], None);
        let ring_until = None;
        Self { dial, next_group: 0, ringing, ring_until, best, redirects: 0, queued, settled }
    }

    /// Returns whether there is nobody to ring after the group that rings now.
    pub(super) fn is_at_last_group(&self) -> bool {
        self.next_group >= self.dial.groups.len()
    }

    /// The group's time begins, or begins anew with whoever joins it.
    pub(super) fn ring_from(&mut self, now: Instant) {
        self.ring_until = (!self.ringing.is_empty()).then(|| now + self.dial.ring);
    }

    fn has_nobody(&self) -> bool {
        self.ringing.is_empty() && self.queued.is_empty()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ring_until
    }

    /// Returns whether this leg is among those that ring.
    pub(super) fn has(&self, leg: LegId) -> bool {
        self.ringing.contains(&leg)
    }

    /// Takes the next group, without those that only try a settled number elsewhere. Returns its place among
    /// the groups.
    fn take_group(&mut self) -> Option<usize> {
        let is_settled = |target: &Target| match target {
            Target::Trunk { number, .. } => self.settled.as_ref() == Some(number),
            Target::User(_) | Target::Uri(_) => false,
        };
        let rest = self.dial.groups.get(self.next_group..)?;
        let skipped = rest.iter().position(|group| !group.iter().all(is_settled))?;
        let group = self.next_group.saturating_add(skipped);
        self.next_group = group.saturating_add(1);
        Some(group)
    }

    /// Returns whether anything follows where nobody answers.
    fn has_more(&self) -> bool {
        let on = &self.dial.on;
        self.next_group < self.dial.groups.len()
            || self.ringing.len() > 1
            || !self.queued.is_empty()
            || !(on.no_answer.is_empty() && on.failed.is_empty())
    }

    /// Keeps the refusal that tells the caller most: 6xx before 4xx, a person's before the network's.
    fn note(&mut self, refused: Refused) {
        if self.best.as_ref().is_none_or(|best| rank(&refused) < rank(best)) {
            self.best = Some(refused);
        }
    }
}

/// Lower tells more.
fn rank(refused: &Refused) -> u8 {
    match refused.status {
        600..=699 => 0,
        486 => 1,
        480 | 404 | 403 => 2,
        408 => 4,
        500..=599 => 5,
        _ => 3,
    }
}

/// How a hunt failed, for the `on` branches of the rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Failure {
    Busy,
    NoAnswer,
    Failed,
}

fn failure(refused: &Refused) -> Failure {
    match (refused.status, refused.by) {
        (486 | 600 | 603, _) => Failure::Busy,
        (480 | 487, By::Peer) | (408, By::Silence) => Failure::NoAnswer,
        _ => Failure::Failed,
    }
}

impl Call {
    /// Rings the next group that has anybody in it; ends the hunt where there is none.
    pub(super) fn next_group(&mut self, wire: &mut Wire<'_>) {
        loop {
            let Some(hunt) = self.program.hunt() else { return };
            let Some(group) = hunt.take_group() else { return self.hunt_failed(wire) };
            let dial = hunt.dial.clone();
            let asker = Asker::new(self.identity.phone.clone());
            for target in dial.groups.get(group).into_iter().flatten() {
                match self.legs_for(target, &dial, &asker, wire) {
                    Ok(legs) => legs.into_iter().for_each(|leg| self.ring(leg, wire)),
                    Err(refused) => self.target_refused(None, refused, wire),
                }
            }
            let Some(hunt) = self.program.hunt() else { return };
            hunt.ring_from(wire.now);
            if !hunt.has_nobody() {
                if hunt.ringing.is_empty() {
                    self.tell_queued(wire);
                }
                return;
            }
        }
    }

    /// Adds a leg to those that ring.
    pub(super) fn ring(&mut self, leg: super::Leg, wire: &mut Wire<'_>) {
        let id = leg.id();
        self.draft.tried(&leg);
        self.legs.insert(id, Box::new(leg));
        if let Some(hunt) = self.program.hunt() {
            hunt.ringing.insert(id);
        }
        self.open_media(id, wire);
    }

    /// Lets a leg ring in the place of one that has failed. The time it may ring begins anew, unless
    /// others ring beside it.
    pub(super) fn replace(&mut self, failed: LegId, leg: super::Leg, wire: &mut Wire<'_>) {
        if self.peer == Some(failed) {
            self.peer = None;
        }
        self.ring(leg, wire);
        if let Some(hunt) = self.program.hunt() {
            hunt.ringing.remove(&failed);
            if hunt.ringing.len() == 1 {
                hunt.ring_from(wire.now);
            }
        }
    }

    /// Returns whether anything follows where nobody answers.
    pub(super) fn has_alternative(&mut self) -> bool {
        self.program.hunt().is_some_and(|hunt| hunt.has_more())
    }

    /// The leg's port is open and its peer known: send the INVITE.
    pub(super) fn send_invite(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        let from = match &self.caller_offer {
            Some(offer) => Some(offer.clone()),
            None => self.legs.get(&self.caller).and_then(|caller| caller.media.theirs().cloned()),
        };
        let Some(found) = self.legs.get_mut(&leg).filter(|l| l.stage() == Stage::Opening) else {
            return;
        };
        let has_room = found
            .profile
            .as_trunk()
            .is_none_or(|trunk| wire.trunks.claim(&trunk.name, leg, found.profile.calls_max));
        if !has_room {
            return self.drop_opening(leg, Refused::trunk_full(), wire);
        }
        let offer = match &from {
            Some(theirs) => found.media.offer_from(theirs),
            None => found.media.fresh_offer(crate::sdp::Direction::SendRecv),
        };
        match offer {
            Ok(offer) => {
                found.invite(offer, wire);
                self.note_attempt(leg, wire);
            }
            Err(_) => {
                self.draft.no_codec();
                self.drop_opening(leg, Refused::ours(By::Us, 488, default_reason(488)), wire);
            }
        }
    }

    /// A leg that was never called cannot be.
    pub(super) fn drop_opening(&mut self, leg: LegId, refused: Refused, wire: &mut Wire<'_>) {
        self.with_leg(leg, wire, |leg, wire, out| {
            out.push(super::LegEvent::Refused(refused));
            leg.leave(wire, out);
        });
    }

    /// A callee rings, or sends early media.
    pub(super) fn progress(
        &mut self,
        leg: LegId,
        status: u16,
        sdp: Option<Description>,
        wire: &mut Wire<'_>,
    ) {
        let is_ringing = self.program.hunt().is_some_and(|hunt| hunt.ringing.contains(&leg));
        if self.phase != Phase::Running || !is_ringing {
            return;
        }
        self.draft.ringing(wire);
        let answer = sdp.and_then(|sdp| self.early_media(leg, &sdp, wire));
        if self.caller_is_up() {
            return self.ring_back(answer.is_some(), wire);
        }
        let Some(caller) = self.legs.get_mut(&self.caller) else { return };
        let status = match (status, &answer) {
            (180..=182, None) => status,
            (180, Some(_)) => 180,
            _ => 183,
        };
        caller.progress(status, answer.as_ref(), wire);
    }

    /// A caller that was answered before hears ringing from us, unless the callee rings itself.
    pub(super) fn ring_back(&self, has_early_media: bool, wire: &mut Wire<'_>) {
        if !has_early_media && self.peer.is_none() {
            let prompt = media::tone::ringback();
            let leg = self.caller;
            wire.media(self.id, media::Command::Play { leg, prompt, loops: true, token: RINGBACK });
        }
    }

    /// A callee answered: it wins, the others are told so, the caller gets its 200.
    pub(super) fn answered(&mut self, leg: LegId, sdp: Option<Description>, wire: &mut Wire<'_>) {
        let accepted = self.legs.get_mut(&leg).is_some_and(|found| match sdp {
            Some(sdp) => found.media.accept_answer(&sdp, true).is_ok(),
            // The answer came before, in a reliable 18x (RFC 6337 2.1), or in any 18x.
            None => found.media.confirm_answer(),
        });
        let is_ringing = self.program.hunt().is_some_and(|hunt| hunt.ringing.remove(&leg));
        if self.phase != Phase::Running || !is_ringing {
            return;
        }
        if !accepted {
            let refused = Refused::ours(By::Peer, 488, "Answer Without Usable Media");
            self.with_leg(leg, wire, |leg, wire, out| leg.end(488, Some(BAD_ANSWER), wire, out));
            return self.refused(leg, refused, wire);
        }
        self.peer = Some(leg);
        self.draft.attempt_answered(leg, wire);
        for loser in self.program.hunt().map(|h| std::mem::take(&mut h.ringing)).unwrap_or_default()
        {
            self.with_leg(loser, wire, |leg, wire, out| leg.end(480, Some(ELSEWHERE), wire, out));
        }
        self.program.stop();
        wire.watch.leave(self.id);
        self.answer_caller(leg, wire);
    }

    fn answer_caller(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        if !self.caller_is_up() {
            let sdp = match &self.caller_offer {
                Some(_) => self.answer_caller_offer(leg),
                None => self.offer_caller(leg),
            };
            let (Some(sdp), Some(caller)) = (sdp, self.legs.get_mut(&self.caller)) else {
                self.draft.no_codec();
                return self.end(Ender::Us, 488, Some(BAD_ANSWER), wire);
            };
            caller.answer(&sdp, wire);
        }
        wire.watch.answered(leg, wire.now);
        self.phase = Phase::Talking;
        self.draft.answered(wire);
        self.draft.log_answer();
        let limits = [leg, self.caller]
            .into_iter()
            .filter_map(|id| Some(self.legs.get(&id)?.profile.as_trunk()?.max_duration));
        self.ends_at = limits.min().map(|limit| wire.now + limit);
        self.connect(wire);
    }

    /// The caller left the offer to us: it gets what the callee has.
    fn offer_caller(&mut self, leg: LegId) -> Option<bytes::Bytes> {
        let theirs = self.legs.get(&leg)?.media.theirs()?.clone();
        self.legs.get_mut(&self.caller)?.media.offer_from(&theirs).ok()
    }

    /// A callee said no.
    pub(super) fn refused(&mut self, leg: LegId, refused: Refused, wire: &mut Wire<'_>) {
        if self.retry(leg, &refused, wire) {
            return;
        }
        self.target_refused(Some(leg), refused, wire);
        self.go_on_if_nobody(wire);
    }

    /// Rings the next group where nobody of this one is left.
    pub(super) fn go_on_if_nobody(&mut self, wire: &mut Wire<'_>) {
        let nobody = self.program.hunt().is_some_and(|hunt| hunt.has_nobody());
        if self.phase == Phase::Running && nobody {
            self.next_group(wire);
        }
    }

    pub(super) fn target_refused(
        &mut self,
        leg: Option<LegId>,
        refused: Refused,
        wire: &mut Wire<'_>,
    ) {
        let mut settled = None;
        let called = leg.and_then(|leg| self.legs.get(&leg)).filter(|_| !refused.is_trunk_full());
        if let Some(leg) = called {
            self.draft.attempt_refused(leg.id(), &refused, wire);
            self.draft.refused(leg, &refused);
            self.tell_trunk(leg, &refused, wire);
            settled = leg.settles(&refused).map(Into::into);
        } else {
            self.draft.not_tried(&refused);
        }
        if self.peer == leg && self.phase == Phase::Running {
            self.peer = None;
        }
        if let Some(hunt) = self.program.hunt() {
            if let Some(leg) = leg {
                hunt.ringing.remove(&leg);
            }
            hunt.settled = settled.or(hunt.settled.take());
            hunt.note(refused);
        }
    }

    /// A callee named others to call (RFC 3261 8.1.3.4): they ring in its place.
    ///
    /// Numbers of ours go through the dialplan in the redirecting user's own context, so that a phone
    /// reaches by forwarding what it may dial, and nothing else.
    pub(super) fn redirected(
        &mut self,
        leg: LegId,
        contacts: &[Box<str>],
        refused: Refused,
        wire: &mut Wire<'_>,
    ) {
        let Some(found) = self.legs.get(&leg) else { return };
        let user = found.profile.as_phone().cloned();
        let follow = self.program.hunt().is_some_and(|hunt| {
            hunt.redirects = hunt.redirects.saturating_add(1);
            hunt.redirects <= REDIRECTS_MAX && hunt.ringing.contains(&leg)
        });
        let mut legs = vec![];
        if let (true, Some(user)) = (follow, user) {
            for contact in contacts {
                legs.extend(self.legs_for_redirect(contact, &user, wire));
            }
        }
        for leg in legs {
            self.ring(leg, wire);
        }
        self.refused(leg, refused, wire);
    }

    /// The group has rung long enough.
    pub(super) fn ring_timeout(&mut self, wire: &mut Wire<'_>) {
        let Some(hunt) = self.program.hunt() else { return };
        hunt.ring_until = None;
        hunt.queued.clear();
        wire.watch.leave(self.id);
        hunt.note(Refused::ours(By::Silence, 408, "No Answer"));
        for leg in std::mem::take(&mut hunt.ringing) {
            if self.peer == Some(leg) {
                self.peer = None;
            }
            if let Some(found) = self.legs.get(&leg) {
                self.draft.rang_out(found, wire);
            }
            let reason = "SIP;cause=480;text=\"No answer\"";
            self.with_leg(leg, wire, |leg, wire, out| leg.end(480, Some(reason), wire, out));
        }
        self.next_group(wire);
    }

    /// Nobody answered: the rule's branch for it, or the best refusal.
    fn hunt_failed(&mut self, wire: &mut Wire<'_>) {
        let Some(hunt) = self.program.hunt() else { return };
        let best = hunt.best.take();
        let refused = best.unwrap_or_else(|| Refused::ours(By::Us, 480, default_reason(480)));
        let on = &hunt.dial.on;
        let steps = match failure(&refused) {
            Failure::Busy => &on.busy,
            Failure::NoAnswer => &on.no_answer,
            Failure::Failed => &on.failed,
        };
        let steps = steps.clone();
        if !steps.is_empty() {
            wire.media(self.id, media::Command::Stop { leg: self.caller });
            return self.branch(steps, wire);
        }
        let status = status_for_caller(&refused);
        let reason = refused.q850.clone();
        let phrase = match refused.by {
            By::Peer if status == refused.status => refused.reason.clone(),
            By::Us if refused.guard.is_some() => refused.reason.clone(),
            By::Peer | By::Silence | By::Transport | By::Us => default_reason(status).into(),
        };
        let ender = if refused.by == By::Peer { Ender::Callee } else { Ender::Us };
        let retry = refused.guard.as_ref().and_then(guard::Refusal::retry_after_s);
        let reasons = reason.iter().map(|reason| (HeaderName::Reason, reason.to_string()));
        let retries = retry.iter().map(|retry_s| (HeaderName::RetryAfter, retry_s.to_string()));
        let headers: Vec<_> = reasons.chain(retries).collect();
        if !self.caller_is_up() {
            self.draft.ended(ender, status, reason.as_deref(), wire);
            self.with_leg(self.caller, wire, |leg, wire, out| {
                leg.refuse(status, &phrase, &headers, wire, out);
            });
        }
        self.end(ender, status, reason.as_deref(), wire);
    }
}

/// What the caller hears of a callee's refusal. A challenge that is not the caller's to answer, and
/// redirections that were not followed, must not reach it.
fn status_for_caller(refused: &Refused) -> u16 {
    match (refused.status, refused.by) {
        (401 | 407, _) => 403,
        (300..=399, _) | (408, By::Silence) => 480,
        // What we did wrong towards the callee; a caller that mends it on its own side only repeats it.
        (420..=423 | 481 | 491, _) => 500,
        (status, _) => status,
    }
}

const BAD_ANSWER: &str = "SIP;cause=488;text=\"No usable answer\"";

/// Returns the user part of a redirection to one of our own numbers.
pub(super) fn own_number<'u>(uri: &Uri<'u>, is_ours: impl Fn(&str) -> bool) -> Option<&'u str> {
    uri.user.filter(|_| is_ours(uri.host))
}
