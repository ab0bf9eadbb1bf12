//! The real thread, with real sockets on loopback.
//!
//! Owns: the peers' sockets, and a worker that is stuck.
//! Never: part of the program.

use super::{sockets::bound, *};
use crate::{
    ids::LegId,
    media::{Convert, Discard, Latch, Law, PathMap, Prompt, Remote, Stream, Voice, tone},
    shell::marks::Marks,
};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket as Peer},
    sync::atomic::AtomicU32,
};
use tokio::runtime::Runtime;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Whoever waits longer than this waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);
const A: LegId = LegId(1);
const B: LegId = LegId(2);

/// A thread, and both ends of what it is told and tells.
struct Bench {
    worker: MediaWorker,
    events: mpsc::Receiver<Event>,
    runtime: Runtime,
}

impl Bench {
    fn new(ports: PortRange, events_max: usize) -> Self {
        let (events, receiver) = mpsc::channel(events_max);
        let worker = {
            let (silence, coalesce) = (Duration::from_secs(60), Duration::ZERO);
            let unanswered = Duration::from_secs(30);
            let legs = Legs { ports, silence, unanswered, dscp: 46, coalesce };
            MediaWorker::spawn(0, legs, None, events)
        }
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { worker, events: receiver, runtime }
    }

    fn send(&self, command: Command) {
        let worker = self.worker.handle();
        worker.try_send(command).expect("the worker keeps up");
        worker.wake();
    }

    /// Waits for the next thing told.
    fn event(&mut self) -> Event {
        let next = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        self.runtime.block_on(next).expect("the worker tells something").unwrap()
    }

    /// Opens a leg towards a peer, and returns where the peer sends to.
    fn open(&mut self, leg: LegId, peer: &Peer, law: Law) -> SocketAddr {
        self.send(Command::Open { leg, ip: HERE });
        let Event::Opened { port, .. } = self.event() else { panic!("{leg} has no ports") };
        self.aim(leg, peer, law);
        SocketAddr::new(HERE, port)
    }

    /// Says where a peer is.
    fn aim(&self, leg: LegId, peer: &Peer, law: Law) {
        let rtp = peer.local_addr().unwrap();
        let rtcp = SocketAddr::new(rtp.ip(), rtp.port().wrapping_add(1));
        let remote = Remote {
            rtp,
            rtcp,
            latch: Latch::Learn { near: None },
            sends: true,
            receives: true,
            must_answer: false,
        };
        let payload_type = if law == Law::Mu { 0 } else { 8 };
        let voice = Some(Voice { payload_type, law });
        let stream = Stream { voice, clock_rate: 8000, ptime_ms: 20, telephone_events: None };
        self.send(Command::Aim { leg, remote, stream, keys: None });
    }

    /// Waits until what was ordered and sent before is done.
    fn barrier(&mut self) {
        let leg = LegId(99);
        self.send(Command::Open { leg, ip: HERE });
        while !matches!(self.event(), Event::Opened { leg: LegId(99), .. }) {}
        self.send(Command::Close { leg });
        while !matches!(self.event(), Event::Closed { leg: LegId(99), .. }) {}
    }

    fn close(mut self, leg: LegId) -> Box<crate::media::Quality> {
        self.send(Command::Close { leg });
        loop {
            if let Event::Closed { leg: closed, quality } = self.event() {
                assert_eq!(closed, leg);
                self.worker.stop();
                return quality;
            }
        }
    }
}

/// A worker that takes as many commands and then nothing; what it got, and what must live as long.
pub(in crate::shell) fn stuck(
    commands_max: usize,
) -> (MediaHandle, impl FnMut() -> Option<Command>) {
    let bell = Epoll::new().unwrap().bell();
    let (commands, orders) = sync_channel(commands_max);
    let counters = metrics::Media::default();
    let (_, published) = watch::channel(Published { at: now(), counters });
    let take = move || match orders.try_recv() {
        Ok(Order::Command(command)) => Some(command),
        Ok(Order::Panic | Order::Stop) | Err(_) => None,
    };
    (MediaHandle { commands, bell, published, lost: Arc::default() }, take)
}

/// Finds that many pairs of ports that nobody uses, next to each other: each is given once, and the kernel gives none
/// of them to whoever asks for any.
fn free_ports(pairs: u16) -> PortRange {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let of_this_process = std::process::id().wrapping_mul(977);
    loop {
        let given = GIVEN.fetch_add(pairs.into(), Relaxed);
        let nth = of_this_process.wrapping_add(given) % 10_000;
        let first = 10_000 + 2 * nth as u16;
        let last = first + 2 * pairs - 1;
        if (first..=last).all(|port| Peer::bind((HERE, port)).is_ok()) {
            return PortRange { first, last };
        }
    }
}

fn peer() -> Peer {
    peer_at(SocketAddr::new(HERE, 0))
}

