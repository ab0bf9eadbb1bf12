//! Why the carrier did not connect a call, in terms its customer can act on.
//!
//! Owns: the causes with their stable codes, sentences and remedies, and how an answer is read.
//! Never: prints a telephone number in full, or decides what the caller hears.
//!
//! The table is Twilio's (SIP status, `X-Twilio-Error` number, reason phrase); other carriers use the
//! same statuses, and what is not in the table is [`Refusal::Other`] with the carrier's own words.

pub use super::answer::{Answer, carrier_error};

use crate::observe::mask::{NumberBuf, Text};
use std::{borrow::Cow, fmt, net::IpAddr, time::Duration};

/// The carrier gives up on a dialog without our ACK after 64*T1 (RFC 3261 13.3.1.4).
const UNACKED_S: std::ops::RangeInclusive<u64> = 28..=36;
/// The carrier's limits of a call's length: 4 hours, or 24 by agreement.
const MAX_DURATION_H: [u64; 2] = [4, 24];

/// How far authentication had come when the answer arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Auth {
    /// The trunk never asked.
    NotAsked,
    /// The trunk asked, and we have neither user nor password.
    Missing,
    /// The refused request carried credentials.
    Sent,
}

/// What we sent, as far as it can be the reason.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The host of the Request-URI.
    pub host: &'a str,
    /// The number called, as in the Request-URI.
    pub number: &'a str,
    /// The number presented, as in From.
    pub caller_id: &'a str,
    /// How far authentication had come.
    pub auth: Auth,
    /// Whether a 180 or 183 came first.
    pub rang: bool,
    /// Whether PCMU or PCMA was offered.
    pub offered_g711: bool,
    /// Whether SRTP was offered.
    pub offered_srtp: bool,
    /// The Max-Forwards sent.
    pub max_forwards: u8,
}

