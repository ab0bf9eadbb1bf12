//! What a simulated trunk is: its account, its edges, its limits.
//!
//! Owns: the account's description.
//! Never: changes while the trunk runs.

use super::{super::world::Reach, origination::Origination};
use crate::{ids::Transport, network::Network};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Twilio's edges: name, older name, first of the four signalling addresses, as published.
const EDGES: [(&str, &str, [u8; 4]); 8] = [
    ("ashburn", "us1", [54, 172, 60, 0]),
    ("umatilla", "us2", [54, 244, 51, 0]),
    ("dublin", "ie1", [54, 171, 127, 192]),
    ("frankfurt", "de1", [35, 156, 191, 128]),
    ("singapore", "sg1", [54, 169, 127, 128]),
    ("tokyo", "jp1", [54, 65, 63, 192]),
    ("sao-paulo", "br1", [177, 71, 206, 192]),
    ("sydney", "au1", [54, 252, 254, 64]),
];
/// Addresses of an edge.
const PROXIES: u8 = 4;

/// A trunk.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whose it is.
    pub account: Account,
    /// Where its proxies are; the trunk's plain name leads to the first.
    pub edges: Vec<Edge>,
    /// How much may be asked of it.
    pub limits: Limits,
    /// What it allows and wants.
    pub policy: Policy,
    /// How long the far ends of calls take.
    pub timing: Timing,
    /// Whether refusals name their error (`X-Twilio-Error`).
    pub names_errors: bool,
    /// Where its media is; `None`: it asks.
    pub media: Option<IpAddr>,
    /// Under which address it sees the PBX (`received` in its answers); `None`: as it is.
    pub sees: Option<IpAddr>,
}

/// A trunk's account.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// `name.pstn.twilio.com`
    pub termination: Box<str>,
    /// User name and password of the credential list, if there is one.
    pub credentials: Option<(Box<str>, Box<str>)>,
    /// The access control list; empty: none.
    pub allowed: Vec<Network>,
    /// The account's numbers.
    pub numbers: Vec<Box<str>>,
    /// Numbers that the account has proved to be its own, elsewhere.
    pub verified: Vec<Box<str>>,
    /// What numbers must begin with to be called (`+1`); empty: anything.
    pub countries: Vec<Box<str>>,
    /// Numbers that may not be called.
    pub blocked: Vec<Box<str>>,
    /// Addresses that may not call.
    pub blocked_sources: Vec<Network>,
    /// Whether it is paid for.
    pub state: State,
    /// Where calls from the PSTN go.
    pub origination: Vec<Origination>,
}

/// Whether an account is paid for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum State {
    /// It is.
    #[default]
    Active,
    /// Not yet: it calls verified numbers only.
    Trial,
    /// Not any more: it calls nobody.
    Suspended,
}

/// How much may be asked of a trunk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Calls per second at one edge, if limited.
    pub calls_per_s: Option<usize>,
    /// Calls at a time, if limited.
    pub calls_max: Option<usize>,
    /// Calls per second from one address to one of the trunk's.
    pub calls_per_address_s: usize,
    /// How long a call may last.
    pub duration: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let duration = Duration::from_secs(4 * 3600);
        Self { calls_per_s: None, calls_max: None, calls_per_address_s: 30, duration }
    }
}

/// What a trunk allows and wants. By default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policy {
    /// TLS and SRTP, and nothing else (Secure Trunking).
    pub secure: bool,
    /// Calls may be transferred by REFER.
    pub transfers: bool,
    /// Media may come from anywhere, and is sent back there (Symmetric RTP).
    pub symmetric: bool,
}

/// How long the far ends of calls take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the INVITE to the first ring.
    pub post_dial: Duration,
    /// From the first ring to the answer.
    pub ring: Duration,
}

/// A place where the trunk is present.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edge {
    /// `ashburn`
    pub name: Box<str>,
    /// Its addresses.
    pub proxies: Vec<Proxy>,
}

