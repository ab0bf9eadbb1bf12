//! A worker in virtual time, and peers that talk to it.
//!
//! Owns: the pretended sockets and the clock of the worker's tests.
//! Never: part of the program.

use super::{Action, Channel, Datagram, Settings, Worker};
use crate::{
    ids::{Entropy, LegId},
    media::{
        Discard,
        command::{Command, Event, Latch, Law, Prompt, Remote, Stream, TelephoneEvents, Voice},
        path::{Convert, PathMap},
        ports::PortRange,
        quality::Quality,
        rtp::{self, Header, SequenceNumber, Ssrc, Timestamp},
        srtp::TRAILER_MAX,
    },
    sim::epoch,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};

pub(super) const A: LegId = LegId(1);
pub(super) const B: LegId = LegId(2);
pub(super) const C: LegId = LegId(3);

/// Pairs of ports that a rig has.
pub(super) const PAIRS: u16 = 8;
/// How long a peer may be silent.
pub(super) const SILENCE_S: u64 = 60;
/// One frame, in milliseconds.
pub(super) const FRAME_MS: u64 = 20;

/// A worker whose sockets always bind. Everything that the worker can do can be done to it.
pub(super) struct Rig {
    worker: Worker,
    start: Instant,
    pub(super) now: Instant,
    slots: BTreeMap<LegId, usize>,
    /// Peers of connected ports, by slot.
    connected: BTreeMap<usize, SocketAddr>,
    offers: Vec<usize>,
    /// How many ports were taken again without being bound.
    pub(super) reused: usize,
}

/// A packet that came out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Sent {
    pub(super) at_ms: u64,
    pub(super) slot: usize,
    pub(super) channel: Channel,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl Sent {
    pub(super) fn header(&self) -> Header {
        rtp::read(&self.bytes).unwrap().0
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[rtp::read(&self.bytes).unwrap().1]
    }
}

