//! The requests that the layer makes from an INVITE of ours: the ACK of a refusal, the CANCEL.
//!
//! Owns: which headers they take over.
//! Never: makes the ACK of a 2xx; that is the dialog's.

use crate::sip::{Builder, HeaderName, Message, Method};
use bytes::Bytes;

/// Hops left, as RFC 3261 8.1.1.6 recommends.
const MAX_FORWARDS: u8 = 70;

/// Makes the ACK of a 3xx-6xx (RFC 3261 17.1.1.3).
pub(super) fn ack(invite: &Message, response: &Message) -> Bytes {
    follow_up(invite, response, Method::Ack).finish()
}

/// Makes the CANCEL of a pending INVITE (RFC 3261 9.1), with a Reason (RFC 3326) if there is one.
pub(super) fn cancel(invite: &Message, reason: Option<&str>) -> Bytes {
    let mut cancel = follow_up(invite, invite, Method::Cancel);
    if let Some(reason) = reason {
        cancel.header(HeaderName::Reason, reason);
    }
    cancel.finish()
}

fn follow_up(invite: &Message, to_of: &Message, method: Method) -> Builder {
    let mut request = Builder::request(method.as_str(), invite.uri());
    request
        .copy(invite, HeaderName::Via)
        .header(HeaderName::MaxForwards, MAX_FORWARDS)
        .copy(invite, HeaderName::Route)
        .copy(invite, HeaderName::From)
        .copy(to_of, HeaderName::To)
        .copy(invite, HeaderName::CallId)
        .header(HeaderName::CSeq, format_args!("{} {method}", invite.cseq().number));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:+14155550199@trunk.example SIP/2.0\r\n\
        Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\nMax-Forwards: 60\r\n\
        Route: <sip:edge.example;lr>\r\nRoute: <sip:inner.example;lr>\r\n\
        From: <sip:+17756187988@trunk.example>;tag=a\r\n\
        To: <sip:+14155550199@trunk.example>\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n\
        Contact: <sip:192.0.2.1>\r\nRequire: 100rel\r\nContent-Type: text/plain\r\n\
        Content-Length: 2\r\n\r\nhi";

    #[test]
    fn the_ack_takes_its_to_from_the_refusal() {
        let busy = "SIP/2.0 486 Busy Here\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;\
            rport=5060;received=192.0.2.1\r\nFrom: <sip:+17756187988@trunk.example>;tag=a\r\n\
            To: <sip:+14155550199@trunk.example>;tag=b\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n\
            Content-Length: 0\r\n\r\n";
        let busy = Message::parse(Bytes::from(busy)).unwrap();
        check(
            ack(&invite(), &busy),
            "ACK sip:+14155550199@trunk.example SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\nMax-Forwards: 70\r\n\
             Route: <sip:edge.example;lr>\r\nRoute: <sip:inner.example;lr>\r\n\
             From: <sip:+17756187988@trunk.example>;tag=a\r\n\
             To: <sip:+14155550199@trunk.example>;tag=b\r\nCall-ID: c\r\nCSeq: 7 ACK\r\n\
             Content-Length: 0\r\n\r\n",
        );
    }

    #[test]
    fn the_cancel_is_the_invite_without_its_body() {
        check(
            cancel(&invite(), Some("SIP ;cause=200 ;text=\"Call completed elsewhere\"")),
            "CANCEL sip:+14155550199@trunk.example SIP/2.0\r\n\
             Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\nMax-Forwards: 70\r\n\
             Route: <sip:edge.example;lr>\r\nRoute: <sip:inner.example;lr>\r\n\
             From: <sip:+17756187988@trunk.example>;tag=a\r\n\
             To: <sip:+14155550199@trunk.example>\r\nCall-ID: c\r\nCSeq: 7 CANCEL\r\n\
             Reason: SIP ;cause=200 ;text=\"Call completed elsewhere\"\r\n\
             Content-Length: 0\r\n\r\n",
        );
    }

    #[track_caller]
    fn check(got: Bytes, want: &str) {
        assert_eq!(String::from_utf8(got.to_vec()).unwrap(), want);
    }

    fn invite() -> Message {
        Message::parse(Bytes::from(INVITE)).unwrap()
    }
}
