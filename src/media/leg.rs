//! One leg: a port pair and the peer behind it.
//!
//! Owns: what is known of the peer, what it hears besides the other leg, its counters.
//! Never: knows which leg it is joined with; the worker does.

use super::{
    bond::Bond,
    codec::encode,
    command::{Law, Prompt, Remote, Stream, TelephoneEvents, Voice},
    consent::Consent,
    discard::{Discard, Discards},
    dtmf::{EventPacket, Keypad, Listener, Released},
    inlet::{Inlet, Run},
    latch::{Source, plain},
    offload::{Turns, v4},
    outlet::{Feed, Outlet, Pace},
    player::{Player, Playing},
    quality::{Measured, Quality},
    rtcp::Reports,
    rtp::{self, Header, SequenceNumber, Ssrc, Timestamp},
    srtp::Link,
};
use crate::ids::{Entropy, LegId};
use std::{
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    time::{Duration, Instant},
};

/// The clock of prompts, and of G.711 (RFC 3551 4.5.14).
const CLOCK_RATE: u32 = 8000;
const PTIME_DEFAULT_MS: u16 = 20;
/// So long before the first report its port is bound.
const RTCP_AHEAD: Duration = Duration::from_millis(200);
/// Samples in the longest packet of ours: 200 ms.
const FRAME_LEN_MAX: usize = 1600;

/// How a leg's RTCP port is. It is bound when first wanted: half of all legs never carry a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RtcpPort {
    /// Not bound, and nothing to send or to hear there yet.
    Waiting,
    /// About to be bound.
    Asked,
    /// Bound.
    Bound,
    /// Another program has it.
    Taken,
}

/// What is next of a prompt.
pub(super) enum Sound {
    /// A packet of that length.
    Packet { to: SocketAddr, len: usize },
    /// Nothing, while the peer cannot hear it, or hears a digit.
    Withheld,
    /// It was played to its end.
    Over,
}

/// A packet of the peer's that counts.
pub(super) struct Arrival {
    pub(super) header: Header,
    /// Where in the packet the payload is.
    pub(super) payload: Range<usize>,
    /// How long the packet is, without what protected it.
    pub(super) len: usize,
    pub(super) run: Run,
    /// It is of a digit that the peer presses.
    pub(super) is_event: bool,
}

/// One leg. Between two packets of a leg come those of all the others, and its memory is cold again. So what
/// every packet needs comes first and in as few lines of the cache as can be: two for either way, two or three
/// more for each. `repr(C)`: in this order, which the compiler would change.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Leg {
    pub(super) link: Link,
    pub(super) player: Player,
    pub(super) stream: Option<Stream>,
    pub(super) is_held: bool,
    /// No RTP since the last aim.
    pub(super) is_unheard: bool,
    /// Nothing sent or heard since the last report; at the next packet there is something to tell soon.
    pub(super) is_resting: bool,
    pub(super) rtcp_port: RtcpPort,
    pub(super) bond: Bond,
    /// From when on silence counts; `None` once it was told of, or where it is no alarm.
    pub(super) silent_since: Option<Instant>,
    pub(super) outlet: Outlet,
    pub(super) keypad: Keypad,
    delay: Delay,
    pub(super) id: LegId,
    pub(super) inlet: Inlet,
    pub(super) listener: Listener,
    pub(super) turns: Turns,
    pub(super) remote: Option<Remote>,
    pub(super) source: Source,
    /// Where somebody must answer.
    pub(super) consent: Option<Box<Consent>>,
    pub(super) reports: Reports,
    pub(super) discards: Discards,
    prompts: u32,
    /// Ours, where it is one.
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) port: u16,
}

/// How long packets stay with us, and how much that varies (RFC 3550 6.4.1's mean deviation).
#[derive(Clone, Copy, Debug, Default)]
struct Delay {
    last_us: Option<f64>,
    jitter_us: f64,
    max_us: f64,
}

impl Leg {
    /// `local` is the address of the RTP port.
    pub(super) fn new(id: LegId, local: SocketAddr, entropy: &mut Entropy, now: Instant) -> Self {
        Self {
            id,
            ipv4: v4(local).map(|local| *local.ip()),
            port: local.port(),
            rtcp_port: RtcpPort::Waiting,
            remote: None,
            stream: None,
            source: Source::new(local.ip()),
            consent: None,
            bond: Bond::new(local.ip()),
            link: Link::default(),
            inlet: Inlet::default(),
            outlet: Outlet::new(entropy),
            player: Player::Off,
            keypad: Keypad::default(),
            listener: Listener::default(),
            reports: Reports::new(entropy, now),
            discards: Discards::default(),
            is_held: false,
            is_unheard: true,
            is_resting: true,
            silent_since: None,
            turns: Turns::default(),
            prompts: 0,
            delay: Delay::default(),
        }
    }

