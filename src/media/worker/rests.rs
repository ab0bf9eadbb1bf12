//! Ports of legs that are closed, kept open for the next leg while many come and go: to open and to close
//! a socket costs more than all else that a short call asks of a worker.
//!
//! Owns: which of them there are, since when, and when the next leg may have one.
//! Never: gives one to a leg before its last one's stragglers have had their time, or one to which somebody
//! still sends.

use super::{Action, Slot, Worker, legs::Opening};
use crate::ids::LegId;
use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

/// For so long legs are counted before the rate is believed.
const COUNTED_FOR: Duration = Duration::from_millis(100);
/// Fewer legs in that time are not worth it: then each has ports that rested long.
const OPENED_MIN: u32 = 20;
/// So long a port must have heard nothing before the next leg has it: ten packets of somebody who goes on.
const QUIET_FOR: Duration = Duration::from_millis(200);
/// After so long it is closed.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// Each is a descriptor: so many legs end in 200 ms where 5,000 calls a second do.
const KEPT_MAX: usize = 2048;
/// Among so many is looked for one at the right address.
const LOOKED_AT: usize = 8;

/// A port that is nobody's and open.
#[derive(Clone, Copy, Debug)]
struct Rest {
    slot: usize,
    ip: IpAddr,
    port: u16,
    since: Instant,
}

/// The ports that rest, the longest first.
#[derive(Debug, Default)]
pub(super) struct Rests {
    queue: VecDeque<Rest>,
    /// By slot: at which address its port was bound.
    places: Vec<Option<IpAddr>>,
    counted_since: Option<Instant>,
    opened: u32,
    is_busy: bool,
}

impl Rests {
    /// Notes that a leg is wanted.
    fn count(&mut self, now: Instant) {
        let since = *self.counted_since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= COUNTED_FOR {
            let is_rate = elapsed < COUNTED_FOR.saturating_mul(2);
            self.is_busy = is_rate && self.opened >= OPENED_MIN;
            (self.counted_since, self.opened) = (Some(now), 0);
        }
        self.opened = self.opened.saturating_add(1);
    }

    /// Returns whether the next leg will come soon.
    fn is_worth_it(&self, now: Instant) -> bool {
        let lately =
            self.counted_since.and_then(|at| at.checked_add(COUNTED_FOR.saturating_mul(2)));
        self.is_busy && self.len() < KEPT_MAX && lately.is_some_and(|until| now < until)
    }

    /// Returns which of the first has rested long enough at that address.
    fn quiet_at(&self, ip: IpAddr, now: Instant) -> Option<usize> {
        let is_quiet = |rest: &&Rest| now.saturating_duration_since(rest.since) >= QUIET_FOR;
        let mut quiet = self.queue.iter().take(LOOKED_AT).take_while(is_quiet);
        quiet.position(|rest| rest.ip == ip)
    }

    /// Notes where a port was bound.
    pub(super) fn note_place(&mut self, slot: usize, ip: IpAddr) {
        if self.places.len() <= slot {
            self.places.resize(slot.saturating_add(1), None);
        }
        if let Some(place) = self.places.get_mut(slot) {
            *place = Some(ip);
        }
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Returns when the first is to be closed.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.queue.front()?.since.checked_add(KEPT_FOR)
    }
}

impl Worker {
    /// Gives a leg a port at that address that has rested long enough, where there is one.
    pub(super) fn open_rested(&mut self, id: LegId, ip: IpAddr, now: Instant) -> bool {
        self.rests.count(now);
        while let Some(n) = self.rests.quiet_at(ip, now) {
            let Some(Rest { slot, port, .. }) = self.rests.queue.remove(n) else { return false };
            if self.was_disturbed(slot) {
                self.close_rested(slot, port);
                continue;
            }
            self.by_id.insert(id, slot);
            self.put(slot, Slot::Opening(Box::new(Opening::again(id, ip, port))));
            self.actions.push_back(Action::Reuse { slot });
            return true;
        }
        false
    }

    /// Keeps the port of a leg that was open in this slot; returns false where that is not worth it.
    pub(super) fn rest(&mut self, slot: usize, port: u16, now: Instant) -> bool {
        let Some(Some(ip)) = self.rests.places.get(slot).copied() else { return false };
        if !self.rests.is_worth_it(now) {
            return false;
        }
        self.rests.queue.push_back(Rest { slot, ip, port, since: now });
        self.put(slot, Slot::Resting { was_disturbed: false });
        self.actions.push_back(Action::Rest { slot });
        true
    }

    /// Somebody sends to a port that is nobody's: it will be closed.
    pub(super) fn disturb(&mut self, slot: usize) {
        if let Some(Slot::Resting { was_disturbed }) = self.slots.get_mut(slot) {
            *was_disturbed = true;
        }
    }

    fn was_disturbed(&self, slot: usize) -> bool {
        !matches!(self.slots.get(slot), Some(Slot::Resting { was_disturbed: false }))
    }

    /// Closes the ports that nobody has needed for long enough.
    pub(super) fn close_unneeded(&mut self, now: Instant) {
        while self.rests.poll_timeout().is_some_and(|at| at <= now) {
            self.close_oldest();
        }
    }

    /// Closes the port that has rested longest, so that its pair is free.
    pub(super) fn close_oldest(&mut self) {
        if let Some(Rest { slot, port, .. }) = self.rests.queue.pop_front() {
            self.close_rested(slot, port);
        }
    }

    fn close_rested(&mut self, slot: usize, port: u16) {
        self.ports.give_back(port);
        self.actions.push_back(Action::Unbind { slot });
        self.put(slot, Slot::Free);
        self.free.push(slot);
    }
}
