//! A SIP message as slices of its datagram: just what a load generator looks at.
//!
//! Owns: nothing. Never: judges more than it needs; folded lines are passed over.

use memchr::{memchr, memmem};

/// Most Via, Record-Route and challenge lines that are kept.
const LINES_MAX: usize = 8;

/// Values of the lines with one name, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines<'a> {
    values: [&'a [u8]; LINES_MAX],
    count: usize,
}

impl<'a> Lines<'a> {
    fn push(&mut self, value: &'a [u8]) {
        if let Some(place) = self.values.get_mut(self.count) {
            *place = value;
            self.count += 1;
        }
    }

    /// The values.
    pub fn values(&self) -> &[&'a [u8]] {
        &self.values[..self.count]
    }

    /// Writes them as lines of a message.
    pub fn write(&self, name: &[u8], out: &mut Vec<u8>) {
        self.values().iter().for_each(|value| line(name, value, out));
    }

    /// Writes them as lines of a message, the last first, as a caller does with its route set.
    pub fn write_reversed(&self, name: &[u8], out: &mut Vec<u8>) {
        self.values().iter().rev().for_each(|value| line(name, value, out));
    }
}

/// Writes `name: value` and the line's end.
pub fn line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What is looked at. A header that is not there is empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// The first line.
    pub start: &'a [u8],
    /// The status of a response; 0 for a request.
    pub status: u16,
    /// Via, as it came.
    pub via: Lines<'a>,
    /// Record-Route, as it came.
    pub record_route: Lines<'a>,
    /// WWW-Authenticate and Proxy-Authenticate.
    pub challenge: Lines<'a>,
    /// The headers that make a dialog.
    pub dialog: Dialog<'a>,
    /// Max-Forwards.
    pub max_forwards: &'a [u8],
    /// Content-Type.
    pub content_type: &'a [u8],
    /// Content-Length; whether the body is so long, `check` tells.
    pub content_length: &'a [u8],
    /// Authorization or Proxy-Authorization.
    pub credentials: &'a [u8],
    /// What follows the empty line.
    pub body: &'a [u8],
}

