//! Each rule, broken once by a client that says what a bad PBX would.

use super::*;
use crate::network::Network;
use crate::sim::{Network as Weather, World};
use crate::sip::digest;

const TRUNK: &str = "54.172.60.0:5060";
const CLIENT: &str = "203.0.113.1:5060";
const HOST: &str = "acme.pstn.twilio.com";

/// Says what it is told, and keeps what it hears.
#[derive(Default)]
struct Client {
    outbox: VecDeque<(Flow, Bytes)>,
    heard: Vec<Message>,
}

impl Node for Client {
    fn receive(&mut self, _: Flow, bytes: Bytes, _: Instant) {
        self.heard.push(Message::parse(bytes).unwrap());
    }
    fn handle_timeout(&mut self, _: Instant) {}
    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }
    fn poll_transmit(&mut self) -> Option<(Flow, Bytes)> {
        self.outbox.pop_front()
    }
    fn is_idle(&self) -> bool {
        true
    }
}

/// What an INVITE says; each test changes one thing.
#[derive(Clone)]
struct Said {
    uri: String,
    from: String,
    hops: u32,
    cseq: u32,
    extra: String,
    audio: String,
}

impl Said {
    fn good() -> Self {
        Self {
            uri: format!("sip:+14155550199@{HOST}"),
            from: format!("sip:+17756187988@{HOST}"),
            hops: 70,
            cseq: 1,
            extra: String::new(),
            audio: "m=audio 4000 RTP/AVP 0 101".into(),
        }
    }

    fn bytes(&self) -> Bytes {
        let Self { uri, from, hops, cseq, extra, audio } = self;
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\n{audio}\r\n"
        );
        let len = sdp.len();
        Bytes::from(format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CLIENT};branch=z9hG4bK{cseq}{hops};rport\r\n\
             Max-Forwards: {hops}\r\nFrom: <{from}>;tag=us\r\nTo: <{uri}>\r\nCall-ID: a\r\n\
             CSeq: {cseq} INVITE\r\nContact: <sip:us@{CLIENT}>\r\n{extra}\
             Content-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n{sdp}"
        ))
    }
}

fn world(change: impl FnOnce(&mut Setup)) -> World {
    let mut setup = Setup::new(TRUNK.parse().unwrap(), HOST);
    setup.account.numbers = vec!["+17756187988".into()];
    setup.media = Some("168.86.128.1".parse().unwrap());
    change(&mut setup);
    let mut world = World::new(1, Weather::CLEAN);
    world.add("pbx", &[CLIENT.parse().unwrap()], Client::default());
    world.add("twilio", &setup.addresses(), Twilio::new(setup, 1));
    world
}

fn say(world: &mut World, bytes: Bytes) {
    say_to(world, TRUNK.parse().unwrap(), bytes);
}

fn say_to(world: &mut World, remote: SocketAddr, bytes: Bytes) {
    let local = CLIENT.parse().unwrap();
    let flow = Flow { transport: Transport::Udp, local, remote };
    world.with("pbx", |client: &mut Client, _| client.outbox.push_back((flow, bytes)));
    let until = world.now_ms() + 100;
    world.run_until(until);
}

/// Returns the final status heard last, 0 for silence, and the rules broken.
fn outcome(world: &mut World) -> (u16, Vec<Rule>) {
    let status = world.with("pbx", |client: &mut Client, _| {
        client.heard.iter().map(Message::status).rfind(|status| *status >= 200).unwrap_or(0)
    });
    let rules = world.with("twilio", |twilio: &mut Twilio, _| {
        twilio.deviations().iter().map(|deviation| deviation.rule).collect::<Vec<_>>()
    });
    (status.unwrap(), rules.unwrap())
}

#[test]
fn each_rule_of_a_new_call() {
    let good = Said::good;
    let cases: Vec<(Said, u16, Option<Rule>)> = vec![
        (good(), 0, None),
        (
            Said { uri: "sip:+14155550199@other.pstn.twilio.com".into(), ..good() },
            0,
            Some(Rule::TerminationUri),
        ),
        (Said { uri: format!("sip:4155550199@{HOST}"), ..good() }, 400, Some(Rule::CalledE164)),
        (Said { uri: format!("sip:911@{HOST}"), ..good() }, 0, None),
        (Said { from: format!("sip:1001@{HOST}"), ..good() }, 400, Some(Rule::CallerE164)),
        (Said { from: format!("sip:+19005550100@{HOST}"), ..good() }, 403, Some(Rule::CallerOwned)),
        (
            Said { extra: "Remote-Party-ID: <sip:+19005550100@x>\r\n".into(), ..good() },
            403,
            Some(Rule::CallerOwned),
        ),
        (Said { hops: 19, ..good() }, 483, Some(Rule::MaxForwards)),
        (Said { extra: "Require: timer\r\n".into(), ..good() }, 422, Some(Rule::NoSessionTimer)),
        (Said { extra: "Require: 100rel\r\n".into(), ..good() }, 420, Some(Rule::KnownExtensions)),
        (Said { audio: "m=audio 4000 RTP/AVP 9".into(), ..good() }, 415, Some(Rule::OffersG711)),
        (Said { audio: "m=audio 4000 RTP/SAVP 0".into(), ..good() }, 488, Some(Rule::PlainRtp)),
    ];
    for (said, status, rule) in cases {
        let mut world = world(|_| {});
        say(&mut world, said.bytes());
        assert_eq!(outcome(&mut world), (status, rule.into_iter().collect()), "{}", said.uri);
    }
}

