//! The leg that we call: its INVITE and the responses to it (RFC 3261 13.2, 22.2, 8.1.3.4).
//!
//! Owns: the INVITE's client transaction, the early dialogs, the retries.
//! Never: decides what a refusal means for the call.

use super::{
    hearing::Hearing,
    incoming::allows_update,
    leg::{By, Leg, LegEvent, Origin, Pending, Purpose, Refused, Stage, description, finish},
    negotiation::LegMedia,
    profile::Profile,
    termination::Way,
    wire::{DATAGRAM_REQUEST_MAX, Owner, Via, Wire},
};
use crate::{
    dialog::{Asked, Dialog, Modify, Reach, Refresher, ReliableReceiver, SessionTimer, Wanted},
    few::Few,
    ids::{Flow, Transport},
    observe::log,
    sip::{Builder, HeaderName, Message, Method, NameAddr},
    transaction::ClientId,
    trunk::refusal::carrier_error,
};
use bytes::Bytes;
use std::{borrow::Cow, sync::Arc, time::Instant};

/// How many early dialogs one INVITE may make: forks behind the called peer.
const EARLY_MAX: usize = 16;
/// How many contacts of one 3xx are followed.
const CONTACTS_MAX: usize = 5;

/// What the INVITE says, whichever attempt it is.
#[derive(Clone, Debug)]
pub struct InviteSpec {
    /// The Request-URI.
    pub uri: Box<str>,
    /// The From value, without the tag.
    pub from: Arc<[u8]>,
    /// The To value.
    pub to: Arc<[u8]>,
    /// The Route set to start with (Path, outbound proxy): Route values.
    pub routes: Vec<Box<str>>,
    /// What else the header policy wants said.
    pub headers: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// Max-Forwards.
    pub max_forwards: u32,
}

/// The INVITE of this leg, on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// What it says.
    pub spec: InviteSpec,
    /// Where it goes, once known.
    pub flow: Option<Flow>,
    /// The trunk's number, edge and address, where it goes to one.
    pub way: Option<Box<Way>>,
    /// Whether anybody has answered the attempt that runs now.
    pub hearing: Hearing,
    /// Our tag.
    pub tag: Arc<str>,
    /// The Call-ID.
    pub call_id: Arc<str>,
    /// The offer in it.
    offer: Option<Bytes>,
    cseq: u32,
    /// The attempt that runs now.
    attempt: Option<Attempt>,
    early: Few<Box<str>, (Dialog, ReliableReceiver)>,
    /// The highest number of a request in an early dialog that was forgotten.
    forgotten_cseq: u32,
    min_se_s: Option<u32>,
    authenticated: bool,
    /// Whether a too large INVITE went to TCP, and may yet go back to UDP.
    tcp_tried: bool,
    /// When the peer last repeated its 2xx, as one does that sees no ACK.
    repeated_at: Option<Instant>,
}

/// An INVITE on its way.
#[derive(Debug)]
struct Attempt {
    tx: ClientId,
    transport: Transport,
    /// What it proves who we are with; the ACK says the same (RFC 3261 22.1).
    credentials: Vec<(HeaderName, String)>,
}

impl Outgoing {
    /// Makes the dialog of an answer to the attempt that runs now.
    fn dialog(&self, response: &Message, flow: Flow, reach: Reach) -> Dialog {
        let Self { spec, tag, call_id, cseq, .. } = self;
        // What came before in a dialog that was forgotten would be refused, a gap is no error (RFC 3261 12.2.2).
        let cseq = (*cseq).max(self.forgotten_cseq);
        let asked = Asked { uri: &spec.uri, call_id, tag, from: &spec.from, to: &spec.to, cseq };
        Dialog::from_answer(&asked, response, flow, reach)
    }

    /// Keeps no copy of the INVITE, nor what further ones would say.
    pub(super) fn forget_attempt(&mut self, wire: &mut Wire<'_>) {
        if let Some(attempt) = &self.attempt {
            wire.tx.forget_request(attempt.tx);
        }
        let numbers = self.early.values().map(|(dialog, _)| dialog.local_cseq());
        self.forgotten_cseq = numbers.fold(self.forgotten_cseq, u32::max);
        self.early = Few::default();
        self.offer = None;
        self.spec.headers = vec![];
    }

