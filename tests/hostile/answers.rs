//! What a stranger gets over UDP, where anybody's address can be forged: one answer at most for a packet, at
//! most twice its size, never repeated; and nothing is kept of it.

use crate::subject::{OURS, STRANGER, Subject, prove};
use std::{fs, path::Path, time::Duration};
use tandem::{ids::Transport, sim::Node, sip::HeaderName};

/// Longer than anything is repeated.
const WHILE: Duration = Duration::from_secs(70);

#[test]
fn one_for_a_packet_and_at_most_twice_its_size() {
    let mut worst = 0.0_f64;
    let mut tried = 0;
    for (name, bytes) in requests() {
        let mut subject = Subject::new();
        let mut said = subject.tell(&bytes, STRANGER);
        // Of a call with a wrong password a record waits, for a few seconds and of a few calls.
        let kept = !subject.pbx.is_idle() && !name.contains("wrong proof");
        said.extend(subject.pass(WHILE));
        said.retain(|(flow, _)| flow.remote.ip().to_string() == "192.0.2.66");
        let sent: usize = said.iter().map(|(_, answer)| answer.len()).sum();
        assert!(said.len() <= 1, "{name}: {said:?}");
        assert!(sent <= 2 * bytes.len(), "{name}: {sent} bytes for {}: {said:?}", bytes.len());
        assert!(!kept && subject.pbx.is_idle(), "{name}: something is kept");
        worst = worst.max(sent as f64 / bytes.len() as f64);
        tried += 1;
    }
    assert!(tried > 100 && worst > 1.0, "{tried} tried, {worst} at the worst");
}

/// Everything that a stranger can ask, as short as it can be, as phones do, and all of the corpus.
fn requests() -> Vec<(String, Vec<u8>)> {
    let mut requests = vec![];
    let subject = Subject::new();
    for method in [
        "INVITE",
        "REGISTER",
        "OPTIONS",
        "BYE",
        "CANCEL",
        "SUBSCRIBE",
        "MESSAGE",
        "NOTIFY",
        "PUBLISH",
        "REFER",
        "INFO",
        "UPDATE",
        "PRACK",
        "ACK",
        "FOO",
    ] {
        let plain = subject.request(method, "1001", "");
        let unproved = "Authorization: Digest username=\"1001\", realm=\"tandem\", nonce=\"n\", \
                        uri=\"sip:192.0.2.1\", response=\"00\"\r\n";
        let in_dialog = plain.replace("192.0.2.1>\r\nCall", "192.0.2.1>;tag=9\r\nCall");
        let forms = [
            (
                "short",
                format!(
                    "{method} sip:a SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1\r\nf:<sip:a@b>;tag=1\r\nt:<sip:a@b>\r\n\
                 i:x\r\nCSeq:1 {method}\r\n\r\n"
                ),
            ),
            ("plain", plain.clone()),
            ("in a dialog", in_dialog),
            ("with a wrong proof", subject.request(method, "1001", unproved)),
            ("looping", plain.replace("Max-Forwards: 70", "Max-Forwards: 0")),
            ("requiring", subject.request(method, "1001", "Require: x\r\n")),
            ("unreadable", plain.replace("CSeq: 1", "CSeq: x")),
            ("of another version", plain.replacen("SIP/2.0", "SIP/9.0", 1)),
            ("with a strange scheme", plain.replacen("sip:192.0.2.1", "x:y", 1)),
        ];
        requests.extend(forms.map(|(form, text)| (format!("{method} {form}"), text.into_bytes())));
    }
    for folder in ["rfc4475", "rfc5118", "real"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("a file").path();
            requests.push((path.display().to_string(), fs::read(&path).expect("a message")));
        }
    }
    requests
}

