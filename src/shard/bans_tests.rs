//! Who is answered no more, and who always is.

use super::{
    tests::{binding, shard},
    *,
};
use crate::{
    guard::Ban,
    ids::Transport,
    registrar::Binding,
    sim::epoch,
    sip::digest::{self, Challenge},
};
use std::net::SocketAddr;

const USERS: &str = "[user.1001]\npassword = \"x\"\n[user.1002]\npassword = \"x\"\n";
const STRANGER: &str = "203.0.113.7:5060";
const OWNER: &str = "198.51.100.9:5060";
const SCANNER: &str = "User-Agent: Friendly-Scanner\r\n";

/// A shard, its clock, and how often somebody has asked it something.
struct Bench {
    shard: Shard,
    now: Instant,
    asked: u32,
    bans: Vec<Ban>,
}

/// Returns whom a request is for.
fn target(method: &str) -> &'static str {
    if method == "INVITE" { "sip:600@pbx" } else { "sip:pbx" }
}

impl Bench {
    fn new(more: &str) -> Self {
        let now = epoch();
        let shard = shard(&format!("{more}{USERS}"), now);
        let mut bench = Self { shard, now, asked: 0, bans: vec![] };
        bench.answers();
        bench
    }

    /// Sends bytes, and returns the answers.
    fn send(&mut self, from: &str, transport: Transport, bytes: impl Into<Bytes>) -> Vec<String> {
        let remote: SocketAddr = from.parse().unwrap();
        let local = if remote.is_ipv4() { "10.0.0.1:5060" } else { "[2001:db8:9::1]:5060" };
        let flow = Flow { transport, local: local.parse().unwrap(), remote };
        self.shard.handle_message(flow, bytes.into(), self.now);
        self.answers()
    }

    fn answers(&mut self) -> Vec<String> {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.shard.poll_output()).collect();
        let mut answers = vec![];
        for output in outputs {
            match output {
                Output::Transmit { bytes, .. } => {
                    answers.push(String::from_utf8(bytes.to_vec()).unwrap());
                }
                Output::Record(Record::Ban(ban)) => self.bans.push(*ban),
                Output::Record(_) | Output::Pass { .. } | Output::Media(..) | Output::Ask(_) => {}
            }
        }
        answers
    }

    fn request(&mut self, method: &str, user: &str, from: &str, lines: &str) -> String {
        self.asked += 1;
        let (n, uri) = (self.asked, target(method));
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{n}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@pbx>;tag=a\r\nTo: <sip:{user}@pbx>\r\n\
             Call-ID: {n}\r\nCSeq: {n} {method}\r\nContact: <sip:{user}@{from}>\r\n\
             {lines}Content-Length: 0\r\n\r\n"
        )
    }

    /// Registers as a phone would, and returns every answer.
    fn register(&mut self, user: &str, password: &str, from: &str) -> Vec<String> {
        self.ask("REGISTER", user, password, from)
    }

    /// Asks for something with a password, and returns every answer.
    fn ask(&mut self, method: &str, user: &str, password: &str, from: &str) -> Vec<String> {
        let bare = self.request(method, user, from, "");
        let mut answers = self.send(from, Transport::Udp, bare);
        let nonce = answers.first().and_then(|answer| nonce(answer));
        let Some(challenge) = nonce else { return answers };
        let proof = digest::respond(&challenge, user, password, method, target(method), 1, "c");
        let proven = self.request(method, user, from, &format!("Authorization: {proof}\r\n"));
        answers.extend(self.send(from, Transport::Udp, proven));
        answers
    }

    fn guess(&mut self, n: usize, from: &str) -> Vec<String> {
        self.register("1001", &format!("guess {n}"), from)
    }

    fn judged(&mut self) -> u64 {
        self.shard.counters().authentications.of("wrong")
    }

    fn discarded(&mut self, why: &str) -> u64 {
        self.shard.counters().discards.of(why)
    }
}

fn nonce(answer: &str) -> Option<Challenge> {
    let response = Message::parse(Bytes::from(answer.to_owned())).ok()?;
    let value = response.header(crate::sip::HeaderName::WwwAuthenticate)?.into_owned();
    Challenge::parse(&value, false)
}

fn status(answers: &[String]) -> Option<&str> {
    answers.last().and_then(|answer| answer.get(8..11))
}

