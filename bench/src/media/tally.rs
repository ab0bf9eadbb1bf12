//! What arrives of the streams: how much, how late, in which order.
//!
//! Owns: the counts, of each stream and of all. Never: a clock, a socket.

use super::packet::{Header, Stamp, TICKS};
use crate::histogram::Histogram;
use std::{ops::Range, time::Duration};

/// What has arrived of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// The highest sequence number; none before the first packet.
    highest: Option<u32>,
    /// The last 64 up to the highest, the highest in bit 0.
    seen: u64,
    /// When the highest was sent and when it arrived, in ns.
    sent_ns: u64,
    arrived_ns: u64,
    /// By how much header and stamp differ: the same in all packets of a stream that a relay does
    /// not break up.
    offset: Header,
}

/// Counts of all streams; but for `header_jumps`, of packets sent in the window.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Different packets.
    pub received: u64,
    /// Those that had arrived before.
    pub duplicates: u64,
    /// Those that arrived behind a later one.
    pub reordered: u64,
    /// How often a header went on otherwise than the stream.
    pub header_jumps: u64,
    /// From sending to the kernel's stamp at arrival.
    pub delay: Histogram,
    /// How much the spacing of two neighbours has changed on the way.
    pub jitter: Histogram,
}

impl Tally {
    /// Counts a packet that has arrived at `arrived_ns`.
    pub fn take(
        &mut self,
        (header, stamp): (Header, Stamp),
        arrived_ns: u64,
        window: &Range<u64>,
        totals: &mut Totals,
    ) {
        let offset = Header {
            seq: header.seq.wrapping_sub(stamp.seq as u16),
            time: header.time.wrapping_sub(stamp.seq.wrapping_mul(TICKS)),
            ssrc: header.ssrc,
        };
        if self.highest.is_some() && offset != self.offset {
            totals.header_jumps += 1;
        }
        self.offset = offset;

        let counts = window.contains(&stamp.sent_ns);
        let is_new = self.place(stamp, arrived_ns, counts, totals);
        if !counts {
            return;
        }
        if is_new {
            totals.received += 1;
            let took = arrived_ns.saturating_sub(stamp.sent_ns);
            totals.delay.record(Duration::from_nanos(took));
        } else {
            totals.duplicates += 1;
        }
    }

    /// Returns whether the packet is not one that was seen. What is more than 63 behind is taken
    /// for new.
    fn place(&mut self, stamp: Stamp, arrived_ns: u64, counts: bool, totals: &mut Totals) -> bool {
        let ahead = match self.highest {
            None => 64,
            Some(highest) if stamp.seq > highest => stamp.seq - highest,
            Some(highest) => {
                let behind = highest - stamp.seq;
                let bit = 1_u64.checked_shl(behind).unwrap_or(0);
                let is_new = self.seen & bit == 0;
                self.seen |= bit;
                totals.reordered += u64::from(is_new && counts);
                return is_new;
            }
        };
        if ahead == 1 && counts {
            let spacing = stamp.sent_ns.abs_diff(self.sent_ns);
            let arrived = arrived_ns.saturating_sub(self.arrived_ns);
            totals.jitter.record(Duration::from_nanos(arrived.abs_diff(spacing)));
        }
        self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
        self.highest = Some(stamp.seq);
        (self.sent_ns, self.arrived_ns) = (stamp.sent_ns, arrived_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Takes packets of `(seq, delay in ms)`, sent every 20 ms; those from 100 ms on count.
    fn take(packets: &[(u32, u64)]) -> Totals {
        let (mut tally, mut totals) = (Tally::default(), Totals::default());
        for (seq, delay) in packets {
            let sent_ns = u64::from(*seq) * 20 * MS;
            let stamp = Stamp { run: 0, stream: 0, seq: *seq, sent_ns };
            let header = Header {
                seq: (seq + 65_530) as u16,
                time: (seq * TICKS).wrapping_add(u32::MAX - 500),
                ssrc: 7,
            };
            let window = 100 * MS..u64::MAX;
            tally.take((header, stamp), sent_ns + delay * MS, &window, &mut totals);
        }
        totals
    }

    #[test]
    fn each_packet_counts_once() {
        type Case = (&'static [(u32, u64)], [u64; 3]);
        let cases: [Case; 6] = [
            (&[(0, 1), (1, 1), (4, 1)], [0, 0, 0]),
            (&[(4, 1), (5, 1), (6, 1)], [2, 0, 0]),
            (&[(5, 1), (6, 1), (6, 1), (7, 1), (5, 50)], [3, 2, 0]),
            (&[(5, 1), (7, 1), (6, 30), (8, 1), (6, 60)], [4, 1, 1]),
            (&[(5, 1), (200, 1), (199, 30), (198, 60), (199, 60)], [4, 1, 2]),
            (&[(7, 1), (70, 1), (7, 1)], [2, 1, 0]),
        ];
        for (packets, [received, duplicates, reordered]) in cases {
            let totals = take(packets);
            let counts = [totals.received, totals.duplicates, totals.reordered];
            assert_eq!(counts, [received, duplicates, reordered], "{packets:?}");
            assert_eq!(totals.header_jumps, 0, "{packets:?}");
            assert_eq!(totals.delay.count(), received);
        }
    }

    #[test]
    fn delay_is_from_sending_and_jitter_between_neighbours() {
        let totals = take(&[(5, 1), (6, 4), (7, 2), (9, 9), (10, 9)]);
        assert_eq!(totals.delay.quantile(1.0), Duration::from_millis(9));
        // 3 and 2 ms, none across the gap, and 0.
        assert_eq!(totals.jitter.count(), 3);
        assert_eq!(totals.jitter.mean(), Duration::from_nanos(5 * MS / 3));
    }

    #[test]
    fn a_header_that_goes_its_own_way_shows() {
        let (mut tally, mut totals) = (Tally::default(), Totals::default());
        for (seq, ssrc) in [(0, 1), (1, 1), (2, 8), (3, 8)] {
            let header = Header { seq: seq as u16, time: seq * TICKS, ssrc };
            let stamp = Stamp { seq, ..Stamp::default() };
            tally.take((header, stamp), 0, &(0..1), &mut totals);
        }
        assert_eq!(totals.header_jumps, 1);
    }
}
