//! Nonces that carry their own proof of origin and age (RFC 7616 3.3, 5.4).
//!
//! Owns: their form (seconds, 64 random bits, a keyed MAC of 64 bits over both and over whom it was made
//! for) and the counts of those in use.
//! Never: remembers a nonce before somebody has proved a password with it, so strangers cost nothing.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use crate::{
    ids::{Entropy, MintKey, hex},
    network::Network,
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Hex digits of time and entropy, which the MAC covers.
const BODY_LEN: usize = 10 + 16;
/// Hex digits of the MAC.
const MAC_LEN: usize = 16;
/// How far counts may arrive out of order; below that they count as replays.
const WINDOW: u32 = u64::BITS;
/// The most nonces in use at a time, of which each took a right password: as many as phones may come back at
/// once. The oldest go first, and are stale from then on.
const IN_USE_MAX: usize = 65_536;

/// When it was made, and 64 random bits: in order of age.
pub(super) type Id = (u64, u64);

/// The nonces of one shard. The key is the shard's own: a request replayed under another Call-ID may
/// reach another shard, which then knows neither the nonce nor its counts, and calls it stale.
#[derive(Debug)]
pub(super) struct Nonces {
    key: MintKey,
    lifetime: Duration,
    in_use: BTreeMap<Id, Counts>,
    /// Forgotten up to here.
    floor: Option<Id>,
}

/// Which counts of one nonce were used: bit 0 is the highest one.
#[derive(Clone, Copy, Debug)]
struct Counts {
    highest: u32,
    seen: u64,
}

impl Nonces {
    pub(super) fn new(lifetime: Duration, entropy: &mut Entropy) -> Self {
        Self { key: MintKey::draw(entropy), lifetime, in_use: BTreeMap::new(), floor: None }
    }

    /// Makes a nonce for one source: in the hands of another it is nobody's.
    pub(super) fn mint(&self, source: IpAddr, entropy: &mut Entropy, wall: SystemTime) -> String {
        let mut nonce = String::with_capacity(BODY_LEN.saturating_add(MAC_LEN));
        push_hex(&mut nonce, seconds(wall), 10);
        push_hex(&mut nonce, entropy.next_u64(), 16);
        let mac = self.mac(&nonce, source);
        push_hex(&mut nonce, mac, MAC_LEN);
        nonce
    }

    /// Uses a nonce for the `nc`th time, or once and for all where the client does not count
    /// (RFC 2069). Returns whether it was young enough, and this count unused.
    pub(super) fn spend(&mut self, id: Id, nc: Option<u32>, wall: SystemTime) -> bool {
        let now = seconds(wall);
        self.forget(now);
        if !self.is_alive(id, now) {
            return false;
        }
        let is_fresh = match (self.in_use.get_mut(&id), nc) {
            (Some(_), None) | (_, Some(0)) => false,
            (Some(counts), Some(nc)) => counts.spend(nc),
            (None, nc) => {
                self.in_use.insert(id, Counts { highest: nc.unwrap_or(u32::MAX), seen: 1 });
                true
            }
        };
        if self.in_use.len() > IN_USE_MAX {
            self.floor = self.in_use.pop_first().map(|(id, _)| id);
        }
        is_fresh
    }

    /// Returns which nonce this is, if it is one that we made for this source: whoever has it has
    /// heard our challenge there.
    pub(super) fn read(&self, nonce: &str, source: IpAddr) -> Option<Id> {
        let (body, mac) = nonce.split_at_checked(BODY_LEN)?;
        let mut own = String::with_capacity(MAC_LEN);
        push_hex(&mut own, self.mac(body, source), MAC_LEN);
        if mac != own {
            return None;
        }
        let (made_at, random) = body.split_at_checked(10)?;
        Some((u64::from_str_radix(made_at, 16).ok()?, u64::from_str_radix(random, 16).ok()?))
    }

    fn mac(&self, body: &str, source: IpAddr) -> u64 {
        let source = match Network::source(source).first() {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            // The host's half is not part of a source.
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        let mut covered = String::with_capacity(BODY_LEN.saturating_add(16));
        push_hex(&mut covered, source, 16);
        covered.push_str(body);
        self.key.hash(&covered)
    }

    fn is_alive(&self, id: Id, now: u64) -> bool {
        let age = now.checked_sub(id.0);
        age.is_some_and(|age| age <= self.lifetime.as_secs()) && Some(id) > self.floor
    }

    fn forget(&mut self, now: u64) {
        while let Some(oldest) = self.in_use.first_entry() {
            if now.saturating_sub(oldest.key().0) <= self.lifetime.as_secs() {
                return;
            }
            oldest.remove();
        }
    }
}

impl Counts {
    fn spend(&mut self, nc: u32) -> bool {
        if let Some(ahead) = nc.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = nc;
            return true;
        }
        let behind = self.highest.saturating_sub(nc);
        let Some(bit) = 1_u64.checked_shl(behind).filter(|_| behind < WINDOW) else { return false };
        let is_fresh = self.seen & bit == 0;
        self.seen |= bit;
        is_fresh
    }
}

