//! Reliable provisional responses (RFC 3262), as sender and as receiver.
//!
//! Owns: RSeq numbers, the unacknowledged response and its schedule.
//! Never: parses a header or decides whether a response is to be reliable.

use crate::transaction::timer::{T1, T1_X64};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How many responses may wait for the PRACK of the one before.
const WAITING_MAX: usize = 8;

/// What a PRACK means to the sender.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PrackOutcome {
    /// It acknowledges the outstanding response: 200, and send the next one if given.
    Acknowledged(Option<Bytes>),
    /// It acknowledges nothing that is outstanding: 481 (RFC 3262 3).
    Unknown,
}

/// What is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Resend {
    /// Send these bytes again.
    Again(Bytes),
    /// 64*T1 without a PRACK: reject the INVITE with a 5xx (RFC 3262 3).
    NeverAcknowledged,
}

/// Our reliable responses to one INVITE. At most one is outstanding.
#[derive(Clone, Debug)]
pub struct ReliableSender {
    next: u32,
    outstanding: Option<Outstanding>,
    waiting: VecDeque<(u32, Bytes)>,
}

#[derive(Clone, Debug)]
struct Outstanding {
    rseq: u32,
    bytes: Bytes,
    resend_at: Instant,
    interval: Duration,
    ends_at: Instant,
}

impl ReliableSender {
    /// Starts at a number between 1 and 2^31-1 (RFC 3262 3).
    pub fn new(first: u32) -> Self {
        Self { next: (first & 0x3fff_ffff).max(1), outstanding: None, waiting: VecDeque::new() }
    }

    /// Takes the number for the next response; give the response to [`Self::send`].
    pub fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        number
    }

    /// Returns the bytes to send now, or `None` where an earlier response must be acknowledged first.
    pub fn send(&mut self, rseq: u32, bytes: Bytes, now: Instant) -> Option<Bytes> {
        if self.outstanding.is_some() {
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push_back((rseq, bytes));
            }
            return None;
        }
        self.outstanding = Some(Outstanding {
            rseq,
            bytes: bytes.clone(),
            resend_at: after(now, T1),
            interval: T1,
            ends_at: after(now, T1_X64),
        });
        Some(bytes)
    }

    /// Matches the RSeq number of a PRACK's RAck; Method and CSeq are the caller's to compare.
    pub fn acknowledge(&mut self, rseq: u32, now: Instant) -> PrackOutcome {
        match &self.outstanding {
            Some(outstanding) if outstanding.rseq == rseq => {
                self.outstanding = None;
                let next = self.waiting.pop_front();
                PrackOutcome::Acknowledged(next.and_then(|(rseq, b)| self.send(rseq, b, now)))
            }
            Some(_) | None => PrackOutcome::Unknown,
        }
    }

    /// Returns the number of the response that waits for its PRACK.
    pub fn outstanding(&self) -> Option<u32> {
        self.outstanding.as_ref().map(|outstanding| outstanding.rseq)
    }

    /// Stops everything: a final response was sent.
    pub fn stop(&mut self) {
        self.outstanding = None;
        self.waiting.clear();
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|o| o.resend_at.min(o.ends_at))
    }

    /// Says what is due at `now`, if anything. The interval doubles without a ceiling (RFC 3262 3).
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Resend> {
        let outstanding = self.outstanding.as_mut()?;
        if outstanding.ends_at <= now {
            self.stop();
            return Some(Resend::NeverAcknowledged);
        }
        if outstanding.resend_at > now {
            return None;
        }
        outstanding.interval = outstanding.interval.saturating_mul(2);
        outstanding.resend_at = after(now, outstanding.interval);
        Some(Resend::Again(outstanding.bytes.clone()))
    }
}

/// The peer's reliable responses in one early dialog.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReliableReceiver {
    last: Option<u32>,
}

impl ReliableReceiver {
    /// Returns whether this response is the next one: PRACK it. Otherwise it is a copy, or one that
    /// arrived before its predecessor and will be sent again (RFC 3262 4).
    pub fn accept(&mut self, rseq: u32) -> bool {
        let next = self.last.is_none_or(|last| last.checked_add(1) == Some(rseq));
        if next {
            self.last = Some(rseq);
        }
        next
    }
}

fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_order() {
        let now = crate::sim::epoch();
        let mut sender = ReliableSender::new(10);
        let (first, second) = (sender.number(), sender.number());
        assert_eq!((first, second), (10, 11));
        assert_eq!(sender.send(first, b("180"), now), Some(b("180")));
        assert_eq!(sender.send(second, b("183"), now), None);
        assert_eq!(sender.acknowledge(11, now), PrackOutcome::Unknown);
        assert_eq!(sender.acknowledge(10, now), PrackOutcome::Acknowledged(Some(b("183"))));
        assert_eq!(sender.acknowledge(10, now), PrackOutcome::Unknown);
        assert_eq!(sender.acknowledge(11, now), PrackOutcome::Acknowledged(None));
        assert_eq!(sender.outstanding(), None);
    }

    #[test]
    fn doubles_without_ceiling_then_gives_up() {
        let start = crate::sim::epoch();
        let mut sender = ReliableSender::new(1);
        let rseq = sender.number();
        sender.send(rseq, b("180"), start);
        let mut sent_ms = vec![];
        let gave_up = loop {
            let now = sender.poll_timeout().unwrap();
            match sender.handle_timeout(now) {
                Some(Resend::Again(_)) => sent_ms.push((now - start).as_millis()),
                Some(Resend::NeverAcknowledged) => break (now - start).as_millis(),
                None => {}
            }
        };
        assert_eq!(sent_ms, [500, 1500, 3500, 7500, 15500, 31500]);
        assert_eq!(gave_up, 32000);
    }

    #[test]
    fn the_receiver_takes_each_number_once_and_in_order() {
        let mut receiver = ReliableReceiver::default();
        let taken = [7, 7, 9, 8, 9].map(|rseq| receiver.accept(rseq));
        assert_eq!(taken, [true, false, false, true, true]);
    }

    fn b(s: &'static str) -> Bytes {
        Bytes::from_static(s.as_bytes())
    }
}
