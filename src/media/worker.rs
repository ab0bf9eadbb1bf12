//! A worker: some of the legs, what joins them, and everything that happens to their packets.
//!
//! Owns: the legs, the ports of its range, the counters.
//! Never: touches a socket or a clock; it says what to bind and what to send.

use super::{
    codec,
    command::{Command, Event, OpenRefusal},
    discard::Discard,
    leg::{Leg, Player},
    outlet::Feed,
    path::PathMap,
    ports::{PortRange, Ports},
    rtcp, rtp,
};
use crate::ids::{Entropy, LegId};
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

/// Pairs tried where other programs hold some of the range.
const BIND_TRIES: u8 = 8;
/// Bytes of a packet that we make: 200 ms of G.711 and a header.
const PACKET_MAX: usize = 1700;

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
    /// Bind a pair, then tell [`Worker::bound`].
    Bind {
        /// The slot that the sockets belong to.
        slot: usize,
        /// The address.
        ip: IpAddr,
        /// The RTP port; RTCP is the next.
        port: u16,
    },
    /// Close the pair.
    Unbind {
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
}

/// What a worker counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// RTP packets passed from leg to leg.
    pub relayed: u64,
    /// Their bytes.
    pub relayed_bytes: u64,
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
}

/// A leg being opened.
#[derive(Debug)]
struct Opening {
    id: LegId,
    ip: IpAddr,
    port: u16,
    tries: u8,
}

#[derive(Debug)]
enum Slot {
    Free,
    Opening(Opening),
    Open(Box<Leg>),
}

/// What joins a leg to another.
#[derive(Debug)]
struct Join {
    to: usize,
    path: PathMap,
}

/// Some of the legs.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    entropy: Entropy,
    ports: Ports,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_id: BTreeMap<LegId, usize>,
    joins: BTreeMap<usize, Join>,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
    counters: Counters,
    discards: super::Discards,
}

