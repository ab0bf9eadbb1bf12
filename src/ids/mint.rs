//! Identifiers that we put on the wire: branches, tags and Call-IDs that name the shard they belong to.
//!
//! Owns: their form (two hex digits of shard, 64 random bits, a keyed MAC of 32 bits) and reading it back.
//! Never: keeps a table of what was minted; the MAC is the memory.

use super::{Entropy, ShardId};
use siphasher::{
    sip::SipHasher24,
    sip128::{Hasher128, SipHasher13},
};
use std::{fmt, hash::Hasher, sync::Arc};

/// What every branch of RFC 3261 begins with (8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// Hex digits of the shard and the entropy, which the MAC covers.
const BODY_LEN: usize = 2 + 16;
/// Hex digits of the MAC.
const MAC_LEN: usize = 8;

/// The secret behind the MAC: the same for all shards, and for a process and those that take over from it.
#[derive(Clone, Copy)]
pub struct MintKey {
    secret: [u8; 16],
    mac: SipHasher24,
    digest: SipHasher13,
}

impl MintKey {
    /// Creates the key from 128 random bits.
    pub fn new(secret: [u8; 16]) -> Self {
        let digest = SipHasher13::new_with_key(&secret.map(|byte| !byte));
        Self { secret, mac: SipHasher24::new_with_key(&secret), digest }
    }

    /// Returns what [`Self::new`] was told, for the process that takes over.
    pub fn secret(&self) -> [u8; 16] {
        self.secret
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
        if mac.as_bytes() != self.mac(body.as_bytes()) {
            return None;
        }
        u8::from_str_radix(body.get(..2)?, 16).ok().map(ShardId)
    }

    /// Begins the digest of something that a table is to find again.
    pub fn digest(&self) -> Digester {
        Digester(self.digest)
    }

    /// Returns a hash that a peer cannot steer.
    pub fn hash(&self, text: &str) -> u64 {
        self.mac.hash(text.as_bytes())
    }

    fn mac(&self, body: &[u8]) -> [u8; MAC_LEN] {
        hex(self.mac.hash(body) >> 32)
    }

    /// Mints of `bits`.
    fn seal(&self, shard: ShardId, bits: u64) -> Minted {
        let mut minted = [0; BODY_LEN + MAC_LEN];
        let (body, mac) = minted.split_at_mut(BODY_LEN);
        let (first, rest) = body.split_at_mut(2);
        first.copy_from_slice(&hex::<2>(shard.0.into()));
        rest.copy_from_slice(&hex::<16>(bits));
        mac.copy_from_slice(&self.mac(body));
        Minted(minted)
    }
}

/// A tag, a Call-ID, or a branch without its cookie.
struct Minted([u8; BODY_LEN + MAC_LEN]);

impl Minted {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Writes what any shard with the same key would.
fn nobodys(bits: u64) -> String {
    let mut tag = String::with_capacity(16);
    push(&mut tag, hex::<16>(bits));
    tag
}

/// Returns the last digits of a number in hexadecimal.
pub(crate) fn hex<const LEN: usize>(number: u64) -> [u8; LEN] {
    let mut digits = [b'0'; LEN];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        let nibble = (rest & 15) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
        rest >>= 4;
    }
    digits
}

fn push<const LEN: usize>(text: &mut String, digits: [u8; LEN]) {
    text.push_str(std::str::from_utf8(&digits).unwrap_or_default());
}

/// What stands for a text in a table: 128 bits that nobody without the key can make come out the same for two
/// texts, or predict.
///
/// At any multiple of eight bytes, as a `u64`: beside one, a number of 128 bits would make a table's entry a third larger.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(Rust, packed(8))]
pub struct Digest(u128);

impl Digest {
    /// Returns the digest whose bits these are.
    pub fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Returns all of its bits, for whoever has the same key.
    pub fn to_bits(self) -> u128 {
        self.0
    }

    /// Returns half of its bits.
    fn bits(self) -> u64 {
        self.0 as u64
    }
}

