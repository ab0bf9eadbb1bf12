//! The network and everyone on it, in virtual time.
//!
//! Owns: the time, what is on its way, and the record of what was sent.
//! Never: sleeps; an hour of it passes in a moment.

use super::network::{Network, Partition};
use crate::{
    ids::{Entropy, Flow, Transport},
    observe::ladder::{Ladder, Line},
    sip::Message,
    tls::Failure,
};
use bytes::Bytes;
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Lines kept of a world's ladder.
const LADDER_MAX: usize = 100_000;
/// Steps in one instant after which a node that does not come to rest is given up.
const STEPS_MAX: u32 = 100_000;

/// Returns an arbitrary start of time. The only clock read in a simulation.
#[expect(clippy::disallowed_methods, reason = "virtual time must start somewhere")]
pub fn epoch() -> Instant {
    Instant::now()
}

/// How an address of a node can be reached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reach {
    /// As the network is.
    #[default]
    Open,
    /// Nothing comes back: what is sent there is lost, connections stall.
    Blackholed,
    /// Nobody listens: the sender is told (ICMP, RST).
    Refusing,
    /// Everything to it takes so much longer.
    Slow(Duration),
}

/// Anything with an address.
pub trait Node: Any {
    /// Accepts one message; over TCP, a whole one.
    fn receive(&mut self, flow: Flow, bytes: Bytes, now: Instant);
    /// Learns that a connection is gone, or that there never was one.
    fn closed(&mut self, flow: Flow, now: Instant) {
        let _ = (flow, now);
    }
    /// Learns of a TLS handshake of somebody who calls it: the name that was asked for, or why there
    /// is no connection.
    fn secured(&mut self, flow: Flow, shaken: Result<Option<Box<str>>, Failure>) {
        let _ = (flow, shaken);
    }
    /// Returns the next connection that it closes.
    fn poll_close(&mut self) -> Option<Flow> {
        None
    }
    /// Returns how one of its addresses can be reached. What goes to a blackholed one is handed over
    /// all the same, for the node to see what it must not take.
    fn reach(&self, address: SocketAddr) -> Reach {
        let _ = address;
        Reach::Open
    }
    /// Fires what is due.
    fn handle_timeout(&mut self, now: Instant);
    /// Returns when to fire next.
    fn poll_timeout(&mut self) -> Option<Instant>;
    /// Returns the next message to send.
    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)>;
    /// Returns whether nothing is left of what it was asked to do.
    fn is_idle(&self) -> bool;
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It arrives then, and perhaps once more.
    Arrives {
        /// From the beginning of time.
        at_ms: u64,
    },
    /// The network lost it.
    Lost,
    /// Nobody has that address.
    NobodyThere,
}

/// A SIP message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When, from the beginning of time.
    pub at_ms: u64,
    /// Who sent it.
    pub from: Box<str>,
    /// To whom; an address, where nobody has it.
    pub to: Box<str>,
    /// The way, as the sender sees it.
    pub flow: Flow,
    /// What.
    pub message: Message,
    /// What became of it.
    pub fate: Fate,
}

/// How often what was to go wrong did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hindered {
    /// Messages that were lost, or stalled, because two were kept apart.
    pub parted: u64,
    /// Messages to an address that could not be reached as it should.
    pub unreached: u64,
    /// Connections that were ended.
    pub disconnected: u64,
}

/// What waits for its time.
enum Due {
    /// A message, the way as the receiver sees it.
    Message(Flow, Bytes),
    /// The end of a connection, as the one who is told sees it.
    Closed(Flow),
    /// Something that a test does.
    Plan(Box<dyn FnOnce(&mut World)>),
}

