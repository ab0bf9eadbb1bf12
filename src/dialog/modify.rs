//! Offers inside a dialog: who may make one now (RFC 3261 14, RFC 3311 5, RFC 6337).
//!
//! Owns: whether an offer is outstanding, in which direction, and the wait after glare.
//! Never: looks at the offer itself.

use crate::ids::Entropy;
use std::time::{Duration, Instant};

/// Why an offer from the peer must wait, and the status that says so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefuseOffer {
    /// Our own is outstanding: 491 (RFC 3261 14.2).
    Glare,
    /// An earlier one of the peer's is not yet answered: 500 with Retry-After (RFC 3261 14.2).
    Overlap,
}

/// How long to wait after a 491 (RFC 3261 14.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Glare {
    /// We chose the Call-ID: 2.1 to 4 s.
    OwnCallId,
    /// The peer did: 0 to 2 s.
    TheirCallId,
}

impl Glare {
    /// Draws the wait, in steps of 10 ms.
    pub fn wait(self, entropy: &mut Entropy) -> Duration {
        let steps = match self {
            Self::OwnCallId => entropy.below(191).saturating_add(210),
            Self::TheirCallId => entropy.below(201),
        };
        Duration::from_millis(steps.saturating_mul(10))
    }
}

/// The offers of one dialog.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Modify {
    /// None outstanding.
    #[default]
    Stable,
    /// We made one and wait for the answer.
    WeOffered,
    /// The peer made one and waits for ours.
    TheyOffered,
    /// Ours met theirs; we may try again then.
    BackOff(Instant),
}

impl Modify {
    /// Takes an offer, or an INVITE that asks for one, from the peer.
    pub fn they_offer(&mut self) -> Result<(), RefuseOffer> {
        match self {
            Self::Stable | Self::BackOff(_) => {
                *self = Self::TheyOffered;
                Ok(())
            }
            Self::WeOffered => Err(RefuseOffer::Glare),
            Self::TheyOffered => Err(RefuseOffer::Overlap),
        }
    }

    /// Returns whether we may offer now, and if so notes that we do.
    pub fn we_offer(&mut self, now: Instant) -> bool {
        let may = match self {
            Self::Stable => true,
            Self::BackOff(until) => *until <= now,
            Self::WeOffered | Self::TheyOffered => false,
        };
        if may {
            *self = Self::WeOffered;
        }
        may
    }

    /// Notes that the outstanding offer was answered or refused.
    pub fn settle(&mut self) {
        *self = Self::Stable;
    }

    /// Notes a 491 to our offer.
    pub fn back_off(&mut self, until: Instant) {
        *self = Self::BackOff(until);
    }

    /// Returns when a refused offer of ours may be tried again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::BackOff(until) => Some(*until),
            Self::Stable | Self::WeOffered | Self::TheyOffered => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_offer_at_a_time() {
        let now = crate::sim::epoch();
        let mut modify = Modify::default();
        assert!(modify.we_offer(now));
        assert!(!modify.we_offer(now));
        assert_eq!(modify.they_offer(), Err(RefuseOffer::Glare));
        modify.settle();
        assert_eq!(modify.they_offer(), Ok(()));
        assert_eq!(modify.they_offer(), Err(RefuseOffer::Overlap));
        assert!(!modify.we_offer(now));
    }

    #[test]
    fn after_glare_the_peer_goes_first() {
        let now = crate::sim::epoch();
        let mut modify = Modify::default();
        modify.we_offer(now);
        modify.back_off(now + Duration::from_secs(1));
        assert!(!modify.we_offer(now));
        assert_eq!(modify.they_offer(), Ok(()));
        modify.settle();
        assert!(modify.we_offer(now));
    }

    #[test]
    fn the_waits_are_those_of_rfc_3261_14_1() {
        let mut entropy = Entropy::from_u64(1);
        for _ in 0..1000 {
            let own = Glare::OwnCallId.wait(&mut entropy).as_millis();
            let theirs = Glare::TheirCallId.wait(&mut entropy).as_millis();
            assert!((2100..=4000).contains(&own) && theirs <= 2000);
        }
    }
}
