//! When a thread sleeps for a moment, so that packets come together instead of one by one.
//!
//! Owns: how many packets came lately, and whether waiting for more of them pays.
//! Never: sleeps.

use std::time::{Duration, Instant};

/// For so long packets are counted before the rate is believed.
const COUNTED_FOR: Duration = Duration::from_millis(10);
/// A nap is a wake-up itself: it pays where that many come meanwhile.
const WORTH: u32 = 3;

/// How often a thread looks for packets.
#[derive(Debug)]
pub(super) struct Nap {
    /// No more often than this while naps pay; zero: as often as there are any.
    every: Duration,
    pays: bool,
    counted_since: Instant,
    packets: u32,
}

impl Nap {
    /// Looks for packets at most as often as this, where there are many.
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        Self { every, pays: false, counted_since: now, packets: 0 }
    }

    /// Returns for how long to sleep after a look at `began` that found that many packets.
    pub(super) fn after(&mut self, began: Instant, packets: usize, now: Instant) -> Duration {
        if self.every.is_zero() {
            return Duration::ZERO;
        }
        self.packets = self.packets.saturating_add(u32::try_from(packets).unwrap_or(u32::MAX));
        let elapsed = now.saturating_duration_since(self.counted_since);
        if elapsed >= COUNTED_FOR {
            let meanwhile = self.every.saturating_mul(self.packets);
            self.pays = meanwhile >= elapsed.saturating_mul(WORTH);
            (self.counted_since, self.packets) = (now, 0);
        }
        if self.pays {
            self.every.saturating_sub(now.saturating_duration_since(began))
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(1);

    /// Looks every millisecond for a while; returns the last nap.
    fn nap(every: Duration, packets_each: usize, took: Duration) -> Duration {
        let begin = crate::sim::epoch();
        let mut nap = Nap::new(every, begin);
        let looks = (0..50).map(|n| begin + EVERY * n);
        looks.map(|at| nap.after(at, packets_each, at + took)).last().unwrap()
    }

    #[test]
    fn naps_where_many_come_and_only_for_what_is_left() {
        let us = Duration::from_micros;
        for (every, packets, took, want) in [
            (EVERY, 10, us(100), us(900)),
            (EVERY, 10, us(1000), us(0)),
            (EVERY, 10, us(5000), us(0)),
            (EVERY, 2, us(100), us(0)),
            (EVERY, 0, us(0), us(0)),
            (us(0), 10, us(0), us(0)),
        ] {
            assert_eq!(nap(every, packets, took), want, "{packets} packets each {every:?}");
        }
    }
}