impl Deref for Rig {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Worker {
        &mut self.worker
    }
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with_pairs(PAIRS)
    }

    pub(super) fn with_pairs(pairs: u16) -> Self {
        let ports = PortRange { first: 10_000, last: 9_999 + 2 * pairs };
        let settings = Settings {
            ports,
            silence: Duration::from_secs(SILENCE_S),
            unanswered: Duration::from_secs(30),
            offloads: true,
        };
        let worker = Worker::new(settings, Entropy::from_u64(1));
        let start = epoch();
        let (slots, connected) = (BTreeMap::new(), BTreeMap::new());
        Self { worker, start, now: start, slots, connected, offers: vec![], reused: 0 }
    }

    /// Two legs joined, PCMU on both sides, digits as 101 and 96.
    pub(super) fn joined() -> (Self, Peer, Peer) {
        let mut rig = Self::new();
        let (a, b) = (rig.peer(A), rig.peer(B));
        rig.aim(&b, b.remote(), stream(Law::Mu, 96));
        rig.join(A, B);
        (rig, a, b)
    }

    /// Opens a leg, aims it at a peer of PCMU, and returns the peer.
    pub(super) fn peer(&mut self, leg: LegId) -> Peer {
        self.open(leg);
        let peer = Peer::of(leg);
        self.aim(&peer, peer.remote(), stream(Law::Mu, 101));
        self.drain();
        peer
    }

    pub(super) fn open(&mut self, leg: LegId) {
        self.give(Command::Open { leg, ip: [127, 0, 0, 1].into() });
    }

    /// Joins two legs: all that they may send passes, digits are renumbered.
    pub(super) fn join(&mut self, a: LegId, b: LegId) {
        let both = || PathMap::new().with(0, 0, Convert::Keep).with(8, 8, Convert::Keep);
        self.give(Command::Bridge {
            a,
            b,
            a_to_b: both().with(101, 96, Convert::Keep),
            b_to_a: both().with(96, 101, Convert::Keep),
        });
    }

    pub(super) fn aim(&mut self, peer: &Peer, remote: Remote, stream: Stream) {
        self.give(Command::Aim { leg: peer.leg, remote, stream, keys: None });
    }

    pub(super) fn play(&mut self, leg: LegId, prompt: &Prompt, loops: bool, token: u64) {
        self.give(Command::Play { leg, prompt: prompt.clone(), loops, token });
    }

    /// Gives a command, and does with sockets what the worker then asks for.
    pub(super) fn give(&mut self, command: Command) {
        let opens = if let Command::Open { leg, .. } = &command { Some(*leg) } else { None };
        self.worker.handle_command(command, self.now);
        self.carry_out(opens);
    }

    fn carry_out(&mut self, opens: Option<LegId>) {
        while let Some(action) = self.worker.poll_action() {
            match action {
                Action::Bind { slot, .. } => {
                    self.slots.extend(opens.map(|leg| (leg, slot)));
                    self.worker.bound(slot, true, self.now);
                }
                Action::BindRtcp { slot } => self.worker.bound_rtcp(slot, true),
                Action::Rest { slot } => {
                    self.connected.remove(&slot);
                }
                Action::Reuse { slot } => {
                    self.slots.extend(opens.map(|leg| (leg, slot)));
                    self.reused += 1;
                    self.worker.bound(slot, true, self.now);
                }
                Action::Unbind { slot } => {
                    self.connected.remove(&slot);
                }
                Action::Connect { slot, peer } => {
                    self.connected.insert(slot, peer);
                }
                Action::Offload { slot } => self.offers.push(slot),
                Action::Disconnect { slot } => {
                    assert!(self.connected.remove(&slot).is_some(), "{slot} was not connected");
                }
            }
        }
    }

    /// Returns whose packets somebody else might carry, of those that were told since it was last
    /// asked.
    pub(super) fn offers(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.offers)
    }

    /// Returns whose packets alone the kernel lets through to a leg.
    pub(super) fn connected(&self, leg: LegId) -> Option<SocketAddr> {
        self.connected.get(&self.slot(leg)).copied()
    }

    pub(super) fn slot(&self, leg: LegId) -> usize {
        self.slots[&leg]
    }

    /// Gives a packet as if it came from there, and returns what is sent on.
    pub(super) fn packet(&mut self, leg: LegId, from: SocketAddr, packet: &[u8]) -> Option<Sent> {
        let mut packet = packet.to_vec();
        let (slot, now, at_ms) = (self.slot(leg), self.now, self.elapsed_ms());
        let len = packet.len();
        packet.resize(len + TRAILER_MAX, 0);
        let sent = self
            .worker
            .handle_rtp(slot, from, (&mut packet, len), now)
            .map(|datagram| sent(at_ms, datagram));
        self.carry_out(None);
        sent
    }

    /// Lets a peer say the next frame, and returns what is sent on.
    pub(super) fn say(&mut self, peer: &mut Peer) -> Option<Sent> {
        let packet = peer.next();
        self.packet(peer.leg, peer.address, &packet)
    }

    /// Lets a peer talk for that many frames, and returns everything that the worker sends meanwhile.
    pub(super) fn talk(&mut self, peer: &mut Peer, frames: u32) -> Vec<Sent> {
        let mut all = vec![];
        for _ in 0..frames {
            all.extend(self.say(peer));
            all.extend(self.pass(FRAME_MS));
        }
        all
    }

    /// Lets time pass, and returns what the worker sends on its own.
    pub(super) fn pass(&mut self, ms: u64) -> Vec<Sent> {
        let until = self.now + Duration::from_millis(ms);
        let mut all = vec![];
        while let Some(at) = self.worker.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let (now, at_ms) = (self.now, self.elapsed_ms());
            self.worker.handle_timeout(now, &mut |datagram| all.push(sent(at_ms, datagram)));
            self.carry_out(None);
        }
        self.now = until;
        all
    }

    /// The same without reports.
    pub(super) fn pass_rtp(&mut self, ms: u64) -> Vec<Sent> {
        let mut all = self.pass(ms);
        all.retain(|sent| sent.channel == Channel::Rtp);
        all
    }

    pub(super) fn elapsed_ms(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    /// Returns everything that was told since it was last asked for.
    pub(super) fn drain(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.worker.poll_event()).collect()
    }

    /// Closes a leg and returns how it was.
    pub(super) fn close(&mut self, leg: LegId) -> Quality {
        self.give(Command::Close { leg });
        for event in self.drain() {
            if let Event::Closed { leg: closed, quality } = event {
                assert_eq!(closed, leg);
                return *quality;
            }
        }
        panic!("{leg} is not told closed");
    }

    /// Returns how many packets were discarded for this reason.
    pub(super) fn discarded(&self, reason: Discard) -> u64 {
        self.worker.discards().count(reason)
    }
}

