//! Whether anybody has heard an INVITE: the wait for a first response, which is shorter than timer B.
//!
//! Owns: since when nothing has been heard, and what an answer or a failure tells of the address.
//! Never: gives up; the call decides whether there is a better way.

use super::{
    leg::{Leg, LegEvent, Origin, Purpose, Stage},
    wire::Wire,
};
use crate::{config::RetryOn, ids::Transport, transaction::ClientId, transaction::timer::T1};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// What is known of the INVITE that runs now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Hearing {
    /// Nothing was sent yet.
    #[default]
    Idle,
    /// Sent then, and no response of whatever kind has come.
    Since(Instant),
    /// The same, for longer than the trunk's `failover`.
    Silent,
    /// Something has come.
    Heard,
}

impl Leg {
    /// Returns when the silence has lasted too long, where that means anything.
    pub(super) fn unheard_at(&self) -> Option<Instant> {
        let (Origin::Outgoing(outgoing), Stage::Ringing) = (&self.origin, self.stage) else {
            return None;
        };
        let routing = &self.profile.as_trunk()?.routing;
        match outgoing.hearing {
            Hearing::Since(at) if routing.retry.on.contains(&RetryOn::Timeout) => {
                Some(at + routing.failover)
            }
            Hearing::Since(_) | Hearing::Idle | Hearing::Silent | Hearing::Heard => None,
        }
    }

    /// Reports a silence that has lasted too long.
    pub(super) fn fire_unheard(&mut self, wire: &Wire<'_>, out: &mut Vec<LegEvent>) {
        if self.unheard_at().is_some_and(|at| at <= wire.now)
            && let Origin::Outgoing(outgoing) = &mut self.origin
        {
            outgoing.hearing = Hearing::Silent;
            out.push(LegEvent::Unheard);
        }
    }

    /// Returns whether its INVITE was sent and nothing has come back.
    pub(super) fn is_unheard(&self) -> bool {
        match &self.origin {
            Origin::Outgoing(outgoing) => {
                matches!(outgoing.hearing, Hearing::Since(_) | Hearing::Silent)
            }
            Origin::Incoming(_) => false,
        }
    }

    /// Returns how long the first response to an INVITE took, if this is it and the INVITE was not
    /// repeated before (whose response would it be?).
    pub fn round_trip(&self, tx: ClientId, now: Instant) -> Option<Duration> {
        let Origin::Outgoing(outgoing) = &self.origin else { return None };
        match outgoing.hearing {
            Hearing::Since(at) if outgoing.is_attempt(tx) => {
                Some(now.saturating_duration_since(at)).filter(|rtt| *rtt < T1)
            }
            Hearing::Since(_) | Hearing::Idle | Hearing::Silent | Hearing::Heard => None,
        }
    }

    /// Returns the address that is to blame for the failure of this transaction. None is where it was
    /// blamed before, where we gave up first, and where a datagram is still to be tried.
    pub fn blamed(&self, tx: ClientId) -> Option<SocketAddr> {
        let at = self.flow()?.remote;
        let Origin::Outgoing(outgoing) = &self.origin else { return Some(at) };
        if self.pending.get(&tx).map(|pending| pending.purpose) != Some(Purpose::Invite) {
            return Some(at);
        }
        let is_told = outgoing.hearing == Hearing::Silent || self.stage == Stage::Leaving;
        let has_other = outgoing.is_over_tcp_first()
            && outgoing.flow.is_some_and(|flow| flow.transport == Transport::Udp);
        (!is_told && !has_other).then_some(at)
    }
}
