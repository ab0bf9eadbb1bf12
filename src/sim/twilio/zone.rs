//! The trunk's names: what a name server says of them.
//!
//! Owns: the records of one trunk's edges, and the order in which they are given.
//! Never: encodes a message; a shell does, and the simulated world needs none.

use super::setup::{Edge, Proxy, localized};
use crate::ids::{Entropy, Transport};
use std::net::{IpAddr, SocketAddr};

/// How long an answer may be kept, in seconds.
pub const TTL_S: u32 = 600;

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Services (RFC 2782).
    Srv,
    /// Transports (RFC 3403, RFC 3263 4.1).
    Naptr,
    /// Anything else.
    Other,
}

/// What a record says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Data {
    /// An A or AAAA record.
    Address(IpAddr),
    /// An SRV record.
    Srv {
        /// The lowest first.
        priority: u16,
        /// Among equals.
        weight: u16,
        /// Where to.
        port: u16,
        /// Whose addresses are to be asked for.
        target: String,
    },
    /// A NAPTR record with flag `s` and without a regular expression.
    Naptr {
        /// The lowest first.
        order: u16,
        /// Among equals, the lowest first.
        preference: u16,
        /// `SIP+D2U`, `SIP+D2T`, `SIPS+D2T`
        service: &'static str,
        /// Whose SRV records are to be asked for.
        replacement: String,
    },
}

/// What a name server says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Whether there is such a name; otherwise NXDOMAIN.
    pub exists: bool,
    /// How long this may be kept, in seconds.
    pub ttl_s: u32,
    /// Nothing: there are no records of that kind.
    pub data: Vec<Data>,
}

/// The trunk's names.
///
/// - the termination URI's host: the first edge's addresses;
/// - the same with an edge (`acme.pstn.dublin.twilio.com`, its older names, `-ix`): that edge's;
/// - `pstn.dublin.twilio.com`: NAPTR, SRV below it (`_sip._udp.`, `_sip._tcp.`, `_sips._tcp.`), and
///   the addresses.
///
/// The trunk's own names have no SRV records.
#[derive(Clone, Debug)]
pub struct Zone {
    termination: Box<str>,
    domain: Box<str>,
    edges: Vec<Edge>,
    entropy: Entropy,
}

