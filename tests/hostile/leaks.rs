//! A callee that asks for a password: it gets none, neither ours at the carrier nor any other.

use crate::subject::{HOME, PASSWORD, STRANGER, Subject, prove};
use std::time::Duration;
use tandem::sip::{HeaderName, Message, Method};

#[test]
fn a_phone_that_challenges_is_given_no_answer() {
    for (status, header) in [
        ("401 Unauthorized", "WWW-Authenticate"),
        ("407 Proxy Authentication Required", "Proxy-Authenticate"),
    ] {
        for realm in ["tandem", "carrier.example.com"] {
            let mut subject = Subject::new();
            assert_eq!(subject.register("1002", PASSWORD, HOME), 200);
            let invite = call(&mut subject, "1002");
            let challenge =
                format!("{header}: Digest realm=\"{realm}\", nonce=\"n\", qop=\"auth\"\r\n");
            let mut said = subject.tell(&refusal(&invite, status, &challenge), HOME);
            said.extend(subject.pass(Duration::from_secs(120)));
            let said: Vec<_> = said
                .iter()
                .map(|(flow, bytes)| (*flow, Message::parse(bytes.clone()).expect("ours")))
                .collect();
            for (_, message) in &said {
                for name in [HeaderName::Authorization, HeaderName::ProxyAuthorization] {
                    assert_eq!(message.header(name), None, "{message:?}");
                }
            }
            let again = said.iter().filter(|(flow, message)| {
                flow.remote.to_string() == HOME
                    && message.method() == Method::Invite
                    && message.is_request()
            });
            assert_eq!(again.count(), 0, "it is not asked again");
            let told = said.iter().filter(|(flow, message)| {
                flow.remote.to_string() == STRANGER && message.status() >= 300
            });
            for (_, message) in told {
                assert_eq!(message.header(HeaderName::WwwAuthenticate), None, "nor is the caller");
                assert_eq!(
                    message.header(HeaderName::ProxyAuthenticate),
                    None,
                    "nor is the caller"
                );
            }
        }
    }
}

/// Calls a number as 1001; returns the INVITE that the callee gets.
fn call(subject: &mut Subject, number: &str) -> Message {
    let uri = format!("sip:{number}@192.0.2.1");
    let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.66\r\ns=-\r\nc=IN IP4 192.0.2.66\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let write = |subject: &Subject, proof: &str| {
        let headers =
            format!("Contact: <sip:1001@{STRANGER}>\r\nContent-Type: application/sdp\r\n{proof}");
        let text = subject.request("INVITE", "1001", &headers).replacen("sip:192.0.2.1", &uri, 1);
        text.replace(
            "Content-Length: 0\r\n\r\n",
            &format!("Content-Length: {}\r\n\r\n{sdp}", sdp.len()),
        )
    };
    let challenged = subject.ask(&write(subject, ""), STRANGER);
    let proof = prove(&challenged, "1001", PASSWORD, "INVITE", &uri);
    let invite =
        write(subject, &proof).replace("CSeq: 1", "CSeq: 2").replace("z9hG4bK", "z9hG4bKx");
    let mut said = subject.tell(invite.as_bytes(), STRANGER);
    said.extend(subject.pass(Duration::from_millis(100)));
    let of_ours = said.into_iter().filter_map(|(_, bytes)| Message::parse(bytes).ok());
    let mut invites = of_ours.filter(|m| m.is_request() && m.method() == Method::Invite);
    invites.next().expect("the callee is called")
}

fn refusal(invite: &Message, status: &str, headers: &str) -> Vec<u8> {
    let copied = invite.lines().filter(|line| {
        [HeaderName::Via, HeaderName::From, HeaderName::CallId, HeaderName::CSeq]
            .contains(&line.id())
    });
    let copied: String =
        copied.map(|line| format!("{}\r\n", String::from_utf8_lossy(line.line()))).collect();
    let to = String::from_utf8_lossy(invite.to().uri.as_bytes()).into_owned();
    format!(
        "SIP/2.0 {status}\r\n{copied}To: <{to}>;tag=callee\r\n{headers}Content-Length: 0\r\n\r\n"
    )
    .into_bytes()
}
