//! Typed views of header values: addresses with parameters, and Via.
//!
//! Owns: the grammar of `name-addr`, `addr-spec` and `via-parm` (RFC 3261 20.10, 20.42, 25.1).
//! Never: copies, except a display name whose escapes must go.

use super::{
    text::{self, Hiding},
    uri::{Params, Uri, UsualUri, host_port, parse_ip, value_of},
};
use std::{borrow::Cow, net::IpAddr};

/// One value of From, To, Contact, Route, P-Asserted-Identity and the like.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NameAddr<'a> {
    /// The display name, unquoted; `None` where there is none or an empty one.
    pub display: Option<Cow<'a, [u8]>>,
    /// The URI as written, without its brackets.
    pub uri: &'a str,
    /// The header's parameters. Without brackets, what follows the URI belongs to the header.
    pub params: Params<'a>,
}

/// The parts of an address as they were written.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddrParts<'a> {
    /// The display name without its quotes, its escapes and folds left in it; empty where there is none.
    pub(super) display: &'a [u8],
    /// Whether it was quoted.
    pub(super) is_quoted: bool,
    /// The URI without its brackets. It may be no UTF-8, which [`NameAddr::parse`] refuses.
    pub(super) uri: &'a [u8],
    /// What has been seen of the URI.
    looks: Looks,
    /// The parameters.
    pub(super) params: Params<'a>,
}

/// What has been seen of a URI.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Looks {
    /// It is one, of the usual shape.
    Usual,
    /// Each of its bytes may stand in a URI.
    Clean,
    /// It is none, but may be one of an address in a response of old.
    Odd,
}

impl<'a> AddrParts<'a> {
    /// Reads one value; see [`NameAddr::parse`].
    pub(super) fn read(value: &'a [u8]) -> Option<Self> {
        let value = text::trim(value);
        match value.first() {
            Some(b'<') => Self::after_display(&[], false, value),
            Some(b'"') => {
                let (name, rest) = text::quoted(value)?;
                Self::after_display(name, true, text::trim_start(rest))
            }
            Some(_) | None => Self::unquoted(value),
        }
    }

    fn unquoted(value: &'a [u8]) -> Option<Self> {
        let (front, rest) = text::split_at(value, |byte| matches!(byte, b'<' | b';' | b'"'));
        let front = text::trim(front);
        match rest.first() {
            Some(b'<') => {
                let is_odd = |byte: u8| {
                    matches!(byte, b',' | b'>') || (byte.is_ascii_control() && !text::is_lws(byte))
                };
                if text::find(front, is_odd).is_some() {
                    return None;
                }
                Self::after_display(front, false, rest)
            }
            Some(b';') | None => {
                let is_odd = |byte| matches!(byte, b'?' | b',' | b'>') || text::is_lws(byte);
                if text::find(front, is_odd).is_some() {
                    return None;
                }
                let is_odd = text::find(front, |byte| text::is(byte, text::NO_URI)).is_some();
                let looks = if is_odd { Looks::Odd } else { Looks::Clean };
                Self::new(&[], false, (front, looks), rest)
            }
            Some(_) => None,
        }
    }

    fn after_display(display: &'a [u8], is_quoted: bool, rest: &'a [u8]) -> Option<Self> {
        let inside = rest.strip_prefix(b"<")?;
        if let Some(usual) = UsualUri::read(inside)
            && let Some((b'>', rest)) = usual.rest.split_first()
        {
            let uri = inside.get(..inside.len().wrapping_sub(usual.rest.len()))?;
            return Self::new(display, is_quoted, (uri, Looks::Usual), rest);
        }
        let (uri, rest) = text::split_at(inside, |byte| text::is(byte, text::NO_URI));
        if let Some((b'>', rest)) = rest.split_first() {
            return Self::new(display, is_quoted, (uri, Looks::Clean), rest);
        }
        let (uri, rest) = text::split_once(inside, b'>')?;
        let is_odd = |byte: u8| text::is_lws(byte) || matches!(byte, b'<' | b'"');
        if text::find(uri, is_odd).is_some() {
            return None;
        }
        Self::new(display, is_quoted, (uri, Looks::Odd), rest)
    }

