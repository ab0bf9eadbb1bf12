//! What a call leaves behind: the draft of its CDR, its two log lines, why it failed.
//!
//! Owns: the times, the parties, the ending, the quality figures.
//! Never: influences the call.

use super::{
    Ender,
    attempts::Attempts,
    headers::Identity,
    leg::{By, Death, Leg, Refused},
    wire::Wire,
};
use crate::{
    guard,
    ids::{CallId, LegId},
    media::{Discard, Measured, OpenRefusal, Quality},
    observe::{
        blame,
        cdr::{
            CallMedia, Cdr, EndedBy, Ending, Explanation, LegMedia, Party, Route, Stream, Times,
            UtcMs,
        },
        log,
        mask::{Number, Text},
    },
    sdp::{Agreed, NoCommonCodec},
    sip::Uri,
    trunk::{
        refusal::{Answer, Attempt, Auth, Refusal},
        routes::Hop,
    },
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::Span;

pub use crate::observe::cdr::Direction;

/// A 2xx is repeated every T2 = 4 s at the latest (RFC 3261 13.3.1.4).
const REPEATS_LATE: Duration = Duration::from_secs(8);

/// What the store knows of a call that goes on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Told {
    Nothing,
    Routed,
    Answered,
}

/// A CDR in the making.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The call's. Shared: another handle of a span's costs the subscriber two look-ups, at each step.
    span: Arc<Span>,
    cdr: Cdr,
    started: Instant,
    ended: bool,
    recorded: bool,
    told: Told,
    was_private_number: Option<Box<str>>,
    attempts: Attempts,
    /// Whether the carrier ended an answered call for a reason of its own, which is known.
    is_drop_explained: bool,
}

impl Draft {
    pub(super) fn new(
        id: CallId,
        caller: &Leg,
        identity: &Identity,
        dialled: &str,
        direction: Direction,
        wire: &Wire<'_>,
    ) -> Self {
        let times = Times { start: wire.wall.into(), ..Times::default() };
        let trunk = caller.profile.as_trunk().map(|trunk| trunk.name.to_string());
        let span = Arc::new(Span::current());
        if let Some(trunk) = &trunk {
            span.record("trunk", trunk);
        }
        let cdr = Cdr {
            direction,
            caller: Party {
                number: (&*identity.user).into(),
                user: identity.phone.as_ref().map(|user| (&*user.name).into()),
                sip_call_id: Some(caller.sip_call_id().to_owned()),
            },
            callee: Party { number: dialled.into(), ..Party::default() },
            route: Route { dialled: dialled.into(), trunk, ..Route::default() },
            times,
            ..blank(id)
        };
        if !wire.is_overloaded {
            log::call_started(direction, &identity.user, dialled);
        }
        Self {
            span,
            cdr,
            started: wire.now,
            ended: false,
            recorded: false,
            told: Told::Nothing,
            was_private_number: None,
            attempts: Attempts::default(),
            is_drop_explained: false,
        }
    }

    /// Returns the record as it stands.
    pub fn cdr(&self) -> &Cdr {
        &self.cdr
    }

    /// Returns whether there is something of which nobody was told: that the call goes on, or that
    /// somebody has answered.
    pub(super) fn has_news(&mut self) -> bool {
        let known = match (&self.cdr.times.answer, &self.cdr.route.rule) {
            (Some(_), _) => Told::Answered,
            (None, Some(_)) => Told::Routed,
            (None, None) => Told::Nothing,
        };
        let is_news = known > self.told && !self.ended;
        self.told = self.told.max(known);
        is_news
    }

    /// Returns the span in which everything about the call is logged.
    pub fn span(&self) -> &Arc<Span> {
        &self.span
    }

    /// Returns when the call began.
    pub fn started(&self) -> Instant {
        self.started
    }

    fn utc(&self, now: Instant) -> UtcMs {
        let since = now.saturating_duration_since(self.started);
        UtcMs(self.cdr.times.start.0.saturating_add(u64::try_from(since.as_millis()).unwrap_or(0)))
    }

    pub(super) fn routed(&mut self, rule: &str) {
        self.span.record("rule", rule);
        self.cdr.route.rule = Some(rule.to_owned());
    }

