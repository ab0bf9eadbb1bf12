//! How long the relay takes for a packet, without the sockets: `cargo bench --bench relay`.
//!
//! Prints the median of several rounds, in nanoseconds for a packet of G.711 that is forwarded.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and prints"
)]

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
    },
};

const ROUNDS: usize = 15;
const PACKETS: usize = 300_000;
const FRAME: Duration = Duration::from_millis(20);
const PACKET_LEN: usize = 172;

fn main() {
    println!("{:32} {:>10} {:>10}", "", "ns/packet", "best");
    for (name, calls, convert) in [
        ("1 call, same codec", 1, Convert::Keep),
        ("1 call, PCMU to PCMA", 1, Convert::UlawToAlaw),
        ("500 calls, same codec", 500, Convert::Keep),
        ("500 calls, PCMU to PCMA", 500, Convert::UlawToAlaw),
        ("5000 calls, same codec", 5000, Convert::Keep),
    ] {
        let mut bench = Bench::new(calls, convert);
        let mut rounds = (0..ROUNDS).map(|_| bench.round()).collect::<Vec<_>>();
        rounds.sort_by(f64::total_cmp);
        println!("{name:32} {:>10.1} {:>10.1}", rounds[ROUNDS / 2], rounds[0]);
    }
}

/// Calls of two legs each, all of which talk.
struct Bench {
    worker: Worker,
    now: Instant,
    frames: u32,
    /// Where each leg's peer is.
    peers: Vec<(usize, SocketAddr)>,
}

impl Bench {
    fn new(calls: u16, convert: Convert) -> Self {
        let ports = PortRange { first: 10_000, last: 9_999 + 4 * calls };
        let settings = Settings { ports, silence: Duration::from_secs(60) };
        let worker = Worker::new(settings, Entropy::from_u64(1));
        let now = Instant::now();
        let mut bench = Self { worker, now, frames: 0, peers: vec![] };
        for call in 0..u64::from(calls) {
            let (a, b) = (LegId(2 * call), LegId(2 * call + 1));
            bench.open(a);
            bench.open(b);
            let there =
                || PathMap::new().with(0, if convert == Convert::Keep { 0 } else { 8 }, convert);
            let bridge = Command::Bridge { a, b, a_to_b: there(), b_to_a: there() };
            bench.worker.handle_command(bridge, now);
        }
        bench
    }

    fn open(&mut self, leg: LegId) {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.worker.handle_command(Command::Open { leg, ip }, self.now);
        let Some(Action::Bind { slot, port, .. }) = self.worker.poll_action() else {
            panic!("{leg} has no port");
        };
        self.worker.bound(slot, true, self.now);
        let rtp = SocketAddr::new(ip, port.wrapping_add(20_000));
        let remote = Remote { rtp, rtcp: rtp, latch: Latch::Learn, sends: true, receives: true };
        let events = TelephoneEvents { receive: 101, send: 101, clock_rate: 8000 };
        let stream = Stream {
            voice: Some(Voice { payload_type: 0, law: Law::Mu }),
            clock_rate: 8000,
            ptime_ms: 20,
            telephone_events: Some(events),
        };
        self.worker.handle_command(Command::Aim { leg, remote, stream, keys: None }, self.now);
        self.peers.push((slot, rtp));
    }

    /// Lets everybody talk, frame by frame, and asks after each packet for what is due, as the thread
    /// does after each readable socket. Returns nanoseconds a packet.
    fn round(&mut self) -> f64 {
        let frames = PACKETS / self.peers.len();
        let mut packet = [0x55; PACKET_LEN];
        let before = self.worker.counters().relayed;
        let start = Instant::now();
        for _ in 0..frames {
            self.now += FRAME;
            self.frames += 1;
            let [.., s1, s2] = self.frames.to_be_bytes();
            let [t1, t2, t3, t4] = self.frames.wrapping_mul(160).to_be_bytes();
            for (slot, from) in &self.peers {
                packet[..12].copy_from_slice(&[0x80, 0, s1, s2, t1, t2, t3, t4, 0, 0, 0, 9]);
                black_box(self.worker.handle_rtp(
                    *slot,
                    *from,
                    (&mut packet, PACKET_LEN),
                    self.now,
                ));
                if self.worker.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.worker.handle_timeout(self.now, &mut |report| {
                        black_box(report);
                    });
                }
            }
        }
        let elapsed = start.elapsed();
        while self.worker.poll_event().is_some() {}
        let relayed = self.worker.counters().relayed - before;
        assert_eq!(relayed, (frames * self.peers.len()) as u64, "every packet is forwarded");
        elapsed.as_secs_f64() * 1e9 / relayed as f64
    }
}
