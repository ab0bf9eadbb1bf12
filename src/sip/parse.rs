//! From a datagram to a [`Message`](super::Message): the start line, the header lines, and what must
//! be right.
//!
//! Owns: deciding what is a message, and what of a broken request can still be answered.
//! Never: looks into a header that only an extension needs.

use super::{
    address::{NameAddr, Via},
    build,
    header::{CSeq, HeaderName, Method},
    text::{self, Brackets, Span},
    uri::Uri,
};
use bytes::Bytes;
use std::net::SocketAddr;

/// Most header lines that a message may have.
pub const HEADER_LINES_MAX: usize = 512;
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
pub struct Salvage(Head);

impl Salvage {
    /// Keeps `head` if a response can be made of it. An ACK is never answered.
    fn new(head: Head, method: &[u8]) -> Option<Self> {
        let top = head.first(HeaderName::Via).and_then(|line| first_value(head.value(line)));
        top.and_then(Via::parse)?;
        let needed = [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
        let complete = needed.into_iter().all(|name| head.first(name).is_some());
        (complete && method != b"ACK").then_some(Self(head))
    }

    /// Writes the answer. The To tag is a function of the request, so that the answer to a
    /// retransmission is the same (RFC 3261 8.2.7).
    pub fn reply(&self, status: u16, reason: &str, remote: SocketAddr) -> Bytes {
        let to = self.0.first(HeaderName::To).and_then(|to| NameAddr::parse(self.0.value(to)));
        let tag = self.tag();
        let tag = to.filter(|to| to.tag().is_none()).map(|_| &*tag);
        build::reply_to(&self.0, status, reason, tag, remote).finish()
    }

    fn tag(&self) -> String {
        let via = self.0.first(HeaderName::Via).map_or(&[][..], |line| self.0.value(line));
        // FNV-1a: nothing depends on it but that it is the same again.
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        format!("{:016x}", via.iter().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

/// One header line's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) id: HeaderName,
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) line: Span,
}

/// A message's bytes and its header lines.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) bytes: Bytes,
    pub(super) lines: Vec<Line>,
}

impl Head {
    /// Returns the first line of that name.
    pub(super) fn first(&self, name: HeaderName) -> Option<&Line> {
        self.lines.iter().find(|line| line.id == name)
    }

    /// Returns every line of that name.
    pub(super) fn all(&self, name: HeaderName) -> impl Iterator<Item = &Line> + use<'_> {
        self.lines.iter().filter(move |line| line.id == name)
    }

    /// Returns a line's value, trimmed, still folded.
    pub(super) fn value(&self, line: &Line) -> &[u8] {
        line.value.get(&self.bytes)
    }

    /// Returns the comma separated values of every line of that name, still folded.
    pub(super) fn values(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> + use<'_> {
        let lines = self.all(name).map(|line| self.value(line));
        lines.flat_map(|value| text::commas(value, Brackets::Hide)).filter(|part| !part.is_empty())
    }

    /// Returns the only value of a header that must be there once.
    fn single(&self, name: HeaderName) -> Result<&[u8], Problem> {
        let mut lines = self.all(name);
        let line = lines.next().ok_or(Problem::Missing(name))?;
        if lines.next().is_some() {
            return Err(Problem::Repeated(name));
        }
        Ok(self.value(line))
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

/// The topmost Via, and what transactions want of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopVia {
    pub(super) value: Span,
    pub(super) branch: Span,
    pub(super) host: Span,
    pub(super) port: Option<u16>,
}

/// A From or To, and the tag in it; an empty one is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub(super) value: Span,
    pub(super) tag: Span,
}