fn peer_at(address: SocketAddr) -> Peer {
    let peer = Peer::bind(address).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer
}

fn rtp(payload_type: u8, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let [s1, s2] = sequence.to_be_bytes();
    [&[0x80, payload_type, s1, s2, 0, 0, 0, 0, 0, 0, 0, 9], payload].concat()
}

fn receive(peer: &Peer) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let len = peer.recv(&mut buffer).expect("a packet comes");
    buffer[..len].to_vec()
}

#[test]
fn packets_cross_and_prompts_are_heard() {
    let (a, b) = (peer(), peer());
    let mut bench = Bench::new(free_ports(8), 64);
    let (port_a, port_b) = (bench.open(A, &a, Law::Mu), bench.open(B, &b, Law::A));
    bench.send(Command::Bridge {
        a: A,
        b: B,
        a_to_b: PathMap::new().with(0, 8, Convert::UlawToAlaw),
        b_to_a: PathMap::new().with(8, 0, Convert::AlawToUlaw),
    });

    // One is read at a time: none may be left behind.
    let count = 80;
    for n in 0..count {
        a.send_to(&rtp(0, n, &[0xff; 160]), port_a).unwrap();
    }
    for _ in 0..count {
        let packet = receive(&b);
        assert_eq!((packet[1] & 0x7f, packet.len(), packet[12]), (8, 172, 0xd5));
    }
    b.send_to(&rtp(8, 1, &[0xd5; 160]), port_b).unwrap();
    assert_eq!(receive(&a)[12], 0xfe);

    let prompt = Prompt::new(tone::chord(&[440.0], Duration::from_millis(60), 0.5));
    bench.send(Command::Play { leg: A, prompt, loops: false, token: 7 });
    (0..3).for_each(|_| assert_eq!(receive(&a).len(), 172));
    while !matches!(bench.event(), Event::Played { leg: A, token: 7 }) {}

    // Cut by the reader's buffer, so refused; empty, so too short.
    a.send_to(&rtp(0, count, &[0; 9000]), port_a).unwrap();
    a.send_to(&[], port_a).unwrap();
    a.send_to(&rtp(0, count, &[1; 160]), port_a).unwrap();
    assert_eq!(receive(&b).len(), 172);
    let quality = bench.close(A);
    assert_eq!(quality.received.packets, u64::from(count) + 1);
    let discards = [Discard::TooLong, Discard::TooShort].map(|why| quality.discards.count(why));
    assert_eq!(discards, [1, 1]);
}

/// Two PCMU legs joined; each peer has talked for long enough to be known.
fn talking(bench: &mut Bench, a: &Peer, b: &Peer) -> [SocketAddr; 2] {
    let ports = [bench.open(A, a, Law::Mu), bench.open(B, b, Law::Mu)];
    let same = || PathMap::new().with(0, 0, Convert::Keep);
    bench.send(Command::Bridge { a: A, b: B, a_to_b: same(), b_to_a: same() });
    for n in 0..20 {
        a.send_to(&rtp(0, n, &[1; 160]), ports[0]).unwrap();
        assert_eq!(receive(b)[12], 1);
        b.send_to(&rtp(0, n, &[2; 160]), ports[1]).unwrap();
        assert_eq!(receive(a)[12], 2);
    }
    ports
}

/// A peer that is quiet for so long may be elsewhere: its leg is open to anybody then.
const QUIET: Duration = Duration::from_millis(400);

#[test]
fn a_connected_leg_is_deaf_to_strangers_and_moves_with_the_next_aim() {
    // Where the machine is away for so long between two packets, it is tried again.
    assert!((0..20).any(|_| is_deaf_to_strangers()), "the machine is never there");
}

/// Returns whether there was nothing in the way.
fn is_deaf_to_strangers() -> bool {
    let (a, b, stranger, moved) = (peer(), peer(), peer(), peer());
    let mut bench = Bench::new(free_ports(8), 64);
    let began = now();
    let [port_a, _] = talking(&mut bench, &a, &b);

    stranger.connect(port_a).unwrap();
    stranger.send(&rtp(0, 20, &[3; 160])).unwrap();
    if began.elapsed() >= QUIET {
        bench.close(A);
        return false;
    }
    let refused = stranger.recv(&mut [0; 10]).expect_err("the kernel lets nobody else through");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    a.send_to(&rtp(0, 21, &[1; 160]), port_a).unwrap();
    assert_eq!(receive(&b)[12], 1);

    // A re-INVITE: the peer is elsewhere now, and where it was is a stranger.
    bench.aim(A, &moved, Law::Mu);
    bench.barrier();
    moved.send_to(&rtp(0, 22, &[4; 160]), port_a).unwrap();
    assert_eq!(receive(&b)[12], 4);
    a.send_to(&rtp(0, 23, &[1; 160]), port_a).unwrap();
    let began = now();
    for n in 24..44 {
        moved.send_to(&rtp(0, n, &[4; 160]), port_a).unwrap();
        assert_eq!(receive(&b)[12], 4);
    }
    let refused = a.send_to(&rtp(0, 44, &[1; 160]), port_a);
    let is_disturbed = began.elapsed() >= QUIET;
    moved.send_to(&rtp(0, 45, &[4; 160]), port_a).unwrap();
    assert_eq!(receive(&b)[12], 4, "{refused:?}");
    let quality = bench.close(A);
    if is_disturbed {
        return false;
    }
    assert_eq!(quality.discards.count(Discard::StrangeSource), 1, "before it was known again");
    assert_eq!(quality.received.packets, 43);
    true
}

