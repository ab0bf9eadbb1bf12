//! Media threads: each drives one worker with its own sockets.
//!
//! Owns: the threads, the sockets of legs, the bounded queue of commands.
//! Never: decides what happens to a packet; the worker does.

use super::{marks::mark, now};
use crate::{
    config::Rtp,
    ids::Entropy,
    media::{
        Action, Channel, Command, DATAGRAM_MAX, Datagram, Event, PortRange, Settings, Worker,
        srtp::TRAILER_MAX,
    },
    observe::metrics,
};
use mio::{Events, Interest, Poll, Token, Waker, net::UdpSocket};
use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

/// Commands that may wait for a worker.
const COMMANDS_MAX: usize = 8192;
/// Readiness events taken at a time.
const READY_MAX: usize = 1024;
/// Packets read from one socket before the others have their turn.
const BURST_MAX: usize = 16;
/// How long the shard has to make room for events that did not fit.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// How often the counters are published.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);
/// A thread that has published nothing for this long hangs.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);
const WAKE: Token = Token(usize::MAX);

/// A running media thread.
#[derive(Debug)]
pub struct MediaWorker {
    handle: MediaHandle,
    thread: JoinHandle<()>,
}

/// The way to a media thread. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct MediaHandle {
    commands: SyncSender<Order>,
    waker: Arc<Waker>,
    published: watch::Receiver<Published>,
    /// Commands that neither the worker nor whoever waits for it had room for.
    lost: Arc<AtomicU64>,
}

/// The counters, and when they were read.
#[derive(Debug)]
struct Published {
    at: Instant,
    counters: metrics::Media,
}

#[derive(Debug)]
enum Order {
    Command(Command),
    #[cfg(test)]
    Panic,
    Stop,
}

/// A command that a worker did not take.
#[derive(Debug)]
pub enum Untaken {
    /// Its queue is full.
    Full(Box<Command>),
    /// Its thread has ended.
    Gone(Box<Command>),
}

impl MediaHandle {
    /// Hands over a command where there is room; never waits.
    pub fn try_send(&self, command: Command) -> Result<(), Untaken> {
        let sent = self.commands.try_send(Order::Command(command));
        // A worker that cannot be woken is gone.
        let _ = self.waker.wake();
        match sent {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Order::Command(command))) => Err(Untaken::Full(command.into())),
            Err(TrySendError::Disconnected(Order::Command(command))) => {
                Err(Untaken::Gone(command.into()))
            }
            // What comes back is what was handed over.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Counts a command that is lost.
    pub(super) fn count_lost(&self) {
        self.lost.fetch_add(1, Relaxed);
    }

    /// Returns the counters, a second old at most.
    pub fn counters(&self) -> metrics::Media {
        let commands_lost = self.lost.load(Relaxed);
        metrics::Media { commands_lost, ..self.published.borrow().counters.clone() }
    }

    /// Returns whether the thread has published them lately.
    pub fn is_alive(&self) -> bool {
        now().saturating_duration_since(self.published.borrow().at) < ALIVE_WITHIN
    }
}

impl MediaWorker {
    /// Starts as many threads as the configuration says, and splits the ports between them.
    pub fn spawn_all(rtp: &Rtp, events: &mpsc::Sender<Event>) -> io::Result<Vec<Self>> {
        let (first, last) = rtp.ports;
        let parts = PortRange { first, last }.split(rtp.workers);
        parts
            .into_iter()
            .enumerate()
            .map(|(index, ports)| {
                let legs = Legs { ports, silence: rtp.timeout, dscp: rtp.dscp };
                Self::spawn(index, legs, events.clone())
            })
            .collect()
    }

    fn spawn(index: usize, legs: Legs, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let Legs { ports, silence, dscp } = legs;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (commands, orders) = sync_channel(COMMANDS_MAX);
        let total = metrics::Media { ports_total: ports.pairs() as u64, ..Default::default() };
        let (publish, published) = watch::channel(Published { at: now(), counters: total });
        let worker = Worker::new(Settings { ports, silence }, Entropy::new(super::node::seed()?));
        let pairs = ports.pairs();
        let media = Thread { worker, poll, sockets: vec![], orders, events, publish, pairs, dscp };
        let thread =
            thread::Builder::new().name(format!("media-{index}")).spawn(move || media.live())?;
        let handle = MediaHandle { commands, waker, published, lost: Arc::default() };
        Ok(Self { handle, thread })
    }

    /// Returns the way to it.
    pub fn handle(&self) -> MediaHandle {
        self.handle.clone()
    }

