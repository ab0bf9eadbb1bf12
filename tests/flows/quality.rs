//! Where sound is lost: three real media workers on a lossy network, and what a call's record says.

use crate::house::{House, act, cdr, with_pbx, with_phone};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tandem::{
    ids::{Entropy, LegId},
    media::{
        Action, Channel, Command, Convert, Datagram, Event, Latch, Law, PathMap, PortRange, Prompt,
        Quality, Remote, Settings, Stream, Voice, Worker, tone,
    },
    sim::{
        epoch,
        phone::{Act, On},
    },
};

const A: LegId = LegId(1);
const B: LegId = LegId(2);
/// How long a packet is on the way, in ms.
const DELAY_MS: u64 = 20;
const SECONDS: u64 = 40;

/// Who is where on the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Host {
    Phone,
    Pbx,
    Carrier,
}

const HOSTS: [Host; 3] = [Host::Phone, Host::Pbx, Host::Carrier];

/// A packet on its way: when it arrives, from where, to where.
type Flight = (u64, (Host, SocketAddr), SocketAddr, Vec<u8>);

/// The workers of all three, and the packets between them. Each host has ports of its own.
struct Net {
    start: Instant,
    workers: Vec<Worker>,
    /// By address: whose port it is.
    ports: BTreeMap<SocketAddr, (usize, usize, Channel)>,
    flying: Vec<Flight>,
    entropy: Entropy,
    /// Percent of RTP that is lost between two hosts.
    losses: Vec<(Host, Host, u64)>,
    mute: Option<Host>,
}