/// Twenty thousand calls of a stranger leave nothing at all in the core; each is answered once.
#[test]
fn a_flood_of_calls_leaves_nothing() {
    let mut subject = Subject::new();
    let template = subject.request("INVITE", "1001", "");
    for n in 0..20_000 {
        let invite = template
            .replace("z9hG4bK0", &format!("z9hG4bK{n}"))
            .replace("1001-0", &format!("x{n}"));
        let said = subject.tell(invite.as_bytes(), STRANGER);
        assert_eq!(said.len(), 1);
        assert!(said[0].1.starts_with(b"SIP/2.0 401 "));
        assert!(subject.pbx.is_idle(), "call {n} is kept");
    }
    assert!(
        subject.pass(WHILE).iter().all(|(flow, _)| flow.remote.ip().to_string() != "192.0.2.66")
    );
}

/// A contact that leads back to us: the INVITE that comes in again is ours, whoever seems to send it.
#[test]
fn a_contact_that_points_back_at_us_ends_at_once() {
    for forwards in [None, Some(0)] {
        let mut subject = Subject::new();
        assert_eq!(subject.register("1002", "secret", OURS), 200);
        let dialled = |subject: &Subject, proof: &str| {
            let invite = subject.request(
                "INVITE",
                "1001",
                &format!("Contact: <sip:1001@{STRANGER}>\r\n{proof}"),
            );
            invite.replacen("sip:192.0.2.1", "sip:1002@192.0.2.1", 1)
        };
        let first = dialled(&subject, "");
        let challenged = subject.ask(&first, STRANGER);
        let proof = prove(&challenged, "1001", "secret", "INVITE", "sip:1002@192.0.2.1");
        let second =
            dialled(&subject, &proof).replace("CSeq: 1", "CSeq: 2").replace("z9hG4bK", "z9hG4bKx");
        let mut said = subject.tell(second.as_bytes(), STRANGER);
        let mut statuses = vec![];
        for _ in 0..20 {
            let Some((flow, bytes)) = said.pop() else { break };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if flow.remote.to_string() == OURS {
                // Over the wire, and in again.
                let text = forwards.map_or(text.clone(), |hops| {
                    text.replace("Max-Forwards: 69", &format!("Max-Forwards: {hops}"))
                });
                said.extend(subject.tell(text.as_bytes(), OURS));
            }
            statuses.extend(text.strip_prefix("SIP/2.0 ").map(|rest| rest[..3].to_owned()));
        }
        assert!(said.is_empty(), "it goes round");
        let want = if forwards.is_some() { "483" } else { "482" };
        // To ourselves, and from there to the caller.
        let told = statuses.iter().filter(|status| *status == want);
        assert_eq!(told.count(), 2, "{statuses:?}");
        assert!(subject.pass(Duration::from_secs(300)).len() < 60);
        assert!(subject.pbx.is_idle());
    }
}

/// Over a connection nobody's address is forged, and all is said.
#[test]
fn a_connection_hears_all_of_it() {
    let mut subject = Subject::new();
    let short = "OPTIONS sip:a SIP/2.0\r\nv:SIP/2.0/TCP h;branch=z9hG4bK1\r\nf:<sip:a@b>;tag=1\r\nt:<sip:a@b>\r\ni:x\r\n\
                 CSeq:1 OPTIONS\r\nl:0\r\n\r\n";
    let flow = tandem::ids::Flow {
        transport: Transport::Tcp,
        local: crate::subject::addr(OURS),
        remote: crate::subject::addr(STRANGER),
    };
    subject.pbx.receive(flow, short.into(), subject.now);
    let (_, answer) = subject.pbx.poll_transmit().expect("an answer");
    let answer = tandem::sip::Message::parse(answer).expect("an answer");
    assert!(
        answer.header(HeaderName::Allow).is_some() && answer.header(HeaderName::Server).is_some()
    );
    let said = subject.tell(short.as_bytes(), STRANGER);
    assert!(said.iter().all(|(_, answer)| answer.len() <= 2 * short.len()), "{said:?}");
}