    pub(super) fn trunk(&mut self, name: &str, caller_id: &str, number: &str) {
        // A span keeps every value that is recorded in it.
        if self.cdr.route.trunk.as_deref() != Some(name) {
            self.span.record("trunk", name);
        }
        self.cdr.direction = match self.cdr.direction {
            Direction::Internal => Direction::Outbound,
            other @ (Direction::Outbound | Direction::Inbound) => other,
        };
        self.cdr.route.trunk = Some(name.to_owned());
        self.cdr.route.caller_id = Some(caller_id.into());
        self.cdr.callee.number = number.into();
        self.was_private_number = Some(number.into());
    }

    /// A leg was made for this callee.
    pub(super) fn tried(&mut self, leg: &Leg) {
        self.cdr.callee.sip_call_id = Some(leg.sip_call_id().to_owned());
        if let Some(user) = leg.profile.as_phone() {
            self.cdr.callee.user = Some((&*user.name).into());
        }
    }

    pub(super) fn ringing(&mut self, wire: &Wire<'_>) {
        let now = self.utc(wire.now);
        self.cdr.times.ring.get_or_insert(now);
    }

    pub(super) fn answered(&mut self, wire: &Wire<'_>) {
        let now = self.utc(wire.now);
        if self.cdr.times.answer.is_none() {
            self.cdr.times.answer = Some(now);
            self.cdr.ending.why = None;
        }
    }

    pub(super) fn log_answer(&self) {
        let delay_ms = self.cdr.times.answer_delay_ms();
        tracing::debug!(delay_ms, "call answered");
    }

    /// Notes the winner, where several rang.
    pub(super) fn leg_gone(&mut self, is_caller: bool, is_peer: bool, leg: &Leg) {
        if is_peer && !is_caller {
            self.tried(leg);
        }
    }

    pub(super) fn codecs(&mut self, caller: &Agreed, callee: &Agreed) {
        self.cdr.media.caller.codec = Some(caller.format.codec.name().to_owned());
        self.cdr.media.callee.codec = Some(callee.format.codec.name().to_owned());
        self.cdr.media.is_transcoded = caller.format.codec != callee.format.codec;
    }

    /// Notes whether a leg's media is encrypted, and how.
    pub(super) fn encrypted(&mut self, is_caller: bool, agreed: &Agreed) {
        let media = &mut self.cdr.media;
        let side = if is_caller { &mut media.caller } else { &mut media.callee };
        side.srtp = agreed.srtp.as_ref().map(|srtp| srtp.send.suite.name().to_owned());
    }

    pub(super) fn quality(&mut self, is_caller: bool, is_peer: bool, quality: &Quality) {
        let side = match (is_caller, is_peer) {
            (true, _) => &mut self.cdr.media.caller,
            (false, true) => &mut self.cdr.media.callee,
            (false, false) => return,
        };
        note_quality(side, quality);
    }

    pub(super) fn cancelled(&mut self) {
        self.cdr.ending.why = None;
    }

    pub(super) fn ended(&mut self, by: Ender, status: u16, reason: Option<&str>, wire: &Wire<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.cdr.times.end = self.utc(wire.now);
        self.cdr.ending.by = match by {
            Ender::Caller => EndedBy::Caller,
            Ender::Callee => EndedBy::Callee,
            Ender::Us => EndedBy::Tandem,
        };
        self.cdr.ending.status = if self.cdr.times.answer.is_some() { 200 } else { status };
        self.cdr.ending.q850 = reason.and_then(q850).or_else(|| q850_of_status(status));
    }

    fn why(&mut self, code: &str, sentence: String, help: Option<&str>) {
        self.cdr.ending.why = Some(Explanation {
            code: code.to_owned(),
            sentence,
            help: help.map(str::to_owned),
            carrier_errors: vec![],
        });
    }

    pub(super) fn unroutable(&mut self, context: &str, dialled: &str) {
        let sentence = format!("no rule of `{context}` matches {}", Number(dialled));
        let help = format!(
            "add a `[[{context}.rule]]` that matches it; `tandem dialplan try` shows what was tried"
        );
        self.why("R001", sentence, Some(&help));
    }

