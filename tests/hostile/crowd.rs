//! More connections than there may be: those that lead to nobody make room, and phones keep theirs.

use crate::{
    node::{IS_SHIPPED, PATIENCE, Peer, Program, Waits, connect, options, probe_stream, within},
    subject::prove,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use tandem::sip::{
    Message, Method,
    framing::{Frame, Framer},
};

const PASSWORD: &str = "correct horse";
/// Nobody who connects waits longer until he is registered, or has an answer.
const SERVED_MAX: Duration = Duration::from_millis(100);
/// What a connection may take that says nothing any more, in KiB: a task, its buffers and its queue.
const CONNECTION_MAX_KIB: i64 = 8;
/// Phones that come when there is no place left: as many as a user may have.
const PHONES: usize = 5;
/// Files that the test itself has open beside its connections; other tests run in the same process.
const FILES_BESIDE: u64 = 1500;

/// A phone that has one connection.
struct Phone {
    user: &'static str,
    stream: TcpStream,
    framer: Framer,
    pbx: SocketAddr,
    serial: u32,
}

impl Phone {
    fn connect(user: &'static str, ip: [u8; 4], pbx: SocketAddr) -> Self {
        let stream = connect(ip, pbx).expect("room for a phone");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Self { user, stream, framer: Framer::default(), pbx, serial: 0 }
    }

    fn local(&self) -> SocketAddr {
        self.stream.local_addr().expect("bound")
    }

    /// Sends a request, and again with the proof that is asked for. Returns the last answer.
    fn ask(&mut self, method: &str, uri: &str, lines: &str) -> Message {
        self.send(method, uri, lines);
        let challenged = self.answer();
        assert_eq!(challenged.status(), 401, "{challenged:?}");
        let proof = prove(&challenged, self.user, PASSWORD, method, uri);
        self.send(method, uri, &format!("{lines}{proof}"));
        self.answer()
    }

    fn send(&mut self, method: &str, uri: &str, lines: &str) {
        self.serial += 1;
        let (serial, local, user, pbx) = (self.serial, self.local(), self.user, self.pbx);
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/TCP {local};branch=z9hG4bK{user}{serial}\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@{pbx}>;tag=1\r\nTo: <{uri}>\r\nCall-ID: {user}-{method}@{local}\r\n\
             CSeq: {serial} {method}\r\nContact: <sip:{user}@{local};transport=tcp>\r\n{lines}Content-Length: 0\r\n\r\n"
        );
        self.stream.write_all(text.as_bytes()).expect("the connection stands");
    }

    fn message(&mut self) -> Message {
        let mut buffer = [0; 4096];
        loop {
            while let Some(frame) = self.framer.next() {
                if let Frame::Message(bytes) = frame {
                    return Message::parse(bytes).expect("a message");
                }
            }
            let len = self.stream.read(&mut buffer).expect("something to read");
            assert!(len > 0, "the connection of {} is closed", self.user);
            self.framer.push(&buffer[..len]);
        }
    }

    /// The next final answer, or that the phone rings.
    fn answer(&mut self) -> Message {
        loop {
            let message = self.message();
            if !message.is_request() && message.status() != 100 {
                return message;
            }
        }
    }

    fn register(&mut self) -> u16 {
        let uri = format!("sip:{}@{}", self.user, self.pbx);
        self.ask("REGISTER", &uri, "Expires: 3600\r\n").status()
    }
}

