//! The keys of a simulated telephone: digits as RFC 4733 events, pressed and heard.
//!
//! Owns: which key is down, which are waiting, which were heard.
//! Never: shares code with the product's own digits, so that it can find them wrong.

use std::collections::VecDeque;

const DIGITS: &str = "0123456789*#ABCD";
/// Packets of one press, 20 ms each: five while the key is down, and the last one twice more
/// (RFC 4733 2.5.1.4).
const HELD: u16 = 5;
const COPIES: u16 = 2;
/// Packets of speech between two keys.
const GAP: u16 = 5;
/// Units of the 8 kHz clock in a packet.
const FRAME_UNITS: u16 = 160;
/// -10 dBm0.
const VOLUME: u8 = 10;
/// Keys that may wait.
const WAITING_MAX: usize = 64;
/// Keys that are remembered.
const HEARD_MAX: usize = 4096;

/// One packet of a pressed key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Tone {
    pub(super) payload: [u8; 4],
    /// Units since the key went down: all packets of a press have the time of the first.
    pub(super) since: u32,
}

/// Keys that are pressed.
#[derive(Clone, Debug, Default)]
pub(super) struct Keypad {
    waiting: VecDeque<u8>,
    down: Option<(u8, u16)>,
    pause: u16,
}

impl Keypad {
    /// Presses these keys, one after the other; what is no key is left out.
    pub(super) fn press(&mut self, digits: &str) {
        let room = WAITING_MAX.saturating_sub(self.waiting.len());
        let events = digits.chars().filter_map(|digit| DIGITS.find(digit));
        self.waiting.extend(events.filter_map(|event| u8::try_from(event).ok()).take(room));
    }

    /// Returns the packet of the next 20 ms, if a key is down then. Nobody presses one while nobody listens.
    pub(super) fn tick(&mut self, is_heard: bool) -> Option<Tone> {
        if self.down.is_none() {
            if self.pause > 0 {
                self.pause -= 1;
                return None;
            }
            if !is_heard {
                return None;
            }
            self.down = self.waiting.pop_front().map(|event| (event, 0));
        }
        let (event, sent) = self.down?;
        let sent = sent + 1;
        let [d1, d2] = (sent.min(HELD) * FRAME_UNITS).to_be_bytes();
        let end = if sent >= HELD { 0x80 } else { 0 };
        self.down = Some((event, sent));
        if sent == HELD + COPIES {
            (self.down, self.pause) = (None, GAP);
        }
        let since = u32::from(sent - 1) * u32::from(FRAME_UNITS);
        Some(Tone { payload: [event, end | VOLUME, d1, d2], since })
    }
}

/// Keys that are heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    digits: String,
    /// The stream and the time of the last press.
    last: Option<(u32, u32)>,
}

impl Heard {
    /// Takes the payload of a telephone-event packet. Packets of one press have one time.
    pub(super) fn hear(&mut self, ssrc: u32, timestamp: u32, payload: &[u8]) {
        let Some(event) = payload.first().filter(|_| payload.len() >= 4) else { return };
        let Some(digit) = DIGITS.chars().nth(usize::from(*event)) else { return };
        let is_new = self.last.replace((ssrc, timestamp)) != Some((ssrc, timestamp));
        if is_new && self.digits.len() < HEARD_MAX {
            self.digits.push(digit);
        }
    }

    /// Returns what was pressed so far.
    pub(super) fn digits(&self) -> &str {
        &self.digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pressed_is_heard_once() {
        let (mut keypad, mut heard) = (Keypad::default(), Heard::default());
        keypad.press("1 1#");
        let mut packets = 0;
        for frame in 0_u32..60 {
            let Some(tone) = keypad.tick(true) else { continue };
            packets += 1;
            heard.hear(7, frame * 160 - tone.since, &tone.payload);
            // A late copy of it.
            heard.hear(7, frame * 160 - tone.since, &tone.payload);
        }
        assert_eq!((heard.digits(), packets), ("11#", 21));
        heard.hear(7, 0, &[16, 0, 0, 0]);
        heard.hear(7, 0, &[1]);
        assert_eq!(heard.digits(), "11#");
    }
}
