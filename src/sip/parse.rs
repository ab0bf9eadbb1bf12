//! From a datagram to a [`Message`](super::Message): start line, header lines, and what must be right.
//!
//! Owns: deciding what is a message, and what of a broken request can still be answered.
//! Never: looks into a header that only an extension needs.

use super::{
    address::{AddrParts, NameAddr, Via, ViaParts},
    build,
    head::{Head, Index, Line, Lines, known_name, read_header_line},
    header::{CSeq, HeaderName, Method},
    text::{self, Hiding, Span},
    uri::{Params, Uri},
};
use bytes::{Buf, Bytes};
use std::net::SocketAddr;

/// Most header lines that a message may have.
pub const HEADER_LINES_MAX: usize = 512;
/// For how many header lines there is room before it is known how many there are.
const LINES_USUAL: usize = 24;
/// Most bytes that a message may have, on any transport.
pub const MESSAGE_BYTES_MAX: usize = 65_536;

/// What is wrong with a message. Prints as the reason phrase of the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// Something else: a keep-alive, STUN, a scanner. Never answered.
    #[error("Not SIP")]
    NotSip,
    /// Not `SIP/2.0`.
    #[error("Version Not Supported")]
    Version,
    /// Not three words with one space between them.
    #[error("Bad Request-Line")]
    RequestLine,
    /// Not a URI, or one in angle brackets.
    #[error("Bad Request-URI")]
    RequestUri,
    /// Not 100 to 699.
    #[error("Bad Status-Code")]
    Status,
    /// A header line without a name and a colon.
    #[error("Bad Header Line")]
    HeaderLine,
    /// No empty line after the headers.
    #[error("Headers Not Terminated")]
    Truncated,
    /// More than [`HEADER_LINES_MAX`].
    #[error("Too Many Header Lines")]
    TooManyLines,
    /// More than [`MESSAGE_BYTES_MAX`], here or announced.
    #[error("Message Too Large")]
    TooLarge,
    /// A mandatory header is absent.
    #[error("Missing {0}")]
    Missing(HeaderName),
    /// A header that may be there once is there twice.
    #[error("Repeated {0}")]
    Repeated(HeaderName),
    /// A header cannot be read.
    #[error("Bad {0}")]
    Bad(HeaderName),
    /// CSeq names another method than the request line.
    #[error("CSeq Method Mismatch")]
    Method,
    /// Two different Content-Lengths.
    #[error("Conflicting Content-Length")]
    Lengths,
    /// Fewer bytes than announced (RFC 3261 18.3).
    #[error("Body Shorter Than Content-Length")]
    ShortBody,
}

impl Problem {
    /// Returns the status that a request with this problem is answered with.
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::TooManyLines | Self::TooLarge => 513,
            Self::NotSip
            | Self::RequestLine
            | Self::RequestUri
            | Self::Status
            | Self::HeaderLine
            | Self::Truncated
            | Self::Missing(_)
            | Self::Repeated(_)
            | Self::Bad(_)
            | Self::Method
            | Self::Lengths
            | Self::ShortBody => 400,
        }
    }
}

/// Why a datagram is not a message, and what can still be done with it.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct ParseError {
    /// The first thing wrong.
    pub problem: Problem,
    /// Present where the sender can be told.
    pub salvage: Option<Salvage>,
}

/// What is left of a broken request: enough to answer it (RFC 3261 8.2.6), statelessly.
#[derive(Debug)]
pub struct Salvage(Box<Head>);

impl Salvage {
    /// Keeps `head` if a response can be made of it. An ACK is never answered.
    fn new(head: Head, method: &[u8]) -> Option<Self> {
        let top = head.first(HeaderName::Via).map(|line| text::first_value(head.value(line)).0);
        top.and_then(Via::parse)?;
        let needed = [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
        let complete = needed.into_iter().all(|name| head.first(name).is_some());
        (complete && method != b"ACK").then(|| Self(Box::new(head)))
    }

    /// Writes the answer. The To tag is a function of the request: a copy gets the same (RFC 3261 8.2.7).
    pub fn reply(&self, status: u16, reason: &str, remote: SocketAddr) -> Bytes {
        let to = self.0.first(HeaderName::To).and_then(|to| NameAddr::parse(self.0.value(to)));
        let tag = self.tag();
        let tag = to.filter(|to| to.tag().is_none()).map(|_| &*tag);
        build::reply_to((&*self.0, None), (status, reason), tag, remote, vec![]).finish()
    }

    fn tag(&self) -> String {
        let via = self.0.first(HeaderName::Via).map_or(&[][..], |line| self.0.value(line));
        // FNV-1a: nothing depends on it but that it is the same again.
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        format!("{:016x}", via.iter().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

/// The first line, read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Request { method: Method, token: Span, uri: Span },
    Response { status: u16, reason: Span },
}

/// Everything that was found out by reading.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) head: Head,
    pub(super) start: Start,
    pub(super) cseq: CSeq,
    pub(super) cseq_token: Span,
    pub(super) call_id: Span,
    pub(super) via: TopVia,
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) body: Span,
}

/// Where parameters are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    text: Span,
    hiding: Hiding,
}

