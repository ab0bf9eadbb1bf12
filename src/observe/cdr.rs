//! What remains of a call: exactly one record for each, also for those that failed.
//!
//! Owns: the record's shape and what can be derived from it.
//! Never: is written more than once a call.

use super::{ladder::Rungs, mask::NumberBuf};
use crate::ids::CallId;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// A point of civil time: milliseconds since 1970 UTC. Prints as `2026-11-03T10:12:13.456Z`.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct UtcMs(pub u64);

impl UtcMs {
    /// Returns the milliseconds from `earlier` to here; 0 where that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads what `Display` prints, and any other RFC 3339 time.
    pub fn parse(text: &str) -> Option<Self> {
        let ms = DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis();
        u64::try_from(ms).ok().map(Self)
    }
}

impl From<SystemTime> for UtcMs {
    fn from(time: SystemTime) -> Self {
        let ms = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        Self(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for UtcMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default();
        f.pad(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// Which way a call went.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From a phone of ours to a phone, a prompt or an address.
    Internal,
    /// From a phone of ours to a trunk.
    Outbound,
    /// From a trunk.
    Inbound,
}

impl Direction {
    /// Every direction, for tables of counters.
    pub const ALL: [Self; 3] = [Self::Internal, Self::Outbound, Self::Inbound];

    /// Returns the word for it, the same everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Who ended a call.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The caller, by CANCEL or BYE.
    Caller,
    /// The callee, by a final response other than 2xx, or BYE.
    Callee,
    /// We: a rule, a timer, an operator, a fault.
    Tandem,
}

impl EndedBy {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Callee => "callee",
            Self::Tandem => "tandem",
        }
    }
}

/// How a call turned out.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Somebody, or a prompt, answered.
    Answered,
    /// The caller gave up first.
    Cancelled,
    /// 486 or 600.
    Busy,
    /// 408 or 480.
    NoAnswer,
    /// Any other final response.
    Refused,
}

impl Outcome {
    /// Every outcome, for tables of counters.
    pub const ALL: [Self; 5] =
        [Self::Answered, Self::Cancelled, Self::Busy, Self::NoAnswer, Self::Refused];

    /// Returns the outcome of a call that ended with `status`, answered or not.
    pub fn of(is_answered: bool, status: u16) -> Self {
        match (is_answered, status) {
            (true, _) => Self::Answered,
            (false, 487) => Self::Cancelled,
            (false, 486 | 600) => Self::Busy,
            (false, 408 | 480) => Self::NoAnswer,
            (false, _) => Self::Refused,
        }
    }

    /// Returns the word for it, the same everywhere.
    pub fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Cancelled => "cancelled",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::Refused => "refused",
        }
    }
}

/// Why something was refused, in words its reader can act on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// Stays the same across releases: `T001`.
    pub code: String,
    /// What refused it, and the evidence.
    pub sentence: String,
    /// What to type where; none where nothing can be done.
    pub help: Option<String>,
    /// The numbers under which the carrier's console and manual speak of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carrier_errors: Vec<u32>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.sentence)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, " (help: {help})"))
    }
}

/// One end of a call.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Party {
    /// Number or user part, as it stood in From or the Request-URI of that leg.
    pub number: NumberBuf,
    /// The user of ours, where it is one.
    pub user: Option<NumberBuf>,
    /// Call-ID of that leg; none where the leg was never tried.
    pub sip_call_id: Option<String>,
}

/// How a call was routed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Route {
    /// What was dialled, as it came.
    pub dialled: NumberBuf,
    /// The rule's name or place: `internal[2]`. None where no rule was consulted.
    pub rule: Option<String>,
    /// The trunk it came from or went to.
    pub trunk: Option<String>,
    /// The caller ID presented to the callee.
    pub caller_id: Option<NumberBuf>,
    /// Every INVITE to a carrier, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
}

