//! Callers and called in one place: calls through a B2BUA, set up gently, held, ended.
//!
//! Owns: two SIP sockets, one for all callers and one for all who are called; the calls.
//! Never: RTP.

use super::{
    text::{Message, with_body},
    way::{description, media_address},
};
use crate::pace::Pace;
use anyhow::{Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// T1 of RFC 3261 17: when a request is repeated for the first time.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
/// A call that is not up by then never will be.
const PATIENCE: Duration = Duration::from_secs(12);
/// The number of the first call; the next one's is one more.
const FIRST: usize = 2_000_000;

/// Who calls whom through what.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The B2BUA.
    pub target: SocketAddr,
    /// Where callers and called speak SIP; their media is at the same addresses.
    pub ends: [SocketAddr; 2],
    /// How fast calls are made and ended.
    pub per_s: f64,
}

/// The calls, by their index.
#[derive(Debug)]
pub struct Phones {
    setting: Setting,
    /// Near and far.
    sockets: [UdpSocket; 2],
    run: u32,
    calls: Vec<Call>,
    /// Indices by the Call-ID at the far end.
    far_calls: BTreeMap<String, usize>,
    /// Calls that ended before they were to.
    lost: usize,
    room: Vec<u8>,
}

#[derive(Debug)]
struct Call {
    ports: [u16; 2],
    /// Where either end sends its media to.
    to: [Option<SocketAddr>; 2],
    state: State,
    /// Which ends know that it is over, while it is ending.
    told: [bool; 2],
    since: Instant,
    /// The caller's dialog.
    peer: Peer,
    /// The answer of the called, until it is acknowledged.
    answer: Option<Repeat>,
    /// The caller's request, until there is an answer.
    request: Option<Repeat>,
}

/// The other side of the caller's dialog.
#[derive(Debug, Default)]
struct Peer {
    to: String,
    target: String,
    routes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Calling,
    Up,
    Ending,
    Over,
}

/// Something that is sent again until it has had its effect.
#[derive(Debug)]
struct Repeat {
    bytes: Vec<u8>,
    to: SocketAddr,
    at: Instant,
    wait: Duration,
}

impl Repeat {
    fn new(text: String, to: SocketAddr) -> Self {
        let wait = REPEAT_AFTER;
        Self { bytes: text.into_bytes(), to, at: Instant::now() + wait, wait }
    }
}

impl Phones {
    /// Without calls yet.
    ///
    /// # Errors
    /// If the addresses are not to be had.
    pub fn new(mut setting: Setting) -> Result<Self> {
        let [near, far] = setting.ends.map(UdpSocket::bind);
        let sockets = [near?, far?];
        for (socket, here) in sockets.iter().zip(&mut setting.ends) {
            socket.set_nonblocking(true)?;
            // A port that was left to the system.
            *here = socket.local_addr()?;
        }
        let run = std::process::id();
        let (calls, far_calls) = (vec![], BTreeMap::new());
        Ok(Self { setting, sockets, run, calls, far_calls, lost: 0, room: vec![0; 65_536] })
    }

    /// Makes calls whose ends listen at these ports. Returns where their media goes.
    ///
    /// # Errors
    /// If one does not come up.
    pub fn dial(&mut self, ports: &[[u16; 2]]) -> Result<Vec<[SocketAddr; 2]>> {
        let first = self.calls.len();
        let mut pace = Pace::new(Instant::now(), self.setting.per_s, ports.len() as u64);
        loop {
            for _ in 0..pace.take_due(Instant::now()) {
                let ports = ports[self.calls.len() - first];
                self.invite(ports);
            }
            self.tend();
            let new = self.calls.get(first..).unwrap_or_default();
            let is_up = |call: &Call| call.state == State::Up && call.answer.is_none();
            if new.len() == ports.len() && new.iter().all(is_up) {
                break;
            }
            if let Some(slow) = new.iter().position(|call| !is_up(call) && is_late(call)) {
                bail!("call {} is not up after {PATIENCE:?}: {:?}", first + slow, new[slow]);
            }
            ensure!(self.lost == 0, "a call was refused or ended at once");
            self.wait()?;
        }
        let new = self.calls[first..].iter();
        new.map(|call| match call.to {
            [Some(near), Some(far)] => Ok([near, far]),
            [None, _] | [_, None] => bail!("a call without media"),
        })
        .collect()
    }

