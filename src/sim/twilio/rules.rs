//! What Twilio expects of a PBX, as sentences, and the record of a PBX that did otherwise.
//!
//! Owns: the rules' words and the numbers of Twilio's own error catalogue.
//! Never: checks one.

use std::fmt;

/// Something that a PBX must do or leave.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Rule {
    /// The Request-URI's host.
    TerminationUri,
    /// The number called.
    CalledE164,
    /// The calling number's form.
    CallerE164,
    /// The calling number's owner.
    CallerOwned,
    /// Max-Forwards.
    MaxForwards,
    /// The source address.
    SourceAllowed,
    /// The digest's password.
    Credentials,
    /// The digest's `opaque`.
    OpaqueEchoed,
    /// Codecs in the offer.
    OffersG711,
    /// Encryption in the offer.
    PlainRtp,
    /// Session timers.
    NoSessionTimer,
    /// Requests that Twilio does not know.
    KnownMethods,
    /// Extensions that Twilio does not know.
    KnownExtensions,
    /// Route of requests inside a dialog.
    RouteSet,
    /// Request-URI of requests inside a dialog.
    RemoteTarget,
    /// The ACK of a 200.
    Acknowledges,
    /// CSeq.
    CseqAdvances,
    /// OPTIONS.
    OptionsPace,
    /// Calls per second.
    CallPace,
    /// Calls at a time.
    CallCount,
    /// Challenging Twilio's calls.
    NeverChallenges,
    /// Record-Route in the answers to Twilio's calls.
    EchoesRecordRoute,
    /// Contact in the answers to Twilio's calls.
    ContactOfListener,
}

impl Rule {
    /// Returns the number under which Twilio's console speaks of it, where it does.
    pub fn error(self) -> Option<u32> {
        Some(match self {
            Self::CalledE164 => 32101,
            Self::CallerE164 => 32206,
            Self::CallerOwned => 32204,
            Self::MaxForwards => 32006,
            Self::SourceAllowed => 32201,
            Self::Credentials | Self::OpaqueEchoed => 32202,
            Self::OffersG711 => 32102,
            Self::PlainRtp => 32207,
            Self::Acknowledges => 32022,
            Self::CallPace => 32001,
            Self::NeverChallenges => 32011,
            Self::TerminationUri
            | Self::NoSessionTimer
            | Self::KnownMethods
            | Self::KnownExtensions
            | Self::RouteSet
            | Self::RemoteTarget
            | Self::CseqAdvances
            | Self::OptionsPace
            | Self::CallCount
            | Self::EchoesRecordRoute
            | Self::ContactOfListener => return None,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TerminationUri => "the Request-URI's host is the trunk's termination URI",
            Self::CalledE164 => "the number called is E.164 with `+`, or 911, 933, 112 or 999",
            Self::CallerE164 => "the calling number in From is E.164 with `+`",
            Self::CallerOwned => "the calling number is owned or verified by the account",
            Self::MaxForwards => "Max-Forwards is at least 20",
            Self::SourceAllowed => "the source address is in the access control list",
            Self::Credentials => "the digest proves a password of the credential list",
            Self::OpaqueEchoed => "the digest echoes `opaque`",
            Self::OffersG711 => "the offer has PCMU or PCMA",
            Self::PlainRtp => "a plain trunk is not offered SRTP",
            Self::NoSessionTimer => "session timers are not insisted on",
            Self::KnownMethods => "no UPDATE, PRACK, INFO or other method is sent that Allow lacks",
            Self::KnownExtensions => "no extension is required",
            Self::RouteSet => "requests inside a dialog carry its route set, in order",
            Self::RemoteTarget => "requests inside a dialog go to the Contact, letter by letter",
            Self::Acknowledges => "a 200 is acknowledged, by the route set",
            Self::CseqAdvances => "CSeq advances on every request",
            Self::OptionsPace => "OPTIONS comes no more often than every 10 s",
            Self::CallPace => "calls come no faster than the trunk's calls per second",
            Self::CallCount => "no more calls at a time than the profile allows",
            Self::NeverChallenges => "a call from Twilio is not challenged",
            Self::EchoesRecordRoute => "18x and 200 echo every Record-Route",
            Self::ContactOfListener => "Contact names the listener that took the call",
        })
    }
}

/// A rule that was broken, and what shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deviation {
    /// Which.
    pub rule: Rule,
    /// What was seen.
    pub evidence: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, but: {}", self.rule, self.evidence)?;
        match self.rule.error() {
            Some(error) => write!(f, " (Twilio error {error})"),
            None => Ok(()),
        }
    }
}
