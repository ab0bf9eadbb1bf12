//! New work that waits for its turn, and for how long it may.
//!
//! Owns: the order, the times, how much may wait.
//! Never: looks at what waits.
//!
//! Where so many wait that their time would be up before their turn came, by what was served lately, who comes is sent
//! away at once: that costs half of what it costs later, when all of it has gone cold.
//!
//! The patience is that of "Fail at Scale" (ACM Queue 13/8, 2015, after CoDel): whoever comes in a burst may wait
//! long; while the queue has not been empty for that long, there is more work than time, and to wait longer than a
//! moment would only make everybody late.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How many may wait in one line.
const ENTRIES_MAX: usize = 4096;
/// How many bytes they may have together.
const BYTES_MAX: usize = 4 << 20;
/// So many may always wait.
const ENTRIES_MIN: usize = 64;

/// How long one may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Where the line was empty so recently.
    pub(super) calm: Duration,
    /// Where it was not.
    pub(super) hurried: Duration,
}

#[derive(Debug)]
struct Entry<T> {
    came: Instant,
    bytes: usize,
    item: T,
}

/// One line.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    entries: VecDeque<Entry<T>>,
    bytes: usize,
    patience: Patience,
    /// Since when there has been somebody in it; kept where the last one was sent away unserved.
    since: Option<Instant>,
    /// When the last one was sent away.
    refused_at: Option<Instant>,
    pace: Pace,
}

/// How many are served while one may wait in a crowd.
#[derive(Debug, Default)]
struct Pace {
    counted_since: Option<Instant>,
    served: usize,
    before: usize,
}

impl Pace {
    /// Begins to count anew where it is time.
    fn turn(&mut self, every: Duration, now: Instant) {
        match self.counted_since {
            Some(since) if now.saturating_duration_since(since) < every => {}
            Some(_) => {
                self.before = std::mem::take(&mut self.served);
                self.counted_since = Some(now);
            }
            None => self.counted_since = Some(now),
        }
    }

    fn served_lately(&self) -> usize {
        self.before.max(self.served)
    }
}

