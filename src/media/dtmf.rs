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
/// A segment that ends with whole frames of 20 or 30 ms is longer than this.
const SEGMENT_MIN: u16 = 0xF000;
/// -10 dBm0, as most phones say.
const VOLUME: u8 = 10;

/// Returns the event of a digit (RFC 4733 3.2).
fn event_of(digit: char) -> Option<u8> {
    Some(match digit {
        '0'..='9' => u8::try_from(digit.to_digit(10)?).ok()?,
        '*' => 10,
        '#' => 11,
        'A' | 'a' => 12,
        'B' | 'b' => 13,
        'C' | 'c' => 14,
        'D' | 'd' => 15,
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
    /// What begins with it.
    pub(super) onset: Onset,
}

/// What begins with a packet of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Onset {
    /// The event.
    Event,
    /// Another segment of an event that is longer than 16 bits can say (RFC 4733 2.5.1.3): its
    /// timestamp is this many units later, and it has no marker.
    Segment(u16),
    /// Nothing.
    Nothing,
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
    /// Units of the clock in the segments before this one.
    units_before: u64,
    /// The packet before was the last of its segment.
    is_segment_full: bool,
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
        let (mut press, mut onset) = match self.pressing {
            Some(press) => (press, Onset::Nothing),
            None => {
                let Some((event, total_ms)) = self.waiting.pop_front() else {
                    self.next_at = None;
                    return None;
                };
                let (done_ms, units_before, is_segment_full, ends) = (0, 0, false, 0);
                let press = Press { event, total_ms, done_ms, units_before, is_segment_full, ends };
                (press, Onset::Event)
            }
        };
        press.done_ms = press.done_ms.saturating_add(frame_ms).min(press.total_ms);
        if std::mem::take(&mut press.is_segment_full) {
            press.units_before = press.units_before.saturating_add(u16::MAX.into());
            onset = Onset::Segment(u16::MAX);
        }
        let units = u64::from(press.done_ms).saturating_mul(clock_rate.into()) / 1000;
        let duration = u16::try_from(units.saturating_sub(press.units_before));
        press.is_segment_full = duration.is_err();
        let is_whole = press.done_ms >= press.total_ms && !press.is_segment_full;
        let is_end = is_whole && onset != Onset::Event;
        press.ends = press.ends.saturating_add(is_end.into());
        let [d1, d2] = duration.unwrap_or(u16::MAX).to_be_bytes();
        let end_bit = if is_end { 0x80 } else { 0 };
        let is_over = press.ends >= END_COPIES;
        self.pressing = (!is_over).then_some(press);
        self.next_at = now.checked_add(if is_over { GAP } else { frame });
        Some(Tick { payload: [press.event, end_bit | VOLUME, d1, d2], onset })
    }
}

/// A packet of an event, as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventPacket<'p> {
    pub(super) payload: &'p [u8],
    pub(super) marker: bool,
    /// An event's timestamp is when it, or this segment of it, began, on the clock of this run.
    pub(super) at: (Run, Timestamp),
}

/// Hears which keys a peer presses, once each, whatever packets are lost.
#[derive(Debug, Default)]
pub(super) struct Listener {
    pressed: Option<Heard>,
    /// The last key that was told, so that neither copies of its end nor stragglers of those before
    /// it are told again.
    told: Option<Heard>,
}

/// A key, as far as it was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    event: u8,
    run: Run,
    /// Of the segment that goes on.
    began: Timestamp,
    /// The latest timestamp: later than `began` where a peer lets it run on during a press.
    latest: Timestamp,
    duration: u16,
    /// Of the segments before.
    units_before: u32,
    last_at: Instant,
}

/// How a packet of an event stands to a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Relation {
    /// It belongs to the key.
    Same,
    /// It is the key's next segment.
    Segment,
    /// It belongs to a key before.
    Past,
    /// It belongs to another key.
    Other,
}

impl Heard {
    fn new(event: u8, duration: u16, (run, began): (Run, Timestamp), now: Instant) -> Self {
        Self { event, run, began, latest: began, duration, units_before: 0, last_at: now }
    }

    /// Asks for the marker only where the timestamps leave it open: carriers set it as they like.
    fn relation(&self, new: &Self, marker: bool) -> Relation {
        if self.run != new.run {
            return Relation::Other;
        }
        let since_began = i64::from(new.began.since(self.began));
        match since_began {
            0 => Relation::Same,
            ..0 => Relation::Past,
            1.. if self.event != new.event || marker => Relation::Other,
            // RFC 4733 2.5.1.3; some end a segment with the last whole frame.
            1.. if since_began == i64::from(u16::MAX)
                || (since_began == i64::from(self.duration) && self.duration >= SEGMENT_MIN) =>
            {
                Relation::Segment
            }
            // It would have begun before what it says it lasts: the timestamp runs on.
            1.. if since_began < i64::from(new.duration) => Relation::Same,
            1.. => Relation::Other,
        }
    }

