//! What comes from one peer: which source it is, in which order, what is missing, how it jitters.
//!
//! Owns: the sequence numbers seen (RFC 3550 A.1 and A.3) and the interarrival jitter (6.4.1).
//! Never: knows where packets go.

use super::{
    discard::Discard,
    offload::{News, Progress, Tally, WINDOW},
    quality::Measured,
    rtp::{Header, SequenceNumber, Ssrc, Timestamp},
};
use std::time::{Duration, Instant};

/// A larger step forward is a restart of the sender (RFC 3550 A.1).
const DROPOUT_MAX: i16 = 3000;
/// As many late packets can be told from duplicates; a larger step back is a restart.
const MISORDER_MIN: i16 = -127;
/// While the new source is heard this often, the one before it is not let back in.
const TAKEOVER: Duration = Duration::from_millis(500);

/// A run of packets whose sequence numbers and timestamps belong together. Another one begins when
/// the sender changes or restarts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Run(u32);

#[cfg(test)]
impl Run {
    pub(super) const FIRST: Self = Self(1);
}

/// One peer's incoming packets. `repr(C)`: what each of them needs comes first.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Inlet {
    source: Option<Source>,
    jitter: Jitter,
    run: Run,
    /// Who sent before the current source.
    former: Option<Ssrc>,
    /// Sums over the runs before this one.
    expected_before: u64,
    received_before: u64,
    duplicate: u64,
    reordered: u64,
}

/// What an RTCP report says about the source (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Report {
    pub(super) ssrc: Ssrc,
    /// Since the report before, in 1/256.
    pub(super) fraction_lost: u8,
    pub(super) cumulative_lost: u32,
    /// With the count of wraps above 16 bits.
    pub(super) highest: u32,
    /// In units of the clock.
    pub(super) jitter: u32,
}

impl Inlet {
    /// Takes note of a packet, or says why it must be ignored. Packets that repeat a timestamp by
    /// design (`is_event`) are not judged for jitter.
    pub(super) fn accept(
        &mut self,
        header: &Header,
        is_event: bool,
        clock_rate_hz: u32,
        now: Instant,
    ) -> Result<Run, Discard> {
        match &mut self.source {
            Some(source) if source.ssrc == header.ssrc => match source.place(header.sequence) {
                Place::Next => source.received = source.received.saturating_add(1),
                Place::Reordered => {
                    source.received = source.received.saturating_add(1);
                    self.reordered = self.reordered.saturating_add(1);
                }
                Place::Duplicate => {
                    self.duplicate = self.duplicate.saturating_add(1);
                    return Err(Discard::Duplicate);
                }
                Place::Jump => return Err(Discard::Late),
                Place::Restart => self.begin(header, now),
            },
            Some(source)
                if self.former == Some(header.ssrc)
                    && now.saturating_duration_since(source.heard_at) < TAKEOVER =>
            {
                return Err(Discard::Late);
            }
            Some(_) | None => self.begin(header, now),
        }
        if let Some(source) = &mut self.source {
            source.heard_at = now;
        }
        if !is_event {
            self.jitter.hear(header.timestamp, clock_rate_hz, now);
        }
        Ok(self.run)
    }

    fn begin(&mut self, header: &Header, now: Instant) {
        if let Some(ended) = self.source.take() {
            self.expected_before = self.expected_before.saturating_add(ended.expected());
            self.received_before = self.received_before.saturating_add(ended.received);
            self.former = (ended.ssrc != header.ssrc).then_some(ended.ssrc);
        }
        self.run = Run(self.run.0.wrapping_add(1));
        self.jitter.cut();
        self.source = Some(Source::new(header, now));
    }

    /// Returns what to report about the current source, and begins the next interval.
    pub(super) fn report(&mut self) -> Option<Report> {
        let jitter = self.jitter.now as u32;
        self.source.as_mut().map(|source| source.report(jitter))
    }