    /// Ends the thread; its legs are dropped with their sockets. Blocks until it has ended.
    pub fn stop(self) {
        // Waits for room where the queue is full: the thread empties it.
        let told = self.handle.commands.send(Order::Stop).is_ok();
        let _ = self.handle.waker.wake();
        if told && self.thread.join().is_err() {
            tracing::error!("media thread panicked");
        }
    }
}

/// What the legs of one worker have in common.
#[derive(Clone, Copy, Debug)]
struct Legs {
    ports: PortRange,
    silence: Duration,
    dscp: u8,
}

/// The sockets of a leg.
#[derive(Debug)]
struct Pair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

/// What runs in the thread.
struct Thread {
    worker: Worker,
    poll: Poll,
    /// By slot.
    sockets: Vec<Option<Pair>>,
    orders: Receiver<Order>,
    events: mpsc::Sender<Event>,
    publish: watch::Sender<Published>,
    pairs: usize,
    dscp: u8,
}

impl Thread {
    /// Runs until it is told to stop. A panic costs the legs of this worker, not the thread.
    fn live(mut self) {
        while panic::catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            tracing::error!("media thread panicked");
            self.sockets.clear();
            self.worker.start_over();
        }
    }

    fn run(&mut self) {
        let mut ready = Events::with_capacity(READY_MAX);
        // One more than is relayed: what fills it may have been cut. Behind it, room to encrypt.
        let mut buffer = [0; DATAGRAM_MAX + 1 + TRAILER_MAX];
        let mut publish_at = now();
        loop {
            let wait = self.wait(publish_at);
            match self.poll.poll(&mut ready, Some(wait)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    tracing::error!(%error, "media poll failed");
                    self.worker.start_over();
                    return self.tell();
                }
                Ok(()) | Err(_) => {}
            }
            if !self.obey() {
                return;
            }
            for event in &ready {
                if event.token() != WAKE {
                    self.read(event.token().0, &mut buffer);
                    // What is due does not wait for a thousand sockets.
                    self.fire();
                }
            }
            self.fire();
            self.tell();
            if publish_at <= now() {
                publish_at = now() + PUBLISH_EVERY;
                self.publish();
            }
        }
    }

    fn wait(&mut self, publish_at: Instant) -> Duration {
        let retry = self.worker.has_events().then(|| now() + RETRY_AFTER);
        let due = [self.worker.poll_timeout(), retry, Some(publish_at)];
        due.into_iter()
            .flatten()
            .min()
            .map_or(PUBLISH_EVERY, |at| at.saturating_duration_since(now()))
    }

    /// Takes all commands; returns whether to go on.
    fn obey(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Command(command) => self.worker.handle_command(command, now()),
                #[cfg(test)]
                Order::Panic => panic!("ordered by a test"),
                Order::Stop => return false,
            }
            self.carry_out();
        }
        self.tell();
        true
    }

    /// Reads a socket until it is empty, or others have waited long enough. Registration is
    /// edge-triggered: what is left is asked for again.
    fn read(&mut self, token: usize, buffer: &mut [u8]) {
        let (slot, channel) = (token / 2, channel_of(token));
        for _ in 0..BURST_MAX {
            let Some(Some(pair)) = self.sockets.get(slot) else { return };
            let room = buffer.get_mut(..=DATAGRAM_MAX).unwrap_or_default();
            let received = match channel {
                Channel::Rtp => pair.rtp.recv_from(room),
                Channel::Rtcp => pair.rtcp.recv_from(room),
            };
            match received {
                Ok((len, from)) => {
                    let packet = (&mut *buffer, len);
                    take(&mut self.worker, &self.sockets, (slot, channel), from, packet);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An ICMP error for what was sent before; there may be packets behind it.
                Err(_) => {}
            }
        }
        self.ask_again(slot, channel);
    }

    fn ask_again(&mut self, slot: usize, channel: Channel) {
        if let Some(Some(pair)) = self.sockets.get_mut(slot) {
            let socket = match channel {
                Channel::Rtp => &mut pair.rtp,
                Channel::Rtcp => &mut pair.rtcp,
            };
            let token = token_of(slot, channel);
            if let Err(error) = self.poll.registry().reregister(socket, token, Interest::READABLE) {
                tracing::error!(%error, "media socket lost");
            }
        }
    }

    fn fire(&mut self) {
        let now = now();
        if self.worker.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        let (sockets, mut unsendable) = (&self.sockets, vec![]);
        self.worker.handle_timeout(now, &mut |datagram| {
            if !send(sockets, datagram) {
                unsendable.push(datagram.slot);
            }
        });
        for slot in unsendable {
            self.worker.note_unsendable(slot);
        }
    }

    /// Binds and closes what the worker asks for.
    fn carry_out(&mut self) {
        while let Some(action) = self.worker.poll_action() {
            match action {
                Action::Bind { slot, ip, port } => {
                    let bound = self.bind(slot, ip, port);
                    self.worker.bound(slot, bound.is_ok(), now());
                }
                Action::Unbind { slot } => {
                    if let Some(pair) = self.sockets.get_mut(slot) {
                        *pair = None;
                    }
                }
            }
        }
    }

    /// Passes on what the worker tells, as far as the shard has room for it.
    fn tell(&mut self) {
        while self.worker.has_events() {
            let permit = self.events.try_reserve();
            if matches!(permit, Err(mpsc::error::TrySendError::Full(()))) {
                return;
            }
            // Without a shard there is nobody to tell, and this thread will be told to stop.
            if let (Some(event), Ok(permit)) = (self.worker.poll_event(), permit) {
                permit.send(event);
            }
        }
    }

    fn bind(&mut self, slot: usize, ip: IpAddr, port: u16) -> io::Result<()> {
        let [mut rtp, mut rtcp] = [
            bound(SocketAddr::new(ip, port), self.dscp)?,
            bound(SocketAddr::new(ip, port.saturating_add(1)), self.dscp)?,
        ];
        let registry = self.poll.registry();
        registry.register(&mut rtp, token_of(slot, Channel::Rtp), Interest::READABLE)?;
        registry.register(&mut rtcp, token_of(slot, Channel::Rtcp), Interest::READABLE)?;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot.saturating_add(1), || None);
        }
        if let Some(place) = self.sockets.get_mut(slot) {
            *place = Some(Pair { rtp, rtcp });
        }
        Ok(())
    }

    fn publish(&self) {
        let counters = self.worker.counters();
        let (legs, free) = self.worker.usage();
        let mut media = metrics::Media {
            packets_relayed: counters.relayed,
            bytes_relayed: counters.relayed_bytes,
            packets_transcoded: counters.transcoded,
            packets_generated: counters.generated,
            reports: counters.reports,
            silences: counters.silences,
            open_failures: counters.open_failures,
            events_dropped: counters.events_dropped,
            legs: legs as u64,
            ports_used: self.pairs.saturating_sub(free) as u64,
            ports_total: self.pairs as u64,
            ..metrics::Media::default()
        };
        for (discard, n) in self.worker.discards().iter() {
            media.discards.add(discard.as_str(), n);
        }
        self.publish.send_replace(Published { at: now(), counters: media });
    }
}

