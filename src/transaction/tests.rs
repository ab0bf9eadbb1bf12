//! The layer's behaviour, one message at a time: what it sends and tells is a trace, one a line.
//!
//! Owns: a layer in virtual time.
//! Never: part of the program.
#![expect(clippy::arithmetic_side_effects, reason = "times of a test, not of a peer")]

use super::{ClientId, Discard, Event, Layer, Output, ServerId, client::Client, server::Server};
use crate::{
    ids::{Entropy, Flow, Mint, MintKey, ShardId, Transport},
    sip::{Builder, Message, Method, default_reason},
};
use bytes::Bytes;
use std::{net::SocketAddr, time::Instant};

#[test]
fn an_invite_is_answered_100_and_told_once() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.check("send 100 INVITE\ntell request INVITE");
    t.receive("INVITE", "z9hG4bK1", "");
    t.check("send 100 INVITE");
    t.respond(180);
    t.receive("INVITE", "z9hG4bK1", "");
    t.check("send 180 INVITE\nsend 180 INVITE");
    assert_eq!(t.layer.discards().of(Discard::Retransmission), 2);
}

/// A byte more, and the allocator takes 320: a busy node keeps two hundred thousand of them.
#[test]
fn a_transaction_takes_256_bytes() {
    let (client, server) = (size_of::<Client>(), size_of::<Server>());
    assert!(client <= 256 && server <= 256, "{client} and {server} bytes");
}

#[test]
fn other_requests_are_left_to_the_user() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("OPTIONS", "z9hG4bK1", "");
    t.receive("OPTIONS", "z9hG4bK1", "");
    t.respond(200);
    t.receive("OPTIONS", "z9hG4bK1", "");
    t.check("tell request OPTIONS\nsend 200 OPTIONS\nsend 200 OPTIONS");
    t.run_until_idle();
    assert_eq!(t.now_ms(), 32_000);
    t.respond(200);
    t.check("");
    assert_eq!(t.layer.discards().of(Discard::LateReply), 1);
}

#[test]
fn the_ack_of_a_refusal_is_absorbed() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.respond(486);
    t.receive("ACK", "z9hG4bK1", "");
    t.receive("ACK", "z9hG4bK1", "");
    t.check("send 100 INVITE\ntell request INVITE\nsend 486 INVITE");
    t.run_until_idle();
    t.check("");
}

#[test]
fn a_refusal_that_is_never_acknowledged_is_told() {
    let mut t = Bench::new(Transport::Tcp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.respond(486);
    t.run_until_idle();
    t.check("send 100 INVITE\ntell request INVITE\nsend 486 INVITE\ntell never acked");
}

#[test]
fn the_ack_of_a_2xx_is_passed_up_with_whatever_branch() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.respond(200);
    t.respond(200); // The dialog retransmits.
    t.receive("ACK", "z9hG4bK2", "");
    t.receive("ACK", "z9hG4bK1", "");
    t.receive("INVITE", "z9hG4bK1", ""); // Absorbed.
    t.check(
        "send 100 INVITE\ntell request INVITE\nsend 200 INVITE\nsend 200 INVITE\n\
         tell ack\ntell ack",
    );
    t.run_until_idle();
    assert_eq!(t.now_ms(), 32_000);
}

#[test]
fn a_cancel_is_answered_and_told_once() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.respond(180);
    t.take();
    t.receive("CANCEL", "z9hG4bK1", "");
    assert!(t.last_sent().contains("\r\nTo: <sip:b@b>;tag=ours\r\n"), "the tag of the 180");
    t.receive("CANCEL", "z9hG4bK1", "");
    t.check("send 200 CANCEL\ntell cancel\nsend 200 CANCEL");
    t.respond(487);
    t.receive("ACK", "z9hG4bK1", "");
    t.check("send 487 INVITE");
    t.run_until_idle();
}

#[test]
fn a_cancel_of_what_is_answered_has_no_effect() {
    for status in [200, 486] {
        let mut t = Bench::new(Transport::Udp);
        t.receive("INVITE", "z9hG4bK1", "");
        t.respond(status);
        t.take();
        t.receive("CANCEL", "z9hG4bK1", "");
        t.check("send 200 CANCEL");
    }
}