    /// Returns where the current run stands, for somebody else to go on; `None` where it has not come far
    /// enough to tell late packets from those before it.
    pub(super) fn position(&self) -> Option<(Run, Ssrc, Progress)> {
        let source = self.source.as_ref().filter(|source| source.expected() > WINDOW.into())?;
        let (last_timestamp, heard_at) = self.jitter.before?;
        let progress = Progress {
            highest: source.low_highest(),
            top_timestamp: last_timestamp.0,
            seen: (source.seen & u128::from(u64::MAX)) as u64,
            last_timestamp: last_timestamp.0,
            heard_at,
            tally: Tally::default(),
            jitter: (self.jitter.now * 16.0) as u32,
        };
        Some((self.run, source.ssrc, progress))
    }

    /// Takes note of what somebody else took of the current run.
    pub(super) fn absorb(&mut self, progress: &Progress, news: &News) -> Run {
        let tally = news.tally;
        if let Some(source) = &mut self.source {
            source.absorb(progress, tally.packets);
        }
        self.reordered = self.reordered.saturating_add(tally.reordered);
        self.duplicate = self.duplicate.saturating_add(tally.duplicates);
        self.jitter.absorb(progress, &tally);
        self.run
    }

    /// Returns what came, without a rating.
    pub(super) fn measured(&self) -> Measured {
        let (expected, received) =
            self.source.as_ref().map_or((0, 0), |s| (s.expected(), s.received));
        let expected = self.expected_before.saturating_add(expected);
        let packets = self.received_before.saturating_add(received);
        Measured {
            packets,
            lost: expected.saturating_sub(packets),
            duplicate: self.duplicate,
            reordered: self.reordered,
            reported: packets,
            jitter_ms: self.jitter.mean_ms(),
            ..Measured::default()
        }
    }
}

/// Where a packet stands among those before it.
enum Place {
    Next,
    Reordered,
    Duplicate,
    /// Far from all others: a stray one, or the first after a restart.
    Jump,
    /// The second after a restart.
    Restart,
}

/// One run of one source.
#[derive(Debug)]
struct Source {
    ssrc: Ssrc,
    heard_at: Instant,
    /// With the count of wraps above 16 bits; begins at one wrap, so that it can go down.
    highest: u64,
    lowest: u64,
    /// Bit n: the packet n before the highest was seen.
    seen: u128,
    received: u64,
    /// Where a restart would continue.
    restart_at: Option<SequenceNumber>,
    expected_reported: u64,
    received_reported: u64,
}

impl Source {
    fn new(header: &Header, now: Instant) -> Self {
        let first = 0x1_0000_u64.wrapping_add(header.sequence.0.into());
        Self {
            ssrc: header.ssrc,
            heard_at: now,
            highest: first,
            lowest: first,
            seen: 1,
            received: 1,
            restart_at: None,
            expected_reported: 0,
            received_reported: 0,
        }
    }

    fn place(&mut self, sequence: SequenceNumber) -> Place {
        let steps = sequence.since(SequenceNumber((self.highest & 0xffff) as u16));
        let distance = u32::from(steps.unsigned_abs());
        match steps {
            1..=DROPOUT_MAX => {
                self.highest = self.highest.wrapping_add(distance.into());
                self.seen = self.seen.checked_shl(distance).unwrap_or(0) | 1;
            }
            MISORDER_MIN..=0 => {
                let bit = 1_u128.checked_shl(distance).unwrap_or(0);
                if self.seen & bit != 0 {
                    return Place::Duplicate;
                }
                self.seen |= bit;
                self.lowest = self.lowest.min(self.highest.saturating_sub(distance.into()));
                self.restart_at = None;
                return Place::Reordered;
            }
            _ if self.restart_at == Some(sequence) => return Place::Restart,
            _ => {
                self.restart_at = Some(sequence.next());
                return Place::Jump;
            }
        }
        self.restart_at = None;
        Place::Next
    }

