//! A voice at the end of a simulated call: it speaks G.711 over RTP, listens for a tone, echoes.
//!
//! Owns: its RTP stream and what it has heard.
//! Never: opens a socket; whoever runs it sends and receives.

use super::{
    keys::{Heard, Keypad},
    sound::Agreement,
};
use crate::{
    ids::Entropy,
    media::{
        Law, decode, encode,
        srtp::{Link, TRAILER_MAX},
        tone::{Ear, chord},
    },
};
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// One packet's worth, in time and in samples of 8 kHz.
const FRAME: Duration = Duration::from_millis(20);
const FRAME_SAMPLES: usize = 160;
const HEADER_LEN: usize = 12;
/// Whoever is later than this does not make up for it: nobody speaks faster because he was away.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Echoed packets that may wait for their turn.
const ECHOES_MAX: usize = 50;
const LOUDNESS: f64 = 0.3;

/// What a voice says.
#[derive(Clone, Debug)]
pub enum Says {
    /// A tone for as long as the call lasts.
    Tone(f64),
    /// These samples of 8 kHz once, then whatever it hears.
    ThenEcho(Vec<i16>),
}

impl Says {
    /// Three rising tones, as before an announcement of the telephone network, then an echo.
    pub fn announcement() -> Self {
        let tones = [950.0, 1400.0, 1800.0];
        let each = tones.map(|hz| chord(&[hz], Duration::from_millis(330), LOUDNESS));
        let mut samples = each.concat();
        samples.extend(vec![0; 4000]);
        Self::ThenEcho(samples)
    }
}

/// What a voice has seen of its call.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// Packets received.
    pub received: u64,
    /// Packets missing among them, by their sequence numbers.
    pub lost: u64,
    /// For how long the tone was heard.
    pub heard: Duration,
    /// The keys that were heard.
    pub digits: Box<str>,
    /// SRTP packets that could not be opened.
    pub shut: u64,
}

/// Where its peer is, and how it is spoken to.
#[derive(Clone, Copy, Debug)]
struct Peer {
    address: SocketAddr,
    payload_type: u8,
    law: Law,
    /// Whether it wants to hear us.
    listens: bool,
    /// The number of telephone-event.
    events: Option<u8>,
}

/// One end of a call's media.
#[derive(Debug)]
pub struct Voice {
    says: Says,
    /// A second of the tone, if that is what it says.
    tone: Vec<i16>,
    said: usize,
    ear: Ear,
    peer: Option<Peer>,
    link: Link,
    next_at: Option<Instant>,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    /// The peer's stream, and its last sequence number.
    last_heard: Option<(u32, u16)>,
    keypad: Keypad,
    keys: Heard,
    echoes: VecDeque<Vec<u8>>,
    outbox: VecDeque<(SocketAddr, Vec<u8>)>,
    report: Report,
}

impl Voice {
    /// Creates a voice that listens for a tone. It is silent until it knows its peer.
    pub fn new(says: Says, listens_for_hz: f64, entropy: &mut Entropy) -> Self {
        let random = entropy.next_u64();
        let tone = match &says {
            // A whole second repeats without a click where the frequency is a whole number.
            Says::Tone(hz) => chord(&[*hz], Duration::from_secs(1), LOUDNESS),
            Says::ThenEcho(_) => vec![],
        };
        Self {
            says,
            tone,
            said: 0,
            ear: Ear::new(listens_for_hz),
            peer: None,
            link: Link::default(),
            next_at: None,
            // RFC 3711 3.3.1: the first packets must not be beyond a rollover.
            sequence: random as u16 >> 1,
            timestamp: (random >> 16) as u32,
            ssrc: (random >> 32) as u32,
            last_heard: None,
            keypad: Keypad::default(),
            keys: Heard::default(),
            echoes: VecDeque::new(),
            outbox: VecDeque::new(),
            report: Report::default(),
        }
    }