impl Place {
    fn of(head: &Head, params: &Params<'_>) -> Self {
        Self { text: head.place(params.text()), hiding: params.hiding() }
    }

    /// Returns the parameters there.
    pub(super) fn params(self, head: &Head) -> Params<'_> {
        Params::known(self.text.get(&head.bytes), self.hiding)
    }
}

/// The topmost Via, and what transactions want of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopVia {
    pub(super) transport: Span,
    pub(super) host: Span,
    pub(super) port: Option<u16>,
    pub(super) params: Place,
    pub(super) branch: Span,
}

/// A From or To, and the tag in it; an empty one is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) display: Span,
    pub(super) is_quoted: bool,
    pub(super) uri: Span,
    pub(super) params: Place,
    pub(super) tag: Span,
}

/// Reads a whole message.
pub(super) fn parse(mut datagram: Bytes) -> Result<Parsed, ParseError> {
    let refuse = |problem| ParseError { problem, salvage: None };
    let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let skipped = datagram.iter().take_while(|byte| is_blank(byte)).count();
    datagram.advance(skipped);

    let (line, rest) = text::line(&datagram).ok_or(refuse(Problem::NotSip))?;
    let (start, method) = match read_start(&datagram, line) {
        Ok(start @ Start::Request { token, .. }) => (Ok(start), Some(token)),
        Ok(start @ Start::Response { .. }) => (Ok(start), None),
        Err(BadStart { problem, method: None }) => return Err(refuse(problem)),
        Err(BadStart { problem, method }) => (Err(problem), method),
    };
    let (mut lines, mut index) = (Vec::with_capacity(LINES_USUAL), Index::new());
    let ended = read_lines(&datagram, rest, |line| {
        index.add(line.id, lines.len());
        lines.push(line);
        lines.len() < HEADER_LINES_MAX
    });
    let body = ended.map(|body| Span::of(&datagram, body));

    let head = Head { bytes: datagram, lines, index };
    match check(&head, start, body) {
        Ok(read) => Ok(read.with(head)),
        Err(problem) => {
            let salvage = method.and_then(|method| {
                let method = method.get(&head.bytes).to_owned();
                Salvage::new(head, &method)
            });
            Err(ParseError { problem, salvage })
        }
    }
}

/// Hands over each header line up to the empty one, and returns the place after that. Bad lines are left out, to be
/// complained of at the end. `add` returns whether there may be more.
fn read_lines<'a>(
    bytes: &[u8],
    mut rest: &'a [u8],
    mut add: impl FnMut(Line) -> bool,
) -> Result<&'a [u8], Problem> {
    let (mut bad, mut has_room) = (None, true);
    loop {
        let at = bytes.len().wrapping_sub(rest.len());
        let (line, after) = match known_line(at, rest) {
            Some((line, after)) => (Some(line), after),
            None => {
                let (line, after) = text::folded_line(rest).ok_or(Problem::Truncated)?;
                if line.is_empty() {
                    return bad.map_or(Ok(after), Err);
                }
                (read_header_line(at, line), after)
            }
        };
        if !has_room {
            return Err(Problem::TooManyLines);
        }
        match line {
            Some(line) => has_room = add(line),
            None => bad = Some(Problem::HeaderLine),
        }
        rest = after;
    }
}

/// Reads the line in front of `text`, at `at` of the message, if its name is a known one with its colon right behind it
/// and nothing is folded: as nearly all are. It says what [`read_header_line`] says of such a line.
fn known_line(at: usize, text: &[u8]) -> Option<(Line, &[u8])> {
    let (id, name, value) = known_name(text)?;
    let (value, after) = text::line(value)?;
    if matches!(after.first(), Some(b' ' | b'\t')) {
        return None;
    }
    let line = text.get(..name.len().wrapping_add(1).wrapping_add(value.len()))?;
    Some((Line::new(at, name, id, line, text::trim_start(value)), after))
}

/// Why the first line cannot be read; with the method where it is a request's all the same.
struct BadStart {
    problem: Problem,
    method: Option<Span>,
}

