//! Media threads, and the way to them.
//!
//! Owns: the threads, the bounded queue of commands, the counters as they were published.
//! Never: touches a leg's socket; the thread does.

mod sockets;
mod taken;
mod thread;

use super::{
    epoll::{Bell, Epoll},
    kernel::{self, Program},
    nap::Nap,
    now,
};
use crate::{
    config::Rtp,
    ids::Entropy,
    media::{Command, Event, PortRange, Settings, Worker},
    observe::metrics,
};
use sockets::Sockets;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use thread::Thread;
use tokio::sync::{mpsc, watch};

/// Commands that may wait for a worker.
const COMMANDS_MAX: usize = 8192;
/// A thread that has published nothing for this long hangs.
const ALIVE_WITHIN: Duration = Duration::from_secs(10);

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
    bell: Bell,
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
    /// Hands over a command where there is room; never waits. The worker sees it when it is woken.
    pub fn try_send(&self, command: Command) -> Result<(), Untaken> {
        match self.commands.try_send(Order::Command(command)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Order::Command(command))) => Err(Untaken::Full(command.into())),
            Err(TrySendError::Disconnected(Order::Command(command))) => {
                Err(Untaken::Gone(command.into()))
            }
            // What comes back is what was handed over.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Wakes the worker: once for all that was handed over, since each time costs it a turn.
    pub fn wake(&self) {
        self.bell.ring();
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
        let program = kernel::start(&rtp.kernel);
        parts
            .into_iter()
            .enumerate()
            .map(|(index, ports)| {
                let Rtp { timeout: silence, unanswered, dscp, coalesce, .. } = *rtp;
                let legs = Legs { ports, silence, unanswered, dscp, coalesce };
                Self::spawn(index, legs, program.as_ref(), events.clone())
            })
            .collect()
    }

    fn spawn(
        index: usize,
        legs: Legs,
        program: Option<&Arc<Program>>,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let Legs { ports, silence, unanswered, dscp, coalesce } = legs;
        let epoll = Epoll::new()?;
        let bell = epoll.bell();
        let (commands, orders) = sync_channel(COMMANDS_MAX);
        let pairs = ports.pairs();
        let total = metrics::Media { ports_total: pairs as u64, ..Default::default() };
        let (publish, published) = watch::channel(Published { at: now(), counters: total });
        let carrier = program.and_then(|program| kernel::carrier(program, dscp));
        let settings = Settings { ports, silence, unanswered, offloads: carrier.is_some() };
        let mut worker = Worker::new(settings, Entropy::new(super::node::seed()?));
        worker.beware(taken::ports());
        let (sockets, nap) = (Sockets::new(dscp), Nap::new(coalesce, now()));
        let media = Thread { worker, epoll, sockets, nap, orders, events, publish, pairs, carrier };
        let name = format!("media-{index}");
        let thread = std::thread::Builder::new().name(name).spawn(move || media.live())?;
        let handle = MediaHandle { commands, bell, published, lost: Arc::default() };
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
        self.handle.bell.ring();
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
    unanswered: Duration,
    dscp: u8,
    coalesce: Duration,
}

#[cfg(test)]
pub(super) mod tests;