    /// Says where the peer is and what was agreed with it: `PCMU` or `PCMA`.
    pub fn aim(&mut self, agreed: &Agreement, now: Instant) {
        let law = if agreed.codec.eq_ignore_ascii_case("PCMA") { Law::A } else { Law::Mu };
        self.peer = Some(Peer {
            address: agreed.remote,
            payload_type: agreed.payload_type,
            law,
            listens: agreed.direction.sends(),
            events: agreed.events,
        });
        self.link.aim(agreed.keys.clone().map(Box::new));
        self.next_at.get_or_insert(now);
    }

    /// Falls silent, and hears nothing, until it is aimed again.
    pub fn hush(&mut self) {
        (self.peer, self.next_at) = (None, None);
        self.echoes.clear();
    }

    /// Goes on as another stream: SSRC, sequence numbers and timestamps have nothing to do with what
    /// came before.
    pub fn renew(&mut self) {
        self.ssrc = self.ssrc.wrapping_mul(0x9e37_79b1).wrapping_add(1);
        self.sequence = self.sequence.wrapping_mul(0x2f35) >> 1;
        self.timestamp = self.timestamp.wrapping_add(self.ssrc);
    }

    /// Presses keys, one after the other (RFC 4733). Nobody hears them where events were not agreed.
    pub fn press(&mut self, digits: &str) {
        self.keypad.press(digits);
    }

    /// Returns what it has seen so far.
    pub fn report(&self) -> Report {
        Report { heard: self.ear.heard(), digits: self.keys.digits().into(), ..self.report.clone() }
    }

    /// Takes a packet.
    pub fn receive(&mut self, packet: &[u8]) {
        let Some(peer) = self.peer else { return };
        let mut plain = packet.to_vec();
        match self.link.open_rtp(&mut plain) {
            Ok(len) => plain.truncate(len),
            Err(_) => {
                self.report.shut += 1;
                return;
            }
        }
        let packet = plain.as_slice();
        let (Some(header), Some(payload)) = (packet.get(..HEADER_LEN), packet.get(HEADER_LEN..))
        else {
            return;
        };
        let [first, second, s1, s2, t1, t2, t3, t4, r1, r2, r3, r4] = header else { return };
        let payload_type = second & 0x7f;
        let is_event = Some(payload_type) == peer.events;
        if first >> 6 != 2 || (payload_type != peer.payload_type && !is_event) {
            return;
        }
        let sequence = u16::from_be_bytes([*s1, *s2]);
        let ssrc = u32::from_be_bytes([*r1, *r2, *r3, *r4]);
        let last = self.last_heard.filter(|(stream, _)| *stream == ssrc);
        let missing = last.map_or(0, |(_, last)| sequence.wrapping_sub(last).wrapping_sub(1));
        // A step back is a late packet, not 65,000 lost ones.
        if missing < 1000 {
            self.report.lost += u64::from(missing);
        }
        self.last_heard = Some((ssrc, sequence));
        self.report.received += 1;
        if is_event {
            return self.keys.hear(ssrc, u32::from_be_bytes([*t1, *t2, *t3, *t4]), payload);
        }
        let samples: Vec<i16> = payload.iter().map(|code| decode(peer.law, *code)).collect();
        self.ear.hear(&samples);
        if self.echoes.len() < ECHOES_MAX {
            self.echoes.push_back(payload.to_vec());
        }
    }

