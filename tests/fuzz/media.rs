//! RTP and RTCP: two legs in a call, one of whose peers sends anything.

use crate::{fuzz, lines};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tandem::{
    ids::{Entropy, LegId},
    media::{
        Action, Channel, Command, Convert, DATAGRAM_MAX, Event, Latch, Law, PathMap, PortRange,
        Remote, Settings, Stream, TelephoneEvents, Voice, Worker,
        srtp::{Keys, TRAILER_MAX},
    },
    sim::epoch,
};

pub(crate) const A: LegId = LegId(1);
pub(crate) const B: LegId = LegId(2);

#[test]
fn rtp() {
    fuzz("rtp", 20_000, &lines("rtp.txt"), |bytes| {
        let mut call = Call::new(None);
        let sent: Vec<_> = (0..3).map(|_| call.rtp(A, Call::peer(A), bytes)).collect();
        let len = bytes.len();
        assert!(sent.iter().flatten().all(|sent| sent.len() == len && len <= DATAGRAM_MAX));
        call.end();
    });
}

#[test]
fn rtcp() {
    fuzz("rtcp", 20_000, &lines("rtcp.txt"), |bytes| {
        let mut call = Call::new(None);
        call.worker.handle_rtcp(call.slots[0], Call::peer_rtcp(A), bytes, call.now);
        call.worker.handle_rtcp(call.slots[0], Call::peer(B), bytes, call.now);
        call.rtp(A, Call::peer(A), b"\x80\0\0\x01\0\0\0\x01\0\0\0\x01speech");
        call.worker.handle_rtcp(call.slots[0], Call::peer_rtcp(A), bytes, call.now);
        call.end();
    });
}

/// Two legs that are joined.
pub(crate) struct Call {
    pub(crate) worker: Worker,
    pub(crate) slots: Vec<usize>,
    pub(crate) now: Instant,
}

impl Call {
    /// Opens both; A has these keys.
    pub(crate) fn new(keys: Option<Keys>) -> Self {
        let ports = PortRange { first: 10_000, last: 10_007 };
        let settings = Settings {
            ports,
            silence: Duration::from_secs(60),
            unanswered: Duration::from_secs(30),
            offloads: false,
        };
        let worker = Worker::new(settings, Entropy::from_u64(1));
        let mut call = Self { worker, slots: vec![], now: epoch() };
        for (leg, keys) in [(A, keys.map(Box::new)), (B, None)] {
            call.give(Command::Open { leg, ip: [127, 0, 0, 1].into() });
            let (remote, stream) = (Self::remote(leg), stream());
            call.give(Command::Aim { leg, remote, stream, keys });
        }
        let map = || PathMap::new().with(0, 8, Convert::UlawToAlaw).with(101, 96, Convert::Keep);
        call.give(Command::Bridge { a: A, b: B, a_to_b: map(), b_to_a: map() });
        call.events();
        call
    }

    fn remote(leg: LegId) -> Remote {
        let (rtp, rtcp) = (Self::peer(leg), Self::peer_rtcp(leg));
        Remote {
            rtp,
            rtcp,
            latch: Latch::Learn { near: None },
            sends: true,
            receives: true,
            must_answer: false,
        }
    }

    pub(crate) fn peer(leg: LegId) -> SocketAddr {
        ([192, 0, 2, leg.0 as u8], 4000).into()
    }

    fn peer_rtcp(leg: LegId) -> SocketAddr {
        ([192, 0, 2, leg.0 as u8], 4001).into()
    }

    fn give(&mut self, command: Command) {
        self.worker.handle_command(command, self.now);
        while let Some(action) = self.worker.poll_action() {
            if let Action::Bind { slot, .. } | Action::Reuse { slot } = action {
                self.slots.push(slot);
                self.worker.bound(slot, true, self.now);
            }
        }
    }

    /// Gives a packet to a leg, and returns what the other side is sent.
    pub(crate) fn rtp(&mut self, leg: LegId, from: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [packet, &[0; TRAILER_MAX]].concat();
        let slot = self.slots[usize::from(leg == B)];
        let sent = self.worker.handle_rtp(slot, from, (&mut buffer, packet.len()), self.now);
        sent.map(|sent| sent.packet.to_vec())
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.worker.poll_event()).collect()
    }

    /// Lets half a minute pass and closes both: every port comes back.
    pub(crate) fn end(mut self) {
        let until = self.now + Duration::from_secs(30);
        while let Some(at) = self.worker.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.worker.handle_timeout(self.now, &mut |sent| {
                assert!(!sent.packet.is_empty() && !sent.to.ip().is_unspecified());
                assert!(sent.channel == Channel::Rtcp || sent.packet.len() >= 12);
            });
            while self.worker.poll_action().is_some() {}
        }
        for leg in [A, B] {
            self.give(Command::Close { leg });
        }
        let is_closed = |event: &&Event| matches!(event, Event::Closed { .. });
        assert_eq!(self.events().iter().filter(is_closed).count(), 2);
        assert_eq!(self.worker.usage().0, 0);
        assert_eq!(self.worker.poll_timeout(), None);
    }
}

fn stream() -> Stream {
    let telephone_events = Some(TelephoneEvents { receive: 101, send: 101, clock_rate: 8000 });
    let voice = Some(Voice { payload_type: 0, law: Law::Mu });
    Stream { voice, clock_rate: 8000, ptime_ms: 20, telephone_events }
}
