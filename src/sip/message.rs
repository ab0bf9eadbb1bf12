//! A message that has been read: cheap to clone, its headers read on demand.
//!
//! Owns: access to the parts of a message by their meaning.
//! Never: changes one.

use super::{
    address::{Contacts, NameAddr, Via},
    head::{Head, Line, Lines},
    header::{CSeq, HeaderName, Method},
    multipart,
    parse::{self, Address, ParseError, Parsed, Start},
    text::{self, Span},
    uri::Params,
};
use bytes::Bytes;
use std::{borrow::Cow, fmt, iter, sync::Arc};

/// One message: the datagram and where things are in it.
#[derive(Clone)]
pub struct Message(Arc<Parsed>);

impl Message {
    /// Reads a message. Checked: the start line, the headers that every message must have, that
    /// the addresses of a request can be read, and Content-Length. CRLFs in front are skipped.
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        Ok(Self(Arc::new(parse::parse(bytes)?)))
    }

    /// Returns the whole of it.
    pub fn bytes(&self) -> &Bytes {
        &self.0.head.bytes
    }

    /// Returns whether it is a request.
    pub fn is_request(&self) -> bool {
        matches!(self.0.start, Start::Request { .. })
    }

    /// Returns the request's method; in a response, the one that it answers.
    pub fn method(&self) -> Method {
        match self.0.start {
            Start::Request { method, .. } => method,
            Start::Response { .. } => self.0.cseq.method,
        }
    }

    /// Returns the method as written.
    pub fn method_token(&self) -> &str {
        match self.0.start {
            Start::Request { token, .. } => self.str(token),
            Start::Response { .. } => self.str(self.0.cseq_token),
        }
    }

    /// Returns the Request-URI as written; nothing for responses.
    pub fn uri(&self) -> &str {
        match self.0.start {
            Start::Request { uri, .. } => self.str(uri),
            Start::Response { .. } => "",
        }
    }

    /// Returns the status; 0 for requests.
    pub fn status(&self) -> u16 {
        match self.0.start {
            Start::Request { .. } => 0,
            Start::Response { status, .. } => status,
        }
    }

    /// Returns the reason phrase as written; nothing for requests.
    pub fn reason(&self) -> &[u8] {
        match self.0.start {
            Start::Request { .. } => &[],
            Start::Response { reason, .. } => self.part(reason),
        }
    }

    /// Returns the Call-ID.
    pub fn call_id(&self) -> &str {
        self.str(self.0.call_id)
    }

    /// Returns the CSeq.
    pub fn cseq(&self) -> CSeq {
        self.0.cseq
    }

    /// Returns the topmost Via.
    pub fn via(&self) -> Via<'_> {
        let top = &self.0.via;
        Via {
            transport: self.str(top.transport),
            host: self.str(top.host),
            port: top.port,
            params: top.params.params(self.head()),
        }
    }

    /// Returns the host and the parameters of the topmost Via.
    pub(super) fn via_end(&self) -> (&[u8], Params<'_>) {
        let top = &self.0.via;
        (self.part(top.host), top.params.params(self.head()))
    }

    /// Returns the branch of the topmost Via, or nothing.
    pub fn branch(&self) -> &str {
        self.str(self.0.via.branch)
    }

    /// Returns the host and port of the topmost Via.
    pub fn sent_by(&self) -> (&str, Option<u16>) {
        (self.str(self.0.via.host), self.0.via.port)
    }

    /// Returns the From.
    pub fn from(&self) -> NameAddr<'_> {
        self.kept_address(&self.0.from)
    }

    /// Returns the To.
    pub fn to(&self) -> NameAddr<'_> {
        self.kept_address(&self.0.to)
    }

    /// Returns the tag of the From. Peers of RFC 2543 have none.
    pub fn from_tag(&self) -> Option<&str> {
        Some(self.str(self.0.from.tag)).filter(|tag| !tag.is_empty())
    }

    /// Returns the tag of the To.
    pub fn to_tag(&self) -> Option<&str> {
        Some(self.str(self.0.to.tag)).filter(|tag| !tag.is_empty())
    }

    /// Returns the first line's value, trimmed and unfolded.
    pub fn header(&self, name: HeaderName) -> Option<Cow<'_, [u8]>> {
        self.head().first(name).map(|line| text::unfold(self.head().value(line)))
    }

    /// Returns the first line's value as text.
    pub fn header_str(&self, name: HeaderName) -> Option<Cow<'_, str>> {
        self.header(name).map(lossy)
    }

    /// Returns the value of a header by its text name, without regard to case.
    pub fn other(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let known = HeaderName::parse(name.as_bytes());
        if known != HeaderName::Other {
            return self.header(known);
        }
        let head = self.head();
        let is_it =
            |line: &&Line| line.name().get(&head.bytes).eq_ignore_ascii_case(name.as_bytes());
        head.all(known).find(is_it).map(|line| text::unfold(head.value(line)))
    }

    /// Returns every header line in order.
    pub fn lines(&self) -> impl Iterator<Item = HeaderLine<'_>> {
        let bytes = self.bytes();
        self.head().lines.iter().map(move |line| HeaderLine { bytes, line: *line })
    }

    /// Returns the comma separated values over all lines of that name; quoted strings and angle
    /// brackets hide their commas. Not for the headers of digest.
    pub fn values(&self, name: HeaderName) -> impl Iterator<Item = Cow<'_, [u8]>> {
        self.head().values(name).map(text::unfold)
    }

    /// Returns the Vias, topmost first. One that cannot be read is left out.
    pub fn vias(&self) -> impl Iterator<Item = Via<'_>> {
        self.head().values(HeaderName::Via).filter_map(Via::parse)
    }

    /// Returns the branches of the Vias, topmost first; empty where one has none. A Via that
    /// cannot be read is left out.
    pub fn branches(&self) -> impl Iterator<Item = &str> {
        let others = self.head().values(HeaderName::Via).skip(1);
        let others = others.filter_map(|value| Some(Via::parse(value)?.branch()));
        iter::once(self.branch()).chain(others)
    }

    /// Returns the Contacts. Those of a request are never [`Contacts::Bad`] for their syntax.
    pub fn contacts(&self) -> Contacts<'_> {
        let mut values = self.head().values(HeaderName::Contact).peekable();
        if values.next_if(|value| *value == b"*").is_some() {
            return if values.next().is_none() { Contacts::Star } else { Contacts::Bad };
        }
        let read = values.map(NameAddr::parse).collect::<Option<_>>();
        read.map_or(Contacts::Bad, Contacts::List)
    }

    /// Returns the addresses of Route, Record-Route, Path, P-Asserted-Identity and the like. One
    /// that cannot be read is left out; a request with such a Route or Record-Route is refused.
    pub fn routes(&self, name: HeaderName) -> Vec<NameAddr<'_>> {
        self.head().values(name).filter_map(NameAddr::parse).collect()
    }

    /// Returns whether an option tag or method is listed: Supported, Require, Allow and the like.
    pub fn has_option(&self, name: HeaderName, tag: &str) -> bool {
        self.head().values(name).any(|value| value.eq_ignore_ascii_case(tag.as_bytes()))
    }

    /// Returns the number that a header begins with: Expires, Max-Forwards, Retry-After and the
    /// like. More than 2^32-1 is 2^32-1 (RFC 4475 3.1.2.4).
    pub fn number(&self, name: HeaderName) -> Option<u32> {
        let line = self.head().first(name)?;
        let is_end = |byte| text::is_lws(byte) || matches!(byte, b';' | b'(');
        text::digits(text::split_at(self.head().value(line), is_end).0)
    }

    /// Returns the body.
    pub fn body(&self) -> &[u8] {
        self.part(self.0.body)
    }

    /// Returns the body, sharing the message's memory.
    pub fn body_bytes(&self) -> Bytes {
        self.0.body.share(self.bytes())
    }

    /// Returns whether the body is of that type, parameters aside.
    pub fn content_type_is(&self, wanted: &str) -> bool {
        self.header(HeaderName::ContentType).is_some_and(|value| {
            multipart::media_type(&value).eq_ignore_ascii_case(wanted.as_bytes())
        })
    }

    /// Returns the session description: the body, or that part of a multipart body.
    pub fn sdp(&self) -> Option<Bytes> {
        self.sdp_part().map(|sdp| self.bytes().slice_ref(sdp))
    }

    /// Returns whether there is a session description.
    pub fn has_sdp(&self) -> bool {
        self.sdp_part().is_some()
    }

    fn sdp_part(&self) -> Option<&[u8]> {
        if self.body().is_empty() {
            return None;
        }
        let content_type = self.header(HeaderName::ContentType)?;
        multipart::find(&content_type, self.body(), b"application/sdp")
    }

    pub(super) fn head(&self) -> &Head {
        &self.0.head
    }

    fn part(&self, span: Span) -> &[u8] {
        span.get(self.bytes())
    }

    fn str(&self, span: Span) -> &str {
        span.get_str(self.bytes())
    }

    /// Returns an address that was read when the message was.
    fn kept_address(&self, kept: &Address) -> NameAddr<'_> {
        let Address { display, is_quoted, uri, params, tag: _ } = *kept;
        NameAddr::of(self.part(display), is_quoted, self.str(uri), params.params(self.head()))
    }
}

