//! What peers write, in every place that is shown to somebody: it never begins a line, moves a cursor or
//! turns around, in the log, on the terminal, in JSON, in the store or on the pages.

use super::{
    lasting::user,
    phone::{Phone, Talk, refusal_ack, sdp},
    program::{Program, listens_at},
    rig::{Rig, UDP_AND_TCP, fetch, own_address, soon},
};
use rusqlite::Connection;
use std::{net::SocketAddr, process::Command};
use tandem::{
    observe::{
        plain::is_plain,
        status::{CdrQuery, Request, Response},
    },
    shell::control,
    sip::{Message, Method, framing::Frame},
};
use tokio::net::UdpSocket;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tandem");
/// Stands in a request for what is meant badly.
const HERE: &str = "EVIL";
/// Begins a line, if anything does.
const MARK: &str = "FORGED";

/// Colours and bells, C1 controls, marks of direction, separators of lines; bytes that are no text; line
/// ends as URIs escape them, and bare ones.
const EVILS: [&[u8]; 4] = [
    "\u{1b}[2J\u{7}\u{7f}\u{9b}31m\u{202e}\u{2066}\u{2028}\u{feff}FORGED".as_bytes(),
    b"\xff\xfe\x1b]0;\x07\x9b2JFORGED",
    b"%0d%0aFORGED%1b%5b2J%c2%9b%e2%80%ae",
    b"x\n FORGED\r FORGED",
];

/// Where a phone may write what it likes: header lines of a call, and its body.
const PLACES: [&str; 14] = [
    "User-Agent: EVIL",
    "Subject: EVIL",
    "X-Note: EVIL",
    "EVIL: x",
    "P-Asserted-Identity: \"EVIL\" <sip:EVIL@x>",
    "P-Preferred-Identity: EVIL",
    "Remote-Party-ID: \"EVIL\" <sip:EVIL@x>",
    "Diversion: \"EVIL\" <sip:EVIL@x>;reason=EVIL",
    "Privacy: EVIL",
    "Require: EVIL",
    "Session-Expires: EVIL",
    "Alert-Info: <http://EVIL>",
    "Reason: SIP;cause=200;text=\"EVIL\"",
    "Call-Info: EVIL",
];

fn evil_bytes(text: &str, evil: &[u8]) -> Vec<u8> {
    let parts: Vec<_> = text.split(HERE).map(str::as_bytes).collect();
    parts.join(evil)
}

/// Sends what is meant badly, proves who it is where that is asked for, and waits until all has been heard.
async fn provoke(phone: &mut Phone, talk: &mut Talk, what: (&str, &str, &str), evil: &[u8]) {
    let (method, more, body) = what;
    let request = phone.request(talk, method, more, body);
    phone.link.send(&evil_bytes(&request, evil)).await;
    let Some(challenge) = heard_all(phone).await else { return };
    if method == "INVITE" {
        phone.link.send(&evil_bytes(&refusal_ack(&request, &challenge), evil)).await;
    }
    let uri = String::from_utf8_lossy(&evil_bytes(&talk.uri, evil)).into_owned();
    let proof = phone.credentials(&challenge, method, &uri);
    let request = phone.request(talk, method, &format!("{more}{proof}"), body);
    phone.link.send(&evil_bytes(&request, evil)).await;
    heard_all(phone).await;
}

/// Waits for the answer to an OPTIONS that is sent now; returns a challenge that came before it.
async fn heard_all(phone: &mut Phone) -> Option<Message> {
    let options = phone.options();
    phone.link.send(options.as_bytes()).await;
    let mut challenge = None;
    loop {
        let Some(Frame::Message(bytes)) = phone.link.frame().await else { panic!("no message") };
        // What cannot be read is told so, with its own words.
        let Ok(message) = Message::parse(bytes) else { continue };
        match (message.is_request(), message.cseq().method, message.status()) {
            (false, Method::Options, _) => return challenge,
            (false, _, 401) => challenge = Some(message),
            _ => {}
        }
    }
}