#[test]
fn a_cseq_that_does_not_advance_is_not_answered() {
    let mut world = world(|_| {});
    say(&mut world, Said { cseq: 5, from: "sip:1@x".into(), ..Said::good() }.bytes());
    assert_eq!(outcome(&mut world), (400, vec![Rule::CallerE164]));
    say(&mut world, Said { cseq: 5, hops: 69, ..Said::good() }.bytes());
    assert_eq!(outcome(&mut world).1, [Rule::CallerE164, Rule::CseqAdvances]);
}

#[test]
fn an_address_that_is_not_allowed() {
    let mut world =
        world(|setup| setup.account.allowed = vec![Network::parse("198.51.100.0/24").unwrap()]);
    say(&mut world, Said::good().bytes());
    assert_eq!(outcome(&mut world), (403, vec![Rule::SourceAllowed]));
}

/// The challenge, and its answer: right, with a wrong password, and without `opaque`.
#[test]
fn the_digest() {
    for (password, with_opaque, status, rule) in [
        ("right", true, 0, None),
        ("wrong", true, 403, Some(Rule::Credentials)),
        ("right", false, 403, Some(Rule::OpaqueEchoed)),
    ] {
        let mut world =
            world(|setup| setup.account.credentials = Some(("acme".into(), "right".into())));
        say(&mut world, Said::good().bytes());
        let mut challenge = world
            .with("pbx", |client: &mut Client, _| {
                let refusal = client.heard.drain(..).find(|message| message.status() == 407);
                refusal.unwrap().challenges().remove(0)
            })
            .unwrap();
        assert_eq!(&*challenge.realm, "sip.twilio.com");
        challenge.opaque = challenge.opaque.filter(|_| with_opaque);
        let uri = Said::good().uri;
        let value = digest::respond(&challenge, "acme", password, "INVITE", &uri, 1, "c");
        let extra = format!("Proxy-Authorization: {value}\r\n");
        say(&mut world, Said { cseq: 2, extra, ..Said::good() }.bytes());
        assert_eq!(outcome(&mut world), (status, rule.into_iter().collect()), "{password}");
    }
}

