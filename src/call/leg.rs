//! A leg: one dialog with one peer, from its INVITE to its end.
//!
//! Owns: the dialog, its outstanding requests, its deadlines, its side of the negotiation.
//! Never: knows the other leg; the call couples them.

use super::{
    incoming::Incoming,
    negotiation::LegMedia,
    outgoing::Outgoing,
    profile::{Peer, Profile},
    wire::{Owner, Wire},
};
use crate::{
    config::LatchPolicy,
    dialog::{Dialog, Modify, SessionTimer, Success},
    few::Few,
    guard,
    ids::{Flow, LegId},
    media::Latch,
    sdp::Description,
    sip::{Builder, HeaderName, Message, Method},
    transaction::{ClientId, ServerId},
};
use bytes::Bytes;
use std::{net::IpAddr, sync::Arc, time::Instant};
use tracing::Span;

const TRUNK_FULL: &str = "Trunk Full";

/// Where a leg stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// We are to call it, and wait for a media port or an address.
    Opening,
    /// Its INVITE has no final response yet.
    Ringing,
    /// We were called and sent 200; the ACK has not come.
    Unacknowledged,
    /// Both know that it is up.
    Up,
    /// We sent CANCEL or BYE, or will once we may.
    Leaving,
    /// Its last transaction is done.
    Gone,
}

/// What a leg reports to its call.
#[derive(Debug)]
pub enum LegEvent {
    /// The called peer sent 101-199.
    Progress {
        /// 101..=199.
        status: u16,
        /// Early media's answer.
        sdp: Option<Description>,
    },
    /// The called peer sent 2xx.
    Answered {
        /// The answer; `None` where it sent none that can be read.
        sdp: Option<Description>,
    },
    /// The called peer sent 3xx-6xx, or what stands for one.
    Refused(Refused),
    /// The called peer has sent nothing at all for as long as its trunk's `failover` says.
    Unheard,
    /// The called peer sent 3xx and where to call instead.
    Redirected {
        /// URIs in the order of preference.
        contacts: Vec<Box<str>>,
        /// What to say where none of them is followed.
        refused: Refused,
    },
    /// The calling peer gave up before we answered.
    Cancelled {
        /// The Reason header's value.
        reason: Option<Box<str>>,
    },
    /// The calling peer acknowledged our 200.
    Acked {
        /// The answer to an offer of ours in the 200.
        sdp: Option<Description>,
    },
    /// The peer offers new media in a re-INVITE, UPDATE or PRACK.
    Offered {
        /// To be answered with [`Leg::answer_offer`] or [`Leg::refuse_offer`].
        tx: ServerId,
        /// The request.
        request: Message,
        /// The offer.
        sdp: Description,
    },
    /// The peer sent a re-INVITE that asks for our offer.
    OfferWanted {
        /// To be answered with [`Leg::answer_offer`] or [`Leg::refuse_offer`].
        tx: ServerId,
        /// The request.
        request: Message,
    },
    /// The peer acknowledged a re-INVITE and with it answered our offer.
    OfferAcked {
        /// The answer.
        sdp: Description,
    },
    /// The peer accepted our offer.
    OfferAnswered {
        /// The answer; `None` where it sent none that can be read.
        sdp: Option<Description>,
    },
    /// The peer refused our offer; what was agreed before holds.
    OfferRefused {
        /// 300..=699.
        status: u16,
    },
    /// The peer sent BYE.
    HungUp {
        /// The Reason header's value.
        reason: Option<Box<str>>,
    },
    /// The peer sent a digit by INFO.
    Digit {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// How long it was pressed.
        duration_ms: u16,
    },
    /// The dialog is lost.
    Dead(Death),
    /// The leg's last transaction is done.
    Gone,
}

/// Why a dialog is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Death {
    /// Our 200 was never acknowledged.
    NeverAcked,
    /// Nobody refreshed the session (RFC 4028).
    SessionExpired,
    /// The peer does not know the dialog any more: 481 or 408 (RFC 5057).
    Forgotten,
}

/// How a called peer said no.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// 300..=699; 408 stands for silence, 503 for an unreachable peer.
    pub status: u16,
    /// The reason phrase, as the peer wrote it.
    pub reason: Box<str>,
    /// Who said it.
    pub by: By,
    /// The Reason header's value (RFC 3326).
    pub q850: Option<Box<str>>,
    /// Whether our credentials had been sent.
    pub authenticated: bool,
    /// The address under which the peer saw us (Via `received`).
    pub received: Option<IpAddr>,
    /// The carrier's own error number (`X-Twilio-Error`).
    pub carrier_error: Option<u32>,
    /// Which guard of ours let it not leave.
    pub guard: Option<guard::Refusal>,
}