    /// Returns whether this is the transaction of the attempt that runs now.
    pub(super) fn is_attempt(&self, tx: ClientId) -> bool {
        self.attempt.as_ref().is_some_and(|running| running.tx == tx)
    }

    /// Returns whether the attempt that runs now was too large for a datagram, and may yet become one.
    pub(super) fn is_over_tcp_first(&self) -> bool {
        self.tcp_tried && self.attempt.as_ref().is_some_and(|a| a.transport == Transport::Tcp)
    }
}

impl Leg {
    /// Notes that the peer said its 2xx again.
    pub fn note_repeated_answer(&mut self, now: Instant) {
        if let Origin::Outgoing(outgoing) = &mut self.origin {
            outgoing.repeated_at = Some(now);
        }
    }

    /// Returns when the peer last said its 2xx again.
    pub(super) fn repeated_answer_at(&self) -> Option<Instant> {
        match &self.origin {
            Origin::Outgoing(outgoing) => outgoing.repeated_at,
            Origin::Incoming(_) => None,
        }
    }

    /// Creates a leg that is to be called. Nothing is sent before [`Self::invite`].
    pub fn outgoing(
        owner: Owner,
        name: Arc<str>,
        profile: Profile,
        spec: InviteSpec,
        flow: Option<Flow>,
        wire: &mut Wire<'_>,
    ) -> Self {
        let (tag, call_id) = (wire.mint.shared_tag(), wire.mint.shared_call_id());
        wire.names.insert_tag(&tag, owner);
        wire.names.insert_call_id(&call_id, owner.call, &name);
        let mut media = LegMedia::unplaced(profile.policy.clone(), wire);
        if let Some(flow) = flow {
            media.place(flow, wire);
        }
        Self {
            span: log::leg_span(owner.leg, &call_id, flow).into(),
            owner,
            name,
            media,
            stage: Stage::Opening,
            origin: Origin::Outgoing(Outgoing {
                spec,
                flow,
                way: None,
                hearing: Hearing::Idle,
                tag,
                call_id,
                offer: None,
                cseq: 0,
                attempt: None,
                early: Few::default(),
                forgotten_cseq: 0,
                min_se_s: None,
                authenticated: false,
                tcp_tried: false,
                repeated_at: None,
            }),
            dialog: None,
            modify: Modify::default(),
            session: SessionTimer::default(),
            success: None,
            pending: Few::default(),
            asked: None,
            bye_after_ack: None,
            ack_answers: false,
            peer_allows_update: false,
            profile,
        }
    }

    /// Tells a leg in `Opening` where its peer is.
    pub fn set_flow(&mut self, flow: Flow, wire: &mut Wire<'_>) {
        if let Origin::Outgoing(outgoing) = &mut self.origin {
            outgoing.flow = Some(flow);
            self.span.record("flow", tracing::field::display(flow));
            self.media.place(flow, wire);
        }
    }

    /// Tells a leg in `Opening` what its INVITE will say.
    pub(super) fn set_spec(&mut self, spec: InviteSpec) {
        if let Origin::Outgoing(outgoing) = &mut self.origin {
            outgoing.spec = spec;
        }
    }

    /// Sends the INVITE with our offer.
    pub fn invite(&mut self, offer: Bytes, wire: &mut Wire<'_>) {
        let Origin::Outgoing(outgoing) = &mut self.origin else { return };
        outgoing.offer = Some(offer);
        self.enter(Stage::Ringing);
        let offered = self.modify.we_offer(wire.now);
        debug_assert!(offered, "a new leg has no offer outstanding");
        self.send_invite(&[], wire);
    }

    fn send_invite(&mut self, credentials: &[(HeaderName, String)], wire: &mut Wire<'_>) {
        let Origin::Outgoing(outgoing) = &mut self.origin else { return };
        let Some(mut flow) = outgoing.flow else { return };
        outgoing.cseq = outgoing.cseq.saturating_add(1);
        outgoing.authenticated |= !credentials.is_empty();
        let (mut via, mut bytes) =
            build_invite(outgoing, &self.profile, &self.session, credentials, flow, wire);
        if bytes.len() > DATAGRAM_REQUEST_MAX
            && !flow.transport.is_reliable()
            && self.profile.tcp_too
            && !outgoing.tcp_tried
            && let Some(tcp) = wire.over_tcp(flow)
        {
            outgoing.tcp_tried = true;
            flow = tcp;
            (via, bytes) =
                build_invite(outgoing, &self.profile, &self.session, credentials, flow, wire);
        }
        let tx = wire.invite(self.owner, via.branch(), bytes, flow);
        outgoing.attempt =
            Some(Attempt { tx, transport: flow.transport, credentials: credentials.into() });
        outgoing.hearing = Hearing::Since(wire.now);
        let pending = Pending {
            purpose: Purpose::Invite,
            method: Method::Invite,
            cseq: outgoing.cseq,
            body: None,
            reason: None,
        };
        self.pending.insert(tx, pending);
    }

