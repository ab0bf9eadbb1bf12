//! A scripted client: it says what it is told, right or wrong.

use super::super::*;
use crate::{
    sim::{Network as Weather, World},
    sip::Builder,
};

pub(super) const TRUNK: &str = "54.172.60.0:5060";
pub(super) const TRUNK_TLS: &str = "54.172.60.0:5061";
pub(super) const CLIENT: &str = "203.0.113.1:5060";
/// Another port of the same client: a connection that it opens anew.
pub(super) const CLIENT_AGAIN: &str = "203.0.113.1:40000";
/// A second client, for calls from the PSTN.
pub(super) const OTHER: &str = "203.0.113.2:5060";
pub(super) const HOST: &str = "acme.pstn.twilio.com";
pub(super) const OWN: &str = "+17756187988";
pub(super) const TARGET: &str = "sip:+14155550199@172.25.75.240:5060;transport=udp";
pub(super) const NEAR: &str = "Route: <sip:54.172.60.0;r2=on;lr>\r\n";
pub(super) const FAR: &str = "Route: <sip:54.172.60.0:5061;transport=tls;r2=on;lr>\r\n";

type Script = Box<dyn Fn(&Message, Flow) -> Vec<Bytes>>;

/// Says what it is told, answers as its script says, and keeps what it hears.
#[derive(Default)]
pub(super) struct Client {
    pub(super) outbox: VecDeque<(Flow, Bytes)>,
    pub(super) heard: Vec<Message>,
    pub(super) closed: Vec<Flow>,
    pub(super) script: Option<Script>,
}

impl Node for Client {
    fn receive(&mut self, flow: Flow, bytes: Bytes, _: Instant) {
        let message = Message::parse(bytes).unwrap();
        if let Some(script) = &self.script {
            self.outbox.extend(script(&message, flow).into_iter().map(|bytes| (flow, bytes)));
        }
        self.heard.push(message);
    }
    fn closed(&mut self, flow: Flow, _: Instant) {
        self.closed.push(flow);
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
pub(super) struct Said {
    pub(super) uri: String,
    pub(super) from: String,
    pub(super) contact: String,
    pub(super) hops: u32,
    pub(super) cseq: u32,
    pub(super) extra: String,
    pub(super) at: String,
    pub(super) audio: String,
}

impl Said {
    pub(super) fn good() -> Self {
        Self {
            uri: format!("sip:+14155550199@{HOST}"),
            from: format!("sip:{OWN}@{HOST}"),
            contact: format!("sip:us@{CLIENT}"),
            hops: 70,
            cseq: 1,
            extra: String::new(),
            at: "IN IP4 203.0.113.1".into(),
            audio: "m=audio 4000 RTP/AVP 0 101".into(),
        }
    }

    pub(super) fn to(number: &str) -> Self {
        Self { uri: format!("sip:{number}@{HOST}"), ..Self::good() }
    }

    pub(super) fn bytes(&self) -> Bytes {
        let Self { uri, from, contact, hops, cseq, extra, at, audio } = self;
        let sdp = format!("v=0\r\no=- 1 1 {at}\r\ns=-\r\nc={at}\r\nt=0 0\r\n{audio}\r\n");
        let len = sdp.len();
        Bytes::from(format!(
            "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CLIENT};branch=z9hG4bK{cseq}{hops};rport\r\n\
             Max-Forwards: {hops}\r\nFrom: <{from}>;tag=us\r\nTo: <{uri}>\r\nCall-ID: a\r\n\
             CSeq: {cseq} INVITE\r\nContact: <{contact}>\r\n{extra}\
             Content-Type: application/sdp\r\nContent-Length: {len}\r\n\r\n{sdp}"
        ))
    }
}

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn world(change: impl FnOnce(&mut Setup)) -> World {
    let mut setup = Setup::new(addr(TRUNK), HOST);
    setup.account.numbers = vec![OWN.into()];
    setup.media = Some("168.86.128.1".parse().unwrap());
    setup.timing = Timing { post_dial: Duration::from_millis(10), ring: Duration::from_secs(2) };
    change(&mut setup);
    let mut world = World::new(1, Weather::CLEAN);
    world.add("pbx", &[addr(CLIENT), addr(CLIENT_AGAIN)], Client::default());
    world.add("other", &[addr(OTHER)], Client::default());
    world.add("twilio", &setup.addresses(), Twilio::new(setup, 1));
    world
}

pub(super) fn way(transport: Transport) -> Flow {
    let remote = if transport == Transport::Tls { TRUNK_TLS } else { TRUNK };
    Flow { transport, local: addr(CLIENT), remote: addr(remote) }
}

pub(super) fn say(world: &mut World, bytes: Bytes) {
    say_over(world, way(Transport::Udp), bytes);
}

pub(super) fn say_over(world: &mut World, flow: Flow, bytes: Bytes) {
    world.with("pbx", |client: &mut Client, _| client.outbox.push_back((flow, bytes)));
    pass(world, 100);
}

pub(super) fn pass(world: &mut World, ms: u64) {
    let until = world.now_ms() + ms;
    world.run_until(until);
}

pub(super) fn with_client<R>(world: &mut World, act: impl FnOnce(&mut Client) -> R) -> R {
    world.with("pbx", |client: &mut Client, _| act(client)).unwrap()
}

pub(super) fn with_trunk<R>(world: &mut World, act: impl FnOnce(&mut Twilio, Instant) -> R) -> R {
    world.with("twilio", act).unwrap()
}

/// Returns the final status heard last, 0 for silence.
pub(super) fn status(world: &mut World) -> u16 {
    with_client(world, |client| {
        client.heard.iter().map(Message::status).rfind(|status| *status >= 200).unwrap_or(0)
    })
}

pub(super) fn rules(world: &mut World) -> Vec<Rule> {
    with_trunk(world, |twilio, _| twilio.deviations().iter().map(|d| d.rule).collect())
}

/// Forgets what the client has heard.
pub(super) fn forget(world: &mut World) {
    with_client(world, |client| client.heard.clear());
}

/// A call that is answered and acknowledged; returns the trunk's tag.
pub(super) fn up(world: &mut World, number: &str, flow: Flow) -> String {
    say_over(world, flow, Said::to(number).bytes());
    pass(world, 2000);
    assert_eq!((status(world), rules(world)), (200, vec![]));
    let tag = with_client(world, |client| {
        let answer = client.heard.iter().find(|message| message.status() == 200).unwrap();
        answer.to_tag().unwrap().to_owned()
    });
    let target = target(number);
    say_over(world, flow, inside("ACK", &target, &routes(flow), 1, &tag));
    forget(world);
    tag
}

/// The gateway's Contact in a call to a number.
pub(super) fn target(number: &str) -> String {
    format!("sip:{number}@172.25.75.240:5060;transport=udp")
}

/// The Routes of a call over a transport.
pub(super) fn routes(flow: Flow) -> String {
    match flow.transport {
        Transport::Udp => format!("{NEAR}{FAR}"),
        Transport::Tcp => {
            format!("Route: <sip:54.172.60.0;transport=tcp;r2=on;lr>\r\n{FAR}")
        }
        Transport::Tls => format!("{FAR}{NEAR}"),
    }
}

pub(super) fn inside(method: &str, uri: &str, routes: &str, cseq: u32, tag: &str) -> Bytes {
    inside_with(method, uri, &format!("{routes}Contact: <sip:us@{CLIENT}>\r\n"), cseq, tag)
}

/// A request inside the dialog with more header lines.
pub(super) fn inside_with(method: &str, uri: &str, lines: &str, cseq: u32, tag: &str) -> Bytes {
    let Said { uri: called, from, .. } = Said::good();
    Bytes::from(format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CLIENT};branch=z9hG4bKi{method}{cseq};rport\r\n\
         {lines}Max-Forwards: 70\r\nFrom: <{from}>;tag=us\r\nTo: <{called}>;tag={tag}\r\nCall-ID: a\r\n\
         CSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    ))
}