/// Who a refusal comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// The peer's own response.
    Peer,
    /// Nobody: no response came in time.
    Silence,
    /// Our transport: nothing could be sent.
    Transport,
    /// We did not even ask: no route, no port, no registration.
    Us,
}

impl Refused {
    /// Makes the refusal of a trunk that carries as many calls as it may.
    pub(super) fn trunk_full() -> Self {
        Self::ours(By::Us, 503, TRUNK_FULL)
    }

    /// Returns whether it is that one.
    pub(super) fn is_trunk_full(&self) -> bool {
        self.by == By::Us && &*self.reason == TRUNK_FULL
    }

    /// Makes a refusal that no peer has sent.
    pub fn ours(by: By, status: u16, reason: &str) -> Self {
        Self {
            status,
            reason: reason.into(),
            by,
            q850: None,
            authenticated: false,
            received: None,
            carrier_error: None,
            guard: None,
        }
    }

    /// Makes the refusal of a call that a guard of ours lets not leave.
    pub fn guarded(refusal: guard::Refusal) -> Self {
        let (status, phrase) = refusal.answer();
        Self { guard: Some(refusal), ..Self::ours(By::Us, status, phrase) }
    }
}

/// What an outstanding request of ours is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// The leg's own INVITE.
    Invite,
    /// New media, for the call.
    Offer,
    /// The session timer.
    Refresh,
    /// A reliable provisional response.
    Prack,
    /// The end.
    Bye,
}

/// A request of ours without a final response.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) purpose: Purpose,
    pub(super) method: Method,
    pub(super) cseq: u32,
    pub(super) body: Option<Bytes>,
    pub(super) reason: Option<Box<str>>,
}

/// A request inside the dialog.
#[derive(Debug)]
pub(super) struct InDialog {
    pub(super) purpose: Purpose,
    pub(super) method: Method,
    pub(super) body: Option<Bytes>,
    /// A Reason header's value.
    pub(super) reason: Option<Box<str>>,
    pub(super) credentials: Vec<(HeaderName, String)>,
}

impl InDialog {
    pub(super) fn new(purpose: Purpose, method: Method, body: Option<Bytes>) -> Self {
        Self { purpose, method, body, reason: None, credentials: vec![] }
    }
}

/// Who started the leg's dialog.
#[derive(Debug)]
pub(super) enum Origin {
    /// The peer called us.
    Incoming(Incoming),
    /// We call the peer.
    Outgoing(Outgoing),
}

/// One leg of a call.
#[derive(Debug)]
pub struct Leg {
    /// In which everything about it is logged.
    pub(super) span: Arc<Span>,
    /// Its name inside the program.
    pub owner: Owner,
    /// What people call it: a user's or a trunk's name.
    pub name: Arc<str>,
    /// What the peer can do and may be told.
    pub profile: Profile,
    /// Where its media stands.
    pub media: LegMedia,
    pub(super) stage: Stage,
    pub(super) origin: Origin,
    pub(super) dialog: Option<Dialog>,
    pub(super) modify: Modify,
    pub(super) session: SessionTimer,
    /// Our 200 to an INVITE or re-INVITE, until its ACK.
    pub(super) success: Option<(ServerId, Success)>,
    pub(super) pending: Few<ClientId, Pending>,
    /// The re-INVITE or other request of the peer's that waits for our answer.
    pub(super) asked: Option<(ServerId, Message)>,
    /// A BYE that must wait for the ACK (RFC 3261 15): its Reason value.
    pub(super) bye_after_ack: Option<Option<Box<str>>>,
    /// Whether our last 200 to a re-INVITE carried an offer, so that the ACK must answer it.
    pub(super) ack_answers: bool,
    pub(super) peer_allows_update: bool,
}

impl Leg {
    /// Returns its identifier.
    pub fn id(&self) -> LegId {
        self.owner.leg
    }

    /// Returns where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Moves on.
    pub(super) fn enter(&mut self, stage: Stage) {
        tracing::debug!(from = ?self.stage, to = ?stage, "leg moves on");
        self.stage = stage;
    }

    /// Returns whether it was answered and not yet told to go.
    pub fn is_up(&self) -> bool {
        match self.stage {
            Stage::Unacknowledged | Stage::Up => true,
            Stage::Opening | Stage::Ringing | Stage::Leaving | Stage::Gone => false,
        }
    }

    /// Returns the flow that its messages take now.
    pub fn flow(&self) -> Option<Flow> {
        match (&self.dialog, &self.origin) {
            (Some(dialog), _) => Some(dialog.flow()),
            (None, Origin::Incoming(incoming)) => Some(incoming.flow),
            (None, Origin::Outgoing(outgoing)) => outgoing.flow,
        }
    }