    /// Sends the INVITE once more, other than for a challenge, with what has been asked for before.
    fn repeat_invite(&mut self, wire: &mut Wire<'_>) {
        let Origin::Outgoing(outgoing) = &self.origin else { return };
        let number = outgoing.cseq.saturating_add(1);
        let credentials = self.profile.authorize_again(number, &outgoing.spec.uri, wire.entropy);
        self.send_invite(&credentials, wire);
    }

    pub(super) fn handle_invite_response(
        &mut self,
        tx: ClientId,
        response: &Message,
        flow: Flow,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        if let Origin::Outgoing(outgoing) = &mut self.origin {
            outgoing.hearing = Hearing::Heard;
        }
        match response.status() {
            0..=100 => {}
            101..=199 => self.handle_provisional(response, flow, wire, out),
            200..=299 => self.handle_success(tx, response, flow, wire, out),
            status => self.handle_refusal(tx, status, response, wire, out),
        }
    }

    fn handle_provisional(
        &mut self,
        response: &Message,
        flow: Flow,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let tag: Box<str> = response.to_tag().unwrap_or("").into();
        let reach = self.profile.reach;
        let Origin::Outgoing(outgoing) = &mut self.origin else { return };
        if !tag.is_empty() && !outgoing.early.contains_key(&tag) && outgoing.early.len() < EARLY_MAX
        {
            let dialog = outgoing.dialog(response, flow, reach);
            outgoing.early.insert(tag.clone(), (dialog, ReliableReceiver::default()));
        }
        self.peer_allows_update = self.peer_allows_update || allows_update(response);
        if response.has_option(HeaderName::Require, "100rel")
            && let Some(rseq) = response.number(HeaderName::RSeq)
            && !self.prack(&tag, rseq, wire)
        {
            return;
        }
        // RFC 6228: a fork behind the peer has ended; ours and the caller's dialog go on.
        if self.stage == Stage::Ringing && response.status() != 199 {
            let sdp = description(response).unwrap_or(None);
            if sdp.is_some() && response.has_option(HeaderName::Require, "100rel") {
                // A reliable answer settles the offer (RFC 3262 5): the peer may now offer anew.
                self.modify.settle();
            }
            out.push(LegEvent::Progress { status: response.status(), sdp });
        }
    }

    /// Acknowledges a reliable response; returns whether it was new.
    fn prack(&mut self, tag: &str, rseq: u32, wire: &mut Wire<'_>) -> bool {
        let Origin::Outgoing(outgoing) = &mut self.origin else { return false };
        let invite_cseq = outgoing.cseq;
        let Some((dialog, receiver)) = outgoing.early.get_mut(tag) else { return false };
        if !receiver.accept(rseq) {
            return false;
        }
        let flow = dialog.flow();
        let via = wire.via(flow);
        let mut builder = dialog.request(Method::Prack, via.text());
        let cseq = dialog.local_cseq();
        builder.header(HeaderName::RAck, format_args!("{rseq} {invite_cseq} INVITE"));
        self.profile.write_common_headers(&mut builder, wire.config);
        let tx = wire.request(self.owner, Method::Prack, via.branch(), builder.finish(), flow);
        let pending = Pending {
            purpose: Purpose::Prack,
            method: Method::Prack,
            cseq,
            body: None,
            reason: None,
        };
        self.pending.insert(tx, pending);
        true
    }

