//! The pairs of ports that a worker may use: RTP on the even one, RTCP on the next (RFC 3550 11).
//!
//! Owns: which pairs are free. A pair that was given back is the last to be taken again, so that
//! stragglers of the last call do not meet the next one.
//! Never: binds.

use std::collections::{BTreeSet, VecDeque};

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// Returns how many pairs fit.
    pub fn pairs(self) -> usize {
        self.rtp_ports().count()
    }

    /// Splits the range for that many workers, as evenly as possible. No pair is torn, and none is
    /// in two of the parts.
    pub fn split(self, workers: usize) -> Vec<Self> {
        let ports = self.rtp_ports().collect::<Vec<_>>();
        let workers = workers.max(1);
        let each = ports.len().checked_div(workers).unwrap_or(0);
        let more = ports.len().checked_rem(workers).unwrap_or(0);
        let mut rest = &ports[..];
        (0..workers)
            .map(|n| {
                let take = each.saturating_add(usize::from(n < more));
                let (part, others) = rest.split_at_checked(take).unwrap_or((rest, &[]));
                rest = others;
                match (part.first(), part.last()) {
                    (Some(first), Some(last)) => {
                        Self { first: *first, last: last.saturating_add(1) }
                    }
                    (None, _) | (_, None) => Self { first: 1, last: 0 },
                }
            })
            .collect()
    }

    /// The even ports whose odd neighbour is in the range as well.
    fn rtp_ports(self) -> impl Iterator<Item = u16> {
        let last_rtp = self.last.saturating_sub(1);
        (self.first..=last_rtp).filter(|port| port % 2 == 0 && *port > 0)
    }
}

/// A pair to bind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Pair {
    /// Of RTP.
    pub(super) port: u16,
    /// Whether both ports must be bound before it is used: another program had one of them.
    pub(super) with_rtcp: bool,
}

/// The free pairs, by their RTP ports.
#[derive(Debug)]
pub(super) struct Ports {
    free: VecDeque<u16>,
    /// Pairs of which another program had a port when they were last tried.
    bad: BTreeSet<u16>,
}

impl Ports {
    pub(super) fn new(range: PortRange) -> Self {
        Self { free: range.rtp_ports().collect(), bad: BTreeSet::new() }
    }

    pub(super) fn take(&mut self) -> Option<Pair> {
        let port = self.free.pop_front()?;
        Some(Pair { port, with_rtcp: self.bad.remove(&port) })
    }

    pub(super) fn give_back(&mut self, port: u16) {
        debug_assert!(!self.free.contains(&port), "port {port} was free already");
        self.free.push_back(port);
    }

    /// The same for a pair of which another program has a port.
    pub(super) fn give_back_bad(&mut self, port: u16) {
        self.give_back(port);
        self.bad.insert(port);
    }

    /// Another program seems to have this port.
    pub(super) fn suspect(&mut self, port: u16) {
        self.bad.insert(port & !1);
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_whole_pairs() {
        for (first, last, want) in [
            (10_000, 10_003, &[10_000, 10_002][..]),
            (10_001, 10_004, &[10_002]),
            (10_001, 10_002, &[]),
            (10_000, 10_000, &[]),
            (5, 3, &[]),
            (0, 3, &[2]),
            (65_532, 65_535, &[65_532, 65_534]),
        ] {
            let range = PortRange { first, last };
            assert_eq!(range.rtp_ports().collect::<Vec<_>>(), want, "{range:?}");
        }
    }

    #[test]
    fn a_split_loses_and_shares_nothing() {
        for workers in [1, 2, 3, 7, 40] {
            let range = PortRange { first: 10_001, last: 10_064 };
            let parts = range.split(workers);
            assert_eq!(parts.len(), workers);
            let together = parts.iter().flat_map(|part| part.rtp_ports()).collect::<Vec<_>>();
            assert_eq!(together, range.rtp_ports().collect::<Vec<_>>(), "{workers} workers");
            let sizes = parts.iter().map(|part| part.pairs()).collect::<Vec<_>>();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
        }
    }

    #[test]
    fn what_is_given_back_is_taken_last() {
        let mut ports = Ports::new(PortRange { first: 2, last: 7 });
        let pair = |port, with_rtcp| Some(Pair { port, with_rtcp });
        assert_eq!(ports.take(), pair(2, false));
        ports.give_back(2);
        let taken = [ports.take(), ports.take(), ports.take()];
        assert_eq!(taken, [pair(4, false), pair(6, false), pair(2, false)]);
        assert_eq!(ports.take(), None);
        ports.give_back_bad(6);
        ports.give_back(2);
        assert_eq!([ports.take(), ports.take()], [pair(6, true), pair(2, false)]);
        ports.give_back(6);
        assert_eq!(ports.take(), pair(6, false), "bound as a whole, it is good again");
        [2, 5].into_iter().for_each(|port| ports.suspect(port));
        [2, 4].into_iter().for_each(|port| ports.give_back(port));
        assert_eq!([ports.take(), ports.take()], [pair(2, true), pair(4, true)]);
    }
}