/// Four attackers take every place there is with connections that ask once, as many as there may be. A phone that
/// was there before keeps its connection and is called over it; another one comes, and is registered at once.
#[test]
#[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
fn who_proves_nothing_makes_room_for_phones() {
    let max = if IS_SHIPPED { 4096 } else { 400 };
    let second = format!("[user.1002]\npassword = \"{PASSWORD}\"\n");
    let mut program = Program::start_as(&format!("max_connections = {max}"), &second);
    // Behind the address of one of them.
    let mut first = Phone::connect("1001", [127, 0, 7, 1], program.tcp);
    assert_eq!(first.register(), 200);
    let mut crowd = vec![];
    for attacker in 0..4 {
        for serial in 0..max / 4 {
            let mut stream = connect([127, 0, 7, 1 + attacker], program.tcp).expect("a connection");
            probe_stream(&mut stream, serial).expect("an answer");
            crowd.push(stream);
        }
    }
    let (mut waits, mut others) = (Waits::default(), vec![]);
    for _ in 0..PHONES {
        let began = Instant::now();
        let mut phone = Phone::connect("1002", [127, 0, 2, 5], program.tcp);
        assert_eq!(phone.register(), 200);
        waits.note(began.elapsed());
        others.push(phone);
    }
    // They go on, and others connect all the same.
    for serial in 0..max / 4 {
        let mut stream = connect([127, 0, 7, 1], program.tcp).expect("a connection");
        probe_stream(&mut stream, serial).expect("an answer");
        crowd.push(stream);
    }
    // Who was there first can be called: it hears of the call over the connection that it had.
    let second = others.last_mut().expect("one of them");
    let uri = format!("sip:1001@{}", program.tcp);
    second.send("INVITE", &uri, &offer(""));
    let challenged = second.answer();
    let proof = prove(&challenged, "1002", PASSWORD, "INVITE", &uri);
    second.send("INVITE", &uri, &offer(&proof));
    let invite = first.message();
    assert!(invite.is_request() && invite.method() == Method::Invite, "{invite:?}");
    program.is_well();
    let (mut open, until) = (crowd.len(), Instant::now() + PATIENCE);
    // Those that make room hear of it a little later.
    while open > max as usize && Instant::now() < until {
        program.is_well();
        open = crowd.iter().filter(|stream| is_open(stream)).count();
    }
    println!(
        "{max} places, {} strangers, {open} left: a phone is registered in {:?} at most",
        crowd.len(),
        waits.slowest()
    );
    assert!(open <= max as usize, "{open} are left");
    waits.are_within(within(SERVED_MAX));
}

/// A call without an offer: what is asked is whether it arrives.
fn offer(proof: &str) -> String {
    format!("{proof}Supported: timer\r\n")
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let read = stream.peek(&mut [0]);
    matches!(read, Ok(1..)) || read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Ten thousand connections from forty sources that have asked once and say nothing any more: others, also new
/// ones, are answered, and what they take of memory is bounded.
#[test]
#[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
fn ten_thousand_idle_connections() {
    let mut program = Program::start();
    let count = if IS_SHIPPED { 10_000 } else { 1_000 };
    let mut other = Peer::new([127, 0, 2, 1], program.udp);
    let mut phone = Phone::connect("1001", [127, 0, 2, 1], program.tcp);
    assert_eq!(phone.register(), 200);
    other.probe();
    let memory = program.memory_kib();
    // Where this process may not have so many open, the first ones end.
    let most = usize::try_from(files().saturating_sub(FILES_BESIDE)).expect("a number").max(256);
    let mut open = VecDeque::new();
    for n in 0..count {
        let source = [127, 0, 8, 1 + (n % 40) as u8];
        let mut stream = connect(source, program.tcp).expect("room");
        let local = stream.local_addr().expect("bound");
        stream.write_all(options("TCP", local, n).as_bytes()).expect("sent");
        open.push_back(stream);
        if open.len() > most {
            open.pop_front();
        }
        if n % 100 == 0 {
            let began = Instant::now();
            let mut new = connect([127, 0, 2, 3], program.tcp).expect("room for one more");
            probe_stream(&mut new, n).expect("who is new is answered");
            other.waits.note(began.elapsed());
            other.probe();
        }
    }
    let (taken, descriptors) = (program.memory_kib() - memory, program.descriptors());
    let began = Instant::now();
    assert_eq!(phone.register(), 200, "over the connection that it had");
    other.waits.note(began.elapsed());
    program.is_well();
    println!(
        "{count} idle connections, {} open here, {descriptors} descriptors there: {taken} KiB, {} bytes each; slowest \
         {:?}",
        open.len(),
        taken * 1024 / count as i64,
        other.waits.slowest(),
    );
    assert!(taken < CONNECTION_MAX_KIB * count as i64, "{taken} KiB");
    other.waits.are_within(within(SERVED_MAX));
}

/// Allows this process as many open files as it may have, and returns how many.
fn files() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("its own limit");
    maximum.unwrap_or(1 << 20)
}