    fn handle_success(
        &mut self,
        tx: ClientId,
        response: &Message,
        flow: Flow,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let tag: Box<str> = response.to_tag().unwrap_or("").into();
        let reach = self.profile.reach;
        let Origin::Outgoing(outgoing) = &mut self.origin else { return };
        let cseq = response.cseq().number;
        // The route set is frozen when the dialog is made: carriers route by the first one, and what
        // RFC 3261 13.2.2.4 recomputes for RFC 2543 peers loses their BYE.
        let mut dialog = match outgoing.early.remove(&tag) {
            Some((dialog, _)) => dialog,
            None => outgoing.dialog(response, flow, reach),
        };
        let known = self.dialog.as_ref().is_some_and(|d| *d.remote_tag == *tag);
        if known || !wire.acks.has_room(tx) {
            return;
        }
        dialog.refresh_target(response);
        let ack_flow = dialog.flow();
        let mut ack = dialog.ack(cseq, wire.via(ack_flow).text());
        for (name, value) in outgoing.attempt.iter().flat_map(|attempt| &attempt.credentials) {
            ack.header(*name, value);
        }
        let ack = ack.finish();
        wire.acks.keep(tx, &tag, ack_flow, ack.clone(), wire.now);
        wire.send(ack_flow, ack);
        match self.stage {
            Stage::Ringing => {
                self.dialog = Some(dialog);
                self.enter(Stage::Up);
                self.modify.settle();
                self.peer_allows_update = self.peer_allows_update || allows_update(response);
                self.read_session_timer(response, wire);
                let sdp = description(response).unwrap_or(None);
                out.push(LegEvent::Answered { sdp });
            }
            // It picked up before our CANCEL reached it (RFC 3261 9.1).
            Stage::Leaving if self.dialog.is_none() => {
                self.dialog = Some(dialog);
                self.bye(Some("SIP;cause=487;text=\"Cancelled\""), wire);
            }
            // Another fork picked up as well.
            Stage::Up | Stage::Leaving | Stage::Opening | Stage::Unacknowledged | Stage::Gone => {
                let bye_flow = dialog.flow();
                let via = wire.via(bye_flow);
                let bye = dialog.request(Method::Bye, via.text()).finish();
                wire.tx.request(bye, via.branch(), Method::Bye, bye_flow, wire.now, wire.sent);
            }
        }
    }

    fn handle_refusal(
        &mut self,
        tx: ClientId,
        status: u16,
        response: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        self.finish(tx, wire);
        if self.stage == Stage::Leaving {
            return self.leave(wire, out);
        }
        let Origin::Outgoing(outgoing) = &mut self.origin else { return };
        outgoing.early.clear();
        match status {
            401 | 407 => {
                let uri = outgoing.spec.uri.clone();
                let credentials =
                    self.profile.authorize(response, Method::Invite, &uri, wire.entropy);
                if !credentials.is_empty() {
                    // The challenge may have shown under which address we are seen.
                    let offer =
                        outgoing.flow.and_then(|flow| self.media.offer_from_elsewhere(flow, wire));
                    outgoing.offer = offer.or(outgoing.offer.take());
                    return self.send_invite(&credentials, wire);
                }
            }
            // RFC 4028 7.3: the peer wants a longer interval; once.
            422 if self.profile.session_timers && outgoing.min_se_s.is_none() => {
                outgoing.min_se_s = response.number(HeaderName::MinSe);
                if outgoing.min_se_s.is_some() {
                    return self.repeat_invite(wire);
                }
            }
            // It has no SRTP, which was only preferred.
            415 | 488 | 606 => {
                if let Some(offer) = self.media.offer_plain() {
                    outgoing.offer = Some(offer);
                    return self.repeat_invite(wire);
                }
            }
            _ => {}
        }
        let Origin::Outgoing(outgoing) = &self.origin else { return };
        let refused = Refused {
            status,
            reason: String::from_utf8_lossy(response.reason()).into(),
            by: By::Peer,
            q850: response.header_str(HeaderName::Reason).map(|r| r.into()),
            authenticated: outgoing.authenticated,
            received: response.via().received(),
            carrier_error: carrier_error(response),
            guard: None,
        };
        let contacts = if status / 100 == 3 { contacts(response) } else { vec![] };
        out.push(match contacts.is_empty() {
            true => LegEvent::Refused(refused),
            false => LegEvent::Redirected { contacts, refused },
        });
        self.leave(wire, out);
    }

