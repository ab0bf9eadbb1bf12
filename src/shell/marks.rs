//! How our packets are marked on the wire: how far they may go, and how urgent they are.
//!
//! Owns: the hop limit, and where a code point stands in a header.
//! Never: fails a call: a network may ignore or forbid marks.

use socket2::SockRef;
use std::net::SocketAddr;

/// Hops that a packet may take. Some carriers drop media that comes with 10 or less.
const HOPS_MAX: u32 = 64;

/// Marks what a socket bound to `local` sends from now on. `dscp` is the code point of RFC 2474, 0
/// to 63; it fills the upper six bits of the byte.
pub(super) fn mark<'s>(socket: impl Into<SockRef<'s>>, local: SocketAddr, dscp: u8) {
    let (socket, class) = (socket.into(), u32::from(dscp) << 2);
    let marked = match local {
        SocketAddr::V4(_) => [socket.set_ttl_v4(HOPS_MAX), socket.set_tos_v4(class)],
        SocketAddr::V6(_) => [socket.set_unicast_hops_v6(HOPS_MAX), socket.set_tclass_v6(class)],
    };
    for error in marked.into_iter().filter_map(Result::err) {
        tracing::debug!(%local, %error, "packets stay unmarked");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// Returns the hop limit and the code point of what a socket sends.
    pub(in crate::shell) fn marks(socket: &SockRef<'_>, is_ipv4: bool) -> (u32, u32) {
        let (hops, class) = match is_ipv4 {
            true => (socket.ttl_v4(), socket.tos_v4()),
            false => (socket.unicast_hops_v6(), socket.tclass_v6()),
        };
        (hops.unwrap(), class.unwrap() >> 2)
    }

    #[test]
    fn both_families_are_marked() {
        for (ip, dscp) in
            [("127.0.0.1:0", 46), ("[::1]:0", 46), ("127.0.0.1:0", 0), ("[::1]:0", 24)]
        {
            let socket = UdpSocket::bind(ip).unwrap();
            let local = socket.local_addr().unwrap();
            mark(&socket, local, 63);
            mark(&socket, local, dscp);
            let want = (64, u32::from(dscp));
            assert_eq!(marks(&SockRef::from(&socket), local.is_ipv4()), want, "{ip} {dscp}");
        }
    }
}
