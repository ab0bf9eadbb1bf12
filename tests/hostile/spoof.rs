//! A phone that knows its password and says that it is somebody else: nobody hears of it.

use crate::subject::{HOME, PASSWORD, STRANGER, Subject, prove};
use std::time::Duration;
use tandem::sip::{HeaderName, Message, Method};

/// Whom it would like to be.
const SPOOFED: &str = "9005550100";
/// The trunk's number, and where its edge is.
const OWN: &str = "+14155550100";
const CARRIER: &str = "192.0.2.20:5060";

/// Every header that names a caller (RFC 3325, RFC 3323, RFC 5806, RFC 8224, RFC 7044, RFC 4916).
const CLAIMS: &str = "P-Asserted-Identity: \"Bank\" <sip:+19005550100@192.0.2.1>, <tel:+19005550100>\r\n\
    P-Preferred-Identity: \"Bank\" <sip:+19005550100@192.0.2.1>\r\n\
    Remote-Party-ID: \"Bank\" <sip:+19005550100@192.0.2.1>;party=calling;screen=yes;privacy=off\r\n\
    Diversion: \"Bank\" <sip:+19005550100@192.0.2.1>;reason=unconditional\r\n\
    History-Info: <sip:+19005550100@192.0.2.1>;index=1\r\n\
    Referred-By: <sip:+19005550100@192.0.2.1>\r\n\
    P-Charge-Info: <sip:+19005550100@192.0.2.1>\r\n\
    X-Twilio-VerStat: TN-Validation-Passed-A +19005550100\r\n\
    Identity: 9005550100;info=<https://bank.example/9005550100>\r\n\
    Reply-To: <sip:+19005550100@192.0.2.1>\r\n\
    Organization: Bank\r\n";

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.66\r\ns=-\r\nc=IN IP4 192.0.2.66\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";

/// Writes an INVITE of 1001's with a display name and further headers.
fn invite(subject: &Subject, uri: &str, display: &str, headers: &str) -> String {
    let headers =
        format!("Contact: <sip:1001@{STRANGER}>\r\nContent-Type: application/sdp\r\n{headers}");
    let text = subject.request("INVITE", "1001", &headers).replacen("sip:192.0.2.1", uri, 1);
    let text = text.replace("From: <", &format!("From: {display} <"));
    let len = format!("Content-Length: {}\r\n\r\n{SDP}", SDP.len());
    text.replace("Content-Length: 0\r\n\r\n", &len)
}

/// Calls a number as 1001; returns everything that is said to others.
fn call(subject: &mut Subject, number: &str, display: &str, claims: &str) -> Vec<Message> {
    let uri = format!("sip:{number}@192.0.2.1");
    let challenged = subject.ask(&invite(subject, &uri, display, claims), STRANGER);
    let proof = prove(&challenged, "1001", PASSWORD, "INVITE", &uri);
    let proven = invite(subject, &uri, display, &format!("{claims}{proof}"));
    let proven = proven.replace("CSeq: 1", "CSeq: 2").replace("z9hG4bK", "z9hG4bKx");
    let mut said = subject.tell(proven.as_bytes(), STRANGER);
    said.extend(subject.pass(Duration::from_millis(500)));
    let to_others = said.into_iter().filter(|(flow, _)| flow.remote.to_string() != STRANGER);
    to_others.map(|(_, bytes)| Message::parse(bytes).expect("ours")).collect()
}

fn assert_unspoofed(said: &[Message]) {
    for message in said {
        let text = String::from_utf8_lossy(message.bytes()).into_owned();
        assert!(!text.contains(SPOOFED), "{text}");
    }
}

fn the_invite(said: &[Message]) -> &Message {
    let mut invites = said.iter().filter(|m| m.is_request() && m.method() == Method::Invite);
    invites.next().expect("somebody is called")
}

fn lines(message: &Message, name: HeaderName) -> Vec<String> {
    let lines = message.lines().filter(|line| line.id() == name);
    lines.map(|line| String::from_utf8_lossy(&line.value()).into_owned()).collect()
}

#[test]
fn another_phone_sees_who_calls() {
    for display in ["", "\"+1 900 555-0100\"", "\"+19005550100\"", "\"\u{202e}0010555009\""] {
        let mut subject = Subject::new();
        assert_eq!(subject.register("1002", PASSWORD, HOME), 200);
        let said = call(&mut subject, "1002", display, CLAIMS);
        assert_unspoofed(&said);
        let invite = the_invite(&said);
        assert_eq!(invite.from().parsed_uri().expect("a URI").user, Some("1001"));
        assert_eq!(invite.from().display_str(), None, "{display}");
        for name in [HeaderName::PAssertedIdentity, HeaderName::Diversion, HeaderName::Privacy] {
            assert_eq!(lines(invite, name), [""; 0]);
        }
    }
}

#[test]
fn the_carrier_sees_our_number() {
    for (privacy, private) in [("", false), ("Privacy: id\r\n", true), ("Privacy: none\r\n", false)]
    {
        let mut subject = Subject::new();
        let claims = format!("{CLAIMS}{privacy}");
        let said = call(&mut subject, "+14155550199", "\"+19005550100\"", &claims);
        assert_unspoofed(&said);
        let invite = the_invite(&said);
        // Who wants privacy is nobody.
        let from = if private { "anonymous.invalid" } else { OWN };
        assert!(invite.from().uri.contains(from), "{}", invite.from().uri);
        let [asserted] = &lines(invite, HeaderName::PAssertedIdentity)[..] else { panic!() };
        assert!(asserted.contains(OWN), "{asserted}");
        assert_eq!(lines(invite, HeaderName::Privacy).len(), usize::from(private), "{privacy}");
        assert_eq!(lines(invite, HeaderName::Diversion), [""; 0]);
    }
}