    /// `until`: how long it is sent to without an answer, from now on.
    pub(super) fn aim(
        &mut self,
        remote: Remote,
        stream: Stream,
        until: Option<Instant>,
        now: Instant,
    ) {
        let remote = Remote { rtp: plain(remote.rtp), rtcp: plain(remote.rtcp), ..remote };
        self.source.aim(self.remote.as_ref(), &remote);
        let to = self.source.destination(&remote).ok().map(|to| to.ip());
        if remote.must_answer || self.consent.is_some() {
            let until = until.filter(|_| !self.is_resting);
            self.consent.get_or_insert_default().aim(&remote, to, until);
        }
        self.is_unheard = true;
        self.remote = Some(remote);
        self.stream = Some(stream);
        self.watch(now);
    }

    pub(super) fn hold(&mut self, on: bool, now: Instant) {
        if self.is_held != on {
            self.is_held = on;
            self.watch(now);
        }
    }

    /// Begins to wait for the peer's voice, where it is expected at all.
    fn watch(&mut self, now: Instant) {
        let expected = self.remote.as_ref().is_some_and(|remote| remote.receives) && !self.is_held;
        self.silent_since = expected.then_some(now);
    }

    /// Takes a packet from the peer's side, and opens it in place: where it stands, or why it does not
    /// count.
    pub(super) fn accept(
        &mut self,
        packet: &mut [u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<Arrival, Discard> {
        let len = self.open_rtp(packet, from)?;
        let (header, payload) = rtp::read(packet.get(..len).unwrap_or_default())?;
        if self.bond.peer() != Some(from) {
            let remote = self.remote.as_ref().ok_or(Discard::TooEarly)?;
            let is_there = from.ip() == remote.rtp.ip();
            if !remote.receives {
                // It need not speak. Where it does, somebody is there.
                if let Some(consent) = &mut self.consent
                    && is_there
                    && self.source.expects(remote, from).is_ok()
                {
                    consent.answered(from.ip());
                }
                return Err(Discard::NotReceiving);
            }
            self.source.admit(remote, from)?;
            match &mut self.consent {
                Some(consent) if is_there => consent.answered(from.ip()),
                Some(consent) => consent.moved(),
                None => {}
            }
        }
        let stream = self.stream.as_ref().ok_or(Discard::TooEarly)?;
        let events = stream.telephone_events;
        let is_event = events.is_some_and(|events| events.receive == header.payload_type);
        let run = self.inlet.accept(&header, is_event, stream.clock_rate, now)?;
        if self.silent_since.is_some() {
            self.silent_since = Some(now);
        }
        Ok(Arrival { header, payload, len, run, is_event })
    }

    /// Notes from where a packet came that counts. Returns the peer to connect with, when it is time.
    pub(super) fn settle(&mut self, from: SocketAddr, now: Instant) -> Option<SocketAddr> {
        // Where the port is connected, nothing is left to ask, and what would say it is cold.
        let is_open = self.bond.peer().is_none();
        let remote = self.remote.as_ref().filter(|_| is_open);
        let is_sure = remote.is_some_and(|remote| self.source.is_sure(remote, from));
        let to = if is_sure { self.destination().ok() } else { None };
        self.bond.hear(from, to, now).then_some(from)
    }

    /// Decrypts a packet, where the leg has keys. What is not authentic must not move a latch; what is
    /// must be counted also while nothing is expected, lest a rollover be missed.
    fn open_rtp(&mut self, packet: &mut [u8], from: SocketAddr) -> Result<usize, Discard> {
        if !self.link.is_secure() {
            return Ok(packet.len());
        }
        let remote = self.remote.as_ref().ok_or(Discard::TooEarly)?;
        if packet.len() > rtp::DATAGRAM_MAX {
            return Err(Discard::TooLong);
        }
        self.source.expects(remote, from)?;
        Ok(self.link.open_rtp(packet)?)
    }

    /// Encrypts the packet in `buffer[..len]`, where the leg has keys, and returns what to send.
    pub(super) fn seal_rtp<'p>(
        &mut self,
        buffer: &'p mut [u8],
        len: usize,
    ) -> Result<&'p mut [u8], Discard> {
        let len = self.link.seal_rtp(buffer, len)?;
        buffer.get_mut(..len).ok_or(Discard::Unsendable)
    }