#[test]
fn options_too_often() {
    let options = |n: u32| {
        Bytes::from(format!(
            "OPTIONS sip:{HOST} SIP/2.0\r\nVia: SIP/2.0/UDP {CLIENT};branch=z9hG4bKo{n}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:{HOST}>\r\nCall-ID: o{n}\r\n\
             CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        ))
    };
    let mut world = world(|_| {});
    say(&mut world, options(1));
    assert_eq!(outcome(&mut world), (200, vec![]));
    world.run_until(11_000);
    say(&mut world, options(2));
    assert_eq!(outcome(&mut world), (200, vec![]));
    world.with("pbx", |client: &mut Client, _| client.heard.clear());
    say(&mut world, options(3));
    assert_eq!(outcome(&mut world), (0, vec![Rule::OptionsPace]));
    world.run_until(30_000);
    say(&mut world, options(4));
    assert_eq!(outcome(&mut world).0, 0, "banned");
    world.run_until(90_000);
    say(&mut world, options(5));
    assert_eq!(outcome(&mut world).0, 200, "forgiven");
}

#[test]
fn limits() {
    for (change, rule) in [
        (
            (|setup: &mut Setup| setup.limits.calls_per_s = Some(0)) as fn(&mut Setup),
            Rule::CallPace,
        ),
        (|setup: &mut Setup| setup.limits.calls_max = Some(0), Rule::CallCount),
    ] {
        let mut world = world(change);
        say(&mut world, Said::good().bytes());
        assert_eq!(outcome(&mut world), (503, vec![rule]));
    }
}

/// Inside a call: what the proxies lose.
#[test]
fn each_rule_inside_a_call() {
    let near = "Route: <sip:54.172.60.0;r2=on;lr>\r\n";
    let far = "Route: <sip:54.172.60.0:5061;transport=tls;r2=on;lr>\r\n";
    let both = format!("{near}{far}");
    let swapped = format!("{far}{near}");
    let target = "sip:+14155550199@172.25.75.240:5060;transport=udp";
    for (method, uri, routes, cseq, status, rule) in [
        ("BYE", target, &*both, 2, 200, None),
        ("BYE", target, "", 2, 481, Some(Rule::RouteSet)),
        ("BYE", target, &*swapped, 2, 481, Some(Rule::RouteSet)),
        ("BYE", "sip:54.172.60.0", &*both, 2, 481, Some(Rule::RemoteTarget)),
        ("BYE", target, &*both, 1, 0, Some(Rule::CseqAdvances)),
        ("UPDATE", target, &*both, 2, 405, Some(Rule::KnownMethods)),
        ("INFO", target, &*both, 2, 405, Some(Rule::KnownMethods)),
    ] {
        let mut world = answered();
        let tag = to_tag(&mut world);
        say(&mut world, inside("ACK", target, &both, 1, &tag));
        world.with("pbx", |client: &mut Client, _| client.heard.clear());
        say(&mut world, inside(method, uri, routes, cseq, &tag));
        assert_eq!(outcome(&mut world), (status, rule.into_iter().collect()), "{method} {routes}");
    }
}

/// A 200 without ACK, or with one that went astray, ends the call after 30 s.
#[test]
fn an_ack_that_never_comes() {
    let mut world = answered();
    let tag = to_tag(&mut world);
    say(&mut world, inside("ACK", "sip:54.172.60.0", "", 1, &tag));
    world.run_until(40_000);
    assert_eq!(outcome(&mut world).1, [Rule::RouteSet, Rule::Acknowledges]);
    let byes = world.sent().iter().filter(|sent| sent.message.method() == Method::Bye);
    assert_eq!(byes.map(|sent| sent.at_ms / 1000).next(), Some(30));
}

fn answered() -> World {
    let mut world = world(|setup| {
        setup.timing.post_dial = Duration::from_millis(10);
        setup.timing.ring = Duration::from_millis(10);
    });
    say(&mut world, Said::good().bytes());
    assert_eq!(outcome(&mut world), (200, vec![]));
    world
}

fn to_tag(world: &mut World) -> String {
    let tag = world.with("pbx", |client: &mut Client, _| {
        let answer = client.heard.iter().find(|message| message.status() == 200)?;
        answer.to_tag().map(str::to_owned)
    });
    tag.flatten().unwrap()
}

fn inside(method: &str, uri: &str, routes: &str, cseq: u32, tag: &str) -> Bytes {
    let Said { uri: called, from, .. } = Said::good();
    Bytes::from(format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CLIENT};branch=z9hG4bKi{method}{cseq};rport\r\n\
         {routes}Max-Forwards: 70\r\nFrom: <{from}>;tag=us\r\nTo: <{called}>;tag={tag}\r\nCall-ID: a\r\n\
         CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    ))
}

/// Calls at any address of any edge: each is recorded as the route, and taken nowhere else.
#[test]
fn each_address_of_each_edge() {
    for edge in Edge::all() {
        for Proxy { plain, .. } in edge.proxies.clone() {
            let mut world = world(|setup| setup.edges = Edge::all());
            let host = format!("acme.pstn.{}.twilio.com", edge.name);
            let uri = format!("sip:+14155550199@{host}");
            say_to(&mut world, plain, Said { uri, ..Said::good() }.bytes());
            world.run_until(400);
            let recorded = world
                .with("pbx", |client: &mut Client, _| {
                    let ringing = client.heard.iter().find(|message| message.status() == 183)?;
                    ringing.values(HeaderName::RecordRoute).last().map(|route| route.into_owned())
                })
                .flatten()
                .unwrap();
            let want = format!("<sip:{};r2=on;lr>", plain.ip());
            assert_eq!(String::from_utf8_lossy(&recorded), want, "{plain}");
            assert_eq!(outcome(&mut world), (0, vec![]), "{plain}");
        }
    }
}

#[test]
fn addresses_that_cannot_be_reached() {
    for (reach, heard, fate) in [
        (Reach::Open, 2, "arrives"),
        (Reach::Blackholed, 0, "lost"),
        (Reach::Refusing, 0, "nobody"),
        (Reach::Slow(Duration::from_secs(5)), 0, "arrives"),
    ] {
        let mut world = world(|setup| setup.edges = Edge::all());
        let address = "54.65.63.193:5060".parse().unwrap();
        world.with("twilio", |twilio: &mut Twilio, _| twilio.set_reach(address, reach));
        say_to(&mut world, address, Said::good().bytes());
        world.run_until(1000);
        let count = world.with("pbx", |client: &mut Client, _| client.heard.len());
        assert_eq!(count, Some(heard), "{reach:?}");
        let sent = &world.sent()[0];
        let is_it = match sent.fate {
            crate::sim::Fate::Arrives { .. } => fate == "arrives",
            crate::sim::Fate::Lost => fate == "lost",
            crate::sim::Fate::NobodyThere => fate == "nobody",
        };
        assert!(is_it, "{reach:?}: {:?}", sent.fate);
    }
}
