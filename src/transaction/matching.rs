//! Which server transaction a request belongs to (RFC 3261 17.2.3), which client transaction a response
//! (17.1.3), and which request came twice (8.2.2.2).
//!
//! Owns: the keys: digests of what a message says, so that a table holds none of its text.
//! Never: keeps a table.

use crate::{
    ids::{Digest, Digester, MAGIC_COOKIE, MintKey},
    sip::{Message, Method},
};

/// What tells one server transaction from every other. An ACK has the key of its INVITE.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct ServerKey(Digest);

impl ServerKey {
    /// Returns the key of the transaction that `request` creates or repeats; that of the INVITE, if
    /// it is an ACK.
    pub(super) fn of(request: &Message, key: &MintKey) -> Self {
        if request.method() == Method::Ack {
            Self::of_cancelled(request, key)
        } else {
            Self::with_method(request, request.method_token(), key)
        }
    }

    /// Returns the key of the INVITE that this CANCEL is about (RFC 3261 9.2).
    pub(super) fn of_cancelled(cancel: &Message, key: &MintKey) -> Self {
        Self::with_method(cancel, Method::Invite.as_str(), key)
    }

    fn with_method(request: &Message, method: &str, key: &MintKey) -> Self {
        let branch = request.branch();
        let start =
            if branch.starts_with(MAGIC_COOKIE) { key.digest() } else { rfc2543(request, key) };
        Self::from_start(start, branch, request.sent_by(), method)
    }

    /// Returns the key of a request of which no more than its topmost Via and its method are known; `None`
    /// where that is not enough.
    pub(super) fn of_via(
        branch: &str,
        sent_by: (&str, Option<u16>),
        method: &str,
        key: &MintKey,
    ) -> Option<Self> {
        let is_enough = branch.starts_with(MAGIC_COOKIE);
        is_enough.then(|| Self::from_start(key.digest(), branch, sent_by, method))
    }

    fn from_start(
        start: Digester,
        branch: &str,
        (host, port): (&str, Option<u16>),
        method: &str,
    ) -> Self {
        let port = port.map_or(u32::MAX, u32::from);
        let all = start.text(branch).caseless(host).number(port).text(method);
        Self(all.finish())
    }

    /// Returns the key that has this digest.
    pub(super) fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// Returns the key as a digest, for a tag that stays the same for the same request.
    pub(super) fn digest(self) -> Digest {
        self.0
    }
}

/// The fields that a client of RFC 2543 keeps the same in an INVITE, its copies, its CANCEL and
/// its ACK. The To tag, which the RFC lists too, adds nothing to From tag, Call-ID and CSeq.
fn rfc2543(request: &Message, key: &MintKey) -> Digester {
    key.digest()
        .text("2543")
        .text(request.uri())
        .text(request.from_tag().unwrap_or_default())
        .text(request.call_id())
        .number(request.cseq().number)
}

/// What two copies of a request have in common that a proxy forked on the way to us.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct MergeKey(Digest);

impl MergeKey {
    /// Returns the key; `None` inside a dialog, where nothing is merged, and for an ancient client.
    pub(super) fn of(request: &Message, key: &MintKey) -> Option<Self> {
        if request.to_tag().is_some() {
            return None;
        }
        let start = key.digest().text(request.from_tag()?).text(request.call_id());
        let number = request.cseq().number;
        Some(Self(start.number(number).text(request.method_token()).finish()))
    }
}

/// What tells one client transaction from every other: the branch, and whether it is a CANCEL, which has the
/// branch of its INVITE (RFC 3261 17.1.3).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct ClientKey(Digest);

impl ClientKey {
    /// Returns the key of the transaction of a request.
    pub(super) fn new(branch: &str, method: Method, key: &MintKey) -> Self {
        let is_cancel = u32::from(method == Method::Cancel);
        Self(key.digest().text(branch).number(is_cancel).finish())
    }

    /// Returns the key of the transaction that a response belongs to.
    pub(super) fn of(response: &Message, key: &MintKey) -> Self {
        Self::new(response.branch(), response.cseq().method, key)
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
            assert_eq!(
                ServerKey::of(&invite, &key()) == ServerKey::of(&other, &key()),
                same,
                "{method} {via}"
            );
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
            assert_eq!(
                ServerKey::of(&invite, &key()) == ServerKey::of(&other, &key()),
                same,
                "{method} {via}"
            );
        }
    }

    #[test]
    fn a_cancel_finds_its_invite() {
        for via in ["pc.example.com;branch=z9hG4bK1", "pc.example.com;branch=1"] {
            let invite = request("INVITE", via, 1, "bob");
            let cancel = request("CANCEL", via, 1, "bob");
            assert_eq!(ServerKey::of_cancelled(&cancel, &key()), ServerKey::of(&invite, &key()));
        }
    }

    #[test]
    fn copies_of_a_forked_request_merge() {
        let merge = |method, via, cseq| MergeKey::of(&request(method, via, cseq, "bob"), &key());
        let invite = merge("INVITE", "a;branch=z9hG4bK1", 1);
        assert!(invite.is_some());
        assert_eq!(invite, merge("INVITE", "b;branch=z9hG4bK2", 1));
        assert_ne!(invite, merge("INVITE", "b;branch=z9hG4bK2", 2), "retried with credentials");
        assert_ne!(invite, merge("OPTIONS", "b;branch=z9hG4bK2", 1));
    }

    fn key() -> MintKey {
        MintKey::new([1; 16])
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