    /// Hears a digit in a packet of the peer's, if it is one.
    pub(super) fn hear(
        &mut self,
        arrival: &Arrival,
        packet: &[u8],
        now: Instant,
    ) -> Option<Released> {
        let events = self.telephone_events().filter(|_| arrival.is_event)?;
        let payload = packet.get(arrival.payload.clone())?;
        let at = (arrival.run, arrival.header.timestamp);
        let packet = EventPacket { payload, marker: arrival.header.marker, at };
        self.listener.hear(packet, events.clock_rate, now)
    }

    /// Queues a digit for the peer, if it wants any.
    pub(super) fn press(&mut self, digit: char, duration_ms: u16, now: Instant) {
        if self.telephone_events().is_some() {
            self.keypad.press(digit, duration_ms, now);
        }
    }

    /// Returns how digits were agreed on, if they were.
    pub(super) fn telephone_events(&self) -> Option<TelephoneEvents> {
        self.stream.and_then(|stream| stream.telephone_events)
    }

    /// Returns where RTP to the peer goes; `None` while it wants none.
    pub(super) fn destination(&self) -> Result<SocketAddr, Discard> {
        if let Some(peer) = self.bond.peer() {
            return Ok(peer);
        }
        let remote = self.remote.as_ref().ok_or(Discard::TooEarly)?;
        if !remote.sends {
            return Err(Discard::PeerOnHold);
        }
        if self.is_withheld() {
            return Err(Discard::Unanswered);
        }
        self.source.destination(remote)
    }

    /// Returns whether nothing is sent to the peer before it answers.
    pub(super) fn is_withheld(&self) -> bool {
        self.consent.as_ref().is_some_and(|consent| consent.is_withheld())
    }

    /// Returns whether something of ours takes the place of a joined leg's voice.
    pub(super) fn is_busy(&self) -> bool {
        match self.player {
            Player::Off => self.keypad.is_pressing(),
            Player::Echo | Player::Prompt(_) => true,
        }
    }

    pub(super) fn pace(&self) -> Pace {
        let ptime_ms = self.stream.map_or(PTIME_DEFAULT_MS, |s| s.ptime_ms).clamp(10, 200);
        let clock_rate_hz = self.stream.map_or(CLOCK_RATE, |s| s.clock_rate);
        let frame_units = clock_rate_hz.saturating_mul(ptime_ms.into()) / 1000;
        Pace { clock_rate_hz, frame_units }
    }

    pub(super) fn pace_of_events(&self, events: TelephoneEvents) -> Pace {
        let frame_ms = u32::try_from(self.frame().as_millis()).unwrap_or(0);
        let clock_rate_hz = events.clock_rate;
        Pace { clock_rate_hz, frame_units: clock_rate_hz.saturating_mul(frame_ms) / 1000 }
    }

    pub(super) fn frame(&self) -> Duration {
        let ptime_ms = self.stream.map_or(PTIME_DEFAULT_MS, |s| s.ptime_ms).clamp(10, 200);
        Duration::from_millis(ptime_ms.into())
    }

    pub(super) fn play(&mut self, prompt: Prompt, loops: bool, token: u64, now: Instant) {
        self.prompts = self.prompts.wrapping_add(1);
        let playing = Playing::new(prompt, loops, token, self.prompts, now);
        self.player = Player::Prompt(Box::new(playing));
    }