fn sent(at_ms: u64, datagram: Datagram<'_>) -> Sent {
    let Datagram { slot, channel, to, packet } = datagram;
    Sent { at_ms, slot, channel, to, bytes: packet.to_vec() }
}

/// Someone who sends RTP.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) leg: LegId,
    pub(super) address: SocketAddr,
    /// Of the next packet.
    pub(super) header: Header,
}

impl Peer {
    /// The peer of a leg: at an address and with numbers of its own.
    pub(super) fn of(leg: LegId) -> Self {
        let n = u8::try_from(leg.0).unwrap();
        let header = Header {
            marker: false,
            payload_type: 0,
            sequence: SequenceNumber(u16::from(n) * 1000),
            timestamp: Timestamp(u32::from(n) * 1_000_000),
            ssrc: Ssrc(n.into()),
        };
        Self { leg, address: ([192, 0, 2, n], 4000).into(), header }
    }

    pub(super) fn remote(&self) -> Remote {
        let rtcp = SocketAddr::new(self.address.ip(), self.address.port() + 1);
        Remote {
            rtp: self.address,
            rtcp,
            latch: Latch::Learn { near: None },
            sends: true,
            receives: true,
            must_answer: false,
        }
    }

    /// Returns the next frame. Its payload is its sequence number, twice.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let [high, low] = self.header.sequence.0.to_be_bytes();
        let packet = rtp::tests::packet(&self.header, &[high, low, high, low]);
        self.header.sequence = self.header.sequence.next();
        self.header.timestamp = self.header.timestamp.plus(160);
        packet
    }

    /// Becomes another sender at the same address: as a carrier's when somebody else answers.
    pub(super) fn change_source(&mut self) {
        self.header.ssrc = Ssrc(self.header.ssrc.0 + 100);
        self.header.sequence = self.header.sequence.plus(31_337);
        self.header.timestamp = self.header.timestamp.plus(0x8000_0123);
    }
}

/// G.711 in frames of 20 ms, with digits.
pub(super) fn stream(law: Law, digits: u8) -> Stream {
    let payload_type = match law {
        Law::Mu => 0,
        Law::A => 8,
    };
    Stream {
        voice: Some(Voice { payload_type, law }),
        clock_rate: 8000,
        ptime_ms: 20,
        telephone_events: Some(TelephoneEvents { receive: digits, send: digits, clock_rate: 8000 }),
    }
}

/// A prompt of that many milliseconds; its samples tell where they are.
pub(super) fn prompt(ms: usize) -> Prompt {
    Prompt::new((0..ms * 8).map(|n| (n % 4000) as i16 * 8).collect::<Vec<_>>())
}

/// Asserts that a peer hears one source without a hole: sequence numbers by one, one SSRC, and
/// timestamps that keep up with the time in between. Events have the time of their beginning.
#[track_caller]
pub(super) fn assert_continuous(heard: &[Sent]) {
    let mut voice = &heard[0];
    for (before, after) in heard.iter().zip(&heard[1..]) {
        let (b, a) = (before.header(), after.header());
        assert_eq!((a.sequence.since(b.sequence), a.ssrc), (1, b.ssrc), "{before:?}\n{after:?}");
        let is_event = a.payload_type >= 96;
        let since = if is_event { before } else { voice };
        let passed = i32::try_from((after.at_ms - since.at_ms) * 8).unwrap().max(160);
        let units = a.timestamp.since(since.header().timestamp);
        let is_in_time = units == passed || (is_event && units == 0);
        assert!(is_in_time, "{units} units in {passed}\n{since:?}\n{after:?}");
        if !is_event {
            voice = after;
        }
    }
}
