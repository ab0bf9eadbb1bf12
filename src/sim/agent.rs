//! What every simulated peer does alike: transactions, repeated 2xx, ACKs, reliable responses.
//!
//! Owns: its transaction layer, its outbox, what has to be said again until somebody hears it.
//! Never: shares code with the product's own dialogs and calls, so that it can find them wrong.

use super::talk::Talk;
use crate::{
    ids::{Entropy, Flow, Mint, MintKey, ShardId, Transport},
    sip::{Builder, HeaderName, Message, Method, default_reason},
    transaction::{ClientId, Event, Layer, Output, ServerId},
};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// RFC 3261's T1, T2 and 64*T1, spelled out again: the product's constants are what is tested.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const GIVE_UP: Duration = Duration::from_secs(32);

/// What has happened to a peer.
#[derive(Debug)]
pub(super) enum Happened {
    /// A new request, other than ACK and CANCEL.
    Request(Asked),
    /// The caller takes back an INVITE that is not yet answered.
    Cancel { tx: ServerId, message: Message },
    /// An ACK of a 2xx.
    Ack { message: Message, flow: Flow },
    /// A response, copies of an acknowledged 2xx aside.
    Response { tx: ClientId, message: Message },
    /// A request that nobody answered or that could not be sent.
    Failed { tx: ClientId },
    /// A 2xx or a reliable response that nobody acknowledged.
    Unheard { call_id: Box<str>, hears: Hears },
}

/// A request that waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) tx: ServerId,
    pub(super) message: Message,
    pub(super) flow: Flow,
}

/// What ends a repetition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hears {
    /// The ACK with this CSeq number.
    Ack(u32),
    /// The PRACK with this RSeq number.
    Prack(u32),
}

/// A response that is said again until it is acknowledged.
#[derive(Debug)]
struct Repeat {
    call_id: Box<str>,
    hears: Hears,
    tx: ServerId,
    status: u16,
    bytes: Bytes,
    next_at: Instant,
    interval: Duration,
    ends_at: Instant,
}

/// An ACK that is said again whenever its 2xx is.
#[derive(Debug)]
struct Acked {
    tx: ClientId,
    to_tag: Box<str>,
    flow: Flow,
    bytes: Bytes,
    until: Instant,
}

/// A user agent's lower half.
#[derive(Debug)]
pub(super) struct Agent {
    layer: Layer,
    local: SocketAddr,
    /// Under which address it sees everybody: a NAT in between shows them so.
    pub(super) sees: Option<IpAddr>,
    /// How long a 2xx is said again before the call is given up.
    pub(super) give_up: Duration,
    pub(super) entropy: Entropy,
    outbox: VecDeque<(Flow, Bytes)>,
    repeats: Vec<Repeat>,
    acked: Vec<Acked>,
}

impl Agent {
    pub(super) fn new(local: SocketAddr, seed: u64) -> Self {
        let mut entropy = Entropy::from_u64(seed ^ u64::from(local.port()).rotate_left(32));
        let key = MintKey::draw(&mut entropy);
        let mint = Mint::new(ShardId(0), key, Entropy::from_u64(entropy.next_u64()));
        Self {
            layer: Layer::new(mint),
            local,
            sees: None,
            give_up: GIVE_UP,
            entropy,
            outbox: VecDeque::new(),
            repeats: vec![],
            acked: vec![],
        }
    }

    /// Returns the way to an address.
    pub(super) fn flow_to(&self, transport: Transport, remote: SocketAddr) -> Flow {
        Flow { transport, local: self.local, remote }
    }

    /// Says 100 by itself, in its own words and when it wants to.
    pub(super) fn say_own_trying(&mut self) {
        self.layer.leave_trying();
    }

    /// Makes the Via value of a request on this way, and the branch in it.
    pub(super) fn via(&mut self, flow: Flow) -> (String, String) {
        let branch = self.layer.mint().branch();
        let (token, local) = (flow.transport.token(), flow.local);
        (format!("SIP/2.0/{token} {local};branch={branch};rport"), branch)
    }

    /// Makes a tag or a Call-ID.
    pub(super) fn token(&mut self) -> String {
        self.layer.mint().tag()
    }

