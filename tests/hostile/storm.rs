//! Every phone registers at once, as after an outage, and repeats itself where it is not heard: all are registered
//! soon, and calls are served meanwhile.
//!
//! `TANDEM_STORM=50000` makes it so many phones; without it, three hundred.

use crate::{
    node::{IS_SHIPPED, PATIENCE, Peer, Program, TRUNK, Waits, within},
    subject::prove,
};
use bytes::Bytes;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tandem::sip::{HeaderName, Message};

const PASSWORD: &str = "storm-secret";
/// RFC 3261's T1 and T2.
const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
/// Who is refused comes back after a minute at most, and may be refused once more.
const ALL_WITHIN: Duration = Duration::from_secs(130);
/// Nobody who calls waits longer.
const CALL_MAX: Duration = Duration::from_millis(500);
/// What a phone may add to the program: its binding, its user, its transactions, in KiB.
const PHONE_MAX_KIB: i64 = 6;

#[test]
fn all_phones_come_at_once() {
    let count = std::env::var("TANDEM_STORM").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let users: String =
        (0..count).map(|n| format!("[user.{}]\npassword = \"{PASSWORD}\"\n", user(n))).collect();
    let mut program = Program::start_with(&users);
    let before = program.memory_kib();
    let peer = Peer::new([127, 0, 4, 1], program.udp);
    let mut storm = Storm::new(peer, count);
    let is_over = AtomicBool::new(false);
    let (took, calls) = thread::scope(|scope| {
        let over = Over(&is_over);
        let (serves, is_served) = mpsc::sync_channel(1);
        let callers = scope.spawn(|| Callers::new(program.udp).call_until(&is_over, serves));
        is_served.recv_timeout(PATIENCE).expect("calls are served before the storm");
        let took = storm.run();
        drop(over);
        (took, callers.join().expect("the callers"))
    });
    program.is_well();
    let kept = program.memory_kib() - before;
    let Storm { refused, stale, resent, granted_s, .. } = &storm;
    let (least, most) =
        (granted_s.iter().min().expect("one"), granted_s.iter().max().expect("one"));
    println!(
        "{count} phones: all registered after {took:?}, {refused} refusals, {stale} challenged again, {resent} sent again, granted {least} to \
         {most} s; {} calls meanwhile, the slowest {:?}, and {} refused; {kept} KiB kept",
        calls.served,
        calls.waits.slowest(),
        calls.refused
    );
    assert!(took < ALL_WITHIN, "{took:?}");
    assert_eq!(granted_s.len(), count);
    // Who has come together does not come together again.
    assert!((3240..=3300).contains(least) && (3540..=3600).contains(most), "{least} to {most} s");
    assert!(calls.served > calls.refused, "{calls:?}");
    assert!(calls.refused == 0 || !IS_SHIPPED, "{calls:?}");
    calls.waits.are_within(within(CALL_MAX));
    let most_kib = PHONE_MAX_KIB * count as i64 + 48 * 1024;
    assert!(kept < most_kib || !IS_SHIPPED, "{kept} KiB");
}

fn user(n: usize) -> usize {
    200_000 + n
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Asks,
    Proves,
    /// Has been refused, and waits.
    Rests,
    Done,
}

#[derive(Debug)]
struct Phone {
    state: State,
    cseq: u32,
    /// The present request.
    request: Vec<u8>,
    /// How long it waits for an answer.
    patience: Duration,
}

/// Says in the end that it is over, also where that is a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All phones, behind one address.
struct Storm {
    peer: Peer,
    local: SocketAddr,
    phones: Vec<Phone>,
    /// When whose request is due, again or at all.
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    refused: u64,
    /// Proofs that came when their challenge was no longer known.
    stale: u64,
    resent: u64,
    granted_s: Vec<u32>,
}

