//! An entry of the program's table, byte by byte: `struct flow` of `relay.bpf.c`.
//!
//! Owns: the layout, and the kernel's clock.
//! Never: touches the kernel.

use super::ways::Way;
use crate::media::{Flow, Progress, Tally};
use std::time::{Duration, Instant};

/// Bytes of an entry.
pub(super) const ENTRY_LEN: usize = 256;
/// Where what the kernel writes begins.
const STATE: usize = 48;
/// A payload type that is not carried.
const UNKNOWN: u8 = 0xff;

/// The kernel's clock beside ours: the same, counted from elsewhere.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks {
    at: Instant,
    ns: u64,
}

impl Ticks {
    /// `ns` is what the kernel's clock shows at that moment.
    pub(super) fn new(at: Instant, ns: u64) -> Self {
        Self { at, ns }
    }

    fn ns_at(&self, at: Instant) -> u64 {
        let later = at.saturating_duration_since(self.at);
        let earlier = self.at.saturating_duration_since(at);
        let ns = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.ns.saturating_add(ns(later)).saturating_sub(ns(earlier))
    }

    fn time_of(&self, ns: u64) -> Instant {
        let later = Duration::from_nanos(ns.saturating_sub(self.ns));
        let earlier = Duration::from_nanos(self.ns.saturating_sub(ns));
        (self.at + later).checked_sub(earlier).unwrap_or(self.at)
    }
}

/// Writes what the kernel is to do.
pub(super) fn encode(flow: &Flow, way: Way, dscp: u8, ticks: &Ticks) -> [u8; ENTRY_LEN] {
    let (numbers, progress) = (flow.numbers, flow.progress);
    let mut entry = Writer { bytes: [0; ENTRY_LEN], at: 0 };
    entry.put(&flow.peer.ip().octets());
    entry.put(&flow.local.ip().octets());
    entry.put(&flow.peer.port().to_be_bytes());
    entry.put(&[dscp << 2, way.hops]);
    entry.put(&numbers.ssrc_in.to_be_bytes());
    entry.put(&way.source.octets());
    entry.put(&flow.target.ip().octets());
    entry.put(&flow.source.port().to_be_bytes());
    entry.put(&flow.target.port().to_be_bytes());
    entry.put(&numbers.ssrc_out.to_be_bytes());
    entry.put(&numbers.timestamp_offset.to_ne_bytes());
    entry.put(&way.interface.to_ne_bytes());
    entry.put(&numbers.sequence_offset.to_ne_bytes());
    entry.put(&[0; 2]);
    entry.put(&numbers.clock_rate_hz.to_ne_bytes());
    debug_assert_eq!(entry.at, STATE);
    for word in [progress.highest, progress.top_timestamp, progress.jitter, progress.last_timestamp]
    {
        entry.put(&word.to_ne_bytes());
    }
    let tally = progress.tally;
    let counts = [tally.packets, tally.octets, tally.reordered, tally.duplicates];
    let jitters = [tally.jitter_sum, tally.jitter_samples];
    let heard = [progress.seen, ticks.ns_at(progress.heard_at)];
    for long in heard.into_iter().chain(counts).chain(jitters) {
        entry.put(&long.to_ne_bytes());
    }
    entry.put(&flow.payload_types.map(|to| to.unwrap_or(UNKNOWN)));
    debug_assert_eq!(entry.at, ENTRY_LEN);
    entry.bytes
}

/// Reads how far the kernel has come; nothing can have come later than `now`.
pub(super) fn decode(entry: &[u8; ENTRY_LEN], ticks: &Ticks, now: Instant) -> Progress {
    let mut entry = Reader(entry.get(STATE..).unwrap_or_default());
    let [highest, top_timestamp, jitter, last_timestamp] =
        std::array::from_fn(|_| u32::from_ne_bytes(entry.take()));
    let [seen, heard_ns, packets, octets, reordered, duplicates, jitter_sum, jitter_samples] =
        std::array::from_fn(|_| u64::from_ne_bytes(entry.take()));
    Progress {
        highest,
        top_timestamp,
        seen,
        last_timestamp,
        heard_at: ticks.time_of(heard_ns).min(now),
        tally: Tally { packets, octets, reordered, duplicates, jitter_sum, jitter_samples },
        jitter,
    }
}

