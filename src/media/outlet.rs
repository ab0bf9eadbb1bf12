//! What one peer hears: a single source with continuous numbers, whoever feeds it.
//!
//! Owns: the SSRC, sequence numbers and timestamps that we present to a peer.
//! Never: knows what the packets carry.

use super::{
    discard::Discard,
    dtmf::Onset,
    inlet::Run,
    offload::{News, Progress},
    rtp::{Header, SequenceNumber, Ssrc, Timestamp, units},
};
use crate::ids::{Entropy, LegId};
use std::time::{Duration, Instant};

/// As far back as a late packet may still be; less than half the numbers, so that order is defined.
const FLOOR_DISTANCE: u16 = 1000;
/// After an interruption, packets from before it may still come for this long.
const STRAGGLING_MAX: Duration = Duration::from_secs(2);

/// Who feeds an outlet. While it stays the same, numbers are carried over with a constant offset, so
/// that the peer sees the losses and the order there were.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Feed {
    /// A run of packets of this leg's peer.
    Relayed(LegId, Run),
    /// The prompt that was started as the n-th.
    Prompt(u32),
}

/// The clock of one stream: its rate, and how many units a packet of ours covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Pace {
    pub(super) clock_rate_hz: u32,
    pub(super) frame_units: u32,
}

/// One peer's outgoing packets.
#[derive(Debug)]
pub(super) struct Outlet {
    ssrc: Ssrc,
    next: SequenceNumber,
    /// The latest timestamp, and when it was sent; before the first packet, where to begin.
    anchor: (Timestamp, Option<Instant>),
    splice: Option<Splice>,
    /// The relayed packet that is furthest on in its feed's own numbers, and when it came.
    latest: Option<(Feed, SequenceNumber, Instant)>,
    packets: u64,
    octets: u64,
    /// Numbers that were passed over because nothing came under them.
    holes: u64,
}

/// How a feed's numbers become ours.
#[derive(Clone, Copy, Debug)]
struct Splice {
    feed: Feed,
    sequence_offset: u16,
    timestamp_offset: u32,
    /// Numbers below belong to whoever fed us before.
    floor: SequenceNumber,
    /// The feed was interrupted: its next packet needs another `sequence_offset`.
    is_cut: bool,
}

impl Outlet {
    /// Creates the source, with a random identity and beginning (RFC 3550 5.1).
    pub(super) fn new(entropy: &mut Entropy) -> Self {
        let [a, b, c, d, e, f, g, h] = entropy.next_u64().to_be_bytes();
        let [i, j, ..] = entropy.next_u64().to_be_bytes();
        Self {
            ssrc: Ssrc(u32::from_be_bytes([a, b, c, d])),
            // RFC 3711 3.3.1: a receiver that misses the first packets must not miss a rollover.
            next: SequenceNumber(u16::from_be_bytes([i, j]) >> 1),
            anchor: (Timestamp(u32::from_be_bytes([e, f, g, h])), None),
            splice: None,
            latest: None,
            packets: 0,
            octets: 0,
            holes: 0,
        }
    }

    /// Becomes another source, whose numbers begin anew.
    pub(super) fn renew(&mut self, random: u64) {
        let [a, b, c, d, i, j, ..] = random.to_be_bytes();
        self.ssrc = Ssrc(u32::from_be_bytes([a, b, c, d]));
        self.next = SequenceNumber(u16::from_be_bytes([i, j]) >> 1);
        self.splice = None;
    }

    pub(super) fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// Returns the packets and payload bytes sent.
    pub(super) fn sent(&self) -> (u64, u64) {
        (self.packets, self.octets)
    }

    /// Returns how many packets the peer misses because they never came to us.
    pub(super) fn holes(&self) -> u64 {
        self.holes
    }

    /// Returns the timestamp that belongs to this moment.
    pub(super) fn timestamp_at(&self, clock_rate_hz: u32, now: Instant) -> Timestamp {
        let (timestamp, sent_at) = self.anchor;
        let elapsed =
            sent_at.map_or(0, |at| units(now.saturating_duration_since(at), clock_rate_hz));
        timestamp.plus(elapsed)
    }

    /// Returns what is added to a feed's sequence numbers and timestamps, if nothing is to change soon:
    /// the feed is the one that was heard last, and has been for `window` packets at least.
    pub(super) fn offsets(&self, feed: Feed, window: u16) -> Option<(u16, u32)> {
        let splice = self.splice.filter(|splice| splice.feed == feed && !splice.is_cut)?;
        let is_settled = self.next.since(splice.floor).unsigned_abs() > window;
        is_settled.then_some((splice.sequence_offset, splice.timestamp_offset))
    }