impl Storm {
    fn new(peer: Peer, count: usize) -> Self {
        let local = peer.socket.local_addr().expect("bound");
        peer.socket.set_nonblocking(true).expect("a socket");
        let _ = socket2::SockRef::from(&peer.socket).set_recv_buffer_size(8 << 20);
        let phone = |_| Phone { state: State::Asks, cseq: 0, request: vec![], patience: T1 };
        let phones = (0..count).map(phone).collect();
        let timers = BinaryHeap::new();
        Self { peer, local, phones, timers, refused: 0, stale: 0, resent: 0, granted_s: vec![] }
    }

    #[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
    fn run(&mut self) -> Duration {
        let began = Instant::now();
        let mut buffer = vec![0; 4096];
        let mut next = 0;
        while self.granted_s.len() < self.phones.len() && began.elapsed() < ALL_WITHIN {
            let now = Instant::now();
            // As fast as they can, and hear the answers in between.
            for _ in 0..32.min(self.phones.len() - next) {
                self.register(next, State::Asks, "", now);
                next += 1;
            }
            for _ in 0..64 {
                match self.peer.socket.recv(&mut buffer) {
                    Ok(len) => self.hear(Bytes::copy_from_slice(&buffer[..len]), now),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            while let Some(Reverse((at, n, cseq))) = self.timers.peek().copied()
                && at <= now
            {
                self.timers.pop();
                self.ring(n, cseq, now);
            }
            thread::yield_now();
        }
        began.elapsed()
    }

    fn ring(&mut self, n: usize, cseq: u32, now: Instant) {
        let phone = &mut self.phones[n];
        if phone.cseq != cseq {
            return;
        }
        match phone.state {
            State::Done => {}
            State::Rests => self.register(n, State::Asks, "", now),
            State::Asks | State::Proves => {
                self.resent += 1;
                phone.patience = (phone.patience * 2).min(T2);
                let _ = self.peer.socket.send(&phone.request);
                self.timers.push(Reverse((now + phone.patience, n, cseq)));
            }
        }
    }

    fn register(&mut self, n: usize, state: State, proof: &str, now: Instant) {
        let (user, local, phone) = (user(n), self.local, &mut self.phones[n]);
        phone.cseq += 1;
        let cseq = phone.cseq;
        let text = format!(
            "REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{n}.{cseq};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{user}@127.0.0.1>;tag=1\r\nTo: <sip:{user}@127.0.0.1>\r\n\
             Call-ID: {n}.storm\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:{user}@{local}>\r\nExpires: 3600\r\n\
             {proof}Content-Length: 0\r\n\r\n"
        );
        phone.request = text.into_bytes();
        (phone.state, phone.patience) = (state, T1);
        let _ = self.peer.socket.send(&phone.request);
        self.timers.push(Reverse((now + T1, n, cseq)));
    }

    fn hear(&mut self, bytes: Bytes, now: Instant) {
        let message = Message::parse(bytes).expect("SIP");
        let of = message.call_id().strip_suffix(".storm").and_then(|n| n.parse::<usize>().ok());
        let Some(n) = of.filter(|_| !message.is_request()) else { return };
        let phone = &mut self.phones[n];
        let waits = matches!(phone.state, State::Asks | State::Proves);
        if message.cseq().number != phone.cseq || !waits {
            return;
        }
        match (message.status(), phone.state) {
            (401, State::Asks | State::Proves) => {
                // Where so many are challenged at once, the oldest challenges are given up.
                if phone.state == State::Proves {
                    let challenge = message.header_str(HeaderName::WwwAuthenticate).expect("one");
                    assert!(challenge.contains("stale=true"), "{challenge}");
                    self.stale += 1;
                }
                let name = user(n).to_string();
                let proof = prove(&message, &name, PASSWORD, "REGISTER", "sip:127.0.0.1");
                self.register(n, State::Proves, &proof, now);
            }
            (200, State::Proves) => {
                phone.state = State::Done;
                phone.request = vec![];
                let contact = message.header_str(HeaderName::Contact).expect("bound");
                let (_, granted_s) = contact.rsplit_once("expires=").expect("its time");
                self.granted_s.push(granted_s.parse().expect("a number"));
            }
            (503, State::Asks | State::Proves) => {
                self.refused += 1;
                phone.state = State::Rests;
                // The timer of what was refused is nobody's any more.
                phone.cseq += 1;
                let again_s = message.number(HeaderName::RetryAfter).expect("when to come back");
                let again = now + Duration::from_secs(again_s.into());
                self.timers.push(Reverse((again, n, phone.cseq)));
            }
            (status, state) => panic!("{status} to a phone that {state:?}"),
        }
    }
}

/// The carrier, which calls again and again, and after the storm until more calls were served than refused.
#[derive(Debug)]
struct Callers {
    peer: Peer,
    serial: u64,
    served: u64,
    refused: u64,
    /// Of those that were served.
    waits: Waits,
}

impl Callers {
    fn new(pbx: SocketAddr) -> Self {
        let peer = Peer::new(TRUNK, pbx);
        Self { peer, serial: 0, served: 0, refused: 0, waits: Waits::default() }
    }

    #[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
    fn call_until(mut self, is_over: &AtomicBool, serves: mpsc::SyncSender<()>) -> Self {
        self.peer.socket.set_read_timeout(Some(T1)).expect("a limit");
        let until = Instant::now() + ALL_WITHIN;
        let is_ill = |calls: &Self| calls.served <= calls.refused && Instant::now() < until;
        while !is_over.load(Ordering::Relaxed) || is_ill(&self) {
            self.serial += 1;
            let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.3.1\r\ns=-\r\nc=IN IP4 127.0.3.1\r\nt=0 0\r\n\
                       m=audio 4000 RTP/AVP 0\r\n";
            let invite = self.request("INVITE", 1, "", sdp);
            let began = Instant::now();
            let answer = self.ask(&invite, "1 INVITE");
            let to = answer.header_str(HeaderName::To).expect("it was parsed").into_owned();
            let tag = to.rsplit_once(";tag=").map(|(_, tag)| tag.to_owned()).unwrap_or_default();
            let ack = self.request("ACK", 1, &tag, "");
            self.peer.socket.send(ack.as_bytes()).expect("sent");
            if answer.status() >= 300 {
                self.refused += 1;
                // Nobody tries again at once.
                thread::sleep(T1);
                continue;
            }
            self.served += 1;
            self.waits.note(began.elapsed());
            let bye = self.request("BYE", 2, &tag, "");
            assert_eq!(self.ask(&bye, "2 BYE").status(), 200);
            // Nobody listens after the first one.
            let _ = serves.try_send(());
        }
        self
    }

    fn request(&self, method: &str, cseq: u32, tag: &str, sdp: &str) -> String {
        let (local, n) = (self.peer.socket.local_addr().expect("bound"), self.serial);
        let tag = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} sip:+14155550100@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bKcall{n}.{method}\r\nMax-Forwards: 70\r\n\
             From: <sip:+12125550100@127.0.3.1>;tag=c\r\nTo: <sip:+14155550100@127.0.0.1>{tag}\r\n\
             Call-ID: call-{n}.storm\r\nCSeq: {cseq} {method}\r\nContact: <sip:{local}>\r\n{kind}\
             Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        )
    }

    /// Asks until there is a final answer.
    #[expect(clippy::disallowed_methods, reason = "it is the clock that is asked")]
    fn ask(&self, request: &str, cseq: &str) -> Message {
        let (mut buffer, began) = (vec![0; 4096], Instant::now());
        self.peer.socket.send(request.as_bytes()).expect("sent");
        loop {
            assert!(began.elapsed() < PATIENCE, "there is no answer to {request}");
            let Ok(len) = self.peer.socket.recv(&mut buffer) else {
                self.peer.socket.send(request.as_bytes()).expect("sent");
                continue;
            };
            let message = Message::parse(Bytes::copy_from_slice(&buffer[..len])).expect("SIP");
            let is_ours = message.call_id() == format!("call-{}.storm", self.serial);
            let is_final = !message.is_request() && message.status() >= 200;
            if is_ours && is_final && message.header_str(HeaderName::CSeq).as_deref() == Some(cseq)
            {
                return message;
            }
        }
    }
}
