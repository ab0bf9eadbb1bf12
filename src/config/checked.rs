//! What the configuration means, once it is known to be sound.
//!
//! Owns: the checked types, with units and defaults settled.
//! Never: knows how a file spells them; a value that cannot work cannot be put in here by a file.

use super::{routing::Routing, secret::Secret, timezone::Timezone};
use crate::{
    dialplan::{Country, Dialplan, E164},
    guard::{BanPolicy, Emergency, Pacing, TrunkGuard, UserGuard},
    ids::Transport,
    network::Network,
    sdp::{Codec, CryptoSuite, Srtp},
    sip::digest::Algorithm,
    tls::{Authorities, Clients, Identity, Validity},
    trunk::health::Pace,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Everything the files say. Immutable; a reload makes a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[node]`
    pub node: Node,
    /// `[sip]`
    pub sip: Sip,
    /// `[tls]`; `None` where there is no certificate: then nobody can connect over TLS.
    pub tls: Option<Tls>,
    /// `[rtp]`
    pub rtp: Rtp,
    /// `[http]`
    pub http: Http,
    /// `[store]`
    pub store: Store,
    /// `[log]`
    pub log: Log,
    /// `[control]`
    pub control: Control,
    /// `[bans]`
    pub bans: BanPolicy,
    /// `[trunk.NAME]`
    pub trunks: BTreeMap<Box<str>, Arc<Trunk>>,
    /// `[user.NAME]`
    pub users: BTreeMap<Box<str>, Arc<User>>,
    /// `[emergency]`
    pub emergency: Emergency,
    /// The files of `dialplan`.
    pub dialplan: Arc<Dialplan>,
}

/// This machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it calls itself in logs and reports.
    pub name: Box<str>,
    /// Whose dialling rules apply: two letters.
    pub country: Country,
    /// Where its clock hangs.
    pub timezone: Timezone,
    /// What we tell peers outside where we are.
    pub public_ip: PublicIp,
    /// The name servers to ask, in this order; none: the system's.
    pub resolver: Vec<SocketAddr>,
    /// How long calls may take to end once no new ones are taken.
    pub drain: Duration,
}

/// What we tell peers outside where we are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PublicIp {
    /// The address from which the peer is reached.
    Auto,
    /// This one, as a NAT in front of us demands.
    Address(IpAddr),
    /// The address of this network interface.
    Interface(Box<str>),
}

/// Signalling.
#[derive(Clone, Debug, PartialEq)]
pub struct Sip {
    /// Where we listen.
    pub listen: Vec<Listen>,
    /// Of digest authentication; part of every `ha1`.
    pub realm: Box<str>,
    /// What phones are challenged with, in this order (RFC 8760 2.4).
    pub digest: Vec<Algorithm>,
    /// The shortest registration: shorter ones are refused with 423.
    pub expires_min: Duration,
    /// Of a registration that does not say.
    pub expires_default: Duration,
    /// The longest: longer ones are shortened.
    pub expires_max: Duration,
    /// How often registered phones are sent OPTIONS, if at all.
    pub ping_phones: Option<Duration>,
    /// What we ask for in Session-Expires (RFC 4028).
    pub session_expires: Duration,
    /// The shortest session interval that we accept; at least 90 s.
    pub min_se: Duration,
    /// How many calls one user may have that nobody has answered yet.
    pub max_ringing: usize,
    /// How many connections others may open to us at a time.
    pub max_connections: usize,
    /// How many hops our OPTIONS and INVITEs may take; an INVITE for a caller takes one less than it
    /// allowed, if that is fewer.
    pub max_forwards: u8,
    /// The code point (RFC 2474) of what we send; 0 is none.
    pub dscp: u8,
    /// What we call ourselves in User-Agent and Server.
    pub user_agent: Box<str>,
}

/// What those see who connect to us over TLS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// Our certificate and its key.
    pub identity: Identity,
    /// Whether they show a certificate, too.
    pub clients: Clients,
}

/// One listener.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Listen {
    /// How.
    pub transport: Transport,
    /// Where; an unspecified address means all, port 0 any free one.
    pub address: SocketAddr,
}

/// Media.
#[derive(Clone, Debug, PartialEq)]
pub struct Rtp {
    /// The first and the last port; RTP takes the even ones, RTCP the odd ones.
    pub ports: (u16, u16),
    /// What phones are offered, best first.
    pub codecs: Vec<Codec>,
    /// How long a call lives without media (not while on hold).
    pub timeout: Duration,
    /// How long we send to an address that is not where a phone's messages come from, and from which nothing
    /// ever comes.
    pub unanswered: Duration,
    /// Media threads; the port range is split between them.
    pub workers: usize,
    /// The code point (RFC 2474) of what we send; 0 is none.
    pub dscp: u8,
    /// How seldom a busy thread looks for packets; zero: whenever one comes.
    pub coalesce: Duration,
    /// Whether the kernel may relay without us.
    pub kernel: KernelPath,
}

/// Where the kernel relays plain RTP without us.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum KernelPath {
    /// Nowhere.
    #[default]
    Off,
    /// Between all network interfaces.
    All,
    /// Between these.
    These(Vec<Box<str>>),
}

/// Health and metrics.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Http {
    /// Where; `None` where it is off.
    pub listen: Option<SocketAddr>,
}

/// CDRs and bindings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Store {
    /// The SQLite file; `None`: `tandem.db` in the state directory.
    pub sqlite: Option<Box<str>>,
}

/// Logging.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Log {
    /// From which level on.
    pub level: LogLevel,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum LogLevel {
    /// We are broken.
    Error,
    /// Worth waking someone.
    Warn,
    /// Calls begin and end, trunks go up and down.
    Info,
    /// Transitions.
    Debug,
    /// Packets.
    Trace,
}

impl LogLevel {
    /// Returns the word of the file and of log filters: `info`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// A line of text.
    Text,
    /// A line of JSON.
    Json,
}

/// The socket behind `tandem status` and its kin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Control {
    /// Its path; `None`: `tandem.sock` in the runtime directory.
    pub socket: Option<Box<str>>,
}

/// A carrier.
#[derive(Clone, Debug, PartialEq)]
pub struct Trunk {
    /// As in `[trunk.NAME]`.
    pub name: Box<str>,
    /// Hosts of the Request-URI, in the order in which they are tried; at least one.
    pub uris: Vec<TrunkUri>,
    /// Where requests are really sent, whatever the Request-URI says.
    pub address: Option<SocketAddr>,
    /// How.
    pub transport: Transport,
    /// How TLS is spoken with it.
    pub tls: TrunkTls,
    /// Whether a request too big for a datagram may go by TCP (RFC 3261 18.1.1).
    pub tcp_too: bool,
    /// Our name there.
    pub username: Option<Box<str>>,
    /// Our password there.
    pub password: Option<Secret>,
    /// The host of our From; `None`: the Request-URI's.
    pub from_domain: Option<Box<str>>,
    /// How calls find another way.
    pub routing: Routing,
    /// The number we call from, where nothing nearer to the call says otherwise.
    pub caller_id: Option<E164>,
    /// The name we call under.
    pub caller_name: Option<Box<str>>,
    /// How its health is watched; `None`: not at all.
    pub qualify: Option<Pace>,
    /// Calls at a time, if limited.
    pub max_calls: Option<u32>,
    /// After this a call is ended.
    pub max_duration: Duration,
    /// What it is offered, best first.
    pub codecs: Vec<Codec>,
    /// Whence it calls us.
    pub sources: Vec<Network>,
    /// Whence its media comes, its SDP's address aside.
    pub media_sources: Vec<Network>,
    /// Whether session timers are offered (RFC 4028).
    pub session_timers: bool,
    /// Whether reliable provisional responses are offered (RFC 3262).
    pub prack: bool,
    /// Whether UPDATE may be sent (RFC 3311).
    pub update: bool,
    /// The context of calls from it.
    pub context: Box<str>,
    /// Whether it wants E.164 numbers with `+`, short ones aside.
    pub e164: bool,
    /// Whether its media is encrypted.
    pub srtp: Srtp,
    /// With what, the best first.
    pub srtp_suites: Vec<CryptoSuite>,
    /// What stands between it and a call.
    pub guard: TrunkGuard,
}

/// How TLS is spoken with a trunk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrunkTls {
    /// Who signs its certificate; `None`: whoever the system trusts.
    pub authorities: Option<Authorities>,
    /// What it is shown if it asks.
    pub identity: Option<Identity>,
    /// The name that its certificate has; `None`: the host of the Request-URI.
    pub server_name: Option<Box<str>>,
    /// Whether its certificate is checked at all.
    pub verify: bool,
}

/// A host of a trunk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrunkUri {
    /// A name or an address (IPv6 in brackets).
    pub host: Box<str>,
    /// As written.
    pub port: Option<u16>,
}

/// Somebody with phones.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// As in `[user.NAME]`: the user part of the address of record, and the digest's user name.
    pub name: Box<str>,
    /// What the phone proves to know.
    pub secret: UserSecret,
    /// Shown to those whom they call.
    pub display: Option<Box<str>>,
    /// Calls by trunk come from this number.
    pub caller_id: Option<E164>,
    /// Calls to these numbers ring here, unless a rule says otherwise.
    pub did: Vec<E164>,
    /// The context of calls from here.
    pub context: Box<str>,
    /// How many phones may be registered.
    pub max_contacts: usize,
    /// Whence media may come.
    pub latch: LatchPolicy,
    /// Whether its media is encrypted.
    pub srtp: Srtp,
    /// What stands between the user and a call by a trunk.
    pub guard: UserGuard,
}

/// What a phone proves to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UserSecret {
    /// The password.
    Password(Secret),
    /// Hashes of `user:realm:password`, in hexadecimal; at least one.
    Ha1 {
        /// By MD5.
        md5: Option<Secret>,
        /// By SHA-256.
        sha256: Option<Secret>,
    },
}

/// Whence a phone's media may come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LatchPolicy {
    /// From the address in its SDP.
    Strict,
    /// From there, or from the address that it signals from.
    Learn,
    /// From wherever its first packet comes.
    Anywhere,
}

impl Trunk {
    /// Returns how fast and how many calls leave by it.
    pub fn pacing(&self) -> Pacing {
        let TrunkGuard { rate, queue_for, queue_max, .. } = self.guard;
        Pacing { rate, calls_max: self.max_calls, queue_for, queue_max }
    }
}

impl Config {
    /// Returns every certificate of ours: what it is for, and when it holds.
    pub fn certificates(&self) -> impl Iterator<Item = (String, Validity)> + '_ {
        let ours = self.tls.iter().map(|tls| ("listener".to_owned(), tls.identity.validity()));
        ours.chain(self.trunks.values().filter_map(|trunk| {
            let identity = trunk.tls.identity.as_ref()?;
            Some((format!("trunk {}", trunk.name), identity.validity()))
        }))
    }

    /// Returns the context of a caller's calls: a user's own, else the first trunk's.
    pub fn context_of(&self, from: &str) -> &str {
        let user = self.users.get(from).map(|user| &*user.context);
        let trunk = || self.trunks.values().next().map(|trunk| &*trunk.context);
        user.or_else(trunk).unwrap_or("inbound")
    }
}