    /// Takes note of what somebody else sent of a feed in our name.
    pub(super) fn absorb(&mut self, feed: Feed, progress: &Progress, news: &News) {
        let Some(splice) = &mut self.splice else { return };
        if splice.feed != feed {
            return debug_assert!(false, "nobody else may send {feed:?}");
        }
        let (advance, packets) = (u64::from(news.advance), news.tally.packets);
        self.packets = self.packets.saturating_add(packets);
        self.octets = self.octets.saturating_add(news.tally.octets);
        self.holes = self.holes.saturating_add(advance).saturating_sub(packets);
        if news.advance > 0 {
            let came = SequenceNumber((progress.highest & 0xffff) as u16);
            let top = came.plus(splice.sequence_offset);
            let timestamp = Timestamp(progress.top_timestamp).plus(splice.timestamp_offset);
            self.next = top.next();
            self.anchor = (timestamp, Some(progress.heard_at));
            self.latest = Some((feed, came, progress.heard_at));
            let floor = top.plus(FLOOR_DISTANCE.wrapping_neg());
            if floor.since(splice.floor) > 0 {
                splice.floor = floor;
            }
        }
    }

    /// Gives a packet of a feed its place in our stream. What comes from before the feed took over is
    /// late: its numbers have been given to somebody else.
    pub(super) fn carry(
        &mut self,
        feed: Feed,
        header: &Header,
        pace: Pace,
        now: Instant,
    ) -> Result<Header, Discard> {
        let (mut splice, is_first) = match self.splice {
            Some(splice) if splice.feed == feed && !splice.is_cut => (splice, false),
            Some(_) if self.is_straggler(feed, header.sequence, now) => return Err(Discard::Late),
            Some(_) | None => (self.spliced(feed, header, pace, now), true),
        };
        let sequence = header.sequence.plus(splice.sequence_offset);
        let timestamp = header.timestamp.plus(splice.timestamp_offset);
        if sequence.since(splice.floor) < 0 {
            return Err(Discard::Late);
        }
        let skipped = sequence.since(self.next);
        if let Ok(skipped) = u64::try_from(skipped) {
            self.next = sequence.next();
            self.holes = self.holes.saturating_add(skipped);
            // All packets of an event have the timestamp of its beginning.
            if timestamp != self.anchor.0 || self.anchor.1.is_none() {
                self.anchor = (timestamp, Some(now));
            }
            self.note(feed, header.sequence, now);
            let floor = sequence.plus(FLOOR_DISTANCE.wrapping_neg());
            if floor.since(splice.floor) > 0 {
                splice.floor = floor;
            }
        } else {
            self.holes = self.holes.saturating_sub(1);
        }
        self.splice = Some(splice);
        // A marker tells the peer to adapt its buffer (RFC 3551 4.1), which a new feed needs.
        let marker = header.marker || is_first;
        Ok(Header { marker, sequence, timestamp, ssrc: self.ssrc, ..*header })
    }

    /// Interrupts whoever feeds us with an event packet of our own. All packets of an event have the
    /// timestamp of the first (RFC 4733 2.2.1), or of the first of their segment.
    pub(super) fn interrupt(
        &mut self,
        payload_type: u8,
        onset: Onset,
        pace: Pace,
        now: Instant,
    ) -> Header {
        self.cut();
        match onset {
            Onset::Event => self.anchor = (self.following(pace, now), Some(now)),
            Onset::Segment(units) => {
                let passed = time_of(units, pace.clock_rate_hz);
                let at = self.anchor.1.and_then(|at| at.checked_add(passed)).unwrap_or(now);
                self.anchor = (self.anchor.0.plus(units.into()), Some(at.min(now)));
            }
            Onset::Nothing => {}
        }
        let sequence = self.next;
        self.next = sequence.next();
        let (timestamp, _) = self.anchor;
        let marker = onset == Onset::Event;
        Header { marker, payload_type, sequence, timestamp, ssrc: self.ssrc }
    }

    /// Notes that a packet of a feed is withheld.
    pub(super) fn withhold(&mut self, feed: Feed, header: &Header, now: Instant) {
        self.note(feed, header.sequence, now);
        self.cut();
    }

