//! How our packets are marked on the wire: how far they may go, and how urgent they are.
//!
//! Owns: the hop limit, and where a code point stands in a header.
//! Never: fails a call: a network may ignore or forbid marks.

use socket2::{Domain, SockRef, Socket, Type};
use std::{io, net::SocketAddr};

/// Hops that a packet may take. Some carriers drop media that comes with 10 or less.
const HOPS_MAX: u32 = 64;

/// The marks of many sockets: what the system does by itself need not be said for each of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    dscp: u8,
    /// Whether packets of either family, IPv4's first, may go as far as ours should.
    has_hops: [bool; 2],
}

impl Marks {
    /// Looks at what the system does.
    pub(super) fn new(dscp: u8) -> Self {
        let socket = |domain| Socket::new(domain, Type::DGRAM, None);
        let v4 = socket(Domain::IPV4).and_then(|socket| socket.ttl_v4());
        let v6 = socket(Domain::IPV6).and_then(|socket| socket.unicast_hops_v6());
        Self { dscp, has_hops: [v4, v6].map(|hops| hops.is_ok_and(|hops| hops == HOPS_MAX)) }
    }

    /// Marks what a new socket bound to `local` sends.
    pub(super) fn put<'s>(&self, socket: impl Into<SockRef<'s>>, local: SocketAddr) {
        let [has_v4, has_v6] = self.has_hops;
        if !(if local.is_ipv4() { has_v4 } else { has_v6 }) {
            return mark(socket, local, self.dscp);
        }
        if self.dscp > 0
            && let Err(error) = set_class(&socket.into(), local, self.dscp)
        {
            tracing::debug!(%local, %error, "packets stay unmarked");
        }
    }
}

/// Marks what a socket bound to `local` sends from now on. `dscp` is the code point of RFC 2474, 0
/// to 63; it fills the upper six bits of the byte.
pub(super) fn mark<'s>(socket: impl Into<SockRef<'s>>, local: SocketAddr, dscp: u8) {
    let socket = socket.into();
    let hops = match local {
        SocketAddr::V4(_) => socket.set_ttl_v4(HOPS_MAX),
        SocketAddr::V6(_) => socket.set_unicast_hops_v6(HOPS_MAX),
    };
    for error in [hops, set_class(&socket, local, dscp)].into_iter().filter_map(Result::err) {
        tracing::debug!(%local, %error, "packets stay unmarked");
    }
}

fn set_class(socket: &SockRef<'_>, local: SocketAddr, dscp: u8) -> io::Result<()> {
    let class = u32::from(dscp) << 2;
    match local {
        SocketAddr::V4(_) => socket.set_tos_v4(class),
        SocketAddr::V6(_) => socket.set_tclass_v6(class),
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
            for has_hops in [Marks::new(dscp).has_hops, [false; 2]] {
                let socket = UdpSocket::bind(ip).unwrap();
                Marks { dscp, has_hops }.put(&socket, local);
                assert_eq!(marks(&SockRef::from(&socket), local.is_ipv4()), want, "{ip} {dscp}");
            }
        }
    }
}
