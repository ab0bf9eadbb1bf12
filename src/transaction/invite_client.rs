//! INVITE client transaction: RFC 3261 17.1.1 as corrected by RFC 6026 7.2, and its CANCEL (9.1).
//!
//! Owns: the INVITE's retransmission, the wait for its answer, when a CANCEL may be sent.
//! Never: sends, builds the ACK or the CANCEL, retransmits the ACK of a 2xx.

use super::{
    Class, ClientEffect as Effect, ClientInput as Input, Reliability,
    timer::{D, T1, T1_X64},
};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// The pause after which an unwanted INVITE is not repeated: the repetitions are at 0.5, 1.5 and 3.5 s.
const UNWANTED: Duration = T1.saturating_mul(8);

/// The states of RFC 3261 figure 5, with `Accepted` from RFC 6026.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum State {
    /// Nobody has answered.
    Calling,
    /// A provisional response has arrived.
    Proceeding,
    /// A 2xx has arrived; others may follow from other branches of the request.
    Accepted,
    /// A 3xx-6xx has arrived; each copy of it is acknowledged. A proxy that forked may still pass on a 2xx
    /// (RFC 3261 16.7).
    Completed,
    /// Its user was told that there is no answer. Who answers all the same must not be left with half a call
    /// (RFC 3261 13.2.2.4).
    GivenUp,
    /// To be forgotten by the layer.
    Terminated,
}

/// What becomes of an INVITE whose user was told that there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Late {
    /// It would have begun a dialog: whoever answers late has half a call.
    Heard,
    /// It is within a dialog, whose BYE tells everybody.
    Ignored,
}

/// How far the user's wish to cancel has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cancelling {
    No,
    /// Nothing was heard yet, so no CANCEL may be sent yet.
    Wanted,
    Sent,
}

/// One INVITE that we sent.
#[derive(Debug)]
pub(super) struct InviteClient {
    state: State,
    reliability: Reliability,
    late: Late,
    request: Bytes,
    cancelling: Cancelling,
    /// It was sent again, over another connection.
    is_repeated: bool,
    /// Timer A. Only in `Calling`, only over unreliable transports.
    retransmit_at: Option<Instant>,
    retransmit_interval: Duration,
    /// Timer B, D or M, in `Proceeding` the patience after a CANCEL, in `GivenUp` that with late answers: when the
    /// state ends by itself.
    ends_at: Option<Instant>,
}

impl InviteClient {
    /// Sends the INVITE.
    pub(super) fn start(
        request: Bytes,
        reliability: Reliability,
        late: Late,
        now: Instant,
        out: &mut Vec<Effect>,
    ) -> Self {
        let mut tx = Self {
            state: State::Calling,
            reliability,
            late,
            request,
            cancelling: Cancelling::No,
            is_repeated: false,
            retransmit_at: None,
            retransmit_interval: T1,
            ends_at: None,
        };
        tx.resend(out);
        tx.enter(State::Calling, now);
        tx
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Returns whether it waits for further 2xx, and for nothing else.
    pub(super) fn is_accepted(&self) -> bool {
        self.state == State::Accepted
    }

    /// Returns when [`Self::handle_timeout`] wants to be called next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.retransmit_at, self.ends_at].into_iter().flatten().min()
    }