#[test]
fn a_port_that_is_closed_for_a_while_costs_no_leg() {
    // Nobody else takes its port meanwhile.
    let at = SocketAddr::new(HERE, free_ports(1).first);
    let (a, b) = (peer(), peer_at(at));
    let mut bench = Bench::new(free_ports(8), 64);
    let [port_a, port_b] = talking(&mut bench, &a, &b);
    drop(b);
    // Each comes back as an ICMP error, which the one after it must not pay for.
    for n in 20..40 {
        a.send_to(&rtp(0, n, &[1; 160]), port_a).unwrap();
    }
    bench.barrier();
    let b = peer_at(at);
    for n in 40..50 {
        a.send_to(&rtp(0, n, &[n as u8; 160]), port_a).unwrap();
    }
    // Some of those before may still have been on their way.
    let mut heard = std::iter::repeat_with(|| receive(&b)[12]).skip_while(|code| *code == 1);
    assert!(heard.by_ref().take(10).eq(40..50));
    b.send_to(&rtp(0, 50, &[2; 160]), port_b).unwrap();
    assert_eq!(receive(&a)[12], 2);
    assert_eq!(bench.close(B).discards.count(Discard::Unsendable), 0);
}

#[test]
fn a_pair_of_which_the_rtcp_port_is_taken_is_passed_over() {
    let ports = free_ports(2);
    let _taken = Peer::bind((HERE, ports.first + 1)).unwrap();
    let mut bench = Bench::new(ports, 8);
    bench.send(Command::Open { leg: A, ip: HERE });
    assert_eq!(bench.event(), Event::Opened { leg: A, port: ports.first + 2 });
    assert!(Peer::bind((HERE, ports.first)).is_ok(), "its RTP port was let go");
    bench.close(A);
    for port in [ports.first + 2, ports.first + 3] {
        assert!(Peer::bind((HERE, port)).is_ok(), "{port} is free again");
    }
}

/// Half of all legs never hear a packet: they need no second socket.
#[test]
fn the_rtcp_port_is_there_once_the_peer_was_heard() {
    let a = peer();
    let mut bench = Bench::new(free_ports(8), 64);
    let port = bench.open(A, &a, Law::Mu);
    let rtcp = SocketAddr::new(HERE, port.port() + 1);
    assert!(Peer::bind(rtcp).is_ok(), "nobody has it before");
    a.send_to(&rtp(0, 1, &[1; 160]), port).unwrap();
    while !matches!(bench.event(), Event::FirstPacket { leg: A, .. }) {}
    bench.barrier();
    assert!(Peer::bind(rtcp).is_err());
    bench.close(A);
    assert!(Peer::bind(rtcp).is_ok());
}

#[test]
fn events_wait_for_a_shard_that_is_slow() {
    let mut bench = Bench::new(free_ports(8), 1);
    let legs = [1, 2, 3, 4].map(LegId);
    for leg in legs {
        bench.send(Command::Open { leg, ip: HERE });
        bench.send(Command::Close { leg });
    }
    for leg in legs {
        assert!(matches!(bench.event(), Event::Opened { leg: told, .. } if told == leg));
        assert!(matches!(bench.event(), Event::Closed { leg: told, .. } if told == leg));
    }
    bench.worker.stop();
}

#[test]
fn a_panic_ends_the_legs_and_not_the_thread() {
    let mut bench = Bench::new(free_ports(4), 8);
    let port = bench.open(A, &peer(), Law::Mu);
    bench.worker.handle.commands.send(Order::Panic).unwrap();
    bench.worker.handle.bell.ring();
    assert_eq!(bench.event(), Event::Silent { leg: A });
    assert!(matches!(bench.event(), Event::Closed { leg: A, .. }));
    assert!(Peer::bind(port).is_ok(), "the port is free");
    bench.open(A, &peer(), Law::Mu);
    bench.close(A);
}

/// A carrier drops media that comes with few hops left; networks prefer what is marked.
#[test]
fn media_is_marked() {
    let ports = free_ports(1);
    let socket = bound(SocketAddr::new(HERE, ports.first), &Marks::new(46)).unwrap();
    assert_eq!(crate::shell::marks::tests::marks(&socket2::SockRef::from(&socket), true), (64, 46));
}
