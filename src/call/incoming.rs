//! The leg that called us: its INVITE and our responses to it (RFC 3261 13.3, RFC 3262).
//!
//! Owns: the INVITE's server transaction, our tag, the reliable provisional responses.
//! Never: decides what to answer; the call does.

use super::{
    leg::{Death, InDialog, Leg, LegEvent, Origin, Purpose, Stage, description, finish},
    negotiation::LegMedia,
    profile::Profile,
    wire::{Owner, Wire},
};
use crate::{
    dialog::{
        Dialog, Due, Modify, PrackOutcome, Refresher, ReliableSender, Resend, SessionTimer,
        Success, SuccessDue, Wanted,
    },
    few::Few,
    ids::Flow,
    observe::log,
    sip::{Builder, HeaderName, Message, Method, default_reason},
    transaction::ServerId,
};
use bytes::Bytes;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a refresh waits for an offer that is outstanding.
const OFFER_TAKES: Duration = Duration::from_secs(2);

/// The INVITE that made this leg.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Its transaction.
    pub tx: ServerId,
    /// The request, until the call is up and nobody asks what it said.
    pub invite: Option<Message>,
    /// The number in its CSeq.
    cseq: u32,
    /// Where it came from.
    pub flow: Flow,
    /// Our tag.
    pub tag: Arc<str>,
    /// Present where the caller requires reliable provisional responses.
    reliable: Option<ReliableSender>,
    /// The number of the first reliable response that carried our answer.
    answered_in: Option<u32>,
    /// Whether an UPDATE has changed since what that response said: the 2xx says nothing of it then
    /// (RFC 6337 3.1.1).
    is_updated: bool,
    /// A 200 that must wait for that response's PRACK (RFC 3262 3).
    success: Option<Bytes>,
}

impl Incoming {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.reliable.as_ref().and_then(ReliableSender::poll_timeout)
    }
}

impl Leg {
    /// Creates the leg of an INVITE; `None` where its Contact is of no use, and nothing is registered.
    pub fn incoming(
        owner: Owner,
        name: Arc<str>,
        profile: Profile,
        (tx, invite, flow): (ServerId, Message, Flow),
        wire: &mut Wire<'_>,
    ) -> Option<Self> {
        let tag = wire.mint.shared_tag();
        let dialog = Dialog::from_invite(&invite, &tag, flow, profile.reach)?;
        let reliable = invite
            .has_option(HeaderName::Require, "100rel")
            .then(|| ReliableSender::new(wire.entropy.next_u64() as u32));
        let mut modify = Modify::default();
        if invite.has_sdp() {
            // Cannot fail: a new dialog is stable.
            let offered = modify.they_offer();
            debug_assert!(offered.is_ok());
        }
        wire.names.insert_tag(&tag, owner);
        wire.names.insert_call_id(invite.call_id(), owner.call, &name);
        Some(Self {
            span: log::leg_span(owner.leg, invite.call_id(), Some(flow)).into(),
            owner,
            name,
            media: LegMedia::new(profile.policy.clone(), flow, wire),
            stage: Stage::Ringing,
            peer_allows_update: allows_update(&invite),
            origin: Origin::Incoming(Incoming {
                tx,
                cseq: invite.cseq().number,
                invite: Some(invite),
                flow,
                tag,
                reliable,
                answered_in: None,
                is_updated: false,
                success: None,
            }),
            dialog: Some(dialog),
            modify,
            session: SessionTimer::default(),
            success: None,
            pending: Few::default(),
            asked: None,
            bye_after_ack: None,
            ack_answers: false,
            profile,
        })
    }