/// Why the carrier did not connect a call, or ended it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Anything we have no better word for.
    #[error("the carrier refused with {status} {reason}")]
    Other {
        /// The SIP status.
        status: u16,
        /// The reason phrase, its numbers masked.
        reason: Box<str>,
    },
    /// No response at all.
    #[error("{host} did not answer")]
    NoAnswer {
        /// The host of the Request-URI.
        host: Box<str>,
    },
    /// Nothing could be sent.
    #[error("nothing could be sent to {host}")]
    Unsent {
        /// The host of the Request-URI.
        host: Box<str>,
    },
    /// 400 (32101, 32206).
    #[error("the carrier does not take {number} for a telephone number")]
    InvalidNumber {
        /// The number that is wrong: called or presented.
        number: NumberBuf,
    },
    /// 400 (32100).
    #[error("the carrier's account is on trial and {number} is not verified in it")]
    NotVerified {
        /// The number called.
        number: NumberBuf,
    },
    /// 403 to a request without credentials (32201).
    #[error("the carrier does not accept calls from {}", Seen(.seen))]
    SourceNotAllowed {
        /// Our address as the carrier saw it.
        seen: Option<IpAddr>,
    },
    /// 403, or a second challenge, after credentials (32202).
    #[error("the carrier rejected our user name or password")]
    CredentialsRejected,
    /// 401 or 407, and nothing to answer it with.
    #[error("the carrier asks for a user name and password, and this trunk has none")]
    NoCredentials,
    /// 403 (32204, 32206).
    #[error("the carrier does not let us call from {caller_id}")]
    CallerIdNotOurs {
        /// The number presented.
        caller_id: NumberBuf,
    },
    /// 403 (32205).
    #[error("the carrier does not let this account call the country of {number}")]
    CountryNotEnabled {
        /// The number called.
        number: NumberBuf,
    },
    /// 403 (32203, 32216).
    #[error("the carrier blocks calls to {number} or from this address")]
    Blocked {
        /// The number called.
        number: NumberBuf,
    },
    /// 404: the host is a SIP domain, not a trunk's termination URI.
    #[error("{host} is a SIP domain, not a termination URI")]
    NotATerminationUri {
        /// The host of the Request-URI.
        host: Box<str>,
    },
    /// 404, 410, 484, 604.
    #[error("{number} does not exist")]
    NoSuchNumber {
        /// The number called.
        number: NumberBuf,
    },
    /// 415, 488, 606 without G.711 in the offer (32102).
    #[error("the carrier knows none of the codecs offered")]
    NoCommonCodec,
    /// 415, 488, 606 although G.711 was offered (32207, 32208, 32209).
    #[error("the carrier wants {} media on this trunk", if *.offered_srtp { "plain" } else { "encrypted" })]
    SecurityMismatch {
        /// What we offered.
        offered_srtp: bool,
    },
    /// 422.
    #[error("the carrier refuses session timers")]
    SessionTimer,
    /// 483 (32006).
    #[error("the carrier found Max-Forwards {sent} too small")]
    MaxForwards {
        /// What we sent.
        sent: u8,
    },
    /// 503 (32001, 32012).
    #[error("more calls were started at once than the carrier allows a second")]
    CallsPerSecond,
    /// 503.
    #[error("more calls are up than the carrier allows at the same time")]
    ConcurrentCalls,
    /// 603 before ringing (32005).
    #[error("the carrier has suspended the account, or it is out of funds")]
    AccountSuspended,
    /// 603 after ringing.
    #[error("{number} declined the call")]
    Declined {
        /// The number called.
        number: NumberBuf,
    },
    /// 486, 600.
    #[error("{number} is busy")]
    Busy {
        /// The number called.
        number: NumberBuf,
    },
    /// 408, 480 (32016).
    #[error("{number} cannot be reached or did not pick up")]
    NotReached {
        /// The number called.
        number: NumberBuf,
    },
    /// 500, 502, 503, 504, 505, 580.
    #[error("the carrier has a problem of its own: {status} {reason}")]
    Trouble {
        /// The SIP status.
        status: u16,
        /// The reason phrase, its numbers masked.
        reason: Box<str>,
    },
    /// A BYE 64*T1 after the answer (32022).
    #[error(
        "the carrier ended the call {after_s} s after the answer, as if our ACK had not arrived"
    )]
    AckLost {
        /// From the answer to the BYE.
        after_s: u64,
    },
    /// A BYE at the carrier's limit (32015).
    #[error("the carrier ended the call at its limit of {hours} hours")]
    MaxDuration {
        /// The limit.
        hours: u64,
    },
    /// A REFER refused (32218).
    #[error("the carrier does not let this trunk transfer calls")]
    TransferNotEnabled,
    /// A REFER refused (32219).
    #[error("the carrier does not transfer or redirect to that target")]
    TransferTarget,
    /// A call from the carrier that we refused (32010, 32011).
    #[error("we answered the carrier's call with {status}")]
    InboundRefused {
        /// Our own final response.
        status: u16,
    },
}

impl Refusal {
    /// Reads the answer to an INVITE: the carrier's error number first, its words next, the status last.
    pub fn read(attempt: &Attempt<'_>, answer: &Answer) -> Self {
        match answer {
            Answer::Silence => Self::NoAnswer { host: attempt.host.into() },
            Answer::Unsent => Self::Unsent { host: attempt.host.into() },
            Answer::Final { status, reason, error, received } => error
                .and_then(|error| Self::of_error(attempt, error, *received))
                .or_else(|| Self::of_words(attempt, *status, &reason.to_ascii_lowercase()))
                .unwrap_or_else(|| Self::of_status(attempt, *status, reason, *received)),
        }
    }

    /// Reads the refusal of a REFER.
    pub fn of_transfer(answer: &Answer) -> Self {
        match answer {
            Answer::Final { error: Some(32219), .. } => Self::TransferTarget,
            Answer::Final { status: 404 | 416 | 484, .. } => Self::TransferTarget,
            Answer::Final { .. } | Answer::Silence | Answer::Unsent => Self::TransferNotEnabled,
        }
    }

    /// Reads a BYE from the carrier, by the time since the answer: one at its limit, or one from a
    /// carrier that has repeated its 200 all the time.
    pub fn of_drop(after: Duration, is_unacked: bool) -> Option<Self> {
        let after_s = after.as_secs();
        let limit = |hours: &u64| (hours * 3600..=hours * 3600 + 5).contains(&after_s);
        if is_unacked && UNACKED_S.contains(&after_s) {
            return Some(Self::AckLost { after_s });
        }
        MAX_DURATION_H.into_iter().find(limit).map(|hours| Self::MaxDuration { hours })
    }