/// Who is called, says who it is, or sends the caller on: neither reaches anybody.
#[test]
fn who_is_called_cannot_be_another_either() {
    for status in ["180 Ringing", "183 Session Progress", "200 OK", "302 Moved", "486 Busy Here"] {
        let mut subject = Subject::new();
        assert_eq!(subject.register("1002", PASSWORD, HOME), 200);
        let said = call(&mut subject, "1002", "", "");
        let copied = the_invite(&said).lines().filter(|line| {
            [HeaderName::Via, HeaderName::From, HeaderName::CallId, HeaderName::CSeq]
                .contains(&line.id())
        });
        let copied: String =
            copied.map(|line| format!("{}\r\n", String::from_utf8_lossy(line.line()))).collect();
        let contact = match status {
            "302 Moved" => {
                "<sip:1002@198.51.100.7:5060?P-Asserted-Identity=%3Csip%3A%2B19005550100%40x%3E>"
            }
            _ => "\"+19005550100\" <sip:+19005550100@198.51.100.7:5060>",
        };
        let answer = format!(
            "SIP/2.0 {status}\r\n{copied}To: \"+19005550100\" <sip:1002@192.0.2.1>;tag=callee\r\n\
             Contact: {contact}\r\n{CLAIMS}Content-Type: application/sdp\r\n\
             Content-Length: {}\r\n\r\n{SDP}",
            SDP.len()
        );
        let mut said = subject.tell(answer.as_bytes(), HOME);
        said.extend(subject.pass(Duration::from_millis(500)));
        assert!(!said.is_empty(), "{status}");
        // Its own Contact comes back to itself, as the Request-URI of what it is sent.
        let to_others = said.into_iter().filter(|(flow, bytes)| {
            flow.remote.to_string() != HOME || bytes.starts_with(b"INVITE ")
        });
        let said: Vec<_> =
            to_others.map(|(_, bytes)| Message::parse(bytes).expect("ours")).collect();
        assert_unspoofed(&said);
    }
}

/// A carrier's address is at the other end of every call by it: nothing else was told to it.
#[test]
fn a_call_that_claims_to_be_another_does_not_leave() {
    let mut subject = Subject::new();
    let uri = "sip:+14155550199@192.0.2.1";
    let claim = |text: String| text.replace("From: <sip:1001@", "From: <sip:+19005550100@");
    let challenged =
        subject.ask(&claim(invite(&subject, uri, "", "")).replace("From:  <", "From: <"), STRANGER);
    let proof = prove(&challenged, "1001", PASSWORD, "INVITE", uri);
    let proven = claim(invite(&subject, uri, "", &proof).replace("From:  <", "From: <"));
    let proven = proven.replace("CSeq: 1", "CSeq: 2").replace("z9hG4bK", "z9hG4bKx");
    assert!(proven.contains("From: <sip:+19005550100@"), "{proven}");
    let mut said = subject.tell(proven.as_bytes(), STRANGER);
    said.extend(subject.pass(Duration::from_secs(1)));
    assert!(said.iter().all(|(flow, _)| flow.remote.to_string() != CARRIER), "{said:?}");
    assert!(said.iter().any(|(_, bytes)| bytes.starts_with(b"SIP/2.0 403 ")), "{said:?}");
}

/// As many calls as a user may have that nobody answers, and one more; emergency calls are another matter.
#[test]
fn who_knows_a_password_has_not_all_the_room_there_is() {
    let mut subject = Subject::with("[sip]\nmax_ringing = 3\n");
    assert_eq!(subject.register("1002", PASSWORD, HOME), 200);
    let mut invites = vec![];
    for n in 0..5 {
        subject.serial += 1;
        let said = call(&mut subject, "1002", "", "");
        invites.extend(said.into_iter().filter(|m| m.is_request() && m.method() == Method::Invite));
        let most = (n + 1).min(3);
        let calls: std::collections::BTreeSet<_> = invites.iter().map(|m| m.call_id()).collect();
        assert_eq!(calls.len(), most, "after {}", n + 1);
    }
    subject.serial += 1;
    let help = call(&mut subject, "911", "", "");
    assert_eq!(the_invite(&help).method(), Method::Invite);
    // The call for help counts as well. Two are refused by who is called: there is room for one again.
    let first = invites[0].call_id().to_owned();
    let other = invites.iter().find(|invite| invite.call_id() != first).expect("three calls");
    for invite in [&invites[0], other] {
        subject.tell(busy(invite).as_bytes(), HOME);
    }
    subject.pass(Duration::from_millis(100));
    subject.serial += 1;
    let said = call(&mut subject, "1002", "", "");
    assert!(said.iter().any(|m| m.is_request() && m.method() == Method::Invite), "{said:?}");
}

fn busy(invite: &Message) -> String {
    let copied = invite.lines().filter(|line| {
        [HeaderName::Via, HeaderName::From, HeaderName::CallId, HeaderName::CSeq]
            .contains(&line.id())
    });
    let copied: String =
        copied.map(|line| format!("{}\r\n", String::from_utf8_lossy(line.line()))).collect();
    format!(
        "SIP/2.0 486 Busy Here\r\n{copied}To: <sip:1002@192.0.2.1>;tag=callee\r\n\
         Content-Length: 0\r\n\r\n"
    )
}