    /// Sends a provisional response, reliably where the caller requires it.
    pub fn progress(&mut self, status: u16, sdp: Option<&Bytes>, wire: &mut Wire<'_>) {
        if self.stage != Stage::Ringing {
            return;
        }
        let contact = self.contact(wire);
        let Origin::Incoming(incoming) = &mut self.origin else { return };
        let Some(invite) = &incoming.invite else { return };
        let from = incoming.flow.remote;
        let reason = default_reason(status);
        let mut builder = Builder::reply(invite, status, reason, Some(&incoming.tag), from);
        builder.copy(invite, HeaderName::RecordRoute);
        builder.text(HeaderName::Contact, &contact);
        let rseq = incoming.reliable.as_mut().map(|reliable| {
            let rseq = reliable.number();
            builder.header(HeaderName::Require, "100rel").header(HeaderName::RSeq, rseq);
            rseq
        });
        // An offer has one answer, and a reliable one is final (RFC 3262 5): it is not said again.
        let sdp = sdp.filter(|_| incoming.answered_in.is_none());
        if sdp.is_some() {
            incoming.answered_in = rseq;
        }
        self.profile.write_common_headers(&mut builder, wire.config);
        let bytes = finish(builder, sdp);
        let now = match (rseq, &mut incoming.reliable) {
            (Some(rseq), Some(reliable)) => reliable.send(rseq, bytes, wire.now),
            (Some(_) | None, _) => Some(bytes),
        };
        if sdp.is_some() && rseq.is_some() {
            // A reliable answer settles the offer (RFC 3262 5).
            self.modify.settle();
        }
        if let Some(bytes) = now {
            wire.tx.respond(incoming.tx, status, bytes, wire.now, wire.sent);
        }
    }

    /// Sends 200 with our answer, or our offer where the INVITE had none; once the caller has
    /// acknowledged a reliable response that carried the answer already.
    pub fn answer(&mut self, sdp: &Bytes, wire: &mut Wire<'_>) {
        if self.stage != Stage::Ringing {
            return;
        }
        let contact = self.contact(wire);
        let Origin::Incoming(incoming) = &mut self.origin else { return };
        let outstanding = incoming.reliable.as_ref().and_then(ReliableSender::outstanding);
        if outstanding.is_some() && outstanding == incoming.answered_in {
            incoming.success = Some(sdp.clone());
            return;
        }
        if let Some(reliable) = &mut incoming.reliable {
            reliable.stop();
        }
        let Some(invite) = incoming.invite.clone() else { return };
        let (tx, remote) = (incoming.tx, incoming.flow.remote);
        let sdp = Some(sdp).filter(|_| !incoming.is_updated);
        let mut builder = Builder::reply(&invite, 200, "OK", Some(&incoming.tag), remote);
        builder.copy(&invite, HeaderName::RecordRoute);
        builder.text(HeaderName::Contact, &contact);
        if let Some(granted) = self.accept_session_timer(&invite, wire) {
            granted.write(&mut builder);
        }
        self.profile.write_common_headers(&mut builder, wire.config);
        let bytes = finish(builder, sdp);
        wire.tx.respond(tx, 200, bytes.clone(), wire.now, wire.sent);
        self.success = Some((tx, Success::new(invite.cseq().number, bytes, wire.now)));
        self.ack_answers = !invite.has_sdp();
        self.modify.settle();
        self.enter(Stage::Unacknowledged);
    }

    /// Forgets what the INVITE said: the call is up, and nobody else will be called for it.
    pub(super) fn forget_invite(&mut self, wire: &mut Wire<'_>) {
        match &mut self.origin {
            Origin::Incoming(incoming) => incoming.invite = None,
            Origin::Outgoing(outgoing) => outgoing.forget_attempt(wire),
        }
    }

    /// Notes that the caller has changed its media before we answered its INVITE.
    pub(super) fn note_early_update(&mut self) {
        if let (Stage::Ringing, Origin::Incoming(incoming)) = (self.stage, &mut self.origin) {
            incoming.is_updated = true;
        }
    }

    /// Sends a final refusal; the leg is gone.
    pub fn refuse(
        &mut self,
        status: u16,
        reason: &str,
        headers: &[(HeaderName, String)],
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        if let (Stage::Ringing, Origin::Incoming(incoming)) = (self.stage, &self.origin)
            && let Some(invite) = &incoming.invite
        {
            let from = incoming.flow.remote;
            let mut builder = Builder::reply(invite, status, reason, Some(&incoming.tag), from);
            for (name, value) in headers {
                builder.header(*name, value);
            }
            self.profile.write_common_headers(&mut builder, wire.config);
            wire.tx.respond(incoming.tx, status, builder.finish(), wire.now, wire.sent);
            self.leave(wire, out);
        }
    }

    /// Takes a CANCEL of the leg's INVITE.
    pub fn handle_cancel(&mut self, cancel: &Message, out: &mut Vec<LegEvent>) {
        if self.stage == Stage::Ringing {
            let reason = cancel.header_str(HeaderName::Reason).map(|r| r.into());
            out.push(LegEvent::Cancelled { reason });
        }
    }

