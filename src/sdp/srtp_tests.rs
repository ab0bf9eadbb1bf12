//! Exchanges of keys: who offers what, what is answered, and when a key changes (RFC 4568).

use super::*;
use crate::ids::{Entropy, Spring};
use bytes::Bytes;

const AES80: &str = "AES_CM_128_HMAC_SHA1_80";
const AES32: &str = "AES_CM_128_HMAC_SHA1_32";
const KEY: &str = "inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
const OTHER_KEY: &str = "inline:PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";

/// What becomes of each offer under each policy: the profile and suite of the answer, or why there is
/// none.
#[test]
fn an_offer_is_answered_as_the_policy_says() {
    let (off, prefer, require) = (Srtp::Off, Srtp::Prefer, Srtp::Require);
    let refused = NoCommonCodec::SrtpOff.to_string();
    let required = NoCommonCodec::SrtpRequired.to_string();
    let no_key = NoCommonCodec::SrtpKeys.to_string();
    let (plain, avp, savp) = ("RTP/AVP", "RTP/AVP AES80", "RTP/SAVP AES80");
    let one = [format!("1 {AES80} {KEY}|2^31")];
    let lines = [format!("1 AES_256_CM_HMAC_SHA1_80 {KEY}"), format!("7 {AES80} {KEY}")];
    let strange = [format!("1 {AES80} {KEY} UNENCRYPTED_SRTP"), "1 x y".into()];
    for (profile, crypto, want) in [
        ("RTP/AVP", &[][..], [plain, plain, &required]),
        ("RTP/AVP", &one, [plain, avp, avp]),
        ("RTP/AVP", &strange, [plain, plain, &required]),
        ("RTP/SAVP", &one, [&refused, savp, savp]),
        ("RTP/SAVPF", &lines, [&refused, "RTP/SAVPF AES80", "RTP/SAVPF AES80"]),
        ("RTP/SAVP", &strange, [&refused, &no_key, &no_key]),
        ("RTP/SAVP", &[], [&refused, &no_key, &no_key]),
        ("UDP/TLS/RTP/SAVPF", &one, [&refused, &no_key, &no_key]),
    ] {
        let offer = describe(profile, crypto);
        for (srtp, want) in [off, prefer, require].into_iter().zip(want) {
            let policy = policy(srtp);
            let got = match answer_alone(&offer, &policy, &mut local(true)) {
                Err(why) => why.to_string(),
                Ok((answer, agreed)) => shown(&answer, &agreed, &offer),
            };
            assert_eq!(got, want, "{profile} {crypto:?} {srtp:?}");
            let admitted = policy.admits(&offer).is_ok();
            assert_eq!(admitted, got.starts_with("RTP/"), "{profile} {crypto:?} {srtp:?}");
        }
    }
}

/// Returns what an answer says, once it is sure that both sides have understood the same.
fn shown(answer: &Bytes, agreed: &Agreed, offer: &Description) -> String {
    let text = std::str::from_utf8(answer).unwrap();
    let profile = text.split_once("m=audio 10000 ").unwrap().1.split(' ').next().unwrap();
    let said = Description::parse(answer.clone()).unwrap();
    let lines = &said.audio().unwrap().crypto;
    assert_eq!(lines.first(), agreed.srtp.as_ref().map(|srtp| &srtp.send));
    match (&agreed.srtp, lines.as_slice()) {
        (None, []) => profile.to_owned(),
        (Some(Secured { receive, .. }), [line]) => {
            assert!(offer.audio().unwrap().crypto.contains(receive));
            assert_eq!((line.tag, line.suite), (receive.tag, receive.suite));
            assert_ne!(line.key, receive.key, "each direction has its own key");
            format!("{profile} {}", if line.suite.name() == AES80 { "AES80" } else { "another" })
        }
        other => panic!("{other:?}"),
    }
}

