//! What a phone must do to get in, and everything that keeps it out.

use super::*;
use bytes::Bytes;
use std::time::UNIX_EPOCH;

const PASSWORD: &str = "correct horse";
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

#[test]
fn both_algorithms_are_offered_strongest_first_on_their_own_lines() {
    let mut bench = Bench::new();
    let (values, reason) = challenged(bench.check(&request("REGISTER", "")));
    assert_eq!(reason, Reason::Missing);
    let [first, second] = &values[..] else { panic!("{values:?}") };
    assert!(first.contains("algorithm=SHA-256") && second.contains("algorithm=MD5"), "{values:?}");
    for value in &values {
        assert!(value.starts_with("Digest realm=\"pbx\""), "{value}");
        assert!(value.contains("qop=\"auth\"") && !value.contains("stale"), "{value}");
    }
}

#[test]
fn the_right_password_gets_in_with_either_algorithm() {
    for algorithm in OFFERABLE {
        for method in ["REGISTER", "INVITE"] {
            let mut bench = Bench::new();
            let answer = bench.answer(Answer { algorithm, method, ..RIGHT });
            assert_eq!(bench.check(&request(method, &answer)), Verdict::Ok("1001".into()));
        }
    }
}

#[test]
fn stored_hashes_do_instead_of_the_password() {
    let md5 = digest::ha1(Algorithm::Md5, "1001", "pbx", PASSWORD);
    let stored = |_: &str| Some(Known::Ha1 { md5: Some(&md5), sha256: None });
    for (algorithm, gets_in) in [(Algorithm::Md5, true), (Algorithm::Sha256, false)] {
        let mut bench = Bench::new();
        let answer = bench.answer(Answer { algorithm, ..RIGHT });
        let request = request("REGISTER", &answer);
        let verdict = bench.authenticator.check((&request, HERE), stored, bench.wall);
        assert_eq!(verdict == Verdict::Ok("1001".into()), gets_in, "{algorithm:?} {verdict:?}");
    }
}

/// What is wrong, and how it is told: `W`rong, `S`tale, `M`issing, or a status.
#[test]
fn what_keeps_a_phone_out() {
    for (answer, want) in [
        (RIGHT, "ok"),
        (Answer { password: "wrong", ..RIGHT }, "W"),
        (Answer { username: "nobody", ..RIGHT }, "W"),
        (Answer { username: "nobody", password: NOBODYS_PASSWORD, ..RIGHT }, "W"),
        (Answer { method: "INVITE", ..RIGHT }, "W"),
        (Answer { realm: Some("elsewhere"), ..RIGHT }, "M"),
        (Answer { algorithm: Algorithm::Sha512_256, ..RIGHT }, "M"),
        (Answer { nonce: Some("00006b49d2000000000000000000ffffffffffffffff"), ..RIGHT }, "S"),
        // Not judged, or whoever makes nonces up could guess without end.
        (Answer { nonce: Some("00006b49d2"), password: "wrong", ..RIGHT }, "S"),
        (Answer { nc: 0, ..RIGHT }, "S"),
        (Answer { uri: "sip:elsewhere.example", ..RIGHT }, "400"),
        (Answer { uri: "sip:1001@pbx.example", ..RIGHT }, "400"),
        (Answer { uri: "nonsense", ..RIGHT }, "400"),
        (Answer { uri: "sip:PBX.example:5060;transport=udp", ..RIGHT }, "ok"),
        (Answer { username: "1002", ..RIGHT }, "403"),
    ] {
        let mut bench = Bench::new();
        let text = bench.answer(answer);
        let got = match bench.check(&request("REGISTER", &text)) {
            Verdict::Ok(_) => "ok".to_owned(),
            Verdict::Challenge { reason: Reason::Missing, .. } => "M".to_owned(),
            Verdict::Challenge { reason: Reason::Stale, .. } => "S".to_owned(),
            Verdict::Challenge { reason: Reason::Wrong, .. } => "W".to_owned(),
            Verdict::Refuse { status, .. } => status.to_string(),
        };
        assert_eq!(got, want, "{answer:?}");
    }
}

#[test]
fn an_unknown_user_and_a_wrong_password_look_alike() {
    let mut known = Bench::new();
    let mut unknown = Bench::new();
    let wrong = known.answer(Answer { password: "wrong", ..RIGHT });
    let nobody = unknown.answer(Answer { username: "nobody", ..RIGHT });
    let a = known.check(&request("REGISTER", &wrong));
    let b = unknown.check(&request("REGISTER", &nobody));
    assert_eq!(a, b, "the same seed, so the same bytes");
}

