//! How fast and how many calls leave by a trunk, and where the others wait.
//!
//! Owns: a trunk's recent calls, and those that wait for their turn, in order.
//! Never: keeps an emergency call waiting, lets more calls out in any `per` than the rate says, or
//! waits without a bound.

use super::Refusal;
use crate::ids::CallId;
use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

/// So many calls in so much time, in whatever span of that length one looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// From 1 to [`Self::CALLS_MAX`].
    pub calls: u16,
    /// A second or a minute.
    pub per: Duration,
}

impl Rate {
    /// The most that can be asked for.
    pub const CALLS_MAX: u16 = 1000;

    /// Reads `5/s` or `30/m`.
    pub fn parse(text: &str) -> Option<Self> {
        let (calls, per) = text.split_once('/')?;
        let calls =
            calls.trim().parse().ok().filter(|calls| (1..=Self::CALLS_MAX).contains(calls))?;
        let per = match per.trim() {
            "s" => 1,
            "m" => 60,
            _ => return None,
        };
        Some(Self { calls, per: Duration::from_secs(per) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.per == Duration::from_secs(60) { 'm' } else { 's' };
        write!(f, "{}/{unit}", self.calls)
    }
}

/// `max_rate`, `max_calls`, `queue_for`, `queue_max`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pacing {
    /// How fast calls may leave.
    pub rate: Option<Rate>,
    /// How many there may be at a time.
    pub calls_max: Option<u32>,
    /// How long a call waits for its turn; `None`: it does not.
    pub queue_for: Option<Duration>,
    /// How many wait at a time.
    pub queue_max: u16,
}

/// A call that waits, and what for.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    call: CallId,
    ticket: u64,
    since: Instant,
    until: Instant,
}

/// What becomes of a call that wants to leave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Entry {
    /// It leaves now.
    Go,
    /// It waits; its [`Turn`] names this ticket.
    Wait(u64),
    /// It does neither.
    Refused(Refusal),
}

/// A call's waiting is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Turn {
    /// Whose.
    pub call: CallId,
    /// As in [`Entry::Wait`].
    pub ticket: u64,
    /// Whether it may leave.
    pub outcome: Result<(), Refusal>,
}

/// Who asks to leave, and when.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The call.
    pub call: CallId,
    /// How many calls the trunk carries now.
    pub running: u32,
    /// Whether there is nobody else to be called, so that waiting is better than going on.
    pub may_wait: bool,
}

/// One trunk's gate.
#[derive(Debug, Default)]
pub struct Gate {
    pacing: Pacing,
    /// When the last calls left; no more of them than the rate counts.
    left: VecDeque<Instant>,
    queue: VecDeque<Waiting>,
    tickets: u64,
}

impl Gate {
    /// Takes the configuration; who waits keeps the place and the patience.
    pub fn configure(&mut self, pacing: Pacing) {
        self.pacing = pacing;
    }

    /// Returns how many calls wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Returns when the last calls left, as far as the rate asks.
    pub fn departures(&self) -> impl Iterator<Item = Instant> {
        self.left.iter().copied()
    }

    /// Lets a call out, or has it wait.
    pub fn enter(&mut self, asking: Asking, now: Instant) -> Entry {
        let full = self.has_room(asking.running).err();
        let reason = full.or_else(|| {
            let is_free = self.free_at().is_none_or(|at| at <= now) && self.queue.is_empty();
            (!is_free).then_some(Refusal::Rate)
        });
        let Some(reason) = reason else {
            self.count(now);
            return Entry::Go;
        };
        let Some(patience) = self.pacing.queue_for.filter(|_| asking.may_wait) else {
            return Entry::Refused(reason);
        };
        if self.queue.len() >= usize::from(self.pacing.queue_max) {
            return Entry::Refused(Refusal::QueueFull(self.queue.len()));
        }
        self.tickets = self.tickets.wrapping_add(1);
        let ticket = self.tickets;
        let (call, until) = (asking.call, now + patience);
        self.queue.push_back(Waiting { call, ticket, since: now, until });
        Entry::Wait(ticket)
    }

