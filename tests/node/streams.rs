//! TCP connections: framing, keep-alive, and what their end means.

use super::{
    phone::{Link, Phone},
    rig::{Rig, at, until},
};
use tandem::{
    ids::Transport,
    observe::status::{Request, Response},
    sip::{HeaderName, framing::Frame},
};

#[tokio::test]
async fn several_messages_in_one_segment_and_one_in_many() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::tcp("1001", at(&node, Transport::Tcp)).await;

    let together: String = (0..3).map(|_| phone.options()).collect();
    phone.link.send(together.as_bytes()).await;
    for _ in 0..3 {
        assert_eq!(phone.link.message().await.status(), 200);
    }

    let options = phone.options();
    for piece in options.as_bytes().chunks(40) {
        phone.link.send(piece).await;
    }
    assert_eq!(phone.link.message().await.status(), 200);
    node.stop().await;
}

#[tokio::test]
async fn a_ping_gets_its_pong() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut link = Link::tcp(at(&node, Transport::Tcp)).await;
    link.send(b"\r\n\r\n").await;
    assert_eq!(link.frame().await, Some(Frame::Pong));
    node.stop().await;
}

#[tokio::test]
async fn garbage_closes_the_connection_and_nobody_else_s() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let remote = at(&node, Transport::Tcp);
    let mut other = Phone::tcp("1001", remote).await;
    for garbage in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "\0\u{1}\u{2}\r\n\r\n".to_owned(),
        format!("OPTIONS sip:x SIP/2.0\r\nX: {}\r\n\r\n", "x".repeat(200_000)),
    ] {
        let mut link = Link::tcp(remote).await;
        // It may be closed before all was written.
        _ = link.try_send(garbage.as_bytes()).await;
        loop {
            // A refusal may come first.
            let Some(frame) = link.frame().await else { break };
            assert!(matches!(frame, Frame::Message(_)), "{frame:?}");
        }
    }
    let options = other.options();
    other.link.send(options.as_bytes()).await;
    assert_eq!(other.link.message().await.status(), 200);
    node.stop().await;
}

#[tokio::test]
async fn a_lost_connection_takes_its_registration_along() {
    let rig = Rig::new("");
    let node = rig.start().await;
    let mut phone = Phone::tcp("1001", at(&node, Transport::Tcp)).await;
    assert_eq!(phone.register(600).await.status(), 200);
    until(&node, Request::Phones, |answer| contacts(answer) == 1).await;
    drop(phone);
    until(&node, Request::Phones, |answer| contacts(answer) == 0).await;
    node.stop().await;
}

/// Whoever calls and vanishes before the answer leaves nothing behind.
#[tokio::test]
async fn a_caller_that_vanishes_is_forgotten() {
    let rig = Rig::new(&format!("[user.1002]\npassword = \"{}\"\n", super::rig::PASSWORD));
    let node = rig.start().await;
    let mut callee = Phone::udp("1002", at(&node, Transport::Udp)).await;
    assert_eq!(callee.register(600).await.status(), 200);
    let mut caller = Phone::tcp("1001", at(&node, Transport::Tcp)).await;
    let (refused, _) = caller.call("1999").await;
    assert_eq!(refused.status(), 404, "{}", String::from_utf8_lossy(refused.bytes()));
    until(&node, Request::Calls, |answer| *answer == Response::Calls(vec![])).await;

    // This one rings, and its caller's connection dies.
    caller.dial("1002").await;
    let invite = callee.heard().await;
    callee.answer(&invite, 180, "").await;
    drop(caller);
    callee.answer(&invite, 486, "").await;
    until(&node, Request::Calls, |answer| *answer == Response::Calls(vec![])).await;
    node.stop().await;
}

/// Requests inside a dialog take the caller's own connection, and so do calls to a phone behind it.
#[tokio::test]
async fn a_phone_is_reached_over_its_own_connection() {
    let rig = Rig::new(&format!("[user.1002]\npassword = \"{}\"\n", super::rig::PASSWORD));
    let node = rig.start().await;
    let mut callee = Phone::tcp("1002", at(&node, Transport::Tcp)).await;
    assert_eq!(callee.register(600).await.status(), 200);
    let mut caller = Phone::udp("1001", at(&node, Transport::Udp)).await;
    caller.dial("1002").await;
    let invite = callee.heard().await;
    let body = super::phone::sdp(callee.link.local());
    callee.answer(&invite, 200, &body).await;
    assert_eq!(callee.heard().await.method_token(), "ACK");
    let (ok, mut talk) = caller.dialled().await;
    assert_eq!(ok.status(), 200);
    assert_eq!(caller.hang_up(&mut talk).await.status(), 200);
    callee.is_hung_up().await;
    until(&node, Request::Calls, |answer| *answer == Response::Calls(vec![])).await;
    node.stop().await;
}

/// A phone behind a proxy is called through it (RFC 3327).
#[tokio::test]
async fn a_call_takes_the_path_of_the_registration() {
    let rig = Rig::new(&format!("[user.1002]\npassword = \"{}\"\n", super::rig::PASSWORD));
    let node = rig.start().await;
    let mut callee = Phone::udp("1002", at(&node, Transport::Udp)).await;
    let edge = format!("sip:edge@{};lr", callee.link.local());
    callee.path = format!("Path: <{edge}>\r\nSupported: path\r\n");
    assert_eq!(callee.register(600).await.status(), 200);
    let mut caller = Phone::udp("1001", at(&node, Transport::Udp)).await;
    caller.dial("1002").await;
    let invite = callee.heard().await;
    let routes = invite.routes(HeaderName::Route);
    assert_eq!(routes.iter().map(|route| route.uri).collect::<Vec<_>>(), [edge]);
    callee.answer(&invite, 486, "").await;
    assert_eq!(caller.dialled().await.0.status(), 486);
    node.stop().await;
}

fn contacts(answer: &Response) -> usize {
    let Response::Phones(rows) = answer else { panic!("{answer:?}") };
    rows.iter().map(|row| row.contacts.len()).sum()
}