#[test]
fn an_old_nonce_is_stale_and_a_replay_is_too() {
    let mut bench = Bench::new();
    let answer = bench.answer(RIGHT);
    let request = request("REGISTER", &answer);
    assert_eq!(bench.check(&request), Verdict::Ok("1001".into()));
    let (values, reason) = challenged(bench.check(&request));
    assert_eq!(reason, Reason::Stale);
    assert!(values.iter().all(|value| value.contains("stale=true")), "{values:?}");

    let mut bench = Bench::new();
    let answer = bench.answer(RIGHT);
    bench.wall += NONCE_LIFETIME + Duration::from_secs(1);
    let (_, reason) = challenged(bench.check(&self::request("REGISTER", &answer)));
    assert_eq!(reason, Reason::Stale);
}

#[test]
fn a_nonce_serves_many_requests_while_the_count_rises() {
    let mut bench = Bench::new();
    let nonce = bench.nonce();
    for nc in [1, 2, 3, 7, 5] {
        let answer = bench.answer(Answer { nonce: Some(&nonce), nc, ..RIGHT });
        assert_eq!(bench.check(&request("REGISTER", &answer)), Verdict::Ok("1001".into()), "{nc}");
    }
    let again = bench.answer(Answer { nonce: Some(&nonce), nc: 5, ..RIGHT });
    assert_eq!(challenged(bench.check(&request("REGISTER", &again))).1, Reason::Stale);
}

#[test]
fn a_client_of_rfc_2069_gets_in_once_per_nonce() {
    let mut bench = Bench::new();
    let answer = bench.answer(Answer { algorithm: Algorithm::Md5, qop: false, ..RIGHT });
    let request = request("REGISTER", &answer);
    assert_eq!(bench.check(&request), Verdict::Ok("1001".into()));
    assert_eq!(challenged(bench.check(&request)).1, Reason::Stale);
    // A count that no hash covers proves nothing.
    let answer = bench.answer(Answer { algorithm: Algorithm::Md5, qop: false, ..RIGHT });
    let counted =
        |nc| self::request("REGISTER", &answer.replace("\r\n", &format!(", nc={nc:08x}\r\n")));
    assert_eq!(bench.check(&counted(1)), Verdict::Ok("1001".into()));
    assert_eq!(challenged(bench.check(&counted(2))).1, Reason::Stale);
}

/// What is known of each user: a `p`assword, or hashes by `m`d5 and `s`ha-256.
#[test]
fn what_some_user_cannot_answer_is_offered_to_nobody() {
    for (users, want) in [
        ("", "SHA-256 MD5"),
        ("p", "SHA-256 MD5"),
        ("p m", "MD5"),
        ("ms p", "SHA-256 MD5"),
        ("ms s", "SHA-256"),
        ("m s", "SHA-256 MD5"),
    ] {
        let known = |user: &'static str| match user {
            "p" => Known::Password(PASSWORD),
            hashes => Known::Ha1 {
                md5: hashes.contains('m').then_some("0"),
                sha256: hashes.contains('s').then_some("0"),
            },
        };
        let mut bench = Bench::new();
        bench.authenticator.offer_to(&OFFERABLE, users.split_whitespace().map(known));
        let (values, _) =
            challenged(bench.authenticator.challenge(Reason::Missing, HERE, bench.wall));
        let algorithm =
            |value: &String| Challenge::parse(value.as_bytes(), false).unwrap().algorithm;
        let offered: Vec<_> = values.iter().map(|value| algorithm(value).token()).collect();
        assert_eq!(offered.join(" "), want, "{users}");
    }
}

#[test]
fn the_configured_order_is_kept() {
    for order in [&[Algorithm::Md5, Algorithm::Sha256][..], &[Algorithm::Md5]] {
        let mut bench = Bench::new();
        bench.authenticator.offer_to(order, std::iter::empty());
        let (values, _) =
            challenged(bench.authenticator.challenge(Reason::Missing, HERE, bench.wall));
        let algorithm =
            |value: &String| Challenge::parse(value.as_bytes(), false).unwrap().algorithm;
        assert_eq!(values.iter().map(algorithm).collect::<Vec<_>>(), order);
    }
}

#[test]
fn a_phone_speaks_for_itself() {
    for (method, from, to, want) in [
        ("REGISTER", "<sip:1001@pbx>", "<sip:1001@pbx>", 200),
        ("REGISTER", "<sip:1001@pbx>", "<sip:1002@pbx>", 403),
        ("REGISTER", "<sip:1002@pbx>", "<sip:1001@pbx>", 403),
        ("REGISTER", "<sip:anonymous@anonymous.invalid>", "<sip:1001@pbx>", 403),
        ("INVITE", "\"Boss\" <sip:1001@10.0.0.1>", "<sip:1002@pbx>", 200),
        ("INVITE", "<sip:%31001@pbx>", "<sip:1002@pbx>", 200),
        ("INVITE", "<sip:1002@pbx>", "<sip:1001@pbx>", 403),
        ("INVITE", "<sip:pbx>", "<sip:1002@pbx>", 403),
        ("INVITE", "<tel:+17756187988>", "<sip:1002@pbx>", 403),
        ("INVITE", "\"Anonymous\" <sip:anonymous@anonymous.invalid>", "<sip:1002@pbx>", 200),
        ("INVITE", "<sip:anonymous@pbx>", "<sip:1002@pbx>", 403),
    ] {
        let mut bench = Bench::new();
        let answer = bench.answer(Answer { method, ..RIGHT });
        let verdict = bench.check(&request_from(method, from, to, &answer));
        let got = match verdict {
            Verdict::Ok(_) => 200,
            Verdict::Refuse { status, .. } => status,
            Verdict::Challenge { .. } => 401,
        };
        assert_eq!(got, want, "{method} {from} {to}");
    }
}