/// What a name is.
enum Owner<'a> {
    /// Addresses.
    Hosts(Vec<Proxy>),
    /// `pstn.dublin.twilio.com`
    Gate(&'a Edge),
    /// `_sip._udp.pstn.dublin.twilio.com`
    Service(&'a Edge, Transport),
}

impl Zone {
    /// Describes a trunk's names; the same seed gives the same order of addresses.
    pub fn new(termination: &str, edges: &[Edge], seed: u64) -> Self {
        let domain = termination.split_once(".pstn.").map_or(termination, |(_, domain)| domain);
        Self {
            termination: termination.into(),
            domain: domain.into(),
            edges: edges.to_vec(),
            entropy: Entropy::from_u64(seed ^ u64::from(TTL_S)),
        }
    }

    /// Answers a question.
    pub fn lookup(&mut self, name: &str, kind: Kind) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let data = self.owner(&name).map(|owner| match (owner, kind) {
            (Owner::Hosts(proxies), _) => hosts(&proxies, kind),
            (Owner::Gate(edge), Kind::A | Kind::Aaaa) => hosts(&edge.proxies, kind),
            (Owner::Gate(_), Kind::Naptr) => services(&name),
            (Owner::Gate(_), Kind::Srv | Kind::Other) => vec![],
            (Owner::Service(edge, transport), Kind::Srv) => self.gateways(edge, transport),
            (Owner::Service(..), Kind::A | Kind::Aaaa | Kind::Naptr | Kind::Other) => vec![],
        });
        let exists = data.is_some();
        let mut data = data.unwrap_or_default();
        if matches!(kind, Kind::A | Kind::Aaaa | Kind::Srv) {
            self.shuffle(&mut data);
        }
        Answer { exists, ttl_s: TTL_S, data }
    }

    /// Resolves a host as RFC 3263 4.2 says: with a port, its addresses; without, its services, or its
    /// addresses and the transport's usual port.
    pub fn resolve(
        &mut self,
        host: &str,
        port: Option<u16>,
        transport: Transport,
    ) -> Vec<SocketAddr> {
        let service = match port {
            None => self.lookup(&format!("{}{host}", prefix(transport)), Kind::Srv).data,
            Some(_) => vec![],
        };
        let targets = match &*service {
            [] => vec![(host.to_owned(), port.unwrap_or(transport.default_port()))],
            records => records.iter().filter_map(srv_target).collect(),
        };
        let mut found = vec![];
        for (name, port) in targets {
            for data in self.lookup(&name, Kind::A).data {
                if let Data::Address(ip) = data {
                    found.push(SocketAddr::new(ip, port));
                }
            }
        }
        found
    }

    fn owner(&self, name: &str) -> Option<Owner<'_>> {
        if name.eq_ignore_ascii_case(&self.termination) {
            return self.edges.first().map(|edge| Owner::Hosts(edge.proxies.clone()));
        }
        self.edges.iter().find_map(|edge| self.owner_at(edge, name))
    }

    fn owner_at<'a>(&self, edge: &'a Edge, name: &str) -> Option<Owner<'a>> {
        let domain = &self.domain;
        for alias in edge.names() {
            if name.eq_ignore_ascii_case(&localized(&self.termination, &alias)) {
                return Some(Owner::Hosts(edge.proxies.clone()));
            }
            let gate = format!("pstn.{alias}.{domain}");
            if *name == gate {
                return Some(Owner::Gate(edge));
            }
            let mut transports = Transport::ALL.into_iter();
            if let Some(found) = transports.find(|t| name == format!("{}{gate}", prefix(*t))) {
                return Some(Owner::Service(edge, found));
            }
        }
        let mut proxies = (1..).zip(&edge.proxies);
        let proxy = proxies.find(|(n, _)| name == self.gateway(edge, *n));
        proxy.map(|(_, proxy)| Owner::Hosts(vec![*proxy]))
    }

    /// The name of one address.
    fn gateway(&self, edge: &Edge, number: usize) -> String {
        format!("{number}.gateway.{}.{}", edge.name, self.domain)
    }

    fn gateways(&self, edge: &Edge, transport: Transport) -> Vec<Data> {
        let record = |(n, proxy): (usize, &Proxy)| Data::Srv {
            priority: 10,
            weight: 10,
            port: proxy.at(transport).port(),
            target: self.gateway(edge, n),
        };
        (1..).zip(&edge.proxies).map(record).collect()
    }

    fn shuffle(&mut self, data: &mut [Data]) {
        for last in (1..data.len()).rev() {
            let chosen = self.entropy.below(last as u64 + 1) as usize;
            data.swap(last, chosen);
        }
    }
}

fn hosts(proxies: &[Proxy], kind: Kind) -> Vec<Data> {
    let is_asked = |ip: &IpAddr| match kind {
        Kind::A => ip.is_ipv4(),
        Kind::Aaaa => ip.is_ipv6(),
        Kind::Srv | Kind::Naptr | Kind::Other => false,
    };
    proxies.iter().map(|proxy| proxy.plain.ip()).filter(is_asked).map(Data::Address).collect()
}

fn services(gate: &str) -> Vec<Data> {
    let order = [
        (50, "SIP+D2U", Transport::Udp),
        (60, "SIP+D2T", Transport::Tcp),
        (70, "SIPS+D2T", Transport::Tls),
    ];
    let record = |(order, service, transport)| Data::Naptr {
        order,
        preference: 50,
        service,
        replacement: format!("{}{gate}", prefix(transport)),
    };
    order.into_iter().map(record).collect()
}

fn prefix(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "_sip._udp.",
        Transport::Tcp => "_sip._tcp.",
        Transport::Tls => "_sips._tcp.",
    }
}

