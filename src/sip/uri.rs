//! URIs (RFC 3261 19.1, RFC 3966) and the parameters that follow URIs and headers.
//!
//! Owns: reading and comparing them.
//! Never: writes one back: a URI that is passed on is passed on as it was written.

use super::text::{self, Hiding, Span};
use crate::ids::Transport;
use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr},
};

/// Parameters as written, without their first semicolon: `a=1;flag;b="x;y"`.
#[derive(Clone, Copy, Debug)]
pub struct Params<'a> {
    text: &'a [u8],
    /// What is known of its quotes.
    hiding: Hiding,
}

impl<'a> Params<'a> {
    /// Takes the text after the first semicolon.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, hiding: Hiding::Quotes }
    }

    /// Takes the text after the first semicolon, in which there are no quotes.
    pub(super) fn without_quotes(text: &'a [u8]) -> Self {
        Self { text, hiding: Hiding::Nothing }
    }

    /// Takes the text after the first semicolon, and what is known of its quotes.
    pub(super) fn known(text: &'a [u8], hiding: Hiding) -> Self {
        Self { text, hiding }
    }

    /// Returns what is known of their quotes.
    pub(super) fn hiding(&self) -> Hiding {
        self.hiding
    }

    /// Returns them as written.
    pub(super) fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Returns the trimmed parts between semicolons.
    pub(super) fn parts(&self) -> text::Parts<'a> {
        text::semicolons(self.text, self.hiding)
    }

    /// Returns a parameter's value: without its quotes, nothing for a flag. Names are compared
    /// without regard to case. A value that is not UTF-8 is as good as absent.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.parts().find_map(|part| std::str::from_utf8(value_of(part, name)?).ok())
    }

    /// Returns the tag of a From or To, UTF-8; nothing where there is none, or an empty one.
    pub(super) fn tag(&self) -> &'a [u8] {
        let values = self.parts().filter_map(|part| value_of(part, "tag"));
        let mut tags = values.filter(|tag| !tag.is_empty() && text::is_utf8(tag));
        tags.next().unwrap_or_default()
    }

    /// Returns whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.raw().filter_map(|(name, value)| {
            Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(unquoted(value)).ok()?))
        })
    }

    /// Returns names and values in order, quotes included.
    fn raw(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let split = |part| text::split_once(part, b'=').unwrap_or((part, &[]));
        self.parts()
            .map(split)
            .map(|(name, value)| (text::trim(name), text::trim(value)))
            .filter(|(name, _)| !name.is_empty())
    }
}

impl Default for Params<'_> {
    fn default() -> Self {
        Self::without_quotes(&[])
    }
}

impl PartialEq for Params<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Params<'_> {}

/// Returns the value of a parameter if that is its name: without its quotes, nothing for a flag.
pub(super) fn value_of<'a>(part: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (key, value) = part.split_at_checked(name.len())?;
    if !key.eq_ignore_ascii_case(name.as_bytes()) {
        return None;
    }
    match text::trim_start(value).split_first() {
        None => Some(&[]),
        Some((b'=', value)) => Some(unquoted(text::trim_start(value))),
        Some(_) => None,
    }
}

/// Takes the quotes off a value.
fn unquoted(value: &[u8]) -> &[u8] {
    text::quoted(value).map_or(value, |(inside, _)| inside)
}

/// Splits around the first `separator`, an ASCII character; `str::split_once` takes three times as long for
/// texts as short as these.
fn cut(text: &str, separator: u8) -> Option<(&str, &str)> {
    let (before, after) = text.split_at_checked(text::find_byte(text.as_bytes(), separator)?)?;
    Some((before, after.get(1..)?))
}

/// The part of a URI before its colon.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Scheme {
    /// `sip:`
    #[default]
    Sip,
    /// `sips:`
    Sips,
    /// `tel:` (RFC 3966)
    Tel,
    /// `urn:` (RFC 5031: emergency services)
    Urn,
    /// Anything else.
    Other,
}

/// A URI, read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Uri<'a> {
    /// What kind it is.
    pub scheme: Scheme,
    /// The user part as written; the number of a `tel:`; all that follows an unknown scheme.
    pub user: Option<&'a str>,
    /// The deprecated password.
    pub password: Option<&'a str>,
    /// The host as written, IPv6 in its brackets; nothing for schemes without one.
    pub host: &'a str,
    /// The port, if written.
    pub port: Option<u16>,
    /// What follows the host, or the number of a `tel:`.
    pub params: Params<'a>,
    /// What follows the question mark.
    pub headers: &'a str,
}

