//! Requests inside a leg's dialog, from the peer and to it (RFC 3261 12.2, 14, 15; RFC 3311).
//!
//! Owns: the order of requests, glare, who answers an offer.
//! Never: looks into an offer; the call negotiates.

use super::{
    incoming::allows_update,
    leg::{By, Death, InDialog, Leg, LegEvent, Origin, Pending, Purpose, Stage, description},
    wire::Wire,
};
use crate::{
    dialog::{Glare, Order, RefuseOffer, Success},
    ids::Flow,
    sdp::Description,
    sip::{Builder, HeaderName, Message, Method, default_reason},
    transaction::{ClientId, ServerId},
};
use bytes::Bytes;
use std::time::Duration;

/// The methods we take inside a dialog, for Allow.
pub const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK";
/// Digits in an INFO body are at most this long (RFC 4733 has no limit; a finger does).
const DIGIT_MS_MAX: u16 = 5000;
const DIGIT_MS_DEFAULT: u16 = 160;
/// When a refresh is tried again, where the peer that refused it does not say.
const REFRESH_AGAIN: Duration = Duration::from_secs(5);

impl Leg {
    /// Returns whether a request with this Call-ID and From tag belongs to this leg's dialog.
    pub fn owns(&self, request: &Message) -> bool {
        let from_tag = request.from_tag().unwrap_or("");
        match &self.dialog {
            Some(dialog) => dialog.is(request.call_id(), from_tag),
            // A called peer may send UPDATE or BYE in a dialog that is still early.
            None => self.sip_call_id() == request.call_id(),
        }
    }

    /// Takes a request of the peer's inside the dialog, other than ACK and CANCEL.
    pub fn handle_request(
        &mut self,
        tx: ServerId,
        request: &Message,
        flow: Flow,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        if let Some(dialog) = &mut self.dialog
            && dialog.note_request(request, flow) == Order::Stale
        {
            let _ = self.reply_to((tx, request), (500, "CSeq Out Of Order"), |_| {}, None, wire);
            return;
        }
        match request.method() {
            Method::Bye => self.take_bye(tx, request, wire, out),
            Method::Invite => self.take_reinvite(tx, request, wire, out),
            Method::Update => self.take_update(tx, request, wire, out),
            Method::Prack => self.handle_prack(tx, request, wire, out),
            Method::Info => self.take_info(tx, request, wire, out),
            Method::Options => {
                let accept = |builder: &mut Builder| {
                    builder.header(HeaderName::Accept, "application/sdp");
                };
                self.reply_to((tx, request), (200, "OK"), accept, None, wire);
            }
            Method::Ack
            | Method::Cancel
            | Method::Message
            | Method::Notify
            | Method::Publish
            | Method::Refer
            | Method::Register
            | Method::Subscribe
            | Method::Other => self.say(tx, request, 405, wire),
        }
    }

    fn take_bye(
        &mut self,
        tx: ServerId,
        request: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        self.say(tx, request, 200, wire);
        let reason = request.header_str(HeaderName::Reason).map(|r| r.into());
        match self.stage {
            // RFC 3261 15.1.2: BYE in an early dialog ends the INVITE as a CANCEL would.
            Stage::Ringing => out.push(LegEvent::Cancelled { reason }),
            Stage::Unacknowledged | Stage::Up => {
                out.push(LegEvent::HungUp { reason });
                self.leave(wire, out);
            }
            // Our BYE and theirs met on the wire.
            Stage::Leaving => self.leave(wire, out),
            Stage::Opening | Stage::Gone => {}
        }
    }

    fn take_reinvite(
        &mut self,
        tx: ServerId,
        request: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        if !matches!(self.stage, Stage::Up) {
            return self.refuse_early(tx, request, wire);
        }
        match description(request) {
            Ok(Some(sdp)) => self.take_offer(tx, request, sdp, wire, out),
            Ok(None) => {
                if let Err(refuse) = self.modify.they_offer() {
                    return self.refuse_glare(tx, request, refuse, wire);
                }
                self.note_refresh(request);
                self.asked = Some((tx, request.clone()));
                out.push(LegEvent::OfferWanted { tx, request: request.clone() });
            }
            Err(()) => self.say(tx, request, 488, wire),
        }
    }

    fn take_update(
        &mut self,
        tx: ServerId,
        request: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        if !matches!(self.stage, Stage::Up | Stage::Ringing | Stage::Unacknowledged) {
            return self.say(tx, request, 481, wire);
        }
        match description(request) {
            Ok(Some(sdp)) => self.take_offer(tx, request, sdp, wire, out),
            Ok(None) => {
                self.note_refresh(request);
                self.accept(tx, request, None, wire);
            }
            Err(()) => self.say(tx, request, 488, wire),
        }
    }