    pub(super) fn handle_invite_failure(
        &mut self,
        tx: ClientId,
        by: By,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        self.finish(tx, wire);
        let Origin::Outgoing(outgoing) = &mut self.origin else { return };
        // RFC 3261 18.1.1: nobody listens on TCP; the large INVITE goes as a datagram after all.
        if by == By::Transport && outgoing.tcp_tried && self.stage == Stage::Ringing {
            return self.repeat_invite(wire);
        }
        let authenticated = outgoing.authenticated;
        if self.stage == Stage::Ringing {
            let (status, reason) = match by {
                By::Silence => (408, "Request Timeout"),
                By::Transport | By::Peer | By::Us => (503, "Service Unavailable"),
            };
            out.push(LegEvent::Refused(Refused {
                authenticated,
                ..Refused::ours(by, status, reason)
            }));
        }
        self.leave(wire, out);
    }

    /// Sends CANCEL; the leg is gone when its INVITE is.
    pub(super) fn cancel(
        &mut self,
        reason: Option<&str>,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let Origin::Outgoing(outgoing) = &self.origin else { return };
        match outgoing.attempt.as_ref().map(|attempt| attempt.tx) {
            Some(tx) => {
                self.enter(Stage::Leaving);
                wire.tx.cancel(tx, reason, wire.now, wire.sent);
            }
            None => self.leave(wire, out),
        }
    }

    /// Reads what a 2xx says about the session timer (RFC 4028 7.2).
    pub(super) fn read_session_timer(&mut self, response: &Message, wire: &Wire<'_>) {
        let wanted =
            response.header_str(HeaderName::SessionExpires).and_then(|v| Wanted::parse(&v));
        match wanted {
            Some(wanted) if self.profile.session_timers => {
                let refresher = match wanted.by_uac {
                    Some(true) | None => Refresher::Us,
                    Some(false) => Refresher::Peer,
                };
                self.session.start(wanted.interval_s, refresher, wire.now);
            }
            Some(_) | None => self.session.stop(),
        }
    }

    /// Returns how many hops the INVITE may take.
    pub(super) fn max_forwards(&self) -> u8 {
        match &self.origin {
            Origin::Outgoing(outgoing) => {
                u8::try_from(outgoing.spec.max_forwards).unwrap_or(u8::MAX)
            }
            Origin::Incoming(_) => 0,
        }
    }

    /// Returns the URI that is called.
    pub fn host_called(&self) -> Option<&str> {
        match &self.origin {
            Origin::Outgoing(outgoing) => Some(&outgoing.spec.uri),
            Origin::Incoming(_) => None,
        }
    }
}

fn build_invite(
    outgoing: &Outgoing,
    profile: &Profile,
    session: &SessionTimer,
    credentials: &[(HeaderName, String)],
    flow: Flow,
    wire: &mut Wire<'_>,
) -> (Via, Bytes) {
    let spec = &outgoing.spec;
    let via = wire.via(flow);
    let mut builder = Builder::request(Method::Invite.as_str(), &spec.uri);
    builder.text(HeaderName::Via, via.text());
    for route in &spec.routes {
        builder.text(HeaderName::Route, route);
    }
    builder
        .number(HeaderName::MaxForwards, spec.max_forwards.into())
        .tagged(HeaderName::From, &spec.from, &outgoing.tag)
        .tagged(HeaderName::To, &spec.to, "")
        .text(HeaderName::CallId, &outgoing.call_id)
        .cseq(outgoing.cseq, Method::Invite.as_str())
        .text(HeaderName::Contact, &wire.contact(flow, &profile.contact_user));
    for (name, value) in &spec.headers {
        builder.raw_header(name, value);
    }
    for (name, value) in credentials {
        builder.header(*name, value);
    }
    match outgoing.min_se_s {
        None => profile.write_session_headers(&mut builder, session, wire.config),
        Some(min_se_s) => {
            profile.write_session_headers_at_least(&mut builder, min_se_s, wire.config)
        }
    }
    profile.write_common_headers(&mut builder, wire.config);
    (via, finish(builder, outgoing.offer.as_ref()))
}

fn contacts(response: &Message) -> Vec<Box<str>> {
    let mut found: Vec<(u32, Box<str>)> = response
        .values(HeaderName::Contact)
        .filter_map(|value| {
            let contact = NameAddr::parse(&value)?;
            contact.parsed_uri()?;
            let q = contact.params.get("q").and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0);
            Some(((q.clamp(0.0, 1.0) * 1000.0) as u32, contact.uri.into()))
        })
        .take(CONTACTS_MAX)
        .collect();
    found.sort_by_key(|(q, _)| std::cmp::Reverse(*q));
    found.into_iter().map(|(_, uri)| uri).collect()
}