    /// Ends all calls. Returns how many had ended before.
    ///
    /// # Errors
    /// If a BYE is not answered, or does not arrive at the other end.
    pub fn hang_up(&mut self) -> Result<usize> {
        let mut pace = Pace::new(Instant::now(), self.setting.per_s, self.calls.len() as u64);
        let mut next = 0;
        loop {
            for _ in 0..pace.take_due(Instant::now()) {
                self.bye(next);
                next += 1;
            }
            self.tend();
            let is_over = |call: &Call| call.state == State::Over;
            if next == self.calls.len() && self.calls.iter().all(is_over) {
                return Ok(self.lost);
            }
            let ending = |call: &&Call| call.state == State::Ending && is_late(call);
            if let Some(slow) = self.calls.iter().find(ending) {
                bail!("a call does not end: {slow:?}");
            }
            self.wait()?;
        }
    }

    /// Answers what has arrived, and repeats what has had no effect.
    pub fn tend(&mut self) {
        for end in 0..2 {
            let mut room = std::mem::take(&mut self.room);
            while let Ok((len, from)) = self.sockets[end].recv_from(&mut room) {
                if let Some(message) = Message::new(&room[..len]) {
                    self.take(end, message, from);
                }
            }
            self.room = room;
        }
        let now = Instant::now();
        for call in &mut self.calls {
            for (end, repeat) in [(0, &mut call.request), (1, &mut call.answer)] {
                let Some(repeat) = repeat.as_mut().filter(|repeat| repeat.at <= now) else {
                    continue;
                };
                _ = self.sockets[end].send_to(&repeat.bytes, repeat.to);
                repeat.wait *= 2;
                repeat.at = now + repeat.wait;
            }
        }
    }

    /// Until there is something to read, a millisecond at most.
    fn wait(&self) -> Result<()> {
        let mut fds =
            self.sockets.each_ref().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        // A signal ends it early, which harms nobody.
        _ = poll(&mut fds, PollTimeout::from(1_u8));
        Ok(())
    }

    fn take(&mut self, end: usize, message: Message<'_>, from: SocketAddr) {
        match (message.status(), message.request()) {
            (Some(status), _) if end == 0 => self.take_response(status, message),
            (Some(_), _) | (None, None) => {}
            (None, Some(("ACK", _))) => {
                if let Some(call) = self.call_of(end, message) {
                    self.calls[call].answer = None;
                }
            }
            (None, Some((method, uri))) => self.take_request(end, (method, uri), message, from),
        }
    }

    /// The index of a message's call.
    fn call_of(&self, end: usize, message: Message<'_>) -> Option<usize> {
        let id = message.get("Call-ID");
        if end == 1 {
            return self.far_calls.get(id).copied();
        }
        let (run, index) = id.strip_prefix("bench-")?.split_once('-')?;
        let index: usize = index.parse().ok()?;
        (run == self.run.to_string() && index < self.calls.len()).then_some(index)
    }

