//! How the world sees us: our address by STUN, and what a NAT on the way does.
//!
//! Owns: the questions to two servers, and what their answers together mean.
//! Never: changes `public_ip`.

use super::{
    report::{Finding, Verdict},
    stun,
};
use crate::{
    config::PublicIp,
    ids::Entropy,
    shell::{resolver::Names, routes::interface_address},
};
use std::net::{IpAddr, SocketAddr};
use tokio::net::UdpSocket;

/// Where STUN listens (RFC 8489 7).
const STUN_PORT: u16 = 3478;

/// How two servers see one socket of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Seen {
    /// The address that the kernel sends from.
    pub(super) local: Option<IpAddr>,
    /// What each server that answered has seen.
    pub(super) mapped: Vec<SocketAddr>,
}

impl Seen {
    /// Returns the address under which the world knows us.
    pub(super) fn public(&self) -> Option<IpAddr> {
        self.mapped.first().map(SocketAddr::ip)
    }
}

/// Asks the servers, from one socket: only so do their answers tell what a NAT does.
pub(super) async fn look(servers: &[String], names: &Names, entropy: &mut Entropy) -> Seen {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0").await else { return Seen::default() };
    let mut seen = Seen::default();
    for server in servers {
        let Some(address) = address_of(server, names).await else { continue };
        let mut transaction = [0; 12];
        entropy.fill(&mut transaction);
        if let Ok(mapped) = stun::mapped(&socket, address, transaction).await {
            seen.mapped.push(mapped);
            seen.local = crate::shell::routes::source_of(address.ip());
        }
    }
    seen
}

async fn address_of(server: &str, names: &Names) -> Option<SocketAddr> {
    if let Ok(address) = server.parse() {
        return Some(address);
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (server, STUN_PORT),
    };
    let found = names.addresses(host).await.ok()?;
    let v4 = found.ips.into_iter().find(IpAddr::is_ipv4)?;
    Some(SocketAddr::new(v4, port))
}

/// Says what kind of NAT there is (RFC 4787 4.1's words).
pub(super) fn nat(seen: &Seen) -> Finding {
    let finding = |verdict, found: String| Finding::new("address", verdict, found);
    let Some(public) = seen.public() else {
        return finding(Verdict::Unknown, "no STUN server answers".into())
            .help("name one that can be reached: `--stun HOST`");
    };
    if seen.local == Some(public) {
        return finding(Verdict::Well, format!("{public}, no NAT"));
    }
    match seen.mapped.as_slice() {
        [one, two, ..] if one == two => {
            finding(Verdict::Well, format!("{public}, a NAT that maps a port to one port"))
        }
        [_, _, ..] => finding(
            Verdict::Note,
            format!("{public}, a NAT that maps a port to another one for each peer"),
        )
        .help("forward `[rtp] ports` and the SIP ports to this machine, port by port"),
        [_] | [] => finding(Verdict::Well, format!("{public}, a NAT of unknown kind")),
    }
}

/// Compares what our SDP says with where a carrier can send.
pub(super) fn sdp_address(
    public_ip: &PublicIp,
    local: Option<IpAddr>,
    seen: Option<IpAddr>,
) -> Finding {
    let said = match public_ip {
        PublicIp::Address(ip) => Some(*ip),
        PublicIp::Interface(name) => interface_address(name),
        PublicIp::Auto => local,
    };
    let finding = |verdict, found: String| Finding::new("sdp", verdict, found);
    match (said, seen) {
        (None, _) => finding(Verdict::Wrong, "no address to put into SDP".into())
            .help("set `[node] public_ip` to the address that the carrier can reach"),
        (Some(said), None) => {
            finding(Verdict::Unknown, format!("says {said}; nobody has told us how we are seen"))
        }
        (Some(said), Some(seen)) if said == seen => finding(Verdict::Well, format!("says {said}")),
        (Some(said), Some(seen)) => {
            let found = match public_ip {
                PublicIp::Auto => format!("says {said} until a trunk's answer says {seen}"),
                PublicIp::Address(_) | PublicIp::Interface(_) => {
                    format!("says {said}, and we are seen at {seen}: the caller hears nothing")
                }
            };
            let help =
                format!("set `[node] public_ip = \"{seen}\"` and forward `[rtp] ports` to it");
            finding(Verdict::Wrong, found).help(help)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(local: &str, mapped: &[&str]) -> Seen {
        let mapped = mapped.iter().map(|text| text.parse().unwrap()).collect();
        Seen { local: Some(local.parse().unwrap()), mapped }
    }

    #[test]
    fn the_kind_of_nat_follows_from_two_answers() {
        let (a, b) = ("203.0.113.7:4000", "203.0.113.7:4001");
        for (local, mapped, verdict, word) in [
            ("203.0.113.7", vec![a, a], Verdict::Well, "no NAT"),
            ("10.0.0.5", vec![a, a], Verdict::Well, "to one port"),
            ("10.0.0.5", vec![a, b], Verdict::Note, "for each peer"),
            ("10.0.0.5", vec![a], Verdict::Well, "unknown kind"),
            ("10.0.0.5", vec![], Verdict::Unknown, "no STUN server"),
        ] {
            let found = nat(&seen(local, &mapped));
            assert_eq!(found.verdict, verdict, "{mapped:?}");
            assert!(found.found.contains(word), "{found:?}");
        }
    }

    #[test]
    fn sdp_must_say_where_we_are_seen() {
        let (inside, outside) = ("10.0.0.5".parse().ok(), "203.0.113.7".parse().ok());
        let set = |ip: &str| PublicIp::Address(ip.parse().unwrap());
        for (public_ip, seen, verdict) in [
            (PublicIp::Auto, inside, Verdict::Well),
            (PublicIp::Auto, outside, Verdict::Wrong),
            (PublicIp::Auto, None, Verdict::Unknown),
            (set("203.0.113.7"), outside, Verdict::Well),
            (set("203.0.113.8"), outside, Verdict::Wrong),
            (PublicIp::Interface("no such one".into()), outside, Verdict::Wrong),
        ] {
            assert_eq!(sdp_address(&public_ip, inside, seen).verdict, verdict, "{public_ip:?}");
        }
    }
}
