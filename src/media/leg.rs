//! One leg: a port pair and the peer behind it.
//!
//! Owns: what is known of the peer, what it hears besides the other leg, its counters.
//! Never: knows which leg it is joined with; the worker does.

use super::{
    codec,
    command::{Prompt, Remote, Stream, Voice},
    discard::{Discard, Discards},
    dtmf::{Keypad, Listener},
    inlet::{Inlet, Run},
    latch::Source,
    outlet::{Feed, Outlet, Pace},
    quality::{Measured, Quality},
    rtcp::Reports,
    rtp::{self, Header, SequenceNumber, Ssrc, Timestamp},
};
use crate::ids::{Entropy, LegId};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The clock of prompts, and of G.711 (RFC 3551 4.5.14).
const CLOCK_RATE: u32 = 8000;
const PTIME_DEFAULT_MS: u16 = 20;
/// A prompt that is this much late gives up its place instead of catching up in a burst.
const LATE_MAX: Duration = Duration::from_millis(500);

/// What a peer hears instead of a joined leg.
#[derive(Debug)]
pub(super) enum Player {
    /// Nothing of ours.
    Off,
    /// Its own packets.
    Echo,
    /// A prompt.
    Prompt(Playing),
}

/// A prompt on its way.
#[derive(Debug)]
pub(super) struct Playing {
    prompt: Prompt,
    position: usize,
    loops: bool,
    pub(super) token: u64,
    serial: u32,
    sequence: u16,
    pub(super) next_at: Instant,
}

/// One leg.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: LegId,
    pub(super) port: u16,
    pub(super) remote: Option<Remote>,
    pub(super) stream: Option<Stream>,
    pub(super) source: Source,
    pub(super) inlet: Inlet,
    pub(super) outlet: Outlet,
    pub(super) player: Player,
    pub(super) keypad: Keypad,
    pub(super) listener: Listener,
    pub(super) reports: Reports,
    pub(super) discards: Discards,
    pub(super) is_held: bool,
    /// No RTP since the last aim.
    pub(super) is_unheard: bool,
    /// From when on silence counts; `None` once it was told of, or where it is no alarm.
    pub(super) silent_since: Option<Instant>,
    prompts: u32,
    delay: Delay,
}

/// How long packets stay with us, and how much that varies (RFC 3550 6.4.1's mean deviation).
#[derive(Clone, Copy, Debug, Default)]
struct Delay {
    last_us: Option<f64>,
    jitter_us: f64,
    max_us: f64,
}

impl Leg {
    pub(super) fn new(id: LegId, port: u16, entropy: &mut Entropy, now: Instant) -> Self {
        Self {
            id,
            port,
            remote: None,
            stream: None,
            source: Source::default(),
            inlet: Inlet::default(),
            outlet: Outlet::new(entropy),
            player: Player::Off,
            keypad: Keypad::default(),
            listener: Listener::default(),
            reports: Reports::new(now),
            discards: Discards::default(),
            is_held: false,
            is_unheard: true,
            silent_since: None,
            prompts: 0,
            delay: Delay::default(),
        }
    }

    pub(super) fn aim(&mut self, remote: Remote, stream: Stream, now: Instant) {
        self.source.aim(self.remote.as_ref(), &remote);
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

    /// Takes a packet from the peer's side: where it stands, or why it does not count.
    pub(super) fn accept(
        &mut self,
        packet: &[u8],
        from: SocketAddr,
        now: Instant,
    ) -> Result<(Header, std::ops::Range<usize>, Run), Discard> {
        let (header, payload) = rtp::read(packet)?;
        let (Some(remote), Some(stream)) = (&self.remote, &self.stream) else {
            return Err(Discard::TooEarly);
        };
        if !remote.receives {
            return Err(Discard::NotReceiving);
        }
        self.source.admit(remote, from)?;
        let events = stream.telephone_events;
        let is_event = events.is_some_and(|events| events.receive == header.payload_type);
        let run = self.inlet.accept(&header, is_event, stream.clock_rate, now)?;
        if self.silent_since.is_some() {
            self.silent_since = Some(now);
        }
        Ok((header, payload, run))
    }

    /// Returns where RTP to the peer goes; `None` while it wants none.
    pub(super) fn destination(&self) -> Result<SocketAddr, Discard> {
        let remote = self.remote.as_ref().ok_or(Discard::TooEarly)?;
        if !remote.sends {
            return Err(Discard::PeerOnHold);
        }
        self.source.destination(remote).ok_or(Discard::PeerOnHold)
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

    pub(super) fn frame(&self) -> Duration {
        let ptime_ms = self.stream.map_or(PTIME_DEFAULT_MS, |s| s.ptime_ms).clamp(10, 200);
        Duration::from_millis(ptime_ms.into())
    }

    pub(super) fn play(&mut self, prompt: Prompt, loops: bool, token: u64, now: Instant) {
        self.prompts = self.prompts.wrapping_add(1);
        let serial = self.prompts;
        let playing =
            Playing { prompt, position: 0, loops, token, serial, sequence: 0, next_at: now };
        self.player = Player::Prompt(playing);
    }

    /// Makes the next packet of a prompt. `None` at its end.
    pub(super) fn next_of_prompt(&mut self, buffer: &mut [u8], now: Instant) -> Option<usize> {
        let (pace, frame) = (self.pace(), self.frame());
        let Player::Prompt(playing) = &mut self.player else { return None };
        let samples = playing.prompt.samples();
        if playing.position >= samples.len() {
            if !playing.loops || samples.is_empty() {
                return None;
            }
            playing.position = 0;
        }
        let len = usize::try_from(frame.as_millis()).unwrap_or(20).saturating_mul(8);
        let end = playing.position.saturating_add(len).min(samples.len());
        let chunk = samples.get(playing.position..end).unwrap_or_default();
        playing.position = end;
        let sequence = playing.sequence;
        playing.sequence = sequence.wrapping_add(1);
        playing.next_at = match playing.next_at.checked_add(frame) {
            Some(next) if now.saturating_duration_since(next) < LATE_MAX => next,
            Some(_) | None => now.checked_add(frame).unwrap_or(now),
        };
        let feed = Feed::Prompt(playing.serial);
        // A peer without G.711 hears nothing, for as long as the prompt lasts.
        let Some(Voice { payload_type, law }) = self.stream.and_then(|s| s.voice) else {
            return Some(0);
        };
        let mut payload = [codec::encode(law, 0); 1600];
        for (code, sample) in payload.iter_mut().zip(chunk) {
            *code = codec::encode(law, *sample);
        }
        let frame_units = pace.frame_units.wrapping_mul(sequence.into());
        let header = Header {
            marker: sequence == 0,
            payload_type,
            sequence: SequenceNumber(sequence),
            timestamp: Timestamp(frame_units),
            ssrc: Ssrc(0),
        };
        let header = self.outlet.carry(feed, &header, pace, now).ok()?;
        let payload = payload.get(..len).unwrap_or_default();
        self.outlet.count(payload.len());
        Some(rtp::build(&header, payload, buffer))
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
        let clock_rate = self.stream.map_or(CLOCK_RATE, |stream| stream.clock_rate);
        let sent = Measured {
            packets,
            lost: self.reports.lost().min(packets),
            jitter_ms: self.reports.jitter_ms(clock_rate),
            ..Measured::default()
        };
        Quality {
            received: self.inlet.measured().rated(rtt),
            sent: sent.rated(rtt),
            rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1000.0),
            relay_jitter_us: self.delay.jitter_us,
            relay_delay_max_us: self.delay.max_us,
            discards: self.discards,
        }
    }
}