fn bound(local: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    mark(&socket, local, dscp);
    Ok(socket)
}

fn token_of(slot: usize, channel: Channel) -> Token {
    Token(slot.saturating_mul(2).saturating_add(usize::from(channel == Channel::Rtcp)))
}

fn channel_of(token: usize) -> Channel {
    if token.is_multiple_of(2) { Channel::Rtp } else { Channel::Rtcp }
}

/// Gives a packet to the worker, and sends what becomes of it.
fn take(
    worker: &mut Worker,
    sockets: &[Option<Pair>],
    (slot, channel): (usize, Channel),
    from: SocketAddr,
    (buffer, len): (&mut [u8], usize),
) {
    let read_at = now();
    match channel {
        Channel::Rtcp => {
            let packet = buffer.get(..len).unwrap_or_default();
            worker.handle_rtcp(slot, from, packet, read_at);
        }
        Channel::Rtp => {
            let datagram = worker.handle_rtp(slot, from, (buffer, len), read_at);
            let Some(datagram) = datagram else { return };
            let sent_from = datagram.slot;
            if send(sockets, datagram) {
                worker.note_delay(slot, now().saturating_duration_since(read_at));
            } else {
                worker.note_unsendable(sent_from);
            }
        }
    }
}

/// Returns whether a packet was sent. One that cannot be is lost, as packets are.
fn send(sockets: &[Option<Pair>], datagram: Datagram<'_>) -> bool {
    let Some(Some(pair)) = sockets.get(datagram.slot) else { return false };
    let socket = match datagram.channel {
        Channel::Rtp => &pair.rtp,
        Channel::Rtcp => &pair.rtcp,
    };
    socket.send_to(datagram.packet, datagram.to).is_ok()
}

#[cfg(test)]
pub(super) mod tests;
