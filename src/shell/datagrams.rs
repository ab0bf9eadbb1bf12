//! Datagrams, read and written many at a time.
//!
//! Owns: the room that they are read into, what the kernel tells beside them, the only names of the
//! `nix` crate.
//! Never: waits, or looks into a datagram.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage,
        recvmmsg, sendmsg, sendto, setsockopt, sockopt,
    },
};
use socket2::Socket;
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd, RawFd},
};

/// Largest datagram UDP can carry, and one more.
const DATAGRAM_ROOM: usize = 65_536;
/// Datagrams read by one question to the kernel.
const READ_MAX: usize = 32;
/// As many are asked for first: under little load there is one, and each place costs.
const READ_FIRST: usize = 4;
/// Datagrams written by one question to the kernel: as many as any kernel takes, and no more bytes than there are in
/// one datagram.
const TOGETHER_MAX: usize = 64;
const TOGETHER_BYTES_MAX: usize = 65_000;

/// Asks the kernel for more room than `net.core.rmem_max` allows: a privilege.
pub(super) fn force_buffers(socket: &Socket, bytes: usize) -> io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &bytes)?;
    setsockopt(socket, sockopt::SndBufForce, &bytes)?;
    Ok(())
}

/// Asks the kernel to tell how many datagrams it had no room for and, where the socket listens on
/// all addresses, for which of them each was.
pub(super) fn ask_for_details(socket: &Socket, local: SocketAddr) -> io::Result<()> {
    setsockopt(socket, sockopt::RxqOvfl, &1)?;
    match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(())
}

/// A datagram that was read.
#[derive(Debug)]
pub(super) struct Arrival<'i> {
    /// What it carries.
    pub(super) bytes: &'i [u8],
    /// Who sent it.
    pub(super) remote: SocketAddr,
    /// Our address that it was sent to, where the socket listens on all.
    pub(super) to: Option<IpAddr>,
    /// How many the kernel had dropped by then because nobody read them, modulo 2^32.
    pub(super) dropped: Option<u32>,
}

/// Room for the datagrams of one reading. Pages that nothing was read into take no memory.
#[derive(Debug)]
pub(super) struct Inbox {
    room: Vec<u8>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { room: vec![0; READ_MAX.saturating_mul(DATAGRAM_ROOM)] }
    }
}

impl Inbox {
    /// Reads what has come to a socket that does not block, up to `most` datagrams. Returns whether
    /// there may be more.
    pub(super) fn read(
        &mut self,
        socket: &impl AsRawFd,
        most: usize,
        mut each: impl FnMut(Arrival<'_>),
    ) -> io::Result<bool> {
        let (mut asked, mut read) = (READ_FIRST, 0_usize);
        while read < most {
            asked = asked.min(most.saturating_sub(read));
            let got = self.read_once(socket.as_raw_fd(), asked, &mut each)?;
            if got < asked {
                return Ok(false);
            }
            read = read.saturating_add(got);
            asked = READ_MAX;
        }
        Ok(true)
    }

    fn read_once(
        &mut self,
        socket: RawFd,
        asked: usize,
        each: &mut impl FnMut(Arrival<'_>),
    ) -> io::Result<usize> {
        let mut places: Vec<[IoSliceMut<'_>; 1]> = self
            .room
            .chunks_exact_mut(DATAGRAM_ROOM)
            .take(asked)
            .map(|place| [IoSliceMut::new(place)])
            .collect();
        // Made anew each time: the kernel writes into them how much it used.
        let details = cmsg_space!(libc::in6_pktinfo, u32);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(asked, Some(details));
        let read = recvmmsg(socket, &mut headers, &mut places, MsgFlags::MSG_DONTWAIT, None);
        let messages = match read {
            Ok(messages) => messages,
            Err(Errno::EAGAIN) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut got = 0_usize;
        for message in messages {
            got = got.saturating_add(1);
            if let Some(arrival) = arrival(&message) {
                each(arrival);
            }
        }
        Ok(got)
    }
}

fn arrival<'i>(message: &'i RecvMsg<'_, 'i, SockaddrStorage>) -> Option<Arrival<'i>> {
    let remote = message.address.as_ref().and_then(address)?;
    // An empty datagram has no slice.
    let bytes = message.iovs().next().unwrap_or_default();
    let (mut to, mut dropped) = (None, None);
    // What was cut is not told.
    for detail in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::Ipv4PacketInfo(info) = detail {
            to = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
        } else if let ControlMessageOwned::Ipv6PacketInfo(info) = detail {
            let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            to = (!ip.is_multicast()).then_some(ip.into());
        } else if let ControlMessageOwned::RxqOvfl(total) = detail {
            dropped = Some(total);
        }
    }
    Some(Arrival { bytes, remote, to, dropped })
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    let v6 = || address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()));
    v4().or_else(v6)
}

/// Writes a datagram, from the address `from` where it is given and the socket is bound to all.
pub(super) fn write(
    socket: &impl AsRawFd,
    from: Option<IpAddr>,
    remote: SocketAddr,
    bytes: &[u8],
) -> io::Result<()> {
    match from {
        // Not by the runtime, which sends nothing before its first look at a socket.
        None => {
            let to = SockaddrStorage::from(remote);
            sendto(socket.as_raw_fd(), bytes, &to, MsgFlags::MSG_DONTWAIT)?;
        }
        Some(_) => send(socket, from, remote, &[IoSlice::new(bytes)], None)?,
    }
    Ok(())
}

/// Returns how many datagrams of this length are written together at most.
pub(super) fn together_max(length: usize) -> usize {
    TOGETHER_BYTES_MAX.checked_div(length).unwrap_or(0).min(TOGETHER_MAX)
}

/// Writes several datagrams of one length, which lie one behind the other in the parts (UDP_SEGMENT): that is a tenth of
/// the work of writing them one by one.
///
/// # Errors
/// Whatever the kernel says where it does not take them together, though it might take each of them.
pub(super) fn write_alike(
    socket: &impl AsRawFd,
    from: Option<IpAddr>,
    remote: SocketAddr,
    (length, parts): (usize, &[&[u8]]),
) -> io::Result<()> {
    let segment = u16::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    Ok(send(socket, from, remote, &parts, Some(segment))?)
}

fn send(
    socket: &impl AsRawFd,
    from: Option<IpAddr>,
    remote: SocketAddr,
    parts: &[IoSlice<'_>],
    segment: Option<u16>,
) -> nix::Result<()> {
    let to = SockaddrStorage::from(remote);
    let ipi_spec_dst = |ip: Ipv4Addr| libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
    let any = libc::in_addr { s_addr: 0 };
    let (v4, v6) = match from {
        None => (None, None),
        Some(IpAddr::V4(ip)) => {
            let ipi_spec_dst = ipi_spec_dst(ip);
            (Some(libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst, ipi_addr: any }), None)
        }
        Some(IpAddr::V6(ip)) => {
            let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
            (None, Some(libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 }))
        }
    };
    let v4 = v4.as_ref().map(ControlMessage::Ipv4PacketInfo);
    let v6 = v6.as_ref().map(ControlMessage::Ipv6PacketInfo);
    let segment = segment.as_ref().map(ControlMessage::UdpGsoSegments);
    let details: Vec<_> = [v4, v6, segment].into_iter().flatten().collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    sendmsg(socket.as_raw_fd(), parts, &details, flags, Some(&to)).map(drop)
}