    /// Interrupts a feed: its next packet follows the last that was sent, so that the peer does not
    /// take for lost what was not meant for it.
    pub(super) fn cut(&mut self) {
        if let Some(splice) = &mut self.splice {
            splice.is_cut = true;
        }
    }

    /// Counts a packet that goes out.
    pub(super) fn count(&mut self, payload_len: usize) {
        self.packets = self.packets.saturating_add(1);
        self.octets = self.octets.saturating_add(payload_len as u64);
    }

    /// Remembers how far a relayed feed has come. A prompt is never out of order.
    fn note(&mut self, feed: Feed, sequence: SequenceNumber, now: Instant) {
        let is_relayed = matches!(feed, Feed::Relayed(..));
        if is_relayed && !self.is_straggler(feed, sequence, now) {
            self.latest = Some((feed, sequence, now));
        }
    }

    /// Returns whether a packet belongs before one that was carried or withheld.
    fn is_straggler(&self, feed: Feed, sequence: SequenceNumber, now: Instant) -> bool {
        self.latest.is_some_and(|(of, latest, at)| {
            let is_recent = now.saturating_duration_since(at) < STRAGGLING_MAX;
            of == feed && is_recent && sequence.since(latest) <= 0
        })
    }

    fn spliced(&self, feed: Feed, header: &Header, pace: Pace, now: Instant) -> Splice {
        // A feed that was only interrupted kept its time meanwhile.
        let kept = self.splice.filter(|before| before.feed == feed).map(|before| {
            (before.timestamp_offset, header.timestamp.plus(before.timestamp_offset))
        });
        let timestamp_offset = match kept {
            Some((offset, timestamp)) if timestamp.since(self.anchor.0) > 0 => offset,
            Some(_) | None => self.following(pace, now).0.wrapping_sub(header.timestamp.0),
        };
        Splice {
            feed,
            sequence_offset: self.next.0.wrapping_sub(header.sequence.0),
            timestamp_offset,
            floor: self.next,
            is_cut: false,
        }
    }

    /// The timestamp of something new: later than the latest by the time passed, or by a frame.
    fn following(&self, pace: Pace, now: Instant) -> Timestamp {
        let (timestamp, sent_at) = self.anchor;
        let Some(sent_at) = sent_at else { return timestamp };
        let elapsed = units(now.saturating_duration_since(sent_at), pace.clock_rate_hz);
        timestamp.plus(elapsed.max(pace.frame_units))
    }
}

