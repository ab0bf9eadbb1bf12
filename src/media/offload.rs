//! A direction of a relay that somebody else may carry, a kernel for example: what must be known for
//! that, what is told in return, and when it is worth a try.
//!
//! Owns: [`Flow`] and [`Progress`]; how long a stream must have been plain.
//! Never: knows who carries.

use std::{
    net::{IpAddr, SocketAddr, SocketAddrV4},
    time::Instant,
};

/// As many packets before the highest a carrier can tell from duplicates.
pub(super) const WINDOW: u16 = 64;
/// So many plain packets in a row are a reason to try: a window is behind the last.
const TRY_AFTER_MIN: u16 = WINDOW + 1;
/// As many, after tries that were not worth it.
const TRY_AFTER_MAX: u16 = 4096;
/// A try was worth it if that many times the packets it took were carried.
const WORTH: u64 = 8;

/// One direction of a plain relay: RTP over IPv4 without encryption, of which nothing changes but
/// addresses and the header's numbers.
///
/// To be carried is a packet from `peer` to `local` with [`Numbers::ssrc_in`], version 2, without
/// padding, extension and contributing sources, whose payload type leads somewhere, and whose sequence
/// number is at most 3000 ahead of the highest or one of the 64 up to it. All else is left to the
/// worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// The leg's slot.
    pub slot: usize,
    /// Where its packets come from.
    pub peer: SocketAddrV4,
    /// Our port that they come to; the address may be unspecified.
    pub local: SocketAddrV4,
    /// Our port that they leave from; the address may be unspecified.
    pub source: SocketAddrV4,
    /// Where they go.
    pub target: SocketAddrV4,
    /// How their numbers change.
    pub numbers: Numbers,
    /// What each payload type becomes; what leads nowhere is not to be carried.
    pub payload_types: Box<[Option<u8>; 128]>,
    /// Where to begin: its counts are 0.
    pub progress: Progress,
}

/// How the header's numbers change (RFC 3550 5.1). Offsets are added, and wrap.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Numbers {
    /// The peer's source identifier.
    pub ssrc_in: u32,
    /// Ours.
    pub ssrc_out: u32,
    /// Added to sequence numbers.
    pub sequence_offset: u16,
    /// Added to timestamps.
    pub timestamp_offset: u32,
    /// Of timestamps, in Hz.
    pub clock_rate_hz: u32,
}

/// How far a carrier has come with a [`Flow`]. Counts begin with the flow and only grow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Progress {
    /// The highest sequence number that came, with the count of wraps above 16 bits.
    pub highest: u32,
    /// Its timestamp, as it came.
    pub top_timestamp: u32,
    /// Bit n: the packet n before the highest was seen.
    pub seen: u64,
    /// The timestamp of the last packet that was carried, as it came.
    pub last_timestamp: u32,
    /// When that was.
    pub heard_at: Instant,
    /// What came.
    pub tally: Tally,
    /// The jitter of RFC 3550 6.4.1 by now, in 1/16 of a unit of the clock.
    pub jitter: u32,
}

/// What is counted of a flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Packets carried.
    pub packets: u64,
    /// Bytes of their payloads.
    pub octets: u64,
    /// Of them, those that came after a later one.
    pub reordered: u64,
    /// Packets that came again, and were dropped.
    pub duplicates: u64,
    /// The sum of the jitter's estimates, in its unit.
    pub jitter_sum: u64,
    /// How many there are.
    pub jitter_samples: u64,
}

/// What is new since a former [`Progress`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct News {
    /// How far the highest sequence number went on.
    pub(super) advance: u32,
    pub(super) tally: Tally,
}

impl Progress {
    pub(super) fn since(&self, before: &Self) -> News {
        let grown = |of: fn(&Tally) -> u64| of(&self.tally).saturating_sub(of(&before.tally));
        News {
            advance: self.highest.wrapping_sub(before.highest),
            tally: Tally {
                packets: grown(|t| t.packets),
                octets: grown(|t| t.octets),
                reordered: grown(|t| t.reordered),
                duplicates: grown(|t| t.duplicates),
                jitter_sum: grown(|t| t.jitter_sum),
                jitter_samples: grown(|t| t.jitter_samples),
            },
        }
    }
}

/// Whose turn a leg's packets are: the worker's, until enough of them were plain, or a carrier's.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Where the last packet came from, and its payload type, if it was plain.
    last: Option<(SocketAddrV4, u8)>,
    plain: u16,
    /// 0 stands for the least.
    try_after: u16,
    carried: Option<Box<Progress>>,
}