struct Writer {
    bytes: [u8; ENTRY_LEN],
    at: usize,
}

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }
}

struct Reader<'e>(&'e [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((first, rest)) = self.0.split_first_chunk() else { return [0; N] };
        self.0 = rest;
        *first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{media::Numbers, sim::epoch};
    use std::net::Ipv4Addr;

    const NOWHERE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    #[test]
    fn the_layout_is_the_programs() {
        let start = epoch();
        let ticks = Ticks::new(start, 7_000_000_000);
        let flow = flow(start);
        let way = Way { source: [10, 0, 0, 9].into(), interface: 5, hops: 64 };
        let entry = encode(&flow, way, 46, &ticks);
        for (at, want) in [
            (0, &[10, 0, 0, 1][..]),
            (4, &NOWHERE.octets()),
            (8, &4000_u16.to_be_bytes()),
            (10, &[0xb8, 64]),
            (12, &0x0102_0304_u32.to_be_bytes()),
            (16, &[10, 0, 0, 9]),
            (20, &[10, 0, 0, 2]),
            (24, &10_002_u16.to_be_bytes()),
            (26, &5000_u16.to_be_bytes()),
            (28, &0x0506_0708_u32.to_be_bytes()),
            (32, &9_u32.to_ne_bytes()),
            (36, &5_u32.to_ne_bytes()),
            (40, &11_u16.to_ne_bytes()),
            (44, &8000_u32.to_ne_bytes()),
            (48, &0x1_0007_u32.to_ne_bytes()),
            (52, &77_u32.to_ne_bytes()),
            (56, &3_u32.to_ne_bytes()),
            (60, &78_u32.to_ne_bytes()),
            (64, &0xff_u64.to_ne_bytes()),
            (72, &8_000_000_000_u64.to_ne_bytes()),
            (80, &0_u64.to_ne_bytes()),
            (128, &[8, 0xff, 0xff]),
            (255, &[0xff]),
        ] {
            assert_eq!(entry.get(at..at + want.len()), Some(want), "{at}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let start = epoch();
        let ticks = Ticks::new(start, 7_000_000_000);
        let mut flow = flow(start);
        flow.progress.tally = Tally {
            packets: 1,
            octets: 2,
            reordered: 3,
            duplicates: 4,
            jitter_sum: 5,
            jitter_samples: 6,
        };
        for ms in [0, 1_000, 100_000] {
            flow.progress.heard_at = start + Duration::from_millis(ms);
            let way = Way { source: NOWHERE, interface: 5, hops: 64 };
            let entry = encode(&flow, way, 46, &ticks);
            let later = flow.progress.heard_at + Duration::from_secs(1);
            assert_eq!(decode(&entry, &ticks, later), flow.progress);
            assert_eq!(decode(&entry, &ticks, start).heard_at, start, "not in the future");
        }
    }

    fn flow(start: Instant) -> Flow {
        let mut payload_types = Box::new([None; 128]);
        payload_types[0] = Some(8);
        Flow {
            slot: 0,
            peer: "10.0.0.1:4000".parse().unwrap(),
            local: "0.0.0.0:10000".parse().unwrap(),
            source: "0.0.0.0:10002".parse().unwrap(),
            target: "10.0.0.2:5000".parse().unwrap(),
            numbers: Numbers {
                ssrc_in: 0x0102_0304,
                ssrc_out: 0x0506_0708,
                sequence_offset: 11,
                timestamp_offset: 9,
                clock_rate_hz: 8000,
            },
            payload_types,
            progress: Progress {
                highest: 0x1_0007,
                top_timestamp: 77,
                seen: 0xff,
                last_timestamp: 78,
                heard_at: start + Duration::from_secs(1),
                tally: Tally::default(),
                jitter: 3,
            },
        }
    }
}