    /// Returns whether this, the end of a key, is a copy of the end that was told. Keys do not overlap,
    /// so what ends less than its duration later is the same, although its timestamp runs on.
    fn is_copy(&self, new: &Self, marker: bool) -> bool {
        let since = i64::from(new.began.since(self.latest));
        let is_alike = self.run == new.run && self.event == new.event && !marker;
        is_alike && since < i64::from(self.duration.min(new.duration))
    }

    fn extend(&mut self, new: &Self) {
        self.duration = self.duration.max(new.duration);
        if new.began.since(self.latest) > 0 {
            self.latest = new.began;
        }
        self.last_at = new.last_at;
    }

    fn continued(&self, new: &Self) -> Self {
        let segment = u32::try_from(new.began.since(self.began)).unwrap_or(0);
        Self { units_before: self.units_before.saturating_add(segment), ..*new }
    }

    fn released(&self, clock_rate: u32) -> Option<Released> {
        let units = u64::from(self.units_before).saturating_add(self.duration.into());
        let ms = units.saturating_mul(1000).checked_div(clock_rate.into())?;
        let digit = digit_of(self.event)?;
        Some(Released { digit, duration_ms: u16::try_from(ms).unwrap_or(u16::MAX) })
    }
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
    /// Takes a packet of an event.
    pub(super) fn hear(
        &mut self,
        packet: EventPacket<'_>,
        clock_rate: u32,
        now: Instant,
    ) -> Option<Released> {
        let [event, flags, d1, d2, ..] = packet.payload else { return None };
        let is_end = flags & 0x80 != 0;
        let new = Heard::new(*event, u16::from_be_bytes([*d1, *d2]), packet.at, now);
        if self.is_old(&new, is_end, packet.marker) {
            return None;
        }
        let Some(before) = self.pressed.take() else { return self.go_on(new, is_end, clock_rate) };
        match before.relation(&new, packet.marker) {
            Relation::Same => {
                let mut heard = before;
                heard.extend(&new);
                self.go_on(heard, is_end, clock_rate)
            }
            Relation::Segment => self.go_on(before.continued(&new), is_end, clock_rate),
            Relation::Past => {
                self.pressed = Some(before);
                None
            }
            // The end of the key before was lost altogether: it is told late rather than never. This
            // one is told by its next packet, or by time.
            Relation::Other => {
                self.pressed = Some(new);
                self.told = Some(before);
                before.released(clock_rate)
            }
        }
    }

    /// Returns whether a packet says nothing new; notes how far copies of an end have come.
    fn is_old(&mut self, new: &Heard, is_end: bool, marker: bool) -> bool {
        let Some(told) = &mut self.told else { return false };
        let since = new.began.since(told.latest);
        if told.run == new.run && since <= 0 {
            return true;
        }
        // While a key is down, an end is its own.
        let is_copy = is_end && self.pressed.is_none() && told.is_copy(new, marker);
        if is_copy {
            told.latest = new.began;
        }
        is_copy
    }