/// A digest in the making. Each part is set apart from the next.
#[derive(Clone, Copy)]
pub struct Digester(SipHasher13);

impl Digester {
    /// Adds a text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.0.write(text.as_bytes());
        self.0.write_u8(0xff); // No UTF-8 has it.
        self
    }

    /// Adds a text without regard to the case of its letters.
    #[must_use]
    pub fn caseless(mut self, text: &str) -> Self {
        for part in text.as_bytes().chunks(32) {
            let mut lower = [0; 32];
            if let Some(lower) = lower.get_mut(..part.len()) {
                lower.copy_from_slice(part);
                lower.make_ascii_lowercase();
                self.0.write(lower);
            }
        }
        self.0.write_u8(0xff);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: u32) -> Self {
        self.0.write_u32(number);
        self
    }

    /// Ends it.
    pub fn finish(self) -> Digest {
        Digest(self.0.finish128().into())
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester(***)")
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
        let mut branch = String::with_capacity(MAGIC_COOKIE.len() + BODY_LEN + MAC_LEN);
        self.push_branch(&mut branch);
        branch
    }

    /// Appends a fresh branch.
    pub fn push_branch(&mut self, text: &mut String) {
        text.push_str(MAGIC_COOKIE);
        text.push_str(self.next().text());
    }

    /// Returns a fresh tag for From or To: 26 hex digits (RFC 3261 19.3).
    pub fn tag(&mut self) -> String {
        self.next().text().to_owned()
    }

    /// Returns a fresh tag that several will keep.
    pub fn shared_tag(&mut self) -> Arc<str> {
        self.next().text().into()
    }

    /// Returns a fresh Call-ID, without a host: 26 hex digits (RFC 3261 8.1.1.4).
    pub fn call_id(&mut self) -> String {
        self.next().text().to_owned()
    }

    /// Returns a fresh Call-ID that several will keep.
    pub fn shared_call_id(&mut self) -> Arc<str> {
        self.next().text().into()
    }

    /// Returns the tag that `text` always gets, for answers without state (RFC 3261 8.2.7). It names no
    /// shard: whichever answers a copy says the same.
    pub fn tag_of(&self, text: &str) -> String {
        nobodys(self.key.hash(text))
    }

    /// Returns the tag that whatever has this digest always gets.
    pub fn tag_of_digest(&self, digest: Digest) -> String {
        nobodys(digest.bits())
    }

    /// Returns whether this mint, or another one with its key, made the identifier.
    pub fn knows(&self, minted: &str) -> bool {
        self.key.owner(minted).is_some()
    }

    /// Returns the source of randomness, for what needs no shard: nonces, cnonces, SSRCs.
    pub fn entropy(&mut self) -> &mut Entropy {
        &mut self.entropy
    }

    /// Returns the key behind it all.
    pub fn key(&self) -> &MintKey {
        &self.key
    }

    fn next(&mut self) -> Minted {
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
            assert_eq!(key.owner(&mint.tag_of("x")), None, "everybody says so");
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
    fn digests_tell_parts_apart() {
        let key = MintKey::new([7; 16]);
        let ab = key.digest().text("a").text("b").finish();
        assert_eq!(ab, key.digest().text("a").text("b").finish());
        for other in [
            key.digest().text("ab").finish(),
            key.digest().text("").text("ab").finish(),
            key.digest().text("a").text("B").finish(),
            key.digest().text("a").text("b").number(0).finish(),
            MintKey::new([8; 16]).digest().text("a").text("b").finish(),
        ] {
            assert_ne!(ab, other);
        }
        let host = "a-host-with-more-than-thirty-two-letters.example.com";
        let upper = key.digest().caseless(&host.to_ascii_uppercase()).finish();
        assert_eq!(key.digest().caseless(host).finish(), upper);
        assert_ne!(
            key.digest().text(host).finish(),
            key.digest().text(&host.to_uppercase()).finish()
        );
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