/// Appends the last digits of a number, at most 16.
fn push_hex(text: &mut String, number: u64, digits: usize) {
    let all = hex::<16>(number);
    let last = all.get(all.len().saturating_sub(digits)..).unwrap_or_default();
    text.push_str(std::str::from_utf8(last).unwrap_or_default());
}

fn seconds(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test's sums are its own")]
mod tests {
    use super::*;

    #[test]
    fn counts_are_used_once_in_any_order_within_the_window() {
        let (mut nonces, mut entropy) = nonces(1);
        let nonce = nonces.mint(HERE, &mut entropy, at(0));
        for (nc, want) in [
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (0, false),
            (66, true),
            (4, true),
            (3, false),
            (2, false),
            (1000, true),
            (937, true),
            (936, false),
            (u32::MAX, true),
            (u32::MAX, false),
        ] {
            assert_eq!(spend(&mut nonces, &nonce, Some(nc), at(1)), want, "{nc}");
        }
    }

    #[test]
    fn without_a_count_a_nonce_is_good_for_once() {
        let (mut nonces, mut entropy) = nonces(1);
        let nonce = nonces.mint(HERE, &mut entropy, at(0));
        assert!(spend(&mut nonces, &nonce, None, at(1)));
        assert!(!spend(&mut nonces, &nonce, None, at(1)));
        assert!(!spend(&mut nonces, &nonce, Some(1), at(1)));
    }

    #[test]
    fn only_our_own_and_young_ones_count() {
        let (mut nonces, mut entropy) = nonces(1);
        let nonce = nonces.mint(HERE, &mut entropy, at(100));
        assert_eq!(nonce.len(), 42);
        assert!(!spend(&mut nonces, &nonce, Some(1), at(99)), "from the future");
        assert!(!spend(&mut nonces, &nonce, Some(1), at(401)), "too old");
        assert!(spend(&mut nonces, &nonce, Some(1), at(400)));
        let (made_at, rest) = nonce.split_at(10);
        let forged = format!("{:010x}{rest}", u64::from_str_radix(made_at, 16).unwrap() + 1);
        let (short, _) = nonce.split_at(41);
        for other in ["", "abc", &forged, short, &format!("{nonce}0"), &"\u{e9}".repeat(21)] {
            assert!(!spend(&mut nonces, other, Some(2), at(200)), "{other}");
        }
        let (mut others, _) = self::nonces(2);
        assert!(!spend(&mut others, &nonce, Some(2), at(200)), "another shard's");
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_stale() {
        let (mut nonces, mut entropy) = nonces(1);
        let first = nonces.mint(HERE, &mut entropy, at(0));
        assert!(spend(&mut nonces, &first, Some(1), at(0)));
        for _ in 0..IN_USE_MAX {
            let nonce = nonces.mint(HERE, &mut entropy, at(1));
            assert!(spend(&mut nonces, &nonce, Some(1), at(1)));
        }
        assert_eq!(nonces.in_use.len(), IN_USE_MAX);
        assert!(!spend(&mut nonces, &first, Some(1), at(1)), "a replay of what was forgotten");
        assert!(!spend(&mut nonces, &first, Some(2), at(1)));
        nonces.spend((0, 0), Some(1), at(302));
        assert!(nonces.in_use.is_empty());
    }

    #[test]
    fn a_nonce_is_good_in_the_hands_of_whom_it_was_made_for() {
        let (nonces, mut entropy) = nonces(1);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (made_for, used_by, want) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::2", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let nonce = nonces.mint(ip(made_for), &mut entropy, at(0));
            assert_eq!(nonces.read(&nonce, ip(used_by)).is_some(), want, "{made_for} {used_by}");
        }
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn spend(nonces: &mut Nonces, nonce: &str, nc: Option<u32>, wall: SystemTime) -> bool {
        nonces.read(nonce, HERE).is_some_and(|id| nonces.spend(id, nc, wall))
    }

    fn nonces(seed: u64) -> (Nonces, Entropy) {
        let mut entropy = Entropy::from_u64(seed);
        (Nonces::new(Duration::from_secs(300), &mut entropy), entropy)
    }

    fn at(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + s)
    }
}