/// The headers that make a dialog.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialog<'a> {
    /// From.
    pub from: &'a [u8],
    /// To.
    pub to: &'a [u8],
    /// Call-ID.
    pub call_id: &'a [u8],
    /// CSeq.
    pub cseq: &'a [u8],
    /// Contact.
    pub contact: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a datagram; none if it is no SIP.
    pub fn read(datagram: &'a [u8]) -> Option<Self> {
        let mut message = Self::default();
        let (start, mut rest) = next_line(datagram)?;
        message.start = start;
        if let Some(status) = start.strip_prefix(b"SIP/2.0 ") {
            message.status = number(status.get(..3)?)?.try_into().ok()?;
        } else if !start.ends_with(b" SIP/2.0") {
            return None;
        }
        loop {
            let (line, after) = next_line(rest)?;
            rest = after;
            if line.is_empty() {
                message.body = rest;
                return Some(message);
            }
            if !line[0].is_ascii_whitespace() {
                let colon = memchr(b':', line)?;
                message.keep(line[..colon].trim_ascii_end(), line[colon + 1..].trim_ascii());
            }
        }
    }

    fn keep(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match (name.len(), name.first().map_or(0, u8::to_ascii_lowercase)) {
            (1 | 3, b'v') => self.via.push(value),
            (1 | 4, b'f') => self.dialog.from = value,
            (1 | 2, b't') => self.dialog.to = value,
            (1, b'i') => self.dialog.call_id = value,
            (7, b'c') if is(b"Call-ID") => self.dialog.call_id = value,
            (1, b'm') => self.dialog.contact = value,
            (7, b'c') if is(b"Contact") => self.dialog.contact = value,
            (4, b'c') if is(b"CSeq") => self.dialog.cseq = value,
            (12, b'r') if is(b"Record-Route") => self.record_route.push(value),
            (16, b'w') if is(b"WWW-Authenticate") => self.challenge.push(value),
            (18, b'p') if is(b"Proxy-Authenticate") => self.challenge.push(value),
            (13, b'a') if is(b"Authorization") => self.credentials = value,
            (19, b'p') if is(b"Proxy-Authorization") => self.credentials = value,
            (12, b'm') if is(b"Max-Forwards") => self.max_forwards = value,
            (1, b'c') => self.content_type = value,
            (12, b'c') if is(b"Content-Type") => self.content_type = value,
            (1, b'l') => self.content_length = value,
            (14, b'c') if is(b"Content-Length") => self.content_length = value,
            _ => {}
        }
    }

    /// The method of a request, or of the request that a response answers.
    pub fn method(&self) -> &'a [u8] {
        let (text, split) = match self.status {
            0 => (self.start, self.start.split(|byte| *byte == b' ').next()),
            _ => (self.dialog.cseq, self.dialog.cseq.rsplit(|byte| *byte == b' ').next()),
        };
        split.unwrap_or(text)
    }

    /// The number in CSeq; 0 if there is none.
    pub fn cseq_number(&self) -> u32 {
        let digits = self.dialog.cseq.split(|byte| *byte == b' ').next().unwrap_or_default();
        number(digits).unwrap_or(0)
    }

    /// Writes a response without a body. `tag` is added to To where that has none, unless it is empty.
    pub fn respond(&self, status: &[u8], tag: &[u8], out: &mut Vec<u8>) {
        self.head(status, tag, out);
        out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    }

    /// Writes a response that makes a dialog (RFC 3261 12.1.1), with a body unless that is empty.
    pub fn respond_in_dialog(
        &self,
        status: &[u8],
        tag: &[u8],
        contact: &str,
        sdp: &str,
        out: &mut Vec<u8>,
    ) {
        self.head(status, tag, out);
        self.record_route.write(b"Record-Route", out);
        line(b"Contact", contact.as_bytes(), out);
        if !sdp.is_empty() {
            line(b"Content-Type", b"application/sdp", out);
        }
        line(b"Content-Length", sdp.len().to_string().as_bytes(), out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(sdp.as_bytes());
    }

    fn head(&self, status: &[u8], own_tag: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"SIP/2.0 ");
        out.extend_from_slice(status);
        out.extend_from_slice(b"\r\n");
        self.via.write(b"Via", out);
        line(b"From", self.dialog.from, out);
        out.extend_from_slice(b"To: ");
        out.extend_from_slice(self.dialog.to);
        if !own_tag.is_empty() && tag(self.dialog.to).is_none() {
            out.extend_from_slice(b";tag=");
            out.extend_from_slice(own_tag);
        }
        out.extend_from_slice(b"\r\n");
        line(b"Call-ID", self.dialog.call_id, out);
        line(b"CSeq", self.dialog.cseq, out);
    }

    /// What an initial INVITE must have (RFC 3261 8.1.1, 13.2.1), as the first thing that it has not.
    pub fn check_invite(&self) -> Result<(), &'static str> {
        let has = |is_there, what| if is_there { Ok(()) } else { Err(what) };
        let top = self.via.values().first().copied().unwrap_or_default();
        has(memmem::find(top, b";branch=z9hG4bK").is_some(), "no branch in the topmost Via")?;
        has(number(self.max_forwards).is_some_and(|hops| hops > 0), "no Max-Forwards")?;
        has(tag(self.dialog.from).is_some_and(|tag| !tag.is_empty()), "no tag in From")?;
        has(!self.dialog.to.is_empty() && tag(self.dialog.to).is_none(), "no To, or a tag in it")?;
        has(!self.dialog.call_id.is_empty(), "no Call-ID")?;
        has(self.cseq_number() > 0 && self.dialog.cseq.ends_with(b" INVITE"), "no CSeq")?;
        has(uri(self.dialog.contact).starts_with(b"sip:"), "no Contact")?;
        let length = number(self.content_length).and_then(|length| usize::try_from(length).ok());
        has(length == Some(self.body.len()), "a Content-Length that is not the body's")?;
        let is_sdp = self.content_type.eq_ignore_ascii_case(b"application/sdp");
        has(is_sdp && self.body.starts_with(b"v=0"), "no SDP")?;
        has(memmem::find(self.body, b"\nm=audio ").is_some(), "no audio in the SDP")
    }
}

/// The line without its end, and what follows.
fn next_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', text)?;
    let line = &text[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &text[end + 1..]))
}

/// A decimal number; none if it is anything else.
pub fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The tag of a From or To.
pub fn tag(value: &[u8]) -> Option<&[u8]> {
    let parameters = &value[memchr(b'>', value).unwrap_or(0)..];
    let start = memmem::find(parameters, b";tag=")? + 5;
    let rest = &parameters[start..];
    Some(&rest[..memchr(b';', rest).unwrap_or(rest.len())])
}

