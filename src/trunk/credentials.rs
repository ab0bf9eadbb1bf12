//! Our side of a carrier's digest challenge (RFC 3261 22.2, RFC 7616, RFC 8760).
//!
//! Owns: what was asked and how often each nonce was used; when to give up.
//! Never: sends, or shows the password.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used
)]

use crate::{
    ids::Entropy,
    sip::{
        CSeq, HeaderName, Message, Method,
        digest::{self, Challenge},
    },
};
use std::fmt;

/// Challenges answered in a row for one request: a proxy's, the server's, and one renewal of each.
const ROW_MAX: u8 = 4;
/// Realms remembered; the oldest goes.
const SESSIONS_MAX: usize = 4;

/// A user name and password, and the state of their use towards one peer.
///
/// A request that carries an answer is known by its CSeq: whoever sends it takes the next number
/// after the challenged one (RFC 3261 22.2), as for every retry.
#[derive(Clone)]
pub struct TrunkCredentials {
    username: Box<str>,
    password: Box<str>,
    sessions: Vec<Session>,
    row: Option<Row>,
}

/// The latest challenge of one realm.
#[derive(Clone, Debug)]
struct Session {
    challenge: Challenge,
    /// How often its nonce was used.
    used: u32,
}

/// The latest request that carried credentials.
#[derive(Clone, Copy, Debug)]
struct Row {
    cseq: CSeq,
    /// How many challenges led to it.
    answers: u8,
    /// A nonce of it has been called stale already.
    renewed: bool,
    /// It was sent unasked, with a nonce from before.
    unasked: bool,
}

impl TrunkCredentials {
    /// Creates credentials that nobody has asked for yet.
    pub fn new(username: &str, password: &str) -> Self {
        Self { username: username.into(), password: password.into(), sessions: vec![], row: None }
    }

    /// Answers a 401 or 407 to a request with this method and Request-URI: the header to put into the
    /// same request under the next CSeq number. `None`: there is nothing to answer, or the answer was
    /// refused. A stale nonce is renewed once; the realm is not judged, it only enters the hash.
    pub fn answer(
        &mut self,
        response: &Message,
        method: &str,
        uri: &str,
        entropy: &mut Entropy,
    ) -> Option<(HeaderName, String)> {
        let challenge = strongest(response)?;
        let cseq = response.cseq();
        let before = self.row.filter(|row| row.cseq == cseq);
        let row = match before {
            None => Row { cseq: next(cseq), answers: 1, renewed: false, unasked: false },
            Some(before) => self.next_in_row(before, &challenge)?,
        };
        self.row = Some(row);
        self.remember(challenge.clone());
        let value = self.respond(&challenge, method, uri, entropy);
        Some((challenge.answer_header(), value))
    }

    /// Returns headers for a request that has not been challenged, from what the peer asked before
    /// (RFC 7616 3.6): one round trip less where the peer still accepts its nonce, and the same
    /// number as without where it does not.
    pub fn unasked(
        &mut self,
        cseq: CSeq,
        uri: &str,
        entropy: &mut Entropy,
    ) -> Vec<(HeaderName, String)> {
        if self.sessions.is_empty() || cseq.method == Method::Other {
            return vec![];
        }
        self.row = Some(Row { cseq, answers: 0, renewed: false, unasked: true });
        self.beside(cseq.method.as_str(), uri, None, entropy)
    }

    /// Returns the answers to every *other* realm that has asked, to be sent beside that of
    /// [`Self::answer`] where a proxy and the server behind it both ask (RFC 3261 22.3). `answered`
    /// is the header that there is already.
    pub fn beside(
        &mut self,
        method: &str,
        uri: &str,
        answered: Option<HeaderName>,
        entropy: &mut Entropy,
    ) -> Vec<(HeaderName, String)> {
        let challenges = self.sessions.iter().map(|session| session.challenge.clone());
        let others: Vec<Challenge> =
            challenges.filter(|c| Some(c.answer_header()) != answered).collect();
        let respond = |challenge: &Challenge| {
            (challenge.answer_header(), self.respond(challenge, method, uri, entropy))
        };
        others.iter().map(respond).collect()
    }

    /// Decides whether a challenge to a request that carried an answer deserves another one.
    fn next_in_row(&mut self, before: Row, challenge: &Challenge) -> Option<Row> {
        let known = self.sessions.iter().position(|session| session.is_of(challenge));
        let is_first_of_realm = known.is_none();
        let is_outdated = before.unasked || (challenge.stale && !before.renewed);
        if before.answers >= ROW_MAX || !(is_first_of_realm || is_outdated) {
            // What was refused is not offered again unasked.
            self.sessions.retain(|session| !session.is_of(challenge));
            self.row = None;
            return None;
        }
        Some(Row {
            cseq: next(before.cseq),
            answers: before.answers.saturating_add(1),
            renewed: before.renewed || challenge.stale,
            unasked: false,
        })
    }

