//! RTCP (RFC 3550 6): our reports to a peer, and what the peer reports of us.
//!
//! Owns: the report schedule, round trips; the only file that names `rtcp_types`.
//! Never: forwards a report: each side of a relay is a session of its own.

use super::{
    inlet::Report,
    rtp::{Ssrc, Timestamp},
};
use crate::ids::Entropy;
use rtcp_types::{
    Compound, Packet, ReceiverReport, ReportBlock, RtcpPacketWriter, RtcpWriteError, Sdes,
    SdesChunk, SdesItem, SenderReport,
};
use std::time::{Duration, Instant};

/// RFC 3550 6.2: the minimum interval. A session of two never needs a longer one.
const EVERY: Duration = Duration::from_secs(5);
/// RFC 3550 6.2: half of it before the first report.
const FIRST: Duration = Duration::from_millis(2500);
/// The same where nothing was sent or heard since the last report: that there is still nothing to say.
const RESTING: Duration = Duration::from_secs(30);
/// RFC 7022 4.2: 96 random bits, which say nothing about where we are or who called before.
const CNAME_LEN: usize = 16;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What a peer reported last of what we sent, and when we report next.
#[derive(Debug)]
pub(super) struct Reports {
    /// Where the NTP clock of our reports begins: it is ours alone.
    epoch: Instant,
    pub(super) next_at: Instant,
    cname: [u8; CNAME_LEN],
    /// Packets sent when the last report was made, and the one before it.
    sent_before: [u64; 2],
    /// Packets sent and heard when the last report was made.
    moved: u64,
    /// The peer's last sender report: the middle of its NTP time, and when it came.
    heard: Option<(u32, Instant)>,
    is_told: bool,
    /// Below 0 where the peer got more than we sent: the network copied some (RFC 3550 6.4.1).
    lost: i32,
    /// Packets sent and holes passed on, when the peer reported last.
    spoken_of: (u64, u64),
    jitter_units: u32,
    rtt: Option<Duration>,
}

/// What a sender report says of us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) ssrc: Ssrc,
    pub(super) timestamp: Timestamp,
    pub(super) packets: u64,
    pub(super) octets: u64,
}

