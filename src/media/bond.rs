//! Whether a leg's port is for one peer only: the kernel then sends to it faster (a connected socket
//! keeps its route), and lets nobody else's packets through.
//!
//! Owns: when that is safe to begin, and when it must end.
//! Never: admits a packet; the latch judges also those that a connected socket lets through.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// A peer that sends that many packets in a row from where we send to stays there.
const TIED_AFTER: u8 = 10;
/// A peer that is quiet for so long may be sending from elsewhere by now: a carrier may, within its
/// networks; and whoever asks why a call is silent wants strangers counted.
const QUIET_MAX: Duration = Duration::from_millis(500);

/// What a leg's port is to its peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bond {
    /// It is open to anyone, and stays so: connecting one that is bound to no address would choose one.
    Never,
    /// It is open to anyone. As many packets in a row came from where we send to.
    Open(u8),
    /// It is connected. The peer was heard then.
    Tied(Instant),
}

impl Bond {
    /// Is open; our port is at `ip`.
    pub(super) fn new(ip: IpAddr) -> Self {
        if ip.is_unspecified() { Self::Never } else { Self::Open(0) }
    }

    /// Hears a packet that was admitted: `is_peer` where it came from where we send to. Returns true
    /// when the port is to be connected.
    pub(super) fn hear(&mut self, is_peer: bool, now: Instant) -> bool {
        match self {
            Self::Open(before) if is_peer => {
                let heard = before.saturating_add(1);
                let is_tied = heard >= TIED_AFTER;
                *self = if is_tied { Self::Tied(now) } else { Self::Open(heard) };
                return is_tied;
            }
            Self::Open(_) => *self = Self::Open(0),
            Self::Tied(heard_at) if is_peer => *heard_at = now,
            // What had been waiting when the port was connected.
            Self::Tied(_) | Self::Never => {}
        }
        false
    }

    /// Is open again; returns whether it was not.
    pub(super) fn untie(&mut self) -> bool {
        let was_tied = matches!(self, Self::Tied(_));
        if *self != Self::Never {
            *self = Self::Open(0);
        }
        was_tied
    }

    /// Returns when a connected peer will have been quiet for too long.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Tied(heard_at) => heard_at.checked_add(QUIET_MAX),
            Self::Open(_) | Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    #[test]
    fn only_a_peer_that_stays_where_it_is_gets_a_port_of_its_own() {
        let begin = epoch();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut bond = Bond::new([127, 0, 0, 1].into());
        let hears = [true, true, false].repeat(20);
        assert!(hears.into_iter().all(|is_peer| !bond.hear(is_peer, at(0))), "now here, now there");
        let ties = (0..20).map(|n| bond.hear(true, at(20 * n))).collect::<Vec<_>>();
        assert_eq!(ties.iter().position(|tied| *tied), Some(9), "the tenth");
        assert_eq!(ties.iter().filter(|tied| **tied).count(), 1);
        assert_eq!(bond.poll_timeout(), Some(at(380 + 500)));
        bond.hear(false, at(400));
        assert_eq!(bond.poll_timeout(), Some(at(380 + 500)), "not its packet");
        assert!(bond.untie() && !bond.untie());
        assert_eq!(bond.poll_timeout(), None);
    }

    #[test]
    fn a_port_at_every_address_stays_open() {
        let mut bond = Bond::new([0, 0, 0, 0].into());
        assert!((0..100).all(|_| !bond.hear(true, epoch())));
        assert!(!bond.untie());
        assert_eq!(bond, Bond::Never);
    }
}