/// Returns how long a clock takes for that many units.
fn time_of(units: u16, clock_rate_hz: u32) -> Duration {
    let micros = u64::from(units).saturating_mul(1_000_000).checked_div(clock_rate_hz.into());
    Duration::from_micros(micros.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{media::rtp::tests::header, sim::epoch};

    const PACE: Pace = Pace { clock_rate_hz: 8000, frame_units: 160 };
    const A: Feed = Feed::Prompt(1);
    const B: Feed = Feed::Prompt(2);

    #[test]
    fn a_change_of_feed_continues_the_numbers() {
        let mut outlet = outlet();
        let first = carry(&mut outlet, A, 65_530, 1_000_000, 0).unwrap();
        let second = carry(&mut outlet, A, 65_531, 1_000_160, 20).unwrap();
        let third = carry(&mut outlet, B, 7, 44, 40).unwrap();
        let fourth = carry(&mut outlet, A, 65_532, 1_000_320, 1040).unwrap();
        let all = [first, second, third, fourth];
        assert!(all.iter().all(|h| h.ssrc == outlet.ssrc()));
        let steps = all.windows(2).map(|w| w[1].sequence.since(w[0].sequence));
        assert_eq!(steps.collect::<Vec<_>>(), [1, 1, 1]);
        let steps = all.windows(2).map(|w| w[1].timestamp.since(w[0].timestamp));
        assert_eq!(steps.collect::<Vec<_>>(), [160, 160, 8000]);
        assert_eq!(all.map(|h| h.marker), [true, false, true, true]);
    }

    #[test]
    fn losses_and_order_within_a_feed_are_kept() {
        let mut outlet = outlet();
        let numbers = [10, 11, 14, 13, 15];
        let out = numbers.map(|n| carry(&mut outlet, A, n, u32::from(n) * 160, 0).unwrap());
        let offsets = out.iter().zip(numbers).map(|(h, n)| h.sequence.0.wrapping_sub(n));
        assert_eq!(offsets.collect::<std::collections::BTreeSet<_>>().len(), 1);
        assert_eq!(outlet.holes(), 1, "12 never came, 13 did");
    }

    #[test]
    fn what_precedes_the_change_is_late() {
        let mut outlet = outlet();
        carry(&mut outlet, A, 10, 0, 0).unwrap();
        carry(&mut outlet, B, 500, 0, 20).unwrap();
        assert_eq!(carry(&mut outlet, B, 499, 0, 20), Err(Discard::Late));
        for n in 0..40_000_u32 {
            let sequence = (501 + n) as u16;
            assert!(carry(&mut outlet, B, sequence, n * 160, 20).is_ok(), "{n}");
        }
    }

    #[test]
    fn an_interruption_freezes_time_and_continues_the_numbers() {
        let mut outlet = outlet();
        let before = carry(&mut outlet, A, 10, 0, 0).unwrap();
        let onsets = [(Onset::Event, 20), (Onset::Nothing, 40), (Onset::Nothing, 60)];
        let events = onsets.map(|(onset, ms)| outlet.interrupt(101, onset, PACE, at(ms)));
        let after = carry(&mut outlet, A, 14, 640, 80).unwrap();
        assert!(events.iter().all(|e| e.timestamp == before.timestamp.plus(160)));
        assert_eq!(events.map(|e| e.marker), [true, false, false]);
        assert_eq!(events[0].sequence, before.sequence.next());
        assert_eq!(after.sequence, events[2].sequence.next());
        assert_eq!(after.timestamp, before.timestamp.plus(640), "the feed kept its own time");
        assert_eq!(carry(&mut outlet, A, 13, 480, 80), Err(Discard::Late));
    }

    /// Of ours and relayed ones: what comes after a long event is not older than its end.
    #[test]
    fn time_goes_on_during_an_event() {
        let mut ours = outlet();
        let begin = ours.interrupt(101, Onset::Event, PACE, at(0));
        let segment = ours.interrupt(101, Onset::Segment(u16::MAX), PACE, at(8200));
        assert_eq!(segment.timestamp, begin.timestamp.plus(65_535));
        assert!(!segment.marker);
        let voice = carry(&mut ours, A, 5, 0, 8300).unwrap();
        assert_eq!(voice.timestamp, begin.timestamp.plus(8300 * 8));

        let mut relayed = outlet();
        let begin = carry(&mut relayed, A, 1, 1000, 0).unwrap();
        for n in 1..100 {
            carry(&mut relayed, A, 1 + n, 1000, u64::from(n) * 20).unwrap();
        }
        let voice = carry(&mut relayed, B, 5, 0, 2000).unwrap();
        assert_eq!(voice.timestamp, begin.timestamp.plus(16_000));
    }

    #[test]
    fn what_is_withheld_leaves_no_hole() {
        const A: Feed = Feed::Relayed(LegId(1), Run::FIRST);
        let mut outlet = outlet();
        let before = carry(&mut outlet, A, 10, 0, 0).unwrap();
        outlet.cut();
        let after = carry(&mut outlet, A, 60, 8000, 1000).unwrap();
        assert_eq!(after.sequence, before.sequence.next());
        assert_eq!(after.timestamp, before.timestamp.plus(8000));
        assert!(after.marker);

        outlet.cut();
        assert_eq!(
            carry(&mut outlet, A, 59, 7840, 1010),
            Err(Discard::Late),
            "from before the cut"
        );
        assert_eq!(carry(&mut outlet, A, 61, 8160, 1020).unwrap().sequence, after.sequence.next());
        outlet.withhold(A, &header(0, 63, 8480), at(1040));
        outlet.withhold(A, &header(0, 62, 8320), at(1050));
        assert_eq!(carry(&mut outlet, A, 62, 8320, 1060), Err(Discard::Late), "from within it");
        assert!(carry(&mut outlet, A, 64, 8640, 1060).is_ok());
        outlet.cut();
        assert!(carry(&mut outlet, A, 3, 9000, 3060).is_ok(), "too long ago to tell");
    }

    fn carry(outlet: &mut Outlet, feed: Feed, n: u16, ts: u32, ms: u64) -> Result<Header, Discard> {
        outlet.carry(feed, &header(0, n, ts), PACE, at(ms))
    }

    fn outlet() -> Outlet {
        Outlet::new(&mut Entropy::from_u64(1))
    }

    fn at(ms: u64) -> Instant {
        epoch() + Duration::from_millis(ms)
    }
}