    /// The numbers of the carrier's error catalogue that concern a call we place.
    fn of_error(attempt: &Attempt<'_>, error: u32, seen: Option<IpAddr>) -> Option<Self> {
        let number = NumberBuf::from(attempt.number);
        Some(match error {
            32100 => Self::NotVerified { number },
            32101 => Self::InvalidNumber { number },
            32201 => Self::SourceNotAllowed { seen },
            32202 | 32106 => Self::CredentialsRejected,
            32200 => Self::NoCredentials,
            32204 | 32206 | 32017 => Self::caller_id(attempt),
            32205 => Self::CountryNotEnabled { number },
            32203 | 32216 => Self::Blocked { number },
            32102 => Self::NoCommonCodec,
            32207 => Self::SecurityMismatch { offered_srtp: true },
            32208 | 32209 => Self::SecurityMismatch { offered_srtp: false },
            32006 => Self::MaxForwards { sent: attempt.max_forwards },
            32001 | 32012 => Self::CallsPerSecond,
            32005 => Self::AccountSuspended,
            32016 => Self::NotReached { number },
            _ => return None,
        })
    }

    /// The words the carrier is known to use, where the status alone leaves several causes.
    fn of_words(attempt: &Attempt<'_>, status: u16, words: &str) -> Option<Self> {
        let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let number = NumberBuf::from(attempt.number);
        match status {
            400 if says(&["unverified", "not verified", "trial"]) => {
                Some(Self::NotVerified { number })
            }
            400 if says(&["caller id", "callerid", "from number"]) => {
                Some(Self::InvalidNumber { number: NumberBuf::from(attempt.caller_id) })
            }
            400 if says(&["number", "e.164", "e164"]) => Some(Self::invalid_number(attempt)),
            403 if says(&["caller id", "callerid", "caller-id"]) => Some(Self::caller_id(attempt)),
            403 if says(&["international", "geo", "country"]) => {
                Some(Self::CountryNotEnabled { number })
            }
            403 if says(&["fraud", "blacklist", "blocklist", "blocked"]) => {
                Some(Self::Blocked { number })
            }
            403 if says(&["credential"]) => Some(Self::CredentialsRejected),
            403 | 603 if says(&["suspend", "fund", "balance"]) => Some(Self::AccountSuspended),
            503 if says(&["concurrent"]) => Some(Self::ConcurrentCalls),
            503 if says(&["cps", "calls per second"]) => Some(Self::CallsPerSecond),
            _ => None,
        }
    }

    fn of_status(attempt: &Attempt<'_>, status: u16, reason: &str, seen: Option<IpAddr>) -> Self {
        let number = NumberBuf::from(attempt.number);
        match (status, attempt.auth) {
            (400, _) if !(is_e164(attempt.number) && is_e164(attempt.caller_id)) => {
                Self::invalid_number(attempt)
            }
            (401 | 407, Auth::Missing | Auth::NotAsked) => Self::NoCredentials,
            (401 | 407 | 403, Auth::Sent) => Self::CredentialsRejected,
            (403, Auth::NotAsked | Auth::Missing) => Self::SourceNotAllowed { seen },
            (404, _) if is_sip_domain(attempt.host) => {
                Self::NotATerminationUri { host: attempt.host.into() }
            }
            (404 | 410 | 484 | 604, _) => Self::NoSuchNumber { number },
            (408 | 480, _) => Self::NotReached { number },
            (415 | 488 | 606, _) if !attempt.offered_g711 => Self::NoCommonCodec,
            (415, _) => Self::NoCommonCodec,
            (488 | 606, _) => Self::SecurityMismatch { offered_srtp: attempt.offered_srtp },
            (422, _) => Self::SessionTimer,
            (483, _) => Self::MaxForwards { sent: attempt.max_forwards },
            (486 | 600, _) => Self::Busy { number },
            (603, _) if attempt.rang => Self::Declined { number },
            (603, _) => Self::AccountSuspended,
            (500..=599, _) => Self::Trouble { status, reason: Text(reason).to_string().into() },
            (_, _) => Self::Other { status, reason: Text(reason).to_string().into() },
        }
    }

