//! What a message of our own says of itself, without reading the rest of it.
//!
//! Owns: finding the few headers that tell what a message is and whose.
//! Never: checks anything: what comes from a peer is parsed.

use super::{HeaderName, text};

/// What a message is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Glance<'m> {
    /// The status of a response; 0 for requests.
    pub status: u16,
    /// The reason phrase of a response.
    pub reason: &'m str,
    /// The method in CSeq, as written.
    pub method: &'m str,
    /// The number in CSeq.
    pub cseq: u32,
    /// The Call-ID.
    pub call_id: &'m str,
    /// Whether there is a session description.
    pub has_sdp: bool,
}

impl<'m> Glance<'m> {
    /// Looks at a message that a builder of ours has written. `None`: it is none.
    pub fn of(message: &'m [u8]) -> Option<Self> {
        let (start, mut rest) = text::line(message)?;
        let (status, reason) = match start.strip_prefix(b"SIP/2.0 ") {
            Some(start) => {
                let (status, reason) = text::split_once(start, b' ')?;
                (text::digits(status)?, reason)
            }
            None => (0, &[][..]),
        };
        let (mut cseq, mut call_id, mut has_sdp) = (None, None, false);
        let is_bare = message.ends_with(b"\r\nContent-Length: 0\r\n\r\n");
        while let Some(first) = rest.first().filter(|first| !matches!(first, b'\r' | b'\n')) {
            if cseq.is_some() && call_id.is_some() {
                // All else that is asked is what the body is, where there is one.
                has_sdp = !is_bare && memchr::memmem::find(rest, b"\r\n\r\nv=0").is_some();
                break;
            }
            let next = text::find_byte(rest, b'\n')?.saturating_add(1);
            // Call-ID, CSeq and their compact forms. A line that goes on another is none of them.
            if !matches!(first, b'C' | b'c' | b'I' | b'i') {
                rest = rest.get(next..)?;
                continue;
            }
            let (line, after) = text::folded_line(rest)?;
            rest = after;
            let Some((name, value)) = text::split_once(line, b':') else { continue };
            let (name, value) = (HeaderName::parse(text::trim(name)), text::trim(value));
            if name == HeaderName::CallId {
                call_id = Some(value);
            } else if name == HeaderName::CSeq {
                cseq = Some(value);
            }
        }
        let (number, method) = text::split_at(cseq?, text::is_lws);
        Some(Self {
            status: u16::try_from(status).ok()?,
            reason: std::str::from_utf8(reason).ok()?,
            method: std::str::from_utf8(text::trim(method)).ok()?,
            cseq: text::digits(number)?,
            call_id: std::str::from_utf8(call_id?).ok()?,
            has_sdp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Builder, Message};

    /// It sees what a reader of the whole message sees.
    #[test]
    fn it_agrees_with_the_parser() {
        let invite = "INVITE sip:c@d SIP/2.0\r\nv: SIP/2.0/UDP h\r\nf: <sip:a@b>;tag=1\r\n\
            t: <sip:c@d>\r\ni : x@y\r\nCSEQ: 7\r\n INVITE\r\nContact: <sip:a@b>\r\n\r\n";
        let invite = Message::parse(invite.into()).unwrap();
        let mut with_body = Builder::request("INVITE", "sip:c@d");
        for name in [HeaderName::Via, HeaderName::From, HeaderName::To, HeaderName::CallId] {
            with_body.copy(&invite, name);
        }
        with_body.copy(&invite, HeaderName::CSeq);
        let from = "192.0.2.1:5060".parse().unwrap();
        for bytes in [
            Builder::reply(&invite, 180, "Ringing", Some("t"), from).finish(),
            Builder::reply(&invite, 200, "OK", Some("t"), from).body("application/sdp", b"v=0"),
            with_body.body("application/sdp", b"v=0"),
        ] {
            let message = Message::parse(bytes.clone()).unwrap();
            let glance = Glance::of(&bytes).unwrap();
            assert_eq!(glance.status, message.status());
            assert_eq!(glance.reason.as_bytes(), message.reason());
            assert_eq!((glance.method, glance.cseq), ("INVITE", 7));
            assert_eq!(glance.call_id, message.call_id());
            assert_eq!(glance.has_sdp, message.content_type_is("application/sdp"));
        }
        for other in ["", "INVITE sip:a SIP/2.0\r\n\r\n", "SIP/2.0 x\r\n\r\n"] {
            assert_eq!(Glance::of(other.as_bytes()), None);
        }
    }
}
