//! A worker: some of the legs, what joins them, and everything that happens to their packets.
//!
//! Owns: the legs, the ports of its range, the counters.
//! Never: touches a socket or a clock; it says what to bind and what to send.

mod due;
mod legs;
mod offload;
mod packets;
mod rests;

use super::{
    Discard, Discards,
    command::{Command, Event},
    leg::Leg,
    path::{Hop, PathMap},
    player::Player,
    ports::{PortRange, Ports},
    quality::Quality,
};
use crate::{
    ids::{Entropy, LegId},
    timers::Timers,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// As many events may wait for whoever controls calls. Peers cause [`Event::Dtmf`] and
/// [`Event::FirstPacket`], which are dropped beyond; how many others there are depends on commands.
const EVENTS_MAX: usize = 4096;

/// What need not be exact (reports, silence) is done for all legs together, so often at most: a thread
/// that has nothing else to do is not woken for each of them.
const TICK: Duration = Duration::from_millis(50);

/// One of a leg's two ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Channel {
    /// The even one.
    Rtp,
    /// The odd one.
    Rtcp,
}

/// A packet to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Datagram<'p> {
    /// From which leg's port.
    pub slot: usize,
    /// From which of the two.
    pub channel: Channel,
    /// To whom.
    pub to: SocketAddr,
    /// The bytes.
    pub packet: &'p [u8],
}

/// What to do with sockets, in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Bind the RTP port, then tell [`Worker::bound`].
    Bind {
        /// The slot that the sockets belong to.
        slot: usize,
        /// The address.
        ip: IpAddr,
        /// The RTP port; RTCP is the next.
        port: u16,
        /// Whether to bind the RTCP port as well. Else that waits for [`Action::BindRtcp`].
        with_rtcp: bool,
    },
    /// Bind the RTCP port, then tell [`Worker::bound_rtcp`].
    BindRtcp {
        /// Whose.
        slot: usize,
    },
    /// Close the RTCP port, and take RTP from anyone: it is nobody's for now, and what comes is
    /// thrown away.
    Rest {
        /// Whose.
        slot: usize,
    },
    /// Take the RTP port that rested for another leg, then tell [`Worker::bound`]: not, where there was anything
    /// to read.
    Reuse {
        /// Whose.
        slot: usize,
    },
    /// Close what is bound.
    Unbind {
        /// Whose.
        slot: usize,
    },
    /// Connect the RTP port to the peer: the kernel then sends faster, and lets nobody else through.
    Connect {
        /// Whose.
        slot: usize,
        /// From where all packets come, and to where all go.
        peer: SocketAddr,
    },
    /// Take packets from anyone again, so that they can be judged.
    Disconnect {
        /// Whose.
        slot: usize,
    },
    /// Let somebody else carry the packets of this leg's peer, as [`Worker::flow`] says, and tell
    /// [`Worker::offloaded`]; where that is not possible, [`Worker::not_offloaded`].
    Offload {
        /// Whose.
        slot: usize,
    },
}

/// How a worker is set up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Its ports.
    pub ports: PortRange,
    /// How long a peer may be silent.
    pub silence: Duration,
    /// How long we send to an address that [must answer](super::Remote::must_answer).
    pub unanswered: Duration,
    /// Whether there is somebody else who may carry packets: see [`Action::Offload`].
    pub offloads: bool,
}

/// What a worker counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// RTP packets passed from leg to leg.
    pub relayed: u64,
    /// Their bytes.
    pub relayed_bytes: u64,
    /// Of them, by somebody else.
    pub offloaded: u64,
    /// Of them, with another codec.
    pub transcoded: u64,
    /// RTP packets of prompts, echoes and digits.
    pub generated: u64,
    /// RTCP packets sent.
    pub reports: u64,
    /// Legs whose silence was told.
    pub silences: u64,
    /// Legs that could not be opened.
    pub open_failures: u64,
    /// Events that peers caused and that nobody took in time.
    pub events_dropped: u64,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Behind a pointer, as a leg is: there is a slot for each leg in what a packet needs.
    Opening(Box<legs::Opening>),
    Open(Box<Leg>),
    /// The port is open and nobody's.
    Resting {
        was_disturbed: bool,
    },
}

