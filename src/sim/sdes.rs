//! How a simulated peer speaks SRTP: its suites, its keys, what it insists on (RFC 4568).
//!
//! Owns: the peer's own keys.
//! Never: shares the product's decisions about them.

use crate::{
    ids::Entropy,
    media::srtp::{Keys, MasterKey, Suite},
    sdp::{Audio, Crypto, CryptoKey, CryptoSuite},
};

/// What a simulated peer can do about SRTP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sdes {
    /// What it offers, best first.
    pub offers: Vec<CryptoSuite>,
    /// What it takes.
    pub accepts: Vec<CryptoSuite>,
    /// Whether it offers RTP/SAVP and takes nothing plain; else it offers RTP/AVP with keys, and takes
    /// both.
    pub insists: bool,
    /// Whether each offer and answer of its own has new keys.
    pub renews: bool,
}

impl Sdes {
    /// Describes a phone that speaks SRTP only, by the suites that everybody has.
    pub fn mandatory() -> Self {
        let suites = vec![CryptoSuite::AesCm128HmacSha1_80, CryptoSuite::AesCm128HmacSha1_32];
        Self { offers: suites.clone(), accepts: suites, insists: true, renews: false }
    }

    /// Describes a phone that speaks SRTP where the other side does.
    pub fn optional() -> Self {
        Self { insists: false, ..Self::mandatory() }
    }

    /// Describes Twilio's secure trunk: it takes both, and offers one.
    pub fn twilio() -> Self {
        Self { offers: vec![CryptoSuite::AesCm128HmacSha1_80], ..Self::mandatory() }
    }

    /// Offers and takes these.
    #[must_use]
    pub fn with_suites(self, suites: &[CryptoSuite]) -> Self {
        Self { offers: suites.to_vec(), accepts: suites.to_vec(), ..self }
    }
}

/// A peer's keys in one call.
#[derive(Clone, Debug)]
pub(super) struct KeyRing {
    pub(super) sdes: Sdes,
    entropy: Entropy,
    ours: Vec<Crypto>,
}

impl KeyRing {
    pub(super) fn new(sdes: Sdes, seed: u64) -> Self {
        Self { sdes, entropy: Entropy::from_u64(seed), ours: vec![] }
    }

    /// Returns the lines of an offer.
    pub(super) fn offer(&mut self) -> Vec<Crypto> {
        if self.sdes.renews {
            self.ours.clear();
        }
        let suites = self.sdes.offers.clone();
        (1..).zip(suites).map(|(tag, suite)| self.line(tag, suite)).collect()
    }

    /// Returns the line of theirs that we take, and ours in answer to it.
    pub(super) fn answer(&mut self, theirs: &Audio) -> Option<(Crypto, Crypto)> {
        if self.sdes.renews {
            self.ours.clear();
        }
        let taken = theirs.crypto.iter().find(|line| self.sdes.accepts.contains(&line.suite))?;
        Some((taken.clone(), self.line(taken.tag, taken.suite)))
    }

    /// Returns what an answer to our offer settles. It must name one line by its tag and suite.
    pub(super) fn settle(&self, offered: &[Crypto], answer: &Audio) -> Option<Keys> {
        let [theirs] = answer.crypto.as_slice() else { return None };
        let is_it = |ours: &&Crypto| (ours.tag, ours.suite) == (theirs.tag, theirs.suite);
        keys(offered.iter().find(is_it)?, theirs)
    }

    fn line(&mut self, tag: u32, suite: CryptoSuite) -> Crypto {
        if let Some(known) = self.ours.iter().find(|line| line.suite == suite) {
            return Crypto { tag, ..known.clone() };
        }
        let drawn = MasterKey::draw(suite_of(suite), &mut self.entropy);
        let key = CryptoKey::new(drawn.expose());
        let line = Crypto { tag, suite, key, mki_len: 0 };
        self.ours.push(line.clone());
        line
    }
}

/// Returns the keys of both directions.
pub(super) fn keys(ours: &Crypto, theirs: &Crypto) -> Option<Keys> {
    let key = |line: &Crypto| MasterKey::new(suite_of(line.suite), line.key.expose());
    Some(Keys { send: key(ours)?, receive: key(theirs)? })
}

fn suite_of(suite: CryptoSuite) -> Suite {
    match suite {
        CryptoSuite::AesCm128HmacSha1_80 => Suite::AesCm128HmacSha1_80,
        CryptoSuite::AesCm128HmacSha1_32 => Suite::AesCm128HmacSha1_32,
        CryptoSuite::AeadAes128Gcm => Suite::AeadAes128Gcm,
        CryptoSuite::AeadAes256Gcm => Suite::AeadAes256Gcm,
    }
}