/// A phone calls in every way it can think of; nobody is there, or the echo.
async fn a_caller(phone: &mut Phone, evil: &[u8]) {
    for number in ["600", "1003", "EVIL", "1001;x=EVIL"] {
        let mut talk = phone.talk(number);
        let body = sdp(phone.link.local());
        provoke(phone, &mut talk, ("INVITE", "", &body), evil).await;
    }
    for place in PLACES {
        let mut talk = phone.talk("1003");
        provoke(phone, &mut talk, ("INVITE", &format!("{place}\r\n"), ""), evil).await;
    }
    let local = phone.link.local();
    for line in [
        "s=EVIL\r\n",
        "a=EVIL\r\n",
        "i=EVIL\r\n",
        "a=rtpmap:0 EVIL/8000\r\n",
        "a=rtpmap:101 EVIL\r\n",
        "a=crypto:1 EVIL inline:EVIL\r\n",
        "a=fmtp:0 EVIL\r\n",
        "m=EVIL 9 RTP/AVP 0\r\n",
    ] {
        let mut talk = phone.talk("600");
        let body = format!("{}{line}", sdp(local));
        provoke(phone, &mut talk, ("INVITE", "", &body), evil).await;
    }
    for method in ["REGISTER", "OPTIONS", "MESSAGE", "EVIL", "SUBSCRIBE"] {
        let mut talk = phone.talk("EVIL");
        let more = "User-Agent: EVIL\r\nEvent: EVIL\r\nExpires: EVIL\r\n";
        provoke(phone, &mut talk, (method, more, ""), evil).await;
    }
    let guess = "Authorization: Digest username=\"EVIL\", realm=\"EVIL\", nonce=\"EVIL\", \
                 uri=\"EVIL\", response=\"EVIL\", cnonce=\"EVIL\", opaque=\"EVIL\"\r\n";
    let mut talk = phone.talk("600");
    let request = phone.request(&mut talk, "INVITE", guess, "");
    phone.link.send(&evil_bytes(&request, evil)).await;
    heard_all(phone).await;
    // Names, tags and the Call-ID.
    let mut talk = phone.talk("600");
    for (at, with) in [
        ("From: ", "From: \"EVIL\" "),
        (";tag=t", ";tag=EVIL"),
        ("Call-ID: ", "Call-ID: EVIL"),
        ("Contact: ", "Contact: \"EVIL\" "),
        ("Contact: <sip:", "Contact: <sip:EVIL"),
        ("branch=z9hG4bK", "branch=z9hG4bKEVIL"),
    ] {
        let request = phone.request(&mut talk, "INVITE", "", "");
        phone.link.send(&evil_bytes(&request.replacen(at, with, 1), evil)).await;
        heard_all(phone).await;
    }
}

/// A phone is called, and answers in its way.
async fn a_callee(caller: &mut Phone, callee: &mut Phone, evil: &[u8]) {
    let text = String::from_utf8_lossy(evil).replace(['\r', '\n'], "");
    for status in ["486 EVIL", "302 EVIL", "503 EVIL", "500 EVIL"] {
        caller.dial("1002").await;
        let invite = callee.heard().await;
        let more = format!(
            "Reason: SIP;cause=486;text=\"{text}\"\r\nWarning: 399 x \"{text}\"\r\n\
             Server: {text}\r\nP-Asserted-Identity: \"{text}\" <sip:x@y>\r\n"
        );
        callee.answer_with(&invite, &status.replace(HERE, &text), &more, "").await;
        if status.starts_with("302") {
            // To where it came from.
            assert_eq!(callee.heard().await.method(), Method::Ack);
            let invite = callee.heard().await;
            callee.answer_with(&invite, &format!("480 {text}"), &more, "").await;
        }
        assert_eq!(callee.heard().await.method(), Method::Ack);
        assert!(caller.dialled().await.0.status() >= 300);
    }
    caller.dial("1002").await;
    let invite = callee.heard().await;
    let session = format!("{}a=x:{text}\r\ns={text}\r\n", sdp(callee.link.local()));
    callee.answer_with(&invite, &format!("180 {text}"), "", "").await;
    callee.answer_with(&invite, &format!("200 {text}"), "", &session).await;
    let (ok, mut talk) = caller.dialled().await;
    assert_eq!(ok.status(), 200);
    assert_eq!(callee.heard().await.method(), Method::Ack);
    let info = format!("Info-Package: {text}\r\nReason: Q.850;cause=16;text=\"{text}\"\r\n");
    caller.transact(&mut talk, "INFO", &info).await;
    assert_eq!(caller.transact(&mut talk, "BYE", &info).await.status(), 200);
    callee.is_hung_up().await;
}

/// A carrier, or who sits there: its names, its refusals.
async fn a_carrier(phone: &mut Phone, carrier: &mut Phone, evil: &[u8]) {
    let text = String::from_utf8_lossy(evil).replace(['\r', '\n'], "");
    phone.dial("4155550199").await;
    let invite = carrier.heard().await;
    let more = format!("X-Twilio-Error: 32204 {text}\r\nReason: Q.850;cause=1;text=\"{text}\"\r\n");
    carrier.answer_with(&invite, &format!("404 {text}"), &more, "").await;
    assert_eq!(carrier.heard().await.method(), Method::Ack);
    assert!(phone.dialled().await.0.status() >= 400);
    for more in ["", "X-Twilio-CallSid: EVIL\r\n", "Diversion: \"EVIL\" <sip:EVIL@twilio.com>\r\n"]
    {
        for number in ["+17756187988", "EVIL"] {
            let mut talk = carrier.talk(number);
            provoke(carrier, &mut talk, ("INVITE", more, ""), evil).await;
        }
    }
}

