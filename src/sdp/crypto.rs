//! `a=crypto` lines: the keys of SRTP in a description (RFC 4568, RFC 7714 14.1).
//!
//! Owns: their form, the names of suites, our own keys for one leg.
//! Never: prints a key, or gives one key to two legs or two directions.

use crate::{ids::Spring, wipe};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use std::fmt;

/// RFC 3711 gives a key's name no limit; RFC 4568 9.1 has 128 bytes.
const MKI_LEN_MAX: u8 = 128;
/// As RFC 4648 writes it, and read without its padding as well, which some leave out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Whether a leg's media is encrypted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Srtp {
    /// Never: an offer of SRTP is refused.
    #[default]
    Off,
    /// Where the peer offers it, and where we call over TLS.
    Prefer,
    /// Always: anything else is refused.
    Require,
}

/// How packets are encrypted and authenticated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CryptoSuite {
    /// AES in counter mode, tags of 80 bits.
    AesCm128HmacSha1_80,
    /// The same with tags of 32 bits.
    AesCm128HmacSha1_32,
    /// AES-128 in Galois/counter mode.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode.
    AeadAes256Gcm,
}

impl CryptoSuite {
    /// Every suite, in the order in which we offer them: what everybody has first.
    pub const ALL: [Self; 4] = [
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
        Self::AeadAes128Gcm,
        Self::AeadAes256Gcm,
    ];

    /// Returns its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    /// Returns the length of a master key with its salt, in bytes.
    fn key_len(self) -> usize {
        match self {
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 30,
            Self::AeadAes128Gcm => 28,
            Self::AeadAes256Gcm => 44,
        }
    }
}

impl fmt::Display for CryptoSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A master key followed by its salt. It does not print.
#[derive(Clone, Eq, PartialEq)]
pub struct CryptoKey(Box<[u8]>);

impl CryptoKey {
    /// Takes a key followed by its salt.
    pub fn new(key_and_salt: &[u8]) -> Self {
        Self(key_and_salt.into())
    }

    /// Returns the bytes, for the peer and for the media plane.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for CryptoKey {
    fn drop(&mut self) {
        wipe::bytes(&mut self.0);
    }
}

impl fmt::Debug for CryptoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CryptoKey(***)")
    }
}

/// One `a=crypto` line that we can use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crypto {
    /// What an answer refers to it by.
    pub tag: u32,
    /// The suite.
    pub suite: CryptoSuite,
    /// What its side sends with.
    pub key: CryptoKey,
    /// How many bytes of its packets name the key (RFC 3711 3.1). Ours never do.
    pub mki_len: u8,
}

impl Crypto {
    /// Reads `1 AES_CM_128_HMAC_SHA1_80 inline:KEY|2^31|1:4 WSH=64`.
    ///
    /// `None` where the suite is unknown, the key is not one, there are several, or the parameters ask
    /// for what we do not do: packets that are not encrypted or authenticated, other derivation rates,
    /// forward error correction. The key's lifetime is its side's to keep.
    pub fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_ascii_whitespace();
        let tag = fields.next().filter(|tag| tag.len() <= 9)?.parse().ok()?;
        let suite = CryptoSuite::parse(fields.next()?)?;
        let (method, key) = fields.next()?.split_once(':')?;
        if !method.eq_ignore_ascii_case("inline") || !fields.all(is_harmless) {
            return None;
        }
        let mut parts = key.split('|');
        let bytes = BASE64.decode(parts.next()?).ok().filter(|key| key.len() == suite.key_len())?;
        let mut mki_len = 0;
        for part in parts {
            match part.split_once(':') {
                None if is_lifetime(part) => {}
                None => return None,
                Some((name, len)) => {
                    mki_len = len.parse().ok().filter(|len| (1..=MKI_LEN_MAX).contains(len))?;
                    name.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
                }
            }
        }
        Some(Self { tag, suite, key: CryptoKey(bytes.into()), mki_len })
    }

    /// Returns the attribute's value, with the key in it: for the peer and for nobody else.
    pub fn value(&self) -> String {
        format!("{} {} inline:{}", self.tag, self.suite, BASE64.encode(self.key.expose()))
    }
}

/// Returns whether a session parameter changes nothing for us (RFC 4568 6.3). An unknown one must not
/// be ignored unless it says so.
fn is_harmless(parameter: &str) -> bool {
    parameter.starts_with("WSH=") || parameter.starts_with('-') || parameter == "KDR=0"
}

/// `2^31` or `1048576`.
fn is_lifetime(part: &str) -> bool {
    let number = part.strip_prefix("2^").unwrap_or(part);
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// What a leg's SRTP is made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Secured {
    /// What we send with.
    pub send: Crypto,
    /// What comes.
    pub receive: Crypto,
}

/// Our keys for one leg. A key stays for as long as nothing changes (RFC 4568 7.1.4).
#[derive(Clone, Debug)]
pub(super) struct Keyring {
    entropy: Spring,
    /// Those of our offers; once agreed, the agreed one first.
    ours: Vec<(CryptoSuite, CryptoKey)>,
    /// What was agreed last.
    agreed: Option<Secured>,
}

