//! Drives one shard: wait for one thing, tell the shard, carry out everything it asks for, repeat.
//!
//! Owns: the shard, the streams to its peers, the order of what it hears.
//! Never: decides anything about a call.

use super::{
    helpers::Helpers,
    media_line::{MediaLine, RETRY_AFTER},
    now,
    peers::{Peer, Peers},
    store::{self, Write},
    stream::{End, Opener, Streams, Writer},
};
use crate::{
    call::Record,
    config::Config,
    guard::Account,
    ids::{CallId, Flow, Transport},
    media,
    observe::{
        ladder::Rungs,
        metrics,
        status::{BudgetRow, CallDetail, CallSummary, TrunkRow},
    },
    shard::{Answer, Output, Pulse, Shard},
    tls::Failure,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval, sleep_until},
};

/// Messages that may wait for the shard. Above, the newest are dropped: SIP retransmits.
const PACKETS_MAX: usize = 8192;
/// Messages taken in one go before deadlines are looked at again.
const BATCH_MAX: usize = 64;
/// How long peers may take to answer our BYE when the node ends.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// How often the shard is told the time of day.
const CLOCK_EVERY: Duration = Duration::from_secs(1);

/// What the network has for the shard.
#[derive(Debug)]
pub(super) enum Packet {
    /// One message, or what should be one.
    Message {
        /// Where from.
        flow: Flow,
        /// The bytes.
        bytes: Bytes,
    },
    /// A peer has opened a connection.
    Opened {
        /// Which.
        flow: Flow,
        /// The way back.
        writer: Writer,
    },
    /// A connection is gone, or could not be opened.
    Closed {
        /// Which.
        flow: Flow,
        /// What it leaves.
        end: End,
    },
}

/// The bounded way into the shard.
#[derive(Clone, Debug)]
pub(super) struct Ingress {
    packets: mpsc::Sender<Packet>,
    dropped: Arc<AtomicU64>,
}

impl Ingress {
    /// Creates the queue.
    pub(super) fn new() -> (Self, mpsc::Receiver<Packet>) {
        let (packets, queue) = mpsc::channel(PACKETS_MAX);
        (Self { packets, dropped: Arc::default() }, queue)
    }

    /// Hands over a datagram, or drops it where the shard does not keep up.
    pub(super) fn offer(&self, packet: Packet) {
        if self.packets.try_send(packet).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Hands over what must not be lost; the connection waits meanwhile.
    pub(super) async fn tell(&self, packet: Packet) {
        let _ = self.packets.send(packet).await;
    }

    /// Returns whether the shard is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.packets.is_closed()
    }
}

/// How each contact of each user answers.
pub(super) type Pulses = BTreeMap<(Box<str>, Box<str>), Pulse>;

/// What operators want of the shard.
#[derive(Debug)]
pub(super) enum Order {
    /// Take a new configuration.
    Configure(Arc<Config>),
    /// Refuse new calls; the loop ends when the last call has.
    Drain,
    /// End all calls; the loop ends soon.
    Stop,
    /// End a call.
    HangUp(CallId, oneshot::Sender<bool>),
    /// List the calls.
    Calls(oneshot::Sender<Vec<CallSummary>>),
    /// Tell about one call.
    Call(CallId, oneshot::Sender<Option<CallDetail>>),
    /// Draw one call's messages.
    Ladder(CallId, oneshot::Sender<Option<Rungs>>),
    /// List the trunks.
    Trunks(oneshot::Sender<Vec<TrunkRow>>),
    /// List the budgets.
    Budgets(oneshot::Sender<Vec<BudgetRow>>),
    /// Forget what was used of a budget.
    ResetBudget(Account, oneshot::Sender<bool>),
    /// Count the calls of some users.
    CallsOf(Vec<Box<str>>, oneshot::Sender<Vec<u64>>),
    /// Tell how the phones answer OPTIONS.
    Pulses(oneshot::Sender<Pulses>),
    /// Read the counters.
    Counters(oneshot::Sender<(metrics::Shard, metrics::Transports)>),
}

/// Everything that the loop hears.
pub(super) struct Ears {
    pub(super) packets: mpsc::Receiver<Packet>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) media: mpsc::Receiver<media::Event>,
    pub(super) answers: mpsc::Receiver<Answer>,
}

/// Everything that the loop acts with.
pub(super) struct Hands {
    pub(super) udp: Vec<Arc<UdpSocket>>,
    pub(super) opener: Opener,
    pub(super) media: Vec<MediaLine>,
    pub(super) helpers: Helpers,
    pub(super) store: store::Handle,
    pub(super) ingress: Ingress,
}