impl Turns {
    /// Notes a packet that was relayed: its source, and its payload type if nothing about it is
    /// unusual. Returns whether it is time to try.
    pub(super) fn note(&mut self, from: SocketAddr, plain: Option<u8>) -> bool {
        let this = v4(from).zip(plain);
        if self.last != this {
            (self.last, self.plain) = (this, 0);
        }
        self.plain = self.plain.saturating_add(u16::from(this.is_some()));
        self.plain == self.try_after.max(TRY_AFTER_MIN)
    }

    /// Returns where packets come from lately, and their payload type.
    pub(super) fn last(&self) -> Option<(SocketAddrV4, u8)> {
        self.last
    }

    /// Begins anew, after a change that somebody wanted.
    pub(super) fn restart(&mut self) {
        (self.plain, self.try_after) = (0, 0);
    }

    /// Tries later: this was not worth it.
    pub(super) fn put_off(&mut self) {
        self.plain = 0;
        self.try_after = self.try_after.max(TRY_AFTER_MIN).saturating_mul(2).min(TRY_AFTER_MAX);
    }

    /// Hands the packets to a carrier.
    pub(super) fn hand_over(&mut self, progress: Progress) {
        self.carried = Some(Box::new(progress));
    }

    /// Returns whether a carrier has them.
    pub(super) fn is_carried(&self) -> bool {
        self.carried.is_some()
    }

    /// Takes note of how far the carrier has come; `None` where there is none.
    pub(super) fn advance(&mut self, progress: &Progress) -> Option<News> {
        let before = self.carried.as_deref_mut()?;
        let news = progress.since(before);
        *before = *progress;
        Some(news)
    }

    /// Takes the packets back.
    pub(super) fn take_back(&mut self) {
        let Some(carried) = self.carried.take() else { return };
        let cost = u64::from(self.try_after.max(TRY_AFTER_MIN));
        if carried.tally.packets < cost.saturating_mul(WORTH) {
            self.put_off();
        } else {
            self.restart();
        }
    }
}

/// Returns an address that a carrier understands.
pub(super) fn v4(address: SocketAddr) -> Option<SocketAddrV4> {
    match (address.ip().to_canonical(), address.port()) {
        (IpAddr::V4(ip), port) => Some(SocketAddrV4::new(ip, port)),
        (IpAddr::V6(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_needs_a_row_of_equal_plain_packets() {
        let (here, there) = (([192, 0, 2, 1], 4).into(), ([192, 0, 2, 1], 5).into());
        for (name, spoils) in [
            ("nothing", None),
            ("another port", Some((there, Some(0)))),
            ("another payload type", Some((here, Some(8)))),
            ("an extension", Some((here, None))),
        ] {
            let mut turns = Turns::default();
            let first = (0..64).any(|_| turns.note(here, Some(0)));
            let spoilt = spoils.map(|(from, plain)| turns.note(from, plain));
            assert!(!first && spoilt != Some(true), "{name}");
            assert_eq!(turns.note(here, Some(0)), spoils.is_none(), "{name}");
        }
    }

    #[test]
    fn what_is_not_worth_it_is_tried_later_and_later() {
        let here = ([192, 0, 2, 1], 4).into();
        let mut turns = Turns::default();
        let mut tries = vec![];
        for carried in [0, 8 * 130 - 1, 8 * 260, 0, 0] {
            let waited = (1..9999).find(|_| turns.note(here, Some(0))).unwrap();
            let tally = Tally { packets: carried, ..Tally::default() };
            turns.hand_over(Progress { tally, ..nothing() });
            turns.take_back();
            tries.push(waited);
        }
        assert_eq!(tries, [65, 130, 260, 65, 130], "as many as eight times as many are worth it");
        for _ in 0..20 {
            turns.put_off();
        }
        assert_eq!((1..9999).find(|_| turns.note(here, Some(0))), Some(4096));
        turns.restart();
        assert_eq!((1..9999).find(|_| turns.note(here, Some(0))), Some(65));
    }

    #[test]
    fn news_are_differences_and_wrap_with_the_numbers() {
        let tally = Tally { packets: 10, octets: 1600, ..Tally::default() };
        let before = Progress { highest: u32::MAX, tally, ..nothing() };
        let tally = Tally { packets: 13, octets: 2080, duplicates: 1, ..Tally::default() };
        let news = Progress { highest: 3, tally, ..nothing() }.since(&before);
        let want = Tally { packets: 3, octets: 480, duplicates: 1, ..Tally::default() };
        assert_eq!(news, News { advance: 4, tally: want });
    }

    fn nothing() -> Progress {
        Progress {
            highest: 0,
            top_timestamp: 0,
            seen: 1,
            last_timestamp: 0,
            heard_at: crate::sim::epoch(),
            tally: Tally::default(),
            jitter: 0,
        }
    }
}
