//! When the next of many evenly spaced things is due, whether or not the last one is done.
//!
//! Owns: the schedule. Never: waits.

use std::time::{Duration, Instant};

/// An open-loop schedule: things are due by the clock, not by how the last ones went.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start: Instant,
    per_s: f64,
    begun: u64,
    total: u64,
}

impl Pace {
    /// `total` things from `start` on, so many a second.
    pub fn new(start: Instant, per_s: f64, total: u64) -> Self {
        Self { start, per_s, begun: 0, total }
    }

    /// How many are due and not begun; the caller begins each of them.
    pub fn take_due(&mut self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_secs_f64();
        let due = ((elapsed * self.per_s) as u64).saturating_add(1).min(self.total);
        let due = if now < self.start { 0 } else { due };
        let new = due.saturating_sub(self.begun);
        self.begun += new;
        new
    }

    /// When the next is due; none after the last.
    pub fn next(&self) -> Option<Instant> {
        (self.begun < self.total)
            .then(|| self.start + Duration::from_secs_f64(self.begun as f64 / self.per_s))
    }

    /// How many were begun.
    pub fn begun(&self) -> u64 {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_is_made_up_for_and_nothing_comes_twice() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(at(10), 1000.0, 8);
        assert_eq!(pace.take_due(at(0)), 0);
        assert_eq!(pace.next(), Some(at(10)));
        assert_eq!(pace.take_due(at(10)), 1);
        assert_eq!(pace.take_due(at(10)), 0);
        assert_eq!(pace.next(), Some(at(11)));
        assert_eq!(pace.take_due(at(14)), 4);
        assert_eq!(pace.take_due(at(1000)), 3, "never more than the total");
        assert_eq!((pace.next(), pace.begun()), (None, 8));
    }
}