    /// Returns from where its media may come: a phone's from where its signalling comes, unless somebody
    /// stands in between.
    pub fn latch(&self) -> Latch {
        let asks = match &self.origin {
            Origin::Incoming(_) => false,
            Origin::Outgoing(outgoing) => !outgoing.spec.routes.is_empty(),
        };
        let is_direct = !asks && !self.dialog.as_ref().is_some_and(Dialog::is_routed);
        if let (Peer::Phone(user), Some(flow)) = (&self.profile.peer, self.flow())
            && user.latch == LatchPolicy::Learn
            && is_direct
        {
            return Latch::Learn { near: Some(Box::new(flow.remote.ip().to_canonical())) };
        }
        self.profile.latch.clone()
    }

    /// Returns from where a peer's messages come, where its session description is not to be taken on trust:
    /// everybody's but a carrier's.
    pub fn signals_from(&self) -> Option<IpAddr> {
        let flow = self.flow().filter(|_| self.profile.as_trunk().is_none())?;
        Some(flow.remote.ip())
    }

    /// Returns the Call-ID on its wire.
    pub fn sip_call_id(&self) -> &str {
        match (&self.origin, &self.dialog) {
            (Origin::Outgoing(outgoing), _) => &outgoing.call_id,
            (Origin::Incoming(_), Some(dialog)) => &dialog.call_id,
            (Origin::Incoming(_), None) => "",
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let origin = match &self.origin {
            Origin::Incoming(incoming) => incoming.poll_timeout(),
            Origin::Outgoing(_) => None,
        };
        let success = self.success.as_ref().map(|(_, success)| success.poll_timeout());
        [origin, self.unheard_at(), success, self.session.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes a final or provisional response to a request of this leg.
    pub fn handle_response(
        &mut self,
        tx: ClientId,
        response: &Message,
        flow: Flow,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let Some(purpose) = self.pending.get(&tx).map(|p| p.purpose) else { return };
        match purpose {
            Purpose::Invite => self.handle_invite_response(tx, response, flow, wire, out),
            Purpose::Offer | Purpose::Refresh => {
                self.handle_offer_response(tx, purpose, response, wire, out);
            }
            Purpose::Prack | Purpose::Bye => {
                if response.status() >= 200 && !self.retry_with_credentials(tx, response, wire) {
                    self.finish(tx, wire);
                    if purpose == Purpose::Bye {
                        self.leave(wire, out);
                    }
                }
            }
        }
    }

    /// Takes the end of a client transaction that got no final response.
    pub fn handle_failure(
        &mut self,
        tx: ClientId,
        by: By,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let Some(pending) = self.pending.get(&tx) else { return };
        match pending.purpose {
            Purpose::Invite => self.handle_invite_failure(tx, by, wire, out),
            Purpose::Offer | Purpose::Refresh => self.handle_offer_failure(tx, by, wire, out),
            Purpose::Prack => {
                self.finish(tx, wire);
            }
            Purpose::Bye => {
                self.finish(tx, wire);
                self.leave(wire, out);
            }
        }
    }

    /// Ends the leg in whatever way its stage allows: CANCEL, a refusal, BYE, or BYE after the ACK.
    ///
    /// `reason` is the value of a Reason header (RFC 3326); `status` refuses an unanswered caller.
    pub fn end(
        &mut self,
        status: u16,
        reason: Option<&str>,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        match (self.stage, &self.origin) {
            (Stage::Opening, _) => self.leave(wire, out),
            (Stage::Ringing, Origin::Incoming(_)) => {
                self.refuse(status, crate::sip::default_reason(status), &[], wire, out);
            }
            (Stage::Ringing, Origin::Outgoing(_)) => self.cancel(reason, wire, out),
            (Stage::Unacknowledged, _) => {
                self.enter(Stage::Leaving);
                self.bye_after_ack = Some(reason.map(Into::into));
            }
            (Stage::Up, _) => self.bye(reason, wire),
            (Stage::Leaving | Stage::Gone, _) => {}
        }
    }

    /// Sends BYE.
    pub(super) fn bye(&mut self, reason: Option<&str>, wire: &mut Wire<'_>) {
        self.enter(Stage::Leaving);
        self.success = None;
        self.session.stop();
        let bye = InDialog::new(Purpose::Bye, Method::Bye, None);
        self.send_in_dialog(InDialog { reason: reason.map(Into::into), ..bye }, wire);
    }

    /// Sends a request inside the dialog and remembers what it is for.
    pub(super) fn send_in_dialog(&mut self, request: InDialog, wire: &mut Wire<'_>) {
        let InDialog { purpose, method, body, reason, credentials } = request;
        let Some(dialog) = &mut self.dialog else { return };
        let flow = dialog.flow();
        let via = wire.via(flow);
        let mut builder = dialog.request(method, via.text());
        let cseq = dialog.local_cseq();
        if matches!(method, Method::Invite | Method::Update) {
            builder.text(HeaderName::Contact, &wire.contact(flow, &self.profile.contact_user));
            self.profile.write_session_headers(&mut builder, &self.session, wire.config);
        }
        if let Some(reason) = &reason {
            builder.header(HeaderName::Reason, reason);
        }
        for (name, value) in credentials {
            builder.header(name, value);
        }
        self.profile.write_common_headers(&mut builder, wire.config);
        let bytes = finish(builder, body.as_ref());
        let tx = wire.request(self.owner, method, via.branch(), bytes, flow);
        self.pending.insert(tx, Pending { purpose, method, cseq, body, reason });
    }

    /// Repeats a challenged request with credentials; returns whether it did.
    pub(super) fn retry_with_credentials(
        &mut self,
        tx: ClientId,
        response: &Message,
        wire: &mut Wire<'_>,
    ) -> bool {
        if !matches!(response.status(), 401 | 407) {
            return false;
        }
        let (Some(pending), Some(dialog)) = (self.pending.get(&tx), &self.dialog) else {
            return false;
        };
        let uri = dialog.remote_target().to_owned();
        let credentials = self.profile.authorize(response, pending.method, &uri, wire.entropy);
        if credentials.is_empty() {
            return false;
        }
        let Some(old) = self.pending.remove(&tx) else { return false };
        wire.owners.remove(tx);
        let Pending { purpose, method, body, reason, .. } = old;
        let again = InDialog { purpose, method, body, reason, credentials };
        self.send_in_dialog(again, wire);
        true
    }

    /// Forgets an outstanding request.
    pub(super) fn finish(&mut self, tx: ClientId, wire: &mut Wire<'_>) -> Option<Pending> {
        wire.owners.remove(tx);
        self.pending.remove(&tx)
    }

    /// The leg is done: nothing of it remains in the shard's tables.
    pub(super) fn leave(&mut self, wire: &mut Wire<'_>, out: &mut Vec<LegEvent>) {
        if self.stage == Stage::Gone {
            return;
        }
        self.enter(Stage::Gone);
        self.success = None;
        self.session.stop();
        for (tx, pending) in std::mem::take(&mut self.pending) {
            wire.owners.remove(tx);
            if pending.method == Method::Invite {
                // A re-INVITE that rings on would never end; one that was answered is not cancelled.
                wire.tx.cancel(tx, None, wire.now, wire.sent);
            }
        }
        if let Some((tx, request)) = self.asked.take() {
            self.reply_to((tx, &request), (487, "Request Terminated"), |_| {}, None, wire);
        }
        wire.names.remove_tag(self.local_tag());
        out.push(LegEvent::Gone);
    }

    /// Returns the transaction of the INVITE that made it, where the peer called us.
    pub(super) fn invite_tx(&self) -> Option<ServerId> {
        match &self.origin {
            Origin::Incoming(incoming) => Some(incoming.tx),
            Origin::Outgoing(_) => None,
        }
    }

    /// Returns our tag.
    pub(super) fn local_tag(&self) -> &str {
        match &self.origin {
            Origin::Incoming(incoming) => &incoming.tag,
            Origin::Outgoing(outgoing) => &outgoing.tag,
        }
    }

    /// Answers a request of the peer's inside the dialog.
    pub(super) fn reply_to(
        &self,
        (tx, request): (ServerId, &Message),
        (status, reason): (u16, &str),
        headers: impl FnOnce(&mut Builder),
        body: Option<&Bytes>,
        wire: &mut Wire<'_>,
    ) -> Bytes {
        let from = self.flow().map_or_else(unspecified, |flow| flow.remote);
        let mut builder = Builder::reply(request, status, reason, Some(self.local_tag()), from);
        headers(&mut builder);
        self.profile.write_common_headers(&mut builder, wire.config);
        let bytes = finish(builder, body);
        wire.tx.respond(tx, status, bytes.clone(), wire.now, wire.sent);
        bytes
    }
}

/// Completes a message with an SDP body or none.
pub(super) fn finish(builder: Builder, body: Option<&Bytes>) -> Bytes {
    match body {
        Some(sdp) => builder.body("application/sdp", sdp),
        None => builder.finish(),
    }
}

/// Reads the session description of a message; `Err` where there is one that cannot be read.
pub(super) fn description(message: &Message) -> Result<Option<Description>, ()> {
    match message.sdp() {
        None => Ok(None),
        Some(bytes) => Description::parse(bytes).map(Some).map_err(|_| ()),
    }
}

fn unspecified() -> std::net::SocketAddr {
    (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Call;

    /// Thousands are held, with two legs each: what few need is behind a pointer, or gone once the call is up.
    #[test]
    fn a_held_call_is_small() {
        let (call, leg) = (size_of::<Call>(), size_of::<Leg>());
        assert!(call <= 1280 && leg <= 1760, "{call} and {leg} bytes");
    }
}