fn read_start(bytes: &[u8], line: &[u8]) -> Result<Start, BadStart> {
    let refuse = |problem| BadStart { problem, method: None };
    if is_version_like(line) {
        return read_status_line(bytes, line).map_err(refuse);
    }
    let line = text::trim(line);
    let (method, rest) = text::split_once(line, b' ').ok_or(refuse(Problem::NotSip))?;
    let version_at = line.iter().rposition(|byte| *byte == b' ');
    let version = version_at.and_then(|at| line.get(at..)).map_or(&[][..], text::trim);
    if !text::is_token(method) || !is_version_like(version) {
        return Err(refuse(Problem::NotSip));
    }
    let token = Span::of(bytes, method);
    let refuse = |problem| BadStart { problem, method: Some(token) };
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(refuse(Problem::Version));
    }
    let uri = rest.strip_suffix(version).and_then(|uri| uri.strip_suffix(b" "));
    let uri = uri.filter(|uri| !uri.is_empty()).ok_or(refuse(Problem::RequestLine))?;
    if !Uri::is_good(uri) {
        let has_space = text::find(uri, text::is_lws).is_some();
        return Err(refuse(if has_space { Problem::RequestLine } else { Problem::RequestUri }));
    }
    Ok(Start::Request { method: Method::parse(method), token, uri: Span::of(bytes, uri) })
}

fn read_status_line(bytes: &[u8], line: &[u8]) -> Result<Start, Problem> {
    let (version, rest) = text::split_once(line, b' ').ok_or(Problem::Status)?;
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(Problem::Version);
    }
    // Without a space and reason after the code it is illegal, and seen in the wild.
    let (code, reason) = text::split_once(rest, b' ').unwrap_or((rest, &[]));
    let status = text::digits(code).filter(|_| code.len() == 3);
    let status = status.and_then(|status| u16::try_from(status).ok());
    let status = status.filter(|status| (100..=699).contains(status)).ok_or(Problem::Status)?;
    Ok(Start::Response { status, reason: Span::of(bytes, reason) })
}

fn is_version_like(text: &[u8]) -> bool {
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/"))
}

/// What [`check`] finds.
struct Found {
    start: Start,
    cseq: CSeq,
    cseq_token: Span,
    call_id: Span,
    via: TopVia,
    from: Address,
    to: Address,
    body: Span,
}

impl Found {
    fn with(self, head: Head) -> Parsed {
        let Self { start, cseq, cseq_token, call_id, via, from, to, body } = self;
        Parsed { head, start, cseq, cseq_token, call_id, via, from, to, body }
    }
}

fn check(
    head: &Head,
    start: Result<Start, Problem>,
    body: Result<Span, Problem>,
) -> Result<Found, Problem> {
    let start = start?;
    let body = body?;
    let place = |part| head.place(part);

    let via = head.first(HeaderName::Via).ok_or(Problem::Missing(HeaderName::Via))?;
    let (via, _) = text::first_value(head.value(via));
    let top = ViaParts::read(via).ok_or(Problem::Bad(HeaderName::Via))?;
    let via = TopVia {
        transport: place(top.transport),
        host: place(top.host),
        port: top.port,
        params: Place::of(head, &top.params),
        branch: place(top.branch),
    };

    let is_request = matches!(start, Start::Request { .. });
    let from = check_address(head, HeaderName::From, is_request)?;
    let to = check_address(head, HeaderName::To, is_request)?;

    let call_id = head.single(HeaderName::CallId)?;
    // All of it is looked at, which the compiler does many bytes at a time.
    let is_graphic = call_id.iter().fold(true, |all, byte| all & byte.is_ascii_graphic());
    if call_id.is_empty() || !is_graphic {
        return Err(Problem::Bad(HeaderName::CallId));
    }
    let cseq = head.single(HeaderName::CSeq)?;
    let (cseq, cseq_token) = read_cseq(cseq).ok_or(Problem::Bad(HeaderName::CSeq))?;
    if let Start::Request { token, .. } = start {
        if token.get(&head.bytes) != cseq_token {
            return Err(Problem::Method);
        }
        for name in [HeaderName::Contact, HeaderName::Route, HeaderName::RecordRoute] {
            check_addresses(head, name)?;
        }
    }
    let body = check_length(head, body)?;
    let (cseq_token, call_id) = (place(cseq_token), place(call_id));
    Ok(Found { start, cseq, cseq_token, call_id, via, from, to, body })
}

