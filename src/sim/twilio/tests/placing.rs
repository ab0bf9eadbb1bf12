//! Placing a call: who may, whom, and with what.

use super::{Wrong, client::*};
use crate::{network::Network, sim::twilio::*, sip::digest};

/// Says it in such a world and returns the rules broken; the status must be this.
fn broken(said: Said, want: u16, change: fn(&mut Setup)) -> Vec<Rule> {
    broken_over(Transport::Udp, said, want, change)
}

fn broken_over(over: Transport, said: Said, want: u16, change: fn(&mut Setup)) -> Vec<Rule> {
    let mut world = world(change);
    say_over(&mut world, way(over), said.bytes());
    assert_eq!(status(&mut world), want, "{}", said.uri);
    rules(&mut world)
}

fn as_is(_: &mut Setup) {}

fn secure(setup: &mut Setup) {
    setup.policy.secure = true;
}

fn audio(lines: &str) -> Said {
    Said { audio: lines.into(), ..Said::good() }
}

fn extra(line: &str) -> Said {
    Said { extra: format!("{line}\r\n"), ..Said::good() }
}

fn from(number: &str) -> Said {
    Said { from: format!("sip:{number}@{HOST}"), ..Said::good() }
}

const KEY: &str = "inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";

pub(super) const CLIENTS: &[Wrong] = &[
    (Rule::TerminationUri, || {
        let uri = "sip:+14155550199@other.pstn.twilio.com".into();
        broken(Said { uri, ..Said::good() }, 0, as_is)
    }),
    (Rule::NoSips, || {
        broken(Said { uri: format!("sips:+14155550199@{HOST}"), ..Said::good() }, 416, as_is)
    }),
    (Rule::SourceAllowed, || {
        broken(Said::good(), 403, |setup| {
            setup.account.allowed = vec![Network::parse("198.51.100.0/24").unwrap()];
        })
    }),
    (Rule::SourceNotBlocked, || {
        broken(Said::good(), 403, |setup| {
            setup.account.blocked_sources = vec![Network::parse("203.0.113.0/24").unwrap()];
        })
    }),
    (Rule::Credentials, || digest_answer("wrong", true, 403)),
    (Rule::OpaqueEchoed, || digest_answer("right", false, 403)),
    (Rule::NeverRegisters, || {
        let mut world = world(as_is);
        say(&mut world, outside("REGISTER", 1));
        assert_eq!(status(&mut world), 405);
        rules(&mut world)
    }),
    (Rule::OptionsPace, || {
        let mut world = world(as_is);
        say(&mut world, outside("OPTIONS", 1));
        say(&mut world, outside("OPTIONS", 2));
        rules(&mut world)
    }),
    (Rule::SpreadsCalls, || {
        broken(Said::good(), 503, |setup| setup.limits.calls_per_address_s = 0)
    }),
    (Rule::FailsOver, pinned),
    (Rule::MaxForwards, || broken(Said { hops: 19, ..Said::good() }, 483, as_is)),
    (Rule::AccountActive, || {
        broken(Said::good(), 603, |setup| setup.account.state = State::Suspended)
    }),
    (Rule::CalledE164, || broken(Said::to("4155550199"), 400, as_is)),
    (Rule::CallerE164, || broken(from("1001"), 400, as_is)),
    (Rule::CallerOwned, || broken(from("+19005550100"), 403, as_is)),
    (Rule::RemotePartyValid, || broken(extra("Remote-Party-ID: <sip:+19005550100@x>"), 403, as_is)),
    (Rule::EmergencyCaller, || {
        let said = Said { uri: format!("sip:911@{HOST}"), ..from("+19005550100") };
        broken(said, 403, |setup| setup.account.verified = vec!["+19005550100".into()])
    }),
    (Rule::DiversionOwned, || {
        broken(extra("Diversion: <sip:+19005550100@twilio.com>;reason=no-answer"), 0, as_is)
    }),
    (Rule::CalledVerified, || {
        broken(Said::good(), 400, |setup| setup.account.state = State::Trial)
    }),
    (Rule::CountryEnabled, || {
        broken(Said::to("+442079460000"), 403, |setup| setup.account.countries = vec!["+1".into()])
    }),
    (Rule::CalledNotBlocked, || {
        broken(Said::good(), 403, |setup| setup.account.blocked = vec!["+14155550199".into()])
    }),
    (Rule::CallPace, || broken(Said::good(), 503, |setup| setup.limits.calls_per_s = Some(0))),
    (Rule::CallCount, || broken(Said::good(), 503, |setup| setup.limits.calls_max = Some(0))),
    (Rule::OffersG711, || broken(audio("m=audio 4000 RTP/AVP 9"), 415, as_is)),
    (Rule::PlainRtp, || broken(audio("m=audio 4000 RTP/SAVP 0"), 488, as_is)),
    (Rule::SecureMedia, || broken_over(Transport::Tls, Said::good(), 488, secure)),
    (Rule::SecureSignalling, || broken_over(Transport::Tcp, Said::good(), 488, secure)),
    (Rule::SrtpSuites, || {
        let key = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 {KEY}|2^20|1:4");
        let said = audio(&format!("m=audio 4000 RTP/SAVP 0\r\n{key}"));
        broken_over(Transport::Tls, said, 488, secure)
    }),
    (Rule::NoSessionTimer, || broken(extra("Require: timer"), 422, as_is)),
    (Rule::KnownExtensions, || broken(extra("Require: 100rel"), 420, as_is)),
    (Rule::PublicMedia, || {
        broken(Said { at: "IN IP4 192.168.1.2".into(), ..Said::good() }, 0, as_is)
    }),
    (Rule::PublicContact, || {
        broken(Said { contact: "sip:us@10.0.0.1:5060".into(), ..Said::good() }, 0, as_is)
    }),
];