/// Prints the start line and the Call-ID: no secrets, no numbers beyond the URI's.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.start {
            Start::Request { .. } => {
                write!(f, "Message({} {})", self.method_token(), self.call_id())
            }
            Start::Response { status, .. } => {
                write!(f, "Message({status} {} {})", self.method_token(), self.call_id())
            }
        }
    }
}

/// One header line of a message.
#[derive(Clone, Copy, Debug)]
pub struct HeaderLine<'a> {
    bytes: &'a Bytes,
    line: Line,
}

impl<'a> HeaderLine<'a> {
    /// Returns what it is.
    pub fn id(&self) -> HeaderName {
        self.line.id
    }

    /// Returns its name as written.
    pub fn name(&self) -> &'a str {
        self.line.name().get_str(self.bytes)
    }

    /// Returns its value, trimmed and unfolded.
    pub fn value(&self) -> Cow<'a, [u8]> {
        text::unfold(self.line.value().get(self.bytes))
    }

    /// Returns the line as written, with its folds and without the last line end.
    pub fn line(&self) -> &'a [u8] {
        self.line.line().get(self.bytes)
    }
}

fn lossy(value: Cow<'_, [u8]>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(value) => String::from_utf8_lossy(value),
        Cow::Owned(value) => String::from_utf8_lossy(&value).into_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{HEADER_LINES_MAX, Problem, text::cost};

    #[test]
    fn headers_are_found_by_meaning() {
        let message = request(
            "Expires: 3600;x\r\nMax-Forwards: 0068\r\nRetry-After: 120(busy)\r\nMin-SE: x\r\n\
             k: timer, 100rel\r\nSupported: Path\r\nX-Id: a\r\n b\r\nRoute: <sip:a;lr>, \r\n <sip:b>\r\n\
             Contact: \"x, y\" <sip:a@b>;q=0.5, sip:c@d\r\n",
            "",
        );
        assert_eq!(message.number(HeaderName::Expires), Some(3600));
        assert_eq!(message.number(HeaderName::MaxForwards), Some(68));
        assert_eq!(message.number(HeaderName::RetryAfter), Some(120));
        assert_eq!(message.number(HeaderName::MinSe), None);
        assert_eq!(message.number(HeaderName::MinExpires), None);
        for (tag, listed) in [("timer", true), ("100REL", true), ("path", true), ("gruu", false)] {
            assert_eq!(message.has_option(HeaderName::Supported, tag), listed, "{tag}");
        }
        assert_eq!(message.other("x-id").as_deref(), Some(&b"a b"[..]));
        assert_eq!(message.other("EXPIRES").as_deref(), Some(&b"3600;x"[..]));
        assert_eq!(message.other("X-Other"), None);
        let routes = message.routes(HeaderName::Route);
        assert_eq!(routes.iter().map(|route| route.uri).collect::<Vec<_>>(), ["sip:a;lr", "sip:b"]);
        let Contacts::List(contacts) = message.contacts() else { panic!("{message:?}") };
        assert_eq!(contacts.iter().map(|c| c.uri).collect::<Vec<_>>(), ["sip:a@b", "sip:c@d"]);
        let names: Vec<_> = message.lines().skip(5).take(5).map(|line| line.name()).collect();
        assert_eq!(names, ["Expires", "Max-Forwards", "Retry-After", "Min-SE", "k"]);
        assert_eq!(message.lines().nth(11).unwrap().line(), b"X-Id: a\r\n b");
    }

    #[test]
    fn branches() {
        let message =
            request("Via: x, SIP/2.0/UDP h;branch=b\r\nv: SIP/2.0/UDP h;branch=\"c\"\r\n", "");
        assert_eq!(message.branches().collect::<Vec<_>>(), ["", "b", "c"]);
        assert_eq!(message.vias().count(), 3);
    }

    #[test]
    fn contacts() {
        for (headers, want) in [
            ("", Contacts::List(vec![])),
            ("Contact: *\r\n", Contacts::Star),
            ("Contact: *, <sip:a@b>\r\n", Contacts::Bad),
            ("Contact: <sip:a@b>\r\nm: *\r\n", Contacts::Bad),
        ] {
            assert_eq!(request(headers, "").contacts(), want, "{headers}");
        }
    }

    #[test]
    fn bodies() {
        let message = request("c: Application/SDP;x\r\nContent-Length: 3\r\n", "v=0garbage");
        assert_eq!(message.body(), b"v=0");
        assert!(message.content_type_is("application/sdp"));
        assert_eq!(message.sdp().unwrap(), message.body_bytes());
        assert_eq!(request("", "").sdp(), None);
        let mixed = "--b\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--b--\r\n";
        let message = request("Content-Type: multipart/mixed;boundary=b\r\n", mixed);
        assert_eq!(message.sdp().as_deref(), Some(&b"v=0"[..]));
    }

    /// Counts bytes looked at, not time: a few dozen passes over the message at most, whatever its
    /// shape.
    #[test]
    fn reading_is_linear() {
        const PASSES: usize = 40;
        for (shape, headers, body) in worst_shapes() {
            // The hostile Via and To are the first of their name.
            let text = text(&headers, &body);
            let text = match headers.split_once(' ') {
                Some(("Via:", _)) => text.replacen("Via: SIP/2.0/UDP h\r\n", "", 1),
                Some(("To:", _)) => text.replacen("To: <sip:c@d>\r\n", "", 1),
                Some(_) | None => text,
            };
            let cost = cost::of(|| {
                if let Ok(message) = Message::parse(text.into()) {
                    let _ = (message.from_tag(), message.to_tag(), message.branch(), message.sdp());
                    let _ = (message.vias().count(), message.contacts(), message.via());
                    let _ = message.routes(HeaderName::RecordRoute);
                    let _ = message.lines().map(|line| line.value().len()).max();
                }
            });
            assert!(cost > 500, "{shape}: the count works");
            assert!(cost < SIZE.saturating_mul(PASSES), "{shape}: {cost}");
        }
    }

    const SIZE: usize = 60_000;

    /// Messages near the largest, made to be expensive: a name, headers and a body.
    fn worst_shapes() -> Vec<(&'static str, String, String)> {
        let filler = |unit: &str| unit.repeat(SIZE.checked_div(unit.len()).unwrap());
        let body = |headers: &str, unit: &str| (headers.to_owned(), filler(unit));
        let line = |front: &str, unit: &str, end: &str| {
            (format!("{front}{}{end}\r\n", filler(unit)), String::new())
        };
        let commas = format!("Contact: {}\r\n", ",".repeat(110));
        let folded = format!("X:{}\r\n", ":\r\n ".repeat(40));
        [
            ("commas", line("Contact: ", "a:b,", "")),
            ("lines of commas", line("", &commas, "S:")),
            ("open brackets", line("Route: ", "<", "")),
            ("brackets", line("Route: ", "<>", "")),
            ("nested brackets", line("Contact: ", "<a:", ">")),
            ("quotes", line("Contact: ", "\"a\",", "")),
            ("a quote that never closes", line("Contact: \"", "\\\"", "")),
            ("backslashes", line("Subject: \"", "\\", "")),
            ("semicolons", line("Record-Route: <a:b>", ";a=", "")),
            ("quoted parameters", line("Record-Route: <a:b>", ";a=\"\"", "")),
            ("folded parameters", line("Contact: <a:b>", "\r\n ;a=\"\"", "")),
            ("folds", line("Subject: a", "\r\n ", "")),
            ("folded lines", line("", &folded, "S:")),
            ("white space", line("Subject:", " ", "a")),
            ("short lines", line("", "S:\r\n", "S:")),
            ("no colons", line("", "x\r\n", "x")),
            ("vias", line("", "Via: SIP/2.0/UDP h,SIP/2.0/UDP h\r\n", "S:")),
            ("vias in one line", line("Via: ", "SIP/2.0/UDP h;branch=z,", "SIP/2.0/UDP h")),
            ("parameters of a via", line("Via: SIP/2.0/UDP h", ";branch", "")),
            ("a long tag", line("To: <a:b>;tag=", "x", "")),
            ("user", line("Contact: <sip:", "%41", "@h>")),
            ("boundaries", body("Content-Type: multipart/mixed;boundary=b\r\n", "--b\r\n\r\n")),
        ]
        .into_iter()
        .map(|(shape, (headers, body))| (shape, headers, body))
        .collect()
    }

    #[test]
    fn the_number_of_lines_is_limited() {
        let more = HEADER_LINES_MAX.saturating_sub(5);
        let error = |lines: usize| Message::parse(text(&"S:\r\n".repeat(lines), "").into()).err();
        assert!(error(more).is_none());
        let error = error(more.saturating_add(1)).unwrap();
        assert_eq!((error.problem, error.problem.status()), (Problem::TooManyLines, 513));
        assert!(error.salvage.is_some());
    }

    fn request(headers: &str, body: &str) -> Message {
        Message::parse(text(headers, body).into()).unwrap()
    }

    fn text(headers: &str, body: &str) -> String {
        format!(
            "INVITE sip:c@d SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n{headers}\r\n{body}"
        )
    }
}
