//! The streams at work: one thread sends each packet when it is due, and takes from each socket
//! what has arrived there each time its own turn comes. That costs a packet two system calls, and
//! nobody is woken.
//!
//! Owns: sockets, streams, their tallies. Never: says a word of SIP.

use super::{
    packet::{self, Flaw, Header, Stamp, TICKS},
    schedule::{Schedule, shuffled},
    sockets::{Opener, Receiver, RtpSocket, drops_at},
    tally::{Tally, Totals},
};
use crate::{
    histogram::Histogram,
    process::{Reading, stolen},
};
use anyhow::Result;
use nix::{
    poll::ppoll,
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

/// Shorter waits are spun away: the kernel wakes us some 60 us late.
const SPIN_NS: u64 = 150_000;
/// How often others have their turn.
const TEND_NS: u64 = 5_000_000;
/// How long streams go on after the window, and how long is waited for what is still on its way.
const COOL_NS: u64 = 200_000_000;
const LAST_NS: u64 = 500_000_000;

/// One end's stream.
#[derive(Clone, Debug)]
struct Stream {
    socket: usize,
    to: SocketAddr,
    ssrc: u32,
    sent: u32,
}

/// All sockets and streams. Stream `2 * call` is the near end's, the next one the far end's.
#[derive(Debug)]
pub struct Engine {
    ips: [Ipv4Addr; 2],
    openers: [Opener; 2],
    /// How many streams of one end share a socket.
    share: usize,
    run: u32,
    sockets: Vec<RtpSocket>,
    /// The last socket of each end, and how many streams it has.
    filling: [(usize, usize); 2],
    /// The socket of each stream to come.
    places: Vec<usize>,
    streams: Vec<Stream>,
    tallies: Vec<Tally>,
    receiver: Receiver,
}

/// How long to stream: first until all has settled, then to measure.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Does not count.
    pub warm: Duration,
    /// Counts.
    pub window: Duration,
}

/// What a window has seen.
#[derive(Debug)]
pub struct Outcome {
    /// Its length as it was.
    pub window: Duration,
    /// Packets sent in it.
    pub sent: u64,
    /// Those the kernel did not take.
    pub unsent: u64,
    /// What arrived of them.
    pub totals: Totals,
    /// What arrived and was not a packet as it was sent, by what it was.
    pub flawed: Flawed,
    /// How late the sender was.
    pub lateness: Histogram,
    /// How often it gave up catching up.
    pub moved: u64,
    /// The share of the window in which the sender had something to do.
    pub busy: f64,
    /// Packets that the kernel threw away at our own sockets.
    pub own_drops: u64,
    /// What was read at the window's two ends.
    pub edges: [Edge; 2],
}

/// What is read where the window opens and where it closes.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    /// What the target has used.
    pub target: Reading,
    /// What the host has taken from this machine, of all its cores.
    pub stolen: Duration,
}

/// Arrivals that are no packets as they were sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flawed {
    /// Changed on the way.
    pub damaged: u64,
    /// At another socket than that of the other end.
    pub misled: u64,
    /// Of nobody here.
    pub foreign: u64,
}

/// What else is to be done while streams run.
pub trait Aside {
    /// Is called every few milliseconds, and must not take long.
    fn tend(&mut self);
    /// What the target has used up to now: read at both ends of the window.
    fn meter(&mut self) -> Result<Reading>;
}