/// Gives a client its script for calls from the PSTN.
pub(super) fn script(
    world: &mut World,
    name: &str,
    script: impl Fn(&Message, Flow) -> Vec<Bytes> + 'static,
) {
    world.with(name, |client: &mut Client, _| client.script = Some(Box::new(script))).unwrap();
}

/// Answers any request with a status and nothing else.
pub(super) fn plain(request: &Message, flow: Flow, status: u16) -> Bytes {
    Builder::reply(request, status, "-", Some("them"), flow.remote).finish()
}

/// Answers an INVITE rightly, with sound in a 183 or 200.
pub(super) fn answer(invite: &Message, flow: Flow, status: u16) -> Bytes {
    let contact = format!("<sip:them@{}>", flow.local);
    answer_with(invite, flow, status, &contact, true)
}

pub(super) fn answer_with(
    invite: &Message,
    flow: Flow,
    status: u16,
    contact: &str,
    echoes: bool,
) -> Bytes {
    let mut reply = Builder::reply(invite, status, "-", Some("them"), flow.remote);
    if echoes {
        reply.copy(invite, HeaderName::RecordRoute);
    }
    reply.header(HeaderName::Contact, contact);
    let ip = flow.local.ip();
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\n"
    );
    if status == 180 { reply.finish() } else { reply.body("application/sdp", sdp.as_bytes()) }
}

/// The script of a client that takes calls: it rings, answers, and agrees to everything after.
pub(super) fn takes_calls(request: &Message, flow: Flow) -> Vec<Bytes> {
    match (request.is_request(), request.method()) {
        (true, Method::Invite) => {
            vec![answer(request, flow, 180), answer(request, flow, 200)]
        }
        (true, Method::Bye | Method::Cancel) => vec![plain(request, flow, 200)],
        (_, _) => vec![],
    }
}
