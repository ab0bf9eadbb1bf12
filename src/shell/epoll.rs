//! Many sockets waited for at once, level-triggered: what is left in a socket is told of again.
//!
//! Owns: the epoll instance, the bell and the alarm that wake it.
//! Never: reads from a socket.

use rustix::{
    event::{
        EventfdFlags, Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        eventfd,
    },
    io::Errno,
    time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create,
        timerfd_settime,
    },
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
    time::{Duration, Instant},
};

/// Readiness events taken at a time.
const READY_MAX: usize = 1024;
/// What the bell and the alarm are known by; sockets have other tokens.
const BELL: u64 = u64::MAX;
const ALARM: u64 = u64::MAX - 1;

/// Sockets waited for, a bell and an alarm.
#[derive(Debug)]
pub(super) struct Epoll {
    fd: OwnedFd,
    bell: Bell,
    /// A timer of its own rather than a time limit of each wait: a limit is a timer of the kernel's
    /// that is set and taken back each time, which on a virtual machine costs more than a packet.
    alarm: OwnedFd,
    set_to: Option<Instant>,
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
    /// The alarm, which rings until it is set anew.
    Alarm,
    /// The socket with this token.
    Socket(usize),
}

impl Epoll {
    /// Creates one without sockets.
    pub(super) fn new() -> io::Result<Self> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        let bell = Bell::new()?;
        let alarm = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        // Told once for each time it is rung: nobody needs to read its counter.
        let once = EventFlags::IN | EventFlags::ET;
        epoll::add(&fd, &bell.0.fd, EventData::new_u64(BELL), once)?;
        epoll::add(&fd, &alarm, EventData::new_u64(ALARM), EventFlags::IN)?;
        Ok(Self { fd, bell, alarm, set_to: None })
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

    /// Sets the alarm, where it is not set to that already. One that is in the past rings at once.
    pub(super) fn set_alarm(&mut self, at: Instant, now: Instant) -> io::Result<()> {
        if self.set_to != Some(at) {
            // Zero would stop it.
            let after = at.saturating_duration_since(now).max(Duration::from_nanos(1));
            let it_value = Timespec::try_from(after).map_err(io::Error::other)?;
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            timerfd_settime(&self.alarm, TimerfdTimerFlags::empty(), &once)?;
            self.set_to = Some(at);
        }
        Ok(())
    }

    /// Waits until something is ready. Returns how many things are: none where a signal came.
    pub(super) fn wait(&self, found: &mut Found) -> io::Result<usize> {
        found.count = 0;
        found.count = match epoll::wait(&self.fd, &mut found.events[..], None) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(found.count)
    }

    /// Takes the n-th of what a wait found ready.
    pub(super) fn take(&mut self, found: &Found, n: usize) -> Option<Ready> {
        let data = found.events.get(..found.count)?.get(n)?.data;
        Some(match data.u64() {
            BELL => {
                self.bell.hush();
                Ready::Bell
            }
            ALARM => {
                self.set_to = None;
                Ready::Alarm
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
            // Nothing can be wrong: to fill the counter takes 2^64 of these.
            let _ = rustix::io::write(&self.0.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Is silent again. What is done after this rings anew.
    fn hush(&self) {
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

/// Lets calls go first: this thread writes down what was, and may be a moment behind. It keeps an eighth
/// of a busy core, which is more than it needs: what it has no time for would be lost.
pub(super) fn let_others_go_first() {
    const NICE: i32 = 5;
    // To ask for less is allowed to everybody; where it is not, the kernel shares as it likes.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
}

/// Lets this thread's sleeps end when they should: 50 us later is what the system thinks good enough.
pub(super) fn sleep_precisely() {
    // Where that is refused, sleeps are a little longer.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
}