    fn low_highest(&self) -> u32 {
        (self.highest & u64::from(u32::MAX)) as u32
    }

    fn absorb(&mut self, progress: &Progress, packets: u64) {
        let advance = progress.highest.wrapping_sub(self.low_highest());
        if advance.cast_signed() >= 0 {
            self.highest = self.highest.wrapping_add(advance.into());
            self.seen = self.seen.checked_shl(advance).unwrap_or(0) | u128::from(progress.seen);
        }
        self.received = self.received.saturating_add(packets);
        if packets > 0 {
            self.heard_at = self.heard_at.max(progress.heard_at);
            self.restart_at = None;
        }
    }

    fn expected(&self) -> u64 {
        self.highest.saturating_sub(self.lowest).saturating_add(1)
    }

    fn report(&mut self, jitter: u32) -> Report {
        let expected = self.expected();
        let expected_now = expected.saturating_sub(self.expected_reported);
        let received_now = self.received.saturating_sub(self.received_reported);
        let lost_now = expected_now.saturating_sub(received_now);
        (self.expected_reported, self.received_reported) = (expected, self.received);
        let fraction = lost_now.saturating_mul(256).checked_div(expected_now).unwrap_or(0);
        Report {
            ssrc: self.ssrc,
            fraction_lost: u8::try_from(fraction).unwrap_or(u8::MAX),
            cumulative_lost: expected.saturating_sub(self.received).min(0x7f_ffff) as u32,
            highest: (self.highest.wrapping_sub(0x1_0000) & u64::from(u32::MAX)) as u32,
            jitter,
        }
    }
}

/// RFC 3550 6.4.1: the mean deviation of the difference of spacing.
#[derive(Debug, Default)]
struct Jitter {
    before: Option<(Timestamp, Instant)>,
    clock_rate_hz: u32,
    /// The running estimate, in units of the clock.
    now: f64,
    sum_ms: f64,
    samples: u32,
}

impl Jitter {
    /// Forgets the packet before: what comes next has another clock.
    fn cut(&mut self) {
        self.before = None;
    }

    fn hear(&mut self, timestamp: Timestamp, clock_rate_hz: u32, now: Instant) {
        let rate = f64::from(clock_rate_hz.max(1));
        if let Some((sent_before, heard_before)) = self.before {
            let spacing = now.saturating_duration_since(heard_before).as_secs_f64() * rate;
            let difference = (spacing - f64::from(timestamp.since(sent_before))).abs();
            self.now += (difference - self.now) / 16.0;
            self.sum_ms += self.now * 1000.0 / rate;
            self.samples = self.samples.saturating_add(1);
        }
        (self.before, self.clock_rate_hz) = (Some((timestamp, now)), clock_rate_hz);
    }

    /// Takes note of what somebody else heard.
    fn absorb(&mut self, progress: &Progress, tally: &Tally) {
        let Some(samples) = u32::try_from(tally.jitter_samples).ok().filter(|n| *n > 0) else {
            return;
        };
        self.now = f64::from(progress.jitter) / 16.0;
        let rate = f64::from(self.clock_rate_hz.max(1));
        #[expect(clippy::cast_precision_loss, reason = "a sum of 2^52 units is years of audio")]
        let sum = tally.jitter_sum as f64;
        self.sum_ms += sum / 16.0 * 1000.0 / rate;
        self.samples = self.samples.saturating_add(samples);
        self.before = Some((Timestamp(progress.last_timestamp), progress.heard_at));
    }

