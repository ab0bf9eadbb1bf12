//! What is due so long after it was begun, for a few fixed times.
//!
//! Owns: the waiting items, in order. Never: takes one out before its time: what has become
//! pointless is known by whoever gets it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A queue of items that all wait equally long; so the first in is the first due.
#[derive(Clone, Debug)]
pub struct DelayLine<T> {
    delay: Duration,
    waiting: VecDeque<(Instant, T)>,
}

impl<T> DelayLine<T> {
    /// An empty one.
    pub fn new(delay: Duration) -> Self {
        Self { delay, waiting: VecDeque::new() }
    }

    /// Lets one wait from now.
    pub fn push(&mut self, now: Instant, item: T) {
        self.waiting.push_back((now + self.delay, item));
    }

    /// The next one that has waited long enough.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        let is_due = self.waiting.front().is_some_and(|(due, _)| *due <= now);
        is_due.then(|| self.waiting.pop_front()).flatten().map(|(_, item)| item)
    }
}

/// RFC 3261's T1.
const T1: Duration = Duration::from_millis(500);
/// Waits that double, of which the last ends at 63 * T1; RFC 3261 gives up at 64.
const DOUBLINGS: u8 = 5;

/// Retransmission timers: T1, then twice as long each time, until nothing more is to be hoped for.
#[derive(Clone, Debug)]
pub struct Retransmissions<T> {
    lines: Vec<DelayLine<T>>,
}

/// What to do with an item whose answer has not come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Send it again.
    Again,
    /// Give it up.
    Over,
}

impl<T: Copy> Default for Retransmissions<T> {
    fn default() -> Self {
        let lines = (0..=DOUBLINGS).map(|step| DelayLine::new(T1 * (1 << step))).collect();
        Self { lines }
    }
}

impl<T: Copy> Retransmissions<T> {
    /// An item was sent for the first time.
    pub fn push(&mut self, now: Instant, item: T) {
        self.lines[0].push(now, item);
    }

    /// Gives each item that is due to `handle`, which tells whether it still waits for its answer.
    pub fn handle_due(&mut self, now: Instant, mut handle: impl FnMut(T, Due) -> bool) {
        for step in 0..self.lines.len() {
            while let Some(item) = self.lines[step].pop_due(now) {
                let is_last = step + 1 == self.lines.len();
                let waits = handle(item, if is_last { Due::Over } else { Due::Again });
                if waits && !is_last {
                    self.lines[step + 1].push(now, item);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_when_due_and_in_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut line = DelayLine::new(Duration::from_millis(20));
        line.push(at(0), 'a');
        line.push(at(5), 'b');
        assert_eq!(line.pop_due(at(19)), None);
        assert_eq!(line.pop_due(at(20)), Some('a'));
        assert_eq!(line.pop_due(at(24)), None);
        assert_eq!(line.pop_due(at(99)), Some('b'));
        assert_eq!(line.pop_due(at(99)), None);
    }

    #[test]
    fn an_answer_ends_the_retransmissions_and_half_a_minute_ends_the_hope() {
        let start = Instant::now();
        let mut timers = Retransmissions::default();
        timers.push(start, 'a');
        timers.push(start, 'b');
        let mut seen = vec![];
        for ms in (0..100_000).step_by(100) {
            timers.handle_due(start + Duration::from_millis(ms), |item, due| {
                seen.push((ms, item, due));
                item == 'a'
            });
        }
        let of_a: Vec<_> = seen.iter().filter(|(_, item, _)| *item == 'a').collect();
        let times: Vec<_> = of_a.iter().map(|(ms, ..)| *ms).collect();
        assert_eq!(times, [500, 1500, 3500, 7500, 15_500, 31_500]);
        assert_eq!(of_a[4].2, Due::Again);
        assert_eq!(of_a[5].2, Due::Over);
        assert!(seen.contains(&(500, 'b', Due::Again)) && !seen.contains(&(1500, 'b', Due::Again)));
    }
}
