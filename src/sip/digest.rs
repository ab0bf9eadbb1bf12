//! Digest authentication, both sides of it (RFC 3261 22, RFC 7616, RFC 8760).
//!
//! Owns: reading challenges and credentials, and the computations.
//! Never: makes a nonce, judges its age, knows a user: who asks does that.
//!
//! Texts that come in quotes are kept as they stand between the quotes, escapes included, because
//! that is what both sides hash and echo. A header with one that is not UTF-8 is skipped.

use super::{
    build::quote,
    header::HeaderName,
    message::Message,
    text::{self, Hiding},
};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};
use std::fmt;

/// For how many parameters of a scheme there is room before it is known how many there are.
const PARAMS_USUAL: usize = 12;

/// A hash function, the weakest first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Algorithm {
    /// RFC 2617's, and what is meant where none is named.
    Md5,
    /// RFC 8760.
    Sha256,
    /// RFC 8760.
    Sha512_256,
}

impl Algorithm {
    /// Returns the token of an `algorithm` parameter.
    pub fn token(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
            Self::Sha512_256 => "SHA-512-256",
        }
    }

    /// Reads an `algorithm` parameter, in any case of letters. The `-sess` variants are unknown.
    pub fn parse(token: &str) -> Option<Self> {
        let all = [Self::Md5, Self::Sha256, Self::Sha512_256];
        all.into_iter().find(|known| known.token().eq_ignore_ascii_case(token))
    }

    /// Hashes the parts, joined by colons, to lower-case hexadecimal.
    fn hash(self, parts: &[&str]) -> String {
        match self {
            Self::Md5 => hex(&joined::<Md5>(parts)),
            Self::Sha256 => hex(&joined::<Sha256>(parts)),
            Self::Sha512_256 => hex(&joined::<Sha512_256>(parts)),
        }
    }
}

fn joined<H: Digest>(parts: &[&str]) -> impl AsRef<[u8]> + use<H> {
    let mut hash = H::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            hash.update(b":");
        }
        hash.update(part);
    }
    hash.finalize()
}

fn hex(bytes: &impl AsRef<[u8]>) -> String {
    let bytes = bytes.as_ref();
    let digit = |nibble: u8| match nibble {
        0..=9 => b'0'.wrapping_add(nibble),
        _ => b'a'.wrapping_add(nibble.wrapping_sub(10)),
    };
    let digits = bytes.iter().flat_map(|byte| [digit(byte.wrapping_shr(4)), digit(byte & 15)]);
    let mut text = Vec::with_capacity(bytes.len().saturating_mul(2));
    text.extend(digits);
    String::from_utf8(text).unwrap_or_default()
}

/// What a server asks. `Display` writes the header's value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// Whose passwords are meant.
    pub realm: Box<str>,
    /// The server's once-only text.
    pub nonce: Box<str>,
    /// To be echoed.
    pub opaque: Option<Box<str>>,
    /// The hash.
    pub algorithm: Algorithm,
    /// Whether `qop=auth` is offered; without it the answer is RFC 2069's.
    pub qop_auth: bool,
    /// Whether only the nonce was too old: the password need not be asked for again.
    pub stale: bool,
    /// Whether it came in Proxy-Authenticate and is answered in Proxy-Authorization.
    pub proxy: bool,
}

impl Challenge {
    /// Reads the first challenge of a header's value that we can answer.
    pub fn parse(value: &[u8], proxy: bool) -> Option<Self> {
        let value = text::unfold(value);
        groups(&value).into_iter().find_map(|group| Self::from_group(&group, proxy))
    }

    /// Returns the header that the answer goes into.
    pub fn answer_header(&self) -> HeaderName {
        if self.proxy { HeaderName::ProxyAuthorization } else { HeaderName::Authorization }
    }

