//! The sockets of a worker's legs: a pair each, RTP and RTCP.
//!
//! Owns: which pair belongs to which slot, and which peer it is connected to.
//! Never: decides from whom packets count, or when to connect; the worker does.

use crate::{
    media::{Channel, Datagram},
    shell::{
        epoll::{self, Epoll},
        marks::mark,
    },
};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

/// The sockets of a leg.
#[derive(Debug)]
struct Pair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// The only one whose RTP the kernel lets through.
    peer: Option<SocketAddr>,
}

impl Pair {
    fn socket(&self, channel: Channel) -> &UdpSocket {
        match channel {
            Channel::Rtp => &self.rtp,
            Channel::Rtcp => &self.rtcp,
        }
    }
}

/// Pairs by slot.
#[derive(Debug)]
pub(super) struct Sockets {
    pairs: Vec<Option<Pair>>,
    dscp: u8,
}

impl Sockets {
    /// Has none yet; all will be marked with this code point.
    pub(super) fn new(dscp: u8) -> Self {
        Self { pairs: vec![], dscp }
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        self.pairs.clear();
    }

    /// Opens a pair: RTP on this port, RTCP on the next.
    pub(super) fn bind(
        &mut self,
        epoll: &Epoll,
        slot: usize,
        (ip, port): (IpAddr, u16),
    ) -> io::Result<()> {
        let [rtp, rtcp] = [
            bound(SocketAddr::new(ip, port), self.dscp)?,
            bound(SocketAddr::new(ip, port.saturating_add(1)), self.dscp)?,
        ];
        epoll.add(&rtp, token_of(slot, Channel::Rtp))?;
        epoll.add(&rtcp, token_of(slot, Channel::Rtcp))?;
        if self.pairs.len() <= slot {
            self.pairs.resize_with(slot.saturating_add(1), || None);
        }
        if let Some(place) = self.pairs.get_mut(slot) {
            *place = Some(Pair { rtp, rtcp, peer: None });
        }
        Ok(())
    }

    /// Closes a pair.
    pub(super) fn unbind(&mut self, slot: usize) {
        if let Some(pair) = self.pairs.get_mut(slot) {
            *pair = None;
        }
    }

    /// Connects a leg's RTP to its peer, or to nobody. A socket that cannot be connected works as well,
    /// only slower.
    pub(super) fn connect(&mut self, slot: usize, peer: Option<SocketAddr>) {
        let Some(Some(pair)) = self.pairs.get_mut(slot) else { return };
        let pointed = epoll::point(&pair.rtp, peer);
        if let Err(error) = &pointed {
            tracing::debug!(%error, "media socket stays as it was");
        }
        // One that stays connected against our will must not be taken for another's.
        pair.peer = peer.filter(|_| pointed.is_ok());
    }

    /// Reads a packet; `None` where there is none after all, or an error that an earlier one caused
    /// (ICMP), which is over with this.
    pub(super) fn read(&self, token: usize, room: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let pair = self.pairs.get(slot_of(token))?.as_ref()?;
        pair.socket(channel_of(token)).recv_from(room).ok()
    }

    /// Returns whether a packet was sent. One that cannot be is lost, as packets are.
    pub(super) fn send(&self, datagram: &Datagram<'_>) -> bool {
        let Datagram { slot, channel, to, packet } = *datagram;
        let Some(Some(pair)) = self.pairs.get(slot) else { return false };
        match channel {
            // Where an earlier packet was refused (ICMP), that is told once, and this one not sent.
            Channel::Rtp if pair.peer == Some(to) => {
                pair.rtp.send(packet).or_else(|_| pair.rtp.send(packet)).is_ok()
            }
            Channel::Rtp | Channel::Rtcp => pair.socket(channel).send_to(packet, to).is_ok(),
        }
    }
}

pub(super) fn bound(local: SocketAddr, dscp: u8) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    mark(&socket, local, dscp);
    Ok(socket)
}

fn token_of(slot: usize, channel: Channel) -> usize {
    slot.saturating_mul(2).saturating_add(usize::from(channel == Channel::Rtcp))
}

/// Returns whose socket it is.
pub(super) fn slot_of(token: usize) -> usize {
    token / 2
}

/// Returns which of the two it is.
pub(super) fn channel_of(token: usize) -> Channel {
    if token.is_multiple_of(2) { Channel::Rtp } else { Channel::Rtcp }
}
