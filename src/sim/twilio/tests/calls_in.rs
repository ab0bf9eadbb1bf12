//! Calls from the PSTN: whom Twilio tries, and what it expects.

use super::{Wrong, client::*};
use crate::sim::twilio::*;

fn call() -> CallIn {
    CallIn::new(OWN, "+14155550123", vec![Origination::new(addr(CLIENT), Transport::Udp)])
}

/// Calls a client that answers an INVITE so.
fn broken(answers: fn(&Message, Flow) -> Bytes) -> Vec<Rule> {
    let mut world = world(|_| {});
    script(&mut world, "pbx", move |message, flow| {
        match (message.is_request(), message.method()) {
            (true, Method::Invite) => vec![answers(message, flow)],
            (_, _) => takes_calls(message, flow),
        }
    });
    with_trunk(&mut world, |twilio, now| twilio.call_in(&call(), now));
    pass(&mut world, 2000);
    rules(&mut world)
}

pub(super) const CLIENTS: &[Wrong] = &[
    (Rule::HasOrigination, || {
        let mut world = world(|_| {});
        let call = CallIn { to: vec![], ..call() };
        with_trunk(&mut world, |twilio, now| twilio.call_in(&call, now));
        rules(&mut world)
    }),
    (Rule::AnswersCalls, || {
        let mut world = world(|_| {});
        with_trunk(&mut world, |twilio, now| twilio.call_in(&call(), now));
        pass(&mut world, 33_000);
        rules(&mut world)
    }),
    (Rule::NeverChallenges, || broken(|invite, flow| plain(invite, flow, 401))),
    (Rule::RedirectsOnce, || {
        broken(|invite, flow| {
            let contact = format!("<sip:+14155550177@{HOST}>");
            answer_with(invite, flow, 302, &contact, true)
        })
    }),
    (Rule::EchoesRecordRoute, || {
        broken(|invite, flow| {
            answer_with(invite, flow, 200, &format!("<sip:us@{}>", flow.local), false)
        })
    }),
    (Rule::ContactOfListener, || {
        broken(|invite, flow| answer_with(invite, flow, 200, "<sip:us@203.0.113.1:5080>", true))
    }),
];

#[test]
fn what_else_is_wrong() {
    let not_understood: Vec<fn(&Message, Flow) -> Bytes> =
        vec![|invite, flow| plain(invite, flow, 420), |invite, flow| plain(invite, flow, 400)];
    for answers in not_understood {
        assert_eq!(broken(answers), [Rule::AnswersCalls]);
    }
    assert_eq!(broken(|invite, flow| plain(invite, flow, 486)), []);
    assert_eq!(broken(|invite, flow| plain(invite, flow, 503)), [], "busy or draining is no fault");
}

/// A secure trunk's call is answered with SRTP.
#[test]
fn a_secure_call_is_answered_securely() {
    let mut world = world(|setup| setup.policy.secure = true);
    script(&mut world, "pbx", takes_calls);
    let to = vec![Origination::new(addr(CLIENT), Transport::Tls)];
    with_trunk(&mut world, |twilio, now| twilio.call_in(&CallIn { to, ..call() }, now));
    pass(&mut world, 1000);
    assert_eq!(rules(&mut world), [Rule::SecureMedia]);
}

/// The INVITE as it comes, with everything that may be in it.
#[test]
fn what_an_invite_says() {
    let mut world = world(|_| {});
    let uri = "sip:203.0.113.1:5060;transport=tcp?X-Secret=abc&X-Site=7";
    let call = CallIn {
        name: Some("Alice Example".into()),
        verstat: Some("TN-Validation-Passed-A".into()),
        to: vec![Origination::parse(uri).unwrap()],
        ..call()
    };
    with_trunk(&mut world, |twilio, now| twilio.call_in(&call, now));
    pass(&mut world, 100);
    let sent = world.sent()[0].clone();
    assert_eq!(sent.flow.transport, Transport::Tcp);
    let text = |name: &str| {
        String::from_utf8_lossy(&sent.message.other(name).unwrap_or_default()).into_owned()
    };
    assert_eq!(sent.message.uri(), "sip:+17756187988@203.0.113.1:5060;transport=tcp");
    let from = text("From");
    let want = "\"Alice Example\" <sip:+14155550123@acme.pstn.twilio.com:5060>;tag=";
    assert!(from.starts_with(want), "{from}");
    for (name, want) in [
        ("Max-Forwards", "60"),
        ("Diversion", "<sip:+17756187988@twilio.com>;reason=unconditional"),
        ("P-Asserted-Identity", "<sip:+14155550123@acme.pstn.twilio.com:5060>"),
        ("X-Twilio-VerStat", "TN-Validation-Passed-A"),
        ("X-Twilio-AccountSid", "AC00000000000000000000000000000000"),
        ("User-Agent", "Twilio Gateway"),
        ("X-Secret", "abc"),
        ("X-Site", "7"),
        ("Contact", "<sip:+14155550123@172.25.75.240:5060;transport=udp>"),
    ] {
        assert_eq!(text(name), want, "{name}");
    }
    assert!(sent.message.call_id().ends_with("@0.0.0.0"));
    assert!(text("X-Twilio-CallSid").starts_with("CA"));
    assert_eq!(sent.message.vias().count(), 2);
    assert_eq!(sent.message.values(HeaderName::RecordRoute).count(), 2);
    assert!(sent.message.bytes().len() > 2000, "with an Identity: {}", sent.message.bytes().len());
}