/// When the loop ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    /// Not yet.
    Open,
    /// With the last call.
    Draining,
    /// With the last call, or then.
    Stopping(Instant),
}

/// One shard and its ways out.
pub(super) struct ShardLoop {
    shard: Shard,
    hands: Hands,
    streams: Streams,
    peers: Peers,
    /// Trunks of whose TLS an operator has been told, and with which code.
    warned: BTreeSet<(Box<str>, &'static str)>,
    /// The socket for each of our addresses.
    sockets: BTreeMap<SocketAddr, Arc<UdpSocket>>,
    transports: metrics::Transports,
    ending: Ending,
}

impl ShardLoop {
    pub(super) fn new(shard: Shard, hands: Hands) -> Self {
        let address = |socket: &Arc<UdpSocket>| Some((socket.local_addr().ok()?, socket.clone()));
        let sockets = hands.udp.iter().filter_map(address).collect();
        Self {
            shard,
            hands,
            streams: Streams::default(),
            peers: Peers::default(),
            warned: BTreeSet::new(),
            sockets,
            transports: metrics::Transports::default(),
            ending: Ending::Open,
        }
    }

    /// Takes the names that peers over TLS must have.
    pub(super) fn know_peers(&mut self, config: &Config) {
        self.peers.configure(config);
        self.warned.clear();
    }

