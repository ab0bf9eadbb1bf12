//! UDP sockets for SIP.
//!
//! Owns: the sockets, and a task that reads each.
//! Never: looks into a datagram.

use super::{
    routes::Routes,
    shard_loop::{Ingress, Packet},
};
use crate::ids::{Flow, Transport};
use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::UdpSocket;

/// Largest datagram UDP can carry.
const DATAGRAM_MAX: usize = 65_535;
/// The default of 208 KiB is what first drops INVITEs under load.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Binds a socket with room for a burst.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The kernel caps it at net.core.rmem_max; less than asked for is no error.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(RECEIVE_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Reads datagrams until the shard is gone.
pub(super) async fn read(socket: Arc<UdpSocket>, mut routes: Routes, ingress: Ingress) {
    let Ok(listener) = socket.local_addr() else { return };
    let mut buffer = vec![0; DATAGRAM_MAX];
    while !ingress.is_closed() {
        let (len, remote) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // ICMP errors for an earlier send surface here; the transaction times out on its own.
            Err(error) => {
                tracing::debug!(%error, "receive failed");
                continue;
            }
        };
        let Some(datagram) = buffer.get(..len).filter(|bytes| !is_keep_alive(bytes)) else {
            continue;
        };
        let local = routes.local(listener, remote.ip());
        let flow = Flow { transport: Transport::Udp, local, remote };
        ingress.offer(Packet::Message { flow, bytes: Bytes::copy_from_slice(datagram) });
    }
}

/// NAT keep-alives carry nothing: CRLFs, a zero byte, or a few of either.
fn is_keep_alive(datagram: &[u8]) -> bool {
    datagram.len() <= 4 && datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}