/// One address of an edge: where it listens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Proxy {
    /// For UDP and TCP.
    pub plain: SocketAddr,
    /// For TLS.
    pub tls: SocketAddr,
}

impl Setup {
    /// Describes a trunk at one address, without limits, with early media after 300 ms and an answer
    /// after 2 s more.
    pub fn new(local: SocketAddr, termination: &str) -> Self {
        Self {
            account: Account { termination: termination.into(), ..Account::default() },
            edges: vec![Edge { name: "ashburn".into(), proxies: vec![Proxy::new(local)] }],
            limits: Limits::default(),
            policy: Policy::default(),
            timing: Timing { post_dial: Duration::from_millis(300), ring: Duration::from_secs(2) },
            names_errors: true,
            media: None,
            sees: None,
        }
    }

    /// Returns every address on which it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let proxies = self.edges.iter().flat_map(|edge| &edge.proxies);
        proxies.flat_map(|proxy| [proxy.plain, proxy.tls]).collect()
    }

    /// Returns whether a Request-URI's host is this trunk's, at whatever edge.
    pub fn is_termination(&self, host: &str) -> bool {
        let termination = &*self.account.termination;
        let mut names = self.edges.iter().flat_map(Edge::names);
        host.eq_ignore_ascii_case(termination)
            || names.any(|edge| host.eq_ignore_ascii_case(&localized(termination, &edge)))
    }
}

impl Account {
    /// Returns whether a call may come from this number.
    pub(super) fn has(&self, number: &str) -> bool {
        self.numbers.iter().chain(&self.verified).any(|known| **known == *number)
    }
}

impl Edge {
    /// Returns Twilio's eight edges, at the addresses that are Twilio's.
    pub fn all() -> Vec<Self> {
        EDGES.iter().map(|(name, ..)| (*name).into()).map(Self::published).collect()
    }

    /// Returns the names under which it is known: its own, the older one, those of the private
    /// interconnect.
    pub fn names(&self) -> Vec<String> {
        let known = EDGES.iter().find(|(name, ..)| **name == *self.name);
        let older = known.map(|(_, older, _)| *older);
        let both = [Some(&*self.name), older];
        both.into_iter()
            .flatten()
            .flat_map(|name| [name.to_owned(), format!("{name}-ix")])
            .collect()
    }

    fn published(name: Box<str>) -> Self {
        let known = EDGES.iter().find(|(known, ..)| **known == *name);
        let proxies = known.into_iter().flat_map(|(.., [a, b, c, d])| {
            (0..PROXIES).map(move |n| Proxy::new(([*a, *b, *c, d + n], 5060).into()))
        });
        Self { proxies: proxies.collect(), name }
    }
}

impl Proxy {
    /// Returns the proxy of this address for UDP and TCP; TLS is at the next port.
    pub fn new(plain: SocketAddr) -> Self {
        Self { plain, tls: SocketAddr::new(plain.ip(), plain.port().wrapping_add(1)) }
    }

    /// Returns where it listens for a transport.
    pub fn at(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Udp | Transport::Tcp => self.plain,
            Transport::Tls => self.tls,
        }
    }

    /// Returns whether one of its addresses is this one.
    pub(super) fn is_at(&self, address: SocketAddr) -> bool {
        self.plain == address || self.tls == address
    }
}

/// Returns the trunk's name at an edge: `acme.pstn.dublin.twilio.com`.
pub(super) fn localized(termination: &str, edge: &str) -> String {
    match termination.split_once(".pstn.") {
        Some((trunk, domain)) => format!("{trunk}.pstn.{edge}.{domain}"),
        None => format!("{edge}.{termination}"),
    }
}

/// Returns whether nothing comes out of an address.
pub(super) fn is_mute(reach: Reach) -> bool {
    match reach {
        Reach::Blackholed | Reach::Refusing => true,
        Reach::Open | Reach::Slow(_) => false,
    }
}
