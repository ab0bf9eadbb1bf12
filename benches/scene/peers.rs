//! Everybody around the shard while a scene is recorded: a trunk that calls, one that is called, phones.
//!
//! Owns: what they say, and the recording.
//! Never: part of what is measured.

use super::{CALLER, CARRIER, Input, Kind, PBX, PHONE, Script, password, user_name};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tandem::{
    call::Ask,
    ids::{Flow, Transport},
    locate::Located,
    media::{Command, Event},
    shard::{Answer, Output, Shard},
    sip::{
        Builder, HeaderName, Message, Method, default_reason,
        digest::{self, Challenge},
    },
};

/// The first RTP port that is given out.
const FIRST_PORT: u16 = 10_000;

/// A call that is up.
pub(super) struct Call {
    from: &'static str,
    ok: Message,
}

/// Everybody around the shard.
pub(super) struct Peers {
    shard: Shard,
    now: Instant,
    script: Script,
    serial: u32,
    port: u16,
    /// What the shard has said to the side that calls and to phones.
    heard: VecDeque<Message>,
}

impl Peers {
    pub(super) fn new(shard: Shard, now: Instant) -> Self {
        let (script, heard) = (vec![], VecDeque::new());
        let mut peers = Self { shard, now, script, serial: 0, port: FIRST_PORT, heard };
        // The shard asks where its trunks are.
        peers.tell(Input::Timeout);
        peers
    }

    pub(super) fn take_script(&mut self) -> Script {
        std::mem::take(&mut self.script)
    }