#[test]
fn a_cancel_of_nothing_gets_481_and_leaves_nothing() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("OPTIONS", "z9hG4bK1", "");
    t.respond(200);
    t.take();
    t.receive("CANCEL", "z9hG4bK1", "");
    let first = t.last_sent();
    t.receive("CANCEL", "z9hG4bK1", "");
    t.check("send 481 CANCEL\nsend 481 CANCEL");
    assert_eq!(t.last_sent(), first, "without state, yet the same tag");
    assert_eq!(t.layer.discards().of(Discard::StrayCancel), 2);
    assert_eq!(t.layer.len(), 1, "the OPTIONS");
}

/// RFC 3261 8.2.2.2.
#[test]
fn a_request_by_two_ways_gets_482_on_the_second() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.receive("INVITE", "z9hG4bK2", "");
    t.receive("ACK", "z9hG4bK2", "");
    t.check("send 100 INVITE\ntell request INVITE\nsend 482 INVITE");
    assert_eq!(t.layer.discards().of(Discard::Merged), 1);
}

#[test]
fn inside_a_dialog_nothing_is_merged() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INFO", "z9hG4bK1", ";tag=ours");
    t.receive("INFO", "z9hG4bK2", ";tag=ours");
    t.check("tell request INFO\ntell request INFO");
}

#[test]
fn above_the_cap_requests_get_503_without_state() {
    let mut t = Bench::new(Transport::Udp);
    t.layer = Layer::new(mint()).with_servers_max(1);
    t.receive("INVITE", "z9hG4bK1", "");
    t.take();
    t.receive("OPTIONS", "z9hG4bK2", "");
    let first = t.last_sent();
    assert!(first.contains("\r\nRetry-After: 5\r\n"), "{first}");
    t.receive("OPTIONS", "z9hG4bK2", "");
    assert_eq!(t.last_sent(), first, "the same tag");
    t.receive("INVITE", "z9hG4bK1", ""); // What is known is served.
    t.receive("CANCEL", "z9hG4bK1", "");
    t.check("send 503 OPTIONS\nsend 503 OPTIONS\nsend 100 INVITE\nsend 200 CANCEL\ntell cancel");
    assert_eq!((t.layer.len(), t.layer.discards().of(Discard::Overload)), (1, 2));
    t.respond(487);
    t.receive("ACK", "z9hG4bK1", "");
    t.run_until_idle();
    t.take();
    t.receive("OPTIONS", "z9hG4bK3", "");
    t.check("tell request OPTIONS");
}

#[test]
fn above_the_cap_the_oldest_answers_are_forgotten() {
    let mut t = Bench::new(Transport::Udp);
    t.layer = Layer::new(mint()).with_servers_max(2);
    for branch in ["z9hG4bK1", "z9hG4bK2", "z9hG4bK3"] {
        t.receive("OPTIONS", branch, ";tag=ours");
        t.respond(200);
    }
    t.take();
    t.receive("OPTIONS", "z9hG4bK3", ";tag=ours");
    t.receive("OPTIONS", "z9hG4bK1", ";tag=ours");
    t.check("send 200 OPTIONS\ntell request OPTIONS");
    assert_eq!((t.layer.len(), t.layer.discards().of(Discard::Overload)), (2, 0));
    t.respond(200);
    t.run_until_idle();
}

/// RFC 3261 17.2.3: a client of RFC 2543 has no branch, or one without the cookie.
#[test]
fn a_client_of_rfc_2543_is_matched_by_its_headers() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "1", "");
    t.receive("INVITE", "1", "");
    t.receive("CANCEL", "1", "");
    t.respond(487);
    t.receive("ACK", "1", ";tag=ours");
    t.check(
        "send 100 INVITE\ntell request INVITE\nsend 100 INVITE\nsend 200 CANCEL\ntell cancel\n\
         send 487 INVITE",
    );
}

#[test]
fn a_request_can_be_left_unanswered() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("OPTIONS", "z9hG4bK1", "");
    t.layer.abandon(t.server.unwrap());
    assert!(t.layer.is_empty());
    t.receive("OPTIONS", "z9hG4bK1", "");
    t.check("tell request OPTIONS\ntell request OPTIONS");
}

