//! Blocks of addresses: `54.172.60.0/30`.
//!
//! Owns: reading, printing and matching CIDR networks (RFC 4632).
//! Never: decides what happens to an address outside.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A block of addresses. Reads and prints as `54.172.60.0/30`; a bare address is a block of one.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is not a [`Network`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NetworkError {
    /// The part before the slash.
    #[error("not an IP address")]
    NotAnAddress,
    /// The part after the slash.
    #[error("the prefix length is a number from 0 to {0}")]
    BadPrefix(u8),
    /// `10.0.0.1/8`: more likely a slip than a wish.
    #[error("the address has bits beyond its prefix; write {0}")]
    HostBits(Network),
}

/// Returns what counts as one source: an IPv4 address, an IPv6 network. Who has one IPv6 address has 2^64 of
/// them.
pub fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl Network {
    /// Creates an IPv4 block from its first address.
    pub const fn v4(octets: [u8; 4], prefix: u8) -> Self {
        let [a, b, c, d] = octets;
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    /// Returns the block of one address.
    pub fn single(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: prefix_max(address) }
    }

    /// Returns what stands for whoever has this address: the address alone, or the /64 of an IPv6
    /// address, since who has one of these has 2^64 of them.
    pub fn source(ip: IpAddr) -> Self {
        let address = source(ip);
        Self { address, prefix: if address.is_ipv4() { 32 } else { 64 } }
    }

    /// Returns whether the two have an address in common.
    pub fn overlaps(&self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Returns the first address.
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// Reads `address/prefix` or `address`.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| NetworkError::NotAnAddress)?;
        let Some(prefix) = prefix else { return Ok(Self::single(address)) };

        let max = prefix_max(address);
        let bad_prefix = NetworkError::BadPrefix(max);
        let prefix = prefix.trim().parse::<u8>().map_err(|_| bad_prefix)?;
        if prefix > max {
            return Err(bad_prefix);
        }
        let network = Self { address: first_address(address, prefix), prefix };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }

    /// Returns whether `ip` lies inside. An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`), as a
    /// dual-stack socket reports it, counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.address.is_ipv4() && first_address(ip, self.prefix) == self.address
    }

    /// Returns whether one of `networks` contains `ip`.
    pub fn any(networks: &[Self], ip: IpAddr) -> bool {
        networks.iter().any(|network| network.contains(ip))
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        Self::parse(text)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.prefix == prefix_max(self.address) { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn prefix_max(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// Returns `address` with everything after the first `prefix` bits cleared.
fn first_address(address: IpAddr, prefix: u8) -> IpAddr {
    let kept = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let host_bits = u32::MAX.checked_shr(kept).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & !host_bits).into()
        }
        IpAddr::V6(v6) => {
            let host_bits = u128::MAX.checked_shr(kept).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & !host_bits).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_or_its_network() {
        for (ip, want) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(source(ip.parse().unwrap()), want.parse::<IpAddr>().unwrap());
        }
    }

    #[test]
    fn contains_what_the_prefix_covers_and_nothing_else() {
        for (network, ip, inside) in [
            ("54.172.60.0/30", "54.172.60.0", true),
            ("54.172.60.0/30", "54.172.60.3", true),
            ("54.172.60.0/30", "54.172.60.4", false),
            ("54.172.60.0/30", "54.172.59.255", false),
            ("54.172.60.0/30", "::ffff:54.172.60.2", true),
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "127.0.0.1", false),
            ("::1", "::1", true),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(network.contains(ip.parse().unwrap()), inside, "{ip} in {network}");
        }
    }

    #[test]
    fn a_source_is_an_address_or_a_64() {
        for (ip, want) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(Network::source(ip.parse().unwrap()).to_string(), want);
        }
        for (a, b, want) in [
            ("192.0.2.0/24", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.0/24", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("::/0", "0.0.0.0/0", false),
        ] {
            assert_eq!(Network::parse(a).unwrap().overlaps(Network::parse(b).unwrap()), want);
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["54.172.60.0/30", "10.0.0.7", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            assert_eq!(Network::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Network::parse("10.0.0.7/32").unwrap().to_string(), "10.0.0.7");
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, want) in [
            ("twilio.com", "not an IP address"),
            ("", "not an IP address"),
            ("10.0.0.0/33", "the prefix length is a number from 0 to 32"),
            ("10.0.0.0/", "the prefix length is a number from 0 to 32"),
            ("10.0.0.0/-1", "the prefix length is a number from 0 to 32"),
            ("::/129", "the prefix length is a number from 0 to 128"),
            ("54.172.60.1/30", "the address has bits beyond its prefix; write 54.172.60.0/30"),
        ] {
            assert_eq!(Network::parse(text).unwrap_err().to_string(), want, "{text}");
        }
    }
}