impl Reports {
    pub(super) fn new(entropy: &mut Entropy, now: Instant) -> Self {
        let first = about(RESTING, entropy.next_u64());
        Self {
            epoch: now,
            next_at: now.checked_add(first).unwrap_or(now),
            cname: cname(entropy),
            sent_before: [0; 2],
            moved: 0,
            heard: None,
            is_told: false,
            lost: 0,
            spoken_of: (0, 0),
            jitter_units: 0,
            rtt: None,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Returns whether the peer ever said how it hears us.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    /// Returns how many of our packets the peer misses.
    pub(super) fn lost(&self) -> u64 {
        u64::try_from(self.lost).unwrap_or(0)
    }

    /// Returns how many packets had been sent when the peer reported last, and how many holes passed on.
    pub(super) fn spoken_of(&self) -> (u64, u64) {
        self.spoken_of
    }

    pub(super) fn jitter_ms(&self, clock_rate: u32) -> f64 {
        f64::from(self.jitter_units) * 1000.0 / f64::from(clock_rate.max(1))
    }

    /// Puts the next report off where not one of so many packets, sent and heard, is new since the last one.
    /// Returns whether it did.
    pub(super) fn rest(&mut self, moved: u64, (random, now): (u64, Instant)) -> bool {
        let is_resting = std::mem::replace(&mut self.moved, moved) == moved;
        if is_resting {
            self.next_at = now.checked_add(about(RESTING, random)).unwrap_or(now);
        }
        is_resting
    }

    /// Makes the next report soon: something was sent or heard.
    pub(super) fn hurry(&mut self, (random, now): (u64, Instant)) {
        let soon = now.checked_add(about(FIRST, random)).unwrap_or(now);
        self.next_at = self.next_at.min(soon);
    }

    /// Writes a report into the buffer and returns its length; arms the next one, at a time that
    /// `random` chooses: reports of many legs opened together would stay together otherwise.
    pub(super) fn write(
        &mut self,
        sent: Sent,
        received: Option<Report>,
        buffer: &mut [u8],
        (random, now): (u64, Instant),
    ) -> usize {
        self.next_at = now.checked_add(about(EVERY, random)).unwrap_or(now);
        let [last, one_before] = self.sent_before;
        self.sent_before = [sent.packets, last];
        let block = received.map(|report| self.block(report, now));
        let cname = std::str::from_utf8(&self.cname).unwrap_or_default();
        let chunk =
            SdesChunk::builder(sent.ssrc.0).add_item(SdesItem::builder(SdesItem::CNAME, cname));
        let sdes = Sdes::builder().add_chunk(chunk);
        // RFC 3550 6.4: whoever has sent since the report before the last is a sender.
        let written = if sent.packets > one_before {
            let mut report = SenderReport::builder(sent.ssrc.0)
                .ntp_timestamp(self.ntp(now))
                .rtp_timestamp(sent.timestamp.0)
                .packet_count(low(sent.packets))
                .octet_count(low(sent.octets));
            if let Some(block) = block {
                report = report.add_report_block(block);
            }
            write(Compound::builder().add_packet(report).add_packet(sdes), buffer)
        } else {
            let mut report = ReceiverReport::builder(sent.ssrc.0);
            if let Some(block) = block {
                report = report.add_report_block(block);
            }
            write(Compound::builder().add_packet(report).add_packet(sdes), buffer)
        };
        debug_assert!(written.is_ok(), "{written:?}");
        written.unwrap_or(0)
    }

    fn block(&self, report: Report, now: Instant) -> rtcp_types::ReportBlockBuilder {
        let (last, delay) = self.heard.map_or((0, 0), |(middle, at)| {
            (middle, middle_of(ntp_of(now.saturating_duration_since(at))))
        });
        ReportBlock::builder(report.ssrc.0)
            .fraction_lost(report.fraction_lost)
            // 24 bits (RFC 3550 6.4.1).
            .cumulative_lost(report.cumulative_lost.min(0x7f_ffff))
            .extended_sequence_number(report.highest)
            .interarrival_jitter(report.jitter)
            .last_sender_report_timestamp(last)
            .delay_since_last_sender_report_timestamp(delay)
    }

    /// Reads a compound of the peer's; `false` where it is none. Ours are the SSRC, the packets sent
    /// and the holes passed on.
    pub(super) fn read(&mut self, packet: &[u8], ours: (Ssrc, u64, u64), now: Instant) -> bool {
        let Ok(compound) = Compound::parse(packet) else { return false };
        for part in compound {
            match part {
                Ok(Packet::Sr(report)) => {
                    self.heard = Some((middle_of(report.ntp_timestamp()), now));
                    report.report_blocks().for_each(|block| self.note(&block, ours, now));
                }
                Ok(Packet::Rr(report)) => {
                    report.report_blocks().for_each(|block| self.note(&block, ours, now));
                }
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn note(&mut self, block: &ReportBlock<'_>, ours: (Ssrc, u64, u64), now: Instant) {
        let (ssrc, packets, holes) = ours;
        if block.ssrc() != ssrc.0 {
            return;
        }
        self.is_told = true;
        self.spoken_of = (packets, holes);
        self.lost = signed_24(block.cumulative_lost());
        self.jitter_units = block.interarrival_jitter();
        let last = block.last_sender_report_timestamp();
        let delay = block.delay_since_last_sender_report_timestamp();
        if last != 0 {
            let units = middle_of(self.ntp(now)).wrapping_sub(last).wrapping_sub(delay);
            // A nonsensical report would give hours.
            let rtt = Duration::from_secs_f64(f64::from(units) / 65_536.0);
            self.rtt = (rtt < Duration::from_secs(10)).then_some(rtt).or(self.rtt);
        }
    }

    fn ntp(&self, now: Instant) -> u64 {
        // Begins at 1 s, because 0 in a report means that there was none.
        ntp_of(now.saturating_duration_since(self.epoch)).wrapping_add(1 << 32)
    }
}

/// RFC 3550 6.3.1: between half and one and a half times the interval.
fn about(interval: Duration, random: u64) -> Duration {
    let share = f64::from(low(random)) / f64::from(u32::MAX);
    interval.mul_f64(0.5 + share)
}

fn cname(entropy: &mut Entropy) -> [u8; CNAME_LEN] {
    // Six bits a character, eight characters of each number.
    let [a, b] = [entropy.next_u64(), entropy.next_u64()];
    std::array::from_fn(|n| {
        let (bits, n) = if n < CNAME_LEN / 2 { (a, n) } else { (b, n.saturating_sub(8)) };
        let shift = u32::try_from(n).unwrap_or(0).saturating_mul(6);
        let six = bits.checked_shr(shift).unwrap_or(0) & 0x3f;
        usize::try_from(six).ok().and_then(|six| BASE64.get(six)).copied().unwrap_or(b'A')
    })
}

/// RFC 3550 6.4.1: the cumulative loss is a signed number of 24 bits.
fn signed_24(bits: u32) -> i32 {
    (bits << 8).cast_signed() >> 8
}

fn write(compound: impl RtcpPacketWriter, buffer: &mut [u8]) -> Result<usize, RtcpWriteError> {
    use rtcp_types::RtcpPacketWriterExt;
    compound.write_into(buffer)
}

/// 32 bits of seconds and 32 of their fractions.
fn ntp_of(time: Duration) -> u64 {
    let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
    (time.as_secs() << 32) | fraction
}

/// The middle 32 bits, in units of 1/65536 s.
fn middle_of(ntp: u64) -> u32 {
    low(ntp >> 16)
}

fn low(n: u64) -> u32 {
    (n & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report { ssrc: Ssrc(9), fraction_lost: 3, cumulative_lost: 4, highest: 70_000, jitter: 16 }
    }

    #[test]
    fn two_ends_measure_their_round_trip() {
        let start = crate::sim::epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut a, mut b) = (reports(1), reports(2));
        let sent =
            |ssrc| Sent { ssrc: Ssrc(ssrc), timestamp: Timestamp(1), packets: 1, octets: 160 };
        let mut buffer = [0; 512];

        let len = a.write(sent(9), None, &mut buffer, (0, at(100)));
        assert!(b.read(&buffer[..len], (Ssrc(7), 0, 0), at(130)));
        let len = b.write(sent(7), Some(report()), &mut buffer, (0, at(400)));
        assert!(a.read(&buffer[..len], (Ssrc(9), 0, 0), at(430)));

        let rtt_ms = a.rtt().unwrap().as_secs_f64() * 1000.0;
        assert!((rtt_ms - 60.0).abs() < 1.0, "{rtt_ms}");
        assert_eq!((a.lost(), a.jitter_ms(8000)), (4, 2.0));
        assert_eq!(b.rtt(), None);
    }

    #[test]
    fn who_sent_nothing_reports_as_a_receiver() {
        let now = crate::sim::epoch();
        let mut reports = reports(1);
        let silent = Sent { ssrc: Ssrc(1), timestamp: Timestamp(0), packets: 0, octets: 0 };
        let mut buffer = [0; 512];
        let len = reports.write(silent, Some(report()), &mut buffer, (0, now));
        assert_eq!(buffer[1], 201, "a receiver report");
        assert!(len > 8);

        // Who fell silent is a sender for one report more (6.4).
        let kinds = [5, 5, 5, 9].map(|packets| {
            reports.write(Sent { packets, ..silent }, None, &mut buffer, (0, now));
            buffer[1]
        });
        assert_eq!(kinds, [200, 200, 201, 200]);
    }

    #[test]
    fn the_loss_is_signed() {
        for (bits, lost, signed) in [
            (0, 0, 0),
            (4, 4, 4),
            (0x7f_ffff, 0x7f_ffff, 0x7f_ffff),
            (0xff_ffff, 0, -1),
            (0x80_0000, 0, -0x80_0000),
        ] {
            let now = crate::sim::epoch();
            let block = ReportBlock::builder(7).cumulative_lost(bits);
            let mut buffer = [0; 64];
            let report = ReceiverReport::builder(9).add_report_block(block);
            let len = write(Compound::builder().add_packet(report), &mut buffer).unwrap();
            let mut reports = reports(1);
            assert!(reports.read(&buffer[..len], (Ssrc(7), 0, 0), now));
            assert_eq!((reports.lost(), reports.lost), (lost, signed), "{bits:#x}");
        }
    }

    #[test]
    fn intervals_are_random_within_their_bounds() {
        let now = crate::sim::epoch();
        let first = |seed, hurried: Option<u64>| {
            let mut reports = reports(seed);
            hurried.into_iter().for_each(|random| reports.hurry((random, now)));
            (reports.next_at - now).as_millis()
        };
        assert!((0..100).all(|seed| (15_000..=45_000).contains(&first(seed, None))));
        let random = |n: u64| n << 57;
        assert!((0..100).all(|n| (1250..=3750).contains(&first(n, Some(random(n))))));
        let sent = Sent { ssrc: Ssrc(1), timestamp: Timestamp(0), packets: 0, octets: 0 };
        let (mut reports, mut entropy) = (reports(1), Entropy::from_u64(1));
        let gaps = (0..1000).map(|_| {
            reports.write(sent, None, &mut [0; 64], (entropy.next_u64(), now));
            (reports.next_at - now).as_millis()
        });
        let gaps = gaps.collect::<Vec<_>>();
        assert!(gaps.iter().all(|gap| (2500..=7500).contains(gap)), "RFC 3550 6.3.1");
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*least < 2600 && *most > 7400, "{least} {most}");
        let mean = gaps.iter().sum::<u128>() / 1000;
        assert!((4800..=5200).contains(&mean), "{mean}");
    }

    #[test]
    fn names_tell_nothing_and_are_never_the_same() {
        let names = (0..1000).map(|seed| reports(seed).cname);
        let names = names.collect::<std::collections::BTreeSet<_>>();
        assert_eq!(names.len(), 1000);
        let mut used = names.iter().flatten().collect::<Vec<_>>();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 64, "all six bits are random");

        let sent = Sent { ssrc: Ssrc(1), timestamp: Timestamp(0), packets: 0, octets: 0 };
        let (mut reports, mut buffer) = (reports(1), [0; 64]);
        let len = reports.write(sent, None, &mut buffer, (0, crate::sim::epoch()));
        assert!(buffer[..len].windows(CNAME_LEN).any(|bytes| bytes == reports.cname));
    }

    fn reports(seed: u64) -> Reports {
        Reports::new(&mut Entropy::from_u64(seed), crate::sim::epoch())
    }

    #[test]
    fn nonsense_is_refused() {
        let now = crate::sim::epoch();
        let mut reports = reports(1);
        for packet in [&b""[..], b"\x84\xce\x00\x01\x87\x9e\x2d\xc9", &[0xff; 64], &[0x80, 200]] {
            reports.read(packet, (Ssrc(1), 0, 0), now);
        }
        assert_eq!(reports.rtt(), None);
    }
}
