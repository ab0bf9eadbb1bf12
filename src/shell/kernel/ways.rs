//! By which interface, and from which address, packets of ours leave for a peer.
//!
//! Owns: the questions to the system's routing table, and its answers, which age.
//! Never: sends a packet.

use super::super::routes;
use socket2::{Domain, Socket, Type};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

/// How many answers are remembered, and for how long: routes change.
const CACHE_MAX: usize = 4096;
const CACHE_HOLD: Duration = Duration::from_secs(10);
/// As for packets from sockets.
const HOPS: u8 = 64;

/// How packets leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Way {
    /// From this address.
    pub(super) source: Ipv4Addr,
    /// By the interface with this index.
    pub(super) interface: u32,
    /// How far they may go.
    pub(super) hops: u8,
}

/// An interface with IPv4 over Ethernet: neither loopback nor one end of a tunnel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Interface {
    pub(super) name: String,
    index: u32,
    address: Ipv4Addr,
}

/// What is known of ways.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// From which of our addresses, if one is given, to whom.
    known: BTreeMap<(Ipv4Addr, Ipv4Addr), Option<Way>>,
    interfaces: Vec<Interface>,
    asked_at: Option<Instant>,
}

impl Ways {
    /// Returns the way from a port of ours; `None` where there is none that can be trusted: to
    /// ourselves, through a tunnel, by an interface that does not have our address.
    pub(super) fn way(
        &mut self,
        (source, target): (SocketAddrV4, SocketAddrV4),
        now: Instant,
    ) -> Option<Way> {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < CACHE_HOLD;
        if !self.asked_at.is_some_and(is_fresh) || self.known.len() >= CACHE_MAX {
            (self.asked_at, self.interfaces) = (Some(now), interfaces());
            self.known.clear();
        }
        let (source, target) = (*source.ip(), *target.ip());
        let interfaces = &self.interfaces;
        *self.known.entry((source, target)).or_insert_with(|| ask(interfaces, source, target))
    }
}

fn ask(interfaces: &[Interface], source: Ipv4Addr, target: Ipv4Addr) -> Option<Way> {
    let is_one = !(target.is_loopback() || target.is_multicast() || target.is_broadcast());
    let is_ours = interfaces.iter().any(|interface| interface.address == target);
    if !is_one || target.is_unspecified() || is_ours {
        return None;
    }
    let source = if source.is_unspecified() { source_of(target)? } else { source };
    let interface = interfaces.iter().find(|interface| interface.address == source)?;
    leads(interface, source, target).then_some(Way {
        source,
        interface: interface.index,
        hops: HOPS,
    })
}

fn source_of(target: Ipv4Addr) -> Option<Ipv4Addr> {
    match routes::source_of(target.into())? {
        IpAddr::V4(source) => Some(source),
        IpAddr::V6(_) => None,
    }
}

/// Returns whether the routing table leads to a target by this interface.
fn leads(interface: &Interface, source: Ipv4Addr, target: Ipv4Addr) -> bool {
    let connected = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        socket.bind(&SocketAddrV4::new(source, 0).into())?;
        socket.connect(&SocketAddrV4::new(target, 9).into())
    };
    connected().is_ok()
}

/// Returns the interfaces that packets may be carried between.
pub(super) fn interfaces() -> Vec<Interface> {
    let Ok(all) = if_addrs::get_if_addrs() else { return vec![] };
    let usable = all.into_iter().filter(|one| !one.is_loopback() && !one.is_p2p());
    let usable = usable.filter_map(|one| match &one.addr {
        if_addrs::IfAddr::V4(v4) => {
            v4.broadcast?;
            // A label like `eth0:1` is an address of `eth0`.
            let name = one.name.split(':').next().unwrap_or_default().to_owned();
            Some(Interface { name, index: one.index?, address: v4.ip })
        }
        if_addrs::IfAddr::V6(_) => None,
    });
    usable.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_to_ourselves_or_to_many() {
        let mut ways = Ways::default();
        let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        for target in ["127.0.0.1:9", "224.0.0.1:9", "255.255.255.255:9", "0.0.0.0:9"] {
            let target = target.parse().unwrap();
            assert_eq!(ways.way((source, target), crate::sim::epoch()), None, "{target}");
        }
        for interface in interfaces() {
            let target = SocketAddrV4::new(interface.address, 9);
            assert_eq!(ways.way((source, target), crate::sim::epoch()), None, "{target}");
        }
    }
}
