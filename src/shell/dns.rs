//! Locating SIP servers in DNS: NAPTR, SRV, addresses (RFC 3263 4.1, 4.2).
//!
//! Owns: the questions of one name, and how long their answers hold.
//! Never: chooses among what is found; the transport is the configuration's.

use super::now;
use crate::ids::Transport;
use hickory_resolver::{
    TokioResolver,
    proto::rr::{RData, RecordType},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// One server of a name.
#[derive(Debug)]
pub(super) struct Target {
    /// As in its SRV record; 0 without one.
    pub(super) priority: u16,
    /// As in its SRV record; 0 without one.
    pub(super) weight: u16,
    /// Its addresses.
    pub(super) at: Vec<SocketAddr>,
}

/// What a name leads to.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// None: nowhere.
    pub(super) targets: Vec<Target>,
    /// The shortest life of all records on the way; `None`: for good.
    pub(super) ttl: Option<Duration>,
}

impl Found {
    /// Returns what needs no DNS.
    pub(super) fn of(target: Target) -> Self {
        Self { targets: vec![target], ttl: None }
    }

    fn hold_until(&mut self, until: Instant) {
        let ttl = until.saturating_duration_since(now());
        self.ttl = Some(self.ttl.map_or(ttl, |before| before.min(ttl)));
    }
}

/// Finds a name's servers: with a port, its addresses; without, its services by NAPTR or SRV, and its
/// addresses where it has none.
pub(super) async fn locate(
    resolver: &TokioResolver,
    host: &str,
    port: Option<u16>,
    transport: Transport,
) -> Found {
    let mut found = Found::default();
    if port.is_none() {
        let usual = format!("{}{}.", prefix(transport), host.trim_end_matches('.'));
        // Most names have no NAPTR: their SRV is not kept waiting for that answer.
        let (named, guessed) =
            tokio::join!(replacements(resolver, host, transport), services(resolver, &usual));
        let (services_found, until) = match named.first() {
            Some((name, _)) if *name != usual => services(resolver, name).await,
            Some(_) | None => guessed,
        };
        for Service { priority, weight, target, port } in services_found {
            let (at, held) = addresses(resolver, &target, port).await;
            held.into_iter().for_each(|held| found.hold_until(held));
            if !at.is_empty() {
                found.targets.push(Target { priority, weight, at });
            }
        }
        if !found.targets.is_empty() {
            let naptr = named.first().map(|(_, until)| *until);
            until.into_iter().chain(naptr).for_each(|until| found.hold_until(until));
            return found;
        }
    }
    let (at, until) = addresses(resolver, host, port.unwrap_or(transport.default_port())).await;
    let mut found = Found::default();
    until.into_iter().for_each(|until| found.hold_until(until));
    if !at.is_empty() {
        found.targets.push(Target { priority: 0, weight: 0, at });
    }
    found
}

/// One SRV record.
struct Service {
    priority: u16,
    weight: u16,
    target: String,
    port: u16,
}

/// Returns the SRV names that a name's NAPTR records have for our transport, best first.
async fn replacements(
    resolver: &TokioResolver,
    host: &str,
    transport: Transport,
) -> Vec<(String, Instant)> {
    let Ok(found) = resolver.lookup(host, RecordType::NAPTR).await else { return vec![] };
    let until = found.valid_until();
    let mut records: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| {
            let RData::NAPTR(naptr) = &record.data else { return None };
            let is_ours = naptr.services.eq_ignore_ascii_case(service(transport).as_bytes())
                && naptr.flags.eq_ignore_ascii_case(b"s");
            is_ours.then(|| (naptr.order, naptr.preference, naptr.replacement.to_string()))
        })
        .collect();
    records.sort();
    records.into_iter().map(|(.., name)| (name, until)).collect()
}

async fn services(resolver: &TokioResolver, name: &str) -> (Vec<Service>, Option<Instant>) {
    let Ok(found) = resolver.lookup(name, RecordType::SRV).await else { return (vec![], None) };
    let services = found.answers().iter().filter_map(|record| {
        let RData::SRV(srv) = &record.data else { return None };
        let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
        let target = srv.target.to_string();
        // RFC 2782: a target of `.` says that the service is not there.
        (target != ".").then_some(Service { priority, weight, target, port })
    });
    (services.collect(), Some(found.valid_until()))
}

async fn addresses(
    resolver: &TokioResolver,
    host: &str,
    port: u16,
) -> (Vec<SocketAddr>, Option<Instant>) {
    match resolver.lookup_ip(host).await {
        Ok(found) => {
            let at = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
            (at, Some(found.valid_until()))
        }
        Err(_) => (vec![], None),
    }
}

/// The label of a transport's SRV records (RFC 3263 4.1).
fn prefix(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "_sip._udp.",
        Transport::Tcp => "_sip._tcp.",
        Transport::Tls => "_sips._tcp.",
    }
}

/// The service field of a transport's NAPTR records (RFC 3263 4.1).
fn service(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "SIP+D2U",
        Transport::Tcp => "SIP+D2T",
        Transport::Tls => "SIPS+D2T",
    }
}