fn srv_target(data: &Data) -> Option<(String, u16)> {
    match data {
        Data::Srv { port, target, .. } => Some((target.clone(), *port)),
        Data::Address(_) | Data::Naptr { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn zone() -> Zone {
        Zone::new("acme.pstn.twilio.com", &Edge::all(), 1)
    }

    fn addresses(zone: &mut Zone, name: &str) -> Vec<String> {
        let data = zone.lookup(name, Kind::A).data;
        let text = |data: &Data| match data {
            Data::Address(ip) => ip.to_string(),
            Data::Srv { .. } | Data::Naptr { .. } => panic!("{data:?}"),
        };
        data.iter().map(text).collect()
    }

    #[test]
    fn each_edge_has_four_addresses_in_any_order() {
        let mut zone = zone();
        for (name, first) in [
            ("acme.pstn.twilio.com", "54.172.60.0"),
            ("Acme.PSTN.Ashburn.twilio.com.", "54.172.60.0"),
            ("acme.pstn.ie1.twilio.com", "54.171.127.192"),
            ("acme.pstn.sydney-ix.twilio.com", "54.252.254.64"),
            ("pstn.tokyo.twilio.com", "54.65.63.192"),
        ] {
            let orders: BTreeSet<_> = (0..50).map(|_| addresses(&mut zone, name)).collect();
            assert!(orders.len() > 10, "{name}: {orders:?}");
            let all: BTreeSet<_> = orders.into_iter().flatten().collect();
            assert_eq!(all.len(), 4, "{name}");
            assert!(all.contains(first), "{name}: {all:?}");
        }
        assert_eq!(addresses(&mut zone, "2.gateway.dublin.twilio.com"), ["54.171.127.193"]);
        assert_eq!(zone.lookup("acme.pstn.twilio.com", Kind::A).ttl_s, 600);
    }

    #[test]
    fn what_is_not_there() {
        let mut zone = zone();
        for name in ["other.pstn.twilio.com", "twilio.com", "acme.sip.twilio.com", "", "_sip._udp."]
        {
            assert!(!zone.lookup(name, Kind::A).exists, "{name}");
        }
        for (name, kind) in [
            ("acme.pstn.twilio.com", Kind::Aaaa),
            ("acme.pstn.twilio.com", Kind::Naptr),
            ("pstn.dublin.twilio.com", Kind::Srv),
            ("_sip._udp.pstn.dublin.twilio.com", Kind::A),
        ] {
            let nothing = Answer { exists: true, ttl_s: TTL_S, data: vec![] };
            assert_eq!(zone.lookup(name, kind), nothing, "{name}");
        }
        assert!(!zone.lookup("_sip._udp.acme.pstn.twilio.com", Kind::Srv).exists, "no SRV");
    }

    #[test]
    fn an_edges_services_lead_to_its_addresses() {
        let mut zone = zone();
        let gate = "pstn.umatilla.twilio.com";
        let naptr = zone.lookup(gate, Kind::Naptr).data;
        let Some(Data::Naptr { service: "SIPS+D2T", replacement, .. }) = naptr.last() else {
            panic!("{naptr:?}")
        };
        assert_eq!(replacement, "_sips._tcp.pstn.umatilla.twilio.com");
        assert_eq!(zone.lookup(replacement, Kind::Srv).data.len(), 4);
        let mut found = zone.resolve(gate, None, Transport::Tls);
        found.sort_unstable();
        let want: Vec<SocketAddr> = Edge::all()[1].proxies.iter().map(|proxy| proxy.tls).collect();
        assert_eq!(found, want);
        let found = zone.resolve("acme.pstn.twilio.com", None, Transport::Udp);
        assert!(found.iter().all(|address| address.port() == 5060), "{found:?}");
        assert_eq!(
            zone.resolve("acme.pstn.twilio.com", Some(5080), Transport::Udp)[0].port(),
            5080
        );
        assert_eq!(zone.resolve("nobody", None, Transport::Udp), []);
    }
}
