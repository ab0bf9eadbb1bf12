//! What the core does with the messages of RFC 4475 and RFC 5118, over UDP and TCP: every valid one
//! gets a sensible answer, every invalid one is refused or dropped, and nothing answers a response
//! or an ACK.

use bytes::Bytes;
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tandem::{
    config::{self, Files},
    ids::{Flow, Transport},
    sim::{Node, Pbx, epoch, pbx::Setup},
    sip::{
        Message, Method,
        framing::{Frame, Framer},
    },
};

const CONFIG: &str = r#"
dialplan = ["rules.toml"]
[trunk.carrier]
uri = "carrier.example.com"
address = "192.0.2.20:5060"
caller_id = "+14155550100"
[user.1001]
password = "secret"
"#;
const RULES: &str = r#"
[[internal.rule]]
match = "_X."
dial = "user:1001"
[[inbound.rule]]
match = "re:.*"
echo = true
"#;

/// Anybody: what needs a name is challenged.
const STRANGER: &str = "192.0.2.66:5060";
/// The trunk: its calls are taken without a challenge.
const TRUNK: &str = "192.0.2.20:5060";

/// One message, and what the RFC wants done with it.
struct Sample {
    name: String,
    class: String,
    codes: Vec<u64>,
    bytes: Vec<u8>,
}

#[test]
fn a_stranger_s_messages_over_udp() {
    for sample in samples() {
        check(&sample, STRANGER, Transport::Udp);
    }
}

#[test]
fn a_stranger_s_messages_over_tcp() {
    for sample in samples() {
        check(&sample, STRANGER, Transport::Tcp);
    }
}

#[test]
fn the_trunk_s_messages_over_udp() {
    for sample in samples() {
        check(&sample, TRUNK, Transport::Udp);
    }
}

#[test]
fn the_trunk_s_messages_over_tcp() {
    for sample in samples() {
        check(&sample, TRUNK, Transport::Tcp);
    }
}

/// All of them, one after the other, into the same program: nothing that one leaves behind harms the
/// next, and in the end nothing is left.
#[test]
fn all_of_them_into_one_program() {
    let mut subject = Subject::new();
    for source in [STRANGER, TRUNK] {
        for sample in samples() {
            subject.send(&sample.bytes, source, Transport::Udp);
        }
    }
    subject.rest();
}

fn check(sample: &Sample, source: &str, transport: Transport) {
    let mut subject = Subject::new();
    let answers = subject.send(&sample.bytes, source, transport);
    let at = format!("{} from {source} over {}", sample.name, transport.token());
    let statuses: Vec<u16> = answers.iter().map(status).collect();
    let finals: Vec<u16> = statuses.iter().copied().filter(|status| *status >= 200).collect();
    match &*sample.class {
        "valid" => {
            // The last of the answers: a call that is taken is answered 100, then 200.
            assert!(!finals.is_empty(), "{at}: {statuses:?}");
            assert!(finals.iter().all(|status| is_sensible(*status)), "{at}: {statuses:?}");
        }
        "codes" => {
            let wanted = |status: &u16| sample.codes.contains(&u64::from(*status));
            assert!(finals.iter().all(wanted), "{at}: {statuses:?}, not of {:?}", sample.codes);
        }
        "invalid" => {
            let is_refusal = |status: &u16| (400..700).contains(status);
            assert!(finals.iter().all(is_refusal), "{at}: {statuses:?}");
        }
        "liberal" | "survive" => {}
        "response" | "ack" => assert!(statuses.is_empty(), "{at}: {statuses:?}"),
        other => panic!("{at}: class {other}"),
    }
    for answer in &answers {
        check_answer(&sample.bytes, answer, &at);
    }
    subject.rest();
}

/// Neither blamed on its sender nor on us.
fn is_sensible(status: u16) -> bool {
    status != 400 && !(500..600).contains(&status) || status == 501
}

/// RFC 3261 8.2.6: an answer is of its request. What is wrong in the request is in it as well.
fn check_answer(request: &[u8], answer: &Bytes, at: &str) {
    let Ok(answer) = Message::parse(answer.clone()) else {
        assert!((400..500).contains(&status(answer)), "{at}: {answer:?}");
        return;
    };
    let text = String::from_utf8_lossy(request);
    assert!(text.contains(answer.call_id()), "{at}: Call-ID {}", answer.call_id());
    assert!(text.contains(&answer.cseq().number.to_string()), "{at}: {:?}", answer.cseq());
    assert!(answer.to_tag().is_some() || answer.status() == 100, "{at}: no To tag");
    assert!(!answer.reason().is_empty(), "{at}: no reason");
}