/// Everything that is shown to somebody, each with its name.
async fn everything_shown(rig: &Rig, http: SocketAddr) -> Vec<(String, String)> {
    let query = CdrQuery { limit: 1_000, ..CdrQuery::default() };
    let ask = async |request| control::ask(&rig.socket(), &request).await.unwrap();
    let Response::Calls(running) = ask(Request::Calls).await else { panic!("no calls") };
    let Response::Cdrs(records) = ask(Request::Cdr(query)).await else { panic!("no records") };
    assert!(records.len() > 40, "{}", records.len());
    let commands = ["status", "calls", "phones", "trunks", "bans", "budgets", "cdr -n 1000"];
    let mut commands: Vec<String> = commands.map(str::to_owned).into();
    let calls = records.iter().map(|cdr| cdr.call).step_by(7);
    for call in calls.chain(running.iter().map(|row| row.call).take(5)) {
        let verbs = ["call show", "call ladder", "explain"];
        commands.extend(verbs.map(|verb| format!("{verb} {call}")));
    }
    let config = rig.config().to_string_lossy().into_owned();
    let mut shown = vec![("/metrics".into(), fetch(http, "/metrics").await.replace('\r', ""))];
    for json in ["", " --json"] {
        for command in &commands {
            let command = format!("{command}{json}");
            let mut run = Command::new(PROGRAM);
            run.args(command.split(' ')).args(["-c", &config]);
            let output = tokio::task::spawn_blocking(move || run.output().unwrap());
            let output = soon("an answer", output).await.unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(!text.contains("cannot be read"), "{command}: {text}");
            shown.push((command, text));
        }
    }
    shown
}

fn stored(rig: &Rig) -> Vec<(String, String)> {
    let store = Connection::open(rig.path("tandem.db")).unwrap();
    let mut rows = vec![];
    for query in ["SELECT record FROM cdr", "SELECT rungs FROM ladder"] {
        let mut statement = store.prepare(query).unwrap();
        let texts = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.extend(texts.map(|text| (query.to_owned(), text.unwrap())));
    }
    assert!(rows.len() > 80, "{}", rows.len());
    rows
}

fn assert_harmless(all: &[(String, String)]) {
    for (what, text) in all {
        for line in text.split('\n') {
            assert!(line.chars().all(is_plain), "{what}: {}", line.escape_debug());
            assert!(!line.trim_start().starts_with(MARK), "{what}: {line}");
        }
    }
    // It was there to be shown.
    for what in ["log", "cdr -n 1000", "SELECT record FROM cdr", "SELECT rungs FROM ladder"] {
        let of_this = |(name, text): &&(String, String)| name == what && text.contains(MARK);
        assert!(all.iter().any(|each| of_this(&each)), "{what} does not tell of {MARK}");
    }
}

async fn siege(format: &str) {
    let carrier = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let rig = Rig::with_carrier_and_legs(carrier.local_addr().unwrap(), 200);
    // Nobody else takes ports of that address.
    let http = std::net::TcpListener::bind((own_address(), 0)).unwrap().local_addr().unwrap();
    rig.configure(
        UDP_AND_TCP,
        &format!("{}{}[log]\nformat = \"{format}\"\n", user("1002"), user("1003")),
    );
    let text = std::fs::read_to_string(rig.config()).unwrap();
    let text =
        text.replace("[http]\nlisten = \"127.0.0.1:0\"", &format!("[http]\nlisten = \"{http}\""));
    rig.write("pbx.toml", &text);
    let program = Program::start(&rig, "trace").await;
    let remote = listens_at(&rig).await;
    let mut carrier = Phone::over("carrier", remote, carrier).await;
    let (mut caller, mut callee) =
        (Phone::udp("1001", remote).await, Phone::udp("1002", remote).await);
    assert_eq!(callee.register(600).await.status(), 200);
    for evil in EVILS {
        a_caller(&mut caller, evil).await;
        a_callee(&mut caller, &mut callee, evil).await;
        a_carrier(&mut caller, &mut carrier, evil).await;
    }
    let mut all = everything_shown(&rig, http).await;
    program.kill();
    all.extend(stored(&rig));
    all.push(("log".into(), String::from_utf8(std::fs::read(rig.path("log")).unwrap()).unwrap()));
    assert_harmless(&all);
}

#[tokio::test]
async fn what_peers_write_is_harmless_to_people_who_read_it() {
    siege("text").await;
}

#[tokio::test]
async fn what_peers_write_is_harmless_to_programs_that_read_it() {
    siege("json").await;
}
