//! Inside a call: what the proxies lose, and what the gateway does not know.

use super::{Wrong, client::*};
use crate::sim::twilio::*;

const NUMBER: &str = "+14155550199";

/// Says one more thing in a call that is up.
fn broken(method: &str, uri: &str, lines: &str, cseq: u32, want: u16) -> Vec<Rule> {
    broken_on(NUMBER, (method, uri, lines), cseq, want, |_| {})
}

fn broken_on(
    number: &str,
    (method, uri, lines): (&str, &str, &str),
    cseq: u32,
    want: u16,
    change: fn(&mut Setup),
) -> Vec<Rule> {
    let mut world = world(change);
    let tag = up(&mut world, number, way(Transport::Udp));
    say(&mut world, inside_with(method, uri, lines, cseq, &tag));
    assert_eq!(status(&mut world), want, "{method} {uri}");
    rules(&mut world)
}

fn both() -> String {
    routes(way(Transport::Udp))
}

fn refer_to(target: &str) -> String {
    format!("{}Contact: <sip:us@{CLIENT}>\r\nRefer-To: <{target}>\r\n", both())
}

fn transfers(setup: &mut Setup) {
    setup.policy.transfers = true;
}

pub(super) const CLIENTS: &[Wrong] = &[
    (Rule::RouteSet, || broken("BYE", TARGET, "", 2, 481)),
    (Rule::RemoteTarget, || broken("BYE", "sip:54.172.60.0", &both(), 2, 481)),
    (Rule::PrivateAddresses, || {
        broken("BYE", "sip:+14155550199@54.172.60.0:5060;transport=udp", &both(), 2, 481)
    }),
    (Rule::IgnoresTwnat, || {
        let moved = "sip:+15005550003@172.18.0.9:5060;twnat=sip:203.0.113.77:1024";
        broken_on("+15005550003", ("BYE", moved, &both()), 2, 481, |_| {})
    }),
    (Rule::Acknowledges, || {
        let mut world = world(|_| {});
        say(&mut world, Said::good().bytes());
        world.run_until(40_000);
        let byes = world.sent().iter().filter(|sent| sent.message.method() == Method::Bye);
        assert_eq!(byes.map(|sent| sent.at_ms / 1000).next(), Some(32));
        rules(&mut world)
    }),
    (Rule::CseqAdvances, || broken("BYE", TARGET, &both(), 1, 0)),
    (Rule::CancelMatches, || {
        let mut world = world(|_| {});
        say(&mut world, Said::good().bytes());
        let cancel = String::from_utf8(inside_with("CANCEL", &Said::good().uri, "", 1, "").into());
        say(&mut world, cancel.unwrap().replace(";tag=\r\n", "\r\n").into());
        assert_eq!(status(&mut world), 481);
        rules(&mut world)
    }),
    (Rule::KnownMethods, || broken("UPDATE", TARGET, &both(), 2, 405)),
    (Rule::TransferEnabled, || broken("REFER", TARGET, &refer_to("tel:+14155550177"), 2, 403)),
    (Rule::TransferTarget, || {
        let lines = refer_to("sip:+14155550177@example.com");
        broken_on(NUMBER, ("REFER", TARGET, &lines), 2, 400, transfers)
    }),
];

#[test]
fn what_else_is_wrong() {
    let swapped = format!("{FAR}{NEAR}");
    assert_eq!(broken("BYE", TARGET, &swapped, 2, 481), [Rule::RouteSet]);
    assert_eq!(broken("INFO", TARGET, &both(), 2, 405), [Rule::KnownMethods]);
    assert_eq!(broken("PRACK", TARGET, &both(), 2, 405), [Rule::KnownMethods]);
    assert_eq!(broken("FOO", TARGET, &both(), 2, 501), [Rule::KnownMethods]);
    assert_eq!(broken("BYE", TARGET, &both(), 2, 200), []);
    let attended = refer_to(&format!("sip:+14155550177@{HOST}?Replaces=a%3Bto-tag%3Db"));
    let refer = ("REFER", TARGET, &*attended);
    assert_eq!(broken_on(NUMBER, refer, 2, 400, transfers), [Rule::TransferTarget]);
}

/// A request for the right dialog at another address of the trunk's gets nowhere.
#[test]
fn the_first_address_is_the_route() {
    let mut world = world(|setup| setup.edges = Edge::all());
    let tag = up(&mut world, NUMBER, way(Transport::Udp));
    let elsewhere = Flow { remote: addr("54.172.60.3:5060"), ..way(Transport::Udp) };
    say_over(&mut world, elsewhere, inside("BYE", TARGET, &both(), 2, &tag));
    assert_eq!((status(&mut world), rules(&mut world)), (481, vec![Rule::RouteSet]));
}