#[test]
fn a_refusal_is_acknowledged_hop_by_hop() {
    let mut t = Bench::new(Transport::Udp);
    t.request(Method::Invite);
    t.answer(100, "INVITE", "");
    t.answer(486, "INVITE", "x");
    t.answer(486, "INVITE", "x");
    t.check("send INVITE\ntell 100\nsend ACK\ntell 486\nsend ACK");
    assert!(t.last_sent().contains("\r\nTo: <sip:b@b>;tag=x\r\n"));
    assert_eq!(t.layer.discards().of(Discard::SpareResponse), 1);
    t.run_until_idle();
    t.check("");
    t.answer(486, "INVITE", "x");
    t.check("");
    assert_eq!(t.layer.discards().of(Discard::StrayResponse), 1);
}

/// RFC 6026 7.2.
#[test]
fn every_branch_that_accepts_is_told_for_32_seconds() {
    let mut t = Bench::new(Transport::Udp);
    t.request(Method::Invite);
    t.answer(200, "INVITE", "x");
    t.answer(200, "INVITE", "y");
    t.answer(200, "INVITE", "x");
    t.answer(486, "INVITE", "z");
    t.check("send INVITE\ntell 200\ntell 200\ntell 200");
    t.run_until_idle();
    assert_eq!(t.now_ms(), 32_000);
    t.answer(200, "INVITE", "x");
    t.check("");
}

#[test]
fn a_response_to_another_method_does_not_match() {
    let mut t = Bench::new(Transport::Udp);
    t.request(Method::Options);
    t.answer(200, "INVITE", "x");
    t.answer(200, "CANCEL", "x");
    t.answer(200, "OPTIONS", "x");
    t.check("send OPTIONS\ntell 200");
    assert_eq!(t.layer.discards().of(Discard::StrayResponse), 2);
}

#[test]
fn silence_is_told() {
    for method in [Method::Invite, Method::Options] {
        let mut t = Bench::new(Transport::Tcp);
        t.request(method);
        t.run_until_idle();
        t.check(&format!("send {method}\ntell timeout"));
    }
}

#[test]
fn a_cancel_waits_and_carries_its_reason() {
    let mut t = Bench::new(Transport::Tcp);
    t.request(Method::Invite);
    t.cancel(Some("SIP;cause=200"));
    t.cancel(None); // Asked again: nothing new.
    t.check("send INVITE");
    t.answer(180, "INVITE", "x");
    assert!(t.last_sent().contains("\r\nReason: SIP;cause=200\r\n"));
    t.answer(200, "CANCEL", "x");
    t.answer(487, "INVITE", "x");
    t.check("tell 180\nsend CANCEL\nsend ACK\ntell 487");
    t.run_until_idle();
    t.check("");
}

#[test]
fn a_cancelled_invite_without_an_answer_ends() {
    let mut t = Bench::new(Transport::Tcp);
    t.request(Method::Invite);
    t.answer(180, "INVITE", "x");
    t.cancel(None);
    t.run_until_idle();
    t.check("send INVITE\ntell 180\nsend CANCEL\ntell timeout");
    assert_eq!(t.now_ms(), 64_000, "as long again for an answer that comes late");
    t.cancel(None); // Too late to matter.
    t.check("");
}

/// Its user was told that nobody answers. It hears of whoever does all the same, and the layer refuses in its name.
#[test]
fn a_late_answer_is_told_and_a_late_refusal_acknowledged() {
    for (status, said) in [(200, "tell 200"), (486, "send ACK")] {
        let mut t = Bench::new(Transport::Tcp);
        t.request(Method::Invite);
        t.fail(t.flow);
        t.check("send INVITE\ntell send failed");
        t.answer(status, "INVITE", "x");
        t.check(said);
        t.run_until_idle();
        t.answer(status, "INVITE", "x");
        t.check("");
    }
}

/// Within a dialog, its BYE tells whoever answers late.
#[test]
fn within_a_dialog_nobody_waits_for_late_answers() {
    for transport in [Transport::Udp, Transport::Tcp] {
        let mut t = Bench::new(transport);
        t.reinvite();
        t.run_until_idle();
        assert!(t.take().ends_with("tell timeout"));
        assert_eq!((t.now_ms(), t.layer.is_empty()), (32_000, true));
    }
    let mut t = Bench::new(Transport::Tcp);
    t.reinvite();
    t.fail(t.flow);
    assert!(t.layer.is_empty());
}