    /// Counts a call that leaves whatever there is: an emergency call, or one that left another process, of which
    /// we may hear later.
    pub fn count(&mut self, now: Instant) {
        let Some(rate) = self.pacing.rate else { return self.left.clear() };
        let at = self.left.partition_point(|left| *left <= now);
        self.left.insert(at, now);
        while self.left.len() > usize::from(rate.calls) {
            self.left.pop_front();
        }
    }

    /// A call waits no longer.
    pub fn leave(&mut self, call: CallId) {
        self.queue.retain(|waiting| waiting.call != call);
    }

    /// Returns the next call whose waiting is over.
    pub fn next_turn(&mut self, running: u32, now: Instant) -> Option<Turn> {
        let late = self.queue.iter().position(|waiting| waiting.until <= now);
        if let Some(late) = late.and_then(|late| self.queue.remove(late)) {
            let waited = now.saturating_duration_since(late.since);
            let outcome = Err(Refusal::WaitedTooLong(waited));
            return Some(Turn { call: late.call, ticket: late.ticket, outcome });
        }
        let is_free = self.free_at().is_none_or(|at| at <= now);
        if !is_free || self.has_room(running).is_err() {
            return None;
        }
        let first = self.queue.pop_front()?;
        self.count(now);
        Some(Turn { call: first.call, ticket: first.ticket, outcome: Ok(()) })
    }

    /// Returns when [`Self::next_turn`] has something to say.
    pub fn poll_timeout(&self, running: u32) -> Option<Instant> {
        let late = self.queue.iter().map(|waiting| waiting.until).min()?;
        let first = self.queue.front()?.since;
        let turn = self.free_at().map_or(first, |at| at.max(first));
        Some(if self.has_room(running).is_ok() { late.min(turn) } else { late })
    }

