//! One call: a caller's leg, the legs it tries, and what couples them (RFC 3261 6, RFC 7092).
//!
//! Owns: the call's phase, its program, which two legs talk, what its CDR will say.
//! Never: builds a SIP message (a leg does) or touches a packet (`media` does).
#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used)]

mod attempts;
mod coupling;
mod headers;
mod hearing;
mod hunt;
mod incoming;
mod indialog;
mod leaving;
mod leg;
mod names;
mod negotiation;
mod outgoing;
mod profile;
mod program;
mod record;
mod targets;
mod termination;
mod wire;

pub use headers::Identity;
pub use indialog::ALLOW;
pub use leg::{By, Death, Leg, LegEvent, Refused, Stage};
pub use names::Names;
pub use profile::{Peer, Profile};
pub use record::Direction;
pub use wire::{Ask, Effect, Owner, Record, ResolveFor, Wire, advertised_ip, contact};

use crate::{
    config::Config,
    few::Few,
    ids::{CallId, Flow, LegId},
    locate::Located,
    media,
    observe::cdr::Cdr,
    sdp::Description,
    sip::Message,
    transaction::{ClientId, ServerId},
};
use coupling::Relayed;
use program::Program;
use record::Draft;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the last transactions and the media worker may take once a call is being released.
/// Timer F of the BYEs is 32 s; what is not gone by then is our bug.
const RELEASE_MAX: Duration = Duration::from_secs(40);

/// How long the record of a call that has ended waits for the last words: its BYEs' answers, and what
/// the media workers have measured.
const RECORD_WAITS: Duration = Duration::from_secs(2);

/// Where a call stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// The program runs: nothing yet, a hunt, a prompt.
    Running,
    /// The caller and one callee are connected.
    Talking,
    /// All legs were told to go.
    Releasing,
    /// All legs are gone; the shard forgets the call.
    Over,
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ender {
    /// The caller hung up or gave up.
    Caller,
    /// The callee hung up.
    Callee,
    /// The program, a limit, an operator or a failure did.
    Us,
}

/// A call.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    /// The configuration it began with; a reload does not change a running call.
    config: Arc<Config>,
    caller: LegId,
    /// The callee whose media the caller hears; the one that answered, once one has.
    peer: Option<LegId>,
    /// Each in a place of its own: they are large, and they move.
    legs: Few<LegId, Box<Leg>>,
    phase: Phase,
    program: Program,
    identity: Identity,
    /// The offer in the caller's INVITE, if it had one.
    caller_offer: Option<Description>,
    /// An offer of one leg's that the other is answering.
    relayed: Option<Relayed>,
    /// A leg that must be offered again once glare or its ACK allow.
    reoffer: Option<LegId>,
    ends_at: Option<Instant>,
    released_at: Option<Instant>,
    /// Legs whose media worker has not yet reported the end.
    media_open: Few<LegId, ()>,
    draft: Draft,
    /// The caller's INVITE.
    invite: Option<ServerId>,
}

impl Call {
    /// Creates the call of an admitted INVITE and opens the caller's media port; the program starts
    /// once that is open.
    pub fn new(
        id: CallId,
        caller: Leg,
        identity: Identity,
        opening: Opening,
        wire: &mut Wire<'_>,
    ) -> Self {
        let caller_offer = opening.offer;
        let draft = Draft::new(id, &caller, &identity, &opening.dialled, opening.direction, wire);
        let mut call = Self {
            id,
            config: wire.config.clone(),
            caller: caller.id(),
            peer: None,
            legs: Few::with_room(2),
            phase: Phase::Running,
            program: Program::new(opening.context, opening.dialled),
            identity,
            caller_offer,
            relayed: None,
            reoffer: None,
            ends_at: None,
            released_at: None,
            media_open: Few::with_room(2),
            draft,
            invite: caller.invite_tx(),
        };
        let leg = caller.id();
        call.legs.insert(leg, Box::new(caller));
        call.open_media(leg, wire);
        call
    }

    /// Returns its identifier.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Returns the transaction of the caller's INVITE.
    pub fn invite(&self) -> Option<ServerId> {
        self.invite
    }