/// One INVITE to a carrier.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Attempt {
    /// The trunk.
    pub trunk: String,
    /// The Request-URI's host, with its port where it names one.
    pub host: String,
    /// Transport and address: `udp:54.172.60.0:5060`.
    pub address: String,
    /// The caller ID presented.
    pub caller_id: NumberBuf,
    /// When it was sent, from the call's start on.
    pub after_ms: u64,
    /// From there to its outcome.
    pub took_ms: u64,
    /// What became of it.
    pub outcome: AttemptOutcome,
    /// Status and reason of a refusal, its numbers masked.
    pub words: Option<String>,
}

/// What became of an INVITE to a carrier.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// 2xx.
    Answered,
    /// Any other final response.
    Refused,
    /// Nothing came back.
    Silent,
    /// It could not be sent.
    Unreachable,
    /// We gave it up: the caller hung up, another target answered, nobody picked up in time.
    Abandoned,
}

impl AttemptOutcome {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Unreachable => "unreachable",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Attempt {
    /// `twilio acme.pstn.twilio.com at udp:54.172.60.0:5060: silent after 4000 ms`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trunk, host, address, took_ms, outcome, words, .. } = self;
        write!(f, "{trunk} {host} at {address}: {} after {took_ms} ms", outcome.word())?;
        words.as_ref().map_or(Ok(()), |words| write!(f, " ({words})"))
    }
}

/// When things happened. `start` is the wall clock; the others are `start` plus what the monotonic
/// clock measured, so that durations are right when the wall clock is set.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Times {
    /// The INVITE came in.
    pub start: UtcMs,
    /// The first 18x went to the caller.
    pub ring: Option<UtcMs>,
    /// The 2xx went to the caller.
    pub answer: Option<UtcMs>,
    /// The last leg was told to go.
    pub end: UtcMs,
}

impl Times {
    /// Returns the post-dial delay: from the INVITE to the first ring, in ms.
    pub fn ring_delay_ms(&self) -> Option<u64> {
        self.ring.map(|ring| ring.since(self.start))
    }

    /// Returns how long it took to answer, in ms from the INVITE.
    pub fn answer_delay_ms(&self) -> Option<u64> {
        self.answer.map(|answer| answer.since(self.start))
    }

    /// Returns how long they talked, in ms; 0 where nobody answered.
    pub fn talk_ms(&self) -> u64 {
        self.answer.map_or(0, |answer| self.end.since(answer))
    }

    /// Returns how long it took altogether, in ms.
    pub fn total_ms(&self) -> u64 {
        self.end.since(self.start)
    }
}

/// How a call ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ending {
    /// By whom.
    pub by: EndedBy,
    /// The final status that the caller got; 200 for an answered call.
    pub status: u16,
    /// ITU-T Q.850, from a Reason header (RFC 3326) or by the status.
    pub q850: Option<u8>,
    /// Why, where the call failed.
    pub why: Option<Explanation>,
}

/// One direction of one leg's media.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Stream {
    /// Packets received, or sent.
    pub packets: u64,
    /// Packets lost on the way (RFC 3550 6.4.1).
    pub lost: u64,
    /// Of the lost ones, those that were lost before they came to us.
    #[serde(default)]
    pub lost_before: u64,
    /// Of how many packets `lost` speaks: those sent when the peer reported last.
    #[serde(default)]
    pub reported: u64,
    /// Interarrival jitter (RFC 3550 6.4.1).
    pub jitter_ms: f32,
    /// Mean opinion score by the E-model (ITU-T G.107), 1.0 to 4.5; none without packets.
    pub mos: Option<f32>,
}

/// One leg's media.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LegMedia {
    /// The codec agreed on last; none where the leg got no media.
    pub codec: Option<String>,
    /// The suite of SRTP; none where the media was plain.
    #[serde(default)]
    pub srtp: Option<String>,
    /// From the peer to us, as we measured it.
    pub received: Option<Stream>,
    /// From us to the peer, as its RTCP reports say.
    pub sent: Option<Stream>,
    /// Jitter that our relay added to what this leg received, in µs.
    pub relay_jitter_us: Option<u32>,
    /// Packets from where the peer's media may not come.
    #[serde(default)]
    pub strange: u64,
}