    /// Takes something with a scheme for a URI.
    fn new(
        display: &'a [u8],
        is_quoted: bool,
        (uri, looks): (&'a [u8], Looks),
        rest: &'a [u8],
    ) -> Option<Self> {
        if looks != Looks::Usual {
            text::find_byte(uri, b':').filter(|scheme_len| *scheme_len > 0)?;
        }
        Some(Self { display, is_quoted, uri, looks, params: params(rest)? })
    }

    /// Returns whether the URI is text, which [`NameAddr::parse`] wants.
    pub(super) fn has_text(&self) -> bool {
        self.looks == Looks::Usual || text::is_utf8(self.uri)
    }

    /// Returns whether the URI can be read.
    pub(super) fn has_good_uri(&self) -> bool {
        match self.looks {
            Looks::Usual => true,
            Looks::Clean => {
                std::str::from_utf8(self.uri).is_ok_and(|uri| Uri::of_clean(uri).is_some())
            }
            Looks::Odd => false,
        }
    }
}

impl<'a> NameAddr<'a> {
    /// Reads one value. White space inside the brackets, unbalanced quotes or brackets, a comma
    /// or quote in an unquoted display name, and a `?` without brackets are refused.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let AddrParts { display, is_quoted, uri, looks: _, params } = AddrParts::read(value)?;
        Some(Self::of(display, is_quoted, std::str::from_utf8(uri).ok()?, params))
    }

    /// Makes the view of parts that have been read.
    pub(super) fn of(display: &'a [u8], is_quoted: bool, uri: &'a str, params: Params<'a>) -> Self {
        let display = match (display, is_quoted) {
            ([], _) => None,
            (name, true) => Some(text::unescape(name)),
            (name, false) => Some(text::unfold(name)),
        };
        Self { display, uri, params }
    }

    /// Returns the tag of a From or To. An empty one is none.
    pub fn tag(&self) -> Option<&'a str> {
        std::str::from_utf8(self.params.tag()).ok().filter(|tag| !tag.is_empty())
    }

    /// Reads the URI.
    pub fn parsed_uri(&self) -> Option<Uri<'a>> {
        Uri::parse(self.uri)
    }

    /// Returns the display name as text.
    pub fn display_str(&self) -> Option<Cow<'_, str>> {
        self.display.as_deref().map(String::from_utf8_lossy)
    }
}

/// How long parameters with quotes, commas or folds may be: many times what anybody writes. To find their ends takes
/// many steps, again and again.
const ODD_PARAMS_MAX: usize = 8 * 1024;

/// Reads `;a=1;b` or nothing, without the first semicolon. A value's end is the end of its last parameter: no comma
/// outside of quotes, and every quote closed. No controls, which could not be written back.
fn params(rest: &[u8]) -> Option<Params<'_>> {
    let rest = text::trim(rest);
    let params = match rest.split_first() {
        None => return Some(Params::default()),
        Some((b';', params)) => params,
        Some(_) => return None,
    };
    if text::find(params, |byte| text::is(byte, text::ODD_IN_PARAMS)).is_none() {
        return Some(Params::without_quotes(params));
    }
    if params.len() > ODD_PARAMS_MAX {
        return None;
    }
    let is_control = |byte: u8| byte.is_ascii_control() && !text::is_lws(byte);
    if text::find(params, is_control).is_some() || text::has_stray_cr(params) {
        return None;
    }
    let (_, None) = text::cut(params, b',', Hiding::Quotes).ok()? else { return None };
    Some(Params::new(params))
}

/// The Contact headers of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Contacts<'a> {
    /// `*`: all of them (RFC 3261 10.2.2), and nothing else beside it.
    Star,
    /// Any number of addresses.
    List(Vec<NameAddr<'a>>),
    /// At least one that cannot be read.
    Bad,
}

/// One hop of the way a request came (RFC 3261 18.1.1, 20.42).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Via<'a> {
    /// The transport as written: `UDP`.
    pub transport: &'a str,
    /// The sender as it calls itself, IPv6 in its brackets.
    pub host: &'a str,
    /// Its port, if written.
    pub port: Option<u16>,
    /// The rest.
    pub params: Params<'a>,
}

/// The parts of a Via as they were written.
#[derive(Clone, Copy, Debug)]
pub(super) struct ViaParts<'a> {
    /// The transport: a token.
    pub(super) transport: &'a [u8],
    /// The host: a name or an address, nothing but ASCII.
    pub(super) host: &'a [u8],
    /// Its port, if written.
    pub(super) port: Option<u16>,
    /// The parameters, each of which has a name.
    pub(super) params: Params<'a>,
    /// The branch's value; empty from a peer of RFC 2543.
    pub(super) branch: &'a [u8],
}