    /// Takes an ACK to a 2xx of ours: of the first INVITE, or of a re-INVITE.
    pub fn handle_ack(&mut self, ack: &Message, wire: &mut Wire<'_>, out: &mut Vec<LegEvent>) {
        let acked = self.success.take_if(|(_, success)| success.cseq == ack.cseq().number);
        if acked.is_none() {
            return;
        }
        let first = self.stage == Stage::Unacknowledged;
        if first {
            self.enter(Stage::Up);
        }
        let wanted = std::mem::take(&mut self.ack_answers);
        let sdp = if wanted { description(ack).unwrap_or(None) } else { None };
        if !first {
            self.modify.settle();
        }
        if let Some(reason) = self.bye_after_ack.take() {
            self.bye(reason.as_deref(), wire);
        } else if first {
            out.push(LegEvent::Acked { sdp });
        } else if let Some(sdp) = sdp {
            out.push(LegEvent::OfferAcked { sdp });
        }
    }

    /// Takes a PRACK (RFC 3262 3).
    pub(super) fn handle_prack(
        &mut self,
        tx: ServerId,
        prack: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let Origin::Incoming(incoming) = &mut self.origin else {
            return self.say(tx, prack, 481, wire);
        };
        let rack = prack.header_str(HeaderName::RAck).and_then(|value| read_rack(&value));
        let invite_cseq = incoming.cseq;
        let outcome = match (rack, &mut incoming.reliable) {
            (Some((rseq, cseq)), Some(reliable)) if cseq == invite_cseq => {
                reliable.acknowledge(rseq, wire.now)
            }
            (Some(_) | None, _) => PrackOutcome::Unknown,
        };
        let PrackOutcome::Acknowledged(next) = outcome else {
            return self.say(tx, prack, 481, wire);
        };
        let invite_tx = incoming.tx;
        let success = incoming.success.take();
        match description(prack) {
            Ok(None) => self.say(tx, prack, 200, wire),
            Ok(Some(sdp)) => self.take_offer(tx, prack, sdp, wire, out),
            Err(()) => self.say(tx, prack, 488, wire),
        }
        match (success, next) {
            (Some(sdp), _) => self.answer(&sdp, wire),
            (None, Some(bytes)) => wire.tx.respond(invite_tx, 180, bytes, wire.now, wire.sent),
            (None, None) => {}
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, wire: &mut Wire<'_>, out: &mut Vec<LegEvent>) {
        self.fire_success(wire, out);
        self.fire_reliable(wire, out);
        self.fire_session(wire, out);
        self.fire_unheard(wire, out);
    }

    fn fire_success(&mut self, wire: &mut Wire<'_>, out: &mut Vec<LegEvent>) {
        let Some((tx, success)) = &mut self.success else { return };
        match success.handle_timeout(wire.now) {
            None => {}
            Some(SuccessDue::Resend(bytes)) => {
                wire.tx.respond(*tx, 200, bytes, wire.now, wire.sent)
            }
            Some(SuccessDue::NeverAcked) => {
                self.success = None;
                self.modify.settle();
                self.bye_after_ack = None;
                self.bye(Some("SIP;cause=408;text=\"ACK missing\""), wire);
                out.push(LegEvent::Dead(Death::NeverAcked));
            }
        }
    }

    fn fire_reliable(&mut self, wire: &mut Wire<'_>, out: &mut Vec<LegEvent>) {
        let Origin::Incoming(incoming) = &mut self.origin else { return };
        let tx = incoming.tx;
        match incoming.reliable.as_mut().and_then(|r| r.handle_timeout(wire.now)) {
            None => {}
            Some(Resend::Again(bytes)) => wire.tx.respond(tx, 180, bytes, wire.now, wire.sent),
            Some(Resend::NeverAcknowledged) => {
                out.push(LegEvent::Cancelled { reason: None });
                self.refuse(504, "Provisional Response Not Acknowledged", &[], wire, out);
            }
        }
    }

    /// Answers the session timer's part of an INVITE or UPDATE (RFC 4028 9): headers for the 2xx.
    pub(super) fn accept_session_timer(
        &mut self,
        request: &Message,
        wire: &Wire<'_>,
    ) -> Option<Granted> {
        if !self.profile.session_timers {
            return None;
        }
        let peer_supports = request.has_option(HeaderName::Supported, "timer");
        let value = request.header_str(HeaderName::SessionExpires);
        let Some(wanted) = value.and_then(|v| Wanted::parse(&v)) else {
            self.session.stop();
            return None;
        };
        let (refresher, by) = match wanted.by_uac {
            Some(true) => (Refresher::Peer, "uac"),
            None if peer_supports => (Refresher::Peer, "uac"),
            Some(false) | None => (Refresher::Us, "uas"),
        };
        self.session.start(wanted.interval_s, refresher, wire.now);
        Some(Granted { interval_s: wanted.interval_s, by, peer_supports })
    }

    fn contact(&self, wire: &Wire<'_>) -> String {
        let Origin::Incoming(incoming) = &self.origin else { return String::new() };
        wire.contact(incoming.flow, &self.profile.contact_user)
    }

    /// Answers a request of the peer's with a status and nothing else.
    pub(super) fn say(&self, tx: ServerId, request: &Message, status: u16, wire: &mut Wire<'_>) {
        self.reply_to((tx, request), (status, default_reason(status)), |_| {}, None, wire);
    }
}

/// A session timer that a peer's request has started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    interval_s: u32,
    /// Who refreshes.
    by: &'static str,
    peer_supports: bool,
}

