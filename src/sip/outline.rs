//! As much of a new request as it takes to refuse it, found without reading the rest, and without keeping any of it.
//!
//! Owns: which requests are new by their looks; the lines that an answer copies.
//! Never: checks what an answer does not need. Who takes the request after all parses it.

use super::{
    Method,
    address::{AddrParts, ViaParts},
    build::{self, Builder},
    head::{Line, Lines, read_header_line},
    header::HeaderName,
    text,
};
use std::net::SocketAddr;

/// What an answer copies (RFC 3261 8.2.6.2), but Via, of which there may be several.
const ONCE: [HeaderName; 4] =
    [HeaderName::From, HeaderName::To, HeaderName::CallId, HeaderName::CSeq];
/// More such lines are no usual request: it is read as a whole.
const LINES_MAX: usize = 16;

/// An INVITE or REGISTER outside of every dialog.
#[derive(Debug)]
pub struct Outline<'m> {
    method: Method,
    uri: &'m [u8],
    copied: Copied<'m>,
    via: ViaParts<'m>,
}

/// The lines that an answer copies.
#[derive(Debug)]
struct Copied<'m> {
    message: &'m [u8],
    lines: [Option<Line>; LINES_MAX],
    count: usize,
}

impl Copied<'_> {
    /// Adds a line; `None` where there is no room.
    fn add(&mut self, line: Line) -> Option<()> {
        *self.lines.get_mut(self.count)? = Some(line);
        self.count = self.count.saturating_add(1);
        Some(())
    }

    fn is_whole(&self) -> bool {
        ONCE.into_iter().all(|name| self.all(name).count() == 1)
    }

    fn has_to_tag(&self) -> bool {
        let to = self.first(HeaderName::To).map(|line| self.value(line)).unwrap_or_default();
        // Nothing after the address, as in most requests: no parameters.
        let tag = |to| AddrParts::read(to).map(|to| !to.params.tag().is_empty());
        !to.ends_with(b">") && tag(to).unwrap_or(true)
    }
}

impl Lines for Copied<'_> {
    fn bytes(&self) -> &[u8] {
        self.message
    }

    fn all(&self, name: HeaderName) -> impl Iterator<Item = &Line> {
        self.lines.iter().map_while(Option::as_ref).filter(move |line| line.id == name)
    }
}

impl<'m> Outline<'m> {
    /// Looks at a datagram. `None` where it is anything else, or odd enough to be read as a whole.
    pub fn of(message: &'m [u8]) -> Option<Self> {
        let (method, uri, copied) = look(message)?;
        let top = copied.first(HeaderName::Via)?.value().get(message);
        let via = ViaParts::read(text::first_value(top).0)?;
        let is_new = copied.is_whole() && !copied.has_to_tag();
        is_new.then_some(Self { method, uri, copied, via })
    }

    /// Returns the request as it came.
    pub fn message(&self) -> &'m [u8] {
        self.copied.message
    }

    /// Returns INVITE or REGISTER.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Returns the Request-URI as written; it may be none.
    pub fn uri(&self) -> &'m str {
        str_of(self.uri)
    }

    /// Returns the topmost Via's branch; empty from a client of RFC 2543.
    pub fn branch(&self) -> &'m str {
        str_of(self.via.branch)
    }

    /// Returns the host and port that the topmost Via names.
    pub fn sent_by(&self) -> (&'m str, Option<u16>) {
        (str_of(self.via.host), self.via.port)
    }

    /// Returns whether it answers a challenge, or means to.
    pub fn has_credentials(&self) -> bool {
        memchr::memmem::find(self.message(), b"\nAuthorization").is_some()
    }

    /// Writes an answer without a body as [`Builder::reply`] and [`Builder::finish`] do, with what `more` adds, behind
    /// what `into` has.
    pub fn reply_into(
        &self,
        into: &mut Vec<u8>,
        start: (u16, &str),
        to_tag: &str,
        from: SocketAddr,
        more: impl FnOnce(&mut Builder),
    ) {
        let top = Some((self.via.host, self.via.params));
        let behind = std::mem::take(into);
        let mut reply = build::reply_to((&self.copied, top), start, Some(to_tag), from, behind);
        more(&mut reply);
        *into = reply.finish_behind();
    }
}

fn str_of(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

/// Finds the lines that an answer copies.
fn look(message: &[u8]) -> Option<(Method, &[u8], Copied<'_>)> {
    let (first, mut rest) = text::line(message)?;
    let (method, uri) = match (first.strip_prefix(b"INVITE "), first.strip_prefix(b"REGISTER ")) {
        (Some(uri), _) => (Method::Invite, uri),
        (None, Some(uri)) => (Method::Register, uri),
        (None, None) => return None,
    };
    let uri = uri.strip_suffix(b" SIP/2.0")?;
    let mut copied = Copied { message, lines: [None; LINES_MAX], count: 0 };
    while let Some(first) = rest.first().filter(|first| !matches!(first, b'\r' | b'\n')) {
        // What a line goes on with begins with a space (RFC 3261 7.3.1).
        if !is_candidate(*first, rest) {
            rest = rest.get(text::find_byte(rest, b'\n')?.saturating_add(1)..)?;
            continue;
        }
        let at = message.len().wrapping_sub(rest.len());
        let (line, after) = text::folded_line(rest)?;
        let line = read_header_line(at, line)?;
        if line.id == HeaderName::Via || ONCE.contains(&line.id) {
            copied.add(line)?;
        }
        rest = after;
    }
    Some((method, uri, copied))
}

/// Returns whether a line may be one that an answer copies, by its beginning: most others that begin with C are of two
/// names.
fn is_candidate(first: u8, line: &[u8]) -> bool {
    match first.to_ascii_lowercase() {
        b'v' | b'f' | b't' | b'i' => true,
        b'c' => !line.starts_with(b"Contact:") && !line.starts_with(b"Content-"),
        _ => false,
    }
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
            let outline = Outline::of(text.as_bytes()).unwrap();
            assert_eq!(outline.method(), method);
            assert_eq!(outline.uri(), message.uri());
            assert_eq!(outline.branch(), message.branch());
            assert_eq!(outline.sent_by(), message.sent_by());
            assert_eq!(outline.message(), text.as_bytes());
            let want = Builder::reply(&message, 503, "No", Some("t"), from).finish();
            let mut replies = b"before".to_vec();
            outline.reply_into(&mut replies, (503, "No"), "t", from, |_| {});
            assert_eq!(replies, [b"before", &*want].concat());
        }
    }

    #[test]
    fn what_is_not_new_or_odd_has_none() {
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
            invite.replace("Max-Forwards", &"v: SIP/2.0/UDP c\r\n".repeat(20)),
        ] {
            assert!(Outline::of(other.as_bytes()).is_none(), "{other}");
        }
    }

    #[test]
    fn credentials_are_seen() {
        let text = format!("REGISTER sip:d SIP/2.0\r\n{LINES}");
        assert!(!Outline::of(text.as_bytes()).unwrap().has_credentials());
        let text = text.replace("Allow", "Authorization: Digest x=\"y\"\r\nAllow");
        assert!(Outline::of(text.as_bytes()).unwrap().has_credentials());
    }
}