impl<'a> ViaParts<'a> {
    /// Reads one value; see [`Via::parse`].
    pub(super) fn read(value: &'a [u8]) -> Option<Self> {
        let rest = match value.strip_prefix(b"SIP/2.0/") {
            Some(rest) => rest,
            None => Self::after_version(value)?,
        };
        let (transport, rest) = text::split_while(text::trim_start(rest), text::TOKEN);
        if transport.is_empty() || !rest.first().is_none_or(|byte| text::is_lws(*byte)) {
            return None;
        }
        let end = text::find_byte(rest, b';').unwrap_or(rest.len());
        let (sent_by, rest) = rest.split_at_checked(end)?;
        let params = params(rest)?;
        let mut branch = None;
        if !rest.is_empty() {
            for part in params.parts() {
                if part.first().is_none_or(|first| *first == b'=') {
                    return None;
                }
                let value = || value_of(part, "branch").filter(|value| text::is_utf8(value));
                branch = branch.or_else(value);
            }
        }
        let (host, port) = host_port(text::trim(sent_by))?;
        Some(Self { transport, host, port, params, branch: branch.unwrap_or_default() })
    }

    /// Returns what follows the protocol and its version, in which there may be white space. A version other than 2.0 is
    /// for the start line to refuse, so that it can be answered.
    fn after_version(value: &'a [u8]) -> Option<&'a [u8]> {
        let (protocol, rest) = text::split_once(value, b'/')?;
        let (version, rest) = text::split_once(rest, b'/')?;
        let is_good = text::is_token(text::trim(protocol)) && text::is_token(text::trim(version));
        is_good.then_some(rest)
    }
}

impl<'a> Via<'a> {
    /// Reads one value: `SIP/2.0/UDP host:port;branch=..`, white space wherever it may be.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let ViaParts { transport, host, port, params, branch: _ } = ViaParts::read(value)?;
        let (transport, host) =
            (std::str::from_utf8(transport).ok()?, std::str::from_utf8(host).ok()?);
        Some(Self { transport, host, port, params })
    }