impl Keyring {
    pub(super) fn new(entropy: Spring) -> Self {
        Self { entropy, ours: vec![], agreed: None }
    }

    /// Returns the lines of an offer, the agreed suite first.
    pub(super) fn offer(&mut self, suites: &[CryptoSuite]) -> Vec<Crypto> {
        for suite in suites {
            if !self.ours.iter().any(|(ours, _)| ours == suite) {
                let key = self.draw(*suite);
                self.ours.push((*suite, key));
            }
        }
        let lines = (1..).zip(&self.ours);
        let line = |(tag, (suite, key)): (u32, &(_, CryptoKey))| Crypto {
            tag,
            suite: *suite,
            key: key.clone(),
            mki_len: 0,
        };
        lines.map(line).collect()
    }

    /// Returns our line in answer to this one of theirs: the same key for the same offer.
    pub(super) fn answer(&mut self, theirs: &Crypto) -> Crypto {
        let same = self.agreed.as_ref().filter(|agreed| {
            (agreed.receive.suite, &agreed.receive.key) == (theirs.suite, &theirs.key)
        });
        let key = same.map(|agreed| agreed.send.key.clone());
        let key = key.unwrap_or_else(|| self.draw(theirs.suite));
        Crypto { tag: theirs.tag, suite: theirs.suite, key, mki_len: 0 }
    }

    /// Takes note of what was agreed. Keys of other suites have been told and not used: they are drawn
    /// anew when they are needed.
    pub(super) fn settle(&mut self, agreed: Option<&Secured>) {
        self.ours = agreed.map(|a| (a.send.suite, a.send.key.clone())).into_iter().collect();
        self.agreed = agreed.cloned();
    }

    fn draw(&mut self, suite: CryptoSuite) -> CryptoKey {
        let mut bytes = vec![0; suite.key_len()];
        self.entropy.fill(&mut bytes);
        CryptoKey(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

    #[test]
    fn lines_are_read() {
        let gcm = "AEAD_AES_128_GCM inline:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGw";
        for (line, want) in [
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Some((1, 0))),
            (format!("2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^20"), Some((2, 0))),
            (format!("3 aes_cm_128_hmac_sha1_80 INLINE:{KEY}|1048576|1:4"), Some((3, 4))),
            (format!("4 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|7:128 WSH=64 -X"), Some((4, 128))),
            (format!("5 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=0"), Some((5, 0))),
            (format!("6 {gcm}=="), Some((6, 0))),
            (format!("7 {gcm}|2^48"), Some((7, 0))),
            (format!("1 AES_256_CM_HMAC_SHA1_80 inline:{KEY}"), None),
            (format!("1 AEAD_AES_128_GCM inline:{KEY}"), None),
            (format!("x AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), None),
            (format!("12345678901 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 outline:{KEY}"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY};inline:{KEY}"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:129"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:0"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|x"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTCP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNAUTHENTICATED_SRTP"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=3"), None),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} FEC_ORDER=FEC_SRTP"), None),
            ("1 AES_CM_128_HMAC_SHA1_80 inline:".into(), None),
            ("1 AES_CM_128_HMAC_SHA1_80".into(), None),
            (String::new(), None),
        ] {
            let crypto = Crypto::parse(&line);
            assert_eq!(crypto.as_ref().map(|c| (c.tag, c.mki_len)), want, "{line}");
            if let Some(crypto) = crypto {
                let again = Crypto::parse(&crypto.value()).unwrap();
                assert_eq!((again.suite, again.key), (crypto.suite, crypto.key));
            }
        }
    }

    #[test]
    fn keys_stay_until_something_changes() {
        let mut ring = keyring(1);
        let suites = [CryptoSuite::AesCm128HmacSha1_80, CryptoSuite::AesCm128HmacSha1_32];
        let first = ring.offer(&suites);
        assert_eq!(first, ring.offer(&suites));
        assert_eq!(
            first.iter().map(|c| (c.tag, c.suite)).collect::<Vec<_>>(),
            [(1, suites[0]), (2, suites[1])]
        );

        let theirs = keyring(2).answer(&first[1]);
        ring.settle(Some(&Secured { send: first[1].clone(), receive: theirs.clone() }));
        let later = ring.offer(&suites);
        assert_eq!((later[0].suite, &later[0].key), (suites[1], &first[1].key), "still in use");
        assert_ne!(later[1].key, first[0].key, "told, but never used");

        assert_eq!(ring.answer(&theirs).key, first[1].key, "they offer what they had");
        let other = Crypto { key: ring.draw(suites[1]), ..theirs };
        let answer = ring.answer(&other);
        assert_ne!(answer.key, first[1].key, "their key is new");
        assert_ne!(answer.key, other.key);
    }

    fn keyring(seed: u64) -> Keyring {
        Keyring::new(Spring::new(&mut crate::ids::Entropy::from_u64(seed)))
    }

    #[test]
    fn keys_do_not_print() {
        let line = format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}");
        let printed = format!("{:?}", Crypto::parse(&line).unwrap());
        assert!(printed.contains("CryptoKey(***)") && !printed.contains("119"), "{printed}");
    }
}
