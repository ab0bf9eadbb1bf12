//! What Twilio expects of a PBX, as sentences, and the record of a PBX that did otherwise.
//!
//! Owns: the rules' words and the numbers of Twilio's own error catalogue.
//! Never: checks one.

use serde::Serialize;
use std::fmt;

/// How a rule is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    /// Twilio's documentation says so.
    Documented,
    /// Recorded dialogs show it.
    Seen,
    /// Other products' operators have met it.
    Met,
}

impl Known {
    /// Returns `documented`, `seen` or `met`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::Seen => "seen",
            Self::Met => "met",
        }
    }
}

/// Writes the rules once: a variant, its name, how it is known, the error, the sentence.
macro_rules! rules {
    ($($variant:ident $name:literal $known:ident $error:expr, $sentence:literal;)*) => {
        /// Something that a PBX must do or leave.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Rule {
            $(#[doc = concat!("The rule that ", $sentence, ".")] $variant,)*
        }

        impl Rule {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns its name, which stays: `caller-owned`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Returns the number under which Twilio's console speaks of it, where it does.
            pub fn error(self) -> Option<u32> {
                match self { $(Self::$variant => $error,)* }
            }

            /// Returns how it is known.
            pub fn known(self) -> Known {
                match self { $(Self::$variant => Known::$known,)* }
            }

            /// Returns what must be so.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

rules! {
    // Who may call.
    TerminationUri "termination-uri" Documented None,
        "the Request-URI's host is the trunk's termination URI";
    NoSips "no-sips" Documented None, "`sips:` is not used";
    SourceAllowed "source-allowed" Documented Some(32201),
        "the source address is in the access control list";
    SourceNotBlocked "source-not-blocked" Documented Some(32216),
        "the source address is not blocked";
    Credentials "credentials" Documented Some(32202),
        "the digest proves a password of the credential list";
    OpaqueEchoed "opaque-echoed" Seen Some(32202), "the digest echoes `opaque`";
    NeverRegisters "never-registers" Documented None, "nobody registers at the trunk";
    OptionsPace "options-pace" Documented None, "OPTIONS comes no more often than every 10 s";
    SpreadsCalls "spreads-calls" Documented None,
        "no more than 30 calls a second go from one address to one of the trunk's";
    FailsOver "fails-over" Documented None,
        "an INVITE that nobody answers is tried at another address after 4 s";
    MaxForwards "max-forwards" Documented Some(32006), "Max-Forwards is at least 20";
    AccountActive "account-active" Documented Some(32005),
        "the account is neither suspended nor out of funds";

    // Whom, and as whom.
    CalledE164 "called-e164" Documented Some(32101),
        "the number called is E.164 with `+`, or 911, 933, 112 or 999";
    CallerE164 "caller-e164" Documented Some(32206), "the calling number is E.164 with `+`";
    CallerOwned "caller-owned" Documented Some(32204),
        "the calling number is owned or verified by the account";
    RemotePartyValid "remote-party-valid" Documented Some(32204),
        "a Remote-Party-ID names a number that the account owns or has verified";
    EmergencyCaller "emergency-caller" Documented Some(32204),
        "an emergency call comes from a number of the trunk";
    DiversionOwned "diversion-owned" Documented None,
        "a Diversion that names Twilio's domain names a number of the account";
    CalledVerified "called-verified" Documented Some(32100),
        "an account on trial calls verified numbers";
    CountryEnabled "country-enabled" Documented Some(32205), "the country called is enabled";
    CalledNotBlocked "called-not-blocked" Documented Some(32203), "the number called is not blocked";
    CallPace "call-pace" Documented Some(32001),
        "calls come no faster than the trunk's calls per second";
    CallCount "call-count" Documented None, "no more calls at a time than the profile allows";

    // With what.
    OffersG711 "offers-g711" Documented Some(32102), "the offer has PCMU or PCMA";
    PlainRtp "plain-rtp" Documented Some(32207), "a plain trunk is not offered SRTP";
    SecureMedia "secure-media" Documented Some(32208),
        "a secure trunk is offered, and answered with, SRTP";
    SecureSignalling "secure-signalling" Documented Some(32209), "a secure trunk is called over TLS";
    SrtpSuites "srtp-suites" Documented Some(32208),
        "SRTP has a key for AES_CM_128_HMAC_SHA1_80 or _32, and no MKI; towards the PBX only _80";
    NoSessionTimer "no-session-timer" Documented None, "session timers are not insisted on";
    KnownMethods "known-methods" Documented None,
        "no UPDATE, PRACK, INFO or other method is sent that Allow lacks";
    KnownExtensions "known-extensions" Seen None, "no extension is required";
    PublicMedia "public-media" Documented Some(32014),
        "the session description names an IPv4 address that can be reached";
    PublicContact "public-contact" Documented Some(32105),
        "Contact names an address that can be reached";
    TlsVersion "tls-version" Documented Some(32222),
        "TLS is 1.2 or newer, and a wildcard certificate is taken";
    SniIsName "sni-is-name" Met None, "TLS asks for the trunk's name, not for an address";

    // Inside a call.
    RouteSet "route-set" Met None,
        "requests inside a dialog carry its route set, in order, to its first address";
    RemoteTarget "remote-target" Met None,
        "requests inside a dialog go to the Contact, letter by letter";
    PrivateAddresses "private-addresses" Met None, "Twilio's private addresses are left as they are";
    IgnoresTwnat "ignores-twnat" Met None,
        "a `;twnat=` in a later 2xx changes neither the route set nor the target";
    Acknowledges "acknowledges" Met Some(32022), "a 200 is acknowledged, by the route set";
    CseqAdvances "cseq-advances" Met None, "CSeq advances on every request";
    CancelMatches "cancel-matches" Documented None, "a CANCEL repeats the branch of its INVITE";
    DoubleCrlf "double-crlf" Met None, "a keep-alive is a double CRLF";
    KeepAlive "keep-alive" Met None, "a connection with a call on it is kept alive";
    ReusesConnection "reuses-connection" Met None,
        "requests inside a dialog use its connection as long as that lives";
    TransferEnabled "transfer-enabled" Documented Some(32218),
        "REFER comes where transfers are enabled";
    TransferTarget "transfer-target" Documented Some(32219),
        "a transfer is blind, to a number at the trunk's domain or a `tel:` URI";

    // Media.
    MediaTtl "media-ttl" Documented Some(32014), "media arrives with an IP TTL above 10";
    MediaSource "media-source" Documented Some(32014),
        "media comes from the address in SDP, unless the trunk is symmetric";
    MediaCodec "media-codec" Documented Some(32014), "media is in the codec that was answered";

    // Calls from Twilio.
    HasOrigination "has-origination" Documented Some(32010), "the trunk has an origination URI";
    AnswersCalls "answers-calls" Documented Some(32011), "a call from Twilio is understood and answered";
    NeverChallenges "never-challenges" Documented Some(32011), "a call from Twilio is not challenged";
    RedirectsOnce "redirects-once" Documented Some(32219),
        "a call from Twilio is redirected once at most, and not to Twilio";
    EchoesRecordRoute "echoes-record-route" Met None, "18x and 200 echo every Record-Route";
    ContactOfListener "contact-of-listener" Met None,
        "Contact names the listener that took the call";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
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

/// A deviation as an object of JSON.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// The rule's name.
    pub rule: &'static str,
    /// What must be so.
    pub sentence: &'static str,
    /// How that is known: `documented`, `seen`, `met`.
    pub known: &'static str,
    /// What was seen.
    pub evidence: String,
    /// Of Twilio's catalogue.
    pub error: Option<u32>,
}

impl Deviation {
    /// Returns it as programs read it.
    pub fn entry(&self) -> Entry {
        let Self { rule, evidence } = self;
        Entry {
            rule: rule.name(),
            sentence: rule.sentence(),
            known: rule.known().as_str(),
            evidence: evidence.clone(),
            error: rule.error(),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_differ_and_a_deviation_is_a_line() {
        let names: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
        let evidence = "a call from \"1001\"\n".to_owned();
        let deviation = Deviation { rule: Rule::CallerE164, evidence };
        assert_eq!(
            serde_json::to_string(&deviation.entry()).unwrap(),
            "{\"rule\":\"caller-e164\",\"sentence\":\"the calling number is E.164 with `+`\",\
             \"known\":\"documented\",\"evidence\":\"a call from \\\"1001\\\"\\n\",\"error\":32206}"
        );
        assert_eq!(
            Deviation { rule: Rule::RouteSet, evidence: "BYE with no Route".into() }.to_string(),
            "requests inside a dialog carry its route set, in order, to its first address, but: BYE \
             with no Route"
        );
    }
}