/// What looks odd and is allowed.
#[test]
fn what_is_taken() {
    fn on_trial(setup: &mut Setup) {
        setup.account.state = State::Trial;
        setup.account.verified = vec!["+14155550199".into()];
    }
    fn picky(setup: &mut Setup) {
        setup.account.countries = vec!["+44".into()];
        setup.account.allowed = vec![Network::parse("203.0.113.1").unwrap()];
    }
    let key = |suite| format!("m=audio 4000 RTP/SAVP 0\r\na=crypto:1 {suite} {KEY}|2^20");
    let anonymous = |line: &str| Said {
        from: "sip:anonymous@anonymous.invalid".into(),
        ..extra(&format!("{line}: <sip:{OWN}@x>"))
    };
    for (over, said, change) in [
        (Transport::Udp, Said::good(), as_is as fn(&mut Setup)),
        (Transport::Tls, Said::good(), as_is),
        (Transport::Udp, Said::to("911"), picky),
        (Transport::Udp, Said::to("+442079460000"), picky),
        (Transport::Udp, Said::good(), on_trial),
        (Transport::Udp, anonymous("P-Asserted-Identity"), as_is),
        (Transport::Udp, anonymous("Remote-Party-ID"), as_is),
        (Transport::Udp, extra(&format!("Diversion: <sip:{OWN}@twilio.com>")), as_is),
        (Transport::Udp, extra("Diversion: <sip:+19005550100@example.com>"), as_is),
        (Transport::Udp, audio("m=audio 4000 RTP/AVP 9 8"), as_is),
        (Transport::Tls, audio(&key("AES_CM_128_HMAC_SHA1_32")), secure),
        (Transport::Udp, audio("m=audio 4000 RTP/AVP 0\r\nm=image 4002 udptl t38"), as_is),
    ] {
        let uri = said.uri.clone();
        assert_eq!(broken_over(over, said, 0, change), [], "{uri}");
    }
}

#[test]
fn nobody_calls_as_nobody() {
    let said = Said { from: "sip:anonymous@anonymous.invalid".into(), ..Said::good() };
    assert_eq!(broken(said, 400, as_is), [Rule::CallerE164]);
}

/// Each key of a secure trunk's offer, and of an answer to its own.
#[test]
fn keys() {
    let keys = |suite: &str| format!("m=audio 1 RTP/SAVP 0\r\na=crypto:1 {suite} {KEY}\r\n");
    for (suite, offered, answered) in [
        ("AES_CM_128_HMAC_SHA1_80", None, None),
        ("AES_CM_128_HMAC_SHA1_32", None, Some(Rule::SrtpSuites)),
        ("AEAD_AES_128_GCM", Some(Rule::SrtpSuites), Some(Rule::SrtpSuites)),
    ] {
        let rule = |is_answer| offer::media_fault(&keys(suite), true, is_answer).map(|(r, _)| r);
        assert_eq!((rule(false), rule(true)), (offered, answered), "{suite}");
        let evidence = offer::media_fault(&keys("AEAD_AES_128_GCM"), true, true).unwrap().1;
        assert!(!evidence.contains("inline"), "a key is no evidence: {evidence}");
    }
}

#[test]
fn a_cseq_that_does_not_advance_is_not_answered() {
    let mut world = world(as_is);
    say(&mut world, Said { cseq: 5, ..from("1001") }.bytes());
    assert_eq!((status(&mut world), rules(&mut world)), (400, vec![Rule::CallerE164]));
    forget(&mut world);
    say(&mut world, Said { cseq: 5, hops: 69, ..Said::good() }.bytes());
    assert_eq!(status(&mut world), 0);
    assert_eq!(rules(&mut world), [Rule::CallerE164, Rule::CseqAdvances]);
}