    /// Notes a key that is down, or tells of one that was released.
    fn go_on(&mut self, heard: Heard, is_end: bool, clock_rate: u32) -> Option<Released> {
        if !is_end {
            self.pressed = Some(heard);
            return None;
        }
        self.told = Some(heard);
        heard.released(clock_rate)
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
        self.told = Some(heard);
        heard.released(clock_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    #[test]
    fn a_press_is_what_a_listener_hears() {
        for (digit, ms) in [('5', 100), ('#', 160), ('D', 40), ('c', 60), ('0', 1)] {
            let (mut keypad, mut listener) = (Keypad::default(), Listener::default());
            let mut now = crate::sim::epoch();
            keypad.press(digit, ms, now);
            let began = (Run::default(), Timestamp(77));
            let (mut heard, mut packets) = (vec![], vec![]);
            while let Some(at) = keypad.poll_timeout() {
                now = at;
                if let Some(tick) = keypad.tick(FRAME, 8000, now) {
                    packets.push(tick);
                    heard.extend(hear(&mut listener, &tick.payload, began, now));
                }
            }
            let digit = digit.to_ascii_uppercase();
            let want = Released { digit, duration_ms: ms.max(PRESS_MIN_MS) };
            assert_eq!(heard, [want], "{digit}");
            let ends = packets.iter().filter(|p| p.payload[1] & 0x80 != 0).count();
            assert_eq!((ends, packets.iter().filter(|p| p.onset == Onset::Event).count()), (3, 1));
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
                let got = hear(&mut listener, &payload, began, now);
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
            assert_eq!(hear(&mut listener, &payload, began, now), None);
        }
        let at = listener.poll_timeout().unwrap();
        let told = listener.handle_timeout(8000, at);
        assert_eq!(told, Some(Released { digit: '1', duration_ms: 100 }));
    }

    /// RFC 4733 2.5.1.3: what 16 bits cannot say continues as another segment.
    #[test]
    fn a_long_press_is_several_segments_and_one_key() {
        for (clock_rate, ms, segments) in [
            (8000, 8191, 0),
            (8000, 8192, 1),
            (8000, 20_000, 2),
            (8000, u16::MAX, 7),
            (48_000, 1365, 0),
            (48_000, 5000, 3),
        ] {
            let name = format!("{ms} ms at {clock_rate} Hz");
            let (mut keypad, mut listener) = (Keypad::default(), Listener::default());
            let (mut now, mut began) = (crate::sim::epoch(), Timestamp(u32::MAX - 1000));
            let (mut full, mut ends, mut told) = (0, vec![], vec![]);
            let mut last = 0;
            keypad.press('7', ms, now);
            while let Some(at) = keypad.poll_timeout() {
                now = at;
                let Some(tick) = keypad.tick(FRAME, clock_rate, now) else { continue };
                let duration = u16::from_be_bytes([tick.payload[2], tick.payload[3]]);
                match tick.onset {
                    Onset::Segment(units) => {
                        assert_eq!((last, units), (u16::MAX, u16::MAX), "{name}");
                        began = began.plus(units.into());
                        full += 1;
                    }
                    Onset::Event | Onset::Nothing => assert!(duration >= last, "{name}"),
                }
                last = duration;
                ends.extend((tick.payload[1] & 0x80 != 0).then_some(duration));
                let at = (Run::default(), began);
                let marker = tick.onset == Onset::Event;
                let packet = EventPacket { payload: &tick.payload, marker, at };
                told.extend(listener.hear(packet, clock_rate, now));
            }
            let units = u32::from(ms) * (clock_rate / 1000);
            assert_eq!((full, ends), (segments, vec![(units - segments * 65_535) as u16; 3]));
            assert_eq!(told, [Released { digit: '7', duration_ms: ms }], "{name}");
        }
    }

    /// A phone whose timestamp runs on during a press, and keys that only look like that.
    #[test]
    fn two_presses_of_one_key_are_told_apart() {
        // Timestamp, duration, marker, end.
        type Packet = (u32, u16, bool, bool);
        let cases: [(&str, &[Packet], &[u16]); 6] = [
            (
                "twice, without markers",
                &[
                    (0, 160, false, false),
                    (0, 800, false, true),
                    (0, 800, false, true),
                    (1280, 160, false, false),
                    (1280, 800, false, true),
                    (1280, 800, false, true),
                ],
                &[100, 100],
            ),
            (
                "the end of the first is lost",
                &[(0, 160, false, false), (960, 160, false, false), (960, 800, false, true)],
                &[20, 100],
            ),
            (
                "a marker tells",
                &[(0, 160, true, false), (100, 800, true, false), (100, 800, false, true)],
                &[20, 100],
            ),
            (
                "only ends",
                &[(0, 800, false, true), (0, 800, false, true), (1280, 800, false, true)],
                &[100, 100],
            ),
            (
                "the timestamp runs on",
                &[
                    (0, 160, true, false),
                    (160, 320, false, false),
                    (480, 640, false, false),
                    (320, 480, false, false),
                    (640, 800, false, true),
                    (800, 800, false, true),
                    (960, 800, false, true),
                ],
                &[100],
            ),
            (
                "it runs on, twice",
                &[
                    (0, 160, false, false),
                    (160, 320, false, true),
                    (320, 320, false, true),
                    (480, 320, false, true),
                    (960, 160, false, false),
                    (1120, 320, false, true),
                    (1280, 320, false, true),
                ],
                &[40, 40],
            ),
        ];
        for (name, packets, want_ms) in cases {
            let (mut listener, now) = (Listener::default(), crate::sim::epoch());
            let told = packets.iter().filter_map(|(timestamp, duration, marker, is_end)| {
                let [d1, d2] = duration.to_be_bytes();
                let payload = &[5, if *is_end { 0x8a } else { 10 }, d1, d2];
                let at = (Run::default(), Timestamp(u32::MAX - 300).plus(*timestamp));
                listener.hear(EventPacket { payload, marker: *marker, at }, 8000, now)
            });
            let told = told.map(|key| key.duration_ms).collect::<Vec<_>>();
            assert_eq!(told, want_ms, "{name}");
        }
    }

    fn hear(
        listener: &mut Listener,
        payload: &[u8],
        at: (Run, Timestamp),
        now: Instant,
    ) -> Option<Released> {
        listener.hear(EventPacket { payload, marker: false, at }, 8000, now)
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
                tick.filter(|t| t.onset == Onset::Event)
                    .map(|t| (t.payload[0], (now - start).as_millis())),
            );
        }
        assert_eq!(firsts, [(1, 0), (2, 120)]);
    }
}
