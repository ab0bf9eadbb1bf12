//! Many sockets waited for at once, level-triggered: what is left in a socket is told of again.
//!
//! Owns: the epoll instance, the bell that wakes it; the only file that names `rustix`.
//! Never: reads from a socket.

use rustix::{
    event::{
        EventfdFlags, Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        eventfd,
    },
    io::Errno,
};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    num::NonZeroU64,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Readiness events taken at a time.
const READY_MAX: usize = 1024;
/// What the bell is known by; sockets have other tokens.
const BELL: u64 = u64::MAX;

/// Sockets waited for, and a bell.
#[derive(Debug)]
pub(super) struct Epoll {
    fd: OwnedFd,
    bell: Bell,
}

/// What a wait found ready. Stays in the thread that waits.
pub(super) struct Found {
    events: Vec<Event>,
    count: usize,
}

/// Wakes whoever waits. Clones are the same bell.
#[derive(Clone, Debug)]
pub(super) struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    /// Rung, and not heard yet: ringing again would say nothing new.
    has_rung: AtomicBool,
}

/// What is ready.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ready {
    /// The bell, which is silent again now.
    Bell,
    /// The socket with this token.
    Socket(usize),
}

impl Epoll {
    /// Creates one without sockets.
    pub(super) fn new() -> io::Result<Self> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        epoll::add(&fd, &bell.0.fd, EventData::new_u64(BELL), EventFlags::IN)?;
        Ok(Self { fd, bell })
    }

    /// Returns its bell.
    pub(super) fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Waits for this socket too, until it is closed.
    pub(super) fn add(&self, socket: &UdpSocket, token: usize) -> io::Result<()> {
        let data = EventData::new_u64(token as u64);
        Ok(epoll::add(&self.fd, socket.as_fd(), data, EventFlags::IN)?)
    }

    /// Waits until something is ready, for that long at most (rounded up to milliseconds). Returns how
    /// many things are ready: none where time is up, or a signal came.
    pub(super) fn wait(&self, found: &mut Found, at_most: Duration) -> io::Result<usize> {
        let timeout = Timespec::try_from(at_most).ok();
        found.count = 0;
        found.count = match epoll::wait(&self.fd, &mut found.events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(found.count)
    }

    /// Takes the n-th of what a wait found ready.
    pub(super) fn take(&self, found: &Found, n: usize) -> Option<Ready> {
        let data = found.events.get(..found.count)?.get(n)?.data;
        Some(match data.u64() {
            BELL => {
                self.bell.hush();
                Ready::Bell
            }
            token => Ready::Socket(usize::try_from(token).unwrap_or(usize::MAX)),
        })
    }
}

impl Found {
    /// Has room for what one wait can find.
    pub(super) fn new() -> Self {
        let nothing = Event { flags: EventFlags::empty(), data: EventData::new_u64(BELL) };
        Self { events: vec![nothing; READY_MAX], count: 0 }
    }
}

impl Bell {
    fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner { fd, has_rung: AtomicBool::new(false) })))
    }

    /// Rings, where nobody has since it was heard last. What was done before is seen by whoever hears it.
    pub(super) fn ring(&self) {
        if !self.0.has_rung.swap(true, Ordering::AcqRel) {
            // Nothing can be wrong with a counter that is read before it is full.
            let _ = rustix::io::write(&self.0.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Is silent again. What is done after this rings anew.
    fn hush(&self) {
        let _ = rustix::io::read(&self.0.fd, &mut [0; 8]);
        self.0.has_rung.swap(false, Ordering::AcqRel);
    }
}

/// Takes packets from this peer only from now on, and sends to it faster; or from anyone again.
pub(super) fn point(socket: &UdpSocket, peer: Option<SocketAddr>) -> io::Result<()> {
    match peer {
        Some(peer) => socket.connect(peer),
        None => Ok(rustix::net::connect_unspec(socket)?),
    }
}

/// Lets this thread's sleeps end when they should: 50 us later is what the system thinks good enough.
pub(super) fn sleep_precisely() {
    // Where that is refused, sleeps are a little longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}