/// Both legs' media.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CallMedia {
    /// The caller's leg.
    pub caller: LegMedia,
    /// The callee's leg.
    pub callee: LegMedia,
    /// Whether one codec was turned into another.
    pub is_transcoded: bool,
}

/// A call detail record.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cdr {
    /// Ours.
    #[serde(with = "as_text")]
    pub call: CallId,
    /// Which way it went.
    pub direction: Direction,
    /// Who called.
    pub caller: Party,
    /// Who was called: the one that answered, else the last one tried.
    pub callee: Party,
    /// How it was routed.
    pub route: Route,
    /// When.
    pub times: Times,
    /// How it ended.
    pub ending: Ending,
    /// What was heard.
    pub media: CallMedia,
    /// How good it was, and on which stretch it was not; none where there was little to hear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<String>,
    /// What was said on the wire, if it is to be kept; apart from the record, and not in its JSON.
    #[serde(skip)]
    pub ladder: Option<Rungs>,
}

impl Cdr {
    /// Returns the record of a call whose process has died. It was `seen` alive then; nobody knows what
    /// came after.
    #[must_use]
    pub fn lost(mut self, seen: UtcMs) -> Self {
        let begun = self.times.answer.or(self.times.ring).unwrap_or(self.times.start);
        self.times.end = seen.max(begun);
        let why = Explanation {
            code: "X002".to_owned(),
            sentence: "tandem ended while the call was up; when the call ended is not known"
                .to_owned(),
            help: Some(
                "see what killed it: `journalctl -u tandem`, and `dmesg` for want of memory".into(),
            ),
            carrier_errors: vec![],
        };
        let status = if self.times.answer.is_some() { 200 } else { 500 };
        // Q.850 41: temporary failure.
        self.ending = Ending { by: EndedBy::Tandem, status, q850: Some(41), why: Some(why) };
        self
    }

    /// Returns how the call turned out.
    pub fn outcome(&self) -> Outcome {
        Outcome::of(self.times.answer.is_some(), self.ending.status)
    }

    /// Returns whether an operator would want to know why: it has an explanation, or was refused.
    pub fn is_failed(&self) -> bool {
        self.ending.why.is_some() || self.outcome() == Outcome::Refused
    }
}