    /// Passes an offer to the call, unless one is outstanding already.
    pub(super) fn take_offer(
        &mut self,
        tx: ServerId,
        request: &Message,
        sdp: Description,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        if let Err(refuse) = self.modify.they_offer() {
            return self.refuse_glare(tx, request, refuse, wire);
        }
        self.note_refresh(request);
        self.asked = Some((tx, request.clone()));
        out.push(LegEvent::Offered { tx, request: request.clone(), sdp });
    }

    fn note_refresh(&mut self, request: &Message) {
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh_target(request);
        }
        self.peer_allows_update |= allows_update(request);
    }

    fn refuse_glare(
        &self,
        tx: ServerId,
        request: &Message,
        refuse: RefuseOffer,
        wire: &mut Wire<'_>,
    ) {
        match refuse {
            RefuseOffer::Glare => self.say(tx, request, 491, wire),
            RefuseOffer::Overlap => {
                let seconds = wire.entropy.below(10);
                let retry = |builder: &mut Builder| {
                    builder.header(HeaderName::RetryAfter, seconds);
                };
                self.reply_to((tx, request), (500, "Offer Outstanding"), retry, None, wire);
            }
        }
    }

    /// RFC 3261 14.2: a second INVITE before the first has been finished.
    fn refuse_early(&self, tx: ServerId, request: &Message, wire: &mut Wire<'_>) {
        match self.stage {
            Stage::Ringing | Stage::Unacknowledged => {
                self.refuse_glare(tx, request, RefuseOffer::Overlap, wire);
            }
            Stage::Opening | Stage::Up | Stage::Leaving | Stage::Gone => {
                self.say(tx, request, 481, wire);
            }
        }
    }

    fn take_info(
        &self,
        tx: ServerId,
        request: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let digit = match request.body() {
            [] => Ok(None),
            body => read_digit(request, body).map(Some).ok_or(()),
        };
        match digit {
            Ok(digit) => {
                self.say(tx, request, 200, wire);
                out.extend(
                    digit.map(|(digit, duration_ms)| LegEvent::Digit { digit, duration_ms }),
                );
            }
            Err(()) => {
                let accept = |builder: &mut Builder| {
                    builder.header(HeaderName::Accept, "application/dtmf-relay, application/dtmf");
                };
                self.reply_to((tx, request), (415, default_reason(415)), accept, None, wire);
            }
        }
    }

    /// Makes an offer to the peer: UPDATE where the dialog is early or the peer prefers none else,
    /// re-INVITE where it is up. Returns whether it could be made now.
    pub fn offer(&mut self, sdp: Bytes, wire: &mut Wire<'_>) -> bool {
        if self.stage != Stage::Up || !self.modify.we_offer(wire.now) {
            return false;
        }
        let reinvite = InDialog::new(Purpose::Offer, Method::Invite, Some(sdp));
        self.send_in_dialog(reinvite, wire);
        true
    }

    /// Returns whether [`Self::offer`] would be made now.
    pub fn may_offer(&self, now: std::time::Instant) -> bool {
        let mut modify = self.modify;
        self.stage == Stage::Up && modify.we_offer(now)
    }

    /// Accepts the peer's re-INVITE, UPDATE or PRACK, with our answer or, where it asked for one,
    /// our offer.
    pub fn answer_offer(&mut self, sdp: &Bytes, wire: &mut Wire<'_>) {
        let Some((tx, request)) = self.asked.take() else { return };
        self.accept(tx, &request, Some(sdp), wire);
    }

    fn accept(
        &mut self,
        tx: ServerId,
        request: &Message,
        sdp: Option<&Bytes>,
        wire: &mut Wire<'_>,
    ) {
        let contact = self.flow().map(|flow| wire.contact(flow, &self.profile.contact_user));
        let mut timer = None;
        if matches!(request.method(), Method::Invite | Method::Update) {
            timer = self.accept_session_timer(request, wire);
        }
        let headers = |builder: &mut Builder| {
            if let Some(contact) = contact {
                builder.header(HeaderName::Contact, contact);
            }
            if let Some(timer) = timer {
                timer.write(builder);
            }
        };
        let bytes = self.reply_to((tx, request), (200, "OK"), headers, sdp, wire);
        if request.method() == Method::Invite {
            self.success = Some((tx, Success::new(request.cseq().number, bytes, wire.now)));
            self.ack_answers = !request.has_sdp();
        } else if sdp.is_some() {
            self.modify.settle();
            self.note_early_update();
        }
    }

    /// Refuses the peer's re-INVITE, UPDATE or PRACK; what was agreed before holds.
    pub fn refuse_offer(&mut self, status: u16, wire: &mut Wire<'_>) {
        let Some((tx, request)) = self.asked.take() else { return };
        self.modify.settle();
        self.say(tx, &request, status, wire);
    }

    pub(super) fn handle_offer_response(
        &mut self,
        tx: ClientId,
        purpose: Purpose,
        response: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let status = response.status();
        if status < 200 || self.retry_with_credentials(tx, response, wire) {
            return;
        }
        let Some(pending) = self.finish(tx, wire) else { return };
        if pending.method == Method::Invite && status < 300 {
            self.ack_reinvite(tx, pending.cseq, response, wire);
        }
        let offered = pending.body.is_some();
        if purpose == Purpose::Refresh && status >= 300 {
            return self.refresh_refused(&pending, response, wire, out);
        }
        match status {
            200..=299 => {
                if offered {
                    self.modify.settle();
                }
                self.read_session_timer(response, wire);
                if purpose == Purpose::Offer {
                    let sdp = description(response).unwrap_or(None);
                    out.push(LegEvent::OfferAnswered { sdp });
                }
            }
            // RFC 3261 12.2.1.2: these end the dialog, whatever the request was. The call says BYE.
            408 | 481 => {
                self.modify.settle();
                out.push(LegEvent::Dead(Death::Forgotten));
            }
            491 if offered => {
                let wait = self.glare().wait(wire.entropy);
                self.modify.back_off(wire.now + wait);
                out.push(LegEvent::OfferRefused { status });
            }
            _ => {
                self.modify.settle();
                out.push(LegEvent::OfferRefused { status });
            }
        }
    }

    /// Takes the end of a re-INVITE or UPDATE without a response: silence is the end of the dialog
    /// (RFC 3261 12.2.1.2), a transport's failure is a 503 (8.1.3.1).
    pub(super) fn handle_offer_failure(
        &mut self,
        tx: ClientId,
        by: By,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        let Some(pending) = self.finish(tx, wire) else { return };
        if pending.body.is_some() {
            self.modify.settle();
        }
        match (by, pending.purpose) {
            (By::Transport, Purpose::Refresh) => self.session.retry(REFRESH_AGAIN, wire.now),
            (By::Transport, _) => out.push(LegEvent::OfferRefused { status: 503 }),
            (By::Silence | By::Peer | By::Us, _) => out.push(LegEvent::Dead(Death::Forgotten)),
        }
    }

    /// The peer refused to refresh the session. Where it is only busy it is asked again in time; where
    /// it knows no UPDATE, by re-INVITE; what else it says leaves the session to its end.
    fn refresh_refused(
        &mut self,
        pending: &Pending,
        response: &Message,
        wire: &mut Wire<'_>,
        out: &mut Vec<LegEvent>,
    ) {
        if pending.body.is_some() {
            self.modify.settle();
        }
        match response.status() {
            408 | 481 => out.push(LegEvent::Dead(Death::Forgotten)),
            491 => {
                let wait = self.glare().wait(wire.entropy);
                if pending.body.is_some() {
                    self.modify.back_off(wire.now + wait);
                }
                self.session.retry(wait, wire.now);
            }
            500 | 503 => {
                let named_s = response.number(HeaderName::RetryAfter).map(u64::from);
                let wait = named_s.map_or(REFRESH_AGAIN, Duration::from_secs);
                self.session.retry(wait, wire.now);
            }
            405 | 501 if pending.method == Method::Update => {
                self.peer_allows_update = false;
                self.refresh(wire);
            }
            _ => {}
        }
    }

    /// RFC 3261 14.1: whoever chose the Call-ID waits longer.
    fn glare(&self) -> Glare {
        match self.origin {
            Origin::Outgoing(_) => Glare::OwnCallId,
            Origin::Incoming(_) => Glare::TheirCallId,
        }
    }

    fn ack_reinvite(&mut self, tx: ClientId, cseq: u32, response: &Message, wire: &mut Wire<'_>) {
        let Some(dialog) = &mut self.dialog else { return };
        dialog.refresh_target(response);
        let flow = dialog.flow();
        let ack = dialog.ack(cseq, wire.via(flow).text()).finish();
        wire.acks.keep(tx, response.to_tag().unwrap_or(""), flow, ack.clone(), wire.now);
        wire.send(flow, ack);
    }
}

/// Reads `application/dtmf-relay` (`Signal=5`, `Duration=160`) and `application/dtmf` (`5`).
fn read_digit(request: &Message, body: &[u8]) -> Option<(char, u16)> {
    let text = std::str::from_utf8(body).ok()?;
    let (signal, duration_ms) = if request.content_type_is("application/dtmf-relay") {
        let field = |name: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let duration = field("Duration").and_then(|d| d.parse().ok()).unwrap_or(DIGIT_MS_DEFAULT);
        (field("Signal")?, duration)
    } else if request.content_type_is("application/dtmf") {
        (text.trim(), DIGIT_MS_DEFAULT)
    } else {
        return None;
    };
    let digit = match signal {
        "10" => '*',
        "11" => '#',
        _ => signal.chars().next().filter(|_| signal.len() == 1)?.to_ascii_uppercase(),
    };
    matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D')
        .then_some((digit, duration_ms.clamp(40, DIGIT_MS_MAX)))
}