    fn take_response(&mut self, status: u16, message: Message<'_>) {
        let Some(index) = self.call_of(0, message) else { return };
        let is_invite = message.method() == "INVITE";
        let call = &mut self.calls[index];
        match status {
            // No repetition once it is known that somebody is at it.
            ..200 => {
                if let Some(request) = call.request.as_mut().filter(|_| is_invite) {
                    request.at = Instant::now() + PATIENCE;
                }
            }
            200..300 if is_invite => {
                call.request = None;
                if call.state == State::Calling {
                    call.state = State::Up;
                    call.to[0] = media_address(message.body()).ok();
                    let mut routes: Vec<_> =
                        message.all("Record-Route").map(str::to_owned).collect();
                    routes.reverse();
                    call.peer.routes = routes;
                    call.peer.target = Message::uri(message.get("Contact")).to_owned();
                }
                message.get("To").clone_into(&mut call.peer.to);
                let ack = self.within(index, "ACK", 1);
                self.say(ack);
            }
            200.. if is_invite => {
                message.get("To").clone_into(&mut call.peer.to);
                let ack = self.within(index, "ACK", 1);
                self.say(ack);
                eprintln!("call {index}: {}", message.first());
                self.finish(index);
            }
            200.. => self.ended(index, 0),
        }
    }

    /// A call that we do not end is over.
    fn finish(&mut self, index: usize) {
        let call = &mut self.calls[index];
        self.lost += usize::from(matches!(call.state, State::Calling | State::Up));
        call.state = State::Over;
        call.request = None;
    }

    /// One end knows that the call is over: the caller by an answer, the called by a request.
    fn ended(&mut self, index: usize, end: usize) {
        let call = &mut self.calls[index];
        if call.state != State::Ending {
            return self.finish(index);
        }
        call.told[end] = true;
        if end == 0 {
            call.request = None;
        }
        if call.told == [true; 2] {
            call.state = State::Over;
        }
    }

    fn take_request(
        &mut self,
        end: usize,
        (method, uri): (&str, &str),
        message: Message<'_>,
        from: SocketAddr,
    ) {
        let mut known = self.call_of(end, message);
        if end == 1 && known.is_none() && method == "INVITE" {
            known = dialled(uri).filter(|index| *index < self.calls.len());
            if let Some(index) = known {
                self.far_calls.insert(message.get("Call-ID").to_owned(), index);
            }
        }
        let status = match (known, method) {
            (None, "INVITE" | "BYE") => "481 No such call",
            (_, _) => "200 OK",
        };
        let mut answer = message.answer(status, "far");
        let mut sdp = String::new();
        if let (Some(index), "INVITE" | "UPDATE") = (known, method) {
            let here = self.setting.ends[end];
            answer += &format!("Contact: <sip:bench@{here}>\r\n");
            sdp = description(here.ip(), self.calls[index].ports[end]);
            if let Ok(to) = media_address(message.body()) {
                self.calls[index].to[end] = Some(to);
            }
        }
        let answer = with_body(answer, &sdp);
        _ = self.sockets[end].send_to(answer.as_bytes(), from);
        if let Some(index) = known {
            match method {
                "INVITE" => self.calls[index].answer = Some(Repeat::new(answer, from)),
                "BYE" => self.ended(index, end),
                _ => {}
            }
        }
    }

    fn invite(&mut self, ports: [u16; 2]) {
        let index = self.calls.len();
        let target = self.setting.target;
        let number = format!("+1415{}", FIRST + index);
        let call = Call {
            ports,
            to: [None; 2],
            state: State::Calling,
            told: [false; 2],
            since: Instant::now(),
            peer: Peer {
                to: format!("<sip:{number}@{target}>"),
                target: format!("sip:{number}@{target}"),
                routes: vec![],
            },
            answer: None,
            request: None,
        };
        self.calls.push(call);
        let invite = self.within(index, "INVITE", 1);
        self.say(invite.clone());
        self.calls[index].request = Some(Repeat::new(invite, target));
    }

    fn bye(&mut self, index: usize) {
        if self.calls[index].state != State::Up {
            return;
        }
        let bye = self.within(index, "BYE", 2);
        self.say(bye.clone());
        let call = &mut self.calls[index];
        (call.state, call.since) = (State::Ending, Instant::now());
        call.request = Some(Repeat::new(bye, self.setting.target));
    }