impl<'a> Uri<'a> {
    /// Reads a URI. White space, controls, quotes and angle brackets are refused anywhere.
    pub fn parse(uri: &'a str) -> Option<Self> {
        if let Some(usual) = UsualUri::read(uri.as_bytes()).filter(|usual| usual.rest.is_empty()) {
            return usual.view(uri);
        }
        let bad = |byte| text::is(byte, text::NO_URI);
        if text::find(uri.as_bytes(), bad).is_some() { None } else { Self::of_clean(uri) }
    }

    /// Returns whether that is a URI.
    pub(super) fn is_good(uri: &'a [u8]) -> bool {
        UsualUri::read(uri).is_some_and(|usual| usual.rest.is_empty())
            || std::str::from_utf8(uri).is_ok_and(|uri| Self::parse(uri).is_some())
    }

    /// Reads a URI in which every byte is one that may stand in a URI.
    pub(super) fn of_clean(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = cut(uri, b':')?;
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        match () {
            () if is("sip") => Self::parse_sip(Scheme::Sip, rest),
            () if is("sips") => Self::parse_sip(Scheme::Sips, rest),
            () if is("tel") => Self::parse_tel(rest),
            () => Self::parse_other(scheme, rest),
        }
    }

    fn parse_sip(scheme: Scheme, rest: &'a str) -> Option<Self> {
        // An `@` must be escaped wherever it does not end the user part, so the first one does.
        let (userinfo, rest) = match cut(rest, b'@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, rest),
        };
        let (user, password) = match userinfo.and_then(|info| cut(info, b':')) {
            Some((user, password)) => (Some(user), Some(password)),
            None => (userinfo, None),
        };
        let user = user.filter(|user| !user.is_empty());
        let end = text::find_either(rest.as_bytes(), b';', b'?').unwrap_or(rest.len());
        let (hostport, rest) = rest.split_at_checked(end)?;
        let (params, headers) = match rest.as_bytes().first() {
            None => ("", ""),
            Some(b';') => cut(rest.get(1..)?, b'?').unwrap_or((rest.get(1..)?, "")),
            Some(_) => ("", rest.get(1..)?),
        };
        let (host, port) = host_port(hostport.as_bytes())?;
        let host = hostport.get(..host.len())?;
        let params = Params::without_quotes(params.as_bytes());
        Some(Self { scheme, user, password, host, port, params, headers })
    }

    fn parse_tel(rest: &'a str) -> Option<Self> {
        let (number, params) = cut(rest, b';').unwrap_or((rest, ""));
        (!number.is_empty()).then_some(Self {
            scheme: Scheme::Tel,
            user: Some(number),
            params: Params::without_quotes(params.as_bytes()),
            ..Self::default()
        })
    }

    fn parse_other(scheme: &str, rest: &'a str) -> Option<Self> {
        let is_first = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
        let is_rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let urn = scheme.eq_ignore_ascii_case("urn");
        (is_first && scheme.chars().all(is_rest) && !rest.is_empty()).then_some(Self {
            scheme: if urn { Scheme::Urn } else { Scheme::Other },
            user: Some(rest),
            ..Self::default()
        })
    }

    /// Returns the `transport` parameter, where it is one that we speak.
    pub fn transport(&self) -> Option<Transport> {
        Transport::parse(self.params.get("transport")?)
    }

    /// Returns the host where it is an address.
    pub fn ip(&self) -> Option<IpAddr> {
        parse_ip(self.host)
    }