    /// Makes the next packet of a prompt. It goes on also while the peer does not hear it.
    pub(super) fn next_of_prompt(&mut self, buffer: &mut [u8], now: Instant) -> Sound {
        let (frame, destination) = (self.frame(), self.destination());
        let Player::Prompt(playing) = &mut self.player else { return Sound::Over };
        if playing.is_over() {
            return Sound::Over;
        }
        let frame_units = u32::try_from(frame.as_millis()).unwrap_or(0).saturating_mul(8);
        let frame_len = usize::try_from(frame_units).unwrap_or(FRAME_LEN_MAX).min(FRAME_LEN_MAX);
        let begins_at = Timestamp(playing.timestamp);
        playing.timestamp = playing.timestamp.wrapping_add(frame_units);
        let voice = self.stream.and_then(|stream| stream.voice);
        let law = voice.map_or(Law::Mu, |voice| voice.law);
        let mut payload = [0; FRAME_LEN_MAX];
        let samples = playing.advance(frame, frame_len, now);
        payload.iter_mut().zip(samples).for_each(|(code, sample)| *code = encode(law, sample));
        let (Some(Voice { payload_type, .. }), Ok(to)) = (voice, destination) else {
            self.outlet.cut();
            return Sound::Withheld;
        };
        if self.keypad.is_pressing() {
            return Sound::Withheld;
        }
        let header = Header {
            marker: playing.sequence == 0,
            payload_type,
            sequence: SequenceNumber(playing.sequence),
            timestamp: begins_at,
            ssrc: Ssrc(0),
        };
        playing.sequence = playing.sequence.wrapping_add(1);
        let pace = Pace { clock_rate_hz: CLOCK_RATE, frame_units };
        let feed = Feed::Prompt(playing.serial);
        let Ok(header) = self.outlet.carry(feed, &header, pace, now) else {
            debug_assert!(false, "a prompt is never late");
            return Sound::Withheld;
        };
        let payload = payload.get(..frame_len).unwrap_or_default();
        self.outlet.count(payload.len());
        Sound::Packet { to, len: rtp::build(&header, payload, buffer) }
    }

    /// Returns when something of this leg is due: the keypad, the listener, the prompt, the next
    /// report, silence, a connected peer that is quiet, an address that does not answer.
    pub(super) fn deadlines(&self, silence: Duration) -> [Option<Instant>; 7] {
        let prompt = match &self.player {
            Player::Prompt(playing) => Some(playing.next_at),
            Player::Off | Player::Echo => None,
        };
        let reports = self.remote.is_some().then(|| self.report_at());
        let silent = self.silent_since.and_then(|since| since.checked_add(silence));
        let (keypad, listener) = (self.keypad.poll_timeout(), self.listener.poll_timeout());
        let (quiet, unanswered) =
            (self.bond.poll_timeout(), self.consent.as_ref().and_then(|c| c.poll_timeout()));
        [keypad, listener, prompt, reports, silent, quiet, unanswered]
    }

    /// Returns when to look after the next report: a little earlier, while its port is not bound.
    fn report_at(&self) -> Instant {
        let next_at = self.reports.next_at;
        match self.rtcp_port {
            RtcpPort::Waiting => next_at.checked_sub(RTCP_AHEAD).unwrap_or(next_at),
            RtcpPort::Asked | RtcpPort::Bound | RtcpPort::Taken => next_at,
        }
    }

    /// Notes how long a packet of this leg stayed with us.
    pub(super) fn note_delay(&mut self, delay: Duration) {
        let us = delay.as_secs_f64() * 1e6;
        if let Some(last) = self.delay.last_us {
            self.delay.jitter_us += ((us - last).abs() - self.delay.jitter_us) / 16.0;
        }
        self.delay.last_us = Some(us);
        self.delay.max_us = self.delay.max_us.max(us);
    }

    /// Sums up.
    pub(super) fn quality(&self) -> Quality {
        let rtt = self.reports.rtt();
        let (packets, _) = self.outlet.sent();
        let (reported, lost_before) = self.reports.spoken_of();
        let clock_rate = self.stream.map_or(CLOCK_RATE, |stream| stream.clock_rate);
        let sent = Measured {
            packets,
            lost: self.reports.lost().min(packets.saturating_add(self.outlet.holes())),
            lost_before,
            reported,
            jitter_ms: self.reports.jitter_ms(clock_rate),
            ..Measured::default()
        };
        Quality {
            received: self.inlet.measured().rated(rtt),
            sent: if self.reports.is_told() { sent.rated(rtt) } else { sent },
            rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            relay_jitter_us: self.delay.jitter_us,
            relay_delay_max_us: self.delay.max_us,
            discards: self.discards,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Thousands are held: what few legs need is behind a pointer. The allocator has 1,280 bytes for either.
    #[test]
    fn a_leg_is_small() {
        assert!(size_of::<Leg>() <= 1216, "{} bytes", size_of::<Leg>());
    }

    /// Two lines of the cache for both ways, two and a bit of the next for the way out, three for the way in.
    #[test]
    fn what_every_packet_needs_is_close_together() {
        assert_eq!(offset_of!(Leg, outlet), 128);
        assert_eq!(offset_of!(Leg, keypad), 256);
        assert!(offset_of!(Leg, inlet) < 384, "{}", offset_of!(Leg, inlet));
        assert!(offset_of!(Leg, listener) < 576, "{}", offset_of!(Leg, listener));
    }
}
