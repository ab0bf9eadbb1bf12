//! A 2xx that we sent: repeated until its ACK arrives (RFC 3261 13.3.1.4).
//!
//! Owns: the 2xx, its schedule, the wait for the ACK.
//! Never: tears anything down; it only says that nobody acknowledged.

use crate::transaction::timer::{T1, T1_X64, T2};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// What is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SuccessDue {
    /// Send the 2xx again.
    Resend(Bytes),
    /// 64*T1 have passed without an ACK: the dialog is to be ended with BYE.
    NeverAcked,
}

/// A 2xx on its way.
#[derive(Clone, Debug)]
pub struct Success {
    /// The CSeq number that its ACK carries.
    pub cseq: u32,
    bytes: Bytes,
    resend_at: Instant,
    interval: Duration,
    ends_at: Instant,
}

impl Success {
    /// Creates the schedule; the first copy has just been sent. Over reliable transports too: the
    /// loss may be at a hop behind them.
    pub fn new(cseq: u32, bytes: Bytes, now: Instant) -> Self {
        Self { cseq, bytes, resend_at: after(now, T1), interval: T1, ends_at: after(now, T1_X64) }
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Instant {
        self.resend_at.min(self.ends_at)
    }

    /// Says what is due at `now`, if anything.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<SuccessDue> {
        if self.ends_at <= now {
            return Some(SuccessDue::NeverAcked);
        }
        if self.resend_at > now {
            return None;
        }
        self.interval = T2.min(self.interval.saturating_mul(2));
        self.resend_at = after(now, self.interval);
        Some(SuccessDue::Resend(self.bytes.clone()))
    }
}

fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_until_64_t1_then_gives_up() {
        let start = crate::sim::epoch();
        let mut success = Success::new(1, Bytes::from_static(b"200"), start);
        let mut sent_ms = vec![];
        let gave_up = loop {
            let now = success.poll_timeout();
            match success.handle_timeout(now) {
                Some(SuccessDue::Resend(_)) => sent_ms.push((now - start).as_millis()),
                Some(SuccessDue::NeverAcked) => break (now - start).as_millis(),
                None => {}
            }
        };
        assert_eq!(sent_ms, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
        assert_eq!(gave_up, 32000);
    }
}