    /// The estimate, averaged over the packets: unlike the last one, it tells of the whole call.
    fn mean_ms(&self) -> f64 {
        self.sum_ms / f64::from(self.samples.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{media::rtp::tests::header, sim::epoch};

    #[test]
    fn counts_loss_duplicates_and_order() {
        for (arrivals, packets, lost, duplicate, reordered) in [
            (&[1, 2, 3, 4][..], 4, 0, 0, 0),
            (&[1, 2, 4, 5], 4, 1, 0, 0),
            (&[1, 2, 4, 3, 5], 5, 0, 0, 1),
            (&[1, 2, 2, 3, 3, 3], 3, 0, 3, 0),
            (&[2, 1, 3], 3, 0, 0, 1),
            (&[65_534, 65_535, 0, 2, 1], 5, 0, 0, 1),
            (&[10, 20], 2, 9, 0, 0),
        ] {
            let mut inlet = Inlet::default();
            feed(&mut inlet, arrivals);
            let got = inlet.measured();
            let counts = (got.packets, got.lost, got.duplicate, got.reordered);
            assert_eq!(counts, (packets, lost, duplicate, reordered), "{arrivals:?}");
        }
    }

    #[test]
    fn a_stray_number_is_ignored_and_two_in_a_row_are_a_restart() {
        let mut inlet = Inlet::default();
        let runs = feed(&mut inlet, &[1, 2, 30_000, 3, 40_000, 40_001, 40_002]);
        let first = runs[0].unwrap();
        assert_eq!(runs[1..4], [Ok(first), Err(Discard::Late), Ok(first)]);
        assert_eq!(runs[4], Err(Discard::Late));
        assert!(runs[5].is_ok() && runs[5] != Ok(first) && runs[6] == runs[5]);
        assert_eq!(inlet.measured().lost, 0);
    }

    #[test]
    fn a_new_source_takes_over_and_the_former_may_return_when_it_is_silent() {
        let mut inlet = Inlet::default();
        let mut at = |ssrc, sequence, ms| {
            let header = Header { ssrc: Ssrc(ssrc), ..header(0, sequence, 0) };
            inlet.accept(&header, false, 8000, epoch() + Duration::from_millis(ms))
        };
        let (a, b) = (at(1, 10, 0).unwrap(), at(2, 99, 20).unwrap());
        assert_ne!(a, b);
        assert_eq!(at(1, 11, 30), Err(Discard::Late));
        assert_eq!(at(2, 100, 40), Ok(b));
        assert!(at(1, 12, 539).is_err());
        assert!(at(1, 13, 540).is_ok_and(|run| run != a && run != b));
    }

    #[test]
    fn jitter_is_the_rfcs() {
        let mut inlet = Inlet::default();
        let mut want = 0.0_f64;
        for n in 0..200_u16 {
            let late_ms = u64::from(n % 2) * 4; // Every other packet is 4 ms late.
            let at = epoch() + Duration::from_millis(u64::from(n) * 20 + late_ms);
            inlet.accept(&header(0, n, u32::from(n) * 160), false, 8000, at).unwrap();
            if n > 0 {
                want += (32.0 - want) / 16.0;
            }
        }
        let report = inlet.report().unwrap();
        assert_eq!(report.jitter, want as u32);
        assert!((3.0..4.0).contains(&inlet.measured().jitter_ms));
    }

    #[test]
    fn reports_speak_of_their_interval() {
        let mut inlet = Inlet::default();
        feed(&mut inlet, &[1, 2, 3, 4]);
        let report = inlet.report().unwrap();
        assert_eq!((report.fraction_lost, report.cumulative_lost, report.highest), (0, 0, 4));
        feed(&mut inlet, &[5, 7, 9, 12]);
        let report = inlet.report().unwrap();
        assert_eq!((report.fraction_lost, report.cumulative_lost, report.highest), (128, 4, 12));
        assert_eq!(inlet.report().unwrap().fraction_lost, 0, "nothing came since");
    }

    fn feed(inlet: &mut Inlet, sequences: &[u16]) -> Vec<Result<Run, Discard>> {
        let accept = |n: &u16| inlet.accept(&header(0, *n, 0), false, 8000, epoch());
        sequences.iter().map(accept).collect()
    }
}
