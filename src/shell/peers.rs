//! Who is meant to be at an address: the name that a TLS connection must prove.
//!
//! Owns: the names under which addresses were found, and the trunks that speak TLS.
//! Never: asks a name server, or decides where a message goes.

use crate::{
    call::{Ask, ResolveFor},
    config::{Config, Trunk},
    ids::Transport,
    network::Network,
    shard::Answer,
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

/// Addresses with names; above, they are learnt anew.
const KNOWN_MAX: usize = 4096;

/// Whom a connection must lead to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Peer {
    /// The name of the certificate, also told to the peer (SNI); an address where there is none.
    pub(super) host: Box<str>,
    /// The trunk whose settings hold, if it is one.
    pub(super) trunk: Option<Box<str>>,
}

/// Every peer to which we may open a TLS connection.
#[derive(Debug, Default)]
pub(super) struct Peers {
    trunks: Vec<Arc<Trunk>>,
    asked: BTreeMap<ResolveFor, Peer>,
    known: BTreeMap<SocketAddr, Peer>,
}

impl Peers {
    /// Takes the trunks of a configuration; what was learnt under another is forgotten.
    pub(super) fn configure(&mut self, config: &Config) {
        let trunks = config.trunks.values().filter(|trunk| trunk.transport == Transport::Tls);
        let trunks: Vec<_> = trunks.cloned().collect();
        if trunks != self.trunks {
            self.known.clear();
            self.trunks = trunks;
        }
    }

    /// Learns that addresses are wanted.
    pub(super) fn asked(&mut self, ask: &Ask) {
        if let Ask::Resolve { token, host, transport: Transport::Tls, .. } = ask {
            let peer = self.named(token, host);
            self.asked.insert(token.clone(), peer);
        }
    }

    /// Learns what they are.
    pub(super) fn answered(&mut self, answer: &Answer) {
        let Answer::Resolved { token, located } = answer else { return };
        let Some(peer) = self.asked.remove(token) else { return };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let flows = located.flows().filter(|flow| flow.transport == Transport::Tls);
        self.known.extend(flows.map(|flow| (flow.remote, peer.clone())));
    }

    /// Returns who is at an address: whom we looked for there, or the trunk that calls from there;
    /// nobody whose connection alone leads to them.
    pub(super) fn at(&self, remote: SocketAddr) -> Option<Peer> {
        let ip = remote.ip();
        let near = || self.known.iter().find(|(known, _)| known.ip() == ip).map(|(_, peer)| peer);
        let is_there = |trunk: &&Arc<Trunk>| {
            trunk.address.is_some_and(|address| address.ip() == ip)
                || Network::any(&trunk.sources, ip)
        };
        let trunk = || self.trunks.iter().find(is_there).map(|trunk| peer_of(trunk, None));
        self.known.get(&remote).or_else(near).cloned().or_else(trunk)
    }

    fn named(&self, token: &ResolveFor, host: &str) -> Peer {
        let has = |trunk: &&Arc<Trunk>| match token {
            ResolveFor::Trunk(name, _) => trunk.name == *name,
            ResolveFor::Leg(_) => {
                trunk.uris.iter().any(|uri| uri.host.eq_ignore_ascii_case(host))
                    || trunk.address.is_some_and(|at| host.parse() == Ok(at.ip()))
            }
        };
        match self.trunks.iter().find(has) {
            Some(trunk) => peer_of(trunk, Some(host)),
            None => Peer { host: host.into(), trunk: None },
        }
    }
}

/// A trunk is known by its own name: where `address` says where it is, that is not the name.
pub(super) fn peer_of(trunk: &Trunk, host: Option<&str>) -> Peer {
    let hosts = || trunk.uris.iter().map(|uri| &uri.host);
    // A proxy in between shows its own name.
    let proxy = trunk.routing.proxy.iter().map(|proxy| &proxy.host);
    let asked = hosts()
        .chain(proxy)
        .find(|known| host.is_some_and(|host| known.eq_ignore_ascii_case(host)));
    let host = trunk.tls.server_name.as_ref().or(asked).or_else(|| hosts().next());
    Peer { host: host.cloned().unwrap_or_default(), trunk: Some(trunk.name.clone()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Files, check},
        ids::Flow,
        locate::Located,
        trunk::routes::Place,
    };

    const TRUNKS: &str = "\
        [trunk.edge]\nuri = ['acme.pstn.twilio.com', 'acme.pstn.dublin.twilio.com']\n\
        transport = 'tls'\nsource = '54.172.60.0/30'\n\
        [trunk.here]\nuri = 'carrier.example'\naddress = '127.0.0.9:5061'\ntransport = 'tls'\n\
        source = []\ntls = { server_name = 'sbc.carrier.example' }\n\
        [trunk.plain]\nuri = 'plain.example'\nsource = '198.51.100.7'\n";

    fn peers() -> Peers {
        let files = Files::default().with("pbx.toml", TRUNKS);
        let config = check("pbx.toml", &files).config.unwrap();
        let mut peers = Peers::default();
        peers.configure(&config);
        peers
    }

    fn ask(peers: &mut Peers, trunk: &str, host: &str, found: &str) {
        let (transport, host) = (Transport::Tls, Box::<str>::from(host));
        let place = Place { host: host.clone(), port: None, transport };
        let token = ResolveFor::Trunk(trunk.into(), place);
        peers.asked(&Ask::Resolve { token: token.clone(), host, port: None, transport });
        let local = "192.0.2.1:5061".parse().unwrap();
        let flows = vec![Flow { transport, local, remote: found.parse().unwrap() }];
        let located = Located::alike(flows, None);
        peers.answered(&Answer::Resolved { token, located });
    }

    fn at(peers: &Peers, remote: &str) -> Option<(String, String)> {
        let peer = peers.at(remote.parse().unwrap())?;
        Some((peer.host.into(), peer.trunk.unwrap_or_default().into()))
    }

    #[test]
    fn an_address_has_the_name_under_which_it_was_found() {
        let mut peers = peers();
        let some = |host: &str, trunk: &str| Some((host.to_owned(), trunk.to_owned()));
        let (edge, dublin) = ("acme.pstn.twilio.com", "acme.pstn.dublin.twilio.com");
        ask(&mut peers, "edge", dublin, "54.171.127.192:5061");
        ask(&mut peers, "here", "127.0.0.9", "127.0.0.9:5061");
        ask(&mut peers, "nobody", "sip.example", "203.0.113.9:5061");
        for (remote, want) in [
            ("54.171.127.192:5061", some(dublin, "edge")),
            // Its other port: a Route that names the same machine.
            ("54.171.127.192:5063", some(dublin, "edge")),
            // It called us from there.
            ("54.172.60.1:34567", some(edge, "edge")),
            ("127.0.0.9:5061", some("sbc.carrier.example", "here")),
            ("203.0.113.9:5061", some("sip.example", "")),
            // A phone, and a trunk without TLS.
            ("192.0.2.77:40000", None),
            ("198.51.100.7:5060", None),
        ] {
            assert_eq!(at(&peers, remote), want, "{remote}");
        }
    }

    #[test]
    fn another_configuration_begins_anew() {
        let mut peers = peers();
        ask(&mut peers, "nobody", "sip.example", "203.0.113.9:5061");
        let files = Files::default().with("pbx.toml", TRUNKS.replace("sbc.", "other.").as_str());
        let config = check("pbx.toml", &files).config.unwrap();
        peers.configure(&config);
        assert_eq!(at(&peers, "203.0.113.9:5061"), None);
        assert_eq!(at(&peers, "127.0.0.9:1").unwrap().0, "other.carrier.example");
    }
}
