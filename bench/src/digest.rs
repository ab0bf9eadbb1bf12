//! The client's half of digest authentication (RFC 7616, RFC 8760), once per challenge.
//!
//! Owns: the credentials and their HA1. Never: reuses a nonce.

use crate::message::Message;
use md5::Md5;
use sha2::{Digest, Sha256};

/// A user with a password.
#[derive(Clone, Debug)]
pub struct Credentials {
    user: String,
    password: String,
    /// The last one computed, with whatever it is of.
    ha1: Option<(Hash, Vec<u8>, [u8; 64])>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hash {
    Md5,
    Sha256,
}

impl Hash {
    /// Lower-case hexadecimal in the first bytes, as many as the hash has.
    fn of(self, parts: &[&[u8]]) -> [u8; 64] {
        let mut out = [0; 64];
        match self {
            Self::Md5 => hex(&joined::<Md5>(parts), &mut out),
            Self::Sha256 => hex(&joined::<Sha256>(parts), &mut out),
        }
        out
    }

    fn digits(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha256 => 64,
        }
    }
}

fn joined<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = D::new();
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            hasher.update(b":");
        }
        hasher.update(part);
    }
    hasher.finalize().to_vec()
}

fn hex(bytes: &[u8], out: &mut [u8; 64]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// What a challenge says, as slices of it.
#[derive(Clone, Copy, Debug)]
struct Challenge<'a> {
    hash: Hash,
    realm: &'a [u8],
    nonce: &'a [u8],
    opaque: Option<&'a [u8]>,
    qop_auth: bool,
}

impl Credentials {
    /// Those of a user.
    pub fn new(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), ha1: None }
    }

    /// Writes the line that answers the first challenge with a hash that is known here. `count` is
    /// any number; the client's nonce is made of it. False if there is no such challenge.
    pub fn answer(
        &mut self,
        refusal: &Message<'_>,
        (method, uri): (&[u8], &[u8]),
        count: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(challenge) = refusal.challenge.values().iter().find_map(|value| read(value))
        else {
            return false;
        };
        let hash = challenge.hash;
        let digits = hash.digits();
        let ha1 = self.ha1(hash, challenge.realm);
        let ha2 = hash.of(&[method, uri]);
        let cnonce = format!("{count:016x}");
        let (ha1, ha2) = (&ha1[..digits], &ha2[..digits]);
        let response = match challenge.qop_auth {
            true => hash.of(&[ha1, challenge.nonce, b"00000001", cnonce.as_bytes(), b"auth", ha2]),
            false => hash.of(&[ha1, challenge.nonce, ha2]),
        };
        out.extend_from_slice(match refusal.status {
            407 => b"Proxy-Authorization: Digest username=\"",
            _ => b"Authorization: Digest username=\"",
        });
        for (text, value) in [
            (&b"\", realm=\""[..], self.user.as_bytes()),
            (b"\", nonce=\"", challenge.realm),
            (b"\", uri=\"", challenge.nonce),
            (b"\", response=\"", uri),
            (b"\", algorithm=", &response[..digits]),
        ] {
            out.extend_from_slice(value);
            out.extend_from_slice(text);
        }
        out.extend_from_slice(match hash {
            Hash::Md5 => b"MD5",
            Hash::Sha256 => b"SHA-256",
        });
        if challenge.qop_auth {
            out.extend_from_slice(b", qop=auth, nc=00000001, cnonce=\"");
            out.extend_from_slice(cnonce.as_bytes());
            out.push(b'"');
        }
        if let Some(opaque) = challenge.opaque {
            out.extend_from_slice(b", opaque=\"");
            out.extend_from_slice(opaque);
            out.push(b'"');
        }
        out.extend_from_slice(b"\r\n");
        true
    }

    fn ha1(&mut self, hash: Hash, realm: &[u8]) -> [u8; 64] {
        match &self.ha1 {
            Some((known, of, ha1)) if *known == hash && of == realm => *ha1,
            Some(_) | None => {
                let ha1 = hash.of(&[self.user.as_bytes(), realm, self.password.as_bytes()]);
                self.ha1 = Some((hash, realm.to_vec(), ha1));
                ha1
            }
        }
    }
}