    /// Returns the user part with its escapes resolved, without parameters (`+1415;npdi`).
    pub fn user_unescaped(&self) -> Cow<'a, str> {
        let user = self.user.unwrap_or_default();
        let user = cut(user, b';').map_or(user, |(user, _)| user);
        match percent_decode(user) {
            Cow::Borrowed(_) => Cow::Borrowed(user),
            Cow::Owned(decoded) => String::from_utf8_lossy(&decoded).into_owned().into(),
        }
    }

    /// Returns whether the user part is a global number: `+` and 2 to 15 digits, with or without
    /// the visual separators of RFC 3966.
    pub fn is_e164(&self) -> bool {
        let user = self.user_unescaped();
        let Some(number) = user.strip_prefix('+') else { return false };
        let is_separator = |c: char| matches!(c, '-' | '.' | '(' | ')');
        let digits = number.chars().filter(char::is_ascii_digit).count();
        (2..=15).contains(&digits) && number.chars().all(|c| c.is_ascii_digit() || is_separator(c))
    }

    /// Compares as RFC 3261 19.1.4 says (and RFC 3966 4, RFC 8141 3 for the others). Whatever is in it,
    /// even a parameter with two values: a URI is the same as itself.
    pub fn same_as(&self, other: &Uri<'_>) -> bool {
        if self == other {
            return true;
        }
        if self.scheme != other.scheme {
            return false;
        }
        match self.scheme {
            Scheme::Sip | Scheme::Sips => {
                same_escaped(self.user, other.user)
                    && same_escaped(self.password, other.password)
                    && self.same_host(other)
                    && self.port == other.port
                    && self.params_agree(other)
                    && self.headers_agree(other)
            }
            Scheme::Tel => same_number(self.user, other.user) && self.tel_params_agree(other),
            Scheme::Urn => same_ignoring_case(self.user, other.user),
            Scheme::Other => self.user == other.user,
        }
    }

    fn same_host(&self, other: &Uri<'_>) -> bool {
        match (self.ip(), other.ip()) {
            (Some(a), Some(b)) => a == b,
            (Some(_), None) | (None, Some(_)) => false,
            (None, None) => self.host.eq_ignore_ascii_case(other.host),
        }
    }

    /// A parameter in both must match; some may not be in one only.
    fn params_agree(&self, other: &Uri<'_>) -> bool {
        let one_way = |a: &Params<'_>, b: &Params<'_>| {
            a.iter().all(|(name, value)| match b.get(name) {
                Some(theirs) => percent_decode(value).eq_ignore_ascii_case(&percent_decode(theirs)),
                None => !["user", "ttl", "method", "maddr", "transport"]
                    .iter()
                    .any(|strict| strict.eq_ignore_ascii_case(name)),
            })
        };
        one_way(&self.params, &other.params) && one_way(&other.params, &self.params)
    }

    /// Every header must be in both.
    fn headers_agree(&self, other: &Uri<'_>) -> bool {
        fn sorted(headers: &str) -> Vec<(String, Cow<'_, [u8]>)> {
            let split = |header| str::split_once(header, '=').unwrap_or((header, ""));
            let pairs = headers.split('&').filter(|header| !header.is_empty()).map(split);
            let mut pairs: Vec<_> =
                pairs.map(|(k, v)| (k.to_ascii_lowercase(), percent_decode(v))).collect();
            pairs.sort();
            pairs
        }
        self.headers == other.headers || sorted(self.headers) == sorted(other.headers)
    }

    fn tel_params_agree(&self, other: &Uri<'_>) -> bool {
        let one_way = |a: &Params<'_>, b: &Params<'_>| {
            a.iter().all(|(k, v)| b.get(k).is_some_and(|w| w.eq_ignore_ascii_case(v)))
        };
        one_way(&self.params, &other.params) && one_way(&other.params, &self.params)
    }
}

/// A URI of the usual shape, `sip:user@host:port;a=1`, at the front of a text: it is read in one go. Anything more, as a
/// password or headers, is for [`Uri::of_clean`], which says the same of this shape.
pub(super) struct UsualUri<'a> {
    user: &'a [u8],
    host: &'a [u8],
    port: Option<u16>,
    params: &'a [u8],
    /// What follows it: nothing, or what cannot be part of a URI.
    pub(super) rest: &'a [u8],
}

impl<'a> UsualUri<'a> {
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        let [b's' | b'S', b'i' | b'I', b'p' | b'P', b':', rest @ ..] = text else { return None };
        let (user, rest) = text::split_while(rest, text::PLAIN_USER);
        let (host, rest) = text::split_while(rest.strip_prefix(b"@")?, text::HOST);
        let (port, rest) = match rest {
            [b':', rest @ ..] => {
                let (digits, rest) = text::split_at(rest, |byte| !byte.is_ascii_digit());
                (Some(u16::try_from(text::digits(digits)?).ok()?), rest)
            }
            rest => (None, rest),
        };
        let (params, rest) = match rest {
            [b';', rest @ ..] => text::split_while(rest, text::PLAIN_PARAMS),
            rest => (&[][..], rest),
        };
        let is_over = rest.first().is_none_or(|byte| text::is(*byte, text::NO_URI));
        (is_over && !user.is_empty() && !host.is_empty()).then_some(Self {
            user,
            host,
            port,
            params,
            rest,
        })
    }

    /// Returns the URI, whose text this is.
    fn view(&self, uri: &'a str) -> Option<Uri<'a>> {
        let part = |part| uri.get(Span::of(uri.as_bytes(), part).range());
        Some(Uri {
            scheme: Scheme::Sip,
            user: Some(part(self.user)?),
            password: None,
            host: part(self.host)?,
            port: self.port,
            params: Params::without_quotes(self.params),
            headers: "",
        })
    }
}