/// The challenge comes to whoever the access control list lets in, and only to them.
#[test]
fn both_lists_are_enforced() {
    let both = |setup: &mut Setup, network: &str| {
        setup.account.credentials = Some(("acme".into(), "right".into()));
        setup.account.allowed = vec![Network::parse(network).unwrap()];
    };
    for (network, want) in [("203.0.113.0/24", 407), ("198.51.100.0/24", 403)] {
        let mut world = world(|setup| both(setup, network));
        say(&mut world, Said::good().bytes());
        assert_eq!(status(&mut world), want);
        let refusal = with_client(&mut world, |client| client.heard.pop().unwrap());
        assert_eq!(refusal.via().params.get("received"), Some("203.0.113.1"));
    }
}

#[test]
fn a_right_digest() {
    assert_eq!(digest_answer("right", true, 0), []);
}

fn digest_answer(password: &str, with_opaque: bool, want: u16) -> Vec<Rule> {
    let mut world =
        world(|setup| setup.account.credentials = Some(("acme".into(), "right".into())));
    say(&mut world, Said::good().bytes());
    let mut challenge = with_client(&mut world, |client| {
        let refusal = client.heard.drain(..).find(|message| message.status() == 407).unwrap();
        let said = refusal.header_str(HeaderName::ProxyAuthenticate).unwrap().into_owned();
        assert!(!said.contains("algorithm"), "{said}");
        refusal.challenges().remove(0)
    });
    assert_eq!(&*challenge.realm, "sip.twilio.com");
    challenge.opaque = challenge.opaque.filter(|_| with_opaque);
    let uri = Said::good().uri;
    let value = digest::respond(&challenge, "acme", password, "INVITE", &uri, 1, "c");
    say(&mut world, Said { cseq: 2, ..extra(&format!("Proxy-Authorization: {value}")) }.bytes());
    assert_eq!(status(&mut world), want, "{password}");
    rules(&mut world)
}

fn outside(method: &str, n: u32) -> Bytes {
    Bytes::from(format!(
        "{method} sip:{HOST} SIP/2.0\r\nVia: SIP/2.0/UDP {CLIENT};branch=z9hG4bKo{n}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:{HOST}>\r\nCall-ID: o{n}\r\n\
         CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    ))
}

#[test]
fn options_too_often() {
    let mut world = world(as_is);
    let mut ask = |n, at_ms| {
        world.run_until(at_ms);
        forget(&mut world);
        say(&mut world, outside("OPTIONS", n));
        (status(&mut world), rules(&mut world).len())
    };
    assert_eq!(ask(1, 0), (200, 0));
    assert_eq!(ask(2, 11_000), (200, 0));
    assert_eq!(ask(3, 12_000), (0, 1));
    assert_eq!(ask(4, 30_000), (0, 1), "banned");
    assert_eq!(ask(5, 90_000), (200, 1), "forgiven");
}

/// An INVITE goes to a dead address again and again, and nowhere else.
fn pinned() -> Vec<Rule> {
    let mut world = dead_first();
    for wait_ms in [0, 400, 900, 1900, 3900] {
        pass(&mut world, wait_ms);
        say(&mut world, Said::good().bytes());
    }
    assert_eq!(status(&mut world), 0);
    rules(&mut world)
}

fn dead_first() -> crate::sim::World {
    let mut world = world(|setup| {
        setup.edges[0].proxies.push(Proxy::new(addr("54.172.60.1:5060")));
    });
    with_trunk(&mut world, |twilio, _| twilio.blackhole(addr(TRUNK)));
    world
}

/// The same, though at the second repetition another address is tried as well.
#[test]
fn who_fails_over_may_repeat_what_nobody_hears() {
    let mut world = dead_first();
    for wait_ms in [0, 400, 900, 1900, 3900] {
        if wait_ms == 1900 {
            let second = Flow { remote: addr("54.172.60.1:5060"), ..way(Transport::Udp) };
            say_over(&mut world, second, Said { cseq: 2, ..Said::good() }.bytes());
        }
        pass(&mut world, wait_ms);
        say(&mut world, Said::good().bytes());
    }
    assert_eq!(rules(&mut world), []);
}

/// The trunk's pace is counted at each edge, the spread at each address.
#[test]
fn limits_are_those_of_an_edge() {
    let mut world = world(|setup| {
        setup.edges = Edge::all();
        setup.limits.calls_per_s = Some(1);
    });
    for (n, address, want) in
        [(1, "54.172.60.0:5060", 0), (2, "54.244.51.0:5060", 0), (3, "54.172.60.1:5060", 503)]
    {
        let flow = Flow { remote: addr(address), ..way(Transport::Udp) };
        forget(&mut world);
        say_over(&mut world, flow, Said { cseq: n, ..Said::good() }.bytes());
        assert_eq!(status(&mut world), want, "{address}");
    }
    assert_eq!(rules(&mut world), [Rule::CallPace]);
}