/// The network and everyone on it.
pub struct World {
    network: Network,
    entropy: Entropy,
    epoch: Instant,
    now: Instant,
    nodes: BTreeMap<Box<str>, Box<dyn Node>>,
    addresses: BTreeMap<SocketAddr, Box<str>>,
    serial: u64,
    due: BTreeMap<(Instant, u64), Due>,
    /// When the last message of a connection arrives, by sender and receiver.
    streams: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    partitions: Vec<Partition>,
    /// Who accepts no connections.
    datagrams_only: BTreeSet<Box<str>>,
    hindered: Hindered,
    sent: Vec<Sent>,
    ladder: Ladder,
}

impl World {
    /// Creates an empty world; the same seed and the same nodes give the same history.
    pub fn new(seed: u64, network: Network) -> Self {
        let epoch = epoch();
        Self {
            network,
            entropy: Entropy::from_u64(seed),
            epoch,
            now: epoch,
            nodes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            serial: 0,
            due: BTreeMap::new(),
            streams: BTreeMap::new(),
            partitions: vec![],
            datagrams_only: BTreeSet::new(),
            hindered: Hindered::default(),
            sent: vec![],
            ladder: Ladder::with_limit(epoch, LADDER_MAX),
        }
    }

    /// Connects a node under all its addresses.
    pub fn add(&mut self, name: &str, addresses: &[SocketAddr], node: impl Node) {
        self.nodes.insert(name.into(), Box::new(node));
        self.addresses.extend(addresses.iter().map(|address| (*address, name.into())));
    }

    /// Makes now the beginning of time, and forgets what was sent before.
    pub fn begin_again(&mut self) {
        self.epoch = self.now;
        self.sent.clear();
        self.ladder = Ladder::with_limit(self.epoch, LADDER_MAX);
    }

