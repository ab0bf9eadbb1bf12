//! The sockets of a worker's legs: one for RTP each, and one for RTCP where that is wanted.
//!
//! Owns: which pair belongs to which slot, and which peer it is connected to.
//! Never: decides from whom packets count, or when to connect; the worker does.

use crate::{
    media::{Channel, Datagram},
    shell::{
        epoll::{self, Epoll},
        marks::Marks,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

/// The sockets of a leg: one line of the cache, since each packet needs two of these.
#[derive(Debug)]
#[repr(align(64))]
struct Pair {
    rtp: UdpSocket,
    rtcp: Option<UdpSocket>,
    /// The only one whose RTP the kernel lets through.
    peer: Option<SocketAddr>,
    /// Where RTP is bound; RTCP is next to it.
    local: (IpAddr, u16),
}

impl Pair {
    fn socket(&self, channel: Channel) -> Option<&UdpSocket> {
        match channel {
            Channel::Rtp => Some(&self.rtp),
            Channel::Rtcp => self.rtcp.as_ref(),
        }
    }
}

/// Pairs by slot.
#[derive(Debug)]
pub(super) struct Sockets {
    pairs: Vec<Option<Pair>>,
    marks: Marks,
}

impl Sockets {
    /// Has none yet; all will be marked with this code point.
    pub(super) fn new(dscp: u8) -> Self {
        Self { pairs: vec![], marks: Marks::new(dscp) }
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        self.pairs.clear();
    }

    /// Opens a leg's RTP port, and that of RTCP too if it must be known to be free.
    pub(super) fn bind(
        &mut self,
        epoll: &Epoll,
        slot: usize,
        local: SocketAddr,
        with_rtcp: bool,
    ) -> io::Result<()> {
        let rtp = self.listen(epoll, local, token_of(slot, Channel::Rtp))?;
        let rtcp = match with_rtcp {
            true => Some(self.listen(epoll, next(local), token_of(slot, Channel::Rtcp))?),
            false => None,
        };
        if self.pairs.len() <= slot {
            self.pairs.resize_with(slot.saturating_add(1), || None);
        }
        if let Some(place) = self.pairs.get_mut(slot) {
            *place = Some(Pair { rtp, rtcp, local: (local.ip(), local.port()), peer: None });
        }
        Ok(())
    }

    /// Opens a leg's RTCP port.
    pub(super) fn bind_rtcp(&mut self, epoll: &Epoll, slot: usize) -> io::Result<()> {
        let Some(Some(pair)) = self.pairs.get(slot) else { return Ok(()) };
        let rtcp = self.listen(epoll, next(pair.local.into()), token_of(slot, Channel::Rtcp))?;
        if let Some(Some(pair)) = self.pairs.get_mut(slot) {
            pair.rtcp = Some(rtcp);
        }
        Ok(())
    }

    fn listen(&self, epoll: &Epoll, local: SocketAddr, token: usize) -> io::Result<UdpSocket> {
        let socket = bound(local, &self.marks)?;
        epoll.add(&socket, token)?;
        Ok(socket)
    }

    /// Lets a pair rest: RTP from anyone, no RTCP.
    pub(super) fn rest(&mut self, slot: usize) {
        let Some(place) = self.pairs.get_mut(slot) else { return };
        let Some(pair) = place else { return };
        pair.rtcp = None;
        if pair.peer.take().is_some() && epoll::point(&pair.rtp, None).is_err() {
            // The next leg would hear nobody but this one's peer.
            *place = None;
        }
    }

    /// Takes a pair that rested; returns whether it can be used: there is one, it is nobody's, and nothing has
    /// come for the leg before.
    pub(super) fn reuse(&self, slot: usize) -> bool {
        let Some(Some(pair)) = self.pairs.get(slot) else { return false };
        let nothing = |read: io::Result<usize>| {
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        pair.peer.is_none() && nothing(pair.rtp.recv(&mut []))
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
        pair.socket(channel_of(token))?.recv_from(room).ok()
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
            Channel::Rtp | Channel::Rtcp => {
                pair.socket(channel).is_some_and(|socket| socket.send_to(packet, to).is_ok())
            }
        }
    }
}

/// The port next to this one.
fn next(rtp: SocketAddr) -> SocketAddr {
    SocketAddr::new(rtp.ip(), rtp.port().saturating_add(1))
}

/// Two sockets for each call, thousands of times a second: every call to the kernel counts.
pub(super) fn bound(local: SocketAddr, marks: &Marks) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking();
    let socket = Socket::new(Domain::for_address(local), kind, Some(Protocol::UDP))?;
    socket.bind(&local.into())?;
    marks.put(&socket, local);
    Ok(socket.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_pair_is_one_line_of_the_cache() {
        assert_eq!(size_of::<Option<Pair>>(), 64);
    }

    #[test]
    fn a_pair_that_rested_is_free_where_nothing_has_come() {
        let (epoll, mut sockets) = (Epoll::new().unwrap(), Sockets::new(0));
        assert!(!sockets.reuse(0), "there is none");
        // A port that the kernel has chosen is lost when a socket is disconnected.
        let local = UdpSocket::bind(ANY).unwrap().local_addr().unwrap();
        sockets.bind(&epoll, 0, local, false).unwrap();
        let [peer, stranger] = [0, 1].map(|_| UdpSocket::bind(ANY).unwrap());
        sockets.connect(0, Some(peer.local_addr().unwrap()));
        stranger.send_to(b"kept out", local).unwrap();
        sockets.rest(0);
        assert!(sockets.reuse(0), "the kernel let nobody else through");
        stranger.send_to(b"heard", local).unwrap();
        assert!(!sockets.reuse(0), "whoever comes next must not hear this");
        sockets.unbind(0);
        assert!(!sockets.reuse(0));
    }
}
