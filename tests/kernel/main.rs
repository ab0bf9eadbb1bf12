//! The kernel path between network namespaces. It needs root and Linux 6.6: `make kernel`.
#![cfg(all(feature = "kernel", target_os = "linux"))]

mod net;
mod phone;

use net::{Net, PHONES, RELAY, inside};
use phone::{PATIENCE, Phone};
use std::{
    net::{SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};
use tandem::{
    config::{KernelPath, Rtp},
    ids::LegId,
    media::{
        Command, Convert, Discard, Event, Latch, PathMap, Quality, Remote, Stream, TelephoneEvents,
    },
    shell::{media_worker::MediaWorker, now},
};
use tokio::{runtime::Runtime, sync::mpsc};

const A: LegId = LegId(1);
const B: LegId = LegId(2);
const LEGS: [LegId; 2] = [A, B];
/// The voice's payload type, as each side knows it.
const VOICE: [u8; 2] = [96, 111];
const DIGITS: u8 = 101;

/// Two telephones, and the relay that joins them.
struct Call {
    worker: MediaWorker,
    events: mpsc::Receiver<Event>,
    runtime: Runtime,
    phones: [Phone; 2],
    net: Net,
}

impl Call {
    fn new(name: &str) -> Self {
        let net = Net::new(name);
        let (events, receiver) = mpsc::channel(1000);
        let rtp = Rtp {
            ports: (20_000, 20_099),
            codecs: vec![],
            timeout: Duration::from_secs(60),
            unanswered: Duration::from_secs(30),
            workers: 1,
            dscp: 46,
            coalesce: Duration::ZERO,
            kernel: KernelPath::All,
        };
        let mut workers =
            inside(&net.relay(), || MediaWorker::spawn_all(&rtp, &events).expect("a thread"));
        let worker = workers.pop().expect("one");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        let phones = [0, 1].map(|n| inside(&net.phone(n), || Phone::new(PHONES[n], VOICE[n])));
        let mut call = Self { worker, events: receiver, runtime, phones, net };
        for (n, leg) in LEGS.into_iter().enumerate() {
            call.give(Command::Open { leg, ip: RELAY[n].into() });
            let Event::Opened { port, .. } = call.event() else { panic!("no ports") };
            call.phones[n].to = SocketAddr::new(RELAY[n].into(), port);
            call.aim(n);
        }
        call.join();
        call
    }

    fn give(&self, command: Command) {
        let worker = self.worker.handle();
        worker.try_send(command).expect("the worker keeps up");
        worker.wake();
    }

    fn event(&mut self) -> Event {
        let next = async { tokio::time::timeout(PATIENCE, self.events.recv()).await };
        self.runtime.block_on(next).expect("the worker tells something").expect("it lives")
    }

    /// Waits until everything that was ordered is done.
    fn settle(&mut self) {
        let leg = LegId(99);
        self.give(Command::Open { leg, ip: RELAY[0].into() });
        while !matches!(self.event(), Event::Opened { leg: opened, .. } if opened == leg) {}
        self.give(Command::Close { leg });
        while !matches!(self.event(), Event::Closed { leg: closed, .. } if closed == leg) {}
    }

    fn aim(&self, n: usize) {
        let rtp = self.phones[n].address();
        let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
        let remote = Remote {
            rtp,
            rtcp,
            latch: Latch::Learn { near: None },
            sends: true,
            receives: true,
            must_answer: false,
        };
        let events = TelephoneEvents { receive: DIGITS, send: DIGITS, clock_rate: 8000 };
        let stream =
            Stream { voice: None, clock_rate: 8000, ptime_ms: 20, telephone_events: Some(events) };
        self.give(Command::Aim { leg: LEGS[n], remote, stream, keys: None });
    }

    fn join(&self) {
        let digits = || PathMap::new().with(DIGITS, DIGITS, Convert::Keep);
        let [a, b] = VOICE;
        self.give(Command::Bridge {
            a: A,
            b: B,
            a_to_b: digits().with(a, b, Convert::Keep),
            b_to_a: digits().with(b, a, Convert::Keep),
        });
    }

    /// Lets both talk and hear each other, until the kernel carries that many directions.
    fn talk_until(&mut self, carried: u64) {
        let until = now() + PATIENCE;
        while self.worker.handle().counters().legs_kernel != carried {
            assert!(now() < until, "{:?}", self.worker.handle().counters());
            for n in [0, 1] {
                self.phones[n].say();
                self.phones[1 - n].hear();
            }
        }
    }

    /// Waits until the kernel carries that many directions.
    fn carries(&self, wanted: u64) {
        let until = now() + PATIENCE;
        while self.worker.handle().counters().legs_kernel != wanted {
            assert!(now() < until, "not {wanted}: {:?}", self.worker.handle().counters());
            std::thread::yield_now();
        }
    }

    /// Waits until the counters have been published once more.
    fn carried(&self) -> (u64, u64) {
        let before = self.worker.handle().counters();
        let until = now() + Duration::from_millis(1500);
        loop {
            let counters = self.worker.handle().counters();
            if counters != before || now() > until {
                return (counters.legs_kernel, counters.packets_kernel);
            }
            std::thread::yield_now();
        }
    }

    fn close(&mut self, leg: LegId) -> Quality {
        self.give(Command::Close { leg });
        loop {
            if let Event::Closed { leg: closed, quality } = self.event()
                && closed == leg
            {
                return *quality;
            }
        }
    }
}

/// Who computes checksums: telephones, relay.
#[test]
fn packets_leave_as_if_from_the_other_legs_socket() {
    for checksums in [(false, false), (false, true), (true, false), (true, true)] {
        let mut call = Call::new("plain");
        call.net.checksums(checksums);
        for n in [0, 1] {
            call.phones[n].say();
            call.phones[1 - n].hear();
        }
        for n in [0, 1] {
            call.phones[n].say();
        }
        let before = [1, 0].map(|n| call.phones[n].hear());
        let said = [0, 1].map(|n| call.phones[n].said);
        call.talk_until(2);
        let (_, carried) = call.carried();
        for n in [0, 1] {
            let (first, since) = (call.phones[n].sequence, call.phones[n].said - said[n]);
            for _ in 0..100 {
                call.phones[n].say();
            }
            let heard = call.phones[1 - n].hear_until(first.wrapping_add(99));
            assert_eq!(heard.len(), 100);
            for (heard, says) in heard.iter().zip(1..) {
                // A telephone that need not wait says more than sequence numbers can count.
                let past = u32::try_from(since + says).unwrap();
                let mut want = before[n];
                want.says = want.says.wrapping_add(past as u16);
                want.sequence = want.sequence.wrapping_add(past as u16);
                want.timestamp = want.timestamp.wrapping_add(past * 160);
                assert_eq!(*heard, want, "{checksums:?}");
                assert_eq!((heard.from, heard.payload_type), (call.phones[1 - n].to, VOICE[1 - n]));
            }
        }
        let counters = || call.worker.handle().counters();
        let until = now() + PATIENCE;
        while counters().packets_kernel < carried + 200 {
            assert!(now() < until, "{:?}", counters());
            std::thread::yield_now();
        }
        assert_eq!(counters().legs_kernel, 2);
    }
}

#[test]
fn losses_order_and_copies_are_in_the_record() {
    let mut call = Call::new("record");
    call.talk_until(2);
    let [a, b] = &mut call.phones;
    let first = a.sequence;
    for n in 0..150 {
        let packet = a.next();
        match n {
            10..15 => {}
            20 => {
                let later = a.next();
                a.send(&later);
                a.send(&packet);
            }
            30 => [(); 3].into_iter().for_each(|()| a.send(&packet)),
            _ => a.send(&packet),
        }
    }
    let last = a.sequence.wrapping_sub(1);
    let heard = b.hear_until(last);
    assert_eq!(heard.len(), 151 - 5, "copies are not passed on");
    let spoken = heard.iter().map(|heard| heard.says.wrapping_sub(first)).collect::<Vec<_>>();
    assert_eq!(spoken[15..17], [21, 20], "order is");
    assert_eq!(call.carried().0, 2, "all of it by the kernel");

    let sent = call.phones[0].said;
    let quality = call.close(A);
    let received = quality.received;
    assert_eq!(received.packets, sent - 5);
    assert_eq!((received.lost, received.duplicate, received.reordered), (5, 2, 1));
    assert_eq!(quality.discards.count(Discard::Duplicate), 2);
    assert!(received.jitter_ms > 0.0);
    assert_eq!(call.close(B).sent.packets, sent - 5);
}

#[test]
fn digits_and_reports_come_to_us() {
    let mut call = Call::new("digits");
    call.talk_until(2);
    let (_, carried) = call.carried();
    assert!(carried > 0);
    call.phones[0].press(DIGITS);
    let mut event = call.event();
    while matches!(event, Event::FirstPacket { .. }) {
        event = call.event();
    }
    assert_eq!(event, Event::Dtmf { leg: A, digit: '1', duration_ms: 100 });
    let digits = [0; 3].map(|_| call.phones[1].hear().payload_type);
    assert_eq!(digits, [DIGITS; 3]);
    // One direction is ours again.
    call.carries(1);
    call.talk_until(2);

    let mut report = [0; 512];
    let told = loop {
        let (len, from) = call.phones[1].rtcp.recv_from(&mut report).expect("reports come");
        assert_eq!(from.port(), call.phones[1].to.port() + 1);
        // A sender's report, once something was sent.
        if report[1] != 200 {
            continue;
        }
        assert!(len >= 28);
        let packets = u32::from_be_bytes(report[20..24].try_into().unwrap());
        if u64::from(packets) > call.phones[0].said / 2 {
            break u64::from(packets);
        }
    };
    assert!(told <= call.phones[0].said);
    assert_eq!(call.carried().0, 2, "reports disturb nothing");
}

#[test]
fn strangers_and_strange_packets_disturb_nothing() {
    let mut call = Call::new("strange");
    call.talk_until(2);
    let stranger = inside(&call.net.phone(0), || UdpSocket::bind((PHONES[0], 0)).unwrap());
    let packet = call.phones[0].next();
    for _ in 0..10 {
        stranger.send_to(&packet, call.phones[0].to).unwrap();
        call.phones[0].send(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
    }
    call.phones[0].say();
    let says = call.phones[0].sequence.wrapping_sub(1);
    assert_eq!(call.phones[1].hear().says, says, "nothing else is heard");
    assert_eq!(call.carried().0, 2);
    assert_eq!(call.close(A).discards.count(Discard::TooShort), 10);
}

#[test]
fn an_order_ends_it_at_once() {
    type Order = fn(&Call);
    let orders: [(&str, Order, Order); 3] = [
        ("separated", |call| call.give(Command::Unbridge { leg: B }), Call::join),
        ("re-INVITE", |call| hold(call, false), |call| call.aim(1)),
        (
            "prompt",
            |call| call.give(Command::Echo { leg: B }),
            |call| {
                call.give(Command::Stop { leg: B });
            },
        ),
    ];
    for (name, change, undo) in orders {
        let mut call = Call::new("order");
        call.talk_until(2);
        change(&call);
        call.settle();
        let lost = call.phones[0].sequence;
        let discarded = || call.worker.handle().counters().discards.total();
        let before = discarded();
        for _ in 0..10 {
            call.phones[0].say();
        }
        let until = now() + PATIENCE;
        while discarded() < before + 10 {
            assert!(now() < until, "{name}: {:?}", call.worker.handle().counters());
            std::thread::yield_now();
        }
        undo(&call);
        call.settle();
        call.phones[0].say();
        let heard = call.phones[1].hear();
        assert_eq!(heard.says, lost.wrapping_add(10), "{name}: nothing passed meanwhile");
        call.carries(0);
        call.phones[1].say();
        call.phones[0].hear_until(call.phones[1].sequence.wrapping_sub(1));
        call.talk_until(2);
    }
}

fn hold(call: &Call, sends: bool) {
    let rtp = call.phones[1].address();
    let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
    let remote = Remote {
        rtp,
        rtcp,
        latch: Latch::Learn { near: None },
        sends,
        receives: true,
        must_answer: false,
    };
    let stream = Stream { voice: None, clock_rate: 8000, ptime_ms: 20, telephone_events: None };
    call.give(Command::Aim { leg: B, remote, stream, keys: None });
}

/// What is left for us is to read the counts now and then.
#[test]
fn what_is_carried_costs_us_less_than_a_microsecond() {
    const PACKETS: u32 = 50_000;
    let mut call = Call::new("cost");
    call.talk_until(2);
    let relay = call.net.relay();
    let (before, [a, b]) = (media_cpu_ns(&relay), &mut call.phones);
    for _ in 0..PACKETS {
        a.say();
        b.hear();
    }
    let ns = media_cpu_ns(&relay) - before;
    assert_eq!(call.carried().0, 2);
    let each = ns / u64::from(PACKETS);
    assert!(each <= 1000, "{each} ns a packet");
}

/// Returns the CPU time of the media threads of this process in a namespace: other tests have theirs.
fn media_cpu_ns(place: &str) -> u64 {
    let net = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let here = net(&Path::new("/run/netns").join(place)).expect("the namespace is there");
    let threads = std::fs::read_dir("/proc/self/task").expect("there are threads");
    let media = threads.flatten().map(|thread| thread.path()).filter(|path| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("media-"))
            && net(&path.join("ns/net")) == Some(here)
    });
    let on_cpu = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    let each: Vec<u64> = media.filter_map(on_cpu).collect();
    assert!(!each.is_empty(), "there is no such thread");
    each.into_iter().sum()
}

/// The program is no more there than its owner.
#[test]
fn the_program_leaves_with_its_owner() {
    let mut call = Call::new("leaves");
    call.talk_until(2);
    let Call { worker, phones: [mut a, b], net, events, .. } = call;
    worker.stop();
    drop(events);
    let port = a.to;
    let heir = inside(&net.relay(), || UdpSocket::bind(port).unwrap());
    heir.set_read_timeout(Some(PATIENCE)).unwrap();
    a.say();
    let mut packet = [0; 2048];
    let (len, from) = heir.recv_from(&mut packet).expect("the packet comes to whoever is there");
    assert_eq!((len, from), (172, a.address()));
    drop(b);
}