/// Zero for a request.
fn status(bytes: &Bytes) -> u16 {
    let code = bytes.strip_prefix(b"SIP/2.0 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).unwrap_or(0)
}

/// The program, told one message after the other.
struct Subject {
    pbx: Pbx,
    now: Instant,
}

impl Subject {
    fn new() -> Self {
        let files = Files::default().with("pbx.toml", CONFIG).with("rules.toml", RULES);
        let checked = config::check("pbx.toml", &files);
        let config = checked.config.unwrap_or_else(|| panic!("{}", checked.report));
        let now = epoch();
        let setup = Setup {
            config: Arc::new(config),
            local: local(),
            public: None,
            hosts: [].into(),
            prompts: [].into(),
            seed: 1,
        };
        Self { pbx: Pbx::new(setup, now), now }
    }

    /// Returns what it answers within a second.
    fn send(&mut self, bytes: &[u8], source: &str, transport: Transport) -> Vec<Bytes> {
        let flow = Flow { transport, local: local(), remote: source.parse().expect("address") };
        for message in framed(bytes, transport) {
            self.pbx.receive(flow, message, self.now);
        }
        let mut answers = self.sent();
        self.advance(Duration::from_secs(1), &mut answers);
        answers.retain(|bytes| status(bytes) != 0);
        answers
    }

    /// Lets everything time out; nothing may be left, and no step may have panicked.
    fn rest(&mut self) {
        self.advance(Duration::from_secs(24 * 3600), &mut vec![]);
        assert!(self.pbx.is_idle(), "{:?}", self.pbx.cdrs());
        let counters = self.pbx.with_shard(self.now, |shard, _| shard.counters());
        assert_eq!(counters.panics, 0);
    }

    fn advance(&mut self, time: Duration, sent: &mut Vec<Bytes>) {
        let end = self.now + time;
        while let Some(due) = self.pbx.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.pbx.handle_timeout(self.now);
            sent.extend(self.sent());
        }
        self.now = end;
    }

    fn sent(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.pbx.poll_transmit()).map(|(_, bytes)| bytes).collect()
    }
}

/// What the shell would hand to the core.
fn framed(bytes: &[u8], transport: Transport) -> Vec<Bytes> {
    match transport {
        Transport::Udp => vec![Bytes::copy_from_slice(bytes)],
        Transport::Tcp | Transport::Tls => {
            let mut framer = Framer::new();
            framer.push(bytes);
            let frames = std::iter::from_fn(|| framer.next());
            let messages = frames.filter_map(|frame| match frame {
                Frame::Message(message) => Some(message),
                Frame::Ping | Frame::Pong | Frame::Broken => None,
            });
            messages.collect()
        }
    }
}

fn local() -> SocketAddr {
    "192.0.2.1:5060".parse().expect("address")
}

fn samples() -> Vec<Sample> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let list = fs::read_to_string(folder.join("reactions.jsonl")).expect("reactions.jsonl");
    let samples: Vec<_> = list
        .lines()
        .map(|line| {
            let entry: Value = serde_json::from_str(line).expect("a JSON object");
            let text = |key: &str| entry[key].as_str().expect("a text").to_owned();
            let codes = entry["codes"].as_array().into_iter().flatten();
            Sample {
                name: text("file"),
                class: text("cls"),
                codes: codes.filter_map(Value::as_u64).collect(),
                bytes: fs::read(folder.join(text("file"))).expect("a message"),
            }
        })
        .collect();
    assert_eq!(samples.len(), 61);
    samples
}

/// An ACK to nothing, and the answer of somebody whom nobody asked: neither comes back.
#[test]
fn what_is_not_answered() {
    for start in ["ACK sip:1001@pbx.example.com SIP/2.0", "SIP/2.0 200 OK"] {
        let bytes = format!(
            "{start}\r\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n\
             To: <sip:1001@pbx.example.com>;tag=2\r\nCall-ID: x\r\nCSeq: 1 ACK\r\n\
             Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
        );
        let mut subject = Subject::new();
        assert_eq!(Message::parse(bytes.clone().into()).expect("right").method(), Method::Ack);
        assert!(subject.send(bytes.as_bytes(), STRANGER, Transport::Udp).is_empty(), "{start}");
        subject.rest();
    }
}
