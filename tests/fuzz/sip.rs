//! SIP messages: read, looked at from all sides, answered; and the streams they come in.

use crate::{all_messages, fuzz, lines, messages};
use bytes::Bytes;
use std::{borrow::Cow, net::SocketAddr};
use tandem::sip::{
    Builder, HeaderName, Message, Outline, ParseError, default_reason,
    framing::{Frame, Framer},
};

/// As much as a connection may make us keep, and a read more.
const STREAM_MAX: usize = 200_000;

#[test]
fn a_message() {
    for message in all_messages() {
        survive(&message);
    }
    fuzz("message", 20_000, &messages(), survive);
}

/// A framer says the same however its bytes are divided, and nothing after the end.
#[test]
fn a_stream() {
    let corpus: Vec<_> =
        messages().iter().map(|message| message.repeat(3)).chain(lines("stream.txt")).collect();
    fuzz("stream", 20_000, &corpus, |bytes| {
        let bytes = &bytes[..bytes.len().min(STREAM_MAX)];
        let whole = messages_of(bytes, 65_536);
        let step = 1 + bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 700;
        assert!(messages_of(bytes, step) == whole, "by {step}");
        let broken = whole.iter().position(|message| message == "broken");
        assert!(broken.is_none_or(|at| at + 1 == whole.len()), "something follows the end");
    });
}

/// What is refused before it is read as a whole is what it would have been, and gets the same answer.
fn check_outline(bytes: &[u8]) {
    let Some(outline) = Outline::of(bytes) else { return };
    let mut reply = vec![];
    outline.reply_into(&mut reply, (503, "No"), "t", source(), |_| {});
    assert!(reply.starts_with(b"SIP/2.0 503 No\r\n") && !reply.contains(&0), "{reply:?}");
    let Ok(message) = Message::parse(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!((outline.method(), outline.uri()), (message.method(), message.uri()));
    assert_eq!((outline.branch(), outline.sent_by()), (message.branch(), message.sent_by()));
    assert_eq!(message.to_tag(), None);
    assert_eq!(reply, Builder::reply(&message, 503, "No", Some("t"), source()).finish());
}

fn survive(bytes: &[u8]) {
    check_outline(bytes);
    match Message::parse(Bytes::copy_from_slice(bytes)) {
        Ok(message) => {
            look_at_everything(&message);
            if message.is_request() {
                check_reply(&message);
            }
        }
        Err(ParseError { problem, salvage }) => {
            assert!((400..=599).contains(&problem.status()), "{problem}");
            if let Some(salvage) = salvage {
                let reply = salvage.reply(problem.status(), &problem.to_string(), source());
                assert!(reply.starts_with(b"SIP/2.0 "), "{reply:?}");
                assert!(!reply.contains(&0), "{reply:?}");
            }
        }
    }
}

/// The answer to whatever was accepted is a message, and nothing was injected into it.
fn check_reply(request: &Message) {
    let bytes = Builder::reply(request, 180, default_reason(180), Some("t"), source()).finish();
    let reply = Message::parse(bytes.clone()).unwrap_or_else(|e| panic!("{e}: {bytes:?}"));
    assert_eq!((reply.status(), reply.method_token()), (180, request.method_token()));
    assert_eq!(reply.call_id(), request.call_id(), "{bytes:?}");
    assert_eq!(reply.cseq(), request.cseq(), "{bytes:?}");
    // A fold is one space, however it is written.
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let tag = |tag: Option<&str>| tag.map(plain);
    assert_eq!(plain(reply.branch()), plain(request.branch()), "{bytes:?}");
    assert_eq!(reply.from().uri, request.from().uri, "{bytes:?}");
    assert_eq!(tag(reply.from_tag()), tag(request.from_tag()), "{bytes:?}");
    assert!(reply.to_tag().is_some(), "{bytes:?}");
    let vias = request.lines().filter(|line| line.id() == HeaderName::Via).count();
    assert_eq!(reply.lines().count(), vias + 5, "{bytes:?}");
    assert!(!bytes.contains(&0));
}

fn look_at_everything(message: &Message) {
    let _ = (message.method(), message.uri(), message.status(), message.reason().len());
    let _ = (message.from_tag(), message.to_tag(), message.branch(), message.via().received());
    let _ = (message.vias().count(), message.contacts(), message.body_bytes(), message.sdp());
    let _ = (message.from().parsed_uri(), message.to().display_str().map(Cow::into_owned));
    let _ = (message.content_type_is("application/sdp"), message.challenges());
    for line in message.lines() {
        let _ = (line.name(), line.value(), line.line(), message.header_str(line.id()));
        let _ = (message.number(line.id()), message.has_option(line.id(), "x"));
        let _ = (message.values(line.id()).count(), message.routes(line.id()).len());
        let _ = (message.credentials(line.id()), message.other(line.name()));
    }
}

fn messages_of(stream: &[u8], step: usize) -> Vec<Bytes> {
    let (mut framer, mut got) = (Framer::new(), vec![]);
    for bytes in stream.chunks(step.max(1)) {
        framer.push(bytes);
        while let Some(frame) = framer.next() {
            match frame {
                Frame::Message(bytes) => got.push(bytes),
                Frame::Broken => got.push(Bytes::from_static(b"broken")),
                Frame::Ping | Frame::Pong => {}
            }
        }
    }
    got
}

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 77], 5062))
}