    /// Lets time pass, and fires what falls due.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.shard.poll_timeout().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            self.tell(Input::Timeout);
        }
        self.now = until;
    }

    /// Makes a call; it is up when this returns.
    pub(super) fn set_up(&mut self, kind: Kind) -> Call {
        self.serial += 1;
        let from = if kind == Kind::Phone { PHONE } else { CALLER };
        self.say(from, self.invite(kind, 1, None));
        if kind == Kind::Phone {
            let refused = self.final_answer();
            assert_eq!(refused.status(), 401, "a phone is challenged");
            self.say(from, self.ack(&refused, from));
            let number = format!("sip:+14155550142@{PBX}");
            let proof = self.proof(&refused, Method::Invite, &number);
            self.say(from, self.invite(kind, 2, Some(&proof)));
        }
        let ok = self.final_answer();
        assert_eq!(ok.status(), 200, "{}", String::from_utf8_lossy(ok.bytes()));
        self.say(from, self.ack(&ok, from));
        Call { from, ok }
    }

    /// Ends a call from the side that made it.
    pub(super) fn hang_up(&mut self, call: Call) {
        let Call { from, ok } = call;
        let mut bye = self.request(Method::Bye, &contact(&ok), from);
        bye.copy(&ok, HeaderName::From)
            .copy(&ok, HeaderName::To)
            .copy(&ok, HeaderName::CallId)
            .header(HeaderName::CSeq, "3 BYE");
        self.say(from, bye.finish());
        assert_eq!(self.final_answer().status(), 200);
    }

    /// Registers the next user.
    pub(super) fn register(&mut self) {
        self.serial += 1;
        self.say(PHONE, self.registration(1, None));
        let refused = self.final_answer();
        assert_eq!(refused.status(), 401);
        let proof = self.proof(&refused, Method::Register, "sip:pbx.example.com");
        self.say(PHONE, self.registration(2, Some(&proof)));
        assert_eq!(self.final_answer().status(), 200);
    }

    /// Returns what the caller or phone has heard, less what is provisional.
    fn final_answer(&mut self) -> Message {
        while let Some(message) = self.heard.pop_front() {
            if message.status() >= 200 {
                return message;
            }
        }
        panic!("no answer");
    }

    fn say(&mut self, from: &str, bytes: Bytes) {
        self.tell(Input::Message(flow(from), bytes));
    }

    /// Tells the shard, and lets everybody react.
    fn tell(&mut self, input: Input) {
        self.script.push((self.now, input.clone()));
        match input {
            Input::Message(flow, bytes) => self.shard.handle_message(flow, bytes, self.now),
            Input::Media(event) => self.shard.handle_media(event, self.now),
            Input::Answer(answer) => self.shard.handle_answer(answer, self.now),
            Input::Timeout => self.shard.handle_timeout(self.now),
        }
        self.listen();
    }

    fn listen(&mut self) {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.shard.poll_output()).collect();
        for output in outputs {
            match output {
                Output::Transmit { flow, bytes } => {
                    let message = Message::parse(bytes).unwrap();
                    if flow.remote == address(CARRIER) {
                        self.answer(&message);
                    } else if message.is_request() {
                        self.say(CALLER, reply(&message, 200).finish());
                    } else {
                        self.heard.push_back(message);
                    }
                }
                Output::Pass { .. } => {
                    unreachable!("there is no other process")
                }
                Output::Media(_, Command::Open { leg, .. }) => {
                    self.port = self.port.checked_add(2).unwrap_or(FIRST_PORT);
                    self.tell(Input::Media(Event::Opened { leg, port: self.port }));
                }
                Output::Media(_, Command::Close { leg }) => {
                    let quality = Box::default();
                    self.tell(Input::Media(Event::Closed { leg, quality }));
                }
                Output::Ask(Ask::Resolve { token, host, .. }) => {
                    let remote = SocketAddr::new(host.parse().unwrap(), 5060);
                    let flow = Flow { transport: Transport::Udp, local: address(PBX), remote };
                    let located = Located::alike(vec![flow], None);
                    self.tell(Input::Answer(Answer::Resolved { token, located }));
                }
                Output::Media(..) | Output::Ask(Ask::Prompt { .. }) | Output::Record(_) => {}
            }
        }
    }

    /// The side that is called rings and picks up at once.
    fn answer(&mut self, request: &Message) {
        if request.method() == Method::Invite {
            self.say(CARRIER, reply(request, 180).finish());
            let ok = reply(request, 200);
            self.say(CARRIER, ok.body("application/sdp", sdp(CARRIER).as_bytes()));
        } else if request.method() == Method::Bye {
            self.say(CARRIER, reply(request, 200).finish());
        }
    }

    fn request(&self, method: Method, uri: &str, from: &str) -> Builder {
        let serial = self.serial;
        let mut builder = Builder::request(method.as_str(), uri);
        let branch = format_args!("SIP/2.0/UDP {from};rport;branch=z9hG4bK{serial:08x}{method}");
        builder.header(HeaderName::Via, branch).header(HeaderName::MaxForwards, 70);
        builder
    }

    fn invite(&self, kind: Kind, cseq: u32, proof: Option<&str>) -> Bytes {
        let (serial, remote) = (self.serial, if kind == Kind::Phone { PHONE } else { CALLER });
        let mut invite = Builder::request("INVITE", &format!("sip:+14155550142@{PBX}"));
        let user = match kind {
            Kind::Phone => user_name(serial as usize),
            Kind::Trunk | Kind::Register => "+442071838750".to_owned(),
        };
        invite
            .header(
                HeaderName::Via,
                format_args!("SIP/2.0/UDP {remote};rport;branch=z9hG4bK{serial:08x}{cseq}"),
            )
            .header(HeaderName::MaxForwards, 70)
            .header(
                HeaderName::From,
                format_args!("\"A caller\" <sip:{user}@{remote}>;tag={serial:08x}"),
            )
            .header(HeaderName::To, format_args!("<sip:+14155550142@{PBX}>"))
            .header(HeaderName::CallId, format_args!("{serial:08x}-9f3c-4c0a-b7d2-c7@{remote}"))
            .header(HeaderName::CSeq, format_args!("{cseq} INVITE"))
            .header(HeaderName::Contact, format_args!("<sip:{user}@{remote};transport=udp>"))
            .header(HeaderName::Allow, "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, NOTIFY")
            .header(HeaderName::Supported, "timer, replaces, norefersub")
            .header(HeaderName::SessionExpires, "1800")
            .header(HeaderName::MinSe, "90")
            .header(HeaderName::UserAgent, "Bench 1.0 (of a usual length)")
            .raw_header("X-Account", b"0123456789abcdef");
        if let Some(proof) = proof {
            invite.header(HeaderName::Authorization, proof);
        }
        invite.body("application/sdp", sdp(remote).as_bytes())
    }

    fn ack(&self, answer: &Message, from: &str) -> Bytes {
        let is_ok = answer.status() == 200;
        let uri = if is_ok { contact(answer) } else { format!("sip:+14155550142@{PBX}") };
        let mut ack = Builder::request("ACK", &uri);
        let branch = if is_ok {
            format!("z9hG4bK{:08x}ack", self.serial)
        } else {
            answer.branch().to_owned()
        };
        ack.header(HeaderName::Via, format_args!("SIP/2.0/UDP {from};rport;branch={branch}"))
            .header(HeaderName::MaxForwards, 70)
            .copy(answer, HeaderName::From)
            .copy(answer, HeaderName::To)
            .copy(answer, HeaderName::CallId)
            .header(HeaderName::CSeq, format_args!("{} ACK", answer.cseq().number));
        ack.finish()
    }

    fn registration(&self, cseq: u32, proof: Option<&str>) -> Bytes {
        let (serial, user) = (self.serial, user_name(self.serial as usize));
        let mut register = Builder::request("REGISTER", "sip:pbx.example.com");
        register
            .header(
                HeaderName::Via,
                format_args!("SIP/2.0/UDP {PHONE};rport;branch=z9hG4bK{serial:08x}{cseq}"),
            )
            .header(HeaderName::MaxForwards, 70)
            .header(HeaderName::From, format_args!("<sip:{user}@pbx.example.com>;tag={serial:08x}"))
            .header(HeaderName::To, format_args!("<sip:{user}@pbx.example.com>"))
            .header(HeaderName::CallId, format_args!("{serial:08x}-7a1e@{PHONE}"))
            .header(HeaderName::CSeq, format_args!("{cseq} REGISTER"))
            .header(HeaderName::Contact, format_args!("<sip:{user}@{PHONE};transport=udp>"))
            .header(HeaderName::Expires, 600)
            .header(HeaderName::Supported, "path, gruu")
            .header(HeaderName::UserAgent, "Bench 1.0 (of a usual length)");
        if let Some(proof) = proof {
            register.header(HeaderName::Authorization, proof);
        }
        register.finish()
    }

    fn proof(&self, refused: &Message, method: Method, uri: &str) -> String {
        let user = self.serial as usize;
        let challenges: Vec<Challenge> = refused.challenges();
        let (name, password) = (user_name(user), password(user));
        let cnonce = "0a4f113b5c0ffee0";
        digest::respond(&challenges[0], &name, &password, method.as_str(), uri, 1, cnonce)
    }
}

fn reply(request: &Message, status: u16) -> Builder {
    let from = address(PBX);
    let mut reply =
        Builder::reply(request, status, default_reason(status), Some("c4rr1er-tag-0001"), from);
    reply
        .header(HeaderName::Contact, format_args!("<sip:edge@{CARRIER}>"))
        .header(HeaderName::Server, "A carrier of the usual kind")
        .header(HeaderName::Allow, "INVITE, ACK, CANCEL, BYE, OPTIONS");
    reply
}

fn sdp(remote: &str) -> String {
    let ip = address(remote).ip();
    format!(
        "v=0\r\no=- 3906518 3906518 IN IP4 {ip}\r\ns=call\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio 40000 RTP/AVP 0 8 9 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:9 G722/8000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
         a=ptime:20\r\na=sendrecv\r\n"
    )
}

fn contact(message: &Message) -> String {
    message.routes(HeaderName::Contact)[0].uri.to_owned()
}

fn flow(remote: &str) -> Flow {
    Flow { transport: Transport::Udp, local: address(PBX), remote: address(remote) }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