    fn remember(&mut self, challenge: Challenge) {
        let known = self.sessions.iter_mut().find(|session| session.is_of(&challenge));
        match known {
            Some(session) if session.challenge.nonce == challenge.nonce => {
                session.challenge = challenge;
            }
            Some(session) => *session = Session { challenge, used: 0 },
            None => {
                if self.sessions.len() >= SESSIONS_MAX {
                    self.sessions.remove(0);
                }
                self.sessions.push(Session { challenge, used: 0 });
            }
        }
    }

    /// Uses a remembered nonce once more.
    fn respond(
        &mut self,
        challenge: &Challenge,
        method: &str,
        uri: &str,
        entropy: &mut Entropy,
    ) -> String {
        let session = self.sessions.iter_mut().find(|session| session.is_of(challenge));
        let nc = session.map_or(1, |session| {
            session.used = session.used.saturating_add(1);
            session.used
        });
        let cnonce = format!("{:016x}", entropy.next_u64());
        digest::respond(challenge, &self.username, &self.password, method, uri, nc, &cnonce)
    }
}

impl Session {
    fn is_of(&self, challenge: &Challenge) -> bool {
        self.challenge.realm == challenge.realm && self.challenge.proxy == challenge.proxy
    }
}

impl fmt::Debug for TrunkCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrunkCredentials")
            .field("username", &self.username)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

/// Returns the challenge with the strongest algorithm, the peer's first among equals.
fn strongest(response: &Message) -> Option<Challenge> {
    let proxy = match response.status() {
        401 => false,
        407 => true,
        _ => return None,
    };
    let asked = response.challenges().into_iter().filter(|c| c.proxy == proxy);
    asked.reduce(|best, other| if other.algorithm > best.algorithm { other } else { best })
}

