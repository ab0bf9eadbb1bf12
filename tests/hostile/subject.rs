//! The program, told one message after the other in virtual time, and what it says.

use bytes::Bytes;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tandem::{
    config::{self, Files},
    ids::{Flow, Transport},
    sim::{Node, Pbx, epoch, pbx::Setup},
    sip::{
        HeaderName, Message,
        digest::{self, Challenge},
    },
};

const CONFIG: &str = r#"
dialplan = ["rules.toml"]
[trunk.carrier]
uri = "carrier.example.com"
address = "192.0.2.20:5060"
caller_id = "+14155550100"
username = "carrier"
password = "the trunk's secret"
[user.1001]
password = "secret"
[user.1002]
password = "secret"
"#;
const RULES: &str = r#"
[[internal.rule]]
match = "600"
echo = true
[[internal.rule]]
match = "_1XXX"
dial = "user:{number}"
[[internal.rule]]
match = "_+."
dial = "trunk:carrier"
[[inbound.rule]]
match = "re:.*"
dial = "user:1001"
"#;

/// Somebody of whom nobody knows anything, and a phone's house.
pub(crate) const STRANGER: &str = "192.0.2.66:5060";
pub(crate) const HOME: &str = "198.51.100.7:5060";
pub(crate) const OURS: &str = "192.0.2.1:5060";
pub(crate) const PASSWORD: &str = "secret";

pub(crate) struct Subject {
    pub(crate) pbx: Pbx,
    pub(crate) now: Instant,
    pub(crate) serial: u32,
}

impl Subject {
    pub(crate) fn new() -> Self {
        Self::with("")
    }

    /// With further sections in its configuration.
    pub(crate) fn with(sections: &str) -> Self {
        let config = format!("{CONFIG}{sections}");
        let files = Files::default().with("pbx.toml", &config).with("rules.toml", RULES);
        let checked = config::check("pbx.toml", &files);
        let config = checked.config.unwrap_or_else(|| panic!("{}", checked.report));
        let now = epoch();
        let setup = Setup {
            config: Arc::new(config),
            local: addr(OURS),
            public: None,
            hosts: [("carrier.example.com".into(), vec![addr("192.0.2.20:5060")])].into(),
            prompts: [].into(),
            seed: 1,
        };
        let mut subject = Self { pbx: Pbx::new(setup, now), now, serial: 0 };
        // The first OPTIONS to the trunk.
        subject.pass(Duration::from_millis(100));
        subject
    }

    /// Gives it bytes; returns what it says at once, and to whom.
    pub(crate) fn tell(&mut self, bytes: &[u8], from: &str) -> Vec<(Flow, Bytes)> {
        let flow = Flow { transport: Transport::Udp, local: addr(OURS), remote: addr(from) };
        self.pbx.receive(flow, Bytes::copy_from_slice(bytes), self.now);
        self.said()
    }

    /// Lets time pass; returns what it says meanwhile.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<(Flow, Bytes)> {
        let (end, mut said) = (self.now + time, vec![]);
        while let Some(due) = self.pbx.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.pbx.handle_timeout(self.now);
            said.extend(self.said());
        }
        self.now = end;
        said
    }

    fn said(&mut self) -> Vec<(Flow, Bytes)> {
        std::iter::from_fn(|| self.pbx.poll_transmit()).collect()
    }

    /// Asks, and returns the one answer.
    pub(crate) fn ask(&mut self, request: &str, from: &str) -> Message {
        let said = self.tell(request.as_bytes(), from);
        let [(_, answer)] = &said[..] else { panic!("{said:?} to {request}") };
        Message::parse(answer.clone()).expect("an answer")
    }

    /// Registers a phone, which listens where it sends from; with a password that may be wrong. Returns what
    /// comes of it.
    pub(crate) fn register(&mut self, user: &str, password: &str, from: &str) -> u16 {
        let contact = format!("Contact: <sip:{user}@{from}>\r\n");
        let challenged = self.ask(&self.request("REGISTER", user, &contact), from);
        self.serial += 1;
        if challenged.status() != 401 {
            return challenged.status();
        }
        let proof = prove(&challenged, user, password, "REGISTER", "sip:192.0.2.1");
        let status = self.ask(&self.request("REGISTER", user, &(contact + &proof)), from).status();
        self.serial += 1;
        status
    }

    /// Writes a request of `user` to the program itself.
    pub(crate) fn request(&self, method: &str, user: &str, headers: &str) -> String {
        let serial = self.serial;
        format!(
            "{method} sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.66;branch=z9hG4bK{serial};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@192.0.2.1>;tag={serial}\r\n\
             To: <sip:{user}@192.0.2.1>\r\nCall-ID: {user}-{serial}\r\nCSeq: 1 {method}\r\n\
             {headers}Content-Length: 0\r\n\r\n"
        )
    }

    /// Returns how many proofs had this result.
    pub(crate) fn proofs(&mut self, result: &str) -> u64 {
        let counters = self.pbx.with_shard(self.now, |shard, _| shard.counters());
        counters.authentications.of(result)
    }
}

/// Answers the last challenge, which is MD5's.
pub(crate) fn prove(
    challenged: &Message,
    user: &str,
    password: &str,
    method: &str,
    uri: &str,
) -> String {
    let lines = challenged.lines().filter(|line| line.id() == HeaderName::WwwAuthenticate);
    let value = lines.last().expect("a challenge").value();
    let challenge = Challenge::parse(&value, false).expect("digest");
    let proof = digest::respond(&challenge, user, password, method, uri, 1, "0a4f113b");
    format!("Authorization: {proof}\r\n")
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