    /// Advances the transaction by one event.
    pub(super) fn handle(&mut self, input: Input, now: Instant, out: &mut Vec<Effect>) {
        use Class::{Provisional, Refusal, Success};
        use Input::{Cancel, Response, SendFailed, Severed};
        use State::{Accepted, Calling, Completed, GivenUp, Proceeding, Terminated};
        match (self.state, input) {
            (Calling, Response(Provisional)) => {
                out.push(Effect::PassUp);
                self.enter(Proceeding, now);
                if self.cancelling == Cancelling::Wanted {
                    self.send_cancel(now, out);
                }
            }
            (Proceeding, Response(Provisional)) => out.push(Effect::PassUp),
            // It begins to ring for nobody.
            (GivenUp, Response(Provisional)) => {
                out.push(Effect::Absorb);
                self.send_cancel(now, out);
            }
            (Calling | Proceeding | GivenUp, Response(Success)) => {
                out.push(Effect::PassUp);
                self.enter(Accepted, now);
            }
            (Calling | Proceeding, Response(Refusal)) => {
                out.extend([Effect::SendAck, Effect::PassUp]);
                self.enter(Completed, now);
            }
            (GivenUp, Response(Refusal)) => {
                out.extend([Effect::SendAck, Effect::Absorb]);
                self.enter(Completed, now);
            }
            // A copy, or another branch of the request was answered too: the dialogs tell them apart.
            (Accepted | Completed, Response(Success)) => out.push(Effect::PassUp),
            (Completed, Response(Refusal)) => out.extend([Effect::SendAck, Effect::Absorb]),
            (Accepted, Response(Provisional | Refusal))
            | (Completed, Response(Provisional))
            | (Terminated, Response(_)) => out.push(Effect::Absorb),

            (Calling, Cancel) => {
                self.cancelling = Cancelling::Wanted;
                self.stop_repeating_the_unwanted();
            }
            (Proceeding, Cancel) => self.send_cancel(now, out),
            // RFC 3261 9.1: a CANCEL has no effect on a request that was answered.
            (Accepted | Completed | GivenUp | Terminated, Cancel) => {}

            // It may have been written to a peer that was no longer there. A copy is known by its branch;
            // a peer that comes back must not ring for nobody.
            (Calling, Severed) if !self.is_repeated && self.cancelling == Cancelling::No => {
                self.is_repeated = true;
                self.resend(out);
            }
            (Calling, SendFailed | Severed) => {
                out.push(Effect::SendFailed);
                self.give_up(now);
            }
            // RFC 3261 18.2.2: the answer may come over a connection that the server opens.
            (Proceeding | Accepted | Completed | GivenUp | Terminated, SendFailed | Severed) => {}
        }
    }