    /// A challenge with an unknown algorithm, or with `qop` but without `auth`, is none.
    fn from_group(group: &Group<'_>, proxy: bool) -> Option<Self> {
        let qop = group.text("qop")?;
        let mut qops = qop.unwrap_or_default().split(',').map(str::trim);
        let qop_auth = qops.any(|qop| qop.eq_ignore_ascii_case("auth"));
        if !group.is_digest() || (qop.is_some() && !qop_auth) {
            return None;
        }
        Some(Self {
            realm: group.text("realm")??.into(),
            nonce: group.text("nonce")??.into(),
            opaque: group.text("opaque")?.map(Into::into),
            algorithm: group.algorithm()?,
            qop_auth,
            stale: group.text("stale")?.is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            proxy,
        })
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { realm, nonce, opaque, algorithm, qop_auth, stale, proxy: _ } = self;
        let start = ["Digest realm=\"", realm, "\", nonce=\"", nonce, "\", algorithm="];
        let qop = if *qop_auth { ", qop=\"auth\"" } else { "" };
        let [before, opaque, after] = match opaque {
            Some(opaque) => [", opaque=\"", opaque, "\""],
            None => [""; 3],
        };
        let end = [algorithm.token(), qop, before, opaque, after];
        let stale = if *stale { ", stale=true" } else { "" };
        start.into_iter().chain(end).chain([stale]).try_for_each(|part| f.write_str(part))
    }
}

/// What a client answers. `Debug` leaves out what a password could be guessed from.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// Who it claims to be.
    pub username: Box<str>,
    /// The challenge's realm.
    pub realm: Box<str>,
    /// The challenge's nonce.
    pub nonce: Box<str>,
    /// The digest URI as received; it is hashed as it is, not the Request-URI.
    pub uri: Box<str>,
    /// The answer, hexadecimal.
    pub response: Box<str>,
    /// The hash.
    pub algorithm: Algorithm,
    /// Echoed.
    pub opaque: Option<Box<str>>,
    /// `auth`, or nothing from a client of RFC 2069.
    pub qop: Option<Box<str>>,
    /// How often the nonce was used; counts with `qop` only.
    pub nc: Option<u32>,
    /// The client's once-only text.
    pub cnonce: Option<Box<str>>,
    /// `nc` as written, which is what is hashed.
    nc_text: Option<Box<str>>,
}