    fn caller_id(attempt: &Attempt<'_>) -> Self {
        Self::CallerIdNotOurs { caller_id: NumberBuf::from(attempt.caller_id) }
    }

    /// Blames the number that is not E.164; the one called where both are.
    fn invalid_number(attempt: &Attempt<'_>) -> Self {
        let caller_is_wrong = is_e164(attempt.number) && !is_e164(attempt.caller_id);
        let number = if caller_is_wrong { attempt.caller_id } else { attempt.number };
        Self::InvalidNumber { number: NumberBuf::from(number) }
    }

    /// Returns a code that stays the same across releases, for alerts and for searching the manual.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Other { .. } => "T000",
            Self::NoAnswer { .. } => "T001",
            Self::InvalidNumber { .. } => "T002",
            Self::NotVerified { .. } => "T003",
            Self::SourceNotAllowed { .. } => "T004",
            Self::CredentialsRejected => "T005",
            Self::CallerIdNotOurs { .. } => "T006",
            Self::CountryNotEnabled { .. } => "T007",
            Self::Blocked { .. } => "T008",
            Self::NotATerminationUri { .. } => "T009",
            Self::NoCommonCodec => "T010",
            Self::SecurityMismatch { .. } => "T011",
            Self::SessionTimer => "T012",
            Self::MaxForwards { .. } => "T013",
            Self::CallsPerSecond => "T014",
            Self::ConcurrentCalls => "T015",
            Self::AccountSuspended => "T016",
            Self::AckLost { .. } => "T017",
            Self::TransferNotEnabled => "T018",
            Self::TransferTarget => "T019",
            Self::NoCredentials => "T020",
            Self::InboundRefused { .. } => "T021",
            Self::NoSuchNumber { .. } => "T022",
            Self::Busy { .. } => "T023",
            Self::NotReached { .. } => "T024",
            Self::Declined { .. } => "T025",
            Self::Trouble { .. } => "T026",
            Self::MaxDuration { .. } => "T027",
            Self::Unsent { .. } => "T028",
        }
    }

    /// Returns the numbers under which the carrier's own console and manual speak of it.
    pub fn carrier_errors(&self) -> &'static [u32] {
        match self {
            Self::InvalidNumber { .. } => &[32101, 32206],
            Self::NotVerified { .. } => &[32100],
            Self::SourceNotAllowed { .. } => &[32201],
            Self::CredentialsRejected => &[32202],
            Self::NoCredentials => &[32200],
            Self::CallerIdNotOurs { .. } => &[32204, 32206],
            Self::CountryNotEnabled { .. } => &[32205],
            Self::Blocked { .. } => &[32203, 32216],
            Self::NoCommonCodec => &[32102],
            Self::SecurityMismatch { .. } => &[32207, 32208, 32209],
            Self::MaxForwards { .. } => &[32006],
            Self::CallsPerSecond => &[32001, 32012],
            Self::AccountSuspended => &[32005],
            Self::NotReached { .. } => &[32016],
            Self::AckLost { .. } => &[32022],
            Self::MaxDuration { .. } => &[32015],
            Self::TransferNotEnabled => &[32218],
            Self::TransferTarget => &[32219],
            Self::InboundRefused { .. } => &[32010, 32011],
            Self::Other { .. }
            | Self::NoAnswer { .. }
            | Self::Unsent { .. }
            | Self::NotATerminationUri { .. }
            | Self::NoSuchNumber { .. }
            | Self::SessionTimer
            | Self::ConcurrentCalls
            | Self::Declined { .. }
            | Self::Busy { .. }
            | Self::Trouble { .. } => &[],
        }
    }

    /// Returns whether our side can mend it; the others are the called party's or the carrier's doing.
    pub fn is_ours_to_fix(&self) -> bool {
        match self {
            Self::Other { .. }
            | Self::NoSuchNumber { .. }
            | Self::Declined { .. }
            | Self::Busy { .. }
            | Self::NotReached { .. }
            | Self::Trouble { .. } => false,
            Self::NoAnswer { .. }
            | Self::Unsent { .. }
            | Self::InvalidNumber { .. }
            | Self::NotVerified { .. }
            | Self::SourceNotAllowed { .. }
            | Self::CredentialsRejected
            | Self::NoCredentials
            | Self::CallerIdNotOurs { .. }
            | Self::CountryNotEnabled { .. }
            | Self::Blocked { .. }
            | Self::NotATerminationUri { .. }
            | Self::NoCommonCodec
            | Self::SecurityMismatch { .. }
            | Self::SessionTimer
            | Self::MaxForwards { .. }
            | Self::CallsPerSecond
            | Self::ConcurrentCalls
            | Self::AccountSuspended
            | Self::AckLost { .. }
            | Self::MaxDuration { .. }
            | Self::TransferNotEnabled
            | Self::TransferTarget
            | Self::InboundRefused { .. } => true,
        }
    }

    /// Returns what to do about it, where we know.
    pub fn help(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(match self {
            Self::NoAnswer { host } => return Some(silence_help(host).into()),
            Self::Unsent { .. } => {
                "check the port and the firewall; over TLS the log's `no TLS` line has the cause \
                 (T040 to T048)"
            }
            Self::NotATerminationUri { .. } => {
                "use the trunk's own URI, `<trunk>.pstn.twilio.com`, shown under Termination"
            }
            Self::InvalidNumber { .. } => {
                "write it in E.164 (`+` and the country code): set `[node] country`, or rewrite the \
                 number in the dialplan rule"
            }
            Self::NotVerified { .. } => {
                "verify the number in the carrier's console, or upgrade the account"
            }
            Self::SourceNotAllowed { seen: Some(seen) } => {
                return Some(format!("add {seen} to the trunk's IP access control list").into());
            }
            Self::SourceNotAllowed { seen: None } => {
                "add this host's public address to the trunk's IP access control list"
            }
            Self::CredentialsRejected => {
                "compare `username` and `password` with the credential list of the trunk; if they \
                 are right, see whether the trunk may use `caller_id`"
            }
            Self::NoCredentials => "set `username` and `password` of this trunk",
            Self::CallerIdNotOurs { .. } => {
                "set `caller_id` to a number bought or verified in this trunk's account"
            }
            Self::CountryNotEnabled { .. } => {
                "enable the country under Voice Geographic Permissions in the carrier's console"
            }
            Self::Blocked { .. } => "ask the carrier's support to lift the block",
            Self::NoCommonCodec => "put `PCMU` and `PCMA` into the trunk's `codecs`",
            Self::SecurityMismatch { .. } => {
                "turn Secure Trunking off in the carrier's console, or use TLS and SRTP together"
            }
            Self::SessionTimer => "use `preset = \"twilio\"`, or set `session_timers = false`",
            Self::MaxForwards { .. } => "send 70: look for a loop or a gateway that lowers it",
            Self::CallsPerSecond => {
                "space the calls out, or ask the carrier for more calls per second"
            }
            Self::ConcurrentCalls => {
                "set the trunk's `max_calls` to the carrier's limit, or have the limit raised"
            }
            Self::AccountSuspended => "look at the account's balance and status in the console",
            Self::AckLost { .. } => {
                "see `tandem call ladder`: the ACK must follow the Record-Route of the answer; check \
                 the firewall"
            }
            Self::MaxDuration { .. } => "set `max_duration`, or ask the carrier for 24 hours",
            Self::TransferNotEnabled => "enable Call Transfer (SIP REFER) on the trunk",
            Self::TransferTarget => "transfer to a number at the trunk's own domain or to `tel:`",
            Self::InboundRefused { .. } => {
                "give the number an `inbound` rule; 503 and silence make the carrier try its next URI"
            }
            Self::Trouble { .. } => "try again; see the carrier's status page if it lasts",
            Self::Other { .. }
            | Self::NoSuchNumber { .. }
            | Self::Declined { .. }
            | Self::Busy { .. }
            | Self::NotReached { .. } => return None,
        }))
    }

    /// Returns cause, evidence and remedy in one line: what a call that failed ends with.
    pub fn diagnosis(&self, evidence: &Answer) -> String {
        let mut line = format!("{}: {self} ({evidence})", self.code());
        if let Some(help) = self.help() {
            line.push_str("; ");
            line.push_str(&help);
        }
        line
    }
}

