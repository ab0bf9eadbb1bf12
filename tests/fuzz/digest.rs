//! Credentials: whatever is done to those of a user, nobody else gets in with them.

use crate::{fuzz, lines};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, SystemTime},
};
use tandem::{
    ids::Entropy,
    registrar::{Authenticator, Known, Verdict},
    sip::{
        HeaderName, Message,
        digest::{self, Challenge},
    },
    trunk::TrunkCredentials,
};

const REALM: &str = "pbx.example.com";
const PASSWORD: &str = "correct horse";
const USER: &str = "1001";
const URI: &str = "sip:pbx.example.com";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

#[test]
fn a_proof() {
    let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_700_000);
    let mut ours = authenticator();
    let request = register("");
    let Verdict::Challenge { values, .. } = ours.check((&request, HERE), known, wall) else {
        panic!("let in without a proof");
    };
    let proofs = values.iter().map(|value| {
        let challenge = Challenge::parse(value.as_bytes(), false).expect("our own challenge");
        let proof = digest::respond(&challenge, USER, PASSWORD, "REGISTER", URI, 1, "0a4f113b");
        register(&format!("Authorization: {proof}\r\n")).bytes().to_vec()
    });
    let corpus: Vec<_> = proofs.collect();
    for proof in &corpus {
        let proof = Message::parse(proof.clone().into()).expect("a request");
        assert_eq!(fresh().check((&proof, HERE), known, wall), Verdict::Ok(USER.into()));
    }
    fuzz("digest", 20_000, &corpus, |bytes| {
        let Ok(request) = Message::parse(bytes.to_vec().into()) else { return };
        match fresh().check((&request, HERE), known, wall) {
            Verdict::Ok(user) => {
                let named = [request.from(), request.to()]
                    .map(|who| who.parsed_uri().is_some_and(|uri| uri.user_unescaped() == USER));
                assert_eq!((&*user, request.method_token()), (USER, "REGISTER"));
                assert!(named.iter().all(|named| *named), "somebody else");
                assert!(
                    request.uri().to_ascii_lowercase().starts_with(URI),
                    "another request: {}",
                    request.uri()
                );
            }
            Verdict::Challenge { values, .. } => assert_eq!(values.len(), 2),
            Verdict::Refuse { status, .. } => assert!([400, 403].contains(&status)),
        }
    });
}

/// What a carrier asks: an answer has no line end of its own, and the password is not in it.
#[test]
fn a_challenge() {
    fuzz("challenge", 20_000, &lines("challenge.txt"), |bytes| {
        let Ok(response) = Message::parse(bytes.to_vec().into()) else { return };
        if response.is_request() {
            return;
        }
        let mut credentials = TrunkCredentials::new("Asterisk", PASSWORD);
        let mut entropy = Entropy::from_u64(1);
        let answer = credentials.answer(&response, "INVITE", "sip:+1@carrier", &mut entropy);
        if let Some((name, value)) = answer {
            assert!([HeaderName::Authorization, HeaderName::ProxyAuthorization].contains(&name));
            assert!(value.starts_with("Digest ") && !value.contains(PASSWORD), "{value}");
            assert!(!value.contains(['\r', '\n', '\0']), "{value:?}");
        }
        for (_, value) in credentials.beside("INVITE", "sip:+1@carrier", None, &mut entropy) {
            assert!(!value.contains(['\r', '\n', '\0']), "{value:?}");
        }
    });
}

fn authenticator() -> Authenticator {
    Authenticator::new(REALM, Duration::from_secs(300), Entropy::from_u64(7))
}

/// One that has made the challenge, and seen no answer.
fn fresh() -> Authenticator {
    authenticator()
}

fn known(name: &str) -> Option<Known<'static>> {
    (name == USER).then_some(Known::Password(PASSWORD))
}

fn register(authorization: &str) -> Message {
    let text = format!(
        "REGISTER {URI} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\n\
         From: <sip:{USER}@pbx.example.com>;tag=1\r\nTo: <sip:{USER}@pbx.example.com>\r\n\
         Call-ID: a\r\nCSeq: 1 REGISTER\r\n{authorization}Contact: <sip:{USER}@192.0.2.7>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    Message::parse(text.into()).expect("a request")
}