impl Credentials {
    /// Reads the first digest credentials of a header's value.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = text::unfold(value);
        groups(&value).iter().find_map(Self::from_group)
    }

    fn from_group(group: &Group<'_>) -> Option<Self> {
        let nc = group.text("nc")?;
        if !group.is_digest() {
            return None;
        }
        Some(Self {
            username: group.text("username")??.into(),
            realm: group.text("realm")??.into(),
            nonce: group.text("nonce")??.into(),
            uri: group.text("uri")??.into(),
            response: group.text("response")??.into(),
            algorithm: group.algorithm()?,
            opaque: group.text("opaque")?.map(Into::into),
            qop: group.text("qop")?.map(Into::into),
            nc: nc.map(|nc| u32::from_str_radix(nc, 16)).transpose().ok()?,
            cnonce: group.text("cnonce")?.map(Into::into),
            nc_text: nc.map(Into::into),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl Message {
    /// Returns the challenges of a 401 or 407 that we can answer, in the server's order of
    /// preference (RFC 8760 2.3).
    pub fn challenges(&self) -> Vec<Challenge> {
        let of = |name, proxy| {
            self.lines().filter(move |line| line.id() == name).flat_map(move |line| {
                let read = |group: &Group<'_>| Challenge::from_group(group, proxy);
                groups(&line.value()).iter().filter_map(read).collect::<Vec<_>>()
            })
        };
        of(HeaderName::WwwAuthenticate, false)
            .chain(of(HeaderName::ProxyAuthenticate, true))
            .collect()
    }

    /// Returns the digest credentials of Authorization or Proxy-Authorization; there may be some
    /// for realms of others.
    pub fn credentials(&self, name: HeaderName) -> Vec<Credentials> {
        let lines = self.lines().filter(|line| line.id() == name);
        lines.filter_map(|line| Credentials::parse(&line.value())).collect()
    }
}

/// Computes what a server may keep instead of the password.
pub fn ha1(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> String {
    algorithm.hash(&[user, realm, password])
}

/// Answers a challenge with a password: the value of Authorization or Proxy-Authorization.
/// `uri` is the Request-URI exactly as it is sent; `nc` counts the uses of this nonce from 1.
#[expect(clippy::too_many_arguments, reason = "the inputs of RFC 7616 3.4.1; a struct hides none")]
pub fn respond(
    challenge: &Challenge,
    username: &str,
    password: &str,
    method: &str,
    uri: &str,
    nc: u32,
    cnonce: &str,
) -> String {
    let ha1 = ha1(challenge.algorithm, username, &challenge.realm, password);
    respond_with_ha1(challenge, username, &ha1, method, uri, nc, cnonce)
}

/// Answers a challenge with [`ha1`]'s result; otherwise as [`respond`].
#[expect(clippy::too_many_arguments, reason = "the inputs of RFC 7616 3.4.1; a struct hides none")]
pub fn respond_with_ha1(
    challenge: &Challenge,
    username: &str,
    ha1: &str,
    method: &str,
    uri: &str,
    nc: u32,
    cnonce: &str,
) -> String {
    let Challenge { realm, nonce, opaque, algorithm, qop_auth, stale: _, proxy: _ } = challenge;
    let nc = format!("{nc:08x}");
    let count = qop_auth.then_some((&*nc, cnonce));
    let response = compute(*algorithm, ha1, nonce, count, &algorithm.hash(&[method, uri]));
    let mut value = format!(
        "Digest username={}, realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm={}",
        quote(username),
        algorithm.token(),
    );
    if *qop_auth {
        value.push_str(&format!(", cnonce=\"{cnonce}\", qop=auth, nc={nc}"));
    }
    if let Some(opaque) = opaque {
        value.push_str(&format!(", opaque=\"{opaque}\""));
    }
    value
}

/// Returns whether credentials prove knowledge of the password behind `ha1`, for `method`. The
/// time taken does not depend on where the answers differ.
pub fn verify(credentials: &Credentials, ha1: &str, method: &str) -> bool {
    let Credentials { algorithm, nonce, uri, qop, cnonce, nc_text, .. } = credentials;
    let count = match (qop.as_deref(), nc_text.as_deref(), cnonce.as_deref()) {
        (None, _, _) => None,
        (Some(qop), Some(nc), Some(cnonce)) if qop.eq_ignore_ascii_case("auth") => {
            Some((nc, cnonce))
        }
        (Some(_), _, _) => return false,
    };
    let ha2 = algorithm.hash(&[method, uri]);
    let want = compute(*algorithm, &ha1.to_ascii_lowercase(), nonce, count, &ha2);
    let got = credentials.response.to_ascii_lowercase();
    let differences = want.bytes().zip(got.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    want.len() == got.len() && differences == 0
}

/// RFC 7616 3.4.1; without `count` (nc and cnonce), RFC 2069's.
fn compute(
    algorithm: Algorithm,
    ha1: &str,
    nonce: &str,
    count: Option<(&str, &str)>,
    ha2: &str,
) -> String {
    match count {
        Some((nc, cnonce)) => algorithm.hash(&[ha1, nonce, nc, cnonce, "auth", ha2]),
        None => algorithm.hash(&[ha1, nonce, ha2]),
    }
}

/// A scheme and its parameters.
struct Group<'a> {
    scheme: &'a [u8],
    params: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Group<'a> {
    fn is_digest(&self) -> bool {
        self.scheme.eq_ignore_ascii_case(b"Digest")
    }

    /// Returns a parameter without its quotes. `None`: it is there and cannot be repeated between
    /// quotes of ours: not UTF-8, with controls, or with a quote or backslash outside of quotes.
    fn text(&self, name: &str) -> Option<Option<&'a str>> {
        let found = self.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
        let Some((_, value)) = found else { return Some(None) };
        let value = match text::quoted(value) {
            Some((inside, _)) => inside,
            None if value.iter().any(|byte| matches!(byte, b'"' | b'\\')) => return None,
            None => value,
        };
        let text = std::str::from_utf8(value).ok()?;
        // Not ended early: what has no branches is looked at many bytes at a time.
        let is_odd = |odd: bool, byte: &u8| odd | byte.is_ascii_control() | !byte.is_ascii();
        let has_controls = value.iter().fold(false, is_odd) && text.contains(char::is_control);
        (!has_controls).then_some(Some(text))
    }

    fn algorithm(&self) -> Option<Algorithm> {
        match self.text("algorithm")? {
            Some(token) => Algorithm::parse(token),
            None => Some(Algorithm::Md5),
        }
    }
}

/// Splits `Digest a=1, b="2", Basic realm="x"`: commas separate both parameters and schemes.
fn groups(value: &[u8]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for part in text::commas(value, Hiding::Quotes).filter(|part| !part.is_empty()) {
        let (word, rest) = text::split_at(part, |byte| !text::is_token_byte(byte));
        let rest = text::trim_start(rest);
        let param = match rest.strip_prefix(b"=") {
            Some(value) => Some((word, text::trim_start(value))),
            None => {
                // Only the first may be large: there may be as many as bytes.
                let room = if groups.is_empty() { PARAMS_USUAL } else { 0 };
                groups.push(Group { scheme: word, params: Vec::with_capacity(room) });
                let param = text::split_once(rest, b'=');
                param.map(|(name, value)| (text::trim(name), text::trim_start(value)))
            }
        };
        if let Some(group) = groups.last_mut() {
            group.params.extend(param);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2617 3.5, RFC 2069 as RFC 2617 3.2.2.1 keeps it, RFC 7616 3.9.1, and 3.9.2 with its
    /// erratum 4897 (the RFC's own figure is not of SHA-512/256).
    #[test]
    fn vectors() {
        const RFC2617: (&str, &str, &str, &str) = (
            "Mufasa",
            "testrealm@host.com",
            "Circle Of Life",
            "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        );
        const RFC7616: (&str, &str, &str, &str) = (
            "Mufasa",
            "http-auth@example.org",
            "Circle of Life",
            "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        );
        const DOE: (&str, &str, &str, &str) = (
            "J\u{e4}s\u{f8}n Doe",
            "api@example.org",
            "Secret, or not?",
            "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK",
        );
        let long = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        let dir = "/dir/index.html";
        for (algorithm, (user, realm, password, nonce), uri, cnonce, want) in [
            (Algorithm::Md5, RFC2617, dir, Some("0a4f113b"), "6629fae49393a05397450978507c4ef1"),
            (Algorithm::Md5, RFC2617, dir, None, "670fd8c2df070c60b045671b8b24ff02"),
            (Algorithm::Md5, RFC7616, dir, Some(long), "8ca523f5e9506fed4657c9700eebdbec"),
            (
                Algorithm::Sha256,
                RFC7616,
                dir,
                Some(long),
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
            (
                Algorithm::Sha512_256,
                DOE,
                "/doe.json",
                Some("NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v"),
                "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5",
            ),
        ] {
            let challenge = Challenge {
                realm: realm.into(),
                nonce: nonce.into(),
                opaque: Some("5ccc".into()),
                algorithm,
                qop_auth: cnonce.is_some(),
                stale: false,
                proxy: false,
            };
            let cnonce = cnonce.unwrap_or_default();
            let value = respond(&challenge, user, password, "GET", uri, 1, cnonce);
            let credentials = Credentials::parse(value.as_bytes()).unwrap();
            assert_eq!(&*credentials.response, want, "{value}");
            assert_eq!(credentials.opaque.as_deref(), Some("5ccc"));
            assert_eq!(credentials.nc, challenge.qop_auth.then_some(1));

            let ha1 = ha1(algorithm, user, realm, password);
            assert!(verify(&credentials, &ha1, "GET"));
            assert!(verify(&credentials, &ha1.to_uppercase(), "GET"), "as typed into a file");
            assert!(!verify(&credentials, &ha1, "POST"));
            let wrong = super::ha1(algorithm, user, realm, "wrong");
            assert!(!verify(&credentials, &wrong, "GET"));
        }
    }

    #[test]
    fn challenges_in_every_shape() {
        let message = response(
            "WWW-Authenticate: Digest realm=\"pbx, \\\"main\\\"\", nonce=\"a==\",\r\n\
             \tqop=\"auth-int , auth\", algorithm=sha-256, stale=TRUE, opaque=\"\"\r\n\
             WWW-Authenticate: Basic realm=\"b\", Digest realm=c,nonce = \"n\" , x , Negotiate, \
             DIGEST nonce=\"m\", realm=\"d\", algorithm=SHA-512-256\r\n\
             WWW-Authenticate: Digest realm=\"one\", nonce=\"x\", algorithm=AKAv1-MD5\r\n\
             WWW-Authenticate: Digest realm=\"two\", nonce=\"x\", qop=\"auth-int\"\r\n\
             WWW-Authenticate: Digest realm=\"\u{fffd}\"\r\n\
             Proxy-Authenticate: Digest realm=\"sip.twilio.com\",nonce=\"y\",qop=\"auth\"\r\n",
        );
        let got: Vec<_> = message.challenges().iter().map(ToString::to_string).collect();
        assert_eq!(
            got,
            [
                "Digest realm=\"pbx, \\\"main\\\"\", nonce=\"a==\", algorithm=SHA-256, \
                 qop=\"auth\", opaque=\"\", stale=true",
                "Digest realm=\"c\", nonce=\"n\", algorithm=MD5",
                "Digest realm=\"d\", nonce=\"m\", algorithm=SHA-512-256",
                "Digest realm=\"sip.twilio.com\", nonce=\"y\", algorithm=MD5, qop=\"auth\"",
            ]
        );
        let headers: Vec<_> = message.challenges().iter().map(Challenge::answer_header).collect();
        let www = HeaderName::Authorization;
        assert_eq!(headers, [www, www, www, HeaderName::ProxyAuthorization]);
    }

    #[test]
    fn the_uri_is_hashed_as_received() {
        let challenge =
            Challenge::parse(b"Digest realm=\"r\", nonce=\"n\", qop=auth", true).unwrap();
        let uri = "sip:h;transport=tls;X=%41?a=<b>";
        let value = respond(&challenge, "u\"v", "p", "REGISTER", uri, 10, "c");
        let credentials = Credentials::parse(value.as_bytes()).unwrap();
        assert_eq!((&*credentials.uri, credentials.nc), (uri, Some(10)));
        assert_eq!(&*credentials.username, "u\\\"v");
        let ha1 = ha1(Algorithm::Md5, "u\"v", "r", "p");
        assert!(verify(&credentials, &ha1, "REGISTER"));
    }

    #[test]
    fn the_nonce_count_is_hashed_as_written() {
        let ha1 = ha1(Algorithm::Md5, "u", "r", "p");
        let ha2 = Algorithm::Md5.hash(&["INVITE", "sip:h"]);
        let response = Algorithm::Md5.hash(&[&ha1, "n", "0000001A", "c", "auth", &ha2]);
        let value = format!(
            "Digest username=u,realm=r,nonce=n,uri=\"sip:h\",qop=auth,nc=0000001A,cnonce=c,\
             response=\"{}\"",
            response.to_uppercase()
        );
        let credentials = Credentials::parse(value.as_bytes()).unwrap();
        assert_eq!(credentials.nc, Some(26));
        assert!(verify(&credentials, &ha1, "INVITE"));
    }

    #[test]
    fn credentials_that_prove_nothing() {
        let ha1 = ha1(Algorithm::Md5, "u", "r", "p");
        let base = "Digest username=\"u\",realm=\"r\",nonce=\"n\",uri=\"sip:h\",response=";
        for (rest, reads) in [
            ("\"\"", true),
            ("\"00\"", true),
            ("x,qop=auth-int,nc=1,cnonce=c", true),
            ("x,qop=auth", true),
            ("x,qop=auth,nc=zz,cnonce=c", false),
            ("x,algorithm=SHA-1", false),
        ] {
            let read = Credentials::parse(format!("{base}{rest}").as_bytes());
            assert_eq!(read.is_some(), reads, "{rest}");
            assert!(!read.is_some_and(|read| verify(&read, &ha1, "INVITE")), "{rest}");
        }
        let response =
            Algorithm::Md5.hash(&[&ha1, "n", &Algorithm::Md5.hash(&["INVITE", "sip:h"])]);
        let right = Credentials::parse(format!("{base}{response}").as_bytes()).unwrap();
        assert!(verify(&right, &ha1, "INVITE"));
        for qop in ["auth-int", "auth", ""] {
            let other = format!("{base}{response},qop=\"{qop}\"");
            let other = Credentials::parse(other.as_bytes()).unwrap();
            assert!(!verify(&other, &ha1, "INVITE"), "{qop}: not computed as it says");
        }
        assert_eq!(Credentials::parse(b"Basic dTpw"), None);
        assert_eq!(Credentials::parse(b"Digest username=\"\xff\",realm=r"), None);
        assert_eq!(Credentials::parse(b""), None);
    }

    #[test]
    fn debug_hides_the_answer() {
        let value = b"Digest username=u,realm=r,nonce=n,uri=\"sip:h\",response=\"feed\"";
        let printed = format!("{:?}", Credentials::parse(value).unwrap());
        assert!(!printed.contains("feed"), "{printed}");
    }

    fn response(headers: &str) -> Message {
        let text = format!(
            "SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/UDP h\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:c@d>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n{headers}\r\n"
        );
        Message::parse(text.into()).unwrap()
    }
}
