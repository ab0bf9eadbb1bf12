//! Which of our addresses faces which peer.
//!
//! Owns: the bound listeners, and what the kernel's routing table says.
//! Never: sends a packet; connecting a datagram socket asks the kernel and tells nobody.

use crate::ids::{Flow, Transport};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// How many peers' routes are remembered, and for how long: the machine may move to another network.
const CACHE_MAX: usize = 4096;
const CACHE_HOLD: Duration = Duration::from_secs(60);

/// A bound listener.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Listener {
    /// How.
    pub transport: Transport,
    /// Where; the port is the real one.
    pub address: SocketAddr,
}

/// The listeners and the ways from them.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    listeners: Vec<Listener>,
    sources: BTreeMap<IpAddr, IpAddr>,
    /// When the oldest of the sources was asked for.
    asked_at: Option<Instant>,
}

impl Routes {
    /// Takes the bound listeners.
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, sources: BTreeMap::new(), asked_at: None }
    }

    /// Returns the bound listeners.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Returns the address of `listener` that this peer sees: its own, or where it listens on all,
    /// the one that the kernel would send from.
    pub(super) fn local(&mut self, listener: SocketAddr, peer: IpAddr) -> SocketAddr {
        if !listener.ip().is_unspecified() {
            return listener;
        }
        SocketAddr::new(self.source(peer).unwrap_or(listener.ip()), listener.port())
    }

    /// Returns the flow from the fitting listener to this address; `None` where none fits.
    pub(super) fn flow(&mut self, transport: Transport, remote: SocketAddr) -> Option<Flow> {
        let source = self.source(remote.ip())?;
        // A listener on `[::]` takes no IPv4: it has a twin for that, or none is wanted.
        let fits = |listener: &&Listener| {
            listener.transport == transport && listener.address.is_ipv4() == remote.is_ipv4()
        };
        if transport == Transport::Tls && !self.listeners.iter().any(|l| fits(&l)) {
            // Whom we call over TLS need not be able to call us; this is where it would.
            let local = SocketAddr::new(source, transport.default_port());
            return Some(Flow { transport, local, remote });
        }
        let mut fitting = self.listeners.iter().filter(fits);
        let exact = self.listeners.iter().filter(fits).find(|l| l.address.ip() == source);
        let wild = self.listeners.iter().filter(fits).find(|l| l.address.ip().is_unspecified());
        let listener = exact.or(wild).or_else(|| fitting.next())?.address;
        let local = self.local(listener, remote.ip());
        Some(Flow { transport, local, remote })
    }

    fn source(&mut self, peer: IpAddr) -> Option<IpAddr> {
        let now = super::now();
        let is_old = self.asked_at.is_some_and(|at| now.duration_since(at) > CACHE_HOLD);
        if is_old || self.sources.len() >= CACHE_MAX {
            self.sources.clear();
            self.asked_at = None;
        }
        if let Some(known) = self.sources.get(&peer) {
            return Some(*known);
        }
        let found = source_of(peer)?;
        self.asked_at.get_or_insert(now);
        self.sources.insert(peer, found);
        Some(found)
    }
}

/// Asks the kernel from which address it would send to this peer.
pub(super) fn source_of(peer: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((peer, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Returns the address of a network interface, IPv4 first.
pub(super) fn interface_address(name: &str) -> Option<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().ok()?;
    let addresses = interfaces.iter().filter(|i| i.name == name).map(if_addrs::Interface::ip);
    addresses.min_by_key(IpAddr::is_ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_shows_the_one_that_faces_the_peer() {
        let all =
            Listener { transport: Transport::Udp, address: (Ipv4Addr::UNSPECIFIED, 5070).into() };
        let mut routes = Routes::new(vec![all]);
        let flow = routes.flow(Transport::Udp, ([127, 0, 0, 9], 5060).into()).unwrap();
        assert!(flow.local.ip().is_loopback() && flow.local.port() == 5070, "{flow:?}");
        assert_eq!(routes.flow(Transport::Tcp, flow.remote), None);
    }

    #[test]
    fn calling_over_tls_needs_no_listener() {
        let remote = ([127, 0, 0, 9], 5061).into();
        let flow = Routes::default().flow(Transport::Tls, remote).unwrap();
        assert_eq!(flow.local, ([127, 0, 0, 1], 5061).into());
    }

    #[test]
    fn the_listener_on_the_right_address_is_preferred() {
        let at = |ip: [u8; 4]| Listener { transport: Transport::Udp, address: (ip, 5060).into() };
        let mut routes = Routes::new(vec![at([127, 0, 7, 1]), at([127, 0, 0, 1])]);
        let local = routes.flow(Transport::Udp, ([127, 0, 0, 1], 9).into()).unwrap().local;
        assert_eq!(local, ([127, 0, 0, 1], 5060).into());
    }
}