/// What joins a leg to another.
#[derive(Debug)]
struct Join {
    to: usize,
    path: PathMap,
    /// The payload type that came last, and where it leads: the map is memory of its own, and cold.
    last: (u8, Option<Hop>),
}

impl Join {
    fn new(to: usize, path: PathMap) -> Self {
        let last = (0, path.hop(0));
        Self { to, path, last }
    }

    fn hop(&mut self, payload_type: u8) -> Option<Hop> {
        if self.last.0 != payload_type {
            self.last = (payload_type, self.path.hop(payload_type));
        }
        self.last.1
    }
}

/// Some of the legs.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    entropy: Entropy,
    ports: Ports,
    slots: Vec<Slot>,
    /// By slot.
    joins: Vec<Option<Join>>,
    free: Vec<usize>,
    rests: rests::Rests,
    by_id: BTreeMap<LegId, usize>,
    /// By slot. A packet that puts a deadline off does not arm it anew: a step that finds nothing due
    /// arms the later one.
    timers: Timers<usize>,
    /// From when on [`TICK`]s are counted: when the first leg was opened.
    origin: Option<Instant>,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
    counters: Counters,
    /// Of legs that are closed, and of no leg.
    discards: Discards,
}

impl Worker {
    /// Creates a worker without legs.
    pub fn new(settings: Settings, entropy: Entropy) -> Self {
        Self {
            settings,
            entropy,
            ports: Ports::new(settings.ports),
            slots: vec![],
            joins: vec![],
            free: vec![],
            rests: rests::Rests::default(),
            by_id: BTreeMap::new(),
            timers: Timers::default(),
            origin: None,
            events: VecDeque::new(),
            actions: VecDeque::new(),
            counters: Counters::default(),
            discards: Discards::default(),
        }
    }

    /// Learns which ports other programs have: a pair with one of them is used once both can be bound.
    pub fn beware(&mut self, taken: impl IntoIterator<Item = u16>) {
        taken.into_iter().for_each(|port| self.ports.suspect(port));
    }

