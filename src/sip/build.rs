//! Writing messages.
//!
//! Owns: the order and the line ends of what we send, and that nothing is injected into it.
//! Never: decides which headers a message has.

use super::{
    address::ViaParts,
    head::{Line, Lines},
    header::HeaderName,
    message::Message,
    text,
    uri::{Params, parse_ip},
};
use bytes::Bytes;
use std::{
    cell::Cell,
    fmt::{self, Display, Write},
    net::{IpAddr, SocketAddr},
};

/// A message being written: the start line first, headers in the order of the calls.
#[derive(Clone, Debug)]
pub struct Builder(Out);

impl Builder {
    /// Starts a request.
    pub fn request(method: &str, uri: &str) -> Self {
        let mut out = Out(room());
        out.put_bytes(method.as_bytes());
        out.put_plain(b" ");
        out.put_bytes(uri.as_bytes());
        out.put_plain(b" SIP/2.0");
        out.end_line();
        Self(out)
    }

    /// Starts a response from nothing. To answer a request, see [`Builder::reply`].
    pub fn response(status: u16, reason: &str) -> Self {
        Self::response_behind(room(), status, reason)
    }

    fn response_behind(behind: Vec<u8>, status: u16, reason: &str) -> Self {
        let mut out = Out(behind);
        out.put_plain(b"SIP/2.0 ");
        out.put_number(status.into());
        out.put_plain(b" ");
        out.put_bytes(reason.as_bytes());
        out.end_line();
        Self(out)
    }

    /// Starts a response to `request` (RFC 3261 8.2.6): Via, From, To, Call-ID and CSeq as they
    /// came, the top Via completed with where the request really came from (18.2.1, RFC 3581 4),
    /// `to_tag` where the To has none, Timestamp in a 100.
    pub fn reply(
        request: &Message,
        status: u16,
        reason: &str,
        to_tag: Option<&str>,
        from: SocketAddr,
    ) -> Self {
        let to_tag = to_tag.filter(|_| request.to_tag().is_none());
        let top = Some(request.via_end());
        reply_to((request.head(), top), (status, reason), to_tag, from, room())
    }

    /// Adds a header. Line ends and NULs in its value become spaces.
    pub fn header(&mut self, name: HeaderName, value: impl Display) -> &mut Self {
        debug_assert!(name != HeaderName::Other, "a header of an unknown name: see raw_header");
        if name != HeaderName::Other {
            self.0.put_name(name.as_str());
            self.0.put(value);
            self.0.end_line();
        }
        self
    }

    /// Adds a header whose value is text; otherwise as [`Self::header`], and faster.
    pub fn text(&mut self, name: HeaderName, value: &str) -> &mut Self {
        debug_assert!(name != HeaderName::Other, "a header of an unknown name: see raw_header");
        self.parts(name, &[value])
    }

    /// Adds a header whose value is put together of these parts.
    pub fn parts(&mut self, name: HeaderName, parts: &[&str]) -> &mut Self {
        if name != HeaderName::Other {
            self.0.put_name(name.as_str());
            parts.iter().for_each(|part| self.0.put_bytes(part.as_bytes()));
            self.0.end_line();
        }
        self
    }

    /// Adds a header whose value is a number.
    pub fn number(&mut self, name: HeaderName, number: u64) -> &mut Self {
        self.0.put_name(name.as_str());
        self.0.put_number(number);
        self.0.end_line();
        self
    }

    /// Adds a CSeq.
    pub fn cseq(&mut self, number: u32, method: &str) -> &mut Self {
        self.0.put_name(HeaderName::CSeq.as_str());
        self.0.put_number(number.into());
        self.0.put_plain(b" ");
        self.0.put_bytes(method.as_bytes());
        self.0.end_line();
        self
    }

    /// Adds a From or To: a value without its tag, and the tag unless it is empty.
    pub fn tagged(&mut self, name: HeaderName, value: &[u8], tag: &str) -> &mut Self {
        self.0.put_name(name.as_str());
        self.0.put_bytes(value);
        if !tag.is_empty() {
            self.0.put_plain(b";tag=");
            self.0.put_bytes(tag.as_bytes());
        }
        self.0.end_line();
        self
    }

    /// Adds a header by its text name. A name that is not a token is our bug, and left out.
    pub fn raw_header(&mut self, name: &str, value: &[u8]) -> &mut Self {
        debug_assert!(text::is_token(name.as_bytes()), "not a header's name: {name:?}");
        if text::is_token(name.as_bytes()) {
            self.0.put_name(name);
            self.0.put_bytes(value);
            self.0.end_line();
        }
        self
    }

