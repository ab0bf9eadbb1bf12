//! INVITE server transaction: RFC 3261 17.2.1 as corrected by RFC 6026 7.1.
//!
//! Owns: the last response, its retransmission, the wait for the ACK.
//! Never: sends, or retransmits a 2xx of its own accord (the user does, through us).

use super::{
    Class, Reliability, Reply, ServerEffect as Effect, ServerInput as Input,
    timer::{T1, T1_X64, T2, T4},
};
use bytes::Bytes;
use memchr::{memchr, memmem};
use std::time::{Duration, Instant};

/// The states of RFC 3261 figure 7, with `Accepted` from RFC 6026.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// The user has not sent a final response.
    Proceeding,
    /// The user has sent a 2xx and owns its retransmission.
    Accepted,
    /// We retransmit a 3xx-6xx until it is acknowledged.
    Completed,
    /// Acknowledged; we absorb late ACKs.
    Confirmed,
    /// To be forgotten by the layer.
    Terminated,
}

/// What is kept of the answers.
#[derive(Debug)]
enum Said {
    Nothing,
    /// The one sent last, to be repeated.
    Response(Bytes),
    /// Of a 2xx its To tag, for the answer to a CANCEL that comes after it.
    Success(Box<str>),
}

/// One INVITE that we received and must answer.
#[derive(Debug)]
pub(super) struct InviteServer {
    state: State,
    reliability: Reliability,
    said: Said,
    /// Timer G. Only in `Completed`, only over unreliable transports.
    retransmit_at: Option<Instant>,
    retransmit_interval: Duration,
    /// Timer H, I or L: when the current state ends by itself.
    ends_at: Option<Instant>,
}

impl InviteServer {
    /// Creates the transaction; the 100 (Trying) is its first reply.
    pub(super) fn new(reliability: Reliability) -> Self {
        Self {
            state: State::Proceeding,
            reliability,
            said: Said::Nothing,
            retransmit_at: None,
            retransmit_interval: T1,
            ends_at: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns the response sent last, while there is one to repeat.
    pub(super) fn last_response(&self) -> Option<&Bytes> {
        match &self.said {
            Said::Response(bytes) => Some(bytes),
            Said::Nothing | Said::Success(_) => None,
        }
    }

    /// Returns the To tag of its 2xx.
    pub(super) fn success_tag(&self) -> Option<&str> {
        match &self.said {
            Said::Success(tag) => Some(tag),
            Said::Nothing | Said::Response(_) => None,
        }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.retransmit_at, self.ends_at].into_iter().flatten().min()
    }

    /// Advances the transaction by one event.
    pub(super) fn handle(&mut self, input: Input, now: Instant, out: &mut Vec<Effect>) {
        use Input::{Ack, Reply, Retransmission, SendFailed};
        use State::{Accepted, Completed, Confirmed, Proceeding, Terminated};
        match (self.state, input) {
            (Proceeding, Reply(reply)) => self.reply(reply, now, out),
            // RFC 6026 7.1: the user retransmits its 2xx; we pass it through.
            (Accepted, Reply(reply)) if reply.class == Class::Success => {
                out.push(Effect::Send(reply.bytes));
            }
            (Accepted | Completed | Confirmed | Terminated, Reply(reply)) => self.misuse(&reply),

            (Proceeding | Completed, Retransmission) => self.resend(out),
            // Absorbed: that is what these states are for.
            (Accepted | Confirmed | Terminated, Retransmission) => {}

            // Only of a client that sends the ACK of a 2xx with the branch of its INVITE.
            (Accepted, Ack) => out.push(Effect::PassUpAck),
            (Completed, Ack) => self.enter(Confirmed, now),
            (Proceeding | Confirmed | Terminated, Ack) => {}

            (Completed, SendFailed) => {
                out.push(Effect::NeverAcked);
                self.enter(Terminated, now);
            }
            // Each ends by itself: the user answers, or learns that its 2xx is not acknowledged.
            (Proceeding | Accepted | Confirmed | Terminated, SendFailed) => {}
        }
    }

    /// Fires whichever timer is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.ends_at.is_some_and(|at| at <= now) {
            if self.state == State::Completed {
                out.push(Effect::NeverAcked); // Timer H.
            }
            self.enter(State::Terminated, now);
        } else if self.retransmit_at.is_some_and(|at| at <= now) {
            self.resend(out);
            self.retransmit_interval = T2.min(self.retransmit_interval.saturating_mul(2));
            self.retransmit_at = now.checked_add(self.retransmit_interval);
        }
    }

    fn reply(&mut self, reply: Reply, now: Instant, out: &mut Vec<Effect>) {
        out.push(Effect::Send(reply.bytes.clone()));
        // A 2xx is repeated by whoever has said it: of its bytes nothing is kept for half a minute.
        match reply.class {
            Class::Provisional => self.said = Said::Response(reply.bytes),
            Class::Success => {
                self.said = to_tag(&reply.bytes).map_or(Said::Nothing, Said::Success);
                self.enter(State::Accepted, now);
            }
            Class::Refusal => {
                self.said = Said::Response(reply.bytes);
                self.enter(State::Completed, now);
            }
        }
    }

    /// A second final response is our bug, never the peer's doing.
    fn misuse(&self, reply: &Reply) {
        debug_assert!(false, "{:?} in {:?}", reply.class, self.state);
        tracing::error!(class = ?reply.class, state = ?self.state, "second final response");
    }

    /// Arms exactly the timers that RFC 3261 table 4 gives to `state`, and no others.
    fn enter(&mut self, state: State, now: Instant) {
        let udp = self.reliability == Reliability::Unreliable;
        self.state = state;
        (self.retransmit_at, self.ends_at) = match state {
            State::Proceeding | State::Terminated => (None, None),
            State::Accepted => (None, now.checked_add(T1_X64)), // L
            State::Completed => {
                (now.checked_add(T1).filter(|_| udp), now.checked_add(T1_X64)) // G, H
            }
            State::Confirmed if udp => (None, now.checked_add(T4)), // I
            State::Confirmed => {
                self.state = State::Terminated; // I is zero.
                (None, None)
            }
        };
    }

    fn resend(&self, out: &mut Vec<Effect>) {
        out.extend(self.last_response().cloned().map(Effect::Send));
    }
}