/// The URI of a From, To or Contact.
pub fn uri(value: &[u8]) -> &[u8] {
    if let Some(open) = memchr(b'<', value) {
        let rest = &value[open + 1..];
        return &rest[..memchr(b'>', rest).unwrap_or(rest.len())];
    }
    &value[..memchr(b';', value).unwrap_or(value.len())]
}

/// The user of a SIP URI; empty if it has none.
pub fn user(uri: &[u8]) -> &[u8] {
    let rest = uri.strip_prefix(b"sip:").unwrap_or(uri);
    memchr(b'@', rest).map_or(&[], |at| &rest[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:+14155550199@127.0.0.20 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKa;rport\r\n\
        v: SIP/2.0/UDP 127.0.0.10:5060;branch=z9hG4bKb\r\n\
        Max-Forwards: 69\r\n\
        f: \"A\" <sip:+17756187988@127.0.0.1>;tag=x1;y=z\r\n\
        To: <sip:+14155550199@127.0.0.20>\r\n\
        Call-ID : abc@d\r\n\
        CSeq: 7 INVITE\r\n\
        Record-Route: <sip:a;lr>\r\n\
        Record-Route: <sip:b;lr>\r\n\
        Subject: folded\r\n over two lines\r\n\
        m: <sip:127.0.0.1:5060>\r\n\
        Content-Type: application/sdp\r\n\
        l: 29\r\n\r\nv=0\r\nm=audio 4000 RTP/AVP 0\r\n";

    #[test]
    fn what_is_looked_at_is_found() {
        let message = Message::read(INVITE.as_bytes()).unwrap();
        assert_eq!((message.status, message.method()), (0, &b"INVITE"[..]));
        assert_eq!(message.via.values().len(), 2);
        assert_eq!(message.dialog.call_id, b"abc@d");
        assert_eq!(message.cseq_number(), 7);
        assert_eq!(tag(message.dialog.from), Some(&b"x1"[..]));
        assert_eq!(tag(message.dialog.to), None);
        assert_eq!(user(uri(message.dialog.from)), b"+17756187988");
        assert_eq!(uri(message.dialog.contact), b"sip:127.0.0.1:5060");
        assert_eq!(uri(b"sip:a@b;tag=1"), b"sip:a@b");
        assert_eq!(message.check_invite(), Ok(()));
        let mut routes = vec![];
        message.record_route.write_reversed(b"Route", &mut routes);
        assert_eq!(routes, b"Route: <sip:b;lr>\r\nRoute: <sip:a;lr>\r\n");

        let response = b"SIP/2.0 407 No\r\nCSeq: 2 BYE\r\nProxy-Authenticate: Digest x\r\n\r\n";
        let response = Message::read(response).unwrap();
        assert_eq!((response.status, response.method()), (407, &b"BYE"[..]));
        assert_eq!(response.challenge.values(), [b"Digest x"]);
    }

    #[test]
    fn what_an_invite_lacks_is_told() {
        for (is, instead, lacks) in [
            ("branch=z9hG4bKa", "branch=a", "no branch in the topmost Via"),
            ("Max-Forwards: 69", "Max-Forwards: 0", "no Max-Forwards"),
            (";tag=x1", "", "no tag in From"),
            ("0.20>\r\nCall", "0.20>;tag=1\r\nCall", "no To, or a tag in it"),
            ("Call-ID : abc@d\r\n", "", "no Call-ID"),
            ("7 INVITE", "7 BYE", "no CSeq"),
            ("m: <sip", "m: <tel", "no Contact"),
            ("l: 29", "l: 28", "a Content-Length that is not the body's"),
            ("v=0", "w=0", "no SDP"),
            ("m=audio", "m=video", "no audio in the SDP"),
        ] {
            let text = INVITE.replacen(is, instead, 1);
            let message = Message::read(text.as_bytes()).unwrap();
            assert_eq!(message.check_invite(), Err(lacks));
        }
        for other in
            ["", "\r\n\r\n", "SIP/2.0 x", "INVITE sip:a SIP/2.0\r\nVia: b\r\n", "a b\r\n\r\n"]
        {
            assert!(Message::read(other.as_bytes()).is_none(), "{other:?}");
        }
    }
}
