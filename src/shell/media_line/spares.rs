//! Legs opened ahead of the calls that will need them, while many come.
//!
//! Owns: how many are worth having at each address, which are ready, when they are let go.
//! Never: speaks to a worker.

use crate::{
    ids::{LegId, ShardId},
    media::Event,
};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

/// The owner of spare legs: no shard has this number.
const NOBODY: ShardId = ShardId(u8::MAX);
/// For so long legs are counted before the rate is believed.
const COUNTED_FOR: Duration = Duration::from_millis(100);
/// Of the legs opened in that time, as many are worth having ready: one in so many.
const SHARE: usize = 4;
/// Fewer are not worth it: at such a rate, a leg of its own for each call costs nobody anything.
const WANTED_MIN: usize = 5;
const WANTED_MAX: usize = 64;
/// Spare legs that nobody needed for so long are closed.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Addresses at which there may be some.
const ADDRESSES_MAX: usize = 8;

/// A leg that is open, and its RTP port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Spare {
    pub(super) leg: LegId,
    pub(super) port: u16,
}

/// The spare legs at one address.
#[derive(Debug)]
struct Shelf {
    ready: VecDeque<Spare>,
    wanted: usize,
    counted_since: Instant,
    opened: usize,
}

/// Returns whether an event is about a spare leg, which no shard knows.
pub(in crate::shell) fn is_spare(leg: LegId) -> bool {
    leg.shard() == NOBODY
}

/// The spare legs of one worker.
#[derive(Debug, Default)]
pub(super) struct Spares {
    shelves: BTreeMap<IpAddr, Shelf>,
    /// Asked for, and where.
    asked: BTreeMap<LegId, IpAddr>,
    serial: u64,
}

impl Spares {
    /// Notes that a leg is needed, and takes one that is ready.
    pub(super) fn take(&mut self, ip: IpAddr, now: Instant) -> Option<Spare> {
        let is_full = self.shelves.len() >= ADDRESSES_MAX;
        if is_full && !self.shelves.contains_key(&ip) {
            return None;
        }
        let shelf = self.shelves.entry(ip).or_insert_with(|| Shelf::new(now));
        shelf.count(now);
        shelf.ready.pop_front()
    }

    /// Takes back what was not needed after all.
    pub(super) fn put_back(&mut self, ip: IpAddr, spare: Spare) {
        if let Some(shelf) = self.shelves.get_mut(&ip) {
            shelf.ready.push_front(spare);
        }
    }

    /// Returns the name of one more leg to open, where more are worth having.
    pub(super) fn lack(&mut self, ip: IpAddr) -> Option<LegId> {
        let asked = self.asked.values().filter(|at| **at == ip).count();
        let shelf = self.shelves.get(&ip)?;
        if shelf.ready.len().saturating_add(asked) >= shelf.wanted {
            return None;
        }
        self.serial = self.serial.wrapping_add(1);
        let leg = LegId::new(NOBODY, self.serial);
        self.asked.insert(leg, ip);
        Some(leg)
    }

    /// Returns whether they run short, so that those that were asked for are needed now.
    pub(super) fn is_short(&self, ip: IpAddr) -> bool {
        self.shelves.get(&ip).is_some_and(|shelf| shelf.ready.len() <= shelf.wanted / 2)
    }

    /// Forgets that one was asked for.
    pub(super) fn not_asked(&mut self, leg: LegId) {
        self.asked.remove(&leg);
    }

    /// Learns what became of one.
    pub(super) fn hear(&mut self, event: &Event) {
        let leg = event.leg();
        let Some(ip) = self.asked.remove(&leg) else {
            // Gone by a bug of ours; one that was closed is not there any more.
            return self.shelves.values_mut().for_each(|s| s.ready.retain(|r| r.leg != leg));
        };
        let Some(shelf) = self.shelves.get_mut(&ip) else { return };
        if let Event::Opened { port, .. } = event {
            shelf.ready.push_back(Spare { leg, port: *port });
        } else {
            shelf.wanted = 0;
        }
    }

    /// Takes one that is not needed any more.
    pub(super) fn surplus(&mut self, now: Instant) -> Option<LegId> {
        let one = self.shelves.values_mut().find_map(|shelf| {
            let kept = if shelf.ends_at() <= now { 0 } else { shelf.wanted };
            if shelf.ready.len() > kept { shelf.ready.pop_front() } else { None }
        });
        if one.is_none() {
            let asked = &self.asked;
            self.shelves.retain(|ip, shelf| {
                shelf.ends_at() > now || asked.values().any(|asked| asked == ip)
            });
        }
        one.map(|spare| spare.leg)
    }