    /// A request of the caller.
    fn within(&self, index: usize, method: &str, cseq: u32) -> String {
        let (call, here, run) = (&self.calls[index], self.setting.ends[0], self.run);
        let peer = &call.peer;
        let mut text = format!("{method} {} SIP/2.0\r\n", peer.target);
        text += &format!("Via: SIP/2.0/UDP {here};branch=z9hG4bK{run}-{index}-{method}\r\n");
        peer.routes.iter().for_each(|route| text += &format!("Route: {route}\r\n"));
        text += &format!("Max-Forwards: 70\r\nFrom: <sip:+14155550100@{here}>;tag=n{index}\r\n");
        text += &format!("To: {}\r\nCall-ID: bench-{run}-{index}\r\n", peer.to);
        text += &format!("CSeq: {cseq} {method}\r\nContact: <sip:bench@{here}>\r\n");
        let sdp = match method {
            "INVITE" => description(here.ip(), call.ports[0]),
            _ => String::new(),
        };
        with_body(text, &sdp)
    }

    fn say(&self, text: String) {
        // What is not sent is repeated.
        _ = self.sockets[0].send_to(text.as_bytes(), self.setting.target);
    }
}

/// The call whose number this URI carries.
fn dialled(uri: &str) -> Option<usize> {
    let user = uri.split('@').next()?;
    let digits: String = user.chars().filter(char::is_ascii_digit).collect();
    let last = digits.get(digits.len().checked_sub(7)?..)?;
    last.parse::<usize>().ok()?.checked_sub(FIRST)
}

fn is_late(call: &Call) -> bool {
    call.since.elapsed() > PATIENCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::Ipv4Addr, thread};

    #[test]
    fn numbers_are_found_however_they_are_written() {
        for uri in ["sip:+14152000042@h:5", "tel:4152000042", "sip:014152000042@h;user=phone"] {
            assert_eq!(dialled(uri), Some(42), "{uri}");
        }
        assert_eq!(dialled("sip:bench@h"), None);
        assert_eq!(dialled("sip:+14151000042@h"), None);
    }

    /// Passes every message from one end to the other, as a B2BUA without a mind of its own.
    /// Ends when it is told nothing.
    fn mirror(socket: &UdpSocket, ends: [SocketAddr; 2]) {
        let mut room = [0; 4096];
        loop {
            let (len, from) = socket.recv_from(&mut room).unwrap();
            if len == 0 {
                return;
            }
            let text = std::str::from_utf8(&room[..len]).unwrap();
            let to = if from == ends[0] { ends[1] } else { ends[0] };
            socket.send_to(text.as_bytes(), to).unwrap();
        }
    }

    #[test]
    fn calls_come_up_and_end() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody else takes ports of these.
        let [low, high, ..] = std::process::id().to_le_bytes();
        let free = |last| UdpSocket::bind((Ipv4Addr::new(127, 150 + high % 60, low, last), 0));
        let ends = [2, 3].map(|last| free(last).unwrap().local_addr().unwrap());
        let target = server.local_addr().unwrap();
        // Five calls of INVITE, 200, ACK, BYE, 200, with the same Call-ID on both sides.
        let proxy = thread::spawn(move || mirror(&server, ends));
        let mut phones = Phones::new(Setting { target, ends, per_s: 500.0 }).unwrap();
        let media = phones.dial(&[[4000, 5000], [4002, 5002], [4004, 5004]]).unwrap();
        let ports = media.iter().map(|ends| ends.map(|end| end.port())).collect::<Vec<_>>();
        assert_eq!(ports, [[5000, 4000], [5002, 4002], [5004, 4004]]);
        assert_eq!(phones.dial(&[[4006, 5006], [4008, 5008]]).unwrap().len(), 2);
        assert_eq!(phones.hang_up().unwrap(), 0);
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&[], target).unwrap();
        proxy.join().unwrap();
    }
}
