//! Digits as RFC 4733 events: made, and heard.
//!
//! Owns: the events' four bytes, their repetition, and when a key counts as released.
//! Never: relays; events between two legs pass like any other payload.

use super::{command::Event, inlet::Run, rtp::Timestamp};
use crate::ids::LegId;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Digits that may wait to be pressed.
const WAITING_MAX: usize = 32;
/// The shortest press that every detector hears (RFC 4733 2.5.1.2 leaves it open; carriers want 40).
const PRESS_MIN_MS: u16 = 40;
/// RFC 4733 2.5.1.4: the last packet three times.
const END_COPIES: u8 = 3;
/// Silence between two digits.
const GAP: Duration = Duration::from_millis(60);
/// A key whose end was lost counts as released after this.
const RELEASE_AFTER: Duration = Duration::from_millis(300);
/// -10 dBm0, as most phones say.
const VOLUME: u8 = 10;

/// Returns the event of a digit (RFC 4733 3.2).
fn event_of(digit: char) -> Option<u8> {
    Some(match digit {
        '0'..='9' => u8::try_from(digit.to_digit(10)?).ok()?,
        '*' => 10,
        '#' => 11,
        'A' => 12,
        'B' => 13,
        'C' => 14,
        'D' => 15,
        _ => return None,
    })
}

fn digit_of(event: u8) -> Option<char> {
    "0123456789*#ABCD".chars().nth(event.into())
}

/// A packet's worth of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tick {
    /// The payload.
    pub(super) payload: [u8; 4],
    /// Whether the event begins with it.
    pub(super) is_first: bool,
}

/// Digits that we press towards a peer.
#[derive(Debug, Default)]
pub(super) struct Keypad {
    waiting: VecDeque<(u8, u16)>,
    pressing: Option<Press>,
    /// When the next packet, or the next digit, is due.
    next_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Press {
    event: u8,
    total_ms: u16,
    done_ms: u16,
    ends: u8,
}

impl Keypad {
    /// Queues a digit; unknown ones and too many are ignored.
    pub(super) fn press(&mut self, digit: char, duration_ms: u16, now: Instant) {
        let Some(event) = event_of(digit) else { return };
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back((event, duration_ms.max(PRESS_MIN_MS)));
            self.next_at.get_or_insert(now);
        }
    }

    /// Forgets all digits, also the one that is being pressed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns whether a key is down.
    pub(super) fn is_pressing(&self) -> bool {
        self.pressing.is_some()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_at
    }

    /// Makes the packet that is due. `clock_rate` is the events' clock in Hz.
    pub(super) fn tick(&mut self, frame: Duration, clock_rate: u32, now: Instant) -> Option<Tick> {
        let frame_ms = u16::try_from(frame.as_millis()).unwrap_or(20);
        let is_first = self.pressing.is_none();
        let mut press = match self.pressing {
            Some(press) => press,
            None => {
                let Some((event, total_ms)) = self.waiting.pop_front() else {
                    self.next_at = None;
                    return None;
                };
                let total_ms = total_ms.min(longest_ms(clock_rate));
                Press { event, total_ms, done_ms: 0, ends: 0 }
            }
        };
        press.done_ms = press.done_ms.saturating_add(frame_ms).min(press.total_ms);
        let is_end = press.done_ms >= press.total_ms && !is_first;
        press.ends = press.ends.saturating_add(is_end.into());
        let units = u64::from(press.done_ms).saturating_mul(clock_rate.into()) / 1000;
        let [d1, d2] = u16::try_from(units).unwrap_or(u16::MAX).to_be_bytes();
        let end_bit = if is_end { 0x80 } else { 0 };
        let is_over = press.ends >= END_COPIES;
        self.pressing = (!is_over).then_some(press);
        self.next_at = now.checked_add(if is_over { GAP } else { frame });
        Some(Tick { payload: [press.event, end_bit | VOLUME, d1, d2], is_first })
    }
}

/// What 16 bits of a clock's units can say (RFC 4733 2.5.1.3 would continue in another event).
fn longest_ms(clock_rate: u32) -> u16 {
    let ms = (u32::from(u16::MAX)).saturating_mul(1000).checked_div(clock_rate).unwrap_or(0);
    u16::try_from(ms).unwrap_or(u16::MAX)
}