/// What our offers are, and what comes of the answers to them.
#[test]
fn an_answer_settles_one_key_of_each_side() {
    let (aes80, aes32) = (format!("1 {AES80} {KEY}"), format!("2 {AES32} {KEY}"));
    let wrong_tag = format!("9 {AES32} {KEY}");
    let gcm = "1 AEAD_AES_256_GCM inline:AAAA".to_owned();
    for (offers_srtp, profile, crypto, want) in [
        (true, "RTP/SAVP", &[aes80][..], Ok(Some((1, AES80)))),
        (true, "RTP/SAVP", &[aes32], Ok(Some((2, AES32)))),
        (true, "RTP/SAVP", &[wrong_tag], Ok(Some((2, AES32)))),
        (true, "RTP/SAVP", &[gcm], Err(SdpError::Crypto)),
        (true, "RTP/SAVP", &[], Err(SdpError::Crypto)),
        (true, "RTP/AVP", &[], Err(SdpError::Plain)),
        (false, "RTP/SAVP", &[], Err(SdpError::Srtp)),
        (false, "RTP/AVP", &[], Ok(None)),
    ] {
        let mut local = local(offers_srtp);
        let offer = fresh_offer(&policy(Srtp::Prefer), Direction::SendRecv, &mut local);
        let text = std::str::from_utf8(&offer).unwrap().to_owned();
        let ours = Description::parse(offer).unwrap();
        let said = ours.audio().unwrap().crypto.clone();
        assert_eq!(said.len(), if offers_srtp { 2 } else { 0 });
        assert_eq!(text.contains("m=audio 10000 RTP/SAVP 0"), offers_srtp, "{text}");
        let agreed = accept_answer(ours.audio().unwrap(), &describe(profile, crypto));
        let got = agreed.map(|agreed| {
            agreed.srtp.map(|Secured { send, receive }| {
                assert!(said.contains(&send) && send.suite == receive.suite);
                (send.tag, send.suite.name())
            })
        });
        assert_eq!(got, want, "{profile} {crypto:?}");
    }
}

/// RFC 4568 7.1.4: an unchanged offer has an unchanged answer; a new key of theirs, one of ours.
#[test]
fn keys_change_when_theirs_do() {
    let policy = policy(Srtp::Prefer);
    let mut local = local(false);
    let mut ask = |key: &str, direction: &str| {
        let offer = format!("1 {AES80} {key}");
        let offer = describe_as("RTP/SAVP", &[offer], direction);
        let (answer, agreed) = answer_alone(&offer, &policy, &mut local).unwrap();
        (answer, agreed.srtp.unwrap().send.key)
    };
    let (first, key) = ask(KEY, "sendrecv");
    assert_eq!(ask(KEY, "sendrecv").0, first);
    assert_eq!(ask(KEY, "sendonly").1, key, "hold");
    let (_, renewed) = ask(OTHER_KEY, "sendrecv");
    assert_ne!(renewed, key);

    // What we offer then is what we have, in the profile that the stream has.
    let offer = fresh_offer(&policy, Direction::SendRecv, &mut local);
    let again = fresh_offer(&policy, Direction::SendRecv, &mut local);
    assert_eq!(offer, again);
    let offer = Description::parse(offer).unwrap();
    let audio = offer.audio().unwrap();
    assert!(audio.is_srtp);
    assert_eq!(audio.crypto[0].key, renewed);
    assert_eq!(audio.crypto[1].suite.name(), AES32);
}

/// Where a key comes from changes nothing for the other leg.
#[test]
fn a_new_key_is_the_same_media() {
    let lines = [KEY, OTHER_KEY].map(|key| format!("1 {AES80} {key}"));
    let [old, new] = lines.map(|line| describe("RTP/SAVP", &[line]));
    assert!(old.same_media(&new) && old.same_media(&describe("RTP/AVP", &[])));
}

#[test]
fn descriptions_do_not_print_their_keys() {
    let description = describe("RTP/SAVP", &[format!("1 {AES80} {KEY}")]);
    let printed = format!("{description:?}");
    assert!(!printed.contains("WVNf") && !printed.contains("inline"), "{printed}");
}

fn policy(srtp: Srtp) -> Policy {
    let suites = [CryptoSuite::AesCm128HmacSha1_80, CryptoSuite::AesCm128HmacSha1_32];
    Policy::phone(vec![Codec::Pcmu]).with_srtp(srtp, &suites)
}

fn local(offers_srtp: bool) -> Local {
    let local = Local::new(7, "203.0.113.1:10000".parse().unwrap());
    local.with_keys(Spring::new(&mut Entropy::from_u64(1)), offers_srtp)
}

fn describe(profile: &str, crypto: &[String]) -> Description {
    describe_as(profile, crypto, "sendrecv")
}

fn describe_as(profile: &str, crypto: &[String], direction: &str) -> Description {
    let lines = crypto.iter().map(|line| format!("a=crypto:{line}\n")).collect::<String>();
    let text = format!(
        "v=0\no=- 1 1 IN IP4 x\nc=IN IP4 192.0.2.1\nm=audio 4000 {profile} 0\n{lines}a={direction}\n"
    );
    Description::parse(Bytes::from(text)).unwrap()
}