impl Granted {
    /// Writes what the 2xx says of it.
    pub(super) fn write(self, builder: &mut Builder) {
        let Self { interval_s, by, peer_supports } = self;
        builder.header(HeaderName::SessionExpires, format_args!("{interval_s};refresher={by}"));
        if peer_supports {
            builder.text(HeaderName::Require, "timer");
        }
    }
}

/// Returns whether the peer's Allow header names UPDATE.
pub(super) fn allows_update(message: &Message) -> bool {
    let update = Method::Update.as_str().as_bytes();
    // Methods are tokens: nothing in the list hides a comma. Few begin as this one does.
    let names = |value: &[u8]| {
        memchr::memchr_iter(b'U', value).any(|at| {
            let (before, from) = value.split_at_checked(at).unwrap_or_default();
            let is_one = matches!(before.trim_ascii_end(), [] | [.., b',']);
            let after = from.strip_prefix(update).map(<[u8]>::trim_ascii_start);
            is_one && matches!(after, Some([] | [b',', ..]))
        })
    };
    message.lines().filter(|line| line.id() == HeaderName::Allow).any(|line| names(&line.value()))
}

/// Reads the RSeq and CSeq numbers of a RAck value that acknowledges an INVITE's response.
fn read_rack(value: &str) -> Option<(u32, u32)> {
    let mut parts = value.split_ascii_whitespace();
    let (rseq, cseq) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (parts.next()? == "INVITE").then_some((rseq, cseq))
}

impl Leg {
    fn fire_session(&mut self, wire: &mut Wire<'_>, out: &mut Vec<LegEvent>) {
        match self.session.handle_timeout(wire.now) {
            None => {}
            Some(Due::Refresh) => self.refresh(wire),
            Some(Due::Expired) => {
                if self.stage == Stage::Up {
                    self.bye(Some("SIP;cause=408;text=\"Session expired\""), wire);
                }
                out.push(LegEvent::Dead(Death::SessionExpired));
            }
        }
    }

    /// Refreshes the session: UPDATE without a body where the peer takes it, else re-INVITE with
    /// what we said last.
    pub(super) fn refresh(&mut self, wire: &mut Wire<'_>) {
        if self.stage != Stage::Up {
            return;
        }
        if self.peer_allows_update && self.profile.update {
            let update = InDialog::new(Purpose::Refresh, Method::Update, None);
            self.send_in_dialog(update, wire);
        } else if let Some(sdp) = self.media.last_said() {
            if !self.modify.we_offer(wire.now) {
                // An offer is on its way; once it is answered the session may be fresh already.
                return self.session.retry(OFFER_TAKES, wire.now);
            }
            let reinvite = InDialog::new(Purpose::Refresh, Method::Invite, Some(sdp));
            self.send_in_dialog(reinvite, wire);
        }
    }
}