    /// Returns the virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Returns the virtual time in milliseconds since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.ms(self.now)
    }

    /// Changes the network from now on.
    pub fn set_network(&mut self, network: Network) {
        self.network = network;
    }

    /// Makes a node refuse every connection from now on.
    pub fn refuse_streams(&mut self, node: &str) {
        self.datagrams_only.insert(node.into());
    }

    /// Keeps two nodes apart for a time: datagrams are lost, connections stall.
    pub fn partition(&mut self, a: &str, b: &str, from_ms: u64, until_ms: u64) {
        let (from, until) = (self.instant(from_ms), self.instant(until_ms));
        self.partitions.push(Partition { between: [a.into(), b.into()], from, until });
    }

    /// Ends every connection between two nodes; both learn of it, and what is under way is lost.
    pub fn disconnect(&mut self, a: &str, b: &str) {
        let is_between = |world: &Self, from, to| {
            let (from, to) = (world.owner(from), world.owner(to));
            (from, to) == (Some(a), Some(b)) || (from, to) == (Some(b), Some(a))
        };
        let mut flows = vec![];
        for (from, to) in self.streams.keys().copied().collect::<Vec<_>>() {
            if is_between(self, from, to) {
                self.streams.remove(&(from, to));
                self.hindered.disconnected += 1;
                flows.push(Flow { transport: Transport::Tcp, local: from, remote: to });
                flows.push(Flow { transport: Transport::Tcp, local: to, remote: from });
            }
        }
        flows.sort_unstable();
        flows.dedup();
        self.due.retain(|_, due| match due {
            Due::Message(flow, _) => !flows.contains(flow),
            Due::Closed(_) | Due::Plan(_) => true,
        });
        let now_ms = self.now_ms();
        let is_under_way = |sent: &&mut Sent| {
            flows.contains(&sent.flow)
                && matches!(sent.fate, Fate::Arrives { at_ms } if at_ms >= now_ms)
        };
        self.sent.iter_mut().filter(is_under_way).for_each(|sent| sent.fate = Fate::Lost);
        for flow in flows {
            self.schedule(self.now, Due::Closed(flow));
        }
    }

    /// Returns what has gone wrong so far.
    pub fn hindered(&self) -> Hindered {
        self.hindered
    }

    /// Does something at a time, or now if that has passed.
    pub fn at(&mut self, ms: u64, plan: impl FnOnce(&mut Self) + 'static) {
        let at = self.instant(ms).max(self.now);
        self.schedule(at, Due::Plan(Box::new(plan)));
    }

    /// Gives access to a node. `None` if there is none of that name and type.
    pub fn with<N: Node, R>(
        &mut self,
        name: &str,
        act: impl FnOnce(&mut N, Instant) -> R,
    ) -> Option<R> {
        let node: &mut dyn Any = &mut **self.nodes.get_mut(name)?;
        let result = act(node.downcast_mut()?, self.now);
        self.collect();
        Some(result)
    }

    /// Runs until nobody has anything to do, or time is up; returns whether it was the former.
    pub fn run(&mut self, limit: Duration) -> bool {
        self.run_to(self.epoch + limit)
    }

    /// Runs until nothing is under way and every node is idle, though some may have timers that
    /// never end (registrations, OPTIONS); returns whether that was before the limit.
    pub fn settle(&mut self, limit: Duration) -> bool {
        let until = self.now + limit;
        let mut steps = 0;
        loop {
            self.collect();
            if self.due.is_empty() && self.nodes.values().all(|node| node.is_idle()) {
                return true;
            }
            let Some(next) = self.next_event().filter(|next| *next <= until) else { return false };
            steps = if next == self.now { steps + 1 } else { 0 };
            if steps > STEPS_MAX {
                self.ladder.event("world", "a node does not come to rest", self.now);
                return false;
            }
            self.step(next);
        }
    }

    /// Runs until that time, whether or not anybody has anything to do.
    pub fn run_until(&mut self, ms: u64) {
        let until = self.instant(ms);
        self.run_to(until);
        self.now = until.max(self.now);
    }

    /// Returns what happened, one line a message.
    pub fn ladder(&self) -> String {
        self.ladder.to_string()
    }

    /// Returns every SIP message that was sent, in order.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// Returns the names of those who are not idle.
    pub fn busy(&self) -> Vec<&str> {
        let busy = self.nodes.iter().filter(|(_, node)| !node.is_idle());
        busy.map(|(name, _)| &**name).collect()
    }

    fn run_to(&mut self, until: Instant) -> bool {
        let mut steps = 0;
        loop {
            self.collect();
            let Some(next) = self.next_event() else { return true };
            if next > until {
                return false;
            }
            steps = if next == self.now { steps + 1 } else { 0 };
            if steps > STEPS_MAX {
                self.ladder.event("world", "a node does not come to rest", self.now);
                return false;
            }
            self.step(next);
        }
    }

    fn next_event(&mut self) -> Option<Instant> {
        let due = self.due.keys().next().map(|(at, _)| *at);
        let timers = self.nodes.values_mut().filter_map(|node| node.poll_timeout());
        let next = due.into_iter().chain(timers).min()?;
        Some(next.max(self.now))
    }

    /// Does the one thing that is next: what was planned or sent, else what is timed.
    fn step(&mut self, at: Instant) {
        self.now = at;
        match self.due.first_entry().filter(|entry| entry.key().0 <= at) {
            Some(entry) => match entry.remove() {
                Due::Plan(plan) => plan(self),
                Due::Message(flow, bytes) => {
                    let reach = self.node_at(flow.local).map(|node| node.reach(flow.local));
                    if matches!(reach, Some(Reach::Blackholed | Reach::Refusing)) {
                        self.lose(flow);
                    }
                    if let Some(node) = self.node_at(flow.local) {
                        node.receive(flow, bytes, at);
                    }
                }
                Due::Closed(flow) => {
                    if let Some(node) = self.node_at(flow.local) {
                        node.closed(flow, at);
                    }
                }
            },
            None => {
                for node in self.nodes.values_mut() {
                    if node.poll_timeout().is_some_and(|deadline| deadline <= at) {
                        node.handle_timeout(at);
                    }
                }
            }
        }
    }

    /// Notes that what arrives now arrives where nobody can be reached any more.
    fn lose(&mut self, seen_there: Flow) {
        let flow = Flow { local: seen_there.remote, remote: seen_there.local, ..seen_there };
        let arrives = Fate::Arrives { at_ms: self.now_ms() };
        let mut latest = self.sent.iter_mut().rev();
        if let Some(sent) = latest.find(|sent| sent.flow == flow && sent.fate == arrives) {
            sent.fate = Fate::Lost;
        }
    }

    /// Takes what the nodes want to send.
    fn collect(&mut self) {
        let mut outbox = vec![];
        for (name, node) in &mut self.nodes {
            while let Some((flow, bytes)) = node.poll_transmit() {
                outbox.push((name.clone(), flow, bytes));
            }
        }
        for (from, flow, bytes) in outbox {
            self.transmit(from, flow, bytes);
        }
        let closes = |node: &mut Box<dyn Node>| std::iter::from_fn(|| node.poll_close()).collect();
        let closed: Vec<Vec<Flow>> = self.nodes.values_mut().map(closes).collect();
        for flow in closed.into_iter().flatten() {
            self.streams.remove(&(flow.local, flow.remote));
            self.streams.remove(&(flow.remote, flow.local));
            let seen_there = Flow { local: flow.remote, remote: flow.local, ..flow };
            self.schedule(self.now + self.network.latency, Due::Closed(seen_there));
        }
    }

    fn transmit(&mut self, from: Box<str>, flow: Flow, bytes: Bytes) {
        let seen_there = Flow { local: flow.remote, remote: flow.local, ..flow };
        let refuses = |to: &str| flow.transport.is_reliable() && self.datagrams_only.contains(to);
        let owner = self.owner(flow.remote).filter(|to| !refuses(to));
        let (to, fate) = match owner.map(Box::<str>::from) {
            Some(to) => {
                let reach = self.nodes.get(&to).map_or(Reach::Open, |node| node.reach(flow.remote));
                self.hindered.unreached += u64::from(reach != Reach::Open);
                if reach == Reach::Refusing {
                    self.schedule(self.now + self.network.latency, Due::Closed(flow));
                    return self.note(from, to, flow, &bytes, Fate::NobodyThere);
                }
                let arrivals = self.arrivals(&from, &to, flow, reach);
                for at in &arrivals {
                    self.schedule(*at, Due::Message(seen_there, bytes.clone()));
                }
                let first = arrivals.into_iter().min().filter(|_| reach != Reach::Blackholed);
                let fate = first.map_or(Fate::Lost, |at| Fate::Arrives { at_ms: self.ms(at) });
                (to, fate)
            }
            None => {
                if flow.transport.is_reliable() {
                    self.schedule(self.now + self.network.latency, Due::Closed(flow));
                }
                (flow.remote.to_string().into(), Fate::NobodyThere)
            }
        };
        self.note(from, to, flow, &bytes, fate);
    }

    fn arrivals(&mut self, from: &str, to: &str, flow: Flow, reach: Reach) -> Vec<Instant> {
        let now = self.now;
        let mut arrivals = self.network.arrivals(flow.transport, now, &mut self.entropy);
        if let Reach::Slow(by) = reach {
            arrivals.iter_mut().for_each(|at| *at += by);
        }
        let parted = self.partitions.iter().filter_map(|p| p.parts(from, to, now)).max();
        self.hindered.parted += u64::from(parted.is_some());
        match (flow.transport, parted) {
            (Transport::Udp, Some(_)) => arrivals.clear(),
            (Transport::Udp, None) => {}
            (Transport::Tcp | Transport::Tls, parted) => {
                let stalled = parted.map_or(Duration::ZERO, |until| until - now);
                let last = self.streams.entry((flow.local, flow.remote)).or_insert(now);
                for at in &mut arrivals {
                    *at = (*at + stalled).max(*last);
                    *last = *at;
                }
            }
        }
        arrivals
    }

    /// Writes a message down. Keep-alives are not worth a line.
    fn note(&mut self, from: Box<str>, to: Box<str>, flow: Flow, bytes: &Bytes, fate: Fate) {
        if bytes.trim_ascii().is_empty() {
            return;
        }
        let Ok(message) = Message::parse(bytes.clone()) else {
            self.ladder.event(&from, "not SIP", self.now);
            return;
        };
        let line = match fate {
            Fate::Arrives { .. } => describe(&message),
            Fate::Lost => describe(&message).with_note("lost"),
            Fate::NobodyThere => describe(&message).with_note("nobody there"),
        };
        self.ladder.record(&from, &to, line, self.now);
        self.sent.push(Sent { at_ms: self.now_ms(), from, to, flow, message, fate });
    }

    fn schedule(&mut self, at: Instant, due: Due) {
        self.serial += 1;
        self.due.insert((at, self.serial), due);
    }

    fn node_at(&mut self, address: SocketAddr) -> Option<&mut Box<dyn Node>> {
        self.nodes.get_mut(self.addresses.get(&address)?)
    }

    fn owner(&self, address: SocketAddr) -> Option<&str> {
        self.addresses.get(&address).map(|name| &**name)
    }

    fn instant(&self, ms: u64) -> Instant {
        self.epoch + Duration::from_millis(ms)
    }

    fn ms(&self, at: Instant) -> u64 {
        u64::try_from((at - self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

fn describe(message: &Message) -> Line<'_> {
    let (method, number) = (message.method_token(), message.cseq().number);
    let line = if message.is_request() {
        Line::request(method, number)
    } else {
        let reason = String::from_utf8_lossy(message.reason());
        Line::response(message.status(), reason, method, number)
    };
    line.with_sdp(message.sdp().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Sends what it is told to; keeps what it gets.
    #[derive(Default)]
    struct Post {
        outbox: VecDeque<(Flow, Bytes)>,
        got: Vec<u32>,
        closed: Vec<Flow>,
        alarm: Option<Instant>,
    }

    impl Node for Post {
        fn receive(&mut self, _: Flow, bytes: Bytes, _: Instant) {
            self.got.push(Message::parse(bytes).unwrap().cseq().number);
        }
        fn closed(&mut self, flow: Flow, _: Instant) {
            self.closed.push(flow);
        }
        fn handle_timeout(&mut self, _: Instant) {
            self.alarm = None;
        }
        fn poll_timeout(&mut self) -> Option<Instant> {
            self.alarm
        }
        fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
            self.outbox.pop_front()
        }
        fn is_idle(&self) -> bool {
            self.alarm.is_none()
        }
    }

    #[test]
    fn a_clean_network_delivers_in_order_and_writes_a_ladder() {
        let mut world = world(1, Network::CLEAN);
        world.at(0, |world| send(world, Transport::Udp, 1..=1));
        world.at(500, |world| send(world, Transport::Tcp, 2..=2));
        assert!(world.run(Duration::from_secs(1)));
        assert_eq!(world.now_ms(), 520);
        assert_eq!(got(&mut world), [1, 2]);
        assert_eq!(world.ladder(), "     0 ms  a -> b  OPTIONS\n   500 ms  a -> b  OPTIONS\n");
    }

    #[test]
    fn a_bad_network_loses_doubles_and_reorders_datagrams() {
        let mut world = world(1, Network::BAD);
        send(&mut world, Transport::Udp, 1..=1000);
        assert!(world.run(Duration::from_secs(1)));
        let got = got(&mut world);
        let lost = world.sent().iter().filter(|sent| sent.fate == Fate::Lost).count();
        assert!((150..250).contains(&lost), "{lost}");
        assert!(world.ladder().matches("[lost]").count() == lost);
        let twice = got.len() + lost - 1000;
        assert!((50..110).contains(&twice), "{twice}");
        assert!(!got.is_sorted());
    }

    #[test]
    fn a_bad_network_delivers_streams_whole_and_in_order() {
        let mut world = world(1, Network::BAD);
        send(&mut world, Transport::Tcp, 1..=1000);
        world.run(Duration::from_secs(1));
        assert_eq!(got(&mut world), (1..=1000).collect::<Vec<_>>());
    }

    #[test]
    fn the_same_seed_is_the_same_history() {
        let ladder = |seed| {
            let mut world = world(seed, Network::BAD);
            send(&mut world, Transport::Udp, 1..=100);
            world.run(Duration::from_secs(1));
            world.ladder()
        };
        assert_eq!(ladder(7), ladder(7));
        assert_ne!(ladder(7), ladder(8));
    }

    #[test]
    fn a_partition_loses_datagrams_and_stalls_streams() {
        let mut world = world(1, Network::CLEAN);
        world.partition("b", "a", 100, 200);
        world.at(150, |world| send(world, Transport::Udp, 1..=1));
        world.at(150, |world| send(world, Transport::Tcp, 2..=2));
        world.at(200, |world| send(world, Transport::Udp, 3..=3));
        world.run_until(219);
        assert!(got(&mut world).is_empty());
        world.run_until(300);
        assert_eq!(got(&mut world), [2, 3]);
        assert_eq!(world.now_ms(), 300);
    }

    #[test]
    fn a_connection_can_end_or_never_begin() {
        let mut world = world(1, Network::CLEAN);
        send(&mut world, Transport::Tcp, 1..=1);
        world.at(50, |world| {
            send(world, Transport::Tcp, 2..=2);
            world.disconnect("b", "a");
        });
        let nowhere = Flow { remote: addr(9), ..flow(Transport::Tcp) };
        world.at(60, move |world| {
            world.with("a", |post: &mut Post, _| post.outbox.push_back((nowhere, options(3))));
        });
        world.run(Duration::from_secs(1));
        assert_eq!(got(&mut world), [1]);
        let closed = |world: &mut World, name| {
            world.with(name, |post: &mut Post, _| post.closed.clone()).unwrap()
        };
        assert_eq!(closed(&mut world, "a"), [flow(Transport::Tcp), nowhere]);
        let seen_there = Flow { local: addr(2), remote: addr(1), transport: Transport::Tcp };
        assert_eq!(closed(&mut world, "b"), [seen_there]);
        assert!(world.ladder().contains("a -> 127.0.0.1:9  OPTIONS  [nobody there]"));
    }

    #[test]
    fn time_stops_at_the_limit_and_names_the_busy() {
        let mut world = world(1, Network::CLEAN);
        world.with("b", |post: &mut Post, now| post.alarm = Some(now + Duration::from_secs(9)));
        assert!(!world.run(Duration::from_secs(8)));
        assert_eq!(world.busy(), ["b"]);
        assert!(world.run(Duration::from_secs(9)));
        assert!(world.busy().is_empty());
        assert!(world.with("c", |_: &mut Post, _| ()).is_none());
    }

    fn world(seed: u64, network: Network) -> World {
        let mut world = World::new(seed, network);
        world.add("a", &[addr(1)], Post::default());
        world.add("b", &[addr(2)], Post::default());
        world
    }

    fn send(world: &mut World, transport: Transport, numbers: std::ops::RangeInclusive<u32>) {
        world.with("a", |post: &mut Post, _| {
            post.outbox.extend(numbers.map(|n| (flow(transport), options(n))));
        });
    }

    fn got(world: &mut World) -> Vec<u32> {
        world.with("b", |post: &mut Post, _| post.got.clone()).unwrap()
    }

    fn flow(transport: Transport) -> Flow {
        Flow { transport, local: addr(1), remote: addr(2) }
    }

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn options(number: u32) -> Bytes {
        Bytes::from(format!(
            "OPTIONS sip:b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK{number}\r\n\
             From: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: c\r\nCSeq: {number} OPTIONS\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        ))
    }
}