    pub(super) fn rejected_by_rule(&mut self, status: u16) {
        let rule = self.cdr.route.rule.clone().unwrap_or_default();
        self.why("R002", format!("rule `{rule}` rejects with {status}"), None);
    }

    pub(super) fn looped(&mut self) {
        self.why(
            "R003",
            "the dialplan's `goto`s do not end".to_owned(),
            Some("run `tandem dialplan try` with this number and break the circle"),
        );
    }

    pub(super) fn no_codec(&mut self) {
        self.why(
            "M001",
            "the two sides have no codec in common".to_owned(),
            Some("allow PCMU or PCMA on the phone, or add the codec to `[rtp] codecs`"),
        );
    }

    /// The caller's offer cannot be answered, whoever is called.
    pub(super) fn bad_offer(&mut self, why: &NoCommonCodec) {
        let help = "set the phone's SRTP as the sentence says, or `srtp` of its user or trunk";
        self.why("M004", format!("the caller's offer was refused: {why}"), Some(help));
    }

    pub(super) fn no_port(&mut self, refusal: OpenRefusal) {
        self.why(
            "M003",
            format!("there is no media port for the call: {refusal}"),
            Some("widen `[rtp] ports`, or see what else uses them"),
        );
    }

    pub(super) fn media_timeout(&mut self) {
        self.why(
            "M002",
            "no media came from one side for the whole of `[rtp] timeout`".to_owned(),
            Some("open the RTP ports in the firewall, or set `[node] public_ip`"),
        );
    }

    pub(super) fn died(&mut self, death: Death) {
        let (code, sentence, help) = match death {
            Death::NeverAcked => (
                "S001",
                "our 200 OK was never acknowledged",
                "the caller cannot reach our Contact: set `[node] public_ip`",
            ),
            Death::SessionExpired => (
                "S002",
                "nobody refreshed the session",
                "the phone has gone away; look at its network",
            ),
            Death::Forgotten => (
                "S003",
                "the other side no longer knows the call",
                "the phone or carrier has restarted, or dropped the call without a BYE",
            ),
        };
        self.why(code, sentence.to_owned(), Some(help));
    }

    /// A target that could not even be tried.
    pub(super) fn not_tried(&mut self, refused: &Refused) {
        if refused.guard.is_some() {
            return; // Said already, with the trunk's name.
        }
        let help = match &*refused.reason {
            "Not Registered" => Some("`tandem phones` shows who is registered, and from where"),
            "Trunk Down" => {
                Some("`tandem trunks` shows since when; the carrier answers no OPTIONS")
            }
            _ => None,
        };
        let reason = refused.reason.to_ascii_lowercase();
        self.why("R004", format!("nobody could be called: {reason}"), help);
    }

    /// A guard lets no call leave by this trunk.
    pub(super) fn guarded(&mut self, trunk: &str, refusal: &guard::Refusal) {
        self.cdr.route.trunk.get_or_insert_with(|| trunk.to_owned());
        tracing::warn!(trunk, code = refusal.code(), why = %refusal, "call held back");
        let sentence = format!("the call may not leave by `{trunk}`: {refusal}");
        self.why(refusal.code(), sentence, Some(&refusal.help()));
    }

    /// An INVITE to a carrier goes out.
    pub(super) fn attempt_began(
        &mut self,
        to: (LegId, &str, &Hop),
        caller_id: &str,
        wire: &Wire<'_>,
    ) {
        let after = wire.now.saturating_duration_since(self.started).as_millis();
        let after_ms = u64::try_from(after).unwrap_or(u64::MAX);
        self.attempts.began(to, caller_id, after_ms, wire.now);
    }

    /// It was refused, or nobody has heard it.
    pub(super) fn attempt_refused(&mut self, leg: LegId, refused: &Refused, wire: &Wire<'_>) {
        self.attempts.refused(leg, refused, wire.now);
    }

    /// It was accepted.
    pub(super) fn attempt_answered(&mut self, leg: LegId, wire: &Wire<'_>) {
        self.attempts.answered(leg, wire.now);
    }

