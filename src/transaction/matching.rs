//! Which server transaction a request belongs to (RFC 3261 17.2.3), and which request came twice
//! (8.2.2.2).
//!
//! Owns: the two keys.
//! Never: keeps a table.

use crate::{
    ids::MAGIC_COOKIE,
    sip::{Message, Method},
};

/// Parts of a key are joined with what no token contains.
const SEPARATOR: &str = "\0";

/// What tells one server transaction from every other. An ACK has the key of its INVITE.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ServerKey(Box<str>);

impl ServerKey {
    /// Returns the key of the transaction that `request` creates or repeats; that of the INVITE, if
    /// it is an ACK.
    pub(super) fn of(request: &Message) -> Self {
        if request.method() == Method::Ack {
            Self::with_method(request, Method::Invite.as_str())
        } else {
            Self::with_method(request, request.method_token())
        }
    }

    /// Returns the key of the INVITE that this CANCEL is about (RFC 3261 9.2).
    pub(super) fn of_cancelled(cancel: &Message) -> Self {
        Self::with_method(cancel, Method::Invite.as_str())
    }

    fn with_method(request: &Message, method: &str) -> Self {
        if request.branch().starts_with(MAGIC_COOKIE) {
            Self::rfc3261(request, method)
        } else {
            Self::rfc2543(request, method)
        }
    }

    fn rfc3261(request: &Message, method: &str) -> Self {
        let via = request.via();
        let host = via.host.to_ascii_lowercase();
        let port = via.port.map(|port| port.to_string()).unwrap_or_default();
        Self([via.branch(), &host, &port, method].join(SEPARATOR).into())
    }

    /// The fields that a client of RFC 2543 keeps the same in an INVITE, its copies, its CANCEL and
    /// its ACK. The To tag, which the RFC lists too, adds nothing to From tag, Call-ID and CSeq.
    fn rfc2543(request: &Message, method: &str) -> Self {
        let via = request.via();
        let host = via.host.to_ascii_lowercase();
        let port = via.port.map(|port| port.to_string()).unwrap_or_default();
        let number = request.cseq().number.to_string();
        let parts = [
            "2543",
            request.uri(),
            request.from_tag().unwrap_or_default(),
            request.call_id(),
            &number,
            via.branch(),
            &host,
            &port,
            method,
        ];
        Self(parts.join(SEPARATOR).into())
    }

    /// Returns the key as text, for a tag that stays the same for the same request.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What two copies of a request have in common that a proxy forked on the way to us.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct MergeKey(Box<str>);

impl MergeKey {
    /// Returns the key; `None` inside a dialog, where nothing is merged, and for an ancient client.
    pub(super) fn of(request: &Message) -> Option<Self> {
        if request.to_tag().is_some() {
            return None;
        }
        let number = request.cseq().number.to_string();
        let parts = [request.from_tag()?, request.call_id(), &number, request.method_token()];
        Some(Self(parts.join(SEPARATOR).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// (method, sent-by and branch, CSeq, Request-URI user, whether it is the INVITE's transaction)
    #[test]
    fn what_belongs_to_an_invite() {
        for (method, via, cseq, user, same) in [
            ("INVITE", "pc.example.com;branch=z9hG4bK1", 1, "bob", true),
            ("INVITE", "PC.Example.COM;branch=z9hG4bK1;rport", 1, "bob", true),
            ("ACK", "pc.example.com;branch=z9hG4bK1", 1, "bob", true),
            ("ACK", "pc.example.com;branch=z9hG4bK1", 1, "elsewhere", true),
            ("CANCEL", "pc.example.com;branch=z9hG4bK1", 1, "bob", false),
            ("INVITE", "pc.example.com:5060;branch=z9hG4bK1", 1, "bob", false),
            ("INVITE", "other.example.com;branch=z9hG4bK1", 1, "bob", false),
            ("INVITE", "pc.example.com;branch=z9hG4bK2", 1, "bob", false),
        ] {
            let invite = request("INVITE", "pc.example.com;branch=z9hG4bK1", 1, "bob");
            let other = request(method, via, cseq, user);
            assert_eq!(ServerKey::of(&invite) == ServerKey::of(&other), same, "{method} {via}");
        }
    }

    #[test]
    fn what_belongs_to_an_invite_of_rfc_2543() {
        for (method, via, cseq, user, same) in [
            ("INVITE", "pc.example.com;branch=1", 1, "bob", true),
            ("ACK", "pc.example.com;branch=1", 1, "bob", true),
            ("ACK", "pc.example.com;branch=1", 1, "elsewhere", false),
            ("INVITE", "pc.example.com;branch=1", 2, "bob", false),
            ("INVITE", "pc.example.com", 1, "bob", false),
            ("INVITE", "pc.example.com;branch=z9hG4bK1", 1, "bob", false),
        ] {
            let invite = request("INVITE", "pc.example.com;branch=1", 1, "bob");
            let other = request(method, via, cseq, user);
            assert_eq!(ServerKey::of(&invite) == ServerKey::of(&other), same, "{method} {via}");
        }
    }

    #[test]
    fn a_cancel_finds_its_invite() {
        for via in ["pc.example.com;branch=z9hG4bK1", "pc.example.com;branch=1"] {
            let invite = request("INVITE", via, 1, "bob");
            let cancel = request("CANCEL", via, 1, "bob");
            assert_eq!(ServerKey::of_cancelled(&cancel), ServerKey::of(&invite));
        }
    }

    #[test]
    fn copies_of_a_forked_request_merge() {
        let key = |method, via, cseq| MergeKey::of(&request(method, via, cseq, "bob"));
        let invite = key("INVITE", "a;branch=z9hG4bK1", 1);
        assert!(invite.is_some());
        assert_eq!(invite, key("INVITE", "b;branch=z9hG4bK2", 1));
        assert_ne!(invite, key("INVITE", "b;branch=z9hG4bK2", 2), "retried with credentials");
        assert_ne!(invite, key("OPTIONS", "b;branch=z9hG4bK2", 1));
    }

    fn request(method: &str, via: &str, cseq: u32, user: &str) -> Message {
        let text = format!(
            "{method} sip:{user}@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\n\
             From: <sip:alice@example.com>;tag=a\r\nTo: <sip:bob@example.com>\r\n\
             Call-ID: x@y\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
             Content-Length: 0\r\n\r\n"
        );
        Message::parse(Bytes::from(text)).unwrap()
    }
}
