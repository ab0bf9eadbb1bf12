//! What happens to a packet that comes in.
//!
//! Owns: the way of a packet from one leg to the other; nothing on it allocates, locks or logs.
//! Never: makes a packet of its own.

use super::{Action, Channel, Datagram, Slot, Worker};
use crate::media::{
    codec,
    command::Event,
    discard::Discard,
    latch::plain,
    leg::{Arrival, Leg},
    outlet::Feed,
    path::{Convert, Hop},
    player::Player,
    rtp::{self, Header},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

impl Worker {
    /// Takes the RTP packet of a leg's peer in `buffer[..len]`. What is to be sent is rewritten in place;
    /// where it is encrypted, it needs room for [`TRAILER_MAX`](crate::media::srtp::TRAILER_MAX) more.
    pub fn handle_rtp<'p>(
        &mut self,
        slot: usize,
        from: SocketAddr,
        (buffer, len): (&'p mut [u8], usize),
        now: Instant,
    ) -> Option<Datagram<'p>> {
        match self.forward(slot, plain(from), (&mut *buffer, len), now) {
            Ok((slot, to, len)) => {
                let packet = buffer.get(..len)?;
                Some(Datagram { slot, channel: Channel::Rtp, to, packet })
            }
            Err(reason) => {
                self.disturb(slot);
                self.discard(slot, reason);
                None
            }
        }
    }

    fn forward(
        &mut self,
        slot: usize,
        from: SocketAddr,
        (buffer, len): (&mut [u8], usize),
        now: Instant,
    ) -> Result<(usize, SocketAddr, usize), Discard> {
        let leg = self.leg_mut(slot).ok_or(Discard::TooEarly)?;
        let packet = buffer.get_mut(..len).ok_or(Discard::TooLong)?;
        let arrival = leg.accept(packet, from, now)?;
        let (id, is_first) = (leg.id, std::mem::take(&mut leg.is_unheard));
        let is_listening = |leg: &Leg| arrival.is_event && leg.listener.poll_timeout().is_some();
        let was_listening = is_listening(leg);
        let settled = leg.settle(from, now);
        let released = leg.hear(&arrival, packet, now);
        let began_to_listen = is_listening(leg) && !was_listening;
        let is_echo = matches!(leg.player, Player::Echo);
        let was_resting = leg.is_resting;
        if is_first {
            let other = self.joined_with(slot);
            [Some(slot), other].into_iter().flatten().for_each(|slot| self.want_rtcp(slot));
            self.tell_of_peer(Event::FirstPacket { leg: id, from });
        }
        if let Some(key) = released {
            self.tell_of_peer(key.told_of(id));
        }
        if let Some(peer) = settled {
            self.actions.push_back(Action::Connect { slot, peer });
        }
        if was_resting {
            self.stir(slot, now);
        }
        if settled.is_some() || began_to_listen {
            self.arm(slot);
        }
        let feed = Feed::Relayed(id, arrival.run);
        if is_echo {
            return self.echo(slot, feed, &arrival, buffer, now);
        }
        let began = buffer.first_chunk::<2>().copied();
        let sent = self.relay(slot, feed, &arrival, buffer, now)?;
        if self.settings.offloads {
            self.note_turn(slot, from, began);
        }
        Ok(sent)
    }

    fn echo(
        &mut self,
        slot: usize,
        feed: Feed,
        arrival: &Arrival,
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<(usize, SocketAddr, usize), Discard> {
        let leg = self.leg_mut(slot).ok_or(Discard::TooEarly)?;
        // The peer may want digits under another number than that under which it sends them.
        let payload_type = match leg.telephone_events() {
            Some(events) if events.receive == arrival.header.payload_type => events.send,
            Some(_) | None => arrival.header.payload_type,
        };
        let header = Header { payload_type, ..arrival.header };
        let to = leg.place(leg.keypad.is_pressing(), feed, (arrival, header), buffer, now)?;
        let len = leg.seal_rtp(buffer, arrival.len)?.len();
        self.counters.generated = self.counters.generated.saturating_add(1);
        Ok((slot, to, len))
    }

    fn relay(
        &mut self,
        slot: usize,
        feed: Feed,
        arrival: &Arrival,
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<(usize, SocketAddr, usize), Discard> {
        let join = self.joins.get_mut(slot).and_then(Option::as_mut).ok_or(Discard::NoPeer)?;
        let Some(Slot::Open(other)) = self.slots.get_mut(join.to) else {
            return Err(Discard::NoPeer);
        };
        let Some(Hop { payload_type, convert }) = join.hop(arrival.header.payload_type) else {
            other.outlet.withhold(feed, &arrival.header, now);
            return Err(Discard::NotNegotiated);
        };
        let header = Header { payload_type, ..arrival.header };
        let to = other.place(other.is_busy(), feed, (arrival, header), buffer, now)?;
        let (was_resting, joined) = (other.is_resting, join.to);
        if let Some(payload) = buffer.get_mut(arrival.payload.clone()) {
            codec::convert(payload, convert);
        }
        let len = other.seal_rtp(buffer, arrival.len)?.len();
        let counters = &mut self.counters;
        counters.relayed = counters.relayed.saturating_add(1);
        counters.relayed_bytes = counters.relayed_bytes.saturating_add(len as u64);
        counters.transcoded =
            counters.transcoded.saturating_add(u64::from(convert != Convert::Keep));
        if was_resting {
            self.stir(joined, now);
        }
        Ok((joined, to, len))
    }

    /// Notes how long a packet of this leg stayed with us.
    pub fn note_delay(&mut self, slot: usize, delay: Duration) {
        if let Some(leg) = self.leg_mut(slot) {
            leg.note_delay(delay);
        }
    }

    /// Notes that a packet could not be sent from this leg's port.
    pub fn note_unsendable(&mut self, slot: usize) {
        self.discard(slot, Discard::Unsendable);
    }

    /// Takes an RTCP packet of a leg's peer.
    pub fn handle_rtcp(&mut self, slot: usize, from: SocketAddr, packet: &[u8], now: Instant) {
        let read = match self.leg_mut(slot) {
            Some(leg) => leg.read_report(plain(from), packet, now),
            None => Err(Discard::TooEarly),
        };
        if let Err(reason) = read {
            self.discard(slot, reason);
        }
    }
}

impl Leg {
    /// Gives a packet its place among those that this leg's peer hears, and rewrites it.
    fn place(
        &mut self,
        is_busy: bool,
        feed: Feed,
        (arrival, header): (&Arrival, Header),
        packet: &mut [u8],
        now: Instant,
    ) -> Result<SocketAddr, Discard> {
        let destination = if is_busy { Err(Discard::Replaced) } else { self.destination() };
        let to = destination.inspect_err(|_| self.outlet.withhold(feed, &header, now))?;
        let header = self.outlet.carry(feed, &header, self.pace(), now)?;
        rtp::rewrite(packet, &header);
        self.outlet.count(arrival.payload.len());
        Ok(to)
    }

    fn read_report(
        &mut self,
        from: SocketAddr,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), Discard> {
        let remote = self.remote.as_ref().ok_or(Discard::TooEarly)?;
        if packet.len() > rtp::DATAGRAM_MAX {
            return Err(Discard::TooLong);
        }
        // Its own copy, because few are encrypted, and few there are.
        let mut opened = [0; rtp::DATAGRAM_MAX];
        let packet = match opened.get_mut(..packet.len()).filter(|_| self.link.is_secure()) {
            None => packet,
            Some(opened) => {
                opened.copy_from_slice(packet);
                let len = self.link.open_rtcp(opened)?;
                opened.get(..len).unwrap_or_default()
            }
        };
        self.source.admit_rtcp(remote, from)?;
        if let Some(consent) = &mut self.consent
            && from.ip() == remote.rtp.ip()
        {
            consent.answered(from.ip());
        }
        let (packets, _) = self.outlet.sent();
        let sent = (self.outlet.ssrc(), packets, self.outlet.holes());
        let is_read = self.reports.read(packet, sent, now);
        is_read.then_some(()).ok_or(Discard::NotRtcp)
    }
}