    pub(super) fn rang_out(&mut self, leg: &Leg, wire: &Wire<'_>) {
        if leg.is_unheard() && leg.profile.as_trunk().is_some() {
            let refused = Refused::ours(By::Silence, 408, "Request Timeout");
            self.attempts.refused(leg.id(), &refused, wire.now);
            return self.refused(leg, &refused);
        }
        let called = match leg.profile.as_trunk() {
            Some(_) => self.cdr.callee.number.expose(),
            None => &leg.name,
        };
        self.why("R005", format!("{} did not answer in time", Number(called)), None);
    }

    /// A callee refused; what a carrier says is explained in its own terms.
    pub(super) fn refused(&mut self, leg: &Leg, refused: &Refused) {
        if leg.profile.as_trunk().is_some() {
            let why = self.explained(leg, refused);
            tracing::warn!(code = why.code, why = why.sentence, "trunk refused");
            self.cdr.ending.why = Some(why);
            return;
        }
        let name = Number(&leg.name);
        let (code, sentence) = match refused.by {
            By::Peer => {
                ("P001", format!("{name} answered {} {}", refused.status, Text(&refused.reason)))
            }
            By::Silence => ("P002", format!("{name} did not answer at all")),
            By::Transport => ("P003", format!("nothing could be sent to {name}")),
            By::Us => ("R004", format!("{name} could not be called: {}", Text(&refused.reason))),
        };
        self.why(code, sentence, None);
    }

    /// Returns what a carrier's refusal means, in its own terms.
    pub(super) fn refusal(&self, leg: &Leg, refused: &Refused) -> Refusal {
        Refusal::read(&self.attempt(leg, refused), &answer(refused))
    }

    /// Returns the same as a sentence with its evidence.
    pub(super) fn explained(&self, leg: &Leg, refused: &Refused) -> Explanation {
        let refusal = self.refusal(leg, refused);
        let evidence = match (answer(refused), self.attempts.unanswered()) {
            (Answer::Silence, addresses @ 2..) => {
                format!("no answer from any of {addresses} addresses")
            }
            (answer, _) => answer.to_string(),
        };
        explanation(&refusal, format!("{refusal} ({evidence})"))
    }

    /// The callee hung up. A carrier that saw no ACK, or whose limit was reached, does so by itself.
    pub(super) fn dropped(&mut self, leg: &Leg, wire: &Wire<'_>) {
        let Some(answer) = self.cdr.times.answer.filter(|_| leg.profile.as_trunk().is_some())
        else {
            return;
        };
        let answered = Duration::from_millis(answer.since(self.cdr.times.start));
        let after = wire.now.saturating_duration_since(self.started + answered);
        // Only who sees no ACK says its 200 for so long.
        let is_unacked = leg.repeated_answer_at().is_some_and(|at| wire.now < at + REPEATS_LATE);
        if let Some(refusal) = Refusal::of_drop(after, is_unacked) {
            tracing::warn!(code = refusal.code(), why = %refusal, "trunk dropped");
            self.cdr.ending.why = Some(explanation(&refusal, refusal.to_string()));
            self.is_drop_explained = true;
        }
    }

    /// A call from a carrier that we have refused is one of its own errors, too.
    fn refused_inbound(&mut self) {
        let refusal = Refusal::InboundRefused { status: self.cdr.ending.status };
        let why = explanation(&refusal, refusal.to_string());
        match &mut self.cdr.ending.why {
            Some(known) if known.carrier_errors.is_empty() => {
                known.carrier_errors = why.carrier_errors;
            }
            Some(_) => {}
            unknown => *unknown = Some(why),
        }
    }

    fn attempt<'a>(&'a self, leg: &'a Leg, refused: &Refused) -> Attempt<'a> {
        let uri = leg.host_called().and_then(Uri::parse);
        Attempt {
            host: uri.as_ref().map_or("", |uri| uri.host),
            number: self.was_private_number.as_deref().unwrap_or(""),
            caller_id: self.cdr.route.caller_id.as_ref().map_or("", |id| id.expose()),
            auth: match (refused.authenticated, refused.status, &leg.profile.credentials) {
                (true, ..) => Auth::Sent,
                (false, 401 | 407, None) => Auth::Missing,
                (false, ..) => Auth::NotAsked,
            },
            rang: self.cdr.times.ring.is_some(),
            offered_g711: leg.media.has_said_g711(),
            offered_srtp: leg.media.has_said_srtp(),
            max_forwards: leg.max_forwards(),
        }
    }

