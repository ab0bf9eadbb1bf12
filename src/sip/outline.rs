//! As much of a new request as it takes to refuse it, found without reading the rest.
//!
//! Owns: which requests are new by their looks; the lines that an answer copies.
//! Never: checks what an answer does not need. Who takes the request after all parses it.

use super::{
    Method,
    address::{AddrParts, ViaParts},
    build::{self, Builder},
    header::HeaderName,
    parse::{Head, Line, first_value, read_header_line},
    text::{self, Span},
};
use bytes::Bytes;
use std::net::SocketAddr;

/// What an answer copies (RFC 3261 8.2.6.2), but Via, of which there may be several.
const ONCE: [HeaderName; 4] =
    [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
/// For how many of these lines there is room before it is known how many there are.
const LINES_USUAL: usize = 8;
/// More of them are no usual request: it is read as a whole.
const LINES_MAX: usize = 32;

/// An INVITE or REGISTER outside of every dialog.
#[derive(Debug)]
pub struct Outline {
    head: Head,
    method: Method,
    uri: Span,
    host: Span,
    port: Option<u16>,
    branch: Span,
}

impl Outline {
    /// Looks at a datagram. Gives it back where it is anything else, or odd enough to be read as a whole.
    ///
    /// # Errors
    /// The datagram.
    pub fn of(bytes: Bytes) -> Result<Self, Bytes> {
        let Some((method, uri, lines)) = look(&bytes) else { return Err(bytes) };
        let head = Head::of(bytes, lines);
        match top_via(&head).filter(|_| is_whole(&head) && !has_to_tag(&head)) {
            Some((host, port, branch)) => Ok(Self { head, method, uri, host, port, branch }),
            None => Err(head.bytes),
        }
    }

    /// Gives the request away as it came.
    pub fn into_bytes(self) -> Bytes {
        self.head.bytes
    }

    /// Returns the request as it came.
    pub fn bytes(&self) -> &Bytes {
        &self.head.bytes
    }

    /// Returns INVITE or REGISTER.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Returns the Request-URI as written; it may be none.
    pub fn uri(&self) -> &str {
        self.uri.get_str(&self.head.bytes)
    }

    /// Returns the topmost Via's branch; empty from a client of RFC 2543.
    pub fn branch(&self) -> &str {
        self.branch.get_str(&self.head.bytes)
    }

    /// Returns the host and port that the topmost Via names.
    pub fn sent_by(&self) -> (&str, Option<u16>) {
        (self.host.get_str(&self.head.bytes), self.port)
    }

    /// Returns whether it answers a challenge, or means to.
    pub fn has_credentials(&self) -> bool {
        memchr::memmem::find(&self.head.bytes, b"\nAuthorization").is_some()
    }

    /// Starts an answer, as [`Builder::reply`] does.
    pub fn reply(&self, status: u16, reason: &str, to_tag: &str, from: SocketAddr) -> Builder {
        build::reply_to((&self.head, None), status, reason, Some(to_tag), from)
    }
}

/// Finds the lines that an answer copies.
fn look(bytes: &[u8]) -> Option<(Method, Span, Vec<Line>)> {
    let (start, mut rest) = text::line(bytes)?;
    let (method, uri) = match (start.strip_prefix(b"INVITE "), start.strip_prefix(b"REGISTER ")) {
        (Some(uri), _) => (Method::Invite, uri),
        (None, Some(uri)) => (Method::Register, uri),
        (None, None) => return None,
    };
    let uri = Span::of(bytes, uri.strip_suffix(b" SIP/2.0")?);
    let mut lines = Vec::with_capacity(LINES_USUAL);
    while let Some(first) = rest.first().filter(|first| !matches!(first, b'\r' | b'\n')) {
        // What a line goes on with begins with a space; most that begin with C are of these two.
        let is_candidate = matches!(first.to_ascii_lowercase(), b'v' | b'f' | b't' | b'c' | b'i')
            && !rest.starts_with(b"Contact:")
            && !rest.starts_with(b"Content-");
        if !is_candidate {
            (_, rest) = text::line(rest)?;
            continue;
        }
        let at = bytes.len().wrapping_sub(rest.len());
        let (line, after) = text::folded_line(rest)?;
        let line = read_header_line(at, line)?;
        if line.id == HeaderName::Via || ONCE.contains(&line.id) {
            lines.push(line);
        }
        if lines.len() > LINES_MAX {
            return None;
        }
        rest = after;
    }
    Some((method, uri, lines))
}

fn is_whole(head: &Head) -> bool {
    ONCE.into_iter().all(|name| head.all(name).count() == 1)
}

fn has_to_tag(head: &Head) -> bool {
    let to = head.first(HeaderName::To).map(|line| head.value(line)).unwrap_or_default();
    // Nothing after the address, as in most requests: no parameters.
    let tag = |to| AddrParts::read(to).map(|to| !to.params.tag().is_empty());
    !to.ends_with(b">") && tag(to).unwrap_or(true)
}

fn top_via(head: &Head) -> Option<(Span, Option<u16>, Span)> {
    let top = first_value(head.value(head.first(HeaderName::Via)?))?;
    let top = ViaParts::read(top)?;
    let place = |part| Span::of(&head.bytes, part);
    Some((place(top.host), top.port, place(top.branch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::Message;

    const LINES: &str = "Via: SIP/2.0/UDP a.example.com:5070;branch=z9hG4bK1;rport, SIP/2.0/TCP b\r\n\
        Max-Forwards: 70\r\nv: SIP/2.0/UDP c\r\nf: \"A, B\" <sip:a@b>\r\n ;tag=1\r\nContact: <sip:a@b>\r\n\
        T : <sip:c@d>\r\nAllow: INVITE\r\ni: x@y\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";

    /// What it says and answers is what a reader of the whole message says and answers.
    #[test]
    fn it_agrees_with_the_parser() {
        let from = "192.0.2.1:9".parse().unwrap();
        for (text, method) in [
            (format!("INVITE sip:112@d SIP/2.0\r\n{LINES}"), Method::Invite),
            (
                format!(
                    "REGISTER sip:d SIP/2.0\r\n{}",
                    LINES.replace(" INVITE\r\nCon", " REGISTER\r\nCon")
                ),
                Method::Register,
            ),
            (format!("INVITE tel:1 SIP/2.0\n{}", LINES.replace("\r\n", "\n")), Method::Invite),
            (
                format!("INVITE sip:1@d SIP/2.0\r\n{}", LINES.replace("sip:c@d>", "sip:c@d>;x=y")),
                Method::Invite,
            ),
        ] {
            let message = Message::parse(text.clone().into()).unwrap();
            let outline = Outline::of(text.clone().into()).unwrap();
            assert_eq!(outline.method(), method);
            assert_eq!(outline.uri(), message.uri());
            assert_eq!(outline.branch(), message.branch());
            assert_eq!(outline.sent_by(), message.sent_by());
            assert_eq!(outline.bytes(), text.as_bytes());
            let want = Builder::reply(&message, 503, "No", Some("t"), from).finish();
            assert_eq!(outline.reply(503, "No", "t", from).finish(), want);
            assert_eq!(outline.into_bytes(), text);
        }
    }

    #[test]
    fn what_is_not_new_or_odd_is_given_back() {
        let invite = format!("INVITE sip:1@d SIP/2.0\r\n{LINES}");
        for other in [
            String::new(),
            "INVITE sip:1@d SIP/2.0".to_owned(),
            invite.replacen("INVITE", "BYE", 1),
            invite.replacen("INVITE", "\r\nINVITE", 1),
            invite.replacen("SIP/2.0", "SIP/3.0", 1),
            invite.replace("<sip:c@d>", "<sip:c@d>;tag=7"),
            invite.replace("<sip:c@d>", "sip:c@d;x;TAG = 7"),
            invite.replace("<sip:c@d>", "<sip:c@d"),
            invite.replace("i: x@y", "i: x@y\r\nCall-ID: z"),
            invite.replace("CSeq", "X-CSeq"),
            invite.replace("T :", "T"),
            invite.replace("a.example.com:5070", ""),
            invite.replace("Max-Forwards", &"v: SIP/2.0/UDP c\r\n".repeat(40)),
        ] {
            let given = Outline::of(other.clone().into());
            assert_eq!(given.map(|_| ()).unwrap_err(), other, "{other}");
        }
    }

    #[test]
    fn credentials_are_seen() {
        let text = format!("REGISTER sip:d SIP/2.0\r\n{LINES}");
        assert!(!Outline::of(text.clone().into()).unwrap().has_credentials());
        let text = text.replace("Allow", "Authorization: Digest x=\"y\"\r\nAllow");
        assert!(Outline::of(text.into()).unwrap().has_credentials());
    }
}