    /// Fires whichever timer is due at `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.ends_at.is_some_and(|at| at <= now) {
            match self.state {
                State::Calling | State::Proceeding => {
                    out.push(Effect::Timeout);
                    self.give_up(now);
                }
                State::Accepted | State::Completed | State::GivenUp | State::Terminated => {
                    self.enter(State::Terminated, now);
                }
            }
        } else if self.retransmit_at.is_some_and(|at| at <= now) {
            self.resend(out);
            self.retransmit_interval = self.retransmit_interval.saturating_mul(2);
            self.retransmit_at = now.checked_add(self.retransmit_interval);
            self.stop_repeating_the_unwanted();
        }
    }

    fn give_up(&mut self, now: Instant) {
        self.enter(
            match self.late {
                Late::Heard => State::GivenUp,
                Late::Ignored => State::Terminated,
            },
            now,
        );
    }

    /// Arms exactly the timers that RFC 3261 table 4 gives to `state`, and as long a one for what comes late.
    fn enter(&mut self, state: State, now: Instant) {
        let udp = self.reliability == Reliability::Unreliable;
        self.state = state;
        if state != State::Calling {
            self.request = Bytes::new();
        }
        (self.retransmit_at, self.ends_at) = match state {
            State::Calling => {
                (now.checked_add(T1).filter(|_| udp), now.checked_add(T1_X64)) // A, B
            }
            State::Proceeding | State::Terminated => (None, None),
            State::Accepted | State::GivenUp => (None, now.checked_add(T1_X64)), // M
            // Over reliable transports D is zero; it is for a late 2xx that those stay as well.
            State::Completed => (None, now.checked_add(D)), // D
        };
    }

    fn send_cancel(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.cancelling != Cancelling::Sent {
            self.cancelling = Cancelling::Sent;
            self.ends_at = now.checked_add(T1_X64);
            out.push(Effect::SendCancel);
        }
    }

    /// An INVITE that is to be cancelled is repeated for a response to cancel it by, as long as one may
    /// have been lost. Beyond that, a peer that comes back would only ring for nobody.
    fn stop_repeating_the_unwanted(&mut self) {
        if self.cancelling == Cancelling::Wanted && self.retransmit_interval >= UNWANTED {
            self.retransmit_at = None;
        }
    }

    fn resend(&self, out: &mut Vec<Effect>) {
        out.push(Effect::Send(self.request.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::bench::ClientBench, *};
    use Class::{Provisional, Refusal, Success};
    use Reliability::{Reliable, Unreliable};

    #[test]
    fn an_invite_is_repeated_until_timer_b() {
        check(
            Unreliable,
            &[],
            "0 send\n500 send\n1500 send\n3500 send\n7500 send\n15500 send\n31500 send\n\
             32000 timeout",
            64000,
        );
    }

    #[test]
    fn over_tcp_it_is_sent_once() {
        check(Reliable, &[], "0 send\n32000 timeout", 64000);
    }

    /// The user has heard that there is no answer; whoever answers now is passed up all the same, for its ACK and
    /// its BYE, and each copy as well.
    #[test]
    fn an_answer_after_it_was_given_up_is_passed_up() {
        let given_up = "0 send\n32000 timeout";
        for (inputs, trace, ends_ms) in [
            (
                &[
                    (63_999, Input::Response(Success)),
                    (64_500, Input::Response(Success)),
                    (95_998, Input::Response(Success)),
                ][..],
                "63999 up\n64500 up\n95998 up",
                95_999,
            ),
            // It rings, for nobody, and is told so once; then it is refused, as it must be.
            (
                &[
                    (40_000, Input::Response(Provisional)),
                    (41_000, Input::Response(Provisional)),
                    (41_050, Input::Response(Refusal)),
                    (41_100, Input::Response(Refusal)),
                ],
                "40000 absorb\n40000 cancel\n41000 absorb\n41050 ack\n41050 absorb\n41100 ack\n41100 absorb",
                73_050,
            ),
            // It rings, and is picked up before the CANCEL reaches it.
            (
                &[(40_000, Input::Response(Provisional)), (71_999, Input::Response(Success))],
                "40000 absorb\n40000 cancel\n71999 up",
                103_999,
            ),
            (&[(40_000, Input::Severed), (50_000, Input::Response(Success))], "50000 up", 82_000),
            (&[(40_000, Input::Cancel)], "", 64_000),
        ] {
            let trace = format!("{given_up}\n{trace}");
            check(Reliable, inputs, trace.trim_end(), ends_ms);
        }
    }

    /// The dialog's BYE is said to whoever answers late.
    #[test]
    fn within_a_dialog_nobody_waits_for_late_answers() {
        for (inputs, ends_ms) in [
            (&[][..], 32_000),
            (&[(10, Input::SendFailed)][..], 10),
            (&[(10, Input::Response(Provisional)), (20, Input::Cancel)][..], 32_020),
            (&[(10, Input::Response(Success))][..], 32_010),
            (&[(10, Input::Response(Refusal))][..], 32_010),
        ] {
            let mut t = ClientBench::start(|now, out| {
                let invite = Bytes::from_static(b"INVITE");
                InviteClient::start(invite, Reliable, Late::Ignored, now, out)
            });
            inputs.iter().for_each(|(ms, input)| t.give(*ms, *input));
            t.run_until_idle();
            assert_eq!((t.machine.state(), t.now_ms()), (State::Terminated, ends_ms), "{inputs:?}");
        }
    }

    /// It was cancelled, said that it rings, and nothing more; then it answers.
    #[test]
    fn an_answer_long_after_the_cancel_is_passed_up() {
        check(
            Unreliable,
            &[
                (10, Input::Response(Provisional)),
                (20, Input::Cancel),
                (40_000, Input::Response(Success)),
                (40_500, Input::Response(Success)),
            ],
            "0 send\n10 up\n20 cancel\n32020 timeout\n40000 up\n40500 up",
            72_000,
        );
    }

    #[test]
    fn a_provisional_response_stops_timers_a_and_b() {
        let mut t = start(Unreliable);
        t.give(600, Input::Response(Provisional));
        t.run_until_idle();
        t.check("0 send\n500 send\n600 up");
        assert_eq!(t.machine.state(), State::Proceeding);
    }

    #[test]
    fn every_copy_of_a_refusal_is_acknowledged_until_timer_d() {
        check(
            Unreliable,
            &[
                (100, Input::Response(Provisional)),
                (200, Input::Response(Refusal)),
                (700, Input::Response(Refusal)),
                (800, Input::Response(Provisional)),
                (900, Input::Response(Success)),
            ],
            "0 send\n100 up\n200 ack\n200 up\n700 ack\n700 absorb\n800 absorb\n900 up",
            32200,
        );
    }

    #[test]
    fn over_tcp_a_refusal_waits_for_the_branch_that_was_picked_up() {
        check(
            Reliable,
            &[
                (50, Input::Response(Refusal)),
                (60, Input::Severed),
                (32_049, Input::Response(Success)),
            ],
            "0 send\n50 ack\n50 up\n32049 up",
            32_050,
        );
    }

    #[test]
    fn every_2xx_is_passed_up_until_timer_m() {
        check(
            Reliable,
            &[
                (50, Input::Response(Success)),
                (60, Input::Response(Success)),
                (70, Input::Response(Refusal)),
                (80, Input::Response(Provisional)),
                (32049, Input::Response(Success)),
            ],
            "0 send\n50 up\n60 up\n70 absorb\n80 absorb\n32049 up",
            32050,
        );
    }

    #[test]
    fn a_cancel_waits_for_the_first_provisional_response() {
        check(
            Unreliable,
            &[
                (10, Input::Cancel),
                (20, Input::Response(Provisional)),
                (30, Input::Response(Provisional)),
                (40, Input::Cancel),
            ],
            "0 send\n20 up\n20 cancel\n30 up\n32020 timeout",
            64020,
        );
    }

    #[test]
    fn an_unwanted_invite_is_not_repeated_for_long() {
        for (cancel_ms, sent) in [(10, 3), (3000, 3), (3510, 3), (7000, 3), (7600, 4), (15_600, 5)]
        {
            let all = [500, 1500, 3500, 7500, 15_500];
            let sent: String = all[..sent].iter().map(|ms| format!("\n{ms} send")).collect();
            check(
                Unreliable,
                &[(cancel_ms, Input::Cancel)],
                &format!("0 send{sent}\n32000 timeout"),
                64_000,
            );
        }
    }

    #[test]
    fn a_cancel_of_what_never_answered_is_timer_b() {
        check(Reliable, &[(10, Input::Cancel)], "0 send\n32000 timeout", 64000);
    }

    #[test]
    fn an_answer_that_crosses_the_cancel_counts() {
        check(
            Unreliable,
            &[
                (10, Input::Response(Provisional)),
                (20, Input::Cancel),
                (30, Input::Response(Success)),
                (40, Input::Cancel),
            ],
            "0 send\n10 up\n20 cancel\n30 up",
            32030,
        );
    }

    #[test]
    fn a_transport_failure_ends_what_was_not_heard() {
        check(Unreliable, &[(10, Input::SendFailed)], "0 send\n10 failed", 32010);
        check(
            Unreliable,
            &[
                (10, Input::Response(Provisional)),
                (20, Input::SendFailed),
                (30, Input::Response(Refusal)),
                (40, Input::SendFailed),
            ],
            "0 send\n10 up\n30 ack\n30 up",
            32030,
        );
    }

    #[test]
    fn after_a_connection_that_stood_another_one_is_tried_once() {
        check(
            Reliable,
            &[(10, Input::Severed), (20, Input::Severed)],
            "0 send\n10 send\n20 failed",
            32020,
        );
        check(Reliable, &[(5, Input::Cancel), (10, Input::Severed)], "0 send\n10 failed", 32010);
    }

    fn start(reliability: Reliability) -> ClientBench<InviteClient> {
        ClientBench::start(|now, out| {
            let invite = Bytes::from_static(b"INVITE");
            InviteClient::start(invite, reliability, Late::Heard, now, out)
        })
    }

    #[track_caller]
    fn check(reliability: Reliability, inputs: &[(u64, Input)], trace: &str, ends_ms: u128) {
        let mut t = start(reliability);
        for (ms, input) in inputs {
            t.give(*ms, *input);
        }
        t.run_until_idle();
        t.check(trace);
        assert_eq!((t.machine.state(), t.now_ms()), (State::Terminated, ends_ms));
    }
}