    pub(super) fn abandoned(&mut self, wire: &Wire<'_>) {
        self.ended(Ender::Us, 500, None, wire);
        self.why(
            "X001",
            "a fault of ours ended the call".to_owned(),
            Some("report it with the log's ERROR line and `tandem call ladder`"),
        );
    }

    /// Returns whether the record is written.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Returns the finished record. A call that is over has no more use for its own.
    pub(super) fn finish(&mut self, is_over: bool, wire: &Wire<'_>) -> Cdr {
        self.recorded = true;
        self.ended(Ender::Us, 500, None, wire);
        // What went wrong before somebody answered is no failure of the call.
        let is_well = self.cdr.times.answer.is_some() && self.cdr.ending.by != EndedBy::Tandem;
        if is_well && !self.is_drop_explained {
            self.cdr.ending.why = None;
        }
        let is_refused = self.cdr.times.answer.is_none() && self.cdr.ending.by == EndedBy::Tandem;
        if is_refused && self.cdr.direction == Direction::Inbound {
            self.refused_inbound();
        }
        self.cdr.route.attempts = self.attempts.finish(wire.now);
        let verdict = blame::judge(&self.cdr);
        let trouble = verdict.as_ref().filter(|verdict| verdict.is_bad);
        if !wire.is_overloaded || self.cdr.is_failed() || trouble.is_some() {
            log::call_ended(&self.cdr, trouble.map(|verdict| verdict.sentence.as_str()));
        }
        self.cdr.quality = verdict.map(|verdict| verdict.sentence);
        let blank = blank(self.cdr.call);
        if is_over { std::mem::replace(&mut self.cdr, blank) } else { self.cdr.clone() }
    }
}

/// Returns a record that says nothing.
fn blank(call: CallId) -> Cdr {
    Cdr {
        call,
        direction: Direction::Internal,
        caller: Party::default(),
        callee: Party::default(),
        route: Route::default(),
        times: Times::default(),
        ending: Ending { by: EndedBy::Tandem, status: 500, q850: None, why: None },
        media: CallMedia::default(),
        quality: None,
        ladder: None,
    }
}

fn explanation(refusal: &Refusal, sentence: String) -> Explanation {
    Explanation {
        code: refusal.code().to_owned(),
        sentence,
        help: refusal.help().map(|help| help.into_owned()),
        carrier_errors: refusal.carrier_errors().to_vec(),
    }
}

fn answer(refused: &Refused) -> Answer {
    match refused.by {
        By::Silence | By::Us => Answer::Silence,
        By::Transport => Answer::Unsent,
        By::Peer => Answer::Final {
            status: refused.status,
            reason: refused.reason.clone(),
            error: refused.carrier_error,
            received: refused.received,
        },
    }
}

fn note_quality(side: &mut LegMedia, quality: &Quality) {
    let stream = |measured: &Measured| Stream {
        packets: measured.packets,
        lost: measured.lost,
        lost_before: measured.lost_before,
        reported: measured.reported,
        jitter_ms: measured.jitter_ms as f32,
        mos: measured.mos.map(|mos| mos as f32),
    };
    side.received = Some(stream(&quality.received));
    side.sent = Some(stream(&quality.sent));
    side.strange = quality.discards.count(Discard::StrangeSource);
    side.relay_jitter_us = Some(quality.relay_jitter_us as u32);
}

/// Reads the cause of a `Q.850;cause=16` Reason value.
fn q850(reason: &str) -> Option<u8> {
    let mut parts = reason.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("Q.850") {
        return None;
    }
    parts.find_map(|part| part.strip_prefix("cause=")?.parse().ok())
}

/// The cause that stands for a SIP status (RFC 3398 8.2.6.1).
fn q850_of_status(status: u16) -> Option<u8> {
    Some(match status {
        200..=299 => 16,
        404 => 1,
        486 | 600 => 17,
        408 => 102,
        480 => 18,
        487 => 127,
        403 | 603 => 21,
        410 => 22,
        484 => 28,
        488 | 606 => 31,
        501 | 415 | 416 => 79,
        502 => 38,
        503 => 41,
        _ => return None,
    })
}
