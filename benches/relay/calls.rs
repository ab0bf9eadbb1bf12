//! Calls that talk, without sockets: what the relay's benchmarks measure.
//!
//! Owns: a worker with bridged legs, their peers' packets, and virtual time.
//! Never: measures, or reads a clock after it was built.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use tandem::{
    ids::{Entropy, LegId},
    media::{
        Action, Command, Convert, Latch, Law, PathMap, PortRange, Remote, Settings, Stream,
        TelephoneEvents, Voice, Worker,
        srtp::{Keys, MasterKey, Sender, Suite, TRAILER_MAX},
    },
};

const FRAME: Duration = Duration::from_millis(20);
/// A packet of 20 ms of G.711.
const PACKET_LEN: usize = 172;

/// What the calls are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// How many there are.
    pub(crate) calls: u16,
    /// What happens to the voice on its way.
    pub(crate) convert: Convert,
    /// How the callers' side is encrypted; the other side never is.
    pub(crate) suite: Option<Suite>,
}

/// Calls of two legs each, all of which talk.
pub(crate) struct Calls {
    worker: Worker,
    now: Instant,
    frames: u32,
    next: usize,
    peers: Vec<Peer>,
}

/// Who talks to a leg.
struct Peer {
    slot: usize,
    address: SocketAddr,
    seal: Option<Sender>,
}

impl Calls {
    /// Sets up calls, and lets everybody say one frame, so that all latches are learned.
    pub(crate) fn new(kind: Kind, now: Instant) -> Self {
        let ports = PortRange { first: 10_000, last: 9_999 + 4 * kind.calls };
        let settings = Settings {
            ports,
            silence: Duration::from_secs(60),
            unanswered: Duration::from_secs(30),
            offloads: false,
        };
        let worker = Worker::new(settings, Entropy::from_u64(1));
        let mut calls = Self { worker, now, frames: 0, next: 0, peers: vec![] };
        for call in 0..u64::from(kind.calls) {
            let (a, b) = (LegId(2 * call), LegId(2 * call + 1));
            calls.open(a, kind.suite);
            calls.open(b, None);
            let to = if kind.convert == Convert::Keep { 0 } else { 8 };
            let there = || PathMap::new().with(0, to, kind.convert);
            let bridge = Command::Bridge { a, b, a_to_b: there(), b_to_a: there() };
            calls.worker.handle_command(bridge, now);
        }
        calls.talk(calls.peers.len());
        calls
    }

    fn open(&mut self, leg: LegId, suite: Option<Suite>) {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.worker.handle_command(Command::Open { leg, ip }, self.now);
        let Some(Action::Bind { slot, port, .. }) = self.worker.poll_action() else {
            panic!("{leg} has no port");
        };
        self.worker.bound(slot, true, self.now);
        let rtp = SocketAddr::new(ip, port.wrapping_add(20_000));
        let remote = Remote {
            rtp,
            rtcp: rtp,
            latch: Latch::Learn { near: None },
            sends: true,
            receives: true,
            must_answer: false,
        };
        let events = TelephoneEvents { receive: 101, send: 101, clock_rate: 8000 };
        let stream = Stream {
            voice: Some(Voice { payload_type: 0, law: Law::Mu }),
            clock_rate: 8000,
            ptime_ms: 20,
            telephone_events: Some(events),
        };
        let mut entropy = Entropy::from_u64(leg.0);
        let key = suite.map(|suite| MasterKey::draw(suite, &mut entropy));
        let seal = key.as_ref().and_then(Sender::new);
        let keys = key.map(|key| Box::new(Keys { send: key.clone(), receive: key }));
        self.worker.handle_command(Command::Aim { leg, remote, stream, keys }, self.now);
        self.peers.push(Peer { slot, address: rtp, seal });
    }

    /// Lets the next of them say a frame each, all in turn and 20 ms between two rounds, as the thread
    /// of a media worker would hear them. Every packet is forwarded, or this panics.
    pub(crate) fn talk(&mut self, packets: usize) {
        let before = self.worker.counters().relayed;
        let mut packet = [0x55; PACKET_LEN + TRAILER_MAX];
        for _ in 0..packets {
            let Some(peer) = self.peers.get_mut(self.next) else { return };
            let [.., s1, s2] = self.frames.to_be_bytes();
            let [t1, t2, t3, t4] = self.frames.wrapping_mul(160).to_be_bytes();
            packet[..12].copy_from_slice(&[0x80, 0, s1, s2, t1, t2, t3, t4, 0, 0, 0, 9]);
            let len = match &mut peer.seal {
                Some(seal) => seal.protect_rtp(&mut packet, PACKET_LEN).unwrap_or_default(),
                None => PACKET_LEN,
            };
            let given = (&mut packet[..], len);
            black_box(self.worker.handle_rtp(peer.slot, peer.address, given, self.now));
            if self.worker.poll_timeout().is_some_and(|at| at <= self.now) {
                self.worker.handle_timeout(self.now, &mut |report| {
                    black_box(report);
                });
            }
            while self.worker.poll_action().is_some() {}
            self.next += 1;
            if self.next == self.peers.len() {
                (self.next, self.frames, self.now) = (0, self.frames + 1, self.now + FRAME);
            }
        }
        while self.worker.poll_event().is_some() {}
        let relayed = self.worker.counters().relayed - before;
        assert_eq!(relayed, packets as u64, "every packet is forwarded");
    }
}