fn two_uris(first: u16, second: u16) -> Vec<Origination> {
    let uri = |address, priority| Origination {
        priority,
        ..Origination::new(addr(address), Transport::Udp)
    };
    vec![uri(CLIENT, first), uri(OTHER, second)]
}

/// Whom the INVITEs went to, in order.
fn tried(world: &crate::sim::World) -> Vec<(u64, &str)> {
    let mut seen = BTreeSet::new();
    let invites = world
        .sent()
        .iter()
        .filter(|sent| sent.message.is_request() && sent.message.method() == Method::Invite);
    let firsts = invites.filter(move |sent| seen.insert(sent.message.branch().to_owned()));
    firsts.map(|sent| (sent.at_ms / 1000, &*sent.to)).collect()
}

/// Which refusals lead to the next URI, and silence after 4 s.
#[test]
fn the_next_uri() {
    let moves = [301, 403, 408, 480, 488, 500, 503];
    let stays = [400, 404, 405, 410, 416, 482, 484, 486, 600, 603];
    let cases = moves.iter().map(|s| (*s, true)).chain(stays.iter().map(|s| (*s, false)));
    for (status, is_next) in cases {
        let mut world = world(|_| {});
        script(&mut world, "pbx", move |message, flow| {
            message.is_request().then(|| plain(message, flow, status)).into_iter().collect()
        });
        script(&mut world, "other", takes_calls);
        let call = CallIn { to: two_uris(10, 20), ..call() };
        with_trunk(&mut world, |twilio, now| twilio.call_in(&call, now));
        pass(&mut world, 3000);
        let want: &[_] = if is_next { &[(0, "pbx"), (0, "other")] } else { &[(0, "pbx")] };
        assert_eq!(tried(&world), want, "{status}");
    }
    let mut world = world(|setup| setup.account.origination = two_uris(20, 10));
    script(&mut world, "pbx", takes_calls);
    let call = CallIn { to: vec![], ..call() };
    with_trunk(&mut world, |twilio, now| twilio.call_in(&call, now));
    pass(&mut world, 5000);
    assert_eq!(tried(&world), [(0, "other"), (4, "pbx")], "silence");
    assert_eq!(rules(&mut world), []);
}

/// Who answers after the next URI was tried gets an ACK and a BYE.
#[test]
fn a_late_answer() {
    let mut world = world(|_| {});
    script(&mut world, "other", takes_calls);
    script(&mut world, "pbx", |message, flow| {
        let is_bye = message.method() == Method::Bye;
        is_bye.then(|| plain(message, flow, 200)).into_iter().collect()
    });
    let call = CallIn { to: two_uris(10, 20), ..call() };
    with_trunk(&mut world, |twilio, now| twilio.call_in(&call, now));
    pass(&mut world, 5000);
    let invite = with_client(&mut world, |client| client.heard[0].clone());
    say(&mut world, answer(&invite, way(Transport::Udp), 200));
    pass(&mut world, 1000);
    let heard = with_client(&mut world, |client| {
        let methods = client.heard.iter().map(Message::method);
        methods.filter(|method| *method != Method::Invite).collect::<Vec<_>>()
    });
    assert_eq!(heard, [Method::Ack, Method::Bye]);
    assert_eq!(with_trunk(&mut world, |twilio, _| twilio.calls()), 1, "the other's");
}

/// By weight: three times of four the first of two equals, more or less.
#[test]
fn equals_are_chosen_by_weight() {
    let mut firsts = 0;
    for seed in 0..200 {
        let mut twilio = Twilio::new(Setup::new(addr(TRUNK), HOST), seed);
        let mut to = two_uris(10, 10);
        to[0].weight = 30;
        twilio.setup.media = Some("168.86.128.1".parse().unwrap());
        twilio.call_in(&CallIn { to, ..call() }, crate::sim::epoch());
        let (flow, _) = twilio.poll_transmit().unwrap();
        firsts += u32::from(flow.remote == addr(CLIENT));
    }
    assert!((120..180).contains(&firsts), "{firsts}");
}

/// One redirect is followed.
#[test]
fn a_redirect() {
    let mut world = world(|_| {});
    let to_other = |message: &Message, flow: Flow| match (message.is_request(), message.method()) {
        (true, Method::Invite) => {
            vec![answer_with(message, flow, 302, &format!("<sip:x@{OTHER}>"), true)]
        }
        (_, _) => vec![],
    };
    script(&mut world, "pbx", to_other);
    script(&mut world, "other", takes_calls);
    with_trunk(&mut world, |twilio, now| twilio.call_in(&call(), now));
    pass(&mut world, 3000);
    assert_eq!(tried(&world), [(0, "pbx"), (0, "other")]);
    assert_eq!(rules(&mut world), []);

    script(&mut world, "other", to_other);
    with_trunk(&mut world, |twilio, now| twilio.call_in(&call(), now));
    pass(&mut world, 3000);
    assert_eq!(rules(&mut world), [Rule::RedirectsOnce], "a second one is not");
}
