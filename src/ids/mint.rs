//! Identifiers that we put on the wire: branches, tags and Call-IDs that name the shard they belong to.
//!
//! Owns: their form (two hex digits of shard, 64 random bits, a keyed MAC of 32 bits) and reading it back.
//! Never: keeps a table of what was minted; the MAC is the memory.

use super::{Entropy, ShardId};
use siphasher::sip::SipHasher24;
use std::fmt;

/// What every branch of RFC 3261 begins with (8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// Hex digits of the shard and the entropy, which the MAC covers.
const BODY_LEN: usize = 2 + 16;
/// Hex digits of the MAC.
const MAC_LEN: usize = 8;

/// The secret behind the MAC, one for the life of the process and the same for all shards.
#[derive(Clone, Copy)]
pub struct MintKey(SipHasher24);

impl MintKey {
    /// Creates the key from 128 random bits.
    pub fn new(secret: [u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(&secret))
    }

    /// Draws the key.
    pub fn draw(entropy: &mut Entropy) -> Self {
        let mut secret = [0; 16];
        entropy.fill(&mut secret);
        Self::new(secret)
    }

    /// Returns the owner of a branch (with or without its cookie), tag or Call-ID that was minted
    /// with this key; `None` for everybody else's and for forgeries.
    pub fn owner(&self, minted: &str) -> Option<ShardId> {
        let minted = minted.strip_prefix(MAGIC_COOKIE).unwrap_or(minted);
        let (body, mac) = minted.split_at_checked(BODY_LEN)?;
        if mac.len() != MAC_LEN || mac != self.mac(body) {
            return None;
        }
        u8::from_str_radix(body.get(..2)?, 16).ok().map(ShardId)
    }

    /// Returns a hash that a peer cannot steer.
    pub fn hash(&self, text: &str) -> u64 {
        self.0.hash(text.as_bytes())
    }

    fn mac(&self, body: &str) -> String {
        format!("{:08x}", self.hash(body) >> 32)
    }

    fn seal(&self, shard: ShardId, bits: u64) -> String {
        let mut minted = format!("{:02x}{bits:016x}", shard.0);
        let mac = self.mac(&minted);
        minted.push_str(&mac);
        minted
    }
}

impl fmt::Debug for MintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MintKey(***)")
    }
}

/// Makes one shard's identifiers.
#[derive(Clone, Debug)]
pub struct Mint {
    shard: ShardId,
    key: MintKey,
    entropy: Entropy,
}

impl Mint {
    /// Creates the mint of `shard`.
    pub fn new(shard: ShardId, key: MintKey, entropy: Entropy) -> Self {
        Self { shard, key, entropy }
    }

    /// Returns whose identifiers these are.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// Returns a fresh branch: 33 characters, the cookie first (RFC 3261 8.1.1.7).
    pub fn branch(&mut self) -> String {
        format!("{MAGIC_COOKIE}{}", self.next())
    }

    /// Returns a fresh tag for From or To: 26 hex digits (RFC 3261 19.3).
    pub fn tag(&mut self) -> String {
        self.next()
    }

    /// Returns a fresh Call-ID, without a host: 26 hex digits (RFC 3261 8.1.1.4).
    pub fn call_id(&mut self) -> String {
        self.next()
    }

    /// Returns the tag that `text` always gets, for answers without state (RFC 3261 8.2.7).
    pub fn tag_of(&self, text: &str) -> String {
        self.key.seal(self.shard, self.key.hash(text))
    }

    /// Returns whether this mint, or another one with its key, made the identifier.
    pub fn knows(&self, minted: &str) -> bool {
        self.key.owner(minted).is_some()
    }

    /// Returns the source of randomness, for what needs no shard: nonces, cnonces, SSRCs.
    pub fn entropy(&mut self) -> &mut Entropy {
        &mut self.entropy
    }

    fn next(&mut self) -> String {
        let bits = self.entropy.next_u64();
        self.key.seal(self.shard, bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_mint_names_its_shard() {
        let key = MintKey::draw(&mut Entropy::from_u64(1));
        for shard in [0, 1, 7, 255].map(ShardId) {
            let mut mint = Mint::new(shard, key, Entropy::from_u64(2));
            assert_eq!(key.owner(&mint.tag()), Some(shard));
            assert_eq!(key.owner(&mint.branch()), Some(shard));
            assert_eq!(key.owner(&mint.call_id()), Some(shard));
            assert_eq!(key.owner(&mint.tag_of("x")), Some(shard));
            assert_eq!(mint.branch().len(), 33);
        }
    }

    #[test]
    fn nothing_else_does() {
        let mut entropy = Entropy::from_u64(3);
        let key = MintKey::draw(&mut entropy);
        let tag = Mint::new(ShardId(1), key, entropy.clone()).tag();
        let (other_shard, other_mac) = (tag.replacen("01", "02", 1), flip_last(&tag));
        let strange = MintKey::draw(&mut entropy);
        assert_eq!(strange.owner(&tag), None, "another process's key");
        for forged in [&*other_shard, &*other_mac, &tag[1..], "", "z9hG4bK", "zäöü€-9hG4bKzäöü€"]
        {
            assert_eq!(key.owner(forged), None, "{forged}");
        }
    }

    #[test]
    fn identifiers_differ_unless_asked_for_the_same() {
        let key = MintKey::draw(&mut Entropy::from_u64(4));
        let mut mint = Mint::new(ShardId(0), key, Entropy::from_u64(5));
        assert_ne!(mint.tag(), mint.tag());
        assert_eq!(mint.tag_of("a"), mint.tag_of("a"));
        assert_ne!(mint.tag_of("a"), mint.tag_of("b"));
    }

    #[test]
    fn the_key_does_not_print() {
        let key = MintKey::new([0x41; 16]);
        assert_eq!(format!("{key:?}"), "MintKey(***)");
    }

    fn flip_last(tag: &str) -> String {
        let (rest, last) = tag.split_at(tag.len() - 1);
        format!("{rest}{}", if last == "0" { "1" } else { "0" })
    }
}
