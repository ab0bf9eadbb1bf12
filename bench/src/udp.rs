//! A UDP socket that sends and receives many datagrams with one system call.
//!
//! Owns: the socket and its buffers. Never: reads what is in a datagram.

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::socket::{
        MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt,
        sockopt::{RcvBuf, RcvBufForce},
    },
};
use std::{
    io::{IoSlice, IoSliceMut},
    net::{SocketAddrV4, UdpSocket},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Datagrams per system call.
const BATCH: usize = 64;
/// More than any SIP message here, and more than an Ethernet frame.
const DATAGRAM_MAX: usize = 4096;
/// What a burst may wait in: a full default of 208 KiB drops at some 2,000 calls a second.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket with what it received last and what it is to send next.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
    local: SocketAddrV4,
    /// Two, and never one for both: `sendmmsg` leaves pointers to its addresses in it, to which
    /// `recvmmsg` would write.
    in_headers: MultiHeaders<SockaddrIn>,
    out_headers: MultiHeaders<SockaddrIn>,
    buffers: Vec<u8>,
    received: Vec<(usize, SocketAddrV4)>,
    outgoing: Vec<u8>,
    ends: Vec<(usize, SockaddrIn)>,
}

impl Wire {
    /// Binds it; port 0 is any.
    ///
    /// # Errors
    /// If the address is not ours or taken.
    pub fn bind(local: SocketAddrV4) -> Result<Self> {
        let socket = UdpSocket::bind(local).with_context(|| format!("binding {local}"))?;
        socket.set_nonblocking(true)?;
        // The force is root's; without it as much as the system allows.
        if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
        }
        let port = socket.local_addr()?.port();
        Ok(Self {
            socket,
            local: SocketAddrV4::new(*local.ip(), port),
            in_headers: MultiHeaders::preallocate(BATCH, None),
            out_headers: MultiHeaders::preallocate(BATCH, None),
            buffers: vec![0; BATCH * DATAGRAM_MAX],
            received: Vec::with_capacity(BATCH),
            outgoing: Vec::with_capacity(BATCH * 1024),
            ends: Vec::with_capacity(BATCH),
        })
    }

    /// Where it is bound.
    pub fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// Takes what has arrived, up to one batch, and tells how many datagrams that is.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn receive(&mut self) -> Result<usize> {
        self.received.clear();
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = self
            .buffers
            .chunks_exact_mut(DATAGRAM_MAX)
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let fd = self.socket.as_raw_fd();
        let got =
            recvmmsg(fd, &mut self.in_headers, slices.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
        match got {
            Ok(results) => {
                let nobody = SockaddrIn::new(0, 0, 0, 0, 0);
                self.received.extend(
                    results
                        .map(|one| (one.bytes, SocketAddrV4::from(one.address.unwrap_or(nobody)))),
                );
            }
            // Refused: a datagram of ours met a closed port. Whoever waits for the answer notices.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error).context("recvmmsg"),
        }
        Ok(self.received.len())
    }

    /// What was received last, and what is to leave with the next `flush`.
    pub fn parts(&mut self) -> (Received<'_>, Outgoing<'_>) {
        (
            Received { buffers: &self.buffers, received: &self.received },
            Outgoing { bytes: &mut self.outgoing, ends: &mut self.ends },
        )
    }

    /// Sends all that waits.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn flush(&mut self) -> Result<()> {
        let mut slices = Vec::with_capacity(self.ends.len());
        let mut addresses = Vec::with_capacity(self.ends.len());
        let mut start = 0;
        for (end, to) in &self.ends {
            slices.push([IoSlice::new(&self.outgoing[start..*end])]);
            addresses.push(Some(*to));
            start = *end;
        }
        let fd = self.socket.as_raw_fd();
        let mut sent = 0;
        while sent < slices.len() {
            let end = slices.len().min(sent + BATCH);
            let (now, to) = (&slices[sent..end], &addresses[sent..end]);
            match sendmmsg(fd, &mut self.out_headers, now, to, [], MsgFlags::empty()) {
                Ok(results) => sent += results.count(),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
                Err(error) => return Err(error).context("sendmmsg"),
            }
        }
        drop(slices);
        self.outgoing.clear();
        self.ends.clear();
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What was received last.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    buffers: &'a [u8],
    received: &'a [(usize, SocketAddrV4)],
}

impl<'a> Received<'a> {
    /// Each datagram and who sent it.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], SocketAddrV4)> {
        let chunks = self.buffers.chunks_exact(DATAGRAM_MAX);
        chunks.zip(self.received).map(|(chunk, (length, from))| (&chunk[..*length], *from))
    }
}

/// What is to be sent next.
#[derive(Debug)]
pub struct Outgoing<'a> {
    bytes: &'a mut Vec<u8>,
    ends: &'a mut Vec<(usize, SockaddrIn)>,
}

impl Outgoing<'_> {
    /// Adds a datagram: what `write` appends.
    pub fn send_to(&mut self, to: SocketAddrV4, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.bytes);
        self.ends.push((self.bytes.len(), SockaddrIn::from(to)));
    }
}