impl<'a> From<&'a str> for Params<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text.as_bytes())
    }
}

/// Splits and checks `host`, `host:port`, `[::1]` and `[::1]:port`, with white space around the colon at most. The host
/// is the front of the text.
pub(super) fn host_port(text: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let (host, rest) = if text.first() == Some(&b'[') {
        let (host, rest) = text.split_at_checked(text::find_byte(text, b']')?.checked_add(1)?)?;
        let inside = host.get(1..host.len().saturating_sub(1))?;
        std::str::from_utf8(inside).ok()?.parse::<Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        text::split_while(text, text::HOST)
    };
    if host.is_empty() {
        return None;
    }
    let port = match text::trim_start(rest).split_first() {
        None => return rest.is_empty().then_some((host, None)),
        Some((b':', port)) => text::digits(text::trim(port))?,
        Some(_) => return None,
    };
    Some((host, Some(u16::try_from(port).ok()?)))
}

/// Reads an address, IPv6 with or without brackets.
pub(super) fn parse_ip(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

fn percent_decode(text: &str) -> Cow<'_, [u8]> {
    if text::find_byte(text.as_bytes(), b'%').is_none() {
        return Cow::Borrowed(text.as_bytes());
    }
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escape = match after {
            [high, low, after @ ..] if *byte == b'%' => {
                hex(*high).zip(hex(*low)).map(|(high, low)| (high.wrapping_shl(4) | low, after))
            }
            _ => None,
        };
        let (byte, after) = escape.unwrap_or((*byte, after));
        out.push(byte);
        rest = after;
    }
    Cow::Owned(out)
}

