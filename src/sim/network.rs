//! What happens to a message on its way.
//!
//! Owns: the knobs, and who cannot reach whom at what time.
//! Never: keeps a message.

use crate::ids::{Entropy, Transport};
use std::time::{Duration, Instant};

/// How much later than the others a reordered datagram may come.
const REORDER_BY_MS: u64 = 300;

/// How good the network is. Loss, duplication and reordering concern datagrams only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    /// Of a hundred datagrams, how many never arrive.
    pub loss_percent: u8,
    /// Of a hundred datagrams, how many arrive twice.
    pub duplicate_percent: u8,
    /// Of a hundred datagrams, how many are overtaken.
    pub reorder_percent: u8,
    /// How long a message takes at least.
    pub latency: Duration,
    /// How much longer it takes at most.
    pub jitter: Duration,
}

impl Network {
    /// Everything arrives, once, after 20 ms.
    pub const CLEAN: Self = Self {
        loss_percent: 0,
        duplicate_percent: 0,
        reorder_percent: 0,
        latency: Duration::from_millis(20),
        jitter: Duration::ZERO,
    };

    /// A fifth is lost, a tenth comes twice, a fifth is overtaken.
    pub const BAD: Self = Self {
        loss_percent: 20,
        duplicate_percent: 10,
        reorder_percent: 20,
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(30),
    };

    /// Decides when the copies of a message arrive: none, one or two.
    pub(super) fn arrivals(
        &self,
        transport: Transport,
        now: Instant,
        entropy: &mut Entropy,
    ) -> Vec<Instant> {
        if transport.is_reliable() {
            return vec![now + self.delay(entropy)];
        }
        let copies = match (hits(self.loss_percent, entropy), self.duplicate_percent) {
            (true, _) => 0,
            (false, percent) if hits(percent, entropy) => 2,
            (false, _) => 1,
        };
        let late = |entropy: &mut Entropy| {
            if hits(self.reorder_percent, entropy) { entropy.below(REORDER_BY_MS) } else { 0 }
        };
        (0..copies)
            .map(|_| now + self.delay(entropy) + Duration::from_millis(late(entropy)))
            .collect()
    }

    fn delay(&self, entropy: &mut Entropy) -> Duration {
        let jitter_us = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX);
        self.latency + Duration::from_micros(entropy.below(jitter_us))
    }
}

fn hits(percent: u8, entropy: &mut Entropy) -> bool {
    entropy.below(100) < u64::from(percent)
}

/// A time in which two nodes cannot reach each other.
#[derive(Clone, Debug)]
pub(super) struct Partition {
    pub(super) between: [Box<str>; 2],
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Partition {
    /// Returns when this partition ends, if it keeps these two apart at `now`.
    pub(super) fn parts(&self, a: &str, b: &str, now: Instant) -> Option<Instant> {
        let [x, y] = &self.between;
        let concerned = (**x == *a && **y == *b) || (**x == *b && **y == *a);
        (concerned && self.from <= now && now < self.until).then_some(self.until)
    }
}