/// Reads the To tag of a response that we wrote ourselves.
fn to_tag(response: &[u8]) -> Option<Box<str>> {
    let line = response.get(memmem::find(response, b"\nTo: ")?..)?.get(1..)?;
    let line = line.get(..memchr(b'\n', line)?)?;
    let tag = line.get(memmem::rfind(line, b";tag=")?..)?.get(b";tag=".len()..)?;
    let end = tag.iter().position(|byte| matches!(byte, b';' | b'\r' | b' '));
    std::str::from_utf8(tag.get(..end?)?).ok().map(Box::from)
}

#[cfg(test)]
mod tests {
    use super::{super::bench::ServerBench, *};
    use Reliability::{Reliable, Unreliable};

    /// A busy callee: G doubles up to T2, H gives up after 64*T1.
    #[test]
    fn a_refusal_is_repeated_until_timer_h() {
        let mut t = ServerBench::new(InviteServer::new(Unreliable));
        t.reply(0, 486);
        t.run_until_idle();
        t.check(
            "0 send 486\n500 send 486\n1500 send 486\n3500 send 486\n7500 send 486\n\
             11500 send 486\n15500 send 486\n19500 send 486\n23500 send 486\n27500 send 486\n\
             31500 send 486\n32000 never acked",
        );
        ends(&t, 32000);
    }

    #[test]
    fn over_tcp_a_refusal_is_sent_once() {
        let mut t = ServerBench::new(InviteServer::new(Reliable));
        t.reply(0, 486);
        t.run_until_idle();
        t.check("0 send 486\n32000 never acked");
        ends(&t, 32000);
    }

    #[test]
    fn an_ack_stops_it_and_late_ones_are_absorbed_until_timer_i() {
        let mut t = ServerBench::new(InviteServer::new(Unreliable));
        t.reply(0, 486);
        t.give(600, Input::Ack);
        t.give(700, Input::Ack);
        t.give(800, Input::Retransmission);
        t.give(900, Input::SendFailed);
        t.run_until_idle();
        t.check("0 send 486\n500 send 486");
        ends(&t, 5600);
    }

    #[test]
    fn over_tcp_an_ack_ends_it_at_once() {
        let mut t = ServerBench::new(InviteServer::new(Reliable));
        t.reply(0, 486);
        t.give(20, Input::Ack);
        t.check("0 send 486");
        ends(&t, 20);
    }

    #[test]
    fn a_repeated_invite_is_answered_again() {
        let mut t = ServerBench::new(InviteServer::new(Unreliable));
        t.give(0, Input::Retransmission); // Nothing to repeat yet.
        t.reply(10, 100);
        t.give(20, Input::Retransmission);
        t.reply(30, 183);
        t.give(40, Input::Retransmission);
        t.give(45, Input::Ack); // Of nothing.
        t.reply(50, 486);
        t.give(60, Input::Retransmission);
        t.check("10 send 100\n20 send 100\n30 send 183\n40 send 183\n50 send 486\n60 send 486");
    }

    /// RFC 6026: a 2xx is retransmitted by its user, and its ACK is the user's to see.
    #[test]
    fn success_belongs_to_the_user_until_timer_l() {
        let mut t = ServerBench::new(InviteServer::new(Unreliable));
        t.reply(0, 200);
        t.give(10, Input::Retransmission);
        t.give(20, Input::SendFailed);
        t.reply(700, 200);
        t.give(800, Input::Ack);
        t.run_until_idle();
        t.check("0 send 200\n700 send 200\n800 acked");
        ends(&t, 32000);
    }

    #[test]
    fn without_a_way_to_the_client_a_refusal_is_never_acknowledged() {
        let mut t = ServerBench::new(InviteServer::new(Reliable));
        t.give(0, Input::SendFailed); // The user will answer all the same.
        t.reply(10, 486);
        t.give(20, Input::SendFailed);
        t.check("10 send 486\n20 never acked");
        ends(&t, 20);
    }

    #[track_caller]
    fn ends(t: &ServerBench<InviteServer>, ms: u128) {
        assert_eq!((t.machine.state(), t.now_ms()), (State::Terminated, ms));
    }
}
