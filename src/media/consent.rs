//! Whether somebody at the signalled address wants what we send there: whoever may call could name any
//! address in its session description, and have us send to it.
//!
//! Owns: how long we send to an address from which nothing ever comes, and which address has answered.
//! Never: decides what is authentic; the latch and the keys do.

use super::command::Remote;
use std::{net::IpAddr, time::Instant};

/// Where we are with the address that was signalled last.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    /// There is nothing to ask, or it was answered.
    #[default]
    Given,
    /// Nothing has been sent yet.
    Idle,
    /// It is sent to until then.
    Until(Instant),
    /// Nothing is sent there.
    Withheld,
}

/// Whether we may go on to send to a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Consent {
    state: State,
    /// Something authentic has come from there.
    answered: Option<IpAddr>,
}

impl Consent {
    /// Begins to ask at an offer/answer, where there is something to ask. `to` is where we send from now on:
    /// where that is not the signalled address, somebody was heard there. `until` is when we stop if packets
    /// are on their way already; `None`: the time runs from the first one that is sent.
    pub(super) fn aim(&mut self, remote: &Remote, to: Option<IpAddr>, until: Option<Instant>) {
        let signalled = Some(remote.rtp.ip());
        let is_known = self.answered == signalled || to != signalled;
        self.state = match until {
            _ if !remote.must_answer || is_known || !remote.sends => State::Given,
            None => State::Idle,
            Some(until) => State::Until(until),
        };
    }

    /// Something is sent.
    pub(super) fn sent(&mut self, until: Option<Instant>) {
        if let (State::Idle, Some(until)) = (self.state, until) {
            self.state = State::Until(until);
        }
    }

    /// Something authentic has come from the signalled address.
    pub(super) fn answered(&mut self, ip: IpAddr) {
        if self.state != State::Given {
            (self.state, self.answered) = (State::Given, Some(ip));
        }
    }

    /// Something authentic has come from elsewhere, where all is sent from now on.
    pub(super) fn moved(&mut self) {
        self.state = State::Given;
    }

    /// Stops where it is time. Returns whether it does.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_over = matches!(self.state, State::Until(until) if until <= now);
        if is_over {
            self.state = State::Withheld;
        }
        is_over
    }

    /// Returns when it is time to stop.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if let State::Until(until) = self.state { Some(until) } else { None }
    }

    /// Returns whether nothing is to be sent.
    pub(super) fn is_withheld(&self) -> bool {
        self.state == State::Withheld
    }
}
