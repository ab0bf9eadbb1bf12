//! The pairs of ports that a worker may use: RTP on the even one, RTCP on the next (RFC 3550 11).
//!
//! Owns: which pairs are free. A pair that was given back is the last to be taken again, so that
//! stragglers of the last call do not meet the next one.
//! Never: binds.

use std::collections::VecDeque;

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

/// The free pairs, by their RTP ports.
#[derive(Debug)]
pub(super) struct Ports(VecDeque<u16>);

impl Ports {
    pub(super) fn new(range: PortRange) -> Self {
        Self(range.rtp_ports().collect())
    }

    pub(super) fn take(&mut self) -> Option<u16> {
        self.0.pop_front()
    }

    pub(super) fn give_back(&mut self, port: u16) {
        debug_assert!(!self.0.contains(&port), "port {port} was free already");
        self.0.push_back(port);
    }

    pub(super) fn free(&self) -> usize {
        self.0.len()
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
        assert_eq!(ports.take(), Some(2));
        ports.give_back(2);
        assert_eq!([ports.take(), ports.take(), ports.take()], [Some(4), Some(6), Some(2)]);
        assert_eq!(ports.take(), None);
    }
}
