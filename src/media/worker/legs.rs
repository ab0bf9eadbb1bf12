//! Legs come, are joined, and go.
//!
//! Owns: which pair a leg being opened tries; what follows from closing one.
//! Never: meets a packet.

use super::{Action, Join, Slot, Worker};
use crate::{
    ids::LegId,
    media::{
        command::{Event, OpenRefusal, Remote, Stream},
        leg::{Leg, RtcpPort},
        path::PathMap,
        player::Player,
        ports::Pair,
        quality::Quality,
        srtp::Keys,
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

/// Pairs tried where other programs hold some of the range.
const BIND_TRIES: u8 = 8;

/// Where a peer is, what was agreed with it, and under which keys.
type Agreed = (Remote, Stream, Option<Box<Keys>>);

/// A leg being opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    id: LegId,
    ip: IpAddr,
    port: u16,
    with_rtcp: bool,
    tries: u8,
}

impl Opening {
    /// Opens a leg at a port that is bound already.
    pub(super) fn again(id: LegId, ip: IpAddr, port: u16) -> Self {
        Self { id, ip, port, with_rtcp: false, tries: 0 }
    }
}

impl Worker {
    pub(super) fn open(&mut self, id: LegId, ip: IpAddr, now: Instant) {
        if self.by_id.contains_key(&id) {
            return self.refuse(id, OpenRefusal::AlreadyOpen);
        }
        if self.open_rested(id, ip, now) {
            return;
        }
        if self.ports.free() == 0 {
            self.close_oldest();
        }
        let Some(Pair { port, with_rtcp }) = self.ports.take() else {
            return self.refuse(id, OpenRefusal::PortsExhausted);
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.joins.push(None);
            self.slots.len().saturating_sub(1)
        });
        self.by_id.insert(id, slot);
        self.bind(slot, Opening { id, ip, port, with_rtcp, tries: 1 });
    }

    fn bind(&mut self, slot: usize, opening: Opening) {
        self.put(slot, Slot::Opening(Box::new(opening)));
        let Opening { ip, port, with_rtcp, .. } = opening;
        self.actions.push_back(Action::Bind { slot, ip, port, with_rtcp });
    }

    /// Gives a leg another name.
    pub(super) fn rename(&mut self, from: LegId, leg: LegId) {
        if self.by_id.contains_key(&leg) {
            return;
        }
        let Some(slot) = self.by_id.remove(&from) else {
            self.events.push_back(Event::Silent { leg });
            return self.events.push_back(Event::Closed { leg, quality: Box::default() });
        };
        self.by_id.insert(leg, slot);
        match self.slots.get_mut(slot) {
            Some(Slot::Open(open)) => open.id = leg,
            Some(Slot::Opening(opening)) => opening.id = leg,
            Some(Slot::Free | Slot::Resting { .. }) | None => {
                debug_assert!(false, "{leg} has no slot");
            }
        }
    }

    fn refuse(&mut self, leg: LegId, refusal: OpenRefusal) {
        self.counters.open_failures = self.counters.open_failures.saturating_add(1);
        self.events.push_back(Event::OpenFailed { leg, refusal });
    }

    /// Learns whether a pair could be bound; another is tried where it could not.
    pub fn bound(&mut self, slot: usize, is_bound: bool, now: Instant) {
        let Some(Slot::Opening(opening)) = self.slots.get(slot) else { return };
        let opening = **opening;
        self.origin.get_or_insert(now);
        if is_bound {
            self.rests.note_place(slot, opening.ip);
            let local = SocketAddr::new(opening.ip, opening.port);
            let mut leg = Leg::new(opening.id, local, &mut self.entropy, now);
            if opening.with_rtcp {
                leg.rtcp_port = RtcpPort::Bound;
            }
            self.put(slot, Slot::Open(Box::new(leg)));
            self.events.push_back(Event::Opened { leg: opening.id, port: opening.port });
            return;
        }
        // Another program has it; it goes to the end of the queue.
        self.ports.give_back_bad(opening.port);
        let next = if opening.tries < BIND_TRIES { self.ports.take() } else { None };
        match next {
            Some(Pair { port, with_rtcp }) => {
                let tries = opening.tries.saturating_add(1);
                self.bind(slot, Opening { port, with_rtcp, tries, ..opening });
            }
            None => {
                self.release(slot, opening.id);
                self.refuse(opening.id, OpenRefusal::CannotBind);
            }
        }
    }

    /// Asks for a leg's RTCP port, where it has none yet.
    pub(super) fn want_rtcp(&mut self, slot: usize) {
        let Some(leg) = self.leg_mut(slot) else { return };
        if leg.rtcp_port == RtcpPort::Waiting {
            leg.rtcp_port = RtcpPort::Asked;
            self.actions.push_back(Action::BindRtcp { slot });
        }
    }

    /// Learns whether the RTCP port could be bound. Without it there are no reports, which the next
    /// leg with this pair is spared.
    pub fn bound_rtcp(&mut self, slot: usize, is_bound: bool) {
        if let Some(leg) = self.leg_mut(slot) {
            leg.rtcp_port = if is_bound { RtcpPort::Bound } else { RtcpPort::Taken };
        }
    }

    pub(super) fn close(&mut self, id: LegId, now: Instant) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        let (port, is_open, is_bad, quality) = match self.slots.get(slot) {
            Some(Slot::Open(leg)) => {
                self.discards.merge(&leg.discards);
                let is_bad = leg.rtcp_port == RtcpPort::Taken;
                (leg.port, true, is_bad, leg.quality())
            }
            Some(Slot::Opening(opening)) => (opening.port, false, false, Quality::default()),
            Some(Slot::Free | Slot::Resting { .. }) | None => {
                debug_assert!(false, "{id} has no slot");
                return;
            }
        };
        self.vacate(slot, id);
        let rests = is_open && !is_bad && self.rest(slot, port, now);
        if !rests {
            if is_bad {
                self.ports.give_back_bad(port);
            } else {
                self.ports.give_back(port);
            }
            self.actions.push_back(Action::Unbind { slot });
            self.free.push(slot);
        }
        self.events.push_back(Event::Closed { leg: id, quality: Box::new(quality) });
    }

    /// Learns where a peer is, and what was agreed with it. Whoever sends from there is welcome.
    pub(super) fn aim(&mut self, id: LegId, agreed: Agreed, now: Instant) {
        let Some(slot) = self.by_id.get(&id).copied() else { return };
        let (remote, stream, keys) = agreed;
        let random = if keys.is_some() { self.entropy.next_u64() } else { 0 };
        let until = now.checked_add(self.settings.unanswered);
        let Some(leg) = self.leg_mut(slot) else { return };
        if leg.link.aim(keys) {
            leg.outlet.renew(random);
        }
        leg.aim(remote, stream, until, now);
        self.disconnect(slot);
        self.arm(slot);
    }

    /// Lets everybody through again, where only one was.
    pub(super) fn disconnect(&mut self, slot: usize) {
        let is_connected = self.leg_mut(slot).is_some_and(|leg| leg.bond.untie());
        if is_connected {
            self.actions.push_back(Action::Disconnect { slot });
        }
    }

    fn release(&mut self, slot: usize, id: LegId) {
        self.vacate(slot, id);
        self.free.push(slot);
    }

    fn vacate(&mut self, slot: usize, id: LegId) {
        self.separate(slot);
        self.timers.arm(slot, None);
        self.by_id.remove(&id);
        self.put(slot, Slot::Free);
    }

    pub(super) fn put(&mut self, slot: usize, value: Slot) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = value;
        }
    }

    pub(super) fn bridge(&mut self, (a, a_to_b): (LegId, PathMap), (b, b_to_a): (LegId, PathMap)) {
        let (Some(a), Some(b)) = (self.by_id.get(&a).copied(), self.by_id.get(&b).copied()) else {
            return;
        };
        debug_assert!(a != b, "a leg joined with itself is an echo");
        if self.joined_with(a) != Some(b) {
            for slot in [a, b] {
                self.separate(slot);
                if let Some(leg) = self.leg_mut(slot) {
                    leg.player = Player::Off;
                }
            }
        }
        for (slot, to, path) in [(a, b, a_to_b), (b, a, b_to_a)] {
            if let Some(place) = self.joins.get_mut(slot) {
                *place = Some(Join::new(to, path));
            }
        }
    }

    pub(super) fn joined_with(&self, slot: usize) -> Option<usize> {
        self.joins.get(slot)?.as_ref().map(|join| join.to)
    }

    pub(super) fn separate(&mut self, slot: usize) {
        let Some(to) = self.joined_with(slot) else { return };
        for slot in [slot, to] {
            if let Some(place) = self.joins.get_mut(slot) {
                *place = None;
            }
            if let Some(leg) = self.leg_mut(slot) {
                leg.outlet.cut();
            }
        }
    }
}
