//! When which stream sends: all of them evenly over each 20 ms, in an order that has nothing to do
//! with who talks to whom.
//!
//! Owns: the schedule, and how late the sender was. Never: waits, sends.

use super::packet::PERIOD_NS;
use crate::histogram::Histogram;
use std::time::Duration;

/// Later than this, what was missed is not made up for: the whole schedule moves.
const GIVE_UP_NS: u64 = 60_000_000;

/// The schedule of a run. Times are in ns since 1970.
#[derive(Clone, Debug)]
pub struct Schedule {
    order: Vec<u32>,
    start_ns: u64,
    step: u64,
    /// How late packets were sent.
    pub lateness: Histogram,
    /// How often the schedule has moved.
    pub moved: u64,
}

impl Schedule {
    /// Streams in this order, from `start_ns` on.
    pub fn new(order: Vec<u32>, start_ns: u64) -> Self {
        Self { order, start_ns, step: 0, lateness: Histogram::default(), moved: 0 }
    }

    /// When the next is due.
    pub fn due_ns(&self) -> u64 {
        let streams = self.order.len() as u64;
        // By rounds and the rest, so that nothing overflows and nothing drifts.
        let (rounds, rest) = (self.step / streams, self.step % streams);
        self.start_ns + rounds * PERIOD_NS + rest * PERIOD_NS / streams
    }

    /// The stream that is due, and the next one after it. `counts` is whether its lateness does.
    pub fn take(&mut self, now_ns: u64, counts: bool) -> (u32, u32) {
        let late_ns = now_ns.saturating_sub(self.due_ns());
        if counts {
            self.lateness.record(Duration::from_nanos(late_ns));
        }
        if late_ns > GIVE_UP_NS {
            self.start_ns += late_ns;
            self.moved += u64::from(counts);
        }
        let at = |step: u64| self.order[(step % self.order.len() as u64) as usize];
        let streams = (at(self.step), at(self.step + 1));
        self.step += 1;
        streams
    }
}

/// Puts blocks in an order without meaning, always the same for a given number of them.
pub fn shuffled<T>(mut blocks: Vec<T>) -> Vec<T> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..blocks.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        blocks.swap(last, (state % (last as u64 + 1)) as usize);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns_evenly_and_nothing_drifts() {
        let mut schedule = Schedule::new(vec![4, 8, 6], 1000);
        let mut seen = vec![];
        for step in 0..3_000_u64 {
            let due = schedule.due_ns();
            assert_eq!(due, 1000 + step * PERIOD_NS / 3);
            seen.push(schedule.take(due, true));
        }
        assert_eq!(seen[..4], [(4, 8), (8, 6), (6, 4), (4, 8)]);
        assert_eq!(schedule.due_ns(), 1000 + 1000 * PERIOD_NS);
        assert_eq!((schedule.lateness.quantile(1.0), schedule.moved), (Duration::ZERO, 0));
    }

    #[test]
    fn the_late_catch_up_unless_it_is_hopeless() {
        let mut schedule = Schedule::new(vec![0, 1], 0);
        schedule.take(5_000_000, true);
        assert_eq!(schedule.due_ns(), PERIOD_NS / 2);
        assert_eq!(schedule.lateness.quantile(1.0), Duration::from_millis(5));
        schedule.take(PERIOD_NS / 2 + GIVE_UP_NS + 1, true);
        assert_eq!(schedule.due_ns(), PERIOD_NS + GIVE_UP_NS + 1);
        assert_eq!(schedule.moved, 1);
        schedule.take(u64::MAX / 2, false);
        assert_eq!((schedule.moved, schedule.lateness.count()), (1, 2));
    }

    #[test]
    fn shuffling_loses_nobody_and_is_repeatable() {
        let blocks: Vec<u32> = (0..1000).collect();
        let mixed = shuffled(blocks.clone());
        assert_ne!(mixed, blocks);
        assert_eq!(mixed, shuffled(blocks.clone()));
        let neighbours = mixed.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(neighbours < 20, "{neighbours}");
        let mut sorted = mixed;
        sorted.sort_unstable();
        assert_eq!(sorted, blocks);
    }
}
