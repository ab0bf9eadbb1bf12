//! Who calls from a carrier, and whom: what its INVITE says beyond From and To.
//!
//! Owns: reading DID, caller, name and the carrier's own identifiers out of an INVITE.
//! Never: decides whether the sender is the carrier; without [`super::source`] all of this is forgeable.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use crate::{
    observe::{mask::NumberBuf, plain},
    sip::{HeaderName, Message, NameAddr, Scheme, Uri},
};

/// Numbers that spell a word on a keypad: what Twilio puts where there is no caller's number.
const WORDS: [&str; 5] = [
    "266696687",   // ANONYMOUS
    "7378742833",  // RESTRICTED
    "2562533",     // BLOCKED
    "8656696",     // UNKNOWN
    "86282452253", // UNAVAILABLE
];
/// User parts that mean the same in letters.
const NOBODY: [&str; 4] = ["anonymous", "restricted", "unavailable", "unknown"];
/// How much of a display name we take.
const NAME_CHARS_MAX: usize = 64;

/// An INVITE from a carrier, read. Numbers print masked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Inbound {
    /// The number of ours that was called: that of the Request-URI if it is one, else of the Diversion
    /// that the carrier itself added, else the Request-URI's user part.
    pub did: Option<NumberBuf>,
    /// The caller's number, if there is one.
    pub caller: Option<NumberBuf>,
    /// The caller's name (CNAM), unless it hides or the name only repeats the number.
    pub name: Option<Box<str>>,
    /// Whether the caller does not want to be shown (RFC 3323), or nobody knows who it is.
    pub is_private: bool,
    /// Who diverted the call to us, last first, beside the carrier itself (RFC 5806).
    pub diverted_by: Vec<NumberBuf>,
    /// `X-Twilio-CallSid`: what the carrier's support asks for.
    pub call_sid: Option<Box<str>>,
    /// `X-Twilio-AccountSid`.
    pub account_sid: Option<Box<str>>,
    /// `X-Twilio-VerStat`: what STIR/SHAKEN says of the caller.
    pub verstat: Option<Box<str>>,
}

impl Inbound {
    /// Reads an INVITE.
    pub fn read(invite: &Message) -> Self {
        let diversions = invite.routes(HeaderName::Diversion);
        let asserted = invite.routes(HeaderName::PAssertedIdentity);
        let from = invite.from();
        let caller = asserted.iter().chain([&from]).find_map(number_of);
        let is_private = is_private(invite, &from) || caller.is_none();
        let name = from.display_str().or_else(|| asserted.iter().find_map(NameAddr::display_str));
        Self {
            did: did(invite, &diversions).map(NumberBuf::from),
            name: name.filter(|_| !is_private).and_then(|name| shown(&name, caller.as_deref())),
            caller: caller.map(NumberBuf::from),
            is_private,
            diverted_by: diversions
                .iter()
                .filter(|diversion| !is_carriers(diversion))
                .filter_map(number_of)
                .map(NumberBuf::from)
                .collect(),
            call_sid: text(invite, "X-Twilio-CallSid"),
            account_sid: text(invite, "X-Twilio-AccountSid"),
            verstat: text(invite, "X-Twilio-VerStat"),
        }
    }
}