    /// Carries out one command. What it [disturbs](Self::disturbed_by) must have been
    /// [reclaimed](Self::reclaimed).
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        debug_assert_eq!(self.disturbed_by(&command).next(), None, "not reclaimed");
        if self.settings.offloads {
            self.restart_turns(&command);
        }
        match command {
            Command::Open { leg, ip } => self.open(leg, ip, now),
            Command::Rename { from, leg } => self.rename(from, leg),
            Command::Close { leg } => self.close(leg, now),
            Command::Bridge { a, b, a_to_b, b_to_a } => self.bridge((a, a_to_b), (b, b_to_a)),
            Command::Unbridge { leg } => {
                if let Some(slot) = self.by_id.get(&leg).copied() {
                    self.separate(slot);
                }
            }
            Command::Aim { leg, remote, stream, keys } => {
                self.aim(leg, (remote, stream, keys), now)
            }
            Command::Play { leg, prompt, loops, token } => {
                self.with(leg, |leg| leg.play(prompt, loops, token, now));
                if let Some(slot) = self.by_id.get(&leg).copied() {
                    self.want_rtcp(slot);
                }
            }
            Command::Echo { leg } => self.with(leg, |leg| leg.player = Player::Echo),
            Command::Stop { leg } => self.with(leg, |leg| leg.player = Player::Off),
            Command::Dtmf { leg, digit, duration_ms } => {
                self.with(leg, |leg| leg.press(digit, duration_ms, now));
            }
            Command::Hold { leg, on } => self.with(leg, |leg| leg.hold(on, now)),
        }
    }

    /// Changes a leg, if it is open, and arms its timer anew.
    fn with(&mut self, id: LegId, change: impl FnOnce(&mut Leg)) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        if let Some(leg) = self.leg_mut(slot) {
            change(leg);
            self.arm(slot);
        }
    }

    fn leg_mut(&mut self, slot: usize) -> Option<&mut Leg> {
        match self.slots.get_mut(slot)? {
            Slot::Open(leg) => Some(leg),
            Slot::Free | Slot::Opening(_) | Slot::Resting { .. } => None,
        }
    }

    fn arm(&mut self, slot: usize) {
        let (silence, origin) = (self.settings.silence, self.origin);
        let next = self.leg_mut(slot).and_then(|leg| {
            let [keypad, listener, prompt, patient @ ..] = leg.deadlines(silence);
            let patient = patient.into_iter().flatten().min();
            let patient = patient.map(|at| origin.map_or(at, |origin| next_tick(origin, at)));
            [keypad, listener, prompt, patient].into_iter().flatten().min()
        });
        self.timers.arm(slot, next);
    }

    /// Tells something that a peer caused, which it may do at any rate.
    fn tell_of_peer(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.counters.events_dropped = self.counters.events_dropped.saturating_add(1);
        }
    }

    /// Returns the next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns whether there is something to tell.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Returns the next thing to do with sockets.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Returns what all legs have discarded, those that are closed too.
    pub fn discards(&self) -> Discards {
        let mut sum = self.discards;
        for slot in &self.slots {
            if let Slot::Open(leg) = slot {
                sum.merge(&leg.discards);
            }
        }
        sum
    }

    /// Returns how many legs there are, and how many pairs of ports are free.
    pub fn usage(&self) -> (usize, usize) {
        (self.by_id.len(), self.ports.free().saturating_add(self.rests.len()))
    }

    /// Starts again with nothing, after a bug of ours: no leg survives, and each is told of as if its
    /// peer had fallen silent, so that its call ends. What had been bound must be closed.
    pub fn start_over(&mut self) {
        let fresh = Self::new(self.settings, self.entropy.clone());
        let old = std::mem::replace(self, fresh);
        (self.counters, self.discards) = (old.counters, old.discards());
        self.events = old.events;
        for (leg, slot) in old.by_id {
            let quality = match old.slots.get(slot) {
                Some(Slot::Open(leg)) => leg.quality(),
                Some(Slot::Opening(_) | Slot::Free | Slot::Resting { .. }) | None => {
                    Quality::default()
                }
            };
            self.events.push_back(Event::Silent { leg });
            self.events.push_back(Event::Closed { leg, quality: Box::new(quality) });
        }
    }

    /// Counts a packet that went nowhere.
    fn discard(&mut self, slot: usize, reason: Discard) {
        match self.slots.get_mut(slot) {
            Some(Slot::Open(leg)) => leg.discards.add(reason),
            Some(Slot::Free | Slot::Opening(_) | Slot::Resting { .. }) | None => {
                self.discards.add(reason);
            }
        }
    }
}

/// Returns the first tick that is not before.
fn next_tick(origin: Instant, at: Instant) -> Instant {
    let since = at.saturating_duration_since(origin);
    let ticks = u32::try_from(since.as_nanos().div_ceil(TICK.as_nanos()));
    let tick = ticks.ok().and_then(|ticks| origin.checked_add(TICK.checked_mul(ticks)?));
    tick.unwrap_or(at)
}

#[cfg(test)]
mod bond_tests;
#[cfg(test)]
mod consent_tests;
#[cfg(test)]
mod offload_tests;
#[cfg(test)]
mod player_tests;
#[cfg(test)]
mod port_tests;
#[cfg(test)]
mod relay_tests;
#[cfg(test)]
mod rest_tests;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod srtp_tests;
#[cfg(test)]
mod storm_tests;
#[cfg(test)]
mod watch_tests;