impl Net {
    fn new(seed: u64, losses: &[(Host, Host, u64)], mute: Option<Host>) -> Self {
        let worker = |n: u16| {
            let ports = PortRange { first: 10_000 * (n + 1), last: 10_000 * (n + 1) + 9 };
            let settings = Settings {
                ports,
                silence: Duration::from_secs(60),
                unanswered: Duration::from_secs(30),
                offloads: false,
            };
            Worker::new(settings, Entropy::from_u64(seed + u64::from(n)))
        };
        let workers = [0, 1, 2].map(worker).into();
        let (ports, flying, entropy) = (BTreeMap::new(), vec![], Entropy::from_u64(seed));
        let start = epoch();
        Self { start, workers, ports, flying, entropy, losses: losses.into(), mute }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// Opens a leg and returns its RTP address.
    fn open(&mut self, host: Host, leg: LegId) -> SocketAddr {
        let (n, ip, now) = (host as usize, [192, 0, 2, host as u8 + 1].into(), self.at(0));
        let worker = &mut self.workers[n];
        worker.handle_command(Command::Open { leg, ip }, now);
        while let Some(action) = worker.poll_action() {
            if let Action::Bind { slot, port, .. } = action {
                worker.bound(slot, true, now);
                self.ports.insert((ip, port).into(), (n, slot, Channel::Rtp));
                self.ports.insert((ip, port + 1).into(), (n, slot, Channel::Rtcp));
            }
        }
        let Some(Event::Opened { port, .. }) = worker.poll_event() else { panic!("no ports") };
        (ip, port).into()
    }

    fn give(&mut self, host: Host, command: Command) {
        let now = self.at(0);
        self.workers[host as usize].handle_command(command, now);
    }

    fn aim(&mut self, host: Host, leg: LegId, rtp: SocketAddr) {
        let rtcp = SocketAddr::new(rtp.ip(), rtp.port() + 1);
        let remote = Remote {
            rtp,
            rtcp,
            latch: Latch::Learn { near: None },
            sends: true,
            receives: true,
            must_answer: false,
        };
        let voice = Some(Voice { payload_type: 0, law: Law::Mu });
        let stream = Stream { voice, clock_rate: 8000, ptime_ms: 20, telephone_events: None };
        self.give(host, Command::Aim { leg, remote, stream, keys: None });
    }

    fn run(&mut self) {
        for ms in 0..SECONDS * 1000 {
            for n in 0..self.workers.len() {
                self.arrive(n, ms);
                let (now, mut sent) = (self.at(ms), vec![]);
                let mut send = |datagram: Datagram<'_>| sent.push(owned(datagram));
                self.workers[n].handle_timeout(now, &mut send);
                sent.into_iter().for_each(|datagram| self.fly(n, datagram, ms));
                while let Some(action) = self.workers[n].poll_action() {
                    if let Action::BindRtcp { slot } = action {
                        self.workers[n].bound_rtcp(slot, true);
                    }
                }
            }
        }
    }

    fn arrive(&mut self, n: usize, ms: u64) {
        let is_due = |flight: &mut Flight| flight.0 <= ms && self.ports[&flight.2].0 == n;
        let due: Vec<Flight> = self.flying.extract_if(.., is_due).collect();
        for (_, (_, from), to, mut bytes) in due {
            let ((_, slot, channel), now) = (self.ports[&to], self.at(ms));
            let worker = &mut self.workers[n];
            match channel {
                Channel::Rtcp => worker.handle_rtcp(slot, from, &bytes, now),
                Channel::Rtp => {
                    let len = bytes.len();
                    let sent = worker.handle_rtp(slot, from, (&mut bytes, len), now).map(owned);
                    if let Some(datagram) = sent {
                        self.fly(n, datagram, ms);
                    }
                }
            }
        }
    }

    fn fly(&mut self, n: usize, (slot, channel, to, bytes): Owned, ms: u64) {
        let mine = |port: &(usize, usize, Channel)| *port == (n, slot, channel);
        let from = *self.ports.iter().find(|(_, port)| mine(port)).unwrap().0;
        let (host, peer) = (HOSTS[n], HOSTS[self.ports[&to].0]);
        let lossy = self.losses.iter().find(|(a, b, _)| (*a, *b) == (host, peer));
        let is_lost = lossy.is_some_and(|(.., percent)| self.entropy.next_u64() % 100 < *percent);
        let is_mute = self.mute == Some(host);
        if channel == Channel::Rtcp || !(is_lost || is_mute) {
            self.flying.push((ms + DELAY_MS, (host, from), to, bytes));
        }
    }

    fn close(&mut self, leg: LegId) -> Quality {
        self.give(Host::Pbx, Command::Close { leg });
        let worker = &mut self.workers[Host::Pbx as usize];
        let events = std::iter::from_fn(|| worker.poll_event());
        let closed = |event| {
            if let Event::Closed { quality, .. } = event { Some(*quality) } else { None }
        };
        events.filter_map(closed).last().unwrap()
    }
}

type Owned = (usize, Channel, SocketAddr, Vec<u8>);

fn owned(datagram: Datagram<'_>) -> Owned {
    (datagram.slot, datagram.channel, datagram.to, datagram.packet.to_vec())
}

/// Lets a phone and a carrier speak to each other; returns what the PBX has measured of both.
fn measured(seed: u64, losses: &[(Host, Host, u64)], mute: Option<Host>) -> Vec<Quality> {
    let mut net = Net::new(seed, losses, mute);
    let (phone, carrier) = (net.open(Host::Phone, A), net.open(Host::Carrier, A));
    let (inside, outside) = (net.open(Host::Pbx, A), net.open(Host::Pbx, B));
    net.aim(Host::Pbx, A, phone);
    net.aim(Host::Pbx, B, carrier);
    let map = || PathMap::new().with(0, 0, Convert::Keep);
    net.give(Host::Pbx, Command::Bridge { a: A, b: B, a_to_b: map(), b_to_a: map() });
    for (host, to) in [(Host::Phone, inside), (Host::Carrier, outside)] {
        net.aim(host, A, to);
        let prompt = Prompt::new(tone::chord(&[440.0], Duration::from_secs(1), 0.3));
        net.give(host, Command::Play { leg: A, prompt, loops: true, token: 0 });
    }
    net.run();
    vec![net.close(A), net.close(B)]
}

/// Makes a call through the trunk on which that was measured, and returns what its record says.
fn recorded(qualities: Vec<Quality>) -> String {
    let mut world = House::new(1).twilio().phone("1001").open_registered();
    with_pbx(&mut world, |pbx, _| pbx.measure(qualities));
    with_phone(&mut world, "1001", |phone, _| {
        phone.when(On::Up, 5000, Act::HangUp);
    });
    act(&mut world, "1001", Act::Call("(415) 555-0199".into()));
    assert!(world.settle(Duration::from_secs(60)), "it comes to an end");
    cdr(&mut world).quality.expect("somebody talked")
}

#[test]
fn the_stretch_that_loses_is_the_one_that_is_blamed() {
    use Host::{Carrier, Pbx, Phone};
    for (seed, losses, mute, want) in [
        (1, &[][..], None, "good: loss at most 0 %"),
        (2, &[(Carrier, Pbx, 5)], None, "loss N % between carrier and PBX; none towards the phone"),
        (3, &[(Pbx, Phone, 5)], None, "loss N % towards the phone; none between carrier and PBX"),
        (4, &[(Phone, Pbx, 5)], None, "loss N % between phone and PBX; none towards the carrier"),
        (5, &[(Pbx, Carrier, 5)], None, "loss N % towards the carrier; none between phone and PBX"),
        (
            6,
            &[(Carrier, Pbx, 5), (Pbx, Phone, 5)],
            None,
            "loss N % between carrier and PBX, and N % towards the phone",
        ),
        (7, &[], Some(Phone), "the phone sent nothing: its NAT or firewall"),
        (8, &[], Some(Carrier), "nothing came from the carrier's media addresses"),
    ] {
        let said = recorded(measured(seed, losses, mute));
        // What chance makes of 5 %.
        let words = said.split(' ').map(|word| match word.parse::<f64>() {
            Ok(percent) if (3.0..=7.0).contains(&percent) => "N".to_owned(),
            Ok(_) | Err(_) => word.to_owned(),
        });
        let said = words.collect::<Vec<_>>().join(" ");
        assert!(said.starts_with(want), "seed {seed}: {said}");
    }
}