    /// Copies every line of that name as it was written.
    pub fn copy(&mut self, from: &Message, name: HeaderName) -> &mut Self {
        for line in from.lines().filter(|line| line.id() == name) {
            self.0.put_line(line.line());
        }
        self
    }

    /// Ends the message with a body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Bytes {
        self.text(HeaderName::ContentType, content_type);
        self.number(HeaderName::ContentLength, body.len() as u64);
        self.0.end_line();
        self.0.0.extend_from_slice(body);
        self.0.into_bytes()
    }

    /// Ends the message without a body.
    pub fn finish(mut self) -> Bytes {
        self.end();
        self.0.into_bytes()
    }

    /// Ends the message without a body, behind what was written before it.
    pub(super) fn finish_behind(mut self) -> Vec<u8> {
        self.end();
        self.0.0
    }

    fn end(&mut self) {
        self.number(HeaderName::ContentLength, 0);
        self.0.end_line();
    }
}

thread_local! {
    /// The room of the last message, for the next one: warm in the processor's caches, which one of the allocator is not.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Larger room is not kept.
const ROOM_KEPT: usize = 1 << 16;

/// Room for most messages.
fn room() -> Vec<u8> {
    let mut room = ROOM.take();
    room.clear();
    room.reserve(1024);
    room
}

/// The host and the parameters of a Via.
type ViaEnd<'a> = (&'a [u8], Params<'a>);

/// See [`Builder::reply`]; works on what is left of a broken request, too, and behind what has been written. `to_tag` is
/// for a To that has none; what is known of the top Via need not be read again.
pub(super) fn reply_to(
    (lines, top): (&impl Lines, Option<ViaEnd<'_>>),
    (status, reason): (u16, &str),
    to_tag: Option<&str>,
    from: SocketAddr,
    behind: Vec<u8>,
) -> Builder {
    let mut builder = Builder::response_behind(behind, status, reason);
    let (out, bytes) = (&mut builder.0, lines.bytes());
    let mut vias = lines.all(HeaderName::Via);
    if let Some(line) = vias.next() {
        out.put_top_via((bytes, top), line, from);
    }
    for via in vias {
        out.put_line(via.line().get(bytes));
    }
    for name in [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq] {
        let Some(line) = lines.first(name) else { continue };
        let tag = to_tag.filter(|_| name == HeaderName::To);
        out.put_line_with(line.line().get(bytes), tag.map(|tag| ("tag", tag)));
    }
    if let Some(timestamp) = lines.first(HeaderName::Timestamp).filter(|_| status == 100) {
        out.put_line(timestamp.line().get(bytes));
    }
    builder
}

/// The bytes written so far.
#[derive(Clone, Debug)]
struct Out(Vec<u8>);

impl Out {
    /// Gives the message away, without the room that it did not need: transactions keep it. A copy costs less than to
    /// have the allocator cut the rest off, and leaves it the whole room for the next message.
    fn into_bytes(self) -> Bytes {
        let bytes = Bytes::copy_from_slice(&self.0);
        if self.0.capacity() <= ROOM_KEPT {
            ROOM.set(self.0);
        }
        bytes
    }

    /// Writes a header's name, which is a token.
    fn put_name(&mut self, name: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
    }

    /// Writes an address without its port.
    fn put_ip(&mut self, ip: IpAddr) {
        let IpAddr::V4(v4) = ip else { return self.put(ip) };
        for (at, octet) in v4.octets().into_iter().enumerate() {
            self.0.extend((at > 0).then_some(b'.'));
            self.put_number(octet.into());
        }
    }

    /// Writes a number.
    fn put_number(&mut self, number: u64) {
        let mut digits = [b'0'; 20];
        let (mut rest, mut first) = (number, digits.len());
        for (at, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0'.wrapping_add((rest % 10) as u8);
            (rest, first) = (rest / 10, at);
            if rest == 0 {
                break;
            }
        }
        self.put_plain(digits.get(first..).unwrap_or_default());
    }

    /// Writes text. Line ends and NULs become spaces.
    fn put(&mut self, text: impl Display) {
        // Writing to memory cannot fail; a value whose own `Display` fails stays cut short.
        let written = write!(self, "{text}");
        debug_assert!(written.is_ok(), "a value that cannot be displayed");
    }

    /// Writes bytes in which there are no line ends.
    fn put_plain(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Writes bytes. Line ends and NULs become spaces.
    fn put_bytes(&mut self, bytes: &[u8]) {
        if is_plain(bytes) {
            return self.put_plain(bytes);
        }
        let plain = |byte: &u8| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { *byte };
        self.0.extend(bytes.iter().map(plain));
    }

    fn end_line(&mut self) {
        self.0.extend_from_slice(b"\r\n");
    }

    /// Writes part of a line that was read. Its folds stay folds; any other line end in it does
    /// not survive.
    fn put_folded(&mut self, mut text: &[u8]) {
        if is_plain(text) {
            return self.put_plain(text);
        }
        loop {
            let at = text::find_byte(text, b'\n').unwrap_or(text.len());
            let (line, rest) = text.split_at_checked(at).unwrap_or((text, &[]));
            let (line, folds) = match rest {
                [b'\n', b' ' | b'\t', ..] => (line.strip_suffix(b"\r").unwrap_or(line), true),
                _ => (line, false),
            };
            self.put_bytes(line);
            match rest.split_first() {
                None => return,
                Some((_, rest)) => text = rest,
            }
            if folds {
                self.end_line();
            } else {
                self.0.push(b' ');
            }
        }
    }

    /// Writes a line that was read.
    fn put_line(&mut self, line: &[u8]) {
        self.put_folded(line);
        self.end_line();
    }

    /// Writes a line that was read and one more parameter.
    fn put_line_with(&mut self, line: &[u8], param: Option<(&str, &str)>) {
        self.put_folded(text::trim(line));
        if let Some((name, value)) = param {
            self.put_plain(b";");
            self.put_plain(name.as_bytes());
            self.put_plain(b"=");
            self.put_bytes(value.as_bytes());
        }
        self.end_line();
    }

    /// Writes the line of the top Via, `received` and `rport` filled in. What the sender claims
    /// to have been received from is dropped.
    fn put_top_via(
        &mut self,
        (bytes, known): (&[u8], Option<ViaEnd<'_>>),
        line: &Line,
        from: SocketAddr,
    ) {
        let value = line.value().get(bytes);
        let (top, others) = text::first_value(value);
        let read = || ViaParts::read(top).map(|via| (via.host, via.params));
        let Some((host, params)) = known.or_else(read) else {
            return self.put_line(line.line().get(bytes));
        };
        let mut has_rport = false;
        self.put_plain(line.name().get(bytes));
        self.put_plain(b": ");
        let sent_by = top.get(..text::find_byte(top, b';').unwrap_or(top.len()));
        self.put_folded(text::trim(sent_by.unwrap_or(top)));
        for param in params.parts().filter(|param| !param.is_empty()) {
            let name = text::trim(text::split_at(param, |byte| byte == b'=').0);
            if name.eq_ignore_ascii_case(b"received") {
                continue;
            }
            self.put_plain(b";");
            if name.eq_ignore_ascii_case(b"rport") {
                has_rport = true;
                self.put_plain(b"rport=");
                self.put_number(from.port().into());
            } else {
                self.put_folded(param);
            }
        }
        let ip = from.ip().to_canonical();
        let called = || parse_ip(std::str::from_utf8(host).ok()?);
        if has_rport || called().map(|called| called.to_canonical()) != Some(ip) {
            self.put_plain(b";received=");
            self.put_ip(ip);
        }
        if let Some(others) = others {
            self.put_plain(b",");
            self.put_folded(others);
        }
        self.end_line();
    }
}

/// Returns whether there are neither line ends nor NULs.
fn is_plain(bytes: &[u8]) -> bool {
    !text::has_low(bytes) || text::find_any(bytes, *b"\r\n\0").is_none()
}

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put_bytes(text.as_bytes());
        Ok(())
    }
}

/// Makes a quoted string of a display name (RFC 3261 25.1).
pub fn quote(display: &str) -> String {
    let mut quoted = String::with_capacity(display.len().saturating_add(2));
    quoted.push('"');
    for char in display.chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            control if control.is_ascii_control() => quoted.push(' '),
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// Sorted by status (RFC 3261 21 and IANA's registry of response codes).
const REASONS: &[(u16, &str)] = &[
    (100, "Trying"),
    (180, "Ringing"),
    (181, "Call Is Being Forwarded"),
    (182, "Queued"),
    (183, "Session Progress"),
    (199, "Early Dialog Terminated"),
    (200, "OK"),
    (202, "Accepted"),
    (204, "No Notification"),
    (300, "Multiple Choices"),
    (301, "Moved Permanently"),
    (302, "Moved Temporarily"),
    (305, "Use Proxy"),
    (380, "Alternative Service"),
    (400, "Bad Request"),
    (401, "Unauthorized"),
    (402, "Payment Required"),
    (403, "Forbidden"),
    (404, "Not Found"),
    (405, "Method Not Allowed"),
    (406, "Not Acceptable"),
    (407, "Proxy Authentication Required"),
    (408, "Request Timeout"),
    (410, "Gone"),
    (412, "Conditional Request Failed"),
    (413, "Request Entity Too Large"),
    (414, "Request-URI Too Long"),
    (415, "Unsupported Media Type"),
    (416, "Unsupported URI Scheme"),
    (417, "Unknown Resource-Priority"),
    (420, "Bad Extension"),
    (421, "Extension Required"),
    (422, "Session Interval Too Small"),
    (423, "Interval Too Brief"),
    (428, "Use Identity Header"),
    (429, "Provide Referrer Identity"),
    (430, "Flow Failed"),
    (433, "Anonymity Disallowed"),
    (439, "First Hop Lacks Outbound Support"),
    (440, "Max-Breadth Exceeded"),
    (469, "Bad Info Package"),
    (470, "Consent Needed"),
    (480, "Temporarily Unavailable"),
    (481, "Call/Transaction Does Not Exist"),
    (482, "Loop Detected"),
    (483, "Too Many Hops"),
    (484, "Address Incomplete"),
    (485, "Ambiguous"),
    (486, "Busy Here"),
    (487, "Request Terminated"),
    (488, "Not Acceptable Here"),
    (489, "Bad Event"),
    (491, "Request Pending"),
    (493, "Undecipherable"),
    (494, "Security Agreement Required"),
    (500, "Server Internal Error"),
    (501, "Not Implemented"),
    (502, "Bad Gateway"),
    (503, "Service Unavailable"),
    (504, "Server Time-out"),
    (505, "Version Not Supported"),
    (513, "Message Too Large"),
    (555, "Push Notification Service Not Supported"),
    (580, "Precondition Failure"),
    (600, "Busy Everywhere"),
    (603, "Decline"),
    (604, "Does Not Exist Anywhere"),
    (606, "Not Acceptable"),
    (607, "Unwanted"),
    (608, "Rejected"),
];

/// Returns the usual reason phrase; for an unknown status, that of its class.
pub fn default_reason(status: u16) -> &'static str {
    let known = REASONS.binary_search_by_key(&status, |(known, _)| *known);
    match known.ok().and_then(|at| REASONS.get(at)) {
        Some((_, reason)) => reason,
        None => match status {
            0..=199 => "Progress",
            200..=299 => "Success",
            300..=399 => "Redirection",
            400..=499 => "Request Failure",
            500..=599 => "Server Failure",
            600.. => "Global Failure",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_injected() {
        let mut builder = Builder::request("INVITE", "sip:a@b\r\nX: y");
        builder.header(HeaderName::Subject, "a\r\nInjected: yes\0");
        builder.raw_header("X-Bytes", b"\xe9\nInjected: yes");
        assert_eq!(
            *builder.finish(),
            *b"INVITE sip:a@b  X: y SIP/2.0\r\nSubject: a  Injected: yes \r\n\
               X-Bytes: \xe9 Injected: yes\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_body_gets_its_headers() {
        let bytes = Builder::response(200, "OK").body("application/sdp", b"v=0\r\n");
        assert_eq!(
            *bytes,
            *b"SIP/2.0 200 OK\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"
        );
    }

    /// RFC 3261 18.2.1, RFC 3581 4.
    #[test]
    fn the_top_via_says_where_it_came_from() {
        for (via, from, want) in [
            ("UDP h;branch=1", "192.0.2.1:9", "UDP h;branch=1;received=192.0.2.1"),
            ("UDP 192.0.2.1:5060;branch=1", "192.0.2.1:9", "UDP 192.0.2.1:5060;branch=1"),
            ("UDP 192.0.2.1;rport", "192.0.2.1:9", "UDP 192.0.2.1;rport=9;received=192.0.2.1"),
            ("UDP 10.0.0.1;RPort=7;x", "192.0.2.1:9", "UDP 10.0.0.1;rport=9;x;received=192.0.2.1"),
            ("UDP h;received=6.6.6.6;a=\"b;c\"", "[::1]:9", "UDP h;a=\"b;c\";received=::1"),
            ("UDP [2001:db8::1]", "[2001:DB8:0::1]:9", "UDP [2001:db8::1]"),
            ("UDP 192.0.2.1", "[::ffff:192.0.2.1]:9", "UDP 192.0.2.1"),
            ("UDP a , SIP/2.0/TCP b", "192.0.2.1:9", "UDP a;received=192.0.2.1, SIP/2.0/TCP b"),
            ("UDP a\r\n ;branch=1", "192.0.2.1:9", "UDP a;branch=1;received=192.0.2.1"),
        ] {
            let request = request(&format!("v: SIP/2.0/{via}\r\nVia: SIP/2.0/UDP x"), "");
            let reply = Builder::reply(&request, 200, "OK", None, from.parse().unwrap()).finish();
            let reply = String::from_utf8(reply.to_vec()).unwrap();
            let want = format!("SIP/2.0 200 OK\r\nv: SIP/2.0/{want}\r\nVia: SIP/2.0/UDP x\r\nf: <");
            assert!(reply.starts_with(&want), "{via}:\n{reply}");
        }
    }

    #[test]
    fn a_reply_copies_what_must_be_copied() {
        let request = request("Via: SIP/2.0/UDP 192.0.2.1", "Timestamp: 54\r\nSubject: no\r\n");
        let from = "192.0.2.1:5060".parse().unwrap();
        let common = "Via: SIP/2.0/UDP 192.0.2.1\r\nf: <sip:a@b>\r\n\t;tag=1\r\nTo : <sip:c@d>";
        let rest = "Call-ID: x\r\nCSeq: 1 INVITE\r\n";
        for (status, tag, want) in [
            (100, None, format!("{common}\r\n{rest}Timestamp: 54\r\n")),
            (180, Some("t"), format!("{common};tag=t\r\n{rest}")),
        ] {
            let reply = Builder::reply(&request, status, default_reason(status), tag, from);
            let start = format!("SIP/2.0 {status} {}\r\n", default_reason(status));
            let want = format!("{start}{want}Content-Length: 0\r\n\r\n");
            assert_eq!(String::from_utf8(reply.finish().to_vec()).unwrap(), want);
        }
    }

    #[test]
    fn copied_lines_keep_folds_and_lose_stray_line_ends() {
        let request = request(
            "Via: SIP/2.0/UDP h",
            "SUBJECT: a\rInjected: yes\r\n\tb\r\nSubject: c\0d\n e\r\nS: f\r\n",
        );
        let mut builder = Builder::response(200, "OK");
        builder.copy(&request, HeaderName::Subject);
        assert_eq!(
            *builder.finish(),
            *b"SIP/2.0 200 OK\r\nSUBJECT: a Injected: yes\r\n\tb\r\nSubject: c d\r\n e\r\n\
               S: f\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn headers_are_the_same_however_they_are_added() {
        let mut one = Builder::request("INVITE", "sip:a@b");
        one.header(HeaderName::Contact, "<sip:\r\nx>")
            .header(HeaderName::MaxForwards, 70)
            .header(HeaderName::Expires, u64::MAX)
            .header(HeaderName::CSeq, "7 BYE")
            .header(HeaderName::From, "<sip:a@b>;tag=t")
            .header(HeaderName::To, "<sip:c@d>");
        let mut other = Builder::request("INVITE", "sip:a@b");
        other
            .parts(HeaderName::Contact, &["<sip:", "\r\n", "x>"])
            .number(HeaderName::MaxForwards, 70)
            .number(HeaderName::Expires, u64::MAX)
            .cseq(7, "BYE")
            .tagged(HeaderName::From, b"<sip:a@b>", "t")
            .tagged(HeaderName::To, b"<sip:c@d>", "");
        assert_eq!(one.finish(), other.finish());
    }

    #[test]
    fn quoted_display_names() {
        assert_eq!(quote(r#"Bob "B\" <b>"#), r#""Bob \"B\\\" <b>""#);
        assert_eq!(quote("a\r\nb"), r#""a  b""#);
        assert_eq!(quote("José"), r#""José""#);
    }

    #[test]
    fn reasons() {
        assert!(REASONS.is_sorted_by_key(|(status, _)| status));
        assert_eq!(default_reason(486), "Busy Here");
        assert_eq!(default_reason(499), "Request Failure");
        assert_eq!(default_reason(699), "Global Failure");
    }

    fn request(vias: &str, more: &str) -> Message {
        let text = format!(
            "INVITE sip:c@d SIP/2.0\r\n{vias}\r\nf: <sip:a@b>\r\n\t;tag=1\r\nTo : <sip:c@d>\r\n\
             Call-ID: x\r\nCSeq: 1 INVITE\r\n{more}\r\n"
        );
        Message::parse(text.into()).unwrap()
    }
}