    /// Returns the transaction's identifier, or nothing from a peer of RFC 2543.
    pub fn branch(&self) -> &'a str {
        self.params.get("branch").unwrap_or_default()
    }

    /// Returns where the next hop saw the request come from.
    pub fn received(&self) -> Option<IpAddr> {
        parse_ip(self.params.get("received")?)
    }

    /// Returns the port that the next hop saw (RFC 3581); `None` also for the request to fill it in.
    pub fn rport(&self) -> Option<u16> {
        self.params.get("rport")?.parse().ok()
    }

    /// Returns whether symmetric response routing was asked for (RFC 3581 3).
    pub fn has_rport(&self) -> bool {
        self.params.has("rport")
    }

    /// Returns the multicast scope.
    pub fn ttl(&self) -> Option<u8> {
        self.params.get("ttl")?.parse().ok()
    }

    /// Returns the address that the sender calls itself, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        parse_ip(self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (value, display, uri, tag) in [
            ("<sip:a@b>;tag=1", "", "sip:a@b", "1"),
            ("sip:a@b;transport=udp;tag=1", "", "sip:a@b", "1"),
            ("caller<sip:a@b>;tag=323", "caller", "sip:a@b", "323"),
            (r#""J Rosenberg \\\"" <sip:a@b> ; tag = 9"#, r#"J Rosenberg \""#, "sip:a@b", "9"),
            (r#""<b>, ;tag=evil" <sip:a@b>;tag=f1"#, "<b>, ;tag=evil", "sip:a@b", "f1"),
            ("\"A\"\r\n\t<sip:a@b>\r\n ;\r\n tag\r\n =\r\n 1", "A", "sip:a@b", "1"),
            ("A\r\n B <sip:a@b>", "A B", "sip:a@b", ""),
            ("<sip:a@b;x=1,2?h=v>;x=\"a;tag=2,b\";tag=1", "", "sip:a@b;x=1,2?h=v", "1"),
            ("\"\" <tel:+31>", "", "tel:+31", ""),
            ("<sip:a@b>;tag;tag=;tag=2", "", "sip:a@b", "2"),
        ] {
            let addr = NameAddr::parse(value.as_bytes()).unwrap();
            let got = (addr.display_str().unwrap_or_default(), addr.uri);
            assert_eq!(got, (display.into(), uri), "{value}");
            assert_eq!(addr.tag().unwrap_or_default(), tag, "{value}");
        }
        let latin1 = NameAddr::parse(b"Jos\xe9 <sip:a@b>").unwrap();
        assert_eq!(latin1.display.as_deref(), Some(&b"Jos\xe9"[..]));
    }

    #[test]
    fn refused_addresses() {
        for value in [
            "",
            "<>",
            "< sip:a@b >",
            "<sip:a@b",
            "sip:a@b>",
            "\"a <sip:a@b>",
            "\"a\" b <sip:a@b>",
            "a \"b\" <sip:a@b>",
            "Bell, Alexander <sip:a@b>",
            "<sip:a@b>, <sip:c@d>",
            "sip:a@b, sip:c@d",
            "sip:a@b?Route=x",
            "<sip:a@b> x",
            "<sip:a@b>;x=\"y",
            "sip:a b@c",
            "*",
            "<x>",
            "<:x>",
        ] {
            assert_eq!(NameAddr::parse(value.as_bytes()), None, "{value}");
        }
        assert_eq!(NameAddr::parse(b"<sip:\xe9@b>"), None);
    }

    #[test]
    fn vias() {
        for (value, transport, host, port, branch) in [
            ("SIP/2.0/UDP 10.0.0.5:5060;rport;branch=z9", "UDP", "10.0.0.5", Some(5060), "z9"),
            ("SIP / 2.0 / UDP  h : 5060 ; branch = z9", "UDP", "h", Some(5060), "z9"),
            ("SIP/2.0\r\n /TCP\r\n [::1];branch=\r\n z9", "TCP", "[::1]", None, "z9"),
            ("sip/2.0/WSS x.invalid:1;ext=\"a;branch=b\"", "WSS", "x.invalid", Some(1), ""),
            ("SIP/7.0/QUIC a", "QUIC", "a", None, ""),
        ] {
            let via = Via::parse(value.as_bytes()).unwrap();
            assert_eq!((via.transport, via.host, via.port), (transport, host, port), "{value}");
            assert_eq!(via.branch(), branch, "{value}");
        }
        for value in [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0/UDP ;branch=z9",
            "SIP/2.0 h",
            "SIP//UDP h",
            "SIP/2.0/UDP h;;",
            "SIP/2.0/UDP h;",
            "SIP/2.0/UDP h x;branch=1",
            "SIP/2.0/UDP h:99999",
            "SIP/2.0/UDP h;x=\"",
            "SIP/2.0/UDP h;branch=a\0b",
            "SIP/2.0/UDP h;branch=a\rb",
            "SIP/2.0/U<P h",
        ] {
            assert_eq!(Via::parse(value.as_bytes()), None, "{value}");
        }
    }

    /// What is plain may be as long as a message.
    #[test]
    fn odd_parameters_have_a_limit() {
        for (unit, count, is_good) in [
            (";a=\"x,\"", 1000, true),
            (";a=\"x,\"", 1200, false),
            (";a=b", 16_000, true),
            ("\r\n ;a=b", 1000, true),
            ("\r\n ;a=b", 1200, false),
        ] {
            let params = unit.repeat(count);
            let (via, address) = (format!("SIP/2.0/UDP h{params}"), format!("<sip:a@b>{params}"));
            let read = [
                ViaParts::read(via.as_bytes()).is_some(),
                NameAddr::parse(address.as_bytes()).is_some(),
            ];
            assert_eq!(read, [is_good; 2], "{count} of {unit:?}");
        }
    }

    #[test]
    fn what_the_next_hop_saw() {
        let via = |value: &'static str| Via::parse(value.as_bytes()).unwrap();
        let bare = via("SIP/2.0/UDP h;received=2001:db8::9:255;rport=48512;ttl=16");
        assert_eq!(bare.received(), Some("2001:db8::9:255".parse().unwrap()));
        assert_eq!((bare.rport(), bare.has_rport(), bare.ttl()), (Some(48512), true, Some(16)));
        let asked = via("SIP/2.0/UDP h;received=[::1];rport");
        assert_eq!(asked.received(), Some("::1".parse().unwrap()));
        assert_eq!((asked.rport(), asked.has_rport()), (None, true));
    }
}