    /// Returns where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns whether its caller waits for somebody to answer.
    pub fn is_ringing(&self) -> bool {
        let caller = self.legs.get(&self.caller).map(|leg| leg.stage());
        matches!(caller, Some(Stage::Opening | Stage::Ringing))
    }

    /// Returns a leg.
    pub fn leg(&self, leg: LegId) -> Option<&Leg> {
        self.legs.get(&leg).map(|leg| &**leg)
    }

    /// Returns its legs, the caller's first.
    pub fn legs(&self) -> impl Iterator<Item = &Leg> {
        let caller = self.legs.get(&self.caller);
        let others = self.legs.values().filter(|leg| leg.id() != self.caller);
        caller.into_iter().chain(others).map(|leg| &**leg)
    }

    /// Learns that a connection has closed.
    pub fn part(&mut self, flow: Flow) {
        for dialog in self.legs.values_mut().filter_map(|leg| leg.dialog.as_mut()) {
            dialog.part(flow);
        }
    }

    /// Returns what its CDR says so far.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// Takes a request inside one leg's dialog.
    pub fn on_request(
        &mut self,
        leg: LegId,
        (tx, request, flow): (ServerId, &Message, Flow),
        wire: &mut Wire<'_>,
    ) {
        self.with_leg(leg, wire, |leg, wire, out| leg.handle_request(tx, request, flow, wire, out));
    }

    /// Takes the CANCEL of the caller's INVITE.
    pub fn on_cancel(&mut self, leg: LegId, cancel: &Message, wire: &mut Wire<'_>) {
        self.with_leg(leg, wire, |leg, _, out| leg.handle_cancel(cancel, out));
    }

    /// Takes an ACK to a 2xx of one of our answers.
    pub fn on_ack(&mut self, leg: LegId, ack: &Message, wire: &mut Wire<'_>) {
        self.with_leg(leg, wire, |leg, wire, out| leg.handle_ack(ack, wire, out));
        self.retry_reoffer(wire);
    }

    /// Takes a response to a request of one leg's.
    pub fn on_response(
        &mut self,
        leg: LegId,
        (tx, response, flow): (ClientId, &Message, Flow),
        wire: &mut Wire<'_>,
    ) {
        self.with_leg(leg, wire, |leg, wire, out| {
            leg.handle_response(tx, response, flow, wire, out);
        });
    }

    /// A callee said its 2xx again; its ACK goes out again by itself.
    pub fn on_repeated_answer(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        if let Some(leg) = self.legs.get_mut(&leg) {
            leg.note_repeated_answer(wire.now);
        }
    }

    /// Takes the end of a client transaction without a final response.
    pub fn on_failure(&mut self, leg: LegId, tx: ClientId, by: By, wire: &mut Wire<'_>) {
        self.with_leg(leg, wire, |leg, wire, out| leg.handle_failure(tx, by, wire, out));
    }

    /// Takes where a leg's peer is.
    pub fn on_resolved(&mut self, leg: LegId, located: &Located, wire: &mut Wire<'_>) {
        let Some(found) = self.legs.get_mut(&leg).filter(|l| l.stage() == Stage::Opening) else {
            return;
        };
        match located.order(wire.entropy).first() {
            Some(flow) => {
                found.set_flow(*flow, wire);
                self.open_media(leg, wire);
            }
            None => self.drop_opening(leg, Refused::ours(By::Us, 503, "Host Not Found"), wire),
        }
    }

