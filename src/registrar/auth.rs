//! Whether a phone is who it says it is: digest, the server's side (RFC 3261 22, RFC 7616, RFC 8760).
//!
//! Owns: challenges, their nonces, the comparison of names.
//! Never: keeps a password, tells an unknown user from a wrong password, or authenticates a carrier.
//!
//! Three choices, each what phones in the field cope with best:
//! * Every challenge is a 401 with WWW-Authenticate, for calls too: towards a phone we are the UAS of
//!   its request (RFC 3261 22.2), not a proxy.
//! * A wrong password is answered like none, with a fresh 401 that is not stale. Phones then ask
//!   their user or give up by themselves (22.3); after a 403 many never try again. Whoever counts
//!   failures has [`Reason::Wrong`].
//! * SHA-256 is offered before MD5, on lines of their own (RFC 8760 2.3), and to everybody alike: an
//!   offer that depended on the user would tell who exists.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use super::nonce::Nonces;
use crate::{
    ids::Entropy,
    sip::{
        HeaderName, Message, Method, NameAddr, Uri,
        digest::{self, Algorithm, Challenge, Credentials},
    },
    wipe::Passing,
};
use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

/// How long a nonce is good for, where the configuration says nothing else.
pub const NONCE_LIFETIME: Duration = Duration::from_secs(300);
/// What can be offered, in this order.
const OFFERABLE: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];
/// Stands in for the password of a user who does not exist.
const NOBODYS_PASSWORD: &str = "nobody";

/// What is known of a user's password.
#[derive(Clone, Debug)]
pub enum Known<'u> {
    /// The password itself.
    Password(&'u str),
    /// Its hashes with user and realm ([`digest::ha1`]), in hexadecimal.
    Ha1 {
        /// By MD5.
        md5: Option<&'u str>,
        /// By SHA-256.
        sha256: Option<&'u str>,
    },
}

/// Where a user's proof is compared.
enum Expected<'u> {
    Password(&'u str),
    Ha1(&'u str),
    /// No such user, or no hash by this algorithm.
    Nothing,
}

impl<'u> Known<'u> {
    fn by(&self, algorithm: Algorithm) -> Expected<'u> {
        let stored = |ha1: &Option<&'u str>| ha1.map_or(Expected::Nothing, Expected::Ha1);
        match (self, algorithm) {
            (Self::Password(password), _) => Expected::Password(password),
            (Self::Ha1 { md5, .. }, Algorithm::Md5) => stored(md5),
            (Self::Ha1 { sha256, .. }, Algorithm::Sha256) => stored(sha256),
            (Self::Ha1 { .. }, Algorithm::Sha512_256) => Expected::Nothing,
        }
    }

    fn has(&self, algorithm: Algorithm) -> bool {
        match self.by(algorithm) {
            Expected::Password(_) | Expected::Ha1(_) => true,
            Expected::Nothing => false,
        }
    }
}

/// What to do with a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It comes from this user.
    Ok(Box<str>),
    /// Answer 401 with these values of WWW-Authenticate, each on a line of its own.
    Challenge {
        /// The strongest algorithm first.
        values: Vec<String>,
        /// Why the request did not do.
        reason: Reason,
    },
    /// Answer with this status; another attempt would not help.
    Refuse {
        /// 400 or 403.
        status: u16,
        /// The reason phrase.
        reason: &'static str,
    },
}

/// Why somebody is challenged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// No credentials for our realm, as in every first request.
    Missing,
    /// The nonce was not made by us for this source; or the password is right, but the nonce too old or
    /// used before: `stale=true`.
    Stale,
    /// The password is wrong, or there is no such user.
    Wrong,
}

/// Challenges phones and checks their answers, for one shard.
#[derive(Debug)]
pub struct Authenticator {
    realm: Box<str>,
    offered: Vec<Algorithm>,
    nonces: Nonces,
    entropy: Entropy,
}

impl Authenticator {
    /// Creates it with secrets of its own. The realm loses characters that need escapes.
    pub fn new(realm: &str, lifetime: Duration, mut entropy: Entropy) -> Self {
        let nonces = Nonces::new(lifetime, &mut entropy);
        Self { realm: plain(realm), offered: OFFERABLE.into(), nonces, entropy }
    }

    /// Speaks for another realm from now on; nonces stay good.
    pub fn set_realm(&mut self, realm: &str) {
        self.realm = plain(realm);
    }