fn did(invite: &Message, diversions: &[NameAddr<'_>]) -> Option<String> {
    let called = Uri::parse(invite.uri())?;
    let own = called.is_e164().then(|| digits(&called.user_unescaped()));
    let carriers = || diversions.iter().filter(|d| is_carriers(d)).find_map(number_of);
    let named = || Some(called.user_unescaped().into_owned()).filter(|user| !user.is_empty());
    own.or_else(carriers).or_else(|| diversions.iter().find_map(number_of)).or_else(named)
}

/// Twilio names the DID in a Diversion of its own domain.
fn is_carriers(diversion: &NameAddr<'_>) -> bool {
    diversion.parsed_uri().is_some_and(|uri| {
        let host = uri.host.to_ascii_lowercase();
        host == "twilio.com" || host.ends_with(".twilio.com")
    })
}

/// Returns the number that an address names: `+` and digits where it is global, else as it stands.
fn number_of(address: &NameAddr<'_>) -> Option<String> {
    let uri = address.parsed_uri()?;
    let user = uri.user_unescaped();
    let plain = digits(&user);
    let is_word = WORDS.contains(&plain.trim_start_matches('+'));
    let is_number = match uri.scheme {
        Scheme::Sip | Scheme::Sips | Scheme::Tel => {
            let local = plain.trim_start_matches('+');
            !local.is_empty() && local.bytes().all(|b| b.is_ascii_digit())
        }
        Scheme::Urn | Scheme::Other => false,
    };
    (is_number && !is_word).then_some(plain)
}

/// Drops the visual separators of RFC 3966 5.1.1.
fn digits(user: &str) -> String {
    let mut digits = String::with_capacity(user.len());
    digits.extend(user.split(['-', '.', '(', ')']));
    digits
}

fn is_private(invite: &Message, from: &NameAddr<'_>) -> bool {
    let asks = invite.values(HeaderName::Privacy).any(|value| {
        let value = String::from_utf8_lossy(&value).to_ascii_lowercase();
        value.split(';').any(|kind| matches!(kind.trim(), "id" | "user" | "header"))
    });
    let is_hidden = from.parsed_uri().is_none_or(|uri| {
        let user = uri.user_unescaped().to_ascii_lowercase();
        uri.host.eq_ignore_ascii_case("anonymous.invalid")
            || NOBODY.contains(&&*user)
            || WORDS.contains(&user.trim_start_matches('+'))
    });
    asks || is_hidden
}

/// Returns a name worth showing: printable, and more than the number again.
fn shown(name: &str, caller: Option<&str>) -> Option<Box<str>> {
    let printable = name.chars().filter(|c| plain::is_plain(*c)).take(NAME_CHARS_MAX);
    let name = printable.collect::<String>();
    let name = name.trim();
    let only_digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let has_letters = name.chars().any(char::is_alphabetic);
    let repeats = !has_letters && caller.is_some_and(|c| only_digits(c) == only_digits(name));
    (!name.is_empty() && !repeats).then(|| name.into())
}

fn text(invite: &Message, name: &str) -> Option<Box<str>> {
    let value = invite.other(name)?;
    let value = String::from_utf8_lossy(&value);
    Some(value.chars().take(NAME_CHARS_MAX).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_call_from_twilio_is_read_whole() {
        let inbound = read(
            "sip:+17756187988@203.0.113.1;transport=udp",
            "\"WIRELESS CALLER\" <sip:+14155550199@acme.pstn.twilio.com:5060>",
            "P-Asserted-Identity: <sip:+14155550199@206.147.72.152:5060>\r\n\
             Diversion: <sip:+17756187988@twilio.com>;reason=unconditional\r\n\
             X-Twilio-CallSid: CA0123456789abcdef0123456789abcdef\r\n\
             X-Twilio-AccountSid: AC01\r\n\
             X-Twilio-VerStat: TN-Validation-Passed-A\r\n",
        );
        assert_eq!(inbound.did.as_ref().map(NumberBuf::expose), Some("+17756187988"));
        assert_eq!(inbound.caller.as_ref().map(NumberBuf::expose), Some("+14155550199"));
        assert_eq!(inbound.name.as_deref(), Some("WIRELESS CALLER"));
        assert_eq!(inbound.call_sid.as_deref(), Some("CA0123456789abcdef0123456789abcdef"));
        assert_eq!(inbound.account_sid.as_deref(), Some("AC01"));
        assert_eq!(inbound.verstat.as_deref(), Some("TN-Validation-Passed-A"));
        assert!(!inbound.is_private && inbound.diverted_by.is_empty());
        assert!(!format!("{inbound:?}").contains("5550199"), "{inbound:?}");
    }

    /// Request-URI, Diversion headers, the DID.
    #[test]
    fn the_did_is_the_request_uris_or_the_carriers_diversion() {
        for (uri, diversion, want) in [
            ("sip:+17756187988@h", "", "+17756187988"),
            ("sip:+1-775-618.7988@h", "<sip:+1999@twilio.com>", "+17756187988"),
            ("sip:pbx@h", "<sip:+17756187988@twilio.com>;reason=unconditional", "+17756187988"),
            ("sip:pbx@h", "<sip:+1444@office.example>, <sip:+1775@twilio.com>", "+1775"),
            ("sip:pbx@h", "<sip:+1444@nottwilio.com>", "+1444"),
            ("sip:7756187988@h", "", "7756187988"),
            ("sip:pbx@h", "", "pbx"),
            ("tel:+17756187988", "", "+17756187988"),
        ] {
            let line = match diversion {
                "" => String::new(),
                diversion => format!("Diversion: {diversion}\r\n"),
            };
            let inbound = read(uri, "<sip:+14155550199@t>", &line);
            assert_eq!(
                inbound.did.as_ref().map(NumberBuf::expose),
                Some(want),
                "{uri} {diversion}"
            );
        }
        assert_eq!(read("sip:h", "<sip:+14155550199@t>", "").did, None);
    }

    /// From, other headers; number, name, private.
    #[test]
    fn the_caller_is_shown_unless_it_hides() {
        let pai = "P-Asserted-Identity: \"ACME\" <sip:+14155550199@t>\r\n";
        let privacy = format!("{pai}Privacy: user;id\r\n");
        let open = format!("{pai}Privacy: none\r\n");
        for (from, lines, number, name, private) in [
            ("<sip:+14155550199@t>", "", Some("+14155550199"), None, false),
            ("\"+1 (415) 555-0199\" <sip:+14155550199@t>", "", Some("+14155550199"), None, false),
            ("\"14155550199\" <sip:+14155550199@t>", "", Some("+14155550199"), None, false),
            ("\"Bob 7\" <sip:+14155550199@t>", "", Some("+14155550199"), Some("Bob 7"), false),
            ("<sip:+14155550199@t>", pai, Some("+14155550199"), Some("ACME"), false),
            ("\"X\" <sip:+14155550199@t>", &open, Some("+14155550199"), Some("X"), false),
            ("\"X\" <sip:+14155550199@t>", &privacy, Some("+14155550199"), None, true),
            (
                "\"Anonymous\" <sip:anonymous@anonymous.invalid>",
                pai,
                Some("+14155550199"),
                None,
                true,
            ),
            ("\"Anonymous\" <sip:anonymous@anonymous.invalid>", "", None, None, true),
            ("<sip:+266696687@t>", "", None, None, true),
            ("<sip:Restricted@t>", "", None, None, true),
            ("<sip:4155550199@t>", "", Some("4155550199"), None, false),
            ("<tel:+1-415-555-0199>", "", Some("+14155550199"), None, false),
            ("\"A\\\"B\" <sip:+1415@t>", "", Some("+1415"), Some("A\"B"), false),
        ] {
            let inbound = read("sip:+17756187988@h", from, lines);
            assert_eq!(inbound.caller.as_ref().map(NumberBuf::expose), number, "{from} {lines}");
            assert_eq!(inbound.name.as_deref(), name, "{from} {lines}");
            assert_eq!(inbound.is_private, private, "{from} {lines}");
        }
    }

    #[test]
    fn who_diverted_is_kept_apart_from_the_carrier() {
        let inbound = read(
            "sip:+17756187988@h",
            "<sip:+14155550199@t>",
            "Diversion: <sip:+17756187988@twilio.com>, <sip:+12125550100@office.example>\r\n",
        );
        let by: Vec<_> = inbound.diverted_by.iter().map(NumberBuf::expose).collect();
        assert_eq!(by, ["+12125550100"]);
    }

    fn read(uri: &str, from: &str, lines: &str) -> Inbound {
        let text = format!(
            "INVITE {uri} SIP/2.0\r\n\
             Via: SIP/2.0/UDP 54.172.60.0;branch=z9hG4bK1\r\n\
             From: {from};tag=1\r\nTo: <sip:+17756187988@h>\r\nCall-ID: 1@0.0.0.0\r\n\
             CSeq: 1 INVITE\r\nMax-Forwards: 60\r\nContact: <sip:+14155550199@172.25.75.240:5060>\r\n\
             {lines}Content-Length: 0\r\n\r\n"
        );
        Inbound::read(&Message::parse(Bytes::from(text)).unwrap())
    }
}