#[test]
fn credentials_for_others_and_odd_schemes_are_no_credentials() {
    let mut bench = Bench::new();
    let right = bench.answer(RIGHT);
    for (lines, gets_in) in [
        ("Authorization: NoOneKnowsThisScheme opaque-data=here\r\n".to_owned(), false),
        ("Authorization: Basic MTAwMTpzZWNyZXQ=\r\n".to_owned(), false),
        (format!("Authorization: Digest username=\"1001\", realm=\"other\"\r\n{right}"), true),
    ] {
        let verdict = bench.check(&request("REGISTER", &lines));
        assert_eq!(verdict == Verdict::Ok("1001".into()), gets_in, "{lines}");
    }
}

#[test]
fn a_realm_cannot_break_the_header() {
    let realm = "p\"b\\x\r\nVia: evil";
    let authenticator = Authenticator::new(realm, NONCE_LIFETIME, Entropy::from_u64(1));
    assert_eq!(authenticator.realm(), "pbxVia: evil");
}

/// How a phone answers; everything that it can get wrong.
#[derive(Clone, Copy, Debug)]
struct Answer<'a> {
    username: &'a str,
    password: &'a str,
    algorithm: Algorithm,
    method: &'a str,
    uri: &'a str,
    /// Ours, unless given.
    nonce: Option<&'a str>,
    /// Ours, unless given.
    realm: Option<&'a str>,
    nc: u32,
    qop: bool,
}

const RIGHT: Answer<'static> = Answer {
    username: "1001",
    password: PASSWORD,
    algorithm: Algorithm::Sha256,
    method: "REGISTER",
    uri: "sip:pbx.example",
    nonce: None,
    realm: None,
    nc: 1,
    qop: true,
};

struct Bench {
    authenticator: Authenticator,
    wall: SystemTime,
}

impl Bench {
    fn new() -> Self {
        let authenticator = Authenticator::new("pbx", NONCE_LIFETIME, Entropy::from_u64(7));
        Self { authenticator, wall: UNIX_EPOCH + Duration::from_secs(1_800_000_000) }
    }

    fn check(&mut self, request: &Message) -> Verdict {
        let users =
            |user: &str| ["1001", "1002"].contains(&user).then_some(Known::Password(PASSWORD));
        self.authenticator.check((request, HERE), users, self.wall)
    }

    fn nonce(&mut self) -> String {
        let challenge = self.authenticator.challenge(Reason::Missing, HERE, self.wall);
        let (values, _) = challenged(challenge);
        Challenge::parse(values[0].as_bytes(), false).unwrap().nonce.into()
    }

    /// Returns an Authorization line.
    fn answer(&mut self, answer: Answer<'_>) -> String {
        let nonce = answer.nonce.map_or_else(|| self.nonce(), str::to_owned);
        let challenge = Challenge {
            realm: answer.realm.unwrap_or("pbx").into(),
            nonce: nonce.into(),
            opaque: None,
            algorithm: answer.algorithm,
            qop_auth: answer.qop,
            stale: false,
            proxy: false,
        };
        let Answer { username, password, method, uri, nc, .. } = answer;
        let value = digest::respond(&challenge, username, password, method, uri, nc, "c0ffee");
        format!("Authorization: {value}\r\n")
    }
}

fn challenged(verdict: Verdict) -> (Vec<String>, Reason) {
    match verdict {
        Verdict::Challenge { values, reason } => (values, reason),
        Verdict::Ok(_) | Verdict::Refuse { .. } => panic!("{verdict:?}"),
    }
}

fn request(method: &str, lines: &str) -> Message {
    request_from(method, "<sip:1001@pbx.example>", "<sip:1001@pbx.example>", lines)
}

fn request_from(method: &str, from: &str, to: &str, lines: &str) -> Message {
    let text = format!(
        "{method} sip:pbx.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1\r\n\
         From: {from};tag=1\r\nTo: {to}\r\nCall-ID: 1\r\nCSeq: 1 {method}\r\n\
         Max-Forwards: 70\r\nContact: <sip:1001@10.0.0.1>\r\n\
         {lines}Content-Length: 0\r\n\r\n"
    );
    Message::parse(Bytes::from(text)).unwrap()
}
