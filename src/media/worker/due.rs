//! What happens because time passes.
//!
//! Owns: which of a leg's deadlines are due, and the packets that are made then.
//! Never: knows when they are due; what waits for something does.

use super::{Channel, Datagram, Worker, next_tick};
use crate::media::{
    command::Event,
    discard::Discard,
    leg::{RtcpPort, Sound},
    player::Player,
    rtcp,
    rtp::{self, DATAGRAM_MAX},
};
use std::{net::SocketAddr, time::Instant};

/// Takes what is to be sent.
type Send<'s> = dyn FnMut(Datagram<'_>) + 's;

impl Worker {
    /// Returns when [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let origin = self.origin;
        let rested = self.rests.poll_timeout().map(|at| origin.map_or(at, |o| next_tick(o, at)));
        [self.timers.next_deadline(), rested].into_iter().flatten().min()
    }

    /// Fires what is due; what is to be sent goes to `send`.
    pub fn handle_timeout(&mut self, now: Instant, send: &mut Send<'_>) {
        while let Some(slot) = self.timers.pop_due(now) {
            self.fire(slot, now, send);
            self.arm(slot);
        }
        self.close_unneeded(now);
    }

    fn fire(&mut self, slot: usize, now: Instant, send: &mut Send<'_>) {
        let silence = self.settings.silence;
        let Some(leg) = self.leg_mut(slot) else { return };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let [keypad, listener, prompt, reports, silent, quiet, unanswered] =
            leg.deadlines(silence).map(is_due);
        if keypad || prompt {
            self.stir(slot, now);
        }
        if keypad {
            self.press(slot, now, send);
        }
        if listener {
            self.release_key(slot, now);
        }
        if prompt {
            self.play_on(slot, now, send);
        }
        if reports {
            self.report(slot, now, send);
        }
        if silent {
            self.tell_silence(slot);
        }
        if quiet {
            self.disconnect(slot);
        }
        if unanswered {
            self.tell_unanswered(slot, now);
        }
    }

    fn press(&mut self, slot: usize, now: Instant, send: &mut Send<'_>) {
        let Some(leg) = self.leg_mut(slot) else { return };
        // Digits are for now: to a peer that does not listen any more they are not sent later.
        let (Some(events), Ok(to)) = (leg.telephone_events(), leg.destination()) else {
            return leg.keypad.clear();
        };
        let (frame, pace) = (leg.frame(), leg.pace_of_events(events));
        let Some(tick) = leg.keypad.tick(frame, events.clock_rate, now) else { return };
        let header = leg.outlet.interrupt(events.send, tick.onset, pace, now);
        leg.outlet.count(tick.payload.len());
        let mut buffer = [0; 64];
        let len = rtp::build(&header, &tick.payload, &mut buffer);
        let sealed = leg.seal_rtp(&mut buffer, len);
        self.send_own(slot, to, sealed, send);
    }

    /// Sends an RTP packet of our own making.
    fn send_own(
        &mut self,
        slot: usize,
        to: SocketAddr,
        packet: Result<&mut [u8], Discard>,
        send: &mut Send<'_>,
    ) {
        match packet {
            Ok(packet) => {
                send(Datagram { slot, channel: Channel::Rtp, to, packet });
                self.counters.generated = self.counters.generated.saturating_add(1);
            }
            Err(reason) => self.discard(slot, reason),
        }
    }

    fn release_key(&mut self, slot: usize, now: Instant) {
        let Some(leg) = self.leg_mut(slot) else { return };
        let clock_rate = leg.telephone_events().map_or(8000, |events| events.clock_rate);
        let id = leg.id;
        if let Some(key) = leg.listener.handle_timeout(clock_rate, now) {
            self.tell_of_peer(key.told_of(id));
        }
    }

    fn play_on(&mut self, slot: usize, now: Instant, send: &mut Send<'_>) {
        let Some(leg) = self.leg_mut(slot) else { return };
        let id = leg.id;
        let mut buffer = [0; DATAGRAM_MAX];
        match leg.next_of_prompt(&mut buffer, now) {
            Sound::Packet { to, len } => {
                let sealed = leg.seal_rtp(&mut buffer, len);
                self.send_own(slot, to, sealed, send);
            }
            Sound::Withheld => {}
            Sound::Over => {
                if let Player::Prompt(played) = std::mem::replace(&mut leg.player, Player::Off) {
                    self.events.push_back(Event::Played { leg: id, token: played.token });
                }
            }
        }
    }

    fn report(&mut self, slot: usize, now: Instant, send: &mut Send<'_>) {
        self.want_rtcp(slot);
        let random = self.entropy.next_u64();
        let Some(leg) = self.leg_mut(slot).filter(|leg| leg.reports.next_at <= now) else { return };
        let may = leg.rtcp_port == RtcpPort::Bound && !leg.is_withheld();
        let remote = leg.remote.as_ref().filter(|_| may);
        let to = remote.and_then(|remote| leg.source.rtcp_destination(remote));
        let clock_rate = leg.stream.map_or(8000, |stream| stream.clock_rate);
        let (packets, octets) = leg.outlet.sent();
        let timestamp = leg.outlet.timestamp_at(clock_rate, now);
        let sent = rtcp::Sent { ssrc: leg.outlet.ssrc(), timestamp, packets, octets };
        let received = leg.inlet.report();
        let mut buffer = [0; 256];
        let len = leg.reports.write(sent, received, &mut buffer, (random, now));
        let moved = packets.saturating_add(leg.inlet.measured().packets);
        leg.is_resting = leg.reports.rest(moved, (random, now));
        let len = leg.link.seal_rtcp(&mut buffer, len).unwrap_or(0);
        if let (Some(to), Some(packet @ [_, ..])) = (to, buffer.get(..len)) {
            send(Datagram { slot, channel: Channel::Rtcp, to, packet });
            self.counters.reports = self.counters.reports.saturating_add(1);
        }
    }

    /// Sees to it that a leg with something to tell does so soon.
    pub(super) fn stir(&mut self, slot: usize, now: Instant) {
        if self.leg_mut(slot).is_some_and(|leg| std::mem::take(&mut leg.is_resting)) {
            let random = self.entropy.next_u64();
            let until = now.checked_add(self.settings.unanswered);
            if let Some(leg) = self.leg_mut(slot) {
                leg.reports.hurry((random, now));
                leg.consent.as_mut().into_iter().for_each(|consent| consent.sent(until));
            }
            self.arm(slot);
        }
    }

    fn tell_unanswered(&mut self, slot: usize, now: Instant) {
        let Some(leg) = self.leg_mut(slot) else { return };
        let (Some(remote), Some(consent)) = (&leg.remote, &mut leg.consent) else { return };
        let (to, leg) = (remote.rtp, leg.id);
        if consent.handle_timeout(now) {
            self.events.push_back(Event::Unanswered { leg, to });
        }
    }

    fn tell_silence(&mut self, slot: usize) {
        let Some(leg) = self.leg_mut(slot) else { return };
        leg.silent_since = None;
        let leg = leg.id;
        self.counters.silences = self.counters.silences.saturating_add(1);
        self.events.push_back(Event::Silent { leg });
    }
}
