//! What everything is called: our own identifiers, the transports and the flows between addresses.
//!
//! Owns: the identifiers' shapes, and minting the unpredictable ones.
//! Never: decides anything about a message.

mod mint;
pub(crate) use mint::hex;
pub use mint::{Digest, Digester, MAGIC_COOKIE, Mint, MintKey};

use rand_chacha::{
    ChaCha12Rng,
    rand_core::{Rng, SeedableRng},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// A transport that carries SIP (RFC 3261 18, RFC 7118).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Transport {
    /// Datagrams; we retransmit.
    Udp,
    /// A byte stream; messages are framed by Content-Length.
    Tcp,
    /// The same inside TLS (RFC 3261 26.2.1).
    Tls,
}

impl Transport {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Returns the token of a Via header: `UDP`, `TCP`, `TLS`.
    pub fn token(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Returns the value of a URI's `transport` parameter: `udp`, `tcp`, `tls`.
    pub fn param(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Reads a Via token or a URI parameter, in any case of letters.
    pub fn parse(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.token().eq_ignore_ascii_case(token))
    }

    /// Returns whether the transport itself retransmits what is lost.
    pub fn is_reliable(self) -> bool {
        match self {
            Self::Udp => false,
            Self::Tcp | Self::Tls => true,
        }
    }

    /// Returns the port that is meant when none is named (RFC 3261 19.1.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

/// Where a message came from or goes to: one of our listeners and the peer's address.
///
/// `local` is always the *listener's* address (what Via and Contact name), also for connections that
/// we opened ourselves from an ephemeral port. A TCP connection is identified by its remote address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Flow {
    /// How.
    pub transport: Transport,
    /// Our listener.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
}

impl Flow {
    /// Returns what it prints as, the usual one of which is IPv4's.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(32);
        text.push_str(self.transport.param());
        text.push(':');
        push_address(&mut text, self.remote);
        text
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.param(), self.remote)
    }
}

/// An index of a shard, below the number of shards.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ShardId(pub u8);

impl ShardId {
    /// Returns the next one; after the last comes the first.
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// One of our calls. Prints as `c00-2a`: the shard, then a serial number, both hexadecimal.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CallId(pub u64);

/// One leg of a call, and its side of the media relay. Prints as `l00-2a`.
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct LegId(pub u64);

macro_rules! serial {
    ($type:ident, $letter:literal) => {
        impl $type {
            /// Joins the owner and its serial number (of which 56 bits are used).
            pub fn new(shard: ShardId, serial: u64) -> Self {
                Self((u64::from(shard.0) << 56) | (serial & (u64::MAX >> 8)))
            }

            /// Returns the owner.
            pub fn shard(self) -> ShardId {
                ShardId((self.0 >> 56) as u8)
            }

            /// Reads what `Display` prints.
            pub fn parse(text: &str) -> Option<Self> {
                let (shard, serial) = text.strip_prefix($letter)?.split_once('-')?;
                let shard = u8::from_str_radix(shard, 16).ok()?;
                Some(Self::new(ShardId(shard), u64::from_str_radix(serial, 16).ok()?))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{:02x}-{:x}", $letter, self.shard().0, self.0 & (u64::MAX >> 8))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

serial!(CallId, 'c');
serial!(LegId, 'l');

/// The source of everything unpredictable in the core. Seeded from the operating system by the
/// shell, and from the test's seed in the simulated world.
#[derive(Clone, Debug)]
pub struct Entropy(ChaCha12Rng);

impl Entropy {
    /// Creates the generator; the same seed gives the same sequence.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// Creates the generator of a test or a simulation.
    pub fn from_u64(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }

    /// Returns 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Returns a number below `bound`, or 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// A source of randomness for one leg, most of which never need any: 40 bytes until it is used.
#[derive(Clone)]
pub struct Spring {
    seed: [u8; 32],
    entropy: Option<Box<Entropy>>,
}

impl Spring {
    /// Creates it with a seed from another source.
    pub fn new(entropy: &mut Entropy) -> Self {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        Self { seed, entropy: None }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        let seed = self.seed;
        self.entropy.get_or_insert_with(|| Box::new(Entropy::new(seed))).fill(bytes);
    }
}

impl fmt::Debug for Spring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spring(***)")
    }
}

/// Appends an address and its port, as `Display` writes them, without its machinery: a message of ours has
/// three.
pub fn push_address(text: &mut String, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            push_ip(text, address.ip());
            text.push(':');
            push_number(text, v4.port().into());
        }
        SocketAddr::V6(_) => text.push_str(&address.to_string()),
    }
}

/// Appends an address, likewise.
pub fn push_ip(text: &mut String, ip: IpAddr) {
    let IpAddr::V4(v4) = ip else { return text.push_str(&ip.to_string()) };
    for (at, octet) in v4.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        push_number(text, octet.into());
    }
}

/// Appends a number, likewise.
pub fn push_number(text: &mut String, number: u64) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut first) = (number, digits.len());
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        (*digit, rest, first) = (b'0' + (rest % 10) as u8, rest / 10, at);
        if rest == 0 {
            break;
        }
    }
    let digits = digits.get(first..).unwrap_or_default();
    digits.iter().for_each(|digit| text.push(char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_read_back() {
        let call = CallId::new(ShardId(3), 42);
        assert_eq!(call.to_string(), "c03-2a");
        assert_eq!(CallId::parse("c03-2a"), Some(call));
        assert_eq!(call.shard(), ShardId(3));
        assert_eq!(LegId::parse("c03-2a"), None);
        assert_eq!(CallId::parse("c-"), None);
    }

    #[test]
    fn addresses_are_written_as_they_display() {
        for address in ["0.0.0.0:0", "10.0.0.1:5060", "255.20.103.9:65535", "[2001:db8::1]:10"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut text = String::new();
            push_address(&mut text, address);
            assert_eq!(text, address.to_string());
        }
        for number in 0..=u16::MAX {
            let mut text = String::new();
            push_number(&mut text, number.into());
            assert_eq!(text.parse(), Ok(number));
        }
        for number in [99_999, 100_000, u64::MAX - 1, u64::MAX] {
            let mut text = String::from("x");
            push_number(&mut text, number);
            assert_eq!(text, format!("x{number}"));
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_entropy() {
        assert_eq!(Entropy::from_u64(7).next_u64(), Entropy::from_u64(7).next_u64());
        assert_ne!(Entropy::from_u64(7).next_u64(), Entropy::from_u64(8).next_u64());
    }
}