#[test]
fn a_dead_flow_fails_its_requests_and_no_others() {
    let mut t = Bench::new(Transport::Tcp);
    t.request(Method::Invite);
    t.take();
    let other = Flow { remote: addr(9), ..t.flow };
    t.fail(other);
    t.check("");
    t.fail(t.flow);
    t.check("tell send failed");
    t.run_until_idle();
    t.check("");
    assert_eq!(t.layer.poll_timeout(), None, "no deadline outlives its owner");
}

#[test]
fn a_request_into_a_closed_connection_is_sent_once_more() {
    let mut t = Bench::new(Transport::Tcp);
    t.request(Method::Options);
    t.sever(t.flow);
    t.check("send OPTIONS\nsend OPTIONS");
    t.sever(t.flow);
    t.check("tell send failed");
    assert!(t.layer.is_empty());
}

/// RFC 3261 18.2.2: the port of the Via, where the client listens.
#[test]
fn responses_take_the_way_that_remains() {
    let mut t = Bench::new(Transport::Tcp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.respond(486);
    t.take();
    t.fail(t.flow);
    t.check("send 486 INVITE to 127.0.0.1:7060");
    t.fail(t.flow); // No longer ours.
    t.check("");
    t.fail(Flow { remote: addr(7060), ..t.flow });
    t.check("tell never acked");
    assert!(t.layer.is_empty());
}

#[test]
fn an_icmp_error_does_not_end_a_refusal() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.respond(486);
    t.take();
    t.fail(t.flow);
    t.check("");
    t.receive("ACK", "z9hG4bK1", "");
    t.run_until_idle();
    t.check("");
}

#[test]
fn a_dump_names_every_transaction() {
    let mut t = Bench::new(Transport::Udp);
    t.receive("INVITE", "z9hG4bK1", "");
    t.receive("OPTIONS", "z9hG4bK2", "");
    t.request(Method::Register);
    assert_eq!(
        t.layer.dump(),
        [
            "server INVITE Proceeding udp:127.0.0.1:6060",
            "server other Trying udp:127.0.0.1:6060",
            "client REGISTER Trying udp:127.0.0.1:6060 z9hG4bKours",
        ]
    );
}

struct Bench {
    layer: Layer,
    flow: Flow,
    epoch: Instant,
    now: Instant,
    out: Vec<Output>,
    sent: Vec<Bytes>,
    server: Option<ServerId>,
    request: Option<Message>,
    client: Option<ClientId>,
}

impl Bench {
    fn new(transport: Transport) -> Self {
        let epoch = crate::sim::epoch();
        Self {
            layer: Layer::new(mint()),
            flow: Flow { transport, local: addr(5060), remote: addr(6060) },
            epoch,
            now: epoch,
            out: vec![],
            sent: vec![],
            server: None,
            request: None,
            client: None,
        }
    }