impl Worker {
    /// Creates a worker without legs.
    pub fn new(settings: Settings, entropy: Entropy) -> Self {
        Self {
            settings,
            entropy,
            ports: Ports::new(settings.ports),
            slots: vec![],
            free: vec![],
            by_id: BTreeMap::new(),
            joins: BTreeMap::new(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            counters: Counters::default(),
            discards: super::Discards::default(),
        }
    }

    /// Carries out one command.
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open { leg, ip } => self.open(leg, ip),
            Command::Aim { leg, remote, stream } => {
                if let Some(leg) = self.leg_mut(leg) {
                    leg.aim(remote, stream, now);
                }
            }
            Command::Bridge { a, b, a_to_b, b_to_a } => self.bridge((a, a_to_b), (b, b_to_a)),
            Command::Unbridge { leg } => {
                if let Some(slot) = self.by_id.get(&leg).copied() {
                    self.separate(slot);
                }
            }
            Command::Play { leg, prompt, loops, token } => {
                if let Some(leg) = self.leg_mut(leg) {
                    leg.play(prompt, loops, token, now);
                }
            }
            Command::Echo { leg } => self.set_player(leg, Player::Echo),
            Command::Stop { leg } => self.set_player(leg, Player::Off),
            Command::Dtmf { leg, digit, duration_ms } => {
                if let Some(leg) = self.leg_mut(leg)
                    && leg.stream.is_some_and(|stream| stream.telephone_events.is_some())
                {
                    leg.keypad.press(digit, duration_ms, now);
                }
            }
            Command::Hold { leg, on } => {
                if let Some(leg) = self.leg_mut(leg) {
                    leg.hold(on, now);
                }
            }
            Command::Close { leg } => self.close(leg),
        }
    }

    fn open(&mut self, id: LegId, ip: IpAddr) {
        if self.by_id.contains_key(&id) {
            return self.refuse(id, OpenRefusal::AlreadyOpen);
        }
        let Some(port) = self.ports.take() else {
            return self.refuse(id, OpenRefusal::PortsExhausted);
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len().saturating_sub(1)
        });
        self.by_id.insert(id, slot);
        self.put(slot, Slot::Opening(Opening { id, ip, port, tries: 1 }));
        self.actions.push_back(Action::Bind { slot, ip, port });
    }

    fn refuse(&mut self, leg: LegId, refusal: OpenRefusal) {
        self.counters.open_failures = self.counters.open_failures.saturating_add(1);
        self.events.push_back(Event::OpenFailed { leg, refusal });
    }

    /// Learns whether a pair could be bound; another is tried where it could not.
    pub fn bound(&mut self, slot: usize, is_bound: bool, now: Instant) {
        let Some(Slot::Opening(opening)) = self.slots.get_mut(slot) else { return };
        let (id, ip, port, tries) = (opening.id, opening.ip, opening.port, opening.tries);
        if is_bound {
            let leg = Leg::new(id, port, &mut self.entropy, now);
            self.put(slot, Slot::Open(Box::new(leg)));
            self.events.push_back(Event::Opened { leg: id, port });
            return;
        }
        // Another program has it; it goes to the end of the queue.
        self.ports.give_back(port);
        match self.ports.take().filter(|_| tries < BIND_TRIES) {
            Some(port) => {
                let tries = tries.saturating_add(1);
                self.put(slot, Slot::Opening(Opening { id, ip, port, tries }));
                self.actions.push_back(Action::Bind { slot, ip, port });
            }
            None => {
                self.release(slot, id);
                self.refuse(id, OpenRefusal::CannotBind);
            }
        }
    }

    fn close(&mut self, id: LegId) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        self.separate(slot);
        let quality = match self.slots.get(slot) {
            Some(Slot::Open(leg)) => {
                self.discards.merge(&leg.discards);
                self.ports.give_back(leg.port);
                self.actions.push_back(Action::Unbind { slot });
                leg.quality()
            }
            Some(Slot::Opening(opening)) => {
                self.ports.give_back(opening.port);
                self.actions.push_back(Action::Unbind { slot });
                super::Quality::default()
            }
            Some(Slot::Free) | None => super::Quality::default(),
        };
        self.release(slot, id);
        self.events.push_back(Event::Closed { leg: id, quality: Box::new(quality) });
    }

    fn release(&mut self, slot: usize, id: LegId) {
        self.by_id.remove(&id);
        self.put(slot, Slot::Free);
        self.free.push(slot);
    }

    fn put(&mut self, slot: usize, value: Slot) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = value;
        }
    }

    fn bridge(&mut self, (a, a_to_b): (LegId, PathMap), (b, b_to_a): (LegId, PathMap)) {
        let (Some(a), Some(b)) = (self.by_id.get(&a).copied(), self.by_id.get(&b).copied()) else {
            return;
        };
        let are_joined = self.joins.get(&a).is_some_and(|join| join.to == b);
        if !are_joined {
            for slot in [a, b] {
                self.separate(slot);
                if let Some(Slot::Open(leg)) = self.slots.get_mut(slot) {
                    leg.player = Player::Off;
                }
            }
        }
        self.joins.insert(a, Join { to: b, path: a_to_b });
        self.joins.insert(b, Join { to: a, path: b_to_a });
    }

    fn separate(&mut self, slot: usize) {
        if let Some(join) = self.joins.remove(&slot) {
            self.joins.remove(&join.to);
        }
    }

    fn set_player(&mut self, id: LegId, player: Player) {
        if let Some(leg) = self.leg_mut(id) {
            leg.player = player;
        }
    }

    fn leg_mut(&mut self, id: LegId) -> Option<&mut Leg> {
        let slot = self.by_id.get(&id)?;
        match self.slots.get_mut(*slot)? {
            Slot::Open(leg) => Some(leg),
            Slot::Free | Slot::Opening(_) => None,
        }
    }

    /// Takes an RTP packet of a leg's peer. What is to be sent is rewritten in place.
    pub fn handle_rtp<'p>(
        &mut self,
        slot: usize,
        from: SocketAddr,
        packet: &'p mut [u8],
        now: Instant,
    ) -> Option<Datagram<'p>> {
        match self.forward(slot, from, packet, now) {
            Ok((slot, to)) => Some(Datagram { slot, channel: Channel::Rtp, to, packet }),
            Err(reason) => {
                if let Some(Slot::Open(leg)) = self.slots.get_mut(slot) {
                    leg.discards.add(reason);
                }
                None
            }
        }
    }

    fn forward(
        &mut self,
        slot: usize,
        from: SocketAddr,
        packet: &mut [u8],
        now: Instant,
    ) -> Result<(usize, SocketAddr), Discard> {
        let Some(Slot::Open(leg)) = self.slots.get_mut(slot) else { return Err(Discard::TooEarly) };
        let (header, payload, run) = leg.accept(packet, from, now)?;
        if std::mem::take(&mut leg.is_unheard) {
            self.events.push_back(Event::FirstPacket { leg: leg.id, from });
        }
        if let Some(events) = leg.stream.and_then(|s| s.telephone_events)
            && events.receive == header.payload_type
        {
            let payload = packet.get(payload.clone()).unwrap_or_default();
            let clock_rate = events.clock_rate;
            let released = leg.listener.hear(payload, header.timestamp, clock_rate, now);
            self.events.extend(released.map(|key| Event::Dtmf {
                leg: leg.id,
                digit: key.digit,
                duration_ms: key.duration_ms,
            }));
        }
        if matches!(leg.player, Player::Echo) {
            let to = leg.destination()?;
            let header = leg.outlet.carry(Feed::Relayed(slot, run), &header, leg.pace(), now)?;
            rtp::rewrite(packet, &header);
            leg.outlet.count(payload.len());
            self.counters.generated = self.counters.generated.saturating_add(1);
            return Ok((slot, to));
        }
        let join = self.joins.get(&slot).ok_or(Discard::NoPeer)?;
        let hop = join.path.hop(header.payload_type).ok_or(Discard::NotNegotiated)?;
        let other_slot = join.to;
        let Some(Slot::Open(other)) = self.slots.get_mut(other_slot) else {
            return Err(Discard::NoPeer);
        };
        let to = other.destination()?;
        if other.is_busy() {
            return Err(Discard::Replaced);
        }
        let header = rtp::Header { payload_type: hop.payload_type, ..header };
        let header = other.outlet.carry(Feed::Relayed(slot, run), &header, other.pace(), now)?;
        rtp::rewrite(packet, &header);
        if let Some(payload) = packet.get_mut(payload.clone()) {
            codec::convert(payload, hop.convert);
        }
        other.outlet.count(payload.len());
        self.counters.relayed = self.counters.relayed.saturating_add(1);
        self.counters.relayed_bytes =
            self.counters.relayed_bytes.saturating_add(packet.len() as u64);
        let converted = u64::from(hop.convert != super::Convert::Keep);
        self.counters.transcoded = self.counters.transcoded.saturating_add(converted);
        Ok((other_slot, to))
    }

    /// Notes how long a packet of this leg stayed with us.
    pub fn note_delay(&mut self, slot: usize, delay: Duration) {
        if let Some(Slot::Open(leg)) = self.slots.get_mut(slot) {
            leg.note_delay(delay);
        }
    }

    /// Takes an RTCP packet of a leg's peer.
    pub fn handle_rtcp(&mut self, slot: usize, from: SocketAddr, packet: &[u8], now: Instant) {
        let Some(Slot::Open(leg)) = self.slots.get_mut(slot) else { return };
        let admitted = match &leg.remote {
            Some(remote) => leg.source.admit_rtcp(remote, from),
            None => Err(Discard::TooEarly),
        };
        let ours = leg.outlet.ssrc();
        let read = admitted.and_then(|()| {
            leg.reports.read(packet, ours, now).then_some(()).ok_or(Discard::NotRtcp)
        });
        if let Err(reason) = read {
            leg.discards.add(reason);
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.settings.silence;
        let open = self.slots.iter().filter_map(|slot| match slot {
            Slot::Open(leg) => Some(leg),
            Slot::Free | Slot::Opening(_) => None,
        });
        open.flat_map(|leg| deadlines(leg, silence)).flatten().min()
    }

    /// Fires what is due; what is to be sent goes to `send`.
    pub fn handle_timeout(&mut self, now: Instant, send: &mut dyn FnMut(Datagram<'_>)) {
        let silence = self.settings.silence;
        for slot in 0..self.slots.len() {
            let Some(Slot::Open(leg)) = self.slots.get(slot) else { continue };
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            let [keypad, listener, prompt, reports, silent] = deadlines(leg, silence).map(is_due);
            if keypad {
                self.press(slot, now, send);
            }
            if listener {
                self.release_key(slot, now);
            }
            if prompt {
                self.play_on(slot, now, send);
            }
            if reports {
                self.report(slot, now, send);
            }
            if silent {
                self.tell_silence(slot);
            }
        }
    }

    fn open_leg(&mut self, slot: usize) -> Option<&mut Leg> {
        match self.slots.get_mut(slot)? {
            Slot::Open(leg) => Some(leg),
            Slot::Free | Slot::Opening(_) => None,
        }
    }

    fn press(&mut self, slot: usize, now: Instant, send: &mut dyn FnMut(Datagram<'_>)) {
        let Some(leg) = self.open_leg(slot) else { return };
        let (frame, pace) = (leg.frame(), leg.pace());
        let Some(events) = leg.stream.and_then(|stream| stream.telephone_events) else {
            leg.keypad = super::dtmf::Keypad::default();
            return;
        };
        let Some(tick) = leg.keypad.tick(frame, events.clock_rate, now) else { return };
        let Ok(to) = leg.destination() else { return };
        let header = leg.outlet.interrupt(events.send, tick.is_first, pace, now);
        let mut buffer = [0; 64];
        let len = rtp::build(&header, &tick.payload, &mut buffer);
        leg.outlet.count(tick.payload.len());
        let packet = buffer.get(..len).unwrap_or_default();
        send(Datagram { slot, channel: Channel::Rtp, to, packet });
        self.counters.generated = self.counters.generated.saturating_add(1);
    }

    fn release_key(&mut self, slot: usize, now: Instant) {
        let Some(leg) = self.open_leg(slot) else { return };
        let clock_rate = leg.stream.and_then(|s| s.telephone_events).map_or(8000, |e| e.clock_rate);
        let id = leg.id;
        let released = leg.listener.handle_timeout(clock_rate, now);
        self.events.extend(released.map(|key| Event::Dtmf {
            leg: id,
            digit: key.digit,
            duration_ms: key.duration_ms,
        }));
    }

    fn play_on(&mut self, slot: usize, now: Instant, send: &mut dyn FnMut(Datagram<'_>)) {
        let Some(leg) = self.open_leg(slot) else { return };
        let id = leg.id;
        let mut buffer = [0; PACKET_MAX];
        let Some(len) = leg.next_of_prompt(&mut buffer, now) else {
            if let Player::Prompt(played) = std::mem::replace(&mut leg.player, Player::Off) {
                self.events.push_back(Event::Played { leg: id, token: played.token });
            }
            return;
        };
        let destination = leg.destination();
        if let (Ok(to), Some(packet @ [_, ..])) = (destination, buffer.get(..len)) {
            send(Datagram { slot, channel: Channel::Rtp, to, packet });
            self.counters.generated = self.counters.generated.saturating_add(1);
        }
    }

    fn report(&mut self, slot: usize, now: Instant, send: &mut dyn FnMut(Datagram<'_>)) {
        let Some(leg) = self.open_leg(slot) else { return };
        let to = leg.remote.as_ref().and_then(|remote| leg.source.rtcp_destination(remote));
        let clock_rate = leg.stream.map_or(8000, |stream| stream.clock_rate);
        let (packets, octets) = leg.outlet.sent();
        let timestamp = leg.outlet.timestamp_at(clock_rate, now);
        let sent = rtcp::Sent { ssrc: leg.outlet.ssrc(), timestamp, packets, octets };
        let received = leg.inlet.report();
        let mut buffer = [0; 256];
        let len = leg.reports.write(sent, received, &mut buffer, now);
        if let (Some(to), Some(packet)) = (to, buffer.get(..len)) {
            send(Datagram { slot, channel: Channel::Rtcp, to, packet });
            self.counters.reports = self.counters.reports.saturating_add(1);
        }
    }

    fn tell_silence(&mut self, slot: usize) {
        let Some(leg) = self.open_leg(slot) else { return };
        leg.silent_since = None;
        let leg = leg.id;
        self.counters.silences = self.counters.silences.saturating_add(1);
        self.events.push_back(Event::Silent { leg });
    }

    /// Returns the next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
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
    pub fn discards(&self) -> super::Discards {
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
        (self.by_id.len(), self.ports.free())
    }
}

/// When the keypad, the listener, the prompt, the next report and silence are due.
fn deadlines(leg: &Leg, silence: Duration) -> [Option<Instant>; 5] {
    let prompt = match &leg.player {
        Player::Prompt(playing) => Some(playing.next_at),
        Player::Off | Player::Echo => None,
    };
    let reports = leg.remote.is_some().then_some(leg.reports.next_at);
    let silent = leg.silent_since.and_then(|since| since.checked_add(silence));
    [leg.keypad.poll_timeout(), leg.listener.poll_timeout(), prompt, reports, silent]
}