impl<T> Waiting<T> {
    pub(super) fn new(patience: Patience) -> Self {
        let pace = Pace::default();
        Self { entries: VecDeque::new(), bytes: 0, patience, since: None, refused_at: None, pace }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds one at the end, unless there is no room, or no hope: then it is not even made. Returns whether there was.
    #[must_use]
    pub(super) fn push(&mut self, make: impl FnOnce() -> T, bytes: usize, now: Instant) -> bool {
        let sum = self.bytes.saturating_add(bytes);
        self.pace.turn(self.patience.hurried, now);
        if self.entries.len() >= self.entries_max(now) || sum > BYTES_MAX {
            self.refused_at = Some(now);
            return false;
        }
        let is_long_ago = |at: Instant| now.saturating_duration_since(at) >= self.patience.calm;
        if self.since.is_none() || (self.is_empty() && self.refused_at.is_none_or(is_long_ago)) {
            self.since = Some(now);
        }
        self.bytes = sum;
        self.entries.push_back(Entry { came: now, bytes, item: make() });
        true
    }

    /// In a crowd, an eighth more than are served while one may wait: there is always somebody to serve.
    fn entries_max(&self, now: Instant) -> usize {
        if !self.is_crowd(now) {
            return ENTRIES_MAX;
        }
        let served = self.pace.served_lately();
        served.saturating_add(served / 8).clamp(ENTRIES_MIN, ENTRIES_MAX)
    }

    /// Returns whether it has not been empty for a while.
    fn is_crowd(&self, now: Instant) -> bool {
        self.since.is_some_and(|at| now.saturating_duration_since(at) >= self.patience.calm)
    }

    /// Takes the first one, to be served.
    pub(super) fn pop(&mut self) -> Option<T> {
        let item = self.take()?;
        self.pace.served = self.pace.served.saturating_add(1);
        if self.is_empty() {
            self.since = None;
        }
        Some(item)
    }

    /// Takes the first one if it has waited for too long.
    pub(super) fn pop_stale(&mut self, now: Instant) -> Option<T> {
        let Patience { calm, hurried } = self.patience;
        let most = if self.is_crowd(now) { hurried } else { calm };
        let waited = now.saturating_duration_since(self.entries.front()?.came);
        if waited < most {
            return None;
        }
        self.refused_at = Some(now);
        self.take()
    }

    fn take(&mut self) -> Option<T> {
        let Entry { bytes, item, .. } = self.entries.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::epoch;

    fn ms(ms: u64) -> Instant {
        epoch() + Duration::from_millis(ms)
    }

    fn line() -> Waiting<u64> {
        let (calm, hurried) = (Duration::from_millis(100), Duration::from_millis(20));
        Waiting::new(Patience { calm, hurried })
    }

    fn stale(line: &mut Waiting<u64>, now: Instant) -> usize {
        std::iter::from_fn(|| line.pop_stale(now)).count()
    }

    #[test]
    fn a_burst_may_wait_and_is_served_in_order() {
        let mut line = line();
        for n in 0..50 {
            assert!(line.push(|| n, 100, ms(0)));
        }
        for n in 0..50 {
            assert_eq!(stale(&mut line, ms(2 * n)), 0);
            assert_eq!(line.pop(), Some(n));
        }
        assert!(line.is_empty() && line.pop().is_none());
        // The next one finds it as the first did.
        assert!(line.push(|| 0, 100, ms(200)));
        assert_eq!((stale(&mut line, ms(299)), stale(&mut line, ms(300))), (0, 1));
    }

    /// One comes each millisecond, one is served every two.
    #[test]
    fn who_comes_into_a_crowd_is_served_soon_or_never() {
        let mut line = line();
        let (mut served, mut refused, mut longest) = (0, 0, 0);
        for now in 0..2000 {
            assert!(line.push(|| now, 100, ms(now)));
            refused += stale(&mut line, ms(now));
            if now % 2 == 0 {
                let came = line.pop().unwrap();
                served += 1;
                longest = longest.max(if now < 200 { 0 } else { now - came });
            }
        }
        assert_eq!((served, longest), (1000, 19));
        assert!((970..=1000).contains(&refused), "{refused}");
        // All go at once, and the crowd is still one; after a while without anybody it is not.
        assert!(stale(&mut line, ms(2030)) > 0 && line.is_empty());
        for (came, patience) in [(2040, 20), (2200, 100)] {
            assert!(line.push(|| 0, 100, ms(came)));
            assert_eq!(stale(&mut line, ms(came + patience - 1)), 0);
            assert_eq!(stale(&mut line, ms(came + patience)), 1);
        }
    }

    /// Ten come each millisecond, four of which are served.
    #[test]
    fn who_would_wait_in_vain_is_not_let_in() {
        let mut line = line();
        let (mut served, mut late, mut at_once, mut idle) = (0, 0, 0, 0);
        for now in 0..2000 {
            at_once += (0..10).filter(|_| !line.push(|| now, 100, ms(now))).count();
            late += stale(&mut line, ms(now));
            let got = (0..4).filter(|_| line.pop().is_some()).count();
            (served, idle) = (served + got, idle + usize::from(got < 4));
            assert!(now < 200 || line.entries.len() <= 90, "{}", line.entries.len());
        }
        assert_eq!((served, idle), (8000, 0));
        assert!(at_once > 6 * late, "{at_once} at once, {late} later");
        // A moment of calm, and all may wait again.
        while line.pop().is_some() {}
        (0..500).for_each(|n| assert!(line.push(|| n, 100, ms(2300))));
    }

    /// What is under way takes all the time for a while; afterwards there must be somebody to serve, or nobody ever
    /// would be let in again.
    #[test]
    fn where_nobody_was_served_lately_some_may_wait_all_the_same() {
        let mut line = line();
        let mut waiting = 0;
        for now in 0..500 {
            waiting += usize::from(line.push(|| now, 100, ms(now)));
            waiting -= stale(&mut line, ms(now));
        }
        assert_eq!((waiting, line.entries.len(), line.pace.served_lately()), (20, 20, 0));
        let got = (0..200).map(|_| line.push(|| 500, 100, ms(500)));
        assert_eq!(got.filter(|is_let_in| *is_let_in).count(), ENTRIES_MIN - 20);
        assert_eq!(line.pop(), Some(480));
    }

    #[test]
    fn a_crowd_that_is_served_to_the_end_is_one_no_longer() {
        let mut line = line();
        assert_eq!((line.push(|| 0, 100, ms(0)), stale(&mut line, ms(100))), (true, 1));
        assert_eq!((line.push(|| 1, 100, ms(110)), line.pop()), (true, Some(1)));
        assert_eq!((line.push(|| 2, 100, ms(120)), stale(&mut line, ms(219))), (true, 0));
        assert_eq!(stale(&mut line, ms(220)), 1);
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut line = line();
        for n in 0..10_000 {
            assert_eq!(line.push(|| n, 0, ms(0)), n < ENTRIES_MAX as u64);
        }
        while line.pop().is_some() {}
        for n in 0..100 {
            assert_eq!(line.push(|| n, 1 << 16, ms(0)), n < 64);
        }
        assert!(line.pop().is_some());
        assert!(line.push(|| 0, 1 << 16, ms(0)));
    }
}