    /// Runs until drained, or until nobody can speak to it any more.
    pub(super) async fn run(mut self, mut ears: Ears) {
        let mut clock = interval(CLOCK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.carry_out();
        while !self.is_over() {
            let deadline = self.deadline();
            tokio::select! {
                biased; // Deadlines first: under overload, finishing old work beats accepting new.
                () = sleep_to(deadline) => self.shard.handle_timeout(now()),
                _ = clock.tick() => self.shard.set_clock(now(), SystemTime::now()),
                order = ears.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some(event) = ears.media.recv() => self.shard.handle_media(event, now()),
                Some(answer) = ears.answers.recv() => {
                    self.peers.answered(&answer);
                    self.shard.handle_answer(answer, now());
                }
                Some(packet) = ears.packets.recv() => self.take(packet, &mut ears.packets),
            }
            self.carry_out();
        }
        self.shard.cut_all(now());
        self.carry_out();
    }

    fn is_over(&self) -> bool {
        match self.ending {
            Ending::Open => false,
            Ending::Draining => self.shard.is_idle(),
            Ending::Stopping(at) => self.shard.is_idle() || at <= now(),
        }
    }

    fn deadline(&mut self) -> Option<Instant> {
        let ending = match self.ending {
            Ending::Open | Ending::Draining => None,
            Ending::Stopping(at) => Some(at),
        };
        let is_behind = self.hands.media.iter().any(MediaLine::is_behind);
        let retry = is_behind.then(|| now() + RETRY_AFTER);
        [self.shard.poll_timeout(), ending, retry].into_iter().flatten().min()
    }

    /// Takes what has come, up to a batch; what is left waits until deadlines were looked at.
    fn take(&mut self, first: Packet, more: &mut mpsc::Receiver<Packet>) {
        self.take_one(first);
        for _ in 1..BATCH_MAX {
            let Ok(packet) = more.try_recv() else { return };
            self.carry_out();
            self.take_one(packet);
        }
    }

    fn take_one(&mut self, packet: Packet) {
        match packet {
            Packet::Message { flow, bytes } => {
                self.transports.received.count(flow.transport.param());
                self.shard.handle_message(flow, bytes, now());
            }
            Packet::Opened { flow, writer } => self.streams.opened(flow, writer),
            Packet::Closed { flow, end } => self.end(flow, end),
        }
    }

    /// A connection has ended. What was to be sent on it goes over another one; where there is none
    /// to be had, the shard must know.
    fn end(&mut self, flow: Flow, end: End) {
        if let Some(why) = &end.failure
            && flow.transport == Transport::Tls
        {
            self.transports.handshake_failures.count(why.word());
            self.warn(flow, why);
        }
        if self.streams.closed(flow) && end.unsent.is_empty() {
            self.shard.handle_flow_failed(flow, now());
        }
        for bytes in end.unsent {
            self.transmit(flow, bytes);
        }
    }

    /// Tells once what keeps us from a trunk, and what to do.
    fn warn(&mut self, flow: Flow, why: &Failure) {
        let Some(Peer { host, trunk: Some(trunk) }) = self.peers.at(flow.remote) else { return };
        let code = why.code();
        if self.warned.insert((trunk.clone(), code)) {
            let help = why.help();
            tracing::warn!(trunk = &*trunk, %flow, host = &*host, code, %why, help, "no TLS");
        }
    }

    fn obey(&mut self, order: Order) {
        // A reply that nobody waits for any more is no error.
        match order {
            Order::Configure(config) => {
                self.know_peers(&config);
                self.shard.configure(config, now());
            }
            Order::Drain => {
                self.shard.drain();
                if self.ending == Ending::Open {
                    self.ending = Ending::Draining;
                }
            }
            Order::Stop => {
                self.ending = Ending::Stopping(now() + STOP_GRACE);
                self.shard.end_all(now());
            }
            Order::HangUp(call, reply) => _ = reply.send(self.shard.hang_up(call, now())),
            Order::Calls(reply) => _ = reply.send(self.shard.calls(now())),
            Order::Call(call, reply) => _ = reply.send(self.shard.call(call, now())),
            Order::Ladder(call, reply) => _ = reply.send(self.shard.ladder(call)),
            Order::Trunks(reply) => _ = reply.send(self.shard.trunks(now())),
            Order::Budgets(reply) => _ = reply.send(self.shard.budgets(now())),
            Order::ResetBudget(account, reply) => {
                _ = reply.send(self.shard.reset_budget(&account));
            }
            Order::CallsOf(users, reply) => {
                _ = reply.send(users.iter().map(|user| self.shard.calls_of(user)).collect());
            }
            Order::Pulses(reply) => _ = reply.send(self.shard.pulses()),
            Order::Counters(reply) => {
                let mut transports = self.transports.clone();
                transports.ingress_dropped = self.hands.ingress.dropped.load(Relaxed);
                transports.connections = self.streams.len(Transport::Tcp) as u64;
                transports.tls_connections = self.streams.len(Transport::Tls) as u64;
                transports.handshake_failures.add("accepted", self.hands.opener.refusals());
                _ = reply.send((self.shard.counters(), transports));
            }
        }
    }

    /// Drains the shard's outbox completely.
    fn carry_out(&mut self) {
        self.hands.media.iter_mut().for_each(MediaLine::retry);
        while let Some(output) = self.shard.poll_output() {
            match output {
                Output::Transmit { flow, bytes } => self.transmit(flow, bytes),
                Output::Media(call, command) => self.media(call, command),
                Output::Ask(ask) => {
                    self.peers.asked(&ask);
                    self.hands.helpers.ask(ask);
                }
                Output::Record(record) => self.hands.store.write(match record {
                    Record::Cdr(cdr) => Write::Cdr(cdr),
                    Record::Bind(binding) => Write::Bind(binding),
                    Record::Unbind { aor, contact } => Write::Unbind { aor, contact },
                }),
            }
        }
    }

    fn transmit(&mut self, flow: Flow, bytes: Bytes) {
        let word = flow.transport.param();
        let sent = match flow.transport {
            Transport::Udp => self.send_datagram(flow, &bytes),
            Transport::Tcp | Transport::Tls => {
                let peer = || self.peers.at(flow.remote);
                match self.streams.send(flow, bytes, &self.hands.opener, peer) {
                    true => Ok(()),
                    false => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        };
        match sent {
            Ok(()) => self.transports.sent.count(word),
            Err(error) => {
                self.transports.send_errors.count(word);
                tracing::debug!(%flow, %error, "send failed");
                // A full buffer passes; a datagram is sent again. Anything else will not.
                if flow.transport.is_reliable() || error.kind() != io::ErrorKind::WouldBlock {
                    self.shard.handle_flow_failed(flow, now());
                }
            }
        }
    }

    fn send_datagram(&self, flow: Flow, bytes: &Bytes) -> io::Result<()> {
        let is_wild = |address: &&SocketAddr| {
            address.ip().is_unspecified()
                && address.port() == flow.local.port()
                && address.is_ipv4() == flow.local.is_ipv4()
        };
        let socket = match self.sockets.get(&flow.local) {
            Some(socket) => Some(socket),
            None => self.sockets.keys().find(is_wild).and_then(|at| self.sockets.get(at)),
        };
        let socket = socket.ok_or(io::ErrorKind::AddrNotAvailable)?;
        socket.try_send_to(bytes, flow.remote).map(|_| ())
    }

    fn media(&mut self, call: CallId, command: media::Command) {
        let workers = self.hands.media.len().max(1);
        let worker = usize::try_from(call.0).unwrap_or(0) % workers;
        let refused = match self.hands.media.get_mut(worker) {
            Some(worker) => worker.send(command).err(),
            None => Some(command),
        };
        // A full queue refuses the call (503); what closes or changes a leg waits for room.
        if let Some(media::Command::Open { leg, .. }) = refused {
            let refusal = media::OpenRefusal::TooManyLegs;
            self.shard.handle_media(media::Event::OpenFailed { leg, refusal }, now());
        }
    }
}

async fn sleep_to(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