    /// Returns when some may be too many.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let held = self.shelves.values().filter(|shelf| !shelf.ready.is_empty());
        held.map(Shelf::ends_at).min()
    }
}

impl Shelf {
    fn new(now: Instant) -> Self {
        Self { ready: VecDeque::new(), wanted: 0, counted_since: now, opened: 0 }
    }

    fn count(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.counted_since);
        if elapsed >= COUNTED_FOR {
            let is_rate = elapsed < COUNTED_FOR.saturating_mul(2);
            let share = if is_rate { self.opened / SHARE } else { 0 };
            self.wanted = if share < WANTED_MIN { 0 } else { share.min(WANTED_MAX) };
            (self.counted_since, self.opened) = (now, 0);
        }
        self.opened = self.opened.saturating_add(1);
    }

    fn ends_at(&self) -> Instant {
        self.counted_since.checked_add(KEPT_FOR).unwrap_or(self.counted_since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{media::OpenRefusal, sim::epoch};

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Opens a leg each `every`, for as long, with a worker that answers at once; returns how many were
    /// taken from those that were ready, and how many are left.
    fn open(spares: &mut Spares, begin: Instant, every: Duration, count: u32) -> (usize, usize) {
        let mut taken = 0;
        for n in 0..count {
            taken += usize::from(spares.take(HERE, begin + every * n).is_some());
            while let Some(leg) = spares.lack(HERE) {
                assert!(is_spare(leg));
                spares.hear(&Event::Opened { leg, port: 4000 });
            }
        }
        (taken, spares.shelves.values().map(|shelf| shelf.ready.len()).sum())
    }

    #[test]
    fn legs_are_kept_ready_while_many_are_needed() {
        let ms = Duration::from_millis;
        for (every, count, want) in [
            (ms(1), 400, (299, 25)),
            (Duration::from_micros(100), 4000, (2999, WANTED_MAX)),
            (ms(5), 400, (379, 5)),
            (ms(6), 400, (0, 0)),
            (ms(1000), 10, (0, 0)),
        ] {
            let mut spares = Spares::default();
            assert_eq!(open(&mut spares, epoch(), every, count), want, "{every:?}");
        }
    }

    #[test]
    fn what_nobody_needs_is_let_go() {
        let mut spares = Spares::default();
        let (_, left) = open(&mut spares, epoch(), Duration::from_millis(1), 301);
        let end = spares.poll_timeout().expect("some are ready");
        assert_eq!(spares.surplus(end - Duration::from_millis(1)), None);
        let closed: Vec<LegId> = std::iter::from_fn(|| spares.surplus(end)).collect();
        assert_eq!((closed.len(), spares.poll_timeout()), (left, None));
        assert!(spares.shelves.is_empty() && spares.take(HERE, end).is_none());
    }

    #[test]
    fn a_slower_rate_needs_fewer() {
        let mut spares = Spares::default();
        let ms = Duration::from_millis;
        open(&mut spares, epoch(), ms(1), 301);
        let later = epoch() + ms(301);
        let (taken, left) = open(&mut spares, later, ms(30), 8);
        assert_eq!((taken, left), (8, 21), "a new one for each, until the rate is known");
        let closed = std::iter::from_fn(|| spares.surplus(later + ms(240))).count();
        assert_eq!(closed, left);
    }

    #[test]
    fn what_cannot_be_opened_is_not_asked_for_again_and_again() {
        let mut spares = Spares::default();
        open(&mut spares, epoch(), Duration::from_millis(1), 101);
        let spare = spares.take(HERE, epoch() + Duration::from_millis(102)).unwrap();
        let leg = spares.lack(HERE).unwrap();
        spares.hear(&Event::OpenFailed { leg, refusal: OpenRefusal::PortsExhausted });
        assert_eq!(spares.lack(HERE), None);
        spares.put_back(HERE, spare);
        // A thread that begins anew has none of them.
        let ready: Vec<Spare> = spares.shelves[&HERE].ready.iter().copied().collect();
        assert_eq!(ready.first(), Some(&spare));
        for spare in ready {
            spares.hear(&Event::Closed { leg: spare.leg, quality: Box::default() });
        }
        assert_eq!(spares.take(HERE, epoch() + Duration::from_millis(103)), None);
    }
}
