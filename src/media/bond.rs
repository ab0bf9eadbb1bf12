//! Whether a leg's port is for one peer only: the kernel then sends to it faster (a connected socket
//! keeps its route), and lets nobody else's packets through.
//!
//! Owns: when that is safe to begin, and when it must end.
//! Never: admits a packet of anyone whom the latch has not admitted before.

use std::{
    net::{IpAddr, SocketAddr},
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
    /// It is connected.
    Tied {
        /// Who alone is heard, and where we send to.
        peer: SocketAddr,
        /// When it was heard last.
        heard_at: Instant,
    },
}

impl Bond {
    /// Is open; our port is at `ip`.
    pub(super) fn new(ip: IpAddr) -> Self {
        if ip.is_unspecified() { Self::Never } else { Self::Open(0) }
    }

    /// Returns the peer that the port is connected to. Until the next offer/answer its packets need no
    /// other judgement, and ours no other destination.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tied { peer, .. } => Some(*peer),
            Self::Open(_) | Self::Never => None,
        }
    }

    /// Hears a packet that was admitted; `to` is where we send to. Returns true when the port is to be
    /// connected.
    pub(super) fn hear(&mut self, from: SocketAddr, to: Option<SocketAddr>, now: Instant) -> bool {
        match self {
            Self::Open(before) if to == Some(from) => {
                let heard = before.saturating_add(1);
                let is_tied = heard >= TIED_AFTER;
                let tied = Self::Tied { peer: from, heard_at: now };
                *self = if is_tied { tied } else { Self::Open(heard) };
                return is_tied;
            }
            Self::Open(_) => *self = Self::Open(0),
            Self::Tied { peer, heard_at } if *peer == from => *heard_at = now,
            // What had been waiting when the port was connected.
            Self::Tied { .. } | Self::Never => {}
        }
        false
    }

    /// Is open again; returns whether it was not.
    pub(super) fn untie(&mut self) -> bool {
        let was_tied = matches!(self, Self::Tied { .. });
        if *self != Self::Never {
            *self = Self::Open(0);
        }
        was_tied
    }

    /// Returns when a connected peer will have been quiet for too long.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Tied { heard_at, .. } => heard_at.checked_add(QUIET_MAX),
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
        let [here, there] = [4000, 4002].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let mut bond = Bond::new([127, 0, 0, 1].into());
        let mut hears = [here, here, there].repeat(20).into_iter();
        assert!(hears.all(|from| !bond.hear(from, Some(here), at(0))), "now here, now there");
        assert!((0..20).all(|_| !bond.hear(here, None, at(0))), "we send nowhere");
        let ties = (0..20).map(|n| bond.hear(here, Some(here), at(20 * n))).collect::<Vec<_>>();
        assert_eq!(ties.iter().position(|tied| *tied), Some(9), "the tenth");
        assert_eq!(ties.iter().filter(|tied| **tied).count(), 1);
        assert_eq!(bond.poll_timeout(), Some(at(380 + 500)));
        assert!(!bond.hear(there, Some(here), at(400)));
        assert_eq!(bond.peer(), Some(here));
        assert_eq!(bond.poll_timeout(), Some(at(380 + 500)), "not its packet");
        assert!(bond.untie() && !bond.untie());
        assert_eq!(bond.poll_timeout(), None);
    }

    #[test]
    fn a_port_at_every_address_stays_open() {
        let mut bond = Bond::new([0, 0, 0, 0].into());
        let peer = SocketAddr::from(([192, 0, 2, 1], 4000));
        assert!((0..100).all(|_| !bond.hear(peer, Some(peer), epoch())));
        assert!(!bond.untie());
        assert_eq!(bond, Bond::Never);
    }
}
