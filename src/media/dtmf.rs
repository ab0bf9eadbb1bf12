//! Digits as RFC 4733 events: made, and heard.
//!
//! Owns: the events' four bytes, their repetition, and when a key counts as released.
//! Never: relays; events between two legs pass like any other payload.

use super::rtp::Timestamp;
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

/// Hears which keys a peer presses, once each, whatever packets are lost.
#[derive(Debug, Default)]
pub(super) struct Listener {
    pressed: Option<Heard>,
    /// The timestamp of the last event that was told, so that copies of its end are not told again.
    told: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    event: u8,
    timestamp: Timestamp,
    duration: u16,
    last_at: Instant,
}

/// A key that was released.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Released {
    pub(super) digit: char,
    pub(super) duration_ms: u16,
}

impl Listener {
    /// Takes an event's payload. The marker is not asked: carriers set it as they like.
    pub(super) fn hear(
        &mut self,
        payload: &[u8],
        timestamp: Timestamp,
        clock_rate: u32,
        now: Instant,
    ) -> Option<Released> {
        let [event, flags, d1, d2, ..] = payload else { return None };
        if self.told == Some(timestamp) {
            return None;
        }
        let duration = u16::from_be_bytes([*d1, *d2]);
        let heard = Heard { event: *event, timestamp, duration, last_at: now };
        let before = self.pressed.replace(heard).filter(|before| before.timestamp != timestamp);
        if flags & 0x80 != 0 {
            self.pressed = None;
            self.told = Some(timestamp);
            let now_released = released(heard, clock_rate);
            // The end of the key before was lost altogether; it is told late rather than never.
            return match before {
                Some(before) => {
                    self.pressed = Some(heard);
                    self.told = None;
                    released(before, clock_rate)
                }
                None => now_released,
            };
        }
        before.and_then(|before| released(before, clock_rate))
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
        self.told = Some(heard.timestamp);
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
            let mut heard = vec![];
            let mut packets = vec![];
            while let Some(at) = keypad.poll_timeout() {
                now = at;
                if let Some(tick) = keypad.tick(FRAME, 8000, now) {
                    packets.push(tick);
                    heard.extend(listener.hear(&tick.payload, Timestamp(77), 8000, now));
                }
            }
            let want = Released { digit, duration_ms: ms.max(PRESS_MIN_MS) };
            assert_eq!(heard, [want], "{digit}");
            let ends = packets.iter().filter(|p| p.payload[1] & 0x80 != 0).count();
            assert_eq!((ends, packets.iter().filter(|p| p.is_first).count()), (3, 1));
        }
    }

    #[test]
    fn a_lost_end_is_told_by_time_or_by_the_next_key() {
        let now = crate::sim::epoch();
        let mut listener = Listener::default();
        assert_eq!(listener.hear(&[1, 10, 0, 160], Timestamp(1), 8000, now), None);
        let next = listener.hear(&[2, 10, 0, 160], Timestamp(9), 8000, now);
        assert_eq!(next.map(|r| r.digit), Some('1'));
        let at = listener.poll_timeout().unwrap();
        assert_eq!(listener.handle_timeout(8000, at).map(|r| r.digit), Some('2'));
        assert_eq!(listener.hear(&[2, 0x8a, 0, 160], Timestamp(9), 8000, at), None, "told already");
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