/// Reads a whole message.
pub(super) fn parse(datagram: &Bytes) -> Result<Parsed, ParseError> {
    let refuse = |problem| ParseError { problem, salvage: None };
    let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let skipped = datagram.iter().take_while(|byte| is_blank(byte)).count();
    let bytes = datagram.slice(skipped..);

    let (line, rest) = text::line(&bytes).ok_or(refuse(Problem::NotSip))?;
    let (start, method) = match read_start(&bytes, line) {
        Ok(start @ Start::Request { token, .. }) => (Ok(start), Some(token)),
        Ok(start @ Start::Response { .. }) => (Ok(start), None),
        Err(BadStart { problem, method: None }) => return Err(refuse(problem)),
        Err(BadStart { problem, method }) => (Err(problem), method),
    };
    let mut lines = Vec::with_capacity(24);
    let ended = read_lines(&bytes, rest, &mut lines);
    let body = ended.map(|body| Span::of(&bytes, body));

    let head = Head { bytes: bytes.clone(), lines };
    match check(&head, start, body) {
        Ok(read) => Ok(read.with(head)),
        Err(problem) => {
            let salvage = method.and_then(|method| Salvage::new(head, method.get(&bytes)));
            Err(ParseError { problem, salvage })
        }
    }
}

/// Returns the place after the empty line. Lines up to the first bad one are kept.
fn read_lines<'a>(
    bytes: &[u8],
    mut rest: &'a [u8],
    lines: &mut Vec<Line>,
) -> Result<&'a [u8], Problem> {
    let mut bad = None;
    loop {
        let (line, after) = text::folded_line(rest).ok_or(Problem::Truncated)?;
        if line.is_empty() {
            return bad.map_or(Ok(after), Err);
        }
        if lines.len() == HEADER_LINES_MAX {
            return Err(Problem::TooManyLines);
        }
        match read_header_line(bytes, line) {
            Some(line) => lines.push(line),
            None => bad = Some(Problem::HeaderLine),
        }
        rest = after;
    }
}

pub(super) fn read_header_line(bytes: &[u8], line: &[u8]) -> Option<Line> {
    let (name, rest) = text::split_at(line, |byte| !text::is_token_byte(byte));
    let value = text::trim_start(rest).strip_prefix(b":")?;
    (!name.is_empty()).then(|| Line {
        id: HeaderName::parse(name),
        name: Span::of(bytes, name),
        value: Span::of(bytes, text::trim(value)),
        line: Span::of(bytes, line),
    })
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
    let uri = uri.filter(|uri| text::find(uri, text::is_lws).is_none() && !uri.is_empty());
    let uri = uri.ok_or(refuse(Problem::RequestLine))?;
    let is_uri = std::str::from_utf8(uri).is_ok_and(|uri| Uri::parse(uri).is_some());
    if !is_uri {
        return Err(refuse(Problem::RequestUri));
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
    let place = |part| Span::of(&head.bytes, part);

    let via = head.first(HeaderName::Via).ok_or(Problem::Missing(HeaderName::Via))?;
    let via = first_value(head.value(via)).ok_or(Problem::Bad(HeaderName::Via))?;
    let top = Via::parse(via).ok_or(Problem::Bad(HeaderName::Via))?;
    let via = TopVia {
        value: place(via),
        branch: place(top.branch().as_bytes()),
        host: place(top.host.as_bytes()),
        port: top.port,
    };

    let is_request = matches!(start, Start::Request { .. });
    let from = check_address(head, HeaderName::From, is_request)?;
    let to = check_address(head, HeaderName::To, is_request)?;

    let call_id = head.single(HeaderName::CallId)?;
    if call_id.is_empty() || !call_id.iter().all(u8::is_ascii_graphic) {
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
    let addr = NameAddr::parse(value).ok_or(Problem::Bad(name))?;
    if is_request && addr.parsed_uri().is_none() {
        return Err(Problem::Bad(name));
    }
    let tag = Span::of(&head.bytes, addr.tag().unwrap_or_default().as_bytes());
    Ok(Address { value: Span::of(&head.bytes, value), tag })
}

/// Checks every address of a list; `*` passes for a Contact.
fn check_addresses(head: &Head, name: HeaderName) -> Result<(), Problem> {
    let is_good = |value: &[u8]| {
        (name == HeaderName::Contact && value == b"*")
            || NameAddr::parse(value).is_some_and(|addr| addr.parsed_uri().is_some())
    };
    if head.values(name).all(is_good) { Ok(()) } else { Err(Problem::Bad(name)) }
}

fn first_value(value: &[u8]) -> Option<&[u8]> {
    text::commas(value, Brackets::Hide).next()
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
    Ok(Span::of(&head.bytes, body))
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