/// Reads a challenge with a hash that is known here. Commas in quotes are of the text.
fn read(value: &[u8]) -> Option<Challenge<'_>> {
    let rest = value.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"Digest "));
    let rest = rest.map(|_| &value[7..])?;
    let mut challenge =
        Challenge { hash: Hash::Md5, realm: b"", nonce: b"", opaque: None, qop_auth: false };
    let mut is_quoted = false;
    let parameters = rest.split(|byte| {
        is_quoted ^= *byte == b'"';
        *byte == b',' && !is_quoted
    });
    for parameter in parameters {
        let equals = memchr::memchr(b'=', parameter)?;
        let (name, value) =
            (parameter[..equals].trim_ascii(), parameter[equals + 1..].trim_ascii());
        let value = value.strip_prefix(b"\"").map_or(value, |v| v.strip_suffix(b"\"").unwrap_or(v));
        match name.to_ascii_lowercase().as_slice() {
            b"realm" => challenge.realm = value,
            b"nonce" => challenge.nonce = value,
            b"opaque" => challenge.opaque = Some(value),
            b"qop" => {
                let mut offers = value.split(|byte| *byte == b',');
                challenge.qop_auth = offers.any(|offer| offer.trim_ascii() == b"auth");
            }
            b"algorithm" if value.eq_ignore_ascii_case(b"MD5") => challenge.hash = Hash::Md5,
            b"algorithm" if value.eq_ignore_ascii_case(b"SHA-256") => challenge.hash = Hash::Sha256,
            b"algorithm" => return None,
            _ => {}
        }
    }
    Some(challenge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(challenges: &str) -> Option<String> {
        let text = format!("SIP/2.0 401 U\r\n{challenges}\r\n");
        let refusal = Message::read(text.as_bytes()).unwrap();
        let mut out = vec![];
        let mut mufasa = Credentials::new("Mufasa", "Circle of Life");
        mufasa
            .answer(&refusal, (b"GET", b"/dir/index.html"), 0x0a4f_113b, &mut out)
            .then(|| String::from_utf8(out).unwrap())
    }

    /// The answers were computed with another program, Python's hashlib.
    #[test]
    fn challenges_are_answered() {
        let nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093";
        let line = answered(&format!(
            "WWW-Authenticate: Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", \
             nonce=\"{nonce}\", opaque=\"5ccc\"\r\n"
        ));
        assert_eq!(
            line.unwrap(),
            format!(
                "Authorization: Digest username=\"Mufasa\", realm=\"testrealm@host.com\", \
                 nonce=\"{nonce}\", uri=\"/dir/index.html\", \
                 response=\"99d3ecf45c274b3868b561c67e4cab98\", algorithm=MD5, qop=auth, \
                 nc=00000001, cnonce=\"000000000a4f113b\", opaque=\"5ccc\"\r\n"
            )
        );
    }

    #[test]
    fn the_first_known_hash_is_taken() {
        let line = answered(
            "WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=SHA-512-256\r\n\
             WWW-Authenticate: Digest realm=\"r\", nonce=\"n, m\", algorithm=SHA-256\r\n\
             WWW-Authenticate: Digest realm=\"r\", nonce=\"n\", algorithm=MD5\r\n",
        );
        let line = line.unwrap();
        assert!(line.contains("algorithm=SHA-256") && line.contains("nonce=\"n, m\""), "{line}");
        assert!(
            line.contains(
                "response=\"eeed6f27af76d66a118c6886a2fdc3006393ba135d1462e2e06b3b04109c74ce\""
            ),
            "{line}"
        );
        assert_eq!(answered("WWW-Authenticate: Basic realm=\"r\"\r\n"), None);
        assert_eq!(answered(""), None);
    }
}
