//! Server transaction of everything but INVITE and ACK: RFC 3261 17.2.2.
//!
//! Owns: the last response and its repetition.
//! Never: sends, or answers of its own accord.

use super::{
    Class, Reliability, Reply, ServerEffect as Effect, ServerInput as Input, timer::T1_X64,
};
use bytes::Bytes;
use std::time::Instant;

/// The states of RFC 3261 figure 8.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// The user has not answered.
    Trying,
    /// The user has sent a provisional response.
    Proceeding,
    /// The user has sent a final response; we repeat it when asked.
    Completed,
    /// To be forgotten by the layer.
    Terminated,
}

/// One request that we received and must answer.
#[derive(Debug)]
pub(super) struct OtherServer {
    state: State,
    reliability: Reliability,
    last_response: Option<Bytes>,
    /// Timer J.
    ends_at: Option<Instant>,
}

impl OtherServer {
    /// Creates the transaction.
    pub(super) fn new(reliability: Reliability) -> Self {
        Self { state: State::Trying, reliability, last_response: None, ends_at: None }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ends_at
    }

    /// Advances the transaction by one event.
    pub(super) fn handle(&mut self, input: Input, now: Instant, out: &mut Vec<Effect>) {
        use Input::{Ack, Reply, Retransmission, SendFailed};
        use State::{Completed, Proceeding, Terminated, Trying};
        match (self.state, input) {
            (Trying | Proceeding, Reply(reply)) => self.reply(reply, now, out),
            (Proceeding | Completed, Retransmission) => {
                out.extend(self.last_response.clone().map(Effect::Send));
            }
            // Nothing to repeat yet, or no longer.
            (Trying | Terminated, Retransmission) => {}
            (Completed | Terminated, Reply(reply)) => self.misuse(&reply),
            // The client asks again, or gives up by itself.
            (Trying | Proceeding | Completed | Terminated, SendFailed) => {}
            // An ACK matches INVITEs only.
            (Trying | Proceeding | Completed | Terminated, Ack) => {}
        }
    }

    /// Fires timer J if it is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.ends_at.is_some_and(|at| at <= now) {
            self.terminate();
        }
    }

    fn reply(&mut self, reply: Reply, now: Instant, out: &mut Vec<Effect>) {
        out.push(Effect::Send(reply.bytes.clone()));
        self.last_response = Some(reply.bytes);
        match (reply.class, self.reliability) {
            (Class::Provisional, _) => self.state = State::Proceeding,
            (Class::Success | Class::Refusal, Reliability::Unreliable) => {
                self.state = State::Completed;
                self.ends_at = now.checked_add(T1_X64);
            }
            // Timer J is zero.
            (Class::Success | Class::Refusal, Reliability::Reliable) => self.terminate(),
        }
    }

    /// A second final response is our bug, never the peer's doing.
    fn misuse(&self, reply: &Reply) {
        debug_assert!(false, "{:?} in {:?}", reply.class, self.state);
        tracing::error!(class = ?reply.class, state = ?self.state, "second final response");
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        self.ends_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::bench::ServerBench, *};
    use Reliability::{Reliable, Unreliable};

    #[test]
    fn a_repeated_request_gets_the_last_response_until_timer_j() {
        let mut t = ServerBench::new(OtherServer::new(Unreliable));
        t.give(0, Input::Retransmission);
        t.reply(10, 100);
        t.give(20, Input::Retransmission);
        t.reply(30, 404);
        t.give(40, Input::Retransmission);
        t.give(32_029, Input::Retransmission);
        t.run_until_idle();
        t.check("10 send 100\n20 send 100\n30 send 404\n40 send 404\n32029 send 404");
        assert_eq!((t.machine.state(), t.now_ms()), (State::Terminated, 32_030));
    }

    #[test]
    fn over_tcp_the_answer_ends_it() {
        let mut t = ServerBench::new(OtherServer::new(Reliable));
        t.give(0, Input::SendFailed);
        t.reply(10, 200);
        t.check("10 send 200");
        assert_eq!(t.machine.state(), State::Terminated);
    }

    #[test]
    fn an_ack_means_nothing_to_it() {
        let mut t = ServerBench::new(OtherServer::new(Unreliable));
        t.give(0, Input::Ack);
        t.reply(10, 200);
        t.give(20, Input::Ack);
        t.check("10 send 200");
        assert_eq!(t.machine.state(), State::Completed);
    }
}