/// Hears which keys a peer presses, once each, whatever packets are lost.
#[derive(Debug, Default)]
pub(super) struct Listener {
    pressed: Option<Heard>,
    /// When the last event that was told began, so that neither copies of its end nor stragglers of
    /// those before it are told again.
    told: Option<(Run, Timestamp)>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    event: u8,
    /// An event's timestamp is when it began, on the clock of this run.
    began: (Run, Timestamp),
    duration: u16,
    last_at: Instant,
}

/// A key that was released.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Released {
    pub(super) digit: char,
    pub(super) duration_ms: u16,
}

impl Released {
    /// Returns what is told of it.
    pub(super) fn told_of(self, leg: LegId) -> Event {
        Event::Dtmf { leg, digit: self.digit, duration_ms: self.duration_ms }
    }
}

impl Listener {
    /// Takes an event's payload. The marker is not asked: carriers set it as they like.
    pub(super) fn hear(
        &mut self,
        payload: &[u8],
        began: (Run, Timestamp),
        clock_rate: u32,
        now: Instant,
    ) -> Option<Released> {
        let [event, flags, d1, d2, ..] = payload else { return None };
        let is_past = |at: (Run, Timestamp)| at.0 == began.0 && began.1.since(at.1) < 0;
        let is_told = |at| at == began || is_past(at);
        if self.told.is_some_and(is_told) || self.pressed.is_some_and(|key| is_past(key.began)) {
            return None;
        }
        let duration = u16::from_be_bytes([*d1, *d2]);
        let mut heard = Heard { event: *event, began, duration, last_at: now };
        match self.pressed.take() {
            // The end of the key before was lost altogether: it is told late rather than never. This
            // one is told by its next packet, or by time.
            Some(before) if before.began != began => {
                self.pressed = Some(heard);
                self.told = Some(before.began);
                released(before, clock_rate)
            }
            before => {
                let longest = before.map_or(0, |before| before.duration);
                heard.duration = duration.max(longest);
                if flags & 0x80 == 0 {
                    self.pressed = Some(heard);
                    return None;
                }
                self.told = Some(began);
                released(heard, clock_rate)
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pressed.and_then(|heard| heard.last_at.checked_add(RELEASE_AFTER))
    }

    /// Tells of a key whose end never came.
    pub(super) fn handle_timeout(&mut self, clock_rate: u32, now: Instant) -> Option<Released> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        let heard = self.pressed.take()?;
        self.told = Some(heard.began);
        released(heard, clock_rate)
    }
}

fn released(heard: Heard, clock_rate: u32) -> Option<Released> {
    let ms = u32::from(heard.duration).saturating_mul(1000).checked_div(clock_rate)?;
    let digit = digit_of(heard.event)?;
    Some(Released { digit, duration_ms: u16::try_from(ms).unwrap_or(u16::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    #[test]
    fn a_press_is_what_a_listener_hears() {
        for (digit, ms) in [('5', 100), ('#', 160), ('D', 40), ('0', 1)] {
            let (mut keypad, mut listener) = (Keypad::default(), Listener::default());
            let mut now = crate::sim::epoch();
            keypad.press(digit, ms, now);
            let began = (Run::default(), Timestamp(77));
            let (mut heard, mut packets) = (vec![], vec![]);
            while let Some(at) = keypad.poll_timeout() {
                now = at;
                if let Some(tick) = keypad.tick(FRAME, 8000, now) {
                    packets.push(tick);
                    heard.extend(listener.hear(&tick.payload, began, 8000, now));
                }
            }
            let want = Released { digit, duration_ms: ms.max(PRESS_MIN_MS) };
            assert_eq!(heard, [want], "{digit}");
            let ends = packets.iter().filter(|p| p.payload[1] & 0x80 != 0).count();
            assert_eq!((ends, packets.iter().filter(|p| p.is_first).count()), (3, 1));
        }
    }

    /// Each line: event, whether it ends, when it began and in which run; what is told at once.
    #[test]
    fn every_key_is_told_once_whatever_is_lost_or_late() {
        type Packet = (u8, bool, u32, u8, Option<char>);
        let cases: [(&str, &[Packet], &str); 8] = [
            ("whole", &[(1, false, 1, 0, None), (1, true, 1, 0, Some('1'))], ""),
            (
                "copies",
                &[(1, true, 1, 0, Some('1')), (1, true, 1, 0, None), (1, true, 1, 0, None)],
                "",
            ),
            ("no end", &[(1, false, 1, 0, None), (2, false, 9, 0, Some('1'))], "2"),
            (
                "no end, then only ends",
                &[(1, false, 1, 0, None), (2, true, 9, 0, Some('1')), (2, true, 9, 0, Some('2'))],
                "",
            ),
            ("no end, then one end", &[(1, false, 1, 0, None), (2, true, 9, 0, Some('1'))], "2"),
            (
                "stragglers",
                &[
                    (1, false, 1, 0, None),
                    (2, false, 9, 0, Some('1')),
                    (1, true, 1, 0, None),
                    (1, false, 1, 0, None),
                    (2, true, 9, 0, Some('2')),
                    (1, true, 1, 0, None),
                ],
                "",
            ),
            (
                "a new run may begin anywhere",
                &[(1, true, 1000, 0, Some('1')), (2, true, 5, 1, Some('2')), (2, true, 5, 1, None)],
                "",
            ),
            ("no digit", &[(16, true, 1, 0, None), (3, false, 9, 0, None)], "3"),
        ];
        for (name, packets, by_time) in cases {
            let mut now = crate::sim::epoch();
            let mut listener = Listener::default();
            let runs = runs();
            for (event, ends, began, run, want) in packets {
                let payload = [*event, if *ends { 0x8a } else { 10 }, 0, 160];
                let began = (runs[usize::from(*run)], Timestamp(*began));
                let got = listener.hear(&payload, began, 8000, now);
                assert_eq!(got.map(|key| key.digit), *want, "{name}");
            }
            let mut told = String::new();
            while let Some(at) = listener.poll_timeout() {
                now = at;
                told.extend(listener.handle_timeout(8000, now).map(|key| key.digit));
            }
            assert_eq!(told, by_time, "{name}");
        }
    }

    /// Two runs of one inlet.
    fn runs() -> [Run; 2] {
        let mut inlet = crate::media::inlet::Inlet::default();
        [1, 2].map(|ssrc| {
            let header = crate::media::rtp::Header {
                ssrc: crate::media::rtp::Ssrc(ssrc),
                ..crate::media::rtp::tests::header(0, 1, 1)
            };
            inlet.accept(&header, true, 8000, crate::sim::epoch()).unwrap()
        })
    }

    #[test]
    fn a_reordered_packet_does_not_shorten_a_key() {
        let now = crate::sim::epoch();
        let mut listener = Listener::default();
        let began = (Run::default(), Timestamp(1));
        for payload in [[1, 10, 3, 32], [1, 10, 0, 160]] {
            assert_eq!(listener.hear(&payload, began, 8000, now), None);
        }
        let at = listener.poll_timeout().unwrap();
        let told = listener.handle_timeout(8000, at);
        assert_eq!(told, Some(Released { digit: '1', duration_ms: 100 }));
    }

    #[test]
    fn a_press_is_as_long_as_its_clock_can_say() {
        for (clock_rate, longest_ms) in [(8000, 8191), (48_000, 1365)] {
            let mut now = crate::sim::epoch();
            let mut keypad = Keypad::default();
            keypad.press('1', u16::MAX, now);
            let mut durations = vec![];
            while let Some(at) = keypad.poll_timeout() {
                now = at;
                let tick = keypad.tick(FRAME, clock_rate, now);
                durations.extend(tick.map(|t| u16::from_be_bytes([t.payload[2], t.payload[3]])));
            }
            let last = u32::from(*durations.last().unwrap());
            assert_eq!(last, longest_ms * (clock_rate / 1000), "{clock_rate}");
            assert!(durations.is_sorted(), "{clock_rate}");
        }
    }

    #[test]
    fn digits_wait_for_each_other() {
        let start = crate::sim::epoch();
        let (mut keypad, mut now, mut firsts) = (Keypad::default(), start, vec![]);
        keypad.press('1', 40, now);
        keypad.press('2', 40, now);
        keypad.press('x', 40, now);
        while let Some(at) = keypad.poll_timeout() {
            now = at;
            let tick = keypad.tick(FRAME, 8000, now);
            firsts.extend(
                tick.filter(|t| t.is_first).map(|t| (t.payload[0], (now - start).as_millis())),
            );
        }
        assert_eq!(firsts, [(1, 0), (2, 120)]);
    }
}