fn same_escaped(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => percent_decode(a) == percent_decode(b),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn same_ignoring_case(a: Option<&str>, b: Option<&str>) -> bool {
    a.unwrap_or_default().eq_ignore_ascii_case(b.unwrap_or_default())
}

fn same_number(a: Option<&str>, b: Option<&str>) -> bool {
    let digits = |number: Option<&str>| {
        let plain = |c: &char| !matches!(c, '-' | '.' | '(' | ')');
        let number = number.unwrap_or_default().chars().filter(plain);
        number.map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    digits(a) == digits(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        let uri = Uri::parse("sip:bob:s3cr:t@pbx.example.com:5060;lr;transport=TCP?a=b").unwrap();
        assert_eq!((uri.user, uri.password), (Some("bob"), Some("s3cr:t")));
        assert_eq!((uri.host, uri.port, uri.headers), ("pbx.example.com", Some(5060), "a=b"));
        assert_eq!(uri.transport(), Some(Transport::Tcp));
        assert!(uri.params.has("LR"));

        let uri = Uri::parse("SIPS:[2001:db8::10]:5061").unwrap();
        assert_eq!((uri.scheme, uri.user), (Scheme::Sips, None));
        assert_eq!((uri.host, uri.port), ("[2001:db8::10]", Some(5061)));
        assert_eq!(uri.ip(), Some("2001:db8::10".parse().unwrap()));

        let uri = Uri::parse("tel:+1-201-555-0123;phone-context=example.com").unwrap();
        assert_eq!((uri.scheme, uri.user, uri.host), (Scheme::Tel, Some("+1-201-555-0123"), ""));
        assert_eq!(uri.params.get("phone-context"), Some("example.com"));
        assert!(uri.is_e164());

        let uri = Uri::parse("urn:service:sos.police").unwrap();
        assert_eq!((uri.scheme, uri.user), (Scheme::Urn, Some("service:sos.police")));
        assert_eq!(Uri::parse("soap.beep://192.0.2.103:3002").unwrap().scheme, Scheme::Other);
    }

    /// The short way comes to where the long way does.
    #[test]
    fn usual_uris_are_read_like_others() {
        for (uri, is_usual) in [
            ("sip:a@h", true),
            ("SIP:%61+1-2@h.example:5060", true),
            ("sip:a@10.0.0.1:05060;lr;x=@:;y", true),
            ("sip:a@h;", true),
            ("sip:a:b@h", false),
            ("sip:a;b@h", false),
            ("sip:h", false),
            ("sip:h:5060;maddr=a@b", false),
            ("sip:a@h?b=c", false),
            ("sip:a@h;b?b=c", false),
            ("sip:a@[::1]", false),
            ("sip:\u{e9}@h", false),
            ("sip:@h", false),
            ("sip:a@", false),
            ("sip:a@h:", false),
            ("sip:a@h:65536", false),
            ("sip:a@h:1x", false),
            ("sip:a@b@c", false),
            ("sips:a@h", false),
        ] {
            let usual = UsualUri::read(uri.as_bytes());
            assert_eq!(usual.is_some(), is_usual, "{uri}");
            if let Some(usual) = usual {
                assert!(usual.rest.is_empty());
                assert_eq!(usual.view(uri), Uri::of_clean(uri), "{uri}");
            }
            let quoted = format!("{uri}>;tag=1");
            let usual = UsualUri::read(quoted.as_bytes());
            assert_eq!(usual.map(|usual| usual.rest), is_usual.then_some(&b">;tag=1"[..]));
            assert_eq!(Uri::is_good(uri.as_bytes()), Uri::parse(uri).is_some(), "{uri}");
        }
    }

    #[test]
    fn users() {
        for (uri, user, is_e164) in [
            ("sip:%75se%72@h", "user", false),
            ("sip:*21*#31#@h", "*21*#31#", false),
            ("sip:+15551234567;phone-context=%2B1;npdi@h;user=phone", "+15551234567", true),
            ("sip:%2B15551234567@h", "+15551234567", true),
            ("sip:+1@h", "+1", false),
            ("sip:+1555123456789012@h", "+1555123456789012", false),
            ("sip:sips%3Auser%40example.com@h", "sips:user@example.com", false),
            ("sip:a%zz%4@h", "a%zz%4", false),
            ("sip:%ff@h", "\u{fffd}", false),
            ("sip:h", "", false),
        ] {
            let parsed = Uri::parse(uri).unwrap();
            assert_eq!(parsed.user_unescaped(), user, "{uri}");
            assert_eq!(parsed.is_e164(), is_e164, "{uri}");
        }
    }

    #[test]
    fn refused() {
        for uri in [
            "",
            "sip",
            "sip:",
            "sip:user@",
            "sip:2001:db8::10",
            "sip:user@[2001:db8:::192.0.2.1]",
            "sip:user@[::1",
            "sip:user@[::1]5060",
            "sip:a@b@c",
            "sip:a@b:65536",
            "sip:a@b:",
            "sip:a b@c",
            "<sip:a@b>",
            "sip:a@b\r\n",
            "1x:y",
            "tel:",
            "x:",
        ] {
            assert_eq!(Uri::parse(uri), None, "{uri}");
        }
    }

    /// RFC 3261 19.1.4's own examples, and ours.
    #[test]
    fn comparison() {
        for (a, b, same) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp", true),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", true),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on", true),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
                true,
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
                true,
            ),
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP", false),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", false),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", false),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp", false),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting", false),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4", false),
            ("sip:carol@chicago.com;security=off", "sip:carol@chicago.com;security=on", false),
            ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]", true),
            ("sip:a@h", "sips:a@h", false),
            ("tel:+1-201-555-0123", "tel:+12015550123", true),
            ("tel:123;phone-context=a", "tel:123", false),
            ("urn:service:SOS", "urn:service:sos", true),
        ] {
            let parsed = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
            assert_eq!(parsed.0.same_as(&parsed.1), same, "{a} {b}");
            assert_eq!(parsed.1.same_as(&parsed.0), same, "{b} {a}");
        }
    }

    #[test]
    fn parameters() {
        let params = Params::from(r#" a = 1 ;flag; b="x;\"y" ;A=2;;+sip.instance="<urn:x>""#);
        assert_eq!(params.get("a"), Some("1"));
        assert_eq!(params.get("FLAG"), Some(""));
        assert_eq!(params.get("b"), Some(r#"x;\"y"#));
        assert_eq!(params.get("+sip.instance"), Some("<urn:x>"));
        assert_eq!(params.get("c"), None);
        assert_eq!(params.iter().count(), 5);
        assert_eq!(Params::from("").iter().count(), 0);
    }
}