/// Reads From or To. In a response both are what we sent, so only their shape matters.
fn check_address(head: &Head, name: HeaderName, is_request: bool) -> Result<Address, Problem> {
    let value = head.single(name)?;
    let addr = AddrParts::read(value).ok_or(Problem::Bad(name))?;
    let is_good = if is_request { addr.has_good_uri() } else { addr.has_text() };
    if !is_good {
        return Err(Problem::Bad(name));
    }
    let place = |part| head.place(part);
    Ok(Address {
        display: place(addr.display),
        is_quoted: addr.is_quoted,
        uri: place(addr.uri),
        params: Place::of(head, &addr.params),
        tag: place(addr.params.tag()),
    })
}

/// Checks every address of a list; `*` passes for a Contact.
fn check_addresses(head: &Head, name: HeaderName) -> Result<(), Problem> {
    let is_good = |value: &[u8]| {
        value.is_empty()
            || (name == HeaderName::Contact && value == b"*")
            || AddrParts::read(value).is_some_and(|addr| addr.has_good_uri())
    };
    let is_good_line = |line: &Line| text::commas(head.value(line), Hiding::Brackets).all(is_good);
    if head.all(name).all(is_good_line) { Ok(()) } else { Err(Problem::Bad(name)) }
}

fn read_cseq(value: &[u8]) -> Option<(CSeq, &[u8])> {
    let (number, method) = text::split_at(value, text::is_lws);
    let method = text::trim(method);
    let number = text::digits(number).filter(|number| *number < 1 << 31)?;
    text::is_token(method).then(|| (CSeq { number, method: Method::parse(method) }, method))
}