    /// Returns when to fire next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_at
    }

    /// Says what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let (Some(at), Some(peer)) = (self.next_at, self.peer) else { return };
        if at > now {
            return;
        }
        let is_late = now.saturating_duration_since(at) > LATE_MAX;
        self.next_at = Some(if is_late { now } else { at } + FRAME);
        let time = self.timestamp;
        self.timestamp = time.wrapping_add(FRAME_SAMPLES as u32);
        let key = self.keypad.tick(peer.listens).filter(|_| peer.events.is_some());
        if !peer.listens {
            // The rest of a key that is down is not heard.
            return;
        }
        if let (Some(tone), Some(events)) = (key, peer.events) {
            let marker = if tone.since == 0 { 0x80 } else { 0 };
            let time = time.wrapping_sub(tone.since);
            return self.send(peer.address, (marker | events, time), &tone.payload);
        }
        let Some(payload) = self.next_payload(peer.law) else { return };
        let marker = if self.report.sent == 0 { 0x80 } else { 0 };
        self.send(peer.address, (marker | peer.payload_type, time), &payload);
    }

    fn send(&mut self, to: SocketAddr, (kind, time): (u8, u32), payload: &[u8]) {
        let mut packet = Vec::with_capacity(HEADER_LEN + payload.len());
        packet.extend([0x80, kind]);
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(payload);
        let len = packet.len();
        packet.resize(len + TRAILER_MAX, 0);
        let Ok(len) = self.link.seal_rtp(&mut packet, len) else { return };
        packet.truncate(len);
        self.sequence = self.sequence.wrapping_add(1);
        self.report.sent += 1;
        self.outbox.push_back((to, packet));
    }

    fn next_payload(&mut self, law: Law) -> Option<Vec<u8>> {
        let samples = match &self.says {
            Says::Tone(_) => {
                let at = self.said % self.tone.len().max(1);
                self.tone.get(at..at + FRAME_SAMPLES).map(<[i16]>::to_vec)
            }
            Says::ThenEcho(samples) => {
                let end = (self.said + FRAME_SAMPLES).min(samples.len());
                samples.get(self.said..end).filter(|rest| !rest.is_empty()).map(<[i16]>::to_vec)
            }
        };
        self.said += FRAME_SAMPLES;
        match samples {
            Some(samples) => Some(samples.iter().map(|sample| encode(law, *sample)).collect()),
            None => self.echoes.pop_front(),
        }
    }

    /// Returns the next packet to send.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outbox.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        media::srtp::{Keys, MasterKey, Suite},
        sdp::Direction,
    };

    fn run(a: &mut Voice, b: &mut Voice, start: Instant, time: Duration) {
        let mut now = start;
        while now < start + time {
            for voice in [&mut *a, &mut *b] {
                voice.handle_timeout(now);
            }
            while let Some((_, packet)) = a.poll_transmit() {
                b.receive(&packet);
            }
            while let Some((_, packet)) = b.poll_transmit() {
                a.receive(&packet);
            }
            now += FRAME;
        }
    }

    fn agreed(codec: &str, payload_type: u8, direction: Direction) -> Agreement {
        let at = |port| ([127, 0, 0, 1], port).into();
        Agreement {
            codec: codec.to_owned(),
            payload_type,
            local: at(1),
            remote: at(2),
            direction,
            events: Some(101),
            keys: None,
        }
    }

    #[test]
    fn secret_voices_hear_those_who_have_the_key() {
        let start = crate::sim::epoch();
        let mut entropy = Entropy::from_u64(3);
        let mut key = || MasterKey::draw(Suite::AesCm128HmacSha1_80, &mut entropy);
        let (ours, theirs) = (key(), key());
        let crossed = Keys { send: theirs.clone(), receive: ours.clone() };
        let with = |keys| Agreement { keys, ..agreed("PCMU", 0, Direction::SendRecv) };
        for (keys, is_heard) in [(Some(crossed), true), (None, false)] {
            let mut entropy = Entropy::from_u64(4);
            let mut caller = Voice::new(Says::Tone(440.0), 1000.0, &mut entropy);
            let mut callee = Voice::new(Says::Tone(1000.0), 440.0, &mut entropy);
            let own = Keys { send: ours.clone(), receive: theirs.clone() };
            caller.aim(&with(Some(own)), start);
            callee.aim(&with(keys), start);
            run(&mut caller, &mut callee, start, Duration::from_secs(1));
            let report = caller.report();
            assert_eq!(report.heard > Duration::from_millis(800), is_heard, "{report:?}");
            assert_eq!((report.received, report.shut), if is_heard { (50, 0) } else { (0, 50) });
        }
    }

    #[test]
    fn two_voices_hear_each_other_and_an_echo_hears_itself() {
        let start = crate::sim::epoch();
        let mut entropy = Entropy::from_u64(1);
        let alaw = agreed("PCMA", 8, Direction::SendRecv);
        let mut caller = Voice::new(Says::Tone(440.0), 1000.0, &mut entropy);
        let mut callee = Voice::new(Says::Tone(1000.0), 440.0, &mut entropy);
        caller.aim(&alaw, start);
        callee.aim(&alaw, start);
        run(&mut caller, &mut callee, start, Duration::from_secs(2));
        for report in [caller.report(), callee.report()] {
            assert!(report.heard > Duration::from_millis(1800), "{report:?}");
            assert_eq!((report.sent, report.lost), (100, 0));
        }

        let ssrc = caller.ssrc;
        caller.renew();
        assert_ne!(caller.ssrc, ssrc);
        run(&mut caller, &mut callee, start + Duration::from_secs(2), Duration::from_secs(1));
        let report = callee.report();
        assert_eq!((report.received, report.lost), (150, 0), "another stream, not a gap");

        let ulaw = agreed("PCMU", 0, Direction::SendRecv);
        let mut caller = Voice::new(Says::Tone(440.0), 440.0, &mut entropy);
        let mut echo = Voice::new(Says::announcement(), 1.0, &mut entropy);
        caller.aim(&ulaw, start);
        echo.aim(&ulaw, start);
        run(&mut caller, &mut echo, start, Duration::from_secs(4));
        assert!(caller.report().heard > Duration::from_secs(1), "{:?}", caller.report());
    }

    #[test]
    fn keys_are_heard_between_speech_and_nothing_is_said_on_hold() {
        let start = crate::sim::epoch();
        let mut entropy = Entropy::from_u64(2);
        let both = agreed("PCMU", 0, Direction::SendRecv);
        let mut caller = Voice::new(Says::Tone(440.0), 1000.0, &mut entropy);
        let mut callee = Voice::new(Says::Tone(1000.0), 440.0, &mut entropy);
        caller.aim(&both, start);
        callee.aim(&both, start);
        caller.press("12");
        callee.press("#");
        run(&mut caller, &mut callee, start, Duration::from_secs(2));
        let (ours, theirs) = (caller.report(), callee.report());
        assert_eq!((&*ours.digits, &*theirs.digits), ("#", "12"));
        assert_eq!((ours.lost, theirs.lost, theirs.received), (0, 0, 100));

        caller.aim(&agreed("PCMU", 0, Direction::RecvOnly), start);
        let later = start + Duration::from_secs(2);
        run(&mut caller, &mut callee, later, Duration::from_secs(1));
        assert_eq!((caller.report().sent, callee.report().sent), (100, 150));
        caller.press("3");
        run(&mut caller, &mut callee, later + Duration::from_secs(1), Duration::from_secs(1));
        assert_eq!(&*callee.report().digits, "12", "nobody listens");
        caller.aim(&both, later);
        run(&mut caller, &mut callee, later + Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!((&*callee.report().digits, caller.report().received), ("123", 250));
        caller.hush();
        run(&mut caller, &mut callee, later + Duration::from_secs(3), Duration::from_secs(1));
        assert_eq!(caller.report().received, 250);
    }

    #[test]
    fn who_was_away_goes_on_as_before() {
        let start = crate::sim::epoch();
        let mut voice = Voice::new(Says::Tone(440.0), 1000.0, &mut Entropy::from_u64(2));
        voice.aim(&agreed("PCMU", 0, Direction::SendRecv), start);
        for (after_ms, next_ms) in [(0, 20), (95, 40), (95, 60), (95, 80), (1000, 1020)] {
            let at = |ms| start + Duration::from_millis(ms);
            voice.handle_timeout(at(after_ms));
            assert_eq!(voice.poll_timeout(), Some(at(next_ms)), "at {after_ms} ms");
        }
        let end = voice.sequence as u8;
        let said = std::iter::from_fn(|| voice.poll_transmit());
        let left: Vec<u8> = said.map(|(_, packet)| end.wrapping_sub(packet[3])).collect();
        assert_eq!(left, [5, 4, 3, 2, 1], "one after the other");
    }
}