/// Call identifiers in JSON look as they do everywhere else.
pub(crate) mod as_text {
    use crate::ids::CallId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(id: &CallId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<CallId, D::Error> {
        let text = String::deserialize(from)?;
        CallId::parse(&text).ok_or_else(|| D::Error::custom("not a call's identifier"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ids::ShardId;

    /// A call through a trunk that was answered, with everything filled in.
    pub(crate) fn answered(serial: u64) -> Cdr {
        let stream = |lost| Stream {
            packets: 250,
            lost,
            lost_before: 0,
            reported: 250,
            jitter_ms: 1.5,
            mos: Some(4.4),
        };
        let leg = |codec: &str| LegMedia {
            codec: Some(codec.into()),
            srtp: (codec == "PCMA").then(|| "AES_CM_128_HMAC_SHA1_80".into()),
            received: Some(stream(1)),
            sent: Some(stream(0)),
            relay_jitter_us: Some(120),
            strange: 0,
        };
        Cdr {
            call: CallId::new(ShardId(0), serial),
            direction: Direction::Outbound,
            caller: Party {
                number: "1001".into(),
                user: Some("1001".into()),
                sip_call_id: Some(format!("a{serial}@phone")),
            },
            callee: Party {
                number: "+14155550199".into(),
                user: None,
                sip_call_id: Some(format!("b{serial}")),
            },
            route: Route {
                dialled: "(415) 555-0199".into(),
                rule: Some("internal[2]".into()),
                trunk: Some("twilio".into()),
                caller_id: Some("+17756187988".into()),
                attempts: vec![attempt(AttemptOutcome::Answered, None)],
            },
            times: Times {
                start: UtcMs(1_000_000 + serial * 10_000),
                ring: Some(UtcMs(1_000_100 + serial * 10_000)),
                answer: Some(UtcMs(1_000_900 + serial * 10_000)),
                end: UtcMs(1_005_900 + serial * 10_000),
            },
            ending: Ending { by: EndedBy::Caller, status: 200, q850: Some(16), why: None },
            media: CallMedia { caller: leg("PCMU"), callee: leg("PCMA"), is_transcoded: true },
            quality: Some("good: loss at most 0.4 %, jitter at most 2 ms".into()),
            ladder: None,
        }
    }

    fn attempt(outcome: AttemptOutcome, words: Option<&str>) -> Attempt {
        Attempt {
            trunk: "twilio".into(),
            host: "acme.pstn.twilio.com".into(),
            address: "udp:54.172.60.0:5060".into(),
            caller_id: "+17756187988".into(),
            after_ms: 1,
            took_ms: 899,
            outcome,
            words: words.map(Into::into),
        }
    }

    /// A call that the trunk refused.
    pub(crate) fn refused(serial: u64) -> Cdr {
        let mut cdr = answered(serial);
        cdr.times.answer = None;
        (cdr.media, cdr.quality) = (CallMedia::default(), None);
        cdr.route.attempts = vec![
            attempt(AttemptOutcome::Silent, None),
            attempt(AttemptOutcome::Refused, Some("403 Forbidden")),
        ];
        cdr.ending = Ending {
            by: EndedBy::Callee,
            status: 403,
            q850: None,
            why: Some(Explanation {
                code: "T001".into(),
                sentence: "the carrier does not let us call from +1775****988".into(),
                help: Some("set `caller_id` to a number of this account".into()),
                carrier_errors: vec![32204, 32206],
            }),
        };
        cdr
    }

    #[test]
    fn times_are_rfc_3339_and_read_back() {
        let time = UtcMs(1_793_873_533_456);
        assert_eq!(time.to_string(), "2026-11-05T10:12:13.456Z");
        assert_eq!(UtcMs::parse(&time.to_string()), Some(time));
        assert_eq!(UtcMs::parse("2026-11-05T11:12:13.456+01:00"), Some(time));
        assert_eq!(UtcMs::parse("yesterday"), None);
        assert_eq!(UtcMs::from(UNIX_EPOCH), UtcMs(0));
    }

    #[test]
    fn durations_follow_from_the_times() {
        let times = answered(0).times;
        assert_eq!(times.ring_delay_ms(), Some(100));
        assert_eq!(times.answer_delay_ms(), Some(900));
        assert_eq!((times.talk_ms(), times.total_ms()), (5_000, 5_900));
        assert_eq!(refused(0).times.talk_ms(), 0);
    }

    #[test]
    fn the_outcome_follows_from_answer_and_status() {
        for (is_answered, status, outcome) in [
            (true, 200, Outcome::Answered),
            (false, 487, Outcome::Cancelled),
            (false, 486, Outcome::Busy),
            (false, 600, Outcome::Busy),
            (false, 408, Outcome::NoAnswer),
            (false, 480, Outcome::NoAnswer),
            (false, 404, Outcome::Refused),
            (false, 503, Outcome::Refused),
        ] {
            assert_eq!(Outcome::of(is_answered, status), outcome, "{status}");
        }
        assert!(refused(0).is_failed() && !answered(0).is_failed());
    }

    #[test]
    fn a_record_travels_as_json_and_prints_no_number() {
        let cdr = refused(42);
        let json = serde_json::to_string(&cdr).unwrap();
        assert!(json.contains("\"call\":\"c00-2a\""), "{json}");
        assert_eq!(serde_json::from_str::<Cdr>(&json).unwrap(), cdr);
        assert!(!format!("{cdr:?}").contains("5550199"), "{cdr:?}");
    }
}
