//! Names that we know: methods and header fields, compact forms included.
//!
//! Owns: the tables of RFC 3261 20 and of the extensions in use.
//! Never: reads a header's value.

use std::fmt;

/// A request method. Case-sensitive (RFC 3261 7.1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Method {
    /// RFC 3261 13.
    Ack,
    /// RFC 3261 15.
    Bye,
    /// RFC 3261 9.
    Cancel,
    /// RFC 6086.
    Info,
    /// RFC 3261 13.
    Invite,
    /// RFC 3428.
    Message,
    /// RFC 6665.
    Notify,
    /// RFC 3261 11.
    Options,
    /// RFC 3262.
    Prack,
    /// RFC 3903.
    Publish,
    /// RFC 3515.
    Refer,
    /// RFC 3261 10.
    Register,
    /// RFC 6665.
    Subscribe,
    /// RFC 3311.
    Update,
    /// Any other token; the message has its text.
    Other,
}

impl Method {
    /// Reads a method's token.
    pub fn parse(token: &[u8]) -> Self {
        match token {
            b"ACK" => Self::Ack,
            b"BYE" => Self::Bye,
            b"CANCEL" => Self::Cancel,
            b"INFO" => Self::Info,
            b"INVITE" => Self::Invite,
            b"MESSAGE" => Self::Message,
            b"NOTIFY" => Self::Notify,
            b"OPTIONS" => Self::Options,
            b"PRACK" => Self::Prack,
            b"PUBLISH" => Self::Publish,
            b"REFER" => Self::Refer,
            b"REGISTER" => Self::Register,
            b"SUBSCRIBE" => Self::Subscribe,
            b"UPDATE" => Self::Update,
            _ => Self::Other,
        }
    }

    /// Returns the token; nothing for [`Method::Other`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Info => "INFO",
            Self::Invite => "INVITE",
            Self::Message => "MESSAGE",
            Self::Notify => "NOTIFY",
            Self::Options => "OPTIONS",
            Self::Prack => "PRACK",
            Self::Publish => "PUBLISH",
            Self::Refer => "REFER",
            Self::Register => "REGISTER",
            Self::Subscribe => "SUBSCRIBE",
            Self::Update => "UPDATE",
            Self::Other => "",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A CSeq header (RFC 3261 20.16).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CSeq {
    /// Below 2^31.
    pub number: u32,
    /// The method; [`Method::Other`] hides its token.
    pub method: Method,
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

macro_rules! header_names {
    ($($name:ident $text:literal,)*) => {
        /// The name of a header field that something here reads or writes.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum HeaderName {
            $(#[doc = concat!("`", $text, "`")] $name,)*
            /// Any other; the line has its text.
            Other,
        }

        /// Names and what they mean, sorted without regard to case.
        const NAMES: &[(&str, HeaderName)] = &[$(($text, HeaderName::$name),)*];

        impl HeaderName {
            /// Returns the usual spelling; nothing for [`HeaderName::Other`].
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other => "",
                }
            }
        }
    };
}

header_names! {
    Accept "Accept",
    AcceptContact "Accept-Contact",
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AlertInfo "Alert-Info",
    Allow "Allow",
    AllowEvents "Allow-Events",
    AuthenticationInfo "Authentication-Info",
    Authorization "Authorization",
    CallId "Call-ID",
    CallInfo "Call-Info",
    Contact "Contact",
    ContentDisposition "Content-Disposition",
    ContentEncoding "Content-Encoding",
    ContentLanguage "Content-Language",
    ContentLength "Content-Length",
    ContentType "Content-Type",
    CSeq "CSeq",
    Date "Date",
    Diversion "Diversion",
    ErrorInfo "Error-Info",
    Event "Event",
    Expires "Expires",
    FlowTimer "Flow-Timer",
    From "From",
    HistoryInfo "History-Info",
    Identity "Identity",
    IdentityInfo "Identity-Info",
    InReplyTo "In-Reply-To",
    Join "Join",
    MaxForwards "Max-Forwards",
    MimeVersion "MIME-Version",
    MinExpires "Min-Expires",
    MinSe "Min-SE",
    Organization "Organization",
    PAccessNetworkInfo "P-Access-Network-Info",
    PAssertedIdentity "P-Asserted-Identity",
    PAssociatedUri "P-Associated-URI",
    PChargingVector "P-Charging-Vector",
    PEarlyMedia "P-Early-Media",
    PPreferredIdentity "P-Preferred-Identity",
    Path "Path",
    Priority "Priority",
    Privacy "Privacy",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthenticationInfo "Proxy-Authentication-Info",
    ProxyAuthorization "Proxy-Authorization",
    ProxyRequire "Proxy-Require",
    RAck "RAck",
    Reason "Reason",
    RecordRoute "Record-Route",
    ReferSub "Refer-Sub",
    ReferTo "Refer-To",
    ReferredBy "Referred-By",
    RejectContact "Reject-Contact",
    RemotePartyId "Remote-Party-ID",
    Replaces "Replaces",
    ReplyTo "Reply-To",
    RequestDisposition "Request-Disposition",
    Require "Require",
    RetryAfter "Retry-After",
    Route "Route",
    RSeq "RSeq",
    Server "Server",
    ServiceRoute "Service-Route",
    SessionExpires "Session-Expires",
    SessionId "Session-ID",
    SipEtag "SIP-ETag",
    SipIfMatch "SIP-If-Match",
    Subject "Subject",
    SubscriptionState "Subscription-State",
    Supported "Supported",
    TargetDialog "Target-Dialog",
    Timestamp "Timestamp",
    To "To",
    Unsupported "Unsupported",
    UserAgent "User-Agent",
    UserToUser "User-to-User",
    Via "Via",
    Warning "Warning",
    WwwAuthenticate "WWW-Authenticate",
}

