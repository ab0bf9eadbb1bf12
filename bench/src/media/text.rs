//! SIP messages as the phones here write and read them.
//!
//! Owns: nothing. Never: a socket, a clock.

/// A message that was received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    text: &'a str,
}

impl<'a> Message<'a> {
    /// Takes a datagram; none if it is not text.
    pub fn new(datagram: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(datagram).ok()?;
        text.contains("SIP/2.0").then_some(Self { text })
    }

    /// The status; none of a request.
    pub fn status(&self) -> Option<u16> {
        self.first().strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
    }

    /// The first line.
    pub fn first(&self) -> &'a str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The method of a request and its Request-URI.
    pub fn request(&self) -> Option<(&'a str, &'a str)> {
        let (method, rest) = self.first().split_once(' ')?;
        (method != "SIP/2.0").then(|| (method, rest.split(' ').next().unwrap_or_default()))
    }

    /// The values of a header, as they were written, also under its short name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let short = match name {
            "Via" => "v",
            "From" => "f",
            "To" => "t",
            "Call-ID" => "i",
            "Contact" => "m",
            _ => name,
        };
        let lines = self.head().lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.filter_map(move |(found, value)| {
            let found = found.trim_end();
            let is_it = found.eq_ignore_ascii_case(name) || found.eq_ignore_ascii_case(short);
            is_it.then(|| value.trim())
        })
    }

    /// The first of them, or nothing.
    pub fn get(&self, name: &str) -> &'a str {
        self.all(name).next().unwrap_or_default()
    }

    /// The method that CSeq names.
    pub fn method(&self) -> &'a str {
        self.get("CSeq").split_whitespace().nth(1).unwrap_or_default()
    }

    /// What comes behind the headers.
    pub fn body(&self) -> &'a str {
        self.text.get(self.head().len() + 4..).unwrap_or_default()
    }

    fn head(&self) -> &'a str {
        self.text.split("\r\n\r\n").next().unwrap_or_default()
    }

    /// The URI of a Contact, a From or a To.
    pub fn uri(value: &str) -> &str {
        match value.split_once('<') {
            Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
            None => value.split(';').next().unwrap_or_default(),
        }
    }

    /// An answer to it, up to the headers that need no copying. `tag` is ours.
    pub fn answer(&self, status: &str, tag: &str) -> String {
        let mut answer = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "Record-Route"] {
            self.all(name).for_each(|value| answer += &format!("{name}: {value}\r\n"));
        }
        let to = self.get("To");
        let tag = if to.contains(";tag=") { String::new() } else { format!(";tag={tag}") };
        answer += &format!("From: {}\r\nTo: {to}{tag}\r\n", self.get("From"));
        answer + &format!("Call-ID: {}\r\nCSeq: {}\r\n", self.get("Call-ID"), self.get("CSeq"))
    }
}

/// Ends the headers, behind which comes this session description or nothing.
pub fn with_body(mut headers: String, sdp: &str) -> String {
    if !sdp.is_empty() {
        headers += "Content-Type: application/sdp\r\n";
    }
    headers + &format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:+14152000000@127.0.0.3:5070 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKa\r\nv: SIP/2.0/UDP 10.0.0.1\r\n\
        f: <sip:a@b>;tag=1\r\nTo: <sip:+14152000000@x>\r\nCall-ID : c1\r\nCSeq: 1 INVITE\r\n\
        Contact: \"x\" <sip:pbx@127.0.0.1:5060>;expires=3\r\nContent-Length: 5\r\n\r\nv=0\r\n";

    #[test]
    fn a_request_is_read_and_answered() {
        let message = Message::new(INVITE.as_bytes()).unwrap();
        assert_eq!(message.status(), None);
        assert_eq!(message.request(), Some(("INVITE", "sip:+14152000000@127.0.0.3:5070")));
        assert_eq!((message.method(), message.body()), ("INVITE", "v=0\r\n"));
        assert_eq!(Message::uri(message.get("Contact")), "sip:pbx@127.0.0.1:5060");
        assert_eq!(Message::uri("sip:a@b;x=1"), "sip:a@b");
        let answer = with_body(message.answer("200 OK", "t9"), "v=0\r\n");
        assert_eq!(
            answer,
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKa\r\n\
             Via: SIP/2.0/UDP 10.0.0.1\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:+14152000000@x>;tag=t9\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n\
             Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"
        );
        let answer = Message::new(answer.as_bytes()).unwrap();
        assert_eq!((answer.status(), answer.request()), (Some(200), None));
        assert!(answer.answer("200 OK", "t2").contains("To: <sip:+14152000000@x>;tag=t9\r\n"));
    }

    #[test]
    fn what_is_no_message_is_none() {
        assert!(Message::new(b"\r\n\r\n").is_none());
        assert!(Message::new(&[0x80, 0xff]).is_none());
    }
}
