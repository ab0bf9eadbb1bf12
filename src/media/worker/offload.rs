//! Which directions of which relays somebody else may carry, and what becomes of them here meanwhile.
//!
//! Owns: the conditions; how a carrier's counts become ours.
//! Never: knows who carries.

use super::{Action, Slot, Worker};
use crate::media::{
    command::Command,
    discard::Discard,
    latch::plain,
    leg::Leg,
    offload::{Flow, Numbers, Progress, WINDOW, v4},
    outlet::Feed,
    path::{Convert, Hop, PathMap},
    player::Player,
    rtp,
};
use std::net::{SocketAddr, SocketAddrV4};

/// The first byte of a header without padding, extension and contributing sources.
const PLAIN: u8 = 0x80;
/// The fixed part of a header.
const HEADER_LEN: u64 = 12;

impl Worker {
    /// Notes that a packet was relayed, and asks for a carrier when there were enough plain ones.
    pub(super) fn note_turn(&mut self, slot: usize, from: SocketAddr, header: Option<[u8; 2]>) {
        let payload_type = match header {
            Some([PLAIN, kind]) => Some(kind & 0x7f),
            Some(_) | None => None,
        };
        let Some(leg) = self.leg_mut(slot) else { return };
        if leg.turns.note(from, payload_type) {
            self.actions.push_back(Action::Offload { slot });
        }
    }

    /// Returns what somebody who is to carry this leg's packets must know; `None` where nobody else
    /// should. What it says holds until the worker is given something.
    pub fn flow(&self, slot: usize) -> Option<Flow> {
        let join = self.joins.get(slot)?.as_ref()?;
        let (leg, other) = (self.open_leg(slot)?, self.open_leg(join.to)?);
        leg.flow_to(slot, other, &join.path)
    }

    /// Somebody carries the flow from now on.
    pub fn offloaded(&mut self, flow: &Flow) {
        if let Some(leg) = self.leg_mut(flow.slot) {
            leg.turns.hand_over(flow.progress);
        }
    }

    /// Nobody carries this leg's packets, after [`Action::Offload`].
    pub fn not_offloaded(&mut self, slot: usize) {
        if let Some(leg) = self.leg_mut(slot) {
            leg.turns.put_off();
        }
    }

    /// Takes note of how far a carrier has come with this leg's packets.
    pub fn absorb(&mut self, slot: usize, progress: &Progress) {
        let Some(to) = self.joined_with(slot) else { return };
        let Some(leg) = self.leg_mut(slot) else { return };
        let Some(news) = leg.turns.advance(progress) else { return };
        let tally = news.tally;
        leg.discards.add_many(Discard::Duplicate, tally.duplicates);
        let run = leg.inlet.absorb(progress, &news);
        if tally.packets > 0 {
            leg.silent_since = leg.silent_since.map(|since| since.max(progress.heard_at));
        }
        let feed = Feed::Relayed(leg.id, run);
        if let Some(other) = self.leg_mut(to) {
            other.outlet.absorb(feed, progress, &news);
        }
        if tally.packets > 0 {
            self.stir(slot, progress.heard_at);
            self.stir(to, progress.heard_at);
        }
        let counters = &mut self.counters;
        let bytes = tally.octets.saturating_add(tally.packets.saturating_mul(HEADER_LEN));
        counters.relayed = counters.relayed.saturating_add(tally.packets);
        counters.relayed_bytes = counters.relayed_bytes.saturating_add(bytes);
        counters.offloaded = counters.offloaded.saturating_add(tally.packets);
    }

    /// Nobody carries this leg's packets any more. What had come was [absorbed](Self::absorb).
    pub fn reclaimed(&mut self, slot: usize) {
        if let Some(leg) = self.leg_mut(slot) {
            leg.turns.take_back();
        }
    }

