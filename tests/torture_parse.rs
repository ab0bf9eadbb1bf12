//! The corpus of SIP messages (RFC 4475, RFC 5118, real clients) read, refused and answered. Mutations of
//! it are in `tests/fuzz`.

use bytes::Bytes;
use rsip::prelude::{HeadersExt, ToTypedHeader, UntypedHeader};
use serde_json::Value;
use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, sync::LazyLock};
use tandem::sip::{
    Builder, Contacts, HeaderName, Message, ParseError, default_reason,
    framing::{Frame, Framer},
};

/// Accepted although the RFC calls them invalid, and why.
const DELIBERATE: [(&str, &str); 2] = [
    (
        "escruri",
        "headers in a Request-URI are harmless when nobody acts on them; clients send them",
    ),
    ("baddate", "nothing here reads Date"),
];

/// What is wrong with each that is refused, and whether its sender is told.
const REFUSED: [(&str, &str, Told); 32] = [
    ("badaspec", "Bad To", Told::Yes),
    ("baddn", "Headers Not Terminated", Told::Yes),
    ("badinv01", "Bad Via", Told::No),
    ("badvers", "Version Not Supported", Told::Yes),
    ("bigcode", "Bad Status-Code", Told::No),
    ("cl_larger_than_datagram", "Body Shorter Than Content-Length", Told::Yes),
    ("clerr", "Body Shorter Than Content-Length", Told::Yes),
    ("cseq_max", "Bad CSeq", Told::Yes),
    ("dup_cl_differ", "Conflicting Content-Length", Told::Yes),
    ("empty", "Not SIP", Told::No),
    ("header_no_colon", "Bad Header Line", Told::Yes),
    ("http_get", "Not SIP", Told::No),
    ("insuf", "Missing From", Told::No),
    ("ipv6-bad", "Bad Request-URI", Told::Yes),
    ("ipv6-bug-abnf-3-colons", "Bad Request-URI", Told::Yes),
    ("keepalive_crlfcrlf", "Not SIP", Told::No),
    ("ltgtruri", "Bad Request-URI", Told::Yes),
    ("lwsruri", "Bad Request-Line", Told::Yes),
    ("lwsstart", "Bad Request-Line", Told::Yes),
    ("many_headers_2000", "Too Many Header Lines", Told::Yes),
    ("mcl01", "Conflicting Content-Length", Told::Yes),
    ("mismatch01", "CSeq Method Mismatch", Told::Yes),
    ("mismatch02", "CSeq Method Mismatch", Told::Yes),
    ("multi01", "Repeated From", Told::Yes),
    ("ncl", "Bad Content-Length", Told::Yes),
    ("nul_bytes", "Not SIP", Told::No),
    ("quotbal", "Bad To", Told::Yes),
    ("regbadct", "Bad Contact", Told::Yes),
    ("resp_code_099", "Bad Status-Code", Told::No),
    ("scalar02", "Bad CSeq", Told::Yes),
    ("scalarlg", "Bad CSeq", Told::No),
    ("stun_binding", "Not SIP", Told::No),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Told {
    Yes,
    No,
}

#[test]
fn valid_messages_are_read_rightly() {
    let valid = of_class("valid");
    assert_eq!(valid.len(), 71);
    for sample in valid {
        let message = sample.parse().unwrap_or_else(|e| panic!("{}: {e}", sample.name));
        assert!(!sample.facts.is_empty() || sample.path.contains("rfc5118"), "{}", sample.name);
        for (fact, want) in &sample.facts {
            assert_eq!(read_fact(&message, fact), *want, "{}: {fact}", sample.name);
        }
    }
}

#[test]
fn invalid_messages_are_refused() {
    let invalid = of_class("invalid");
    assert_eq!(invalid.len(), 28);
    for sample in invalid {
        let deliberate = DELIBERATE.iter().any(|(name, _)| *name == sample.name);
        assert_eq!(sample.parse().is_ok(), deliberate, "{}", sample.name);
    }
}

/// Neither accepted nor refused on principle; what is accepted is read rightly.
#[test]
fn odd_messages_are_survived() {
    for sample in of_class("survive") {
        let Ok(message) = sample.parse() else { continue };
        for (fact, want) in &sample.facts {
            assert_eq!(read_fact(&message, fact), *want, "{}: {fact}", sample.name);
        }
    }
}

#[test]
fn a_refusal_says_what_is_wrong() {
    let told = |error: &ParseError| if error.salvage.is_some() { Told::Yes } else { Told::No };
    let got: Vec<_> = CORPUS
        .iter()
        .filter_map(|sample| {
            let error = sample.parse().err()?;
            Some((&*sample.name, error.problem.to_string(), told(&error)))
        })
        .collect();
    let mut got: Vec<_> = got.iter().map(|(name, why, told)| (*name, &**why, *told)).collect();
    got.sort_by_key(|(name, _, _)| *name);
    assert_eq!(got, REFUSED);
}

/// RFC 3261 8.2.6, also for requests that are refused: the same five headers come back.
#[test]
fn every_answer_can_be_read_and_belongs_to_its_request() {
    for sample in CORPUS.iter() {
        match sample.parse() {
            // Played by `tests/fuzz`, with mutations of it.
            Ok(_) => {}
            Err(ParseError { problem, salvage }) => {
                let Some(salvage) = salvage else { continue };
                let bytes = salvage.reply(problem.status(), &problem.to_string(), source());
                assert_eq!(bytes, salvage.reply(problem.status(), &problem.to_string(), source()));
                let reply = String::from_utf8_lossy(&bytes);
                let start = format!("SIP/2.0 {} {problem}\r\n", problem.status());
                assert!(reply.starts_with(&start), "{}: {reply}", sample.name);
                assert!(
                    reply.ends_with("\r\nContent-Length: 0\r\n\r\n"),
                    "{}: {reply}",
                    sample.name
                );
                let call_id = sample.header("Call-ID");
                assert!(reply.contains(&*call_id), "{}: {call_id} {reply}", sample.name);
            }
        }
    }
}

/// Where rsip reads something else than what is there: it writes methods in capitals.
const RSIP_IS_WRONG: [&str; 1] = ["lowercase_method_ext"];

/// An independent reader, where it can read the message at all and where it is right.
#[test]
fn rsip_reads_the_same() {
    let mut compared = 0;
    for sample in CORPUS.iter().filter(|sample| !RSIP_IS_WRONG.contains(&&*sample.name)) {
        let (Ok(ours), Some(theirs)) = (sample.parse(), rsip_reads(&sample.bytes)) else {
            continue;
        };
        check_same(&sample.name, &ours, &theirs);
        compared += 1;
        if !ours.is_request() {
            continue;
        }
        let reply = Builder::reply(&ours, 180, default_reason(180), Some("t"), source()).finish();
        let theirs = rsip_reads(&reply).unwrap_or_else(|| panic!("{}: {reply:?}", sample.name));
        let ours = Message::parse(reply).expect("our own reply");
        check_same(&sample.name, &ours, &theirs);
    }
    assert!(compared > 30, "{compared}");
}

fn check_same(name: &str, ours: &Message, theirs: &rsip::SipMessage) {
    let call_id = theirs.call_id_header().map(|id| id.value().trim().to_owned());
    assert_eq!(call_id.as_deref(), Ok(ours.call_id()), "{name}");
    let cseq = theirs.cseq_header().and_then(|cseq| Ok((cseq.seq()?, cseq.method()?.to_string())));
    assert_eq!(cseq, Ok((ours.cseq().number, ours.method_token().to_owned())), "{name}");
    match theirs {
        rsip::SipMessage::Request(request) => {
            assert_eq!(request.method.to_string(), ours.method_token(), "{name}");
        }
        rsip::SipMessage::Response(response) => {
            assert_eq!(response.status_code.code(), ours.status(), "{name}");
        }
    }
}

/// Every message over a stream, in pieces, between keep-alives, comes out as it went in.
#[test]
fn a_stream_of_everything_valid_is_cut_rightly() {
    let counted = |sample: &&&Sample| {
        sample.parse().is_ok_and(|message| message.header(HeaderName::ContentLength).is_some())
    };
    let whole = |sample: &&Sample| {
        let message = sample.parse().expect("counted");
        let end = message.body().as_ptr().addr() - message.bytes().as_ptr().addr();
        message.bytes().slice(..end + message.body().len())
    };
    let valid = of_class("valid");
    let messages: Vec<_> = valid.iter().filter(counted).map(whole).collect();
    assert!(messages.len() > 60);
    let stream = messages.join(&b"\r\n\r\n"[..]);
    for step in [1, 100, 1460, 16_384] {
        let (mut framer, mut got, mut pings) = (Framer::new(), vec![], 0);
        for bytes in stream.chunks(step) {
            framer.push(bytes);
            while let Some(frame) = framer.next() {
                match frame {
                    Frame::Message(bytes) => got.push(bytes),
                    Frame::Ping => pings += 1,
                    Frame::Pong => {} // So far: the other half of the ping makes it one.
                    Frame::Broken => panic!("broken after {}", got.len()),
                }
            }
        }
        assert_eq!((got.len(), pings), (messages.len(), messages.len() - 1), "{step}");
        assert!(got == messages, "{step}");
    }
}

/// Every key that `facts.json` uses, and what we say to it.
fn read_fact(message: &Message, fact: &str) -> Value {
    let text = |name| message.header_str(name).unwrap_or_default().into_owned();
    match fact {
        "method" | "cseq_method" => message.method_token().into(),
        "status" => message.status().into(),
        "vias" => message.vias().count().into(),
        "rr" => message.routes(HeaderName::RecordRoute).len().into(),
        "routes" => message.routes(HeaderName::Route).len().into(),
        "contacts" => match message.contacts() {
            Contacts::List(list) => list.len().into(),
            Contacts::Star | Contacts::Bad => Value::Null,
        },
        "cseq" => message.cseq().number.into(),
        "max_fwd" => message.number(HeaderName::MaxForwards).into(),
        "from_tag" => message.from_tag().into(),
        "to_tag" => message.to_tag().into(),
        "branch" => message.branch().into(),
        "body_len" => message.body().len().into(),
        "call_id" => message.call_id().into(),
        "ctype" => text(HeaderName::ContentType).into(),
        "ctype_starts" => text(HeaderName::ContentType).split(';').next().into(),
        "auths" => message.challenges().len().into(),
        "auth_contains" => {
            let nonce = text(HeaderName::WwwAuthenticate);
            nonce.split(", ").find(|part| part.starts_with("nonce")).into()
        }
        unknown => panic!("facts.json knows something new: {unknown}"),
    }
}

struct Sample {
    name: String,
    path: String,
    class: String,
    facts: BTreeMap<String, Value>,
    bytes: Bytes,
}

impl Sample {
    fn parse(&self) -> Result<Message, ParseError> {
        Message::parse(self.bytes.clone())
    }

    /// Finds a header without the parser under test; the long form or `i`.
    fn header(&self, name: &str) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let is = |key: &str| key.eq_ignore_ascii_case(name);
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(key, _)| is(key.trim())).expect("a header");
        value.trim().to_owned()
    }
}

static CORPUS: LazyLock<Vec<Sample>> = LazyLock::new(read_corpus);

fn of_class(class: &str) -> Vec<&'static Sample> {
    CORPUS.iter().filter(|sample| sample.class == class).collect()
}

fn read_corpus() -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let read = |path: &str| {
        let path = folder.join(path);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let facts: Vec<Value> = serde_json::from_slice(&read("facts.json")).expect("facts.json");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    facts
        .iter()
        .map(|entry| Sample {
            name: text(&entry["name"]),
            path: text(&entry["path"]),
            class: text(&entry["cls"]),
            facts: entry["facts"].as_object().expect("facts").clone().into_iter().collect(),
            bytes: read(&text(&entry["path"])).into(),
        })
        .collect()
}

fn rsip_reads(bytes: &Bytes) -> Option<rsip::SipMessage> {
    let message = rsip::SipMessage::try_from(bytes.clone()).ok()?;
    // It accepts what it cannot use: count only what has the headers that are compared.
    (message.call_id_header().is_ok() && message.cseq_header().ok()?.typed().is_ok())
        .then_some(message)
}

fn source() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 77], 5062))
}
