//! Client transaction of everything but INVITE and ACK: RFC 3261 17.1.2.
//!
//! Owns: the request's retransmission and the wait for its answer.
//! Never: sends, or repeats a request over a transport that does so itself.

use super::{
    Class, ClientEffect as Effect, ClientInput as Input, Reliability,
    timer::{T1, T1_X64, T2, T4},
};
use bytes::Bytes;
use std::time::Instant;

/// The states of RFC 3261 figure 6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Nobody has answered.
    Trying,
    /// A provisional response has arrived.
    Proceeding,
    /// A final response has arrived; we absorb its copies.
    Completed,
    /// To be forgotten by the layer.
    Terminated,
}

/// One request that we sent.
#[derive(Debug)]
pub(super) struct OtherClient {
    state: State,
    reliability: Reliability,
    request: Bytes,
    /// It was sent again, over another connection.
    is_repeated: bool,
    /// Timer E. Only over unreliable transports.
    retransmit_at: Option<Instant>,
    /// How often it was sent again by that.
    repetitions: u8,
    /// Timer F or K: when the transaction ends by itself.
    ends_at: Option<Instant>,
}

impl OtherClient {
    /// Sends the request.
    pub(super) fn start(
        request: Bytes,
        reliability: Reliability,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Self {
        out.push(Effect::Send(request.clone()));
        let udp = reliability == Reliability::Unreliable;
        Self {
            state: State::Trying,
            reliability,
            request,
            is_repeated: false,
            retransmit_at: now.checked_add(T1).filter(|_| udp),
            repetitions: 0,
            ends_at: now.checked_add(T1_X64),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns whether it waits for copies of its answer, and for nothing else.
    pub(super) fn is_answered(&self) -> bool {
        self.state == State::Completed
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.retransmit_at, self.ends_at].into_iter().flatten().min()
    }

    /// Advances the transaction by one event.
    pub(super) fn handle(&mut self, input: Input, now: Instant, out: &mut Vec<Effect>) {
        use Class::{Provisional, Refusal, Success};
        use Input::{Cancel, Response, SendFailed, Severed};
        use State::{Completed, Proceeding, Terminated, Trying};
        match (self.state, input) {
            (Trying | Proceeding, Response(Provisional)) => {
                out.push(Effect::PassUp);
                self.state = Proceeding;
            }
            (Trying | Proceeding, Response(Success | Refusal)) => {
                out.push(Effect::PassUp);
                self.complete(now);
            }
            (Completed | Terminated, Response(_)) => out.push(Effect::Absorb),
            // It may have been written to a peer that was no longer there. A copy is known by its branch.
            (Trying | Proceeding, Severed) if !self.is_repeated => {
                self.is_repeated = true;
                out.push(Effect::Send(self.request.clone()));
            }
            (Trying | Proceeding, SendFailed | Severed) => {
                out.push(Effect::SendFailed);
                self.terminate();
            }
            (Completed | Terminated, SendFailed | Severed) => {}
            // RFC 3261 9.1: only an INVITE can be cancelled.
            (Trying | Proceeding | Completed | Terminated, Cancel) => {}
        }
    }

    /// Fires whichever timer is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.ends_at.is_some_and(|at| at <= now) {
            match self.state {
                State::Trying | State::Proceeding => out.push(Effect::Timeout),
                State::Completed | State::Terminated => {}
            }
            self.terminate();
        } else if self.retransmit_at.is_some_and(|at| at <= now) {
            out.push(Effect::Send(self.request.clone()));
            self.repetitions = self.repetitions.saturating_add(1);
            let doubled = T1.saturating_mul(2_u32.saturating_pow(self.repetitions.into()));
            self.retransmit_at = now.checked_add(match self.state {
                State::Trying => T2.min(doubled),
                State::Proceeding | State::Completed | State::Terminated => T2,
            });
        }
    }

    /// Arms timer K, which is zero over reliable transports.
    fn complete(&mut self, now: Instant) {
        self.terminate();
        if self.reliability == Reliability::Unreliable {
            self.state = State::Completed;
            self.ends_at = now.checked_add(T4);
        }
    }

    fn terminate(&mut self) {
        self.state = State::Terminated;
        self.request = Bytes::new();
        (self.retransmit_at, self.ends_at) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::bench::ClientBench, *};
    use Class::{Provisional, Refusal, Success};
    use Reliability::{Reliable, Unreliable};

    #[test]
    fn a_request_is_repeated_up_to_every_t2_until_timer_f() {
        check(
            Unreliable,
            &[],
            "0 send\n500 send\n1500 send\n3500 send\n7500 send\n11500 send\n15500 send\n\
             19500 send\n23500 send\n27500 send\n31500 send\n32000 timeout",
            32000,
        );
    }

    #[test]
    fn over_tcp_it_is_sent_once() {
        check(Reliable, &[], "0 send\n32000 timeout", 32000);
    }

    #[test]
    fn a_provisional_response_slows_timer_e_and_keeps_timer_f() {
        check(
            Unreliable,
            &[(600, Input::Response(Provisional)), (10_000, Input::Response(Provisional))],
            "0 send\n500 send\n600 up\n1500 send\n5500 send\n9500 send\n10000 up\n13500 send\n\
             17500 send\n21500 send\n25500 send\n29500 send\n32000 timeout",
            32000,
        );
    }

    #[test]
    fn the_first_final_response_counts_until_timer_k() {
        for class in [Success, Refusal] {
            check(
                Unreliable,
                &[
                    (10, Input::Response(class)),
                    (20, Input::Response(class)),
                    (30, Input::Response(Provisional)),
                    (40, Input::SendFailed),
                ],
                "0 send\n10 up\n20 absorb\n30 absorb",
                5010,
            );
            check(Reliable, &[(10, Input::Response(class))], "0 send\n10 up", 10);
        }
    }

    #[test]
    fn a_transport_failure_ends_it() {
        check(Unreliable, &[(10, Input::SendFailed)], "0 send\n10 failed", 10);
        check(
            Reliable,
            &[(10, Input::Response(Provisional)), (20, Input::SendFailed)],
            "0 send\n10 up\n20 failed",
            20,
        );
    }

    #[test]
    fn after_a_connection_that_stood_another_one_is_tried_once() {
        check(
            Reliable,
            &[(10, Input::Severed), (20, Input::Response(Success))],
            "0 send\n10 send\n20 up",
            20,
        );
        for last in [Input::Severed, Input::SendFailed] {
            check(Reliable, &[(10, Input::Severed), (20, last)], "0 send\n10 send\n20 failed", 20);
        }
    }

    #[test]
    fn it_cannot_be_cancelled() {
        check(
            Reliable,
            &[(10, Input::Cancel), (20, Input::Response(Success))],
            "0 send\n20 up",
            20,
        );
    }

    #[track_caller]
    fn check(reliability: Reliability, inputs: &[(u64, Input)], trace: &str, ends_ms: u128) {
        let mut t = ClientBench::start(|now, out| {
            OtherClient::start(Bytes::from_static(b"OPTIONS"), reliability, now, out)
        });
        for (ms, input) in inputs {
            t.give(*ms, *input);
        }
        t.run_until_idle();
        t.check(trace);
        assert_eq!((t.machine.state(), t.now_ms()), (State::Terminated, ends_ms));
    }
}