    fn receive(&mut self, method: &str, branch: &str, to_tag: &str) {
        let bytes = format!(
            "{method} sip:b@b SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:7060;branch={branch}\r\n\
             From: <sip:a@a>;tag=theirs\r\nTo: <sip:b@b>{to_tag}\r\nCall-ID: c\r\n\
             CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        let message = Message::parse(Bytes::from(bytes)).unwrap();
        self.layer.receive(message, self.flow, self.now, &mut self.out);
        let told = self.out.iter().filter_map(|output| match output {
            Output::Event(Event::Request { tx, message, .. }) => Some((*tx, message.clone())),
            Output::Event(_) | Output::Send { .. } => None,
        });
        if let Some((tx, message)) = told.last() {
            (self.server, self.request) = (Some(tx), Some(message));
        }
        self.note_sent();
    }

    /// Answers the request that was told last.
    fn respond(&mut self, status: u16) {
        let (tx, request) = (self.server.unwrap(), self.request.as_ref().unwrap());
        let reason = default_reason(status);
        let reply = Builder::reply(request, status, reason, Some("ours"), self.flow.remote);
        self.layer.respond(tx, status, reply.finish(), self.now, &mut self.out);
        self.note_sent();
    }

    fn request(&mut self, method: Method) {
        let (bytes, branch, now) = (request(method, ""), "z9hG4bKours", self.now);
        let tx = if method == Method::Invite {
            self.layer.invite(bytes, branch, self.flow, now, &mut self.out)
        } else {
            self.layer.request(bytes, branch, method, self.flow, now, &mut self.out)
        };
        self.client = Some(tx);
        self.note_sent();
    }

    fn reinvite(&mut self) {
        let (bytes, method) = (request(Method::Invite, ";tag=theirs"), Method::Invite);
        let (branch, now) = ("z9hG4bKours", self.now);
        let tx = self.layer.request(bytes, branch, method, self.flow, now, &mut self.out);
        self.client = Some(tx);
        self.note_sent();
    }

    /// Receives a response to the request that was sent last.
    fn answer(&mut self, status: u16, method: &str, tag: &str) {
        let tag = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
        let bytes = Bytes::from(format!(
            "SIP/2.0 {status} Words\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKours\r\n\
             From: <sip:a@a>;tag=ours\r\nTo: <sip:b@b>{tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\
             Content-Length: 0\r\n\r\n"
        ));
        let message = Message::parse(bytes).unwrap();
        self.layer.receive(message, self.flow, self.now, &mut self.out);
        self.note_sent();
    }

    fn cancel(&mut self, reason: Option<&str>) {
        self.layer.cancel(self.client.unwrap(), reason, self.now, &mut self.out);
        self.note_sent();
    }

    fn fail(&mut self, flow: Flow) {
        self.layer.send_failed(flow, self.now, &mut self.out);
    }

    fn sever(&mut self, flow: Flow) {
        self.layer.severed(flow, self.now, &mut self.out);
    }

    /// Fires every deadline until there are no more; nothing must be left.
    fn run_until_idle(&mut self) {
        while let Some(at) = self.layer.poll_timeout() {
            self.now = at;
            self.layer.handle_timeout(at, &mut self.out);
        }
        assert!(self.layer.is_empty(), "{:?}", self.layer.dump());
    }

    fn note_sent(&mut self) {
        let sent = self.out.iter().filter_map(|output| match output {
            Output::Send { bytes, .. } => Some(bytes.clone()),
            Output::Event(_) => None,
        });
        self.sent.extend(sent.last());
    }

    fn last_sent(&self) -> String {
        String::from_utf8(self.sent.last().unwrap().to_vec()).unwrap()
    }

    fn now_ms(&self) -> u128 {
        (self.now - self.epoch).as_millis()
    }

    /// Compares what happened since the last time.
    #[track_caller]
    fn check(&mut self, want: &str) {
        assert_eq!(self.take(), want);
    }

    fn take(&mut self) -> String {
        let home = self.flow.remote;
        let lines = self.out.drain(..).map(|output| match output {
            Output::Send { flow, bytes } => describe_sent(flow, &bytes, home),
            Output::Event(event) => format!("tell {}", describe(&event)),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A request of ours; `to_tag`: that of the dialog.
fn request(method: Method, to_tag: &str) -> Bytes {
    Bytes::from(format!(
        "{method} sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKours\r\n\
         From: <sip:a@a>;tag=ours\r\nTo: <sip:b@b>{to_tag}\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    ))
}

fn describe_sent(flow: Flow, bytes: &Bytes, home: SocketAddr) -> String {
    let message = Message::parse(bytes.clone()).unwrap();
    let elsewhere =
        if flow.remote == home { String::new() } else { format!(" to {}", flow.remote) };
    let status =
        if message.is_request() { String::new() } else { format!("{} ", message.status()) };
    format!("send {status}{}{elsewhere}", message.method())
}

fn describe(event: &Event) -> String {
    match event {
        Event::Request { message, .. } => format!("request {}", message.method()),
        Event::Cancel { .. } => "cancel".to_owned(),
        Event::Ack { .. } => "ack".to_owned(),
        Event::NeverAcked { .. } => "never acked".to_owned(),
        Event::Response { message, .. } => message.status().to_string(),
        Event::Timeout { .. } => "timeout".to_owned(),
        Event::SendFailed { .. } => "send failed".to_owned(),
    }
}

fn mint() -> Mint {
    Mint::new(ShardId(0), MintKey::new([7; 16]), Entropy::from_u64(7))
}

fn addr(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