/// Our address in a sentence.
struct Seen<'a>(&'a Option<IpAddr>);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seen) => write!(f, "{seen}"),
            None => f.write_str("this address"),
        }
    }
}

/// Returns whether the carrier can read the number: E.164, or a short one such as 911.
fn silence_help(host: &str) -> String {
    format!(
        "check that `uri = \"{host}\"` is the trunk's termination URI word for word (any other is \
         dropped in silence), that DNS knows it, and that UDP 5060 and the RTP ports are open"
    )
}

fn is_e164(number: &str) -> bool {
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match number.strip_prefix('+') {
        Some(digits) => all_digits(digits) && (7..=15).contains(&digits.len()),
        None => all_digits(number) && number.len() == 3,
    }
}

/// Returns whether `host` is of the family that takes calls from phones, not from trunks.
fn is_sip_domain(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    host.ends_with(".twilio.com") && host.contains(".sip.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Attempt<'static> = Attempt {
        host: "acme.pstn.twilio.com",
        number: "+14155550199",
        caller_id: "+17756187988",
        auth: Auth::Sent,
        rang: false,
        offered_g711: true,
        offered_srtp: false,
        max_forwards: 70,
    };

    #[test]
    fn the_status_and_what_we_sent_tell_the_cause() {
        let first = Attempt { auth: Auth::NotAsked, ..ATTEMPT };
        let without = Attempt { auth: Auth::Missing, ..ATTEMPT };
        let national = Attempt { number: "4155550199", ..ATTEMPT };
        let anonymous = Attempt { caller_id: "anonymous", ..ATTEMPT };
        let domain = Attempt { host: "acme.sip.twilio.com", ..ATTEMPT };
        let opus = Attempt { offered_g711: false, ..ATTEMPT };
        let rang = Attempt { rang: true, ..ATTEMPT };
        for (attempt, status, reason, code) in [
            (ATTEMPT, 400, "Bad Request", "T000"),
            (national, 400, "Bad Request", "T002"),
            (anonymous, 400, "Bad Request", "T002"),
            (ATTEMPT, 400, "Invalid phone number", "T002"),
            (ATTEMPT, 400, "The number +14155550199 is unverified. Trial accounts may ...", "T003"),
            (ATTEMPT, 401, "Unauthorized", "T005"),
            (without, 407, "Proxy Authentication required", "T020"),
            (ATTEMPT, 407, "Proxy Authentication required", "T005"),
            (first, 403, "Forbidden", "T004"),
            (ATTEMPT, 403, "Forbidden", "T005"),
            (ATTEMPT, 403, "Caller ID is unauthorized. A Valid Caller ID is ...", "T006"),
            (ATTEMPT, 403, "No International Permission", "T007"),
            (ATTEMPT, 403, "Phone number is blacklisted", "T008"),
            (first, 403, "Invalid credentials", "T005"),
            (ATTEMPT, 404, "Not Found", "T022"),
            (domain, 404, "Not Found", "T009"),
            (ATTEMPT, 408, "Request Timeout", "T024"),
            (opus, 415, "Unsupported Media Type", "T010"),
            (opus, 488, "Not Acceptable Here", "T010"),
            (ATTEMPT, 488, "Not Acceptable Here", "T011"),
            (ATTEMPT, 422, "Session Interval Too Small", "T012"),
            (ATTEMPT, 480, "Temporarily Unavailable", "T024"),
            (ATTEMPT, 483, "Too Many Hops", "T013"),
            (ATTEMPT, 484, "Address Incomplete", "T022"),
            (rang, 486, "Busy Here", "T023"),
            (ATTEMPT, 500, "Server Internal Error", "T026"),
            (ATTEMPT, 503, "Service Unavailable", "T026"),
            (ATTEMPT, 503, "Trunk CPS limit exceeded", "T014"),
            (ATTEMPT, 503, "Trunk concurrent call limit exceeded", "T015"),
            (ATTEMPT, 603, "Declined", "T016"),
            (rang, 603, "Decline", "T025"),
            (rang, 603, "Account suspended", "T016"),
            (ATTEMPT, 491, "Request Pending", "T000"),
        ] {
            let got = Refusal::read(&attempt, &answer(status, reason, None));
            assert_eq!(got.code(), code, "{status} {reason}: {got}");
        }
        assert_eq!(Refusal::read(&ATTEMPT, &Answer::Silence).code(), "T001");
        assert_eq!(Refusal::read(&ATTEMPT, &Answer::Unsent).code(), "T028");
    }

    #[test]
    fn the_carriers_error_number_wins() {
        for (error, code) in [
            (32100, "T003"),
            (32101, "T002"),
            (32201, "T004"),
            (32202, "T005"),
            (32204, "T006"),
            (32205, "T007"),
            (32216, "T008"),
            (32102, "T010"),
            (32208, "T011"),
            (32006, "T013"),
            (32001, "T014"),
            (32005, "T016"),
            (32200, "T020"),
            (99999, "T005"),
        ] {
            let got = Refusal::read(&ATTEMPT, &answer(403, "Forbidden", Some(error)));
            assert_eq!(got.code(), code, "{error}: {got}");
        }
    }

    #[test]
    fn the_line_has_cause_evidence_and_remedy() {
        let first = Attempt { auth: Auth::NotAsked, ..ATTEMPT };
        let evidence = answer(403, "Forbidden", Some(32201));
        assert_eq!(
            Refusal::read(&first, &evidence).diagnosis(&evidence),
            "T004: the carrier does not accept calls from 203.0.113.7 (403 Forbidden, error 32201); \
             add 203.0.113.7 to the trunk's IP access control list"
        );
        let busy = answer(486, "Busy Here", None);
        assert_eq!(
            Refusal::read(&ATTEMPT, &busy).diagnosis(&busy),
            "T023: +1415****199 is busy (486 Busy Here)"
        );
        let silence = Refusal::read(&ATTEMPT, &Answer::Silence).diagnosis(&Answer::Silence);
        assert!(
            silence.starts_with("T001: acme.pstn.twilio.com did not answer (no answer); check")
        );
    }

    #[test]
    fn no_number_is_printed_in_full() {
        for status in (300..700).chain([400, 403, 603]) {
            let evidence = answer(status, "The number +14155550199 (14155550199) is bad", None);
            let refusal = Refusal::read(&ATTEMPT, &evidence);
            let line = format!("{} {refusal:?}", refusal.diagnosis(&evidence));
            assert!(!line.contains("4155550199") && !line.contains("7756187988"), "{line}");
        }
    }

    #[test]
    fn a_call_that_ends_by_itself_is_explained_by_its_length() {
        let code = |s| Refusal::of_drop(Duration::from_secs(s), true).map(|refusal| refusal.code());
        assert_eq!(code(12), None);
        assert_eq!(code(32), Some("T017"));
        assert_eq!(code(60), None);
        assert_eq!(code(4 * 3600 + 1), Some("T027"));
        assert_eq!(code(24 * 3600), Some("T027"));
    }

    #[test]
    fn a_refused_transfer_has_two_causes() {
        let code = |status, error| Refusal::of_transfer(&answer(status, "No", error)).code();
        assert_eq!(code(403, None), "T018");
        assert_eq!(code(405, Some(32218)), "T018");
        assert_eq!(code(403, Some(32219)), "T019");
        assert_eq!(code(404, None), "T019");
    }

    #[test]
    fn what_is_ours_to_fix_has_a_remedy() {
        let mut seen = vec![];
        for status in 300..700 {
            for auth in [Auth::NotAsked, Auth::Missing, Auth::Sent] {
                let attempt = Attempt { auth, ..ATTEMPT };
                seen.push(Refusal::read(&attempt, &answer(status, "No", None)));
            }
        }
        seen.extend((32000..32300).map(|e| Refusal::read(&ATTEMPT, &answer(403, "", Some(e)))));
        seen.extend([Answer::Silence, Answer::Unsent].map(|a| Refusal::read(&ATTEMPT, &a)));
        for refusal in seen {
            assert!(!refusal.is_ours_to_fix() || refusal.help().is_some(), "{refusal}");
        }
    }

    fn answer(status: u16, reason: &str, error: Option<u32>) -> Answer {
        let received = Some([203, 0, 113, 7].into());
        Answer::Final { status, reason: reason.into(), error, received }
    }
}