    /// Takes what a media worker reports of a leg.
    pub fn on_media(&mut self, event: media::Event, wire: &mut Wire<'_>) {
        match event {
            media::Event::Opened { leg, port } => self.media_opened(leg, port, wire),
            media::Event::OpenFailed { leg, refusal } => {
                self.media_open.remove(&leg);
                self.draft.no_port(refusal);
                if leg == self.caller {
                    self.end(Ender::Us, 503, Some("SIP;cause=503;text=\"No media port\""), wire);
                } else {
                    self.drop_opening(leg, Refused::ours(By::Us, 503, "No Media Port"), wire);
                }
            }
            media::Event::Played { leg, token } if leg == self.caller => self.played(token, wire),
            media::Event::Silent { leg } if self.phase != Phase::Releasing => {
                tracing::debug!(%leg, "media stopped");
                self.draft.media_timeout();
                self.end(Ender::Us, 408, Some("Q.850;cause=127;text=\"RTP timeout\""), wire);
            }
            media::Event::Unanswered { leg, to } => {
                tracing::warn!(%leg, %to, help = UNANSWERED_HELP, "media never answered");
            }
            media::Event::Closed { leg, quality } => {
                self.media_open.remove(&leg);
                self.draft.quality(leg == self.caller, Some(leg) == self.peer, &quality);
                self.finish_if_done();
            }
            media::Event::Played { .. }
            | media::Event::Silent { .. }
            | media::Event::FirstPacket { .. }
            | media::Event::Dtmf { .. } => {}
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let legs = self.legs.values().filter_map(|leg| leg.poll_timeout()).min();
        let reoffer = self.reoffer.and_then(|leg| self.legs.get(&leg)?.modify.poll_timeout());
        let released = self.released_at.map(|at| at + RELEASE_MAX);
        let record = self.record_at().filter(|_| !self.draft.is_recorded());
        let all = [legs, reoffer, released, record, self.ends_at, self.program.poll_timeout()];
        all.into_iter().flatten().min()
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, wire: &mut Wire<'_>) {
        let due: Vec<LegId> = self
            .legs
            .values()
            .filter(|leg| leg.poll_timeout().is_some_and(|at| at <= wire.now))
            .map(|leg| leg.id())
            .collect();
        for leg in due {
            self.with_leg(leg, wire, |leg, wire, out| leg.handle_timeout(wire, out));
        }
        if self.ends_at.is_some_and(|at| at <= wire.now) {
            self.ends_at = None;
            self.end(Ender::Us, 480, Some("Q.850;cause=31;text=\"Maximum duration\""), wire);
        }
        self.program_timeout(wire);
        self.retry_reoffer(wire);
        if self.released_at.is_some_and(|at| at + RELEASE_MAX <= wire.now) {
            tracing::error!(legs = self.legs.len(), "release incomplete");
            self.abandon(wire);
        }
    }

    /// Ends the call: refuses or hangs up every leg.
    ///
    /// `status` is what an unanswered caller hears; `reason` is a Reason header's value (RFC 3326).
    pub fn end(&mut self, by: Ender, status: u16, reason: Option<&str>, wire: &mut Wire<'_>) {
        if matches!(self.phase, Phase::Releasing | Phase::Over) {
            return;
        }
        self.draft.ended(by, status, reason, wire);
        self.phase = Phase::Releasing;
        self.released_at = Some(wire.now);
        self.ends_at = None;
        self.reoffer = None;
        self.relayed = None;
        self.program.stop();
        wire.watch.leave(self.id);
        for leg in self.legs.keys().copied().collect::<Vec<_>>() {
            self.with_leg(leg, wire, |leg, wire, out| leg.end(status, reason, wire, out));
            // Nobody speaks any more, however long its last transaction takes.
            let command = self.legs.get_mut(&leg).and_then(|found| found.media.close(leg));
            command.into_iter().for_each(|command| wire.media(self.id, command));
        }
        self.finish_if_done();
    }

    /// Runs one step of a leg, then everything that it reports.
    fn with_leg(
        &mut self,
        leg: LegId,
        wire: &mut Wire<'_>,
        step: impl FnOnce(&mut Leg, &mut Wire<'_>, &mut Vec<LegEvent>),
    ) {
        let mut events = vec![];
        if let Some(leg) = self.legs.get_mut(&leg) {
            let span = leg.span.clone();
            let _entered = span.enter();
            step(leg, wire, &mut events);
        }
        for event in events {
            if leg == self.caller {
                self.on_caller(event, wire);
            } else {
                self.on_callee(leg, event, wire);
            }
        }
    }

    fn on_caller(&mut self, event: LegEvent, wire: &mut Wire<'_>) {
        match event {
            LegEvent::Cancelled { reason } => {
                self.draft.cancelled();
                let reason = reason.as_deref().unwrap_or("SIP;cause=487;text=\"Caller cancelled\"");
                self.end(Ender::Caller, 487, Some(reason), wire);
            }
            LegEvent::Acked { sdp } => self.caller_acked(sdp, wire),
            LegEvent::HungUp { reason } => {
                self.end(Ender::Caller, 480, reason.as_deref().or(NORMAL), wire);
            }
            LegEvent::Dead(death) => self.leg_died(death, wire),
            LegEvent::Gone => self.leg_gone(self.caller, wire),
            LegEvent::Offered { sdp, .. } => self.offered(self.caller, sdp, wire),
            LegEvent::OfferWanted { .. } => self.offer_wanted(self.caller, wire),
            LegEvent::OfferAcked { sdp } => self.offer_acked(self.caller, &sdp, wire),
            LegEvent::OfferAnswered { sdp } => self.offer_answered(self.caller, sdp, wire),
            LegEvent::OfferRefused { status } => self.offer_refused(self.caller, status, wire),
            LegEvent::Digit { digit, duration_ms } => {
                self.pass_digit(self.peer, digit, duration_ms, wire);
            }
            // A caller does not answer our INVITE: there is none.
            LegEvent::Progress { .. }
            | LegEvent::Answered { .. }
            | LegEvent::Unheard
            | LegEvent::Refused(_)
            | LegEvent::Redirected { .. } => debug_assert!(false, "callee's event from caller"),
        }
    }

    fn on_callee(&mut self, leg: LegId, event: LegEvent, wire: &mut Wire<'_>) {
        let is_peer = self.peer == Some(leg);
        match event {
            LegEvent::Progress { status, sdp } => self.progress(leg, status, sdp, wire),
            LegEvent::Answered { sdp } => self.answered(leg, sdp, wire),
            LegEvent::Refused(refused) => self.refused(leg, refused, wire),
            LegEvent::Unheard => self.unheard(leg, wire),
            LegEvent::Redirected { contacts, refused } => {
                self.redirected(leg, &contacts, refused, wire);
            }
            LegEvent::HungUp { reason } if is_peer => {
                if let Some(leg) = self.legs.get(&leg) {
                    self.draft.dropped(leg, wire);
                }
                self.end(Ender::Callee, 480, reason.as_deref().or(NORMAL), wire);
            }
            LegEvent::Dead(death) if is_peer => self.leg_died(death, wire),
            LegEvent::Gone => self.leg_gone(leg, wire),
            LegEvent::Offered { sdp, .. } => self.offered(leg, sdp, wire),
            LegEvent::OfferWanted { .. } => self.offer_wanted(leg, wire),
            LegEvent::OfferAcked { sdp } => self.offer_acked(leg, &sdp, wire),
            LegEvent::OfferAnswered { sdp } => self.offer_answered(leg, sdp, wire),
            LegEvent::OfferRefused { status } => self.offer_refused(leg, status, wire),
            LegEvent::Digit { digit, duration_ms } if is_peer => {
                self.pass_digit(Some(self.caller), digit, duration_ms, wire);
            }
            // A callee that lost or was told to go: its own transactions end it.
            LegEvent::HungUp { .. } | LegEvent::Dead(_) | LegEvent::Digit { .. } => {}
            // BYE before it answered; its INVITE still gets its final response.
            LegEvent::Cancelled { .. } | LegEvent::Acked { .. } => {}
        }
    }

    fn leg_died(&mut self, death: Death, wire: &mut Wire<'_>) {
        let reason = match death {
            Death::NeverAcked => "SIP;cause=408;text=\"ACK missing\"",
            Death::SessionExpired => "SIP;cause=408;text=\"Session expired\"",
            Death::Forgotten => "SIP;cause=481;text=\"Dialog lost\"",
        };
        self.draft.died(death);
        self.end(Ender::Us, 480, Some(reason), wire);
    }

    /// Asks for a leg's media port, once its addresses are known.
    fn open_media(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        if let Some(command) = self.legs.get_mut(&leg).and_then(|found| found.media.open(leg)) {
            self.media_open.insert(leg, ());
            wire.media(self.id, command);
        }
    }

    fn media_opened(&mut self, leg: LegId, port: u16, wire: &mut Wire<'_>) {
        let Some(found) = self.legs.get_mut(&leg) else { return };
        found.media.opened(port);
        if self.phase != Phase::Running {
            return;
        }
        if leg == self.caller {
            self.start_program(wire);
        } else {
            self.send_invite(leg, wire);
        }
    }

    /// Gives a leg's port back, and forgets the leg.
    fn leg_gone(&mut self, leg: LegId, wire: &mut Wire<'_>) {
        let Some(mut gone) = self.legs.remove(&leg) else { return };
        self.draft.leg_gone(leg == self.caller, Some(leg) == self.peer, &gone);
        if let Some(command) = gone.media.close(leg) {
            wire.media(self.id, command);
        }
        self.release_trunk(&gone, wire);
        self.finish_if_done();
    }

    fn finish_if_done(&mut self) {
        let done =
            self.phase == Phase::Releasing && self.legs.is_empty() && self.media_open.is_empty();
        if done {
            self.phase = Phase::Over;
        }
    }

    /// Returns the record of a call that is over, or ended some time ago: a peer that vanished is told
    /// so for half a minute, which is nothing to the record. Once.
    pub fn record(&mut self, wire: &Wire<'_>) -> Option<Cdr> {
        if !self.is_to_record(wire.now) {
            return None;
        }
        let peer = self.peer.and_then(|peer| self.legs.get(&peer));
        peer.into_iter().for_each(|peer| self.draft.tried(peer));
        Some(self.draft.finish(self.phase == Phase::Over, wire))
    }

    /// Returns whether [`Self::record`] has one to return.
    pub fn is_to_record(&self, now: Instant) -> bool {
        let is_due = self.phase == Phase::Over || self.record_at().is_some_and(|at| at <= now);
        is_due && !self.draft.is_recorded()
    }

    /// Returns whether there is something that the store should know should nobody be there at the
    /// call's end; once for each such thing.
    pub fn has_news(&mut self) -> bool {
        match self.phase {
            Phase::Running | Phase::Talking => self.draft.has_news(),
            Phase::Releasing | Phase::Over => false,
        }
    }

    /// Returns what is known of a call that goes on; `None` once its end has begun.
    pub fn standing(&self) -> Option<Cdr> {
        match self.phase {
            Phase::Running | Phase::Talking => Some(self.draft.cdr().clone()),
            Phase::Releasing | Phase::Over => None,
        }
    }

    fn record_at(&self) -> Option<Instant> {
        self.released_at.map(|at| at + RECORD_WAITS)
    }

    /// Ends the call after one of its steps panicked: our bug. Its peers are told, as far as what is
    /// left of the call can do that.
    pub fn fail(&mut self, wire: &mut Wire<'_>) {
        self.draft.abandoned(wire);
        match self.phase {
            Phase::Running | Phase::Talking => {
                self.end(Ender::Us, 500, Some("SIP;cause=500;text=\"Internal error\""), wire);
            }
            Phase::Releasing | Phase::Over => self.abandon(wire),
        }
    }

    /// Forgets everything at once. Used where even the end of this call panicked, or hangs: our bug.
    pub fn abandon(&mut self, wire: &mut Wire<'_>) {
        self.cut(wire);
        self.draft.abandoned(wire);
    }

    /// Forgets everything at once: there is no time to wait for the peers.
    pub fn cut(&mut self, wire: &mut Wire<'_>) {
        let mut out = vec![];
        for (id, mut leg) in std::mem::take(&mut self.legs) {
            if leg.stage() == Stage::Ringing {
                leg.end(500, None, wire, &mut out);
            }
            leg.leave(wire, &mut out);
            self.release_trunk(&leg, wire);
            if let Some(command) = leg.media.close(id) {
                wire.media(self.id, command);
            }
        }
        wire.watch.leave(self.id);
        self.phase = Phase::Over;
    }
}

/// What to do where media goes somewhere from which nothing comes.
const UNANSWERED_HELP: &str = "the phone's session description names an address that is not its own: behind \
    NAT, let it send; a gateway with media elsewhere must send RTP or RTCP within `[rtp] unanswered`";
/// The Reason of an ordinary end (Q.850 cause 16).
const NORMAL: Option<&str> = Some("Q.850;cause=16;text=\"Normal call clearing\"");

/// What admission has found out about a new call.
#[derive(Debug)]
pub struct Opening {
    /// Where its number is looked up.
    pub context: Box<str>,
    /// What the caller dialled.
    pub dialled: Box<str>,
    /// The offer in the INVITE, if it had one.
    pub offer: Option<Description>,
    /// For the CDR.
    pub direction: Direction,
}