impl HeaderName {
    /// How many there are, [`HeaderName::Other`] included.
    pub(super) const COUNT: usize = NAMES.len().wrapping_add(1);

    /// How long a known name is at most.
    pub(super) const LEN_MAX: usize = {
        let mut len_max = 0;
        let mut names = NAMES;
        while let [(text, _), rest @ ..] = names {
            if text.len() > len_max {
                len_max = text.len();
            }
            names = rest;
        }
        len_max
    };

    /// Reads a name, in any case of letters, long or compact.
    pub fn parse(name: &[u8]) -> Self {
        if let [letter] = name {
            return Self::compact(letter.to_ascii_lowercase());
        }
        let mut slot = slot_of(name);
        // An empty slot ends the search, and the table has many.
        while let Some((text, id)) =
            PLACES.get(slot).and_then(|place| NAMES.get(usize::from(*place)))
        {
            if text.as_bytes() == name || text.as_bytes().eq_ignore_ascii_case(name) {
                return *id;
            }
            slot = slot.wrapping_add(1) % SLOTS;
        }
        Self::Other
    }

    /// RFC 3261 7.3.3 and IANA's registry of header fields.
    fn compact(letter: u8) -> Self {
        match letter {
            b'a' => Self::AcceptContact,
            b'b' => Self::ReferredBy,
            b'c' => Self::ContentType,
            b'd' => Self::RequestDisposition,
            b'e' => Self::ContentEncoding,
            b'f' => Self::From,
            b'i' => Self::CallId,
            b'j' => Self::RejectContact,
            b'k' => Self::Supported,
            b'l' => Self::ContentLength,
            b'm' => Self::Contact,
            b'n' => Self::IdentityInfo,
            b'o' => Self::Event,
            b'r' => Self::ReferTo,
            b's' => Self::Subject,
            b't' => Self::To,
            b'u' => Self::AllowEvents,
            b'v' => Self::Via,
            b'x' => Self::SessionExpires,
            b'y' => Self::Identity,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How many slots the table of names has: some four for each.
const SLOTS: usize = 512;
/// What stands in an empty slot.
const EMPTY: u8 = u8::MAX;

/// Which name stands in each slot; where a slot is taken, the next free one.
#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which checks it")]
const PLACES: [u8; SLOTS] = {
    let mut places = [EMPTY; SLOTS];
    let mut at = 0;
    let mut names = NAMES;
    while let [(text, _), rest @ ..] = names {
        let mut slot = slot_of(text.as_bytes());
        while places[slot] != EMPTY {
            slot = slot.wrapping_add(1) % SLOTS;
        }
        places[slot] = at;
        at = at.wrapping_add(1);
        names = rest;
    }
    places
};

/// Returns where a name would stand: by its length and three of its letters, in either case.
const fn slot_of(name: &[u8]) -> usize {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    let middle = match name.split_at_checked(name.len() / 2) {
        Some((_, [middle, ..])) => *middle,
        Some((_, [])) | None => 0,
    };
    let letters = (*first as usize & 31)
        .wrapping_mul(37)
        .wrapping_add((*last as usize & 31).wrapping_mul(171))
        .wrapping_add((middle as usize & 31).wrapping_mul(59));
    letters.wrapping_add(name.len().wrapping_mul(17)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_slots_are_well_used() {
        assert!(NAMES.is_sorted_by_key(|(text, _)| text.to_lowercase()), "for whoever reads it");
        assert!(NAMES.len() < usize::from(EMPTY));
        let probes = |text: &str| {
            let place = NAMES.iter().position(|(name, _)| *name == text);
            let found = PLACES.iter().position(|at| Some(usize::from(*at)) == place);
            found.unwrap().wrapping_sub(slot_of(text.as_bytes())) % SLOTS
        };
        let all: usize = NAMES.iter().map(|(text, _)| probes(text)).sum();
        assert!(all < NAMES.len() / 2, "few names are not where they belong: {all}");
    }

    #[test]
    fn names_read_back_in_any_case() {
        for (text, id) in NAMES {
            assert_eq!(HeaderName::parse(text.as_bytes()), *id);
            assert_eq!(HeaderName::parse(text.to_uppercase().as_bytes()), *id);
            assert_eq!(HeaderName::parse(text.to_lowercase().as_bytes()), *id);
            assert_eq!(id.as_str(), *text);
        }
        assert_eq!(HeaderName::parse(b"X-Twilio-CallSid"), HeaderName::Other);
        assert_eq!(HeaderName::parse(b""), HeaderName::Other);
    }

    #[test]
    fn compact_forms() {
        let read: Vec<_> = b"abcdefijklmnorstuvxy"
            .iter()
            .map(|letter| HeaderName::parse(&[letter.to_ascii_uppercase()]).as_str())
            .collect();
        assert_eq!(
            read.join(" "),
            "Accept-Contact Referred-By Content-Type Request-Disposition Content-Encoding From \
             Call-ID Reject-Contact Supported Content-Length Contact Identity-Info Event Refer-To \
             Subject To Allow-Events Via Session-Expires Identity"
        );
        assert_eq!(HeaderName::parse(b"z"), HeaderName::Other);
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::parse(b"INVITE"), Method::Invite);
        assert_eq!(Method::parse(b"invite"), Method::Other);
        assert_eq!(Method::parse(Method::Subscribe.as_str().as_bytes()), Method::Subscribe);
    }
}