    /// Offers of `order` only algorithms by which every one of `users` can be checked: a phone takes
    /// the best that is offered, and would fail where only its MD5 hash is stored. Where they have
    /// none in common, all of `order` are offered.
    pub fn offer_to<'u>(&mut self, order: &[Algorithm], users: impl Iterator<Item = Known<'u>>) {
        let mut offered = order.to_vec();
        users.for_each(|user| offered.retain(|algorithm| user.has(*algorithm)));
        self.offered = if offered.is_empty() { order.into() } else { offered };
    }

    /// Returns whose passwords are meant.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Checks who sent a request from `source`, and that it speaks for nobody else. `users` knows
    /// passwords by user name. The time taken does not tell whether a user exists.
    ///
    /// An answer to a nonce that was not made for this source is not judged at all (RFC 7616 3.3 lets
    /// us say `stale` to it): every password that is judged is a guess of whoever has this address.
    pub fn check<'u>(
        &mut self,
        (request, source): (&Message, IpAddr),
        users: impl Fn(&str) -> Option<Known<'u>>,
        wall: SystemTime,
    ) -> Verdict {
        let Some(credentials) = self.credentials(request) else {
            return self.challenge(Reason::Missing, source, wall);
        };
        let Some(nonce) = self.nonces.read(&credentials.nonce, source) else {
            return self.challenge(Reason::Stale, source, wall);
        };
        let (ha1, is_real) = self.ha1(&credentials, users(&credentials.username));
        let is_right = digest::verify(&credentials, &ha1, request.method_token());
        if !(is_right && is_real) {
            return self.challenge(Reason::Wrong, source, wall);
        }
        // RFC 7616 3.4.6: the answer is to this request, not to one that somebody overheard.
        if !names_the_same(&credentials.uri, request.uri()) {
            return Verdict::Refuse { status: 400, reason: "Digest uri Is Not The Request-URI" };
        }
        let nc = credentials.nc.filter(|_| credentials.qop.is_some());
        if !self.nonces.spend(nonce, nc, wall) {
            return self.challenge(Reason::Stale, source, wall);
        }
        identify(request, credentials.username)
    }

    /// Returns whether a request answers a challenge of ours that went to `source`, rightly or not.
    pub fn has_been_asked(&self, request: &Message, source: IpAddr) -> bool {
        let credentials = self.credentials(request);
        credentials.is_some_and(|c| self.nonces.read(&c.nonce, source).is_some())
    }

    /// Makes a challenge for whoever is at `source`.
    pub fn challenge(&mut self, reason: Reason, source: IpAddr, wall: SystemTime) -> Verdict {
        let nonce = self.nonces.mint(source, &mut self.entropy, wall);
        let challenge = |algorithm| Challenge {
            realm: self.realm.clone(),
            nonce: nonce.as_str().into(),
            opaque: None,
            algorithm,
            qop_auth: true,
            stale: reason == Reason::Stale,
            proxy: false,
        };
        let values =
            self.offered.iter().map(|algorithm| challenge(*algorithm).to_string()).collect();
        Verdict::Challenge { values, reason }
    }

    /// Returns the strongest answer to us: there may be some to others, and some to both offers.
    fn credentials(&self, request: &Message) -> Option<Credentials> {
        let given = request.credentials(HeaderName::Authorization).into_iter();
        let ours = given.filter(|c| *c.realm == *self.realm && OFFERABLE.contains(&c.algorithm));
        ours.max_by_key(|credentials| credentials.algorithm)
    }

    /// Returns what to compare with, and whether it is real: with the stand-in nobody gets in. One hash is
    /// computed whoever asks, known or not, for the first time or again.
    fn ha1(&self, credentials: &Credentials, known: Option<Known<'_>>) -> (Passing, bool) {
        let algorithm = credentials.algorithm;
        let expected = known.map_or(Expected::Nothing, |known| known.by(algorithm));
        let password = match expected {
            Expected::Password(password) => password,
            Expected::Ha1(_) | Expected::Nothing => NOBODYS_PASSWORD,
        };
        let hashed =
            Passing::new(digest::ha1(algorithm, &credentials.username, &self.realm, password));
        match expected {
            Expected::Password(_) => (hashed, true),
            Expected::Ha1(stored) => (Passing::new(stored.to_owned()), true),
            Expected::Nothing => (hashed, false),
        }
    }
}

/// The realm stands in a quoted string that not every phone unescapes.
fn plain(realm: &str) -> Box<str> {
    let is_plain = |c: &char| !c.is_control() && !matches!(c, '"' | '\\');
    realm.chars().filter(is_plain).collect::<String>().into()
}

/// Returns whether the request speaks for its sender: a phone registers itself only, and calls as
/// itself or as nobody (RFC 3323 4.1).
fn identify(request: &Message, user: Box<str>) -> Verdict {
    let is =
        |who: &NameAddr<'_>| who.parsed_uri().is_some_and(|uri| *uri.user_unescaped() == *user);
    let (from, to) = (request.from(), request.to());
    let is_registering = request.method() == Method::Register;
    if is_registering && !is(&to) {
        return Verdict::Refuse { status: 403, reason: "To Is Not The Authenticated User" };
    }
    if !is(&from) && (is_registering || !is_anonymous(&from)) {
        return Verdict::Refuse { status: 403, reason: "From Is Not The Authenticated User" };
    }
    Verdict::Ok(user)
}

fn is_anonymous(from: &NameAddr<'_>) -> bool {
    from.parsed_uri().is_some_and(|uri| {
        uri.host.eq_ignore_ascii_case("anonymous.invalid")
            && uri.user_unescaped().eq_ignore_ascii_case("anonymous")
    })
}

/// Compares the digest's `uri` with the Request-URI: the same user at the same host. Ports and
/// parameters are for transport, and some phones leave them out of one of the two.
fn names_the_same(digest_uri: &str, request_uri: &str) -> bool {
    if digest_uri == request_uri {
        return true;
    }
    match (Uri::parse(digest_uri), Uri::parse(request_uri)) {
        (Some(a), Some(b)) => {
            let same_host = match (a.ip(), b.ip()) {
                (Some(a), Some(b)) => a == b,
                (None, None) => a.host.eq_ignore_ascii_case(b.host),
                (Some(_), None) | (None, Some(_)) => false,
            };
            same_host && a.scheme == b.scheme && a.user_unescaped() == b.user_unescaped()
        }
        (None, _) | (_, None) => false,
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "a test's sums are its own")]
#[path = "auth_tests.rs"]
mod tests;