/// A 200 without ACK, or with one that went astray, ends the call after 30 s.
#[test]
fn an_ack_that_goes_astray() {
    let mut world = world(|_| {});
    say(&mut world, Said::good().bytes());
    pass(&mut world, 2000);
    let tag = with_client(&mut world, |client| {
        let answer = client.heard.iter().find(|message| message.status() == 200).unwrap();
        answer.to_tag().unwrap().to_owned()
    });
    say(&mut world, inside("ACK", "sip:54.172.60.0", "", 1, &tag));
    world.run_until(40_000);
    assert_eq!(rules(&mut world), [Rule::RouteSet, Rule::Acknowledges]);
}

/// After a BYE that went nowhere the far end listens to nothing for a minute.
#[test]
fn a_bye_that_goes_nowhere_leaves_a_minute_of_silence() {
    let mut world = world(|_| {});
    let tag = up(&mut world, NUMBER, way(Transport::Udp));
    say(&mut world, inside("BYE", TARGET, "", 2, &tag));
    let at_s = world.now_ms() / 1000;
    pass(&mut world, 59_000);
    with_client(&mut world, |client| assert!(client.heard.iter().all(|m| !m.is_request())));
    pass(&mut world, 2000);
    let byes = world.sent().iter().filter(|sent| sent.message.method() == Method::Bye);
    assert_eq!(byes.map(|sent| sent.at_ms / 1000).nth(2), Some(at_s + 60));
}

/// A transfer that is allowed: 202, then what became of it.
#[test]
fn a_blind_transfer() {
    let mut world = world(transfers);
    let tag = up(&mut world, NUMBER, way(Transport::Udp));
    script(&mut world, "pbx", |message, flow| {
        let is_for_us = message.is_request() && message.method() != Method::Ack;
        is_for_us.then(|| plain(message, flow, 200)).into_iter().collect()
    });
    let lines = refer_to(&format!("sip:+14155550177@{HOST}"));
    say(&mut world, inside_with("REFER", TARGET, &lines, 2, &tag));
    assert_eq!(status(&mut world), 202);
    pass(&mut world, 10_000);
    let heard = with_client(&mut world, |client| {
        let requests = client.heard.iter().filter(|message| message.is_request());
        let told = |message: &Message| {
            let state = message.header_str(HeaderName::SubscriptionState).unwrap_or_default();
            let body = String::from_utf8_lossy(message.body());
            format!("{} {state} {}", message.method(), body.trim_end())
        };
        requests.map(told).collect::<Vec<_>>()
    });
    let want = [
        "NOTIFY active;expires=60 SIP/2.0 100 Trying",
        "NOTIFY terminated;reason=noresource SIP/2.0 200 OK",
        "BYE  ",
    ];
    assert_eq!(heard, want);
    assert_eq!(rules(&mut world), []);
    assert_eq!(with_trunk(&mut world, |twilio, _| twilio.calls()), 0);
}

/// What special numbers do once they talk.
#[test]
fn numbers_with_a_will_of_their_own() {
    let mut world = world(|_| {});
    let tag = up(&mut world, "+15005550218", way(Transport::Udp));
    let target = target("+15005550218");
    let lines = refer_to("tel:+14155550177");
    say(&mut world, inside_with("REFER", &target, &lines, 2, &tag));
    let error = with_client(&mut world, |client| client.heard.pop().unwrap());
    assert_eq!(error.other("X-Twilio-Error").unwrap(), b"32218 Forbidden".as_slice());
    assert_eq!(rules(&mut world), [], "nobody's fault");

    let mut world = super::client::world(|_| {});
    up(&mut world, "+15005550030", way(Transport::Udp));
    world.run_until(40_000);
    let byes = world.sent().iter().filter(|sent| sent.message.method() == Method::Bye);
    assert_eq!(byes.map(|sent| sent.at_ms / 1000).next(), Some(32));
    assert_eq!(rules(&mut world), [], "nobody's fault");
}

/// Four hours at most.
#[test]
fn a_call_lasts_only_so_long() {
    let mut world = world(|setup| setup.limits.duration = Duration::from_secs(100));
    up(&mut world, NUMBER, way(Transport::Udp));
    script(&mut world, "pbx", takes_calls);
    world.run_until(101_000);
    assert_eq!(with_trunk(&mut world, |twilio, _| twilio.calls()), 1);
    world.run_until(103_000);
    assert_eq!(with_trunk(&mut world, |twilio, _| twilio.calls()), 0);
}