#[test]
fn of_three_hundred_guesses_few_are_judged_and_the_owner_is_served() {
    let mut bench = Bench::new("");
    for n in 0..300 {
        let answers = bench.guess(n, STRANGER);
        let want = if n < 10 { Some("401") } else { Some("503").filter(|_| n < 50) };
        assert_eq!(status(&answers), want, "{n}");
        if n % 50 == 0 {
            assert_eq!(status(&bench.register("1001", "x", OWNER)), Some("200"), "{n}");
        }
    }
    assert_eq!((bench.judged(), bench.discarded("banned")), (10, 250));
    let [ban] = &bench.bans[..] else { panic!("{:?}", bench.bans) };
    assert_eq!((ban.source.to_string().as_str(), ban.is_proven), ("203.0.113.7", true));
    let [row] = &bench.shard.bans(bench.now)[..] else { panic!("one") };
    assert_eq!((&*row.why, row.left_s, row.dropped), ("guesses", 300, 250));
    assert_eq!(bench.shard.counters().bans.of("guesses"), 1);

    // The ban ends; whoever goes on is silenced for longer.
    bench.now += Duration::from_secs(300);
    assert!(bench.shard.bans(bench.now).is_empty());
    // Ten more are judged by then, and one is right.
    assert_eq!(status(&bench.register("1002", "x", "203.0.113.7:5061")), Some("200"));
}

#[test]
fn silence_grows_with_each_ban() {
    let mut bench = Bench::new("");
    for length in [300, 600, 1200] {
        for n in 0..60 {
            bench.guess(n, STRANGER);
        }
        assert_eq!(bench.bans.pop().unwrap().length(), Duration::from_secs(length));
        bench.now += Duration::from_secs(length);
    }
}

/// An answer made up to a nonce that never went there says nothing of the address: it is not judged,
/// so that it neither finds a password nor gets anybody banned.
#[test]
fn what_a_forger_says_is_not_held_against_the_address() {
    let mut bench = Bench::new("");
    let bare = bench.request("REGISTER", "1001", STRANGER, "");
    let answers = bench.send(STRANGER, Transport::Udp, bare);
    let challenge = nonce(&answers[0]).unwrap();
    for nc in 1..=100 {
        for password in ["guess", "x"] {
            let proof =
                digest::respond(&challenge, "1001", password, "REGISTER", "sip:pbx", nc, "c");
            let lines = format!("Authorization: {proof}\r\n");
            let forged = bench.request("REGISTER", "1001", OWNER, &lines);
            let answers = bench.send(OWNER, Transport::Udp, forged);
            assert!(answers[0].starts_with("SIP/2.0 401 ") && answers[0].contains("stale=true"));
        }
    }
    assert_eq!((bench.judged(), bench.bans.len()), (0, 0));
    assert_eq!(status(&bench.register("1001", "x", OWNER)), Some("200"));
}

/// Whoever tries names learns nothing from the bytes: what differs is what is drawn for each answer.
#[test]
fn unknown_users_and_wrong_passwords_are_told_alike() {
    let mut answers = ["1001", "2999"].map(|user| {
        let mut bench = Bench::new("");
        let answers = bench.register(user, "guess", STRANGER);
        assert_eq!(answers.len(), 2);
        answers.iter().map(|answer| answer.replace(user, "USER")).collect::<Vec<_>>()
    });
    assert_eq!(answers[0], answers[1]);
    assert!(answers.iter_mut().all(|two| two.iter().all(|a| a.starts_with("SIP/2.0 401 "))));
}

#[test]
fn some_are_never_banned() {
    let guesses = |bench: &mut Bench, from: &str| {
        for n in 0..100 {
            bench.guess(n, from);
        }
        (bench.discarded("banned"), bench.bans.len())
    };
    // Whose phone is registered, a neighbour behind the same NAT guessing or not.
    let mut bench = Bench::new("");
    assert_eq!(status(&bench.register("1002", "x", "203.0.113.7:40000")), Some("200"));
    assert_eq!(guesses(&mut bench, STRANGER).1, 0);
    // Who is named in the configuration.
    let mut bench = Bench::new("[bans]\nnever = [\"203.0.113.0/24\"]\n");
    assert_eq!(guesses(&mut bench, STRANGER), (0, 0));
    // Everybody, where bans are off.
    let mut bench = Bench::new("[bans]\nguesses = false\n");
    assert_eq!(guesses(&mut bench, STRANGER), (0, 0));
    // A trunk, and what shares its address.
    let mut bench = Bench::new("");
    let junk = |bench: &mut Bench, from: &str| {
        for _ in 0..300 {
            bench.send(from, Transport::Udp, "garbage\r\n\r\n");
        }
        bench.bans.len()
    };
    assert_eq!(junk(&mut bench, "192.0.2.20:5060"), 0);
    // Who takes part in a call; its neighbours do not.
    let mut bench = Bench::new("[user.1003]\npassword = \"x\"\ncontext = \"inbound\"\n");
    bench.ask("INVITE", "1003", "x", STRANGER);
    assert_eq!(bench.shard.calls(bench.now).len(), 1);
    assert_eq!(junk(&mut bench, STRANGER), 0);
    assert_eq!(junk(&mut bench, "203.0.113.8:5060"), 1);
}

