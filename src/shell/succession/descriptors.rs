//! Sockets on their way to another process (`SCM_RIGHTS`).
//!
//! Owns: sending and receiving them.
//! Never: knows what they are for.

use rustix::{
    cmsg_space,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

/// As many as the kernel carries at a time (`SCM_MAX_FD`).
pub(super) const DESCRIPTORS_MAX: usize = 253;
/// What they travel with: the kernel wants a byte at least.
const CARRIER: u8 = b'=';

/// Sends descriptors, up to [`DESCRIPTORS_MAX`].
pub(super) fn send(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!("more than {DESCRIPTORS_MAX} sockets")));
    }
    sendmsg(stream, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives what [`send`] has sent, in its order.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut room = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut carrier = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut carrier)], &mut control, flags)?;
    if received.bytes != 1 || carrier != [CARRIER] {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = vec![];
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, os::fd::AsFd};

    #[test]
    fn sockets_arrive_in_their_order_and_are_the_same() {
        let (here, there) = UnixStream::pair().unwrap();
        let sockets: Vec<UdpSocket> =
            (0..DESCRIPTORS_MAX).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        send(&here, &borrowed).unwrap();
        let arrived: Vec<UdpSocket> =
            receive(&there).unwrap().into_iter().map(UdpSocket::from).collect();
        let addresses = |all: &[UdpSocket]| -> Vec<_> {
            all.iter().map(|socket| socket.local_addr().unwrap()).collect()
        };
        assert_eq!(addresses(&arrived), addresses(&sockets));
        sockets[0].send_to(b"x", arrived[1].local_addr().unwrap()).unwrap();
        assert_eq!(sockets[1].recv(&mut [0; 4]).unwrap(), 1, "either end reads");
    }

    #[test]
    fn a_peer_that_is_gone_or_says_something_else_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(here);
        assert_eq!(receive(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