/// Cuts the body to its Content-Length (RFC 3261 18.3). Without one it is the rest.
fn check_length(head: &Head, rest: Span) -> Result<Span, Problem> {
    let mut length = None;
    for line in head.all(HeaderName::ContentLength) {
        let bad = Problem::Bad(HeaderName::ContentLength);
        let announced = text::digits(head.value(line)).ok_or(bad)?;
        if length.replace(announced).is_some_and(|earlier| earlier != announced) {
            return Err(Problem::Lengths);
        }
    }
    let rest = rest.get(&head.bytes);
    let length = length.map_or(rest.len(), |length| length as usize);
    let before = head.bytes.len().saturating_sub(rest.len());
    if before.saturating_add(length) > MESSAGE_BYTES_MAX {
        return Err(Problem::TooLarge);
    }
    let body = rest.get(..length).ok_or(Problem::ShortBody)?;
    Ok(head.place(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Message;

    /// What the corpus of torture messages has no example of.
    #[test]
    fn refused() {
        let long = format!("Subject: {}\r\nContent-Length: 65000\r\n", "x".repeat(1000));
        for (start, headers, problem, told) in [
            ("INVITE sip:a@b SIP/2.0", "", None, false),
            ("INVITE sip:a@b sip/2.0", "", None, false),
            ("ACK sip:a@b SIP/2.0", "X\r\n", Some(Problem::HeaderLine), false),
            ("BYE sip:a@b SIP/2.0", "X\r\n", Some(Problem::HeaderLine), true),
            ("BYE sip:a@b SIP/3.0", "", Some(Problem::Version), true),
            ("SIP/3.0 200 OK", "", Some(Problem::Version), false),
            ("SIP/2.0 2000 OK", "", Some(Problem::Status), false),
            ("SIP/2.0", "", Some(Problem::Status), false),
            ("SIP/2.0 200 OK", "Route: x\r\n", None, false),
            ("BYE SIP/2.0", "", Some(Problem::RequestLine), true),
            ("BYE  SIP/2.0", "", Some(Problem::RequestLine), true),
            ("B(E sip:a@b SIP/2.0", "", Some(Problem::NotSip), false),
            ("BYE sip:a@b HTTP/1.1", "", Some(Problem::NotSip), false),
            ("BYE sip:\u{e9}@\u{e9} SIP/2.0", "", Some(Problem::RequestUri), true),
            ("BYE sip:a@b SIP/2.0", "Route: x\r\n", Some(bad(HeaderName::Route)), true),
            (
                "BYE sip:a@b SIP/2.0",
                "Record-Route: <\r\n",
                Some(bad(HeaderName::RecordRoute)),
                true,
            ),
            ("BYE sip:a@b SIP/2.0", "m: <sip:>\r\n", Some(bad(HeaderName::Contact)), true),
            ("BYE sip:a@b SIP/2.0", "i: y\r\n", Some(Problem::Repeated(HeaderName::CallId)), true),
            ("BYE sip:a@b SIP/2.0", &*long, Some(Problem::TooLarge), true),
        ] {
            let method = start.split(' ').next().unwrap();
            let method = if start.starts_with("SIP/") { "BYE" } else { method };
            let text = format!(
                "{start}\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n\
                 Call-ID: x\r\nCSeq: 1 {method}\r\n{headers}\r\n"
            );
            let got = Message::parse(text.into()).err();
            assert_eq!(got.as_ref().map(|error| error.problem), problem, "{start} {headers:.99}");
            let salvage = got.and_then(|error| error.salvage);
            assert_eq!(salvage.is_some(), told, "{start} {headers:.99}");
        }
    }

    #[test]
    fn mandatory_headers() {
        let all = [
            ("Via", "SIP/2.0/UDP h"),
            ("From", "<sip:a@b>;tag=1"),
            ("To", "<sip:c@d>"),
            ("Call-ID", "x"),
            ("CSeq", "1 BYE"),
        ];
        for (at, (name, _)) in all.iter().enumerate() {
            let id = HeaderName::parse(name.as_bytes());
            let with = |value: Option<&str>| {
                let lines = all.iter().enumerate().filter_map(|(index, (name, usual))| {
                    let value = if index == at { value? } else { usual };
                    Some(format!("{name}: {value}\r\n"))
                });
                let text = format!("BYE sip:a@b SIP/2.0\r\n{}\r\n", lines.collect::<String>());
                Message::parse(text.into()).err().map(|error| error.problem)
            };
            assert_eq!(with(None), Some(Problem::Missing(id)));
            for value in ["", "a b c", "\u{e9}"] {
                assert_eq!(with(Some(value)), Some(bad(id)), "{name}: {value}");
            }
        }
    }

    /// The short way through a line comes to where the long way does.
    #[test]
    fn known_lines_are_read_like_others() {
        for (text, is_known) in [
            ("Via: SIP/2.0/UDP h\r\nTo: x\r\n", true),
            ("vIA:SIP/2.0/UDP h \t\r\n", true),
            ("v:\t\n\r\n", true),
            ("Proxy-Authentication-Info: x:y\n", true),
            ("Via : SIP/2.0/UDP h\r\n", false),
            ("Via: a,\r\n b\r\n", false),
            ("X-Via: a\r\n", false),
            ("no colon\r\nVia: a\r\n", false),
            ("Via: no end", false),
            ("\r\nv: a\r\n", false),
        ] {
            let known = known_line(7, text.as_bytes());
            assert_eq!(known.is_some(), is_known, "{text:?}");
            if let Some((line, after)) = known {
                let (whole, rest) = text::folded_line(text.as_bytes()).unwrap();
                let other = read_header_line(7, whole).unwrap();
                assert_eq!((line, after), (other, rest), "{text:?}");
            }
        }
    }

    /// There is a place for 254 lines in the index, and room for twice as many.
    #[test]
    fn lines_are_found_wherever_they_are() {
        for before in [0, 200, 247, 248, 249, 250, 400] {
            let text = format!(
                "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>;tag=1\r\n\
                 To: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 BYE\r\n{}Route: <sip:r>\r\nSubject: s\r\n\
                 Route: <sip:q>\r\nExpires: 7\r\n\r\n",
                "X: y\r\n".repeat(before),
            );
            let message = Message::parse(text.into()).unwrap();
            let routes = message.routes(HeaderName::Route);
            let routes: Vec<_> = routes.iter().map(|route| route.uri).collect();
            assert_eq!(routes, ["sip:r", "sip:q"], "behind {before}");
            assert_eq!(message.number(HeaderName::Expires), Some(7), "behind {before}");
            assert_eq!(message.header_str(HeaderName::Subject).as_deref(), Some("s"));
            assert_eq!(message.header(HeaderName::Contact), None);
        }
    }

    /// The empty line ends the headers, even where what follows looks like a continuation.
    #[test]
    fn a_body_may_begin_with_white_space() {
        let text = "MESSAGE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>;tag=1\r\n\
            To: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\nContent-Length: 6\r\n\r\n hello";
        assert_eq!(Message::parse(text.into()).unwrap().body(), b" hello");
    }

    /// What we sent comes back in a response; its URIs are not judged.
    #[test]
    fn responses_need_only_the_shape_of_an_address() {
        let text = |start: &str| {
            format!(
                "{start}\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:>;tag=1\r\nTo: <sip:c@d>\r\n\
                 Call-ID: x\r\nCSeq: 1 BYE\r\n\r\n"
            )
        };
        assert!(Message::parse(text("SIP/2.0 200 OK").into()).is_ok());
        assert!(Message::parse(text("BYE sip:a@b SIP/2.0").into()).is_err());
    }

    fn bad(name: HeaderName) -> Problem {
        Problem::Bad(name)
    }
}