#[test]
fn what_becomes_a_trunk_is_heard_although_it_was_banned() {
    let mut bench = Bench::new("");
    for n in 0..60 {
        bench.guess(n, STRANGER);
    }
    assert!(bench.guess(0, STRANGER).is_empty());
    let now = bench.now;
    let trusting = Bench::new("[bans]\nnever = [\"203.0.113.7\"]\n");
    bench.shard.configure(trusting.shard.core.shared.config, now);
    assert_eq!(status(&bench.guess(0, STRANGER)), Some("503"), "heard, if not believed");
}

#[test]
fn scanners_get_no_answer_and_their_source_is_soon_unheard() {
    for (transport, is_proven) in [(Transport::Udp, false), (Transport::Tcp, true)] {
        let mut bench = Bench::new("");
        for method in ["INVITE", "REGISTER", "OPTIONS", "SUBSCRIBE", "FOO"] {
            let scan = bench.request(method, "100", STRANGER, SCANNER);
            assert_eq!(bench.send(STRANGER, transport, scan), [""; 0], "{method}");
        }
        assert_eq!((bench.discarded("scanner"), bench.shard.core.tx.len()), (5, 0));
        for _ in 0..95 {
            let scan = bench.request("OPTIONS", "100", STRANGER, SCANNER);
            bench.send(STRANGER, transport, scan);
        }
        let [ban] = &bench.bans[..] else { panic!("{:?}", bench.bans) };
        assert_eq!((ban.why.word(), ban.is_proven), ("junk", is_proven));
        let honest = bench.request("OPTIONS", "100", STRANGER, "");
        assert_eq!(bench.send(STRANGER, transport, honest), [""; 0]);
        assert_eq!(status(&bench.register("1001", "x", OWNER)), Some("200"));
    }
}

#[test]
fn a_carrier_may_call_itself_what_it_likes() {
    let mut bench = Bench::new("");
    let carrier = "192.0.2.20:5060";
    let options = bench.request("OPTIONS", "100", carrier, SCANNER);
    assert_eq!(status(&bench.send(carrier, Transport::Udp, options)), Some("200"));
}

#[test]
fn a_flood_of_what_nobody_can_read_ends_in_silence() {
    let mut bench = Bench::new("");
    for _ in 0..1000 {
        bench.send(STRANGER, Transport::Udp, "OPTIONS sip:x SIP/2.0\r\nVia: ?\r\n\r\n");
    }
    assert_eq!((bench.discarded("unreadable"), bench.discarded("banned")), (100, 900));
}

#[test]
fn a_whole_64_is_one_source() {
    let mut bench = Bench::new("");
    for n in 0..300 {
        bench.guess(n, &format!("[2001:db8:1:2::{n:x}]:5060"));
    }
    assert_eq!((bench.judged(), bench.discarded("banned")), (10, 250));
    assert_eq!(status(&bench.register("1001", "x", "[2001:db8:1:3::1]:5060")), Some("200"));
}

#[test]
fn a_restart_forgets_no_ban_but_that_of_a_registered_phone() {
    let mut bench = Bench::new("");
    for n in 0..60 {
        bench.guess(n, STRANGER);
    }
    let bans = bench.bans.clone();
    let mut after = Bench::new("");
    after.shard.take_up_bans(bans.clone(), after.now);
    assert!(after.guess(0, STRANGER).is_empty());
    let mut after = Bench::new("");
    let received = STRANGER.parse().unwrap();
    after.shard.core.shared.location.bind(Binding { received, ..binding("1001") });
    after.shard.take_up_bans(bans, after.now);
    assert!(!after.guess(0, STRANGER).is_empty());
}

#[test]
fn an_operator_lifts_a_ban() {
    let mut bench = Bench::new("");
    for n in 0..60 {
        bench.guess(n, STRANGER);
    }
    let network = crate::network::Network::parse("203.0.113.7").unwrap();
    assert_eq!(bench.shard.lift(network, bench.now), 1);
    assert_eq!(bench.shard.lift(network, bench.now), 0);
    assert!(bench.shard.bans(bench.now).is_empty());
    bench.now += Duration::from_secs(30);
    assert_eq!(status(&bench.register("1001", "x", STRANGER)), Some("200"));
}