    /// Takes what came from the network.
    pub(super) fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant) -> Vec<Happened> {
        let mut out = vec![];
        if let Ok(message) = Message::parse(bytes) {
            self.layer.receive(message, flow, now, &mut out);
        }
        self.sort(out)
    }

    /// Learns that a connection is gone.
    pub(super) fn closed(&mut self, flow: Flow, now: Instant) -> Vec<Happened> {
        let mut out = vec![];
        self.layer.send_failed(flow, now, &mut out);
        self.sort(out)
    }

    /// Fires what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Happened> {
        let mut out = vec![];
        self.layer.handle_timeout(now, &mut out);
        let mut happened = self.sort(out);
        happened.extend(self.repeat(now));
        self.acked.retain(|acked| acked.until > now);
        happened
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        let repeats = self.repeats.iter().map(|repeat| repeat.next_at.min(repeat.ends_at)).min();
        [self.layer.poll_timeout(), repeats].into_iter().flatten().min()
    }

    pub(super) fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.outbox.pop_front()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.layer.is_empty() && self.repeats.is_empty() && self.outbox.is_empty()
    }

    /// Sends an INVITE that is to begin a dialog.
    pub(super) fn invite(
        &mut self,
        branch: &str,
        bytes: Bytes,
        flow: Flow,
        now: Instant,
    ) -> ClientId {
        let mut out = vec![];
        let tx = self.layer.invite(bytes, branch, flow, now, &mut out);
        self.post(out);
        tx
    }

    /// Sends any other request.
    pub(super) fn request(
        &mut self,
        method: Method,
        branch: &str,
        bytes: Bytes,
        flow: Flow,
        now: Instant,
    ) -> ClientId {
        let mut out = vec![];
        let tx = self.layer.request(bytes, branch, method, flow, now, &mut out);
        self.post(out);
        tx
    }

    /// Takes an INVITE back.
    pub(super) fn cancel(&mut self, tx: ClientId, now: Instant) {
        let mut out = vec![];
        self.layer.cancel(tx, None, now, &mut out);
        self.post(out);
    }

    /// Sends an ACK of a 2xx, now and whenever the 2xx comes again.
    pub(super) fn acknowledge(
        &mut self,
        tx: ClientId,
        to_tag: &str,
        (flow, bytes): (Flow, Bytes),
        now: Instant,
    ) {
        self.outbox.push_back((flow, bytes.clone()));
        let (to_tag, until) = (to_tag.into(), now + GIVE_UP);
        self.acked.push(Acked { tx, to_tag, flow, bytes, until });
    }

    /// Answers a request with a status and nothing else.
    pub(super) fn refuse(&mut self, asked: &Asked, status: u16, talk: Option<&Talk>, now: Instant) {
        let reply = self.reply(asked, (status, default_reason(status)), talk);
        self.respond(asked.tx, status, reply.finish(), now);
    }

    /// Starts an answer.
    pub(super) fn reply(
        &mut self,
        asked: &Asked,
        (status, reason): (u16, &str),
        talk: Option<&Talk>,
    ) -> Builder {
        let tag = match talk {
            Some(talk) => talk.local_tag.clone(),
            None => self.layer.mint().tag_of(asked.message.call_id()),
        };
        let from = asked.flow.remote;
        let seen = SocketAddr::new(self.sees.unwrap_or_else(|| from.ip()), from.port());
        Builder::reply(&asked.message, status, reason, Some(&tag), seen)
    }

    pub(super) fn respond(&mut self, tx: ServerId, status: u16, bytes: Bytes, now: Instant) {
        let mut out = vec![];
        self.layer.respond(tx, status, bytes, now, &mut out);
        self.post(out);
    }

    /// Leaves a request without any answer.
    pub(super) fn ignore(&mut self, tx: ServerId) {
        self.layer.abandon(tx);
    }

    /// Answers an INVITE, again and again until it is heard.
    pub(super) fn respond_until(
        &mut self,
        (tx, call_id): (ServerId, &str),
        hears: Hears,
        (status, bytes): (u16, Bytes),
        now: Instant,
    ) {
        self.respond(tx, status, bytes.clone(), now);
        self.repeats.push(Repeat {
            call_id: call_id.into(),
            hears,
            tx,
            status,
            bytes,
            next_at: now + T1,
            interval: T1,
            ends_at: now + self.give_up,
        });
    }

    /// Notes that a response was heard; returns whether it still had to be said.
    pub(super) fn heard(&mut self, call_id: &str, hears: Hears) -> bool {
        let before = self.repeats.len();
        self.repeats.retain(|repeat| *repeat.call_id != *call_id || repeat.hears != hears);
        self.repeats.len() < before
    }

    /// Returns whether a reliable response of this call has not been heard yet.
    pub(super) fn waits_for_prack(&self, call_id: &str) -> bool {
        let is_it = |repeat: &Repeat| match repeat.hears {
            Hears::Prack(_) => *repeat.call_id == *call_id,
            Hears::Ack(_) => false,
        };
        self.repeats.iter().any(is_it)
    }

    /// Says no reliable response of this call again: there is a final one.
    pub(super) fn forget_provisional(&mut self, of_call_id: &str) {
        self.repeats.retain(|repeat| match repeat.hears {
            Hears::Prack(_) => *repeat.call_id != *of_call_id,
            Hears::Ack(_) => true,
        });
    }

    fn repeat(&mut self, now: Instant) -> Vec<Happened> {
        let mut again = vec![];
        for repeat in self.repeats.iter_mut().filter(|repeat| repeat.next_at <= now) {
            // RFC 3262 3 knows no ceiling, RFC 3261 13.3.1.4 has T2.
            repeat.interval = match repeat.hears {
                Hears::Ack(_) => T2.min(repeat.interval * 2),
                Hears::Prack(_) => repeat.interval * 2,
            };
            repeat.next_at = now + repeat.interval;
            if repeat.ends_at > now {
                again.push((repeat.tx, repeat.status, repeat.bytes.clone()));
            }
        }
        for (tx, status, bytes) in again {
            self.respond(tx, status, bytes, now);
        }
        let unheard = self.repeats.extract_if(.., |repeat| repeat.ends_at <= now);
        unheard
            .map(|repeat| Happened::Unheard { call_id: repeat.call_id, hears: repeat.hears })
            .collect()
    }

    fn post(&mut self, out: Vec<Output>) {
        let happened = self.sort(out);
        debug_assert!(happened.is_empty(), "nothing happens while we speak");
    }

    /// Sends what is to be sent; returns the rest, ACKs of repeated 2xx aside.
    fn sort(&mut self, out: Vec<Output>) -> Vec<Happened> {
        let mut happened = vec![];
        for output in out {
            match output {
                Output::Send { flow, bytes } => self.outbox.push_back((flow, bytes)),
                Output::Event(event) => happened.extend(self.translate(event)),
            }
        }
        happened
    }

    fn translate(&mut self, event: Event) -> Option<Happened> {
        Some(match event {
            Event::Request { tx, message, flow } => Happened::Request(Asked { tx, message, flow }),
            Event::Cancel { tx, message } => Happened::Cancel { tx, message },
            Event::Ack { message, flow } => Happened::Ack { message, flow },
            Event::NeverAcked { .. } => return None,
            Event::Response { tx, message, .. } => {
                if self.acknowledge_again(tx, &message) {
                    return None;
                }
                Happened::Response { tx, message }
            }
            Event::Timeout { tx } | Event::SendFailed { tx } => Happened::Failed { tx },
        })
    }

    fn acknowledge_again(&mut self, tx: ClientId, response: &Message) -> bool {
        let tag = response.to_tag().unwrap_or_default();
        let known = self.acked.iter().find(|acked| acked.tx == tx && *acked.to_tag == *tag);
        let Some(known) = known else { return false };
        self.outbox.push_back((known.flow, known.bytes.clone()));
        true
    }
}

/// Completes a message with an SDP body or none.
pub(super) fn finish(builder: Builder, sdp: Option<&str>) -> Bytes {
    match sdp {
        Some(sdp) => builder.body("application/sdp", sdp.as_bytes()),
        None => builder.finish(),
    }
}

/// Returns the text of a header, if it is there.
pub(super) fn text_of(message: &Message, name: HeaderName) -> Option<Box<str>> {
    message.header_str(name).map(|value| value.into())
}