fn next(cseq: CSeq) -> CSeq {
    CSeq { number: cseq.number.wrapping_add(1), ..cseq }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::digest::{Algorithm, Credentials};
    use bytes::Bytes;

    const URI: &str = "sip:+14155550199@acme.pstn.twilio.com";
    const TWILIO: &str =
        r#"Proxy-Authenticate: Digest realm="sip.twilio.com",qop="auth",nonce="n1",opaque="o1""#;

    #[test]
    fn twilios_challenge_is_answered_with_its_opaque() {
        let mut bench = Bench::new();
        let (name, answer) = bench.answer(407, 1, TWILIO).unwrap();
        assert_eq!(name, HeaderName::ProxyAuthorization);
        assert_eq!(answer.algorithm, Algorithm::Md5);
        assert_eq!(answer.opaque.as_deref(), Some("o1"));
        assert_eq!((answer.nc, &*answer.realm, &*answer.uri), (Some(1), "sip.twilio.com", URI));
        let ha1 = digest::ha1(Algorithm::Md5, "Asterisk", "sip.twilio.com", "secret");
        assert!(digest::verify(&answer, &ha1, "INVITE"));
    }

    #[test]
    fn the_strongest_known_algorithm_is_answered() {
        let mut bench = Bench::new();
        let challenge = |algorithm| {
            format!(
                "WWW-Authenticate: Digest realm=\"r\",nonce=\"n\",qop=\"auth\",algorithm={algorithm}"
            )
        };
        let lines = ["MD5", "SHA-512-256", "SHA-256", "SHA-9000"].map(challenge).join("\r\n");
        let (name, answer) = bench.answer(401, 1, &lines).unwrap();
        assert_eq!((name, answer.algorithm), (HeaderName::Authorization, Algorithm::Sha512_256));
    }

    /// Responses in order, each `(status, CSeq, challenge)`, and whether each is answered.
    #[test]
    fn a_refused_answer_is_not_repeated() {
        let www = r#"WWW-Authenticate: Digest realm="registrar",nonce="w",qop="auth""#;
        let fresh = TWILIO.replace("n1", "n2");
        let stale = format!("{fresh},stale=true");
        let stale_again = format!("{},stale=TRUE", TWILIO.replace("n1", "n3"));
        for (responses, want) in [
            (vec![(407, 1, TWILIO), (407, 2, TWILIO)], [true, false].as_slice()),
            (vec![(407, 1, TWILIO), (407, 2, &fresh)], &[true, false]),
            // Stale: once.
            (vec![(407, 1, TWILIO), (407, 2, &stale)], &[true, true]),
            (
                vec![(407, 1, TWILIO), (407, 2, &stale), (407, 3, &stale_again)],
                &[true, true, false],
            ),
            (vec![(407, 1, &stale), (407, 2, &stale_again)], &[true, true]),
            // A proxy, then the server behind it.
            (vec![(407, 1, TWILIO), (401, 2, www)], &[true, true]),
            (vec![(407, 1, TWILIO), (401, 2, www), (401, 3, www)], &[true, true, false]),
            // A later request that carried nothing starts anew.
            (vec![(407, 1, TWILIO), (407, 3, &fresh), (407, 9, TWILIO)], &[true, true, true]),
            // Nothing to answer.
            (vec![(403, 1, TWILIO), (401, 1, TWILIO), (407, 1, www)], &[false, false, false]),
            (vec![(407, 1, "Proxy-Authenticate: Basic realm=\"x\"")], &[false]),
        ] {
            let mut bench = Bench::new();
            let got: Vec<bool> = responses
                .iter()
                .map(|(status, cseq, line)| bench.answer(*status, *cseq, line).is_some())
                .collect();
            assert_eq!(got, want, "{responses:?}");
        }
    }

    #[test]
    fn a_peer_that_invents_realms_is_left() {
        let mut bench = Bench::new();
        let answered = (1..20).take_while(|cseq| {
            let line = TWILIO.replace("sip.twilio.com", &format!("realm-{cseq}"));
            bench.answer(407, *cseq, &line).is_some()
        });
        assert_eq!(answered.count(), usize::from(ROW_MAX));
        assert!(bench.credentials.sessions.len() <= SESSIONS_MAX);
    }

    #[test]
    fn the_count_rises_with_the_nonce_and_starts_with_a_new_one() {
        let mut bench = Bench::new();
        assert!(bench.unasked(1).is_empty());
        let counts = [(407, 1, TWILIO), (407, 5, TWILIO)]
            .map(|(status, cseq, line)| bench.answer(status, cseq, line).unwrap().1.nc);
        assert_eq!(counts, [Some(1), Some(2)]);
        let [(name, unasked)] = &bench.unasked(9)[..] else { panic!() };
        assert_eq!((*name, unasked.nc), (HeaderName::ProxyAuthorization, Some(3)));
        // The nonce has aged, and the peer does not say that it is stale.
        let fresh = TWILIO.replace("n1", "n2");
        let (_, again) = bench.answer(407, 9, &fresh).unwrap();
        assert_eq!((again.nc, &*again.nonce), (Some(1), "n2"));
        assert!(bench.answer(407, 10, &fresh).is_none());
        assert!(bench.unasked(11).is_empty(), "what was refused is not offered");
    }

    #[test]
    fn a_proxy_and_a_server_are_answered_together() {
        let mut bench = Bench::new();
        bench.answer(407, 1, TWILIO).unwrap();
        let www = r#"WWW-Authenticate: Digest realm="registrar",nonce="w",qop="auth""#;
        let (name, _) = bench.answer(401, 2, www).unwrap();
        let Bench { credentials, entropy } = &mut bench;
        let beside = credentials.beside("INVITE", URI, Some(name), entropy);
        let [(HeaderName::ProxyAuthorization, value)] = &beside[..] else { panic!("{beside:?}") };
        assert_eq!(Credentials::parse(value.as_bytes()).unwrap().nc, Some(2));
    }

    #[test]
    fn the_password_does_not_print() {
        let mut bench = Bench::new();
        bench.answer(407, 1, TWILIO).unwrap();
        assert!(!format!("{:?}", bench.credentials).contains("secret"));
    }

    struct Bench {
        credentials: TrunkCredentials,
        entropy: Entropy,
    }

    impl Bench {
        fn new() -> Self {
            let credentials = TrunkCredentials::new("Asterisk", "secret");
            Self { credentials, entropy: Entropy::from_u64(1) }
        }

        fn answer(
            &mut self,
            status: u16,
            cseq: u32,
            line: &str,
        ) -> Option<(HeaderName, Credentials)> {
            let text = format!(
                "SIP/2.0 {status} No\r\n\
                 Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\n\
                 From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: 1\r\n\
                 CSeq: {cseq} INVITE\r\n{line}\r\nContent-Length: 0\r\n\r\n"
            );
            let response = Message::parse(Bytes::from(text)).unwrap();
            let answer = self.credentials.answer(&response, "INVITE", URI, &mut self.entropy);
            answer.map(|(name, value)| (name, Credentials::parse(value.as_bytes()).unwrap()))
        }

        fn unasked(&mut self, number: u32) -> Vec<(HeaderName, Credentials)> {
            let cseq = CSeq { number, method: Method::Invite };
            let headers = self.credentials.unasked(cseq, URI, &mut self.entropy).into_iter();
            headers
                .map(|(name, value)| (name, Credentials::parse(value.as_bytes()).unwrap()))
                .collect()
        }
    }
}