/// The time, in ns since 1970.
pub fn now_ns() -> u64 {
    // The clock is always there.
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap_or(TimeSpec::new(0, 0));
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

impl Engine {
    /// Without calls yet. Near and far ends have their sockets at these addresses.
    pub fn new(ips: [Ipv4Addr; 2], share: usize) -> Self {
        Self {
            ips,
            openers: ips.map(Opener::new),
            share: share.max(1),
            run: (now_ns() / 1000) as u32 | 1,
            sockets: vec![],
            filling: [(usize::MAX, usize::MAX); 2],
            places: vec![],
            streams: vec![],
            tallies: vec![],
            receiver: Receiver::default(),
        }
    }

    /// Opens what another call needs, and returns the ports of its near and far end.
    ///
    /// # Errors
    /// If there are no more ports or descriptors.
    pub fn open_call(&mut self) -> Result<[u16; 2]> {
        let mut ports = [0; 2];
        for (end, port) in ports.iter_mut().enumerate() {
            let (mut socket, mut used) = self.filling[end];
            if used >= self.share {
                (socket, used) = (self.sockets.len(), 0);
                self.sockets.push(self.openers[end].open()?);
            }
            self.filling[end] = (socket, used + 1);
            self.places.push(socket);
            *port = self.sockets[socket].port;
        }
        Ok(ports)
    }

    /// Tells where near and far end of the next call send to; calls come in the order in which they
    /// were opened.
    ///
    /// # Errors
    /// If the kernel knows no way there.
    pub fn aim_call(&mut self, to: [SocketAddr; 2]) -> Result<()> {
        for to in to {
            let stream = self.streams.len();
            let socket = self.places[stream];
            if self.share == 1 {
                self.sockets[socket].rtp.connect(to)?;
            }
            let ssrc = (stream as u32).wrapping_mul(0x9e37_79b1) ^ self.run;
            self.streams.push(Stream { socket, to, ssrc, sent: 0 });
            self.tallies.push(Tally::default());
        }
        Ok(())
    }

    /// How many calls there are.
    pub fn calls(&self) -> usize {
        self.streams.len() / 2
    }

    /// Streams for a while, and returns what the window has seen.
    ///
    /// # Errors
    /// If the meter cannot be read, or the kernel gives no stamps.
    pub fn stream(&mut self, timing: Timing, aside: &mut dyn Aside) -> Result<Outcome> {
        let drops_before = drops_at(&self.ips)?;
        let mut course = Course::new(self.order(), timing);
        loop {
            let (now, due) = (now_ns(), course.schedule.due_ns());
            course.cross(now, aside)?;
            if now < due {
                course.wait(due, now, aside);
                continue;
            }
            if now >= course.end_ns {
                break;
            }
            self.turn(now, &mut course)?;
        }
        let last = now_ns() + LAST_NS;
        while now_ns() < last {
            for socket in 0..self.sockets.len() {
                self.take(socket, &mut course)?;
            }
            sleep(2 * SPIN_NS);
            aside.tend();
        }
        course.outcome(drops_at(&self.ips)?.saturating_sub(drops_before))
    }

    /// One packet goes out; where the socket's last stream had its turn, what has come is taken.
    fn turn(&mut self, now: u64, course: &mut Course) -> Result<()> {
        let counts = course.window.contains(&now);
        let (stream, next) = course.schedule.take(now, counts);
        let is_sent = self.send(stream, now);
        if counts {
            course.sent += 1;
            course.unsent += u64::from(!is_sent);
        }
        let socket = self.streams[stream as usize].socket;
        if self.streams[next as usize].socket != socket || self.streams.len() == 1 {
            self.take(socket, course)?;
        }
        Ok(())
    }

    /// By sockets in an order without meaning: a call's two ends are not each other's neighbours.
    fn order(&self) -> Vec<u32> {
        let mut blocks = vec![vec![]; self.sockets.len()];
        for (index, stream) in self.streams.iter().enumerate() {
            blocks[stream.socket].push(index as u32);
        }
        shuffled(blocks).concat()
    }

    /// Returns whether the kernel has taken it.
    fn send(&mut self, index: u32, now: u64) -> bool {
        let stream = &mut self.streams[index as usize];
        let seq = stream.sent;
        stream.sent += 1;
        let header = Header { seq: seq as u16, time: seq.wrapping_mul(TICKS), ssrc: stream.ssrc };
        let mut bytes = [0; packet::SIZE];
        packet::write(
            &mut bytes,
            header,
            Stamp { run: self.run, stream: index, seq, sent_ns: now },
        );
        let socket = &self.sockets[stream.socket].rtp;
        let send = || {
            if self.share == 1 { socket.send(&bytes) } else { socket.send_to(&bytes, stream.to) }
        };
        // The first error may be about an earlier packet that found nobody.
        send().or_else(|_| send()).is_ok()
    }

    fn take(&mut self, socket: usize, course: &mut Course) -> Result<()> {
        let (run, streams, tallies) = (self.run, &self.streams, &mut self.tallies);
        let Course { window, totals, flawed, .. } = course;
        self.receiver.drain(&self.sockets[socket].rtp, self.share, |bytes, at_ns| {
            let (header, stamp) = match packet::read(bytes, run) {
                Ok(read) => read,
                Err(Flaw::Rtcp) => return,
                Err(Flaw::Foreign) => return flawed.foreign += 1,
                Err(Flaw::Damaged) => return flawed.damaged += 1,
            };
            // What the near end sends arrives at the far end, and the other way round.
            let other = streams.get(stamp.stream as usize ^ 1);
            if other.is_none_or(|other| other.socket != socket) {
                return flawed.misled += 1;
            }
            let tally = &mut tallies[stamp.stream as usize];
            tally.take((header, stamp), at_ns, window, totals);
        })
    }
}

/// One `stream` on its way.
struct Course {
    schedule: Schedule,
    /// As planned, then as it was.
    window: Range<u64>,
    end_ns: u64,
    edges: [Option<Edge>; 2],
    tend_ns: u64,
    idle_ns: u64,
    sent: u64,
    unsent: u64,
    totals: Totals,
    flawed: Flawed,
}

impl Course {
    fn new(order: Vec<u32>, timing: Timing) -> Self {
        let start = now_ns() + 1_000_000;
        let open = start + timing.warm.as_nanos() as u64;
        let close = open + timing.window.as_nanos() as u64;
        Self {
            schedule: Schedule::new(order, start),
            window: open..close,
            end_ns: close + COOL_NS,
            edges: [None, None],
            tend_ns: 0,
            idle_ns: 0,
            sent: 0,
            unsent: 0,
            totals: Totals::default(),
            flawed: Flawed::default(),
        }
    }

    /// Reads the meter where the window opens and where it closes.
    fn cross(&mut self, now: u64, aside: &mut dyn Aside) -> Result<()> {
        let mut read =
            || Ok::<_, anyhow::Error>(Edge { target: aside.meter()?, stolen: stolen()? });
        if self.edges[0].is_none() && now >= self.window.start {
            self.edges[0] = Some(read()?);
            self.window.start = now_ns();
        }
        if self.edges[1].is_none() && now >= self.window.end {
            self.edges[1] = Some(read()?);
            self.window.end = now;
        }
        Ok(())
    }

    /// Waits until something is due, or a little less.
    fn wait(&mut self, due: u64, now: u64, aside: &mut dyn Aside) {
        if now >= self.tend_ns {
            self.tend_ns = now + TEND_NS;
            aside.tend();
        } else if due - now > SPIN_NS {
            sleep(due - now - SPIN_NS / 2);
        } else {
            std::hint::spin_loop();
        }
        let waited = now_ns() - now;
        if self.window.contains(&now) {
            self.idle_ns += waited;
        }
    }

    fn outcome(self, own_drops: u64) -> Result<Outcome> {
        // Whoever was away for all of it crosses both ends at once.
        let length = self.window.end.saturating_sub(self.window.start).max(1);
        let [Some(before), Some(after)] = self.edges else {
            anyhow::bail!("the window never opened");
        };
        Ok(Outcome {
            window: Duration::from_nanos(length),
            sent: self.sent,
            unsent: self.unsent,
            totals: self.totals,
            flawed: self.flawed,
            lateness: self.schedule.lateness,
            moved: self.schedule.moved,
            busy: 1.0 - self.idle_ns as f64 / length as f64,
            own_drops,
            edges: [before, after],
        })
    }
}

/// At least so long; the kernel adds what it likes.
fn sleep(ns: u64) {
    let time = TimeSpec::from(Duration::from_nanos(ns));
    // A signal ends it early, which harms nobody.
    _ = ppoll(&mut [], Some(time), None);
}