    fn has_room(&self, running: u32) -> Result<(), Refusal> {
        match self.pacing.calls_max {
            Some(max) if running >= max => Err(Refusal::TrunkFull(max)),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns when the rate lets the next call out; `None`: any time.
    fn free_at(&self) -> Option<Instant> {
        let rate = self.pacing.rate?;
        let count = usize::from(rate.calls);
        let oldest = self.left.len().checked_sub(count)?;
        self.left.get(oldest).map(|left| *left + rate.per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn call(n: u64) -> CallId {
        CallId::new(ShardId(0), n)
    }

    fn gate(rate: &str, calls_max: Option<u32>, queue_for_s: u64, queue_max: u16) -> Gate {
        let queue_for = Some(Duration::from_secs(queue_for_s)).filter(|wait| !wait.is_zero());
        let mut gate = Gate::default();
        gate.configure(Pacing { rate: Rate::parse(rate), calls_max, queue_for, queue_max });
        gate
    }

    fn asking(n: u64, running: u32) -> Asking {
        Asking { call: call(n), running, may_wait: true }
    }

    #[test]
    fn rates_are_read() {
        for (text, want) in [
            ("1/s", Some((1, 1))),
            ("30/m", Some((30, 60))),
            ("1000/s", Some((1000, 1))),
            ("0/s", None),
            ("1001/s", None),
            ("5", None),
            ("5/h", None),
            ("-1/s", None),
        ] {
            let rate = Rate::parse(text);
            assert_eq!(rate.map(|rate| (rate.calls, rate.per.as_secs())), want, "{text}");
            if let Some(rate) = rate {
                assert_eq!(rate.to_string(), text);
            }
        }
    }

    /// Twelve calls at once leave three in each second, in their order, and nobody overtakes.
    #[test]
    fn calls_leave_in_order_and_never_too_many_in_any_span() {
        let start = crate::sim::epoch();
        let mut gate = gate("3/s", None, 30, 100);
        let mut left: Vec<(u64, u128)> = vec![];
        for n in 1..=12 {
            if gate.enter(asking(n, 0), start) == Entry::Go {
                left.push((n, 0));
            }
        }
        assert_eq!(left.len(), 3);
        while let Some(at) = gate.poll_timeout(0) {
            while let Some(turn) = gate.next_turn(0, at) {
                assert_eq!(turn.outcome, Ok(()));
                left.push((turn.ticket + 3, (at - start).as_millis()));
            }
        }
        let want: Vec<_> = (1..=12).map(|n| (n, u128::from((n - 1) / 3) * 1000)).collect();
        assert_eq!(left, want);
    }

    #[test]
    fn a_late_call_does_not_overtake_and_an_emergency_does() {
        let start = crate::sim::epoch();
        let mut gate = gate("1/s", None, 30, 100);
        assert_eq!(gate.enter(asking(1, 0), start), Entry::Go);
        assert_eq!(gate.enter(asking(2, 0), start), Entry::Wait(1));
        // The second is over, but the other was there before.
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.enter(asking(3, 0), later), Entry::Wait(2));
        gate.count(later);
        assert_eq!(gate.next_turn(0, later), None);
        assert_eq!(gate.poll_timeout(0), Some(later + Duration::from_secs(1)));
        let turn = gate.next_turn(0, later + Duration::from_secs(1)).unwrap();
        assert_eq!((turn.ticket, turn.outcome), (1, Ok(())));
    }

    /// One that left another process before ours is heard of after it.
    #[test]
    fn who_is_heard_of_late_is_counted_where_it_left() {
        let start = crate::sim::epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let mut gate = gate("2/s", None, 0, 0);
        assert_eq!(gate.enter(asking(1, 0), at(500)), Entry::Go);
        gate.count(at(100));
        assert_eq!(gate.enter(asking(2, 0), at(1099)), Entry::Refused(Refusal::Rate));
        assert_eq!(gate.enter(asking(2, 0), at(1100)), Entry::Go);
    }

    #[test]
    fn calls_wait_for_room_and_not_for_ever() {
        let start = crate::sim::epoch();
        let mut gate = gate("", Some(1), 5, 2);
        assert_eq!(gate.enter(asking(1, 0), start), Entry::Go);
        assert_eq!(gate.enter(asking(2, 1), start), Entry::Wait(1));
        let later = start + Duration::from_secs(2);
        assert_eq!(gate.enter(asking(3, 1), later), Entry::Wait(2));
        assert_eq!(gate.enter(asking(4, 1), later), Entry::Refused(Refusal::QueueFull(2)));
        let impatient = Asking { may_wait: false, ..asking(4, 1) };
        assert_eq!(gate.enter(impatient, later), Entry::Refused(Refusal::TrunkFull(1)));
        // Nothing happens before the first has waited long enough.
        assert_eq!(gate.poll_timeout(1), Some(start + Duration::from_secs(5)));
        let turn = gate.next_turn(1, start + Duration::from_secs(5)).unwrap();
        assert_eq!(turn.outcome, Err(Refusal::WaitedTooLong(Duration::from_secs(5))));
        // Then there is room: at once.
        assert_eq!(gate.poll_timeout(0), Some(later));
        assert_eq!(gate.next_turn(0, later + Duration::from_secs(4)).unwrap().outcome, Ok(()));
        assert_eq!((gate.poll_timeout(0), gate.waiting()), (None, 0));
    }

    #[test]
    fn who_gives_up_leaves_the_queue() {
        let start = crate::sim::epoch();
        let mut gate = gate("1/m", None, 30, 5);
        assert_eq!(gate.enter(asking(1, 0), start), Entry::Go);
        assert_eq!(gate.enter(asking(2, 0), start), Entry::Wait(1));
        gate.leave(call(2));
        assert_eq!((gate.waiting(), gate.poll_timeout(0)), (0, None));
    }

    #[test]
    fn without_a_queue_what_is_too_fast_is_refused() {
        let start = crate::sim::epoch();
        let mut gate = gate("1/s", None, 0, 5);
        assert_eq!(gate.enter(asking(1, 0), start), Entry::Go);
        assert_eq!(gate.enter(asking(2, 0), start), Entry::Refused(Refusal::Rate));
        assert_eq!(gate.enter(asking(2, 0), start + Duration::from_secs(1)), Entry::Go);
    }
}