    /// Returns whose packets a carrier must give back before this command is carried out.
    pub fn disturbed_by(&self, command: &Command) -> impl Iterator<Item = usize> {
        let legs = [Some(command.leg()), command.second_leg()];
        let [a, b] = legs.map(|leg| self.by_id.get(&leg?).copied());
        let [c, d] = [a, b].map(|slot| self.joined_with(slot?));
        let is_carried =
            |slot: &usize| self.open_leg(*slot).is_some_and(|leg| leg.turns.is_carried());
        let carried = [a, b, c, d].map(|slot| slot.filter(is_carried));
        carried.into_iter().flatten()
    }

    /// Returns whether a carrier must give this leg's packets back before this one of its peer is taken:
    /// it is one that will count.
    pub fn is_disturbed_by(&self, slot: usize, from: SocketAddr, packet: &[u8]) -> bool {
        let Some(leg) = self.open_leg(slot).filter(|leg| leg.turns.is_carried()) else {
            return false;
        };
        let is_expected =
            |remote| leg.source.expects(remote, plain(from)).is_ok() && rtp::read(packet).is_ok();
        leg.remote.as_ref().is_some_and(is_expected)
    }

    /// Begins to count plain packets anew, after a command.
    pub(super) fn restart_turns(&mut self, command: &Command) {
        let slots = [Some(command.leg()), command.second_leg()];
        for slot in slots.map(|leg| self.by_id.get(&leg?).copied()).into_iter().flatten() {
            for slot in [Some(slot), self.joined_with(slot)].into_iter().flatten() {
                if let Some(leg) = self.leg_mut(slot) {
                    leg.turns.restart();
                }
            }
        }
    }

    fn open_leg(&self, slot: usize) -> Option<&Leg> {
        match self.slots.get(slot)? {
            Slot::Open(leg) => Some(leg),
            Slot::Free | Slot::Opening(_) | Slot::Resting { .. } => None,
        }
    }
}

impl Leg {
    /// The flow from this leg's peer to the other's.
    fn flow_to(&self, slot: usize, other: &Self, path: &PathMap) -> Option<Flow> {
        let (from, payload_type) = self.turns.last()?;
        let is_calm = |leg: &Self| !leg.is_held && !leg.is_unheard && !leg.link.is_secure();
        let is_echo = matches!(self.player, Player::Echo);
        let hears = self.remote.as_ref().is_some_and(|remote| remote.receives);
        let is_pressed = self.listener.poll_timeout().is_some();
        let is_fit = is_calm(self) && is_calm(other) && hears && !is_echo && !is_pressed;
        let is_listening = !other.is_busy() && other.keypad.poll_timeout().is_none();
        if !is_fit || !is_listening || self.turns.is_carried() {
            return None;
        }
        let payload_types = self.carriable(path);
        payload_types.get(usize::from(payload_type)).copied().flatten()?;
        let (run, ssrc_in, progress) = self.inlet.position()?;
        let feed = Feed::Relayed(self.id, run);
        let (sequence_offset, timestamp_offset) = other.outlet.offsets(feed, WINDOW)?;
        let clock_rate_hz = self.stream?.clock_rate;
        let ssrc_out = other.outlet.ssrc().0;
        Some(Flow {
            slot,
            peer: from,
            local: self.local()?,
            source: other.local()?,
            target: v4(other.destination().ok()?)?,
            numbers: Numbers {
                ssrc_in: ssrc_in.0,
                ssrc_out,
                sequence_offset,
                timestamp_offset,
                clock_rate_hz,
            },
            payload_types,
            progress,
        })
    }

    fn local(&self) -> Option<SocketAddrV4> {
        Some(SocketAddrV4::new(self.ipv4?, self.port))
    }

    /// What passes unread: not digits, which are heard, and nothing that is transcoded.
    fn carriable(&self, path: &PathMap) -> Box<[Option<u8>; 128]> {
        let digits = self.telephone_events().map(|events| events.receive);
        let mut payload_types = Box::new([None; 128]);
        for (from, to) in (0_u8..).zip(payload_types.iter_mut()) {
            *to = match path.hop(from) {
                Some(Hop { payload_type, convert: Convert::Keep }) if digits != Some(from) => {
                    Some(payload_type)
                }
                Some(_) | None => None,
            };
        }
        payload_types
    }
}
