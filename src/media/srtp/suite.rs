//! Crypto suites and the keys that are agreed on (RFC 4568 6.2, RFC 7714 12).
//!
//! Owns: lengths of keys, salts and tags; the bytes of a master key and its salt.
//! Never: prints a key.

use crate::{ids::Entropy, wipe};
use std::fmt;

/// The longest master key with its salt: AEAD_AES_256_GCM's.
const MASTER_LEN_MAX: usize = 44;

/// How packets are encrypted and authenticated.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Suite {
    /// AES in counter mode, tags of 80 bits: what everybody has.
    AesCm128HmacSha1_80,
    /// The same with tags of 32 bits, on RTP only (RFC 4568 6.2.2).
    AesCm128HmacSha1_32,
    /// AES-128 in Galois/counter mode.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode.
    AeadAes256Gcm,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 4] = [
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
    ];

    /// Returns the length of the master key in bytes.
    pub fn key_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 | Self::AeadAes128Gcm => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Returns the length of the master salt in bytes.
    pub fn salt_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 14,
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
        }
    }
}

/// A master key and its salt, for one direction. It does not print.
#[derive(Clone, Eq, PartialEq)]
pub struct MasterKey {
    suite: Suite,
    bytes: [u8; MASTER_LEN_MAX],
    mki_len: u8,
}

impl MasterKey {
    /// Takes the key followed by the salt; `None` where the length is another than the suite's.
    pub fn new(suite: Suite, key_and_salt: &[u8]) -> Option<Self> {
        let mut bytes = [0; MASTER_LEN_MAX];
        let len = suite.key_len().saturating_add(suite.salt_len());
        if key_and_salt.len() != len {
            return None;
        }
        bytes.get_mut(..len)?.copy_from_slice(key_and_salt);
        Some(Self { suite, bytes, mki_len: 0 })
    }

    /// Draws a key.
    pub fn draw(suite: Suite, entropy: &mut Entropy) -> Self {
        let mut bytes = [0; MASTER_LEN_MAX];
        let len = suite.key_len().saturating_add(suite.salt_len());
        entropy.fill(bytes.get_mut(..len).unwrap_or_default());
        Self { suite, bytes, mki_len: 0 }
    }

    /// Says that packets name their key in so many bytes before their tag (RFC 3711 3.1). The name is
    /// skipped: there is one key.
    #[must_use]
    pub fn with_mki(mut self, mki_len: u8) -> Self {
        self.mki_len = mki_len;
        self
    }

    /// Returns the suite that it is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Returns the key followed by the salt, for the other side's eyes only.
    pub fn expose(&self) -> &[u8] {
        let len = self.suite.key_len().saturating_add(self.suite.salt_len());
        self.bytes.get(..len).unwrap_or_default()
    }

    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..self.suite.key_len()).unwrap_or_default()
    }

    /// Returns the salt with zeros up to the 112 bits that keys are derived with (RFC 7714 11).
    pub(super) fn salt(&self) -> [u8; 14] {
        let mut salt = [0; 14];
        let rest = self.bytes.get(self.suite.key_len()..).unwrap_or_default();
        let given = rest.iter().take(self.suite.salt_len());
        salt.iter_mut().zip(given).for_each(|(to, from)| *to = *from);
        salt
    }

    pub(super) fn mki_len(&self) -> usize {
        self.mki_len.into()
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        wipe::bytes(&mut self.bytes);
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({:?}, ***)", self.suite)
    }
}

/// The keys of one leg: what we send with, and what the peer sends with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keys {
    /// Ours.
    pub send: MasterKey,
    /// The peer's.
    pub receive: MasterKey,
}
