//! The side that calls: INVITE, digest where it is asked, ACK, and BYE after a while.
//!
//! Owns: its calls and their timers. Never: waits, or reads a clock.

use crate::{
    delay::{DelayLine, Due, Retransmissions},
    digest::Credentials,
    ident::{Ident, Numbers, first_serial},
    message::{self, Message},
    tally::{Chapters, Tally},
    template::Template,
    udp::{Outgoing, Wire},
};
use anyhow::Result;
use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

/// Who calls whom, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where requests go.
    pub target: SocketAddrV4,
    /// The user in our From.
    pub user: String,
    /// Whom to call.
    pub numbers: Numbers,
    /// What answers challenges.
    pub credentials: Option<Credentials>,
    /// The offer.
    pub sdp: String,
    /// How long calls are up, those that stay aside.
    pub hold: Duration,
}

/// All calls of one run.
#[derive(Debug)]
pub struct Caller {
    wire: Wire,
    calls: Calls,
}

#[derive(Debug)]
struct Calls {
    plan: Plan,
    texts: Texts,
    calls: Vec<Call>,
    free: Vec<u32>,
    timers: Retransmissions<(Ident, u8)>,
    holds: DelayLine<Ident>,
    /// The calls that are up and stay.
    staying: Vec<Ident>,
    serial: u32,
    chapters: Chapters,
}

#[derive(Debug)]
struct Call {
    serial: u32,
    state: State,
    /// How many requests it has sent: a timer of an earlier one is pointless.
    phase: u8,
    /// Whether something was heard of the present request.
    is_heard: bool,
    stays: bool,
    since: Instant,
    /// The present request, or the BYE that will be.
    request: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Free,
    Inviting,
    Up,
    Ending,
}

#[derive(Debug)]
struct Texts {
    invite: Template,
    ack: Template,
    in_dialog: Template,
}

impl Texts {
    fn new(plan: &Plan, local: SocketAddrV4) -> Self {
        let Plan { target, user, sdp, .. } = plan;
        let common = format!(
            "Max-Forwards: 70\nFrom: <sip:{user}@{target}>;tag={{id}}\nTo: {{to}}\nCall-ID: {{id}}@{local}\n"
        );
        let via = format!("Via: SIP/2.0/UDP {local};branch=z9hG4bK{{id}}.{{cseq}}");
        let invite = format!(
            "INVITE sip:{{number}}@{target} SIP/2.0\n{via};rport\n{common}CSeq: {{cseq}} INVITE\n\
             Contact: <sip:{user}@{local}>\n{{extra}}Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\n\
             Supported: replaces\nUser-Agent: tandem-bench\nContent-Type: application/sdp\n\
             Content-Length: {}\n\n",
            sdp.len()
        );
        let ack = format!(
            "ACK sip:{{number}}@{target} SIP/2.0\n{via};rport\n{common}CSeq: {{cseq}} ACK\n\
             Content-Length: 0\n\n"
        );
        let in_dialog = format!(
            "{{method}} {{uri}} SIP/2.0\n{via}.{{method}};rport\n{{extra}}{common}\
             CSeq: {{cseq}} {{method}}\nContent-Length: 0\n\n"
        );
        let invite_names = ["id", "number", "to", "cseq", "extra"];
        let mut invite = Template::new(&invite, &invite_names);
        invite.push(sdp);
        Self {
            invite,
            ack: Template::new(&ack, &invite_names[..4]),
            in_dialog: Template::new(&in_dialog, &["id", "method", "uri", "to", "cseq", "extra"]),
        }
    }
}

impl Caller {
    /// Binds the caller's address.
    ///
    /// # Errors
    /// If that cannot be bound.
    pub fn new(local: SocketAddrV4, plan: Plan) -> Result<Self> {
        let wire = Wire::bind(local)?;
        let serial = first_serial();
        let calls = Calls {
            texts: Texts::new(&plan, wire.local()),
            calls: vec![],
            free: vec![],
            timers: Retransmissions::default(),
            holds: DelayLine::new(plan.hold),
            staying: vec![],
            serial,
            chapters: Chapters::new(serial),
            plan,
        };
        Ok(Self { wire, calls })
    }

    /// Begins a call. One that stays is up until `hang_up`.
    pub fn begin(&mut self, stays: bool, now: Instant) {
        self.calls.begin(stays, now, &mut self.wire.parts().1);
    }

    /// Ends one of the calls that stay; false if it has gone, or there is none.
    pub fn hang_up(&mut self, now: Instant) -> bool {
        let Some(ident) = self.calls.staying.pop() else { return false };
        let call = &self.calls.calls[ident.slot as usize];
        let is_up = call.serial == ident.serial && call.state == State::Up;
        if is_up {
            self.calls.bye(ident, now, &mut self.wire.parts().1);
        }
        is_up
    }

    /// Handles what has arrived and what is due, sends, and tells how many datagrams came.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn turn(&mut self, now: Instant) -> Result<usize> {
        self.wire.flush()?;
        let came = self.wire.receive()?;
        let (received, mut out) = self.wire.parts();
        for (datagram, from) in received.iter() {
            if let Some(message) = Message::read(datagram) {
                self.calls.handle(&message, from, now, &mut out);
            } else {
                self.calls
                    .chapters
                    .last()
                    .fault("a datagram at the caller that is no SIP".to_owned());
            }
        }
        self.calls.handle_due(now, &mut out);
        self.wire.flush()?;
        Ok(came)
    }

    /// How many calls are begun and not over.
    pub fn live(&self) -> usize {
        self.calls.calls.len() - self.calls.free.len()
    }

    /// How many calls are up and stay.
    pub fn staying(&self) -> usize {
        self.calls.staying.len()
    }

    /// Counts the calls that begin from now on apart from those before.
    pub fn turn_the_page(&mut self) {
        self.calls.chapters.turn(self.calls.serial);
    }

    /// What became of them, by when they began.
    pub fn chapters(&self) -> impl Iterator<Item = &Tally> {
        self.calls.chapters.each()
    }
}

impl Calls {
    fn begin(&mut self, stays: bool, now: Instant, out: &mut Outgoing<'_>) {
        let serial = self.serial;
        self.serial = self.serial.wrapping_add(1);
        self.chapters.of(serial).begun += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            let request = Vec::new();
            let state = State::Free;
            let (phase, is_heard) = (0, false);
            self.calls.push(Call { serial, state, phase, is_heard, stays, since: now, request });
            (self.calls.len() - 1) as u32
        });
        let request = std::mem::take(&mut self.calls[slot as usize].request);
        let state = State::Inviting;
        self.calls[slot as usize] =
            Call { serial, state, phase: 0, is_heard: false, stays, since: now, request };
        self.invite(Ident { slot, serial }, b"", now, out);
    }

    /// Sends the INVITE; `extra` are further lines.
    fn invite(&mut self, ident: Ident, extra: &[u8], now: Instant, out: &mut Outgoing<'_>) {
        let call = &mut self.calls[ident.slot as usize];
        call.phase += 1;
        call.is_heard = false;
        call.request.clear();
        let number = self.plan.numbers.number(ident.serial);
        let to = to_of(&number, self.plan.target);
        let cseq = [b'0' + call.phase];
        let fields: [&[u8]; 5] = [&ident.text(), &number, &to, &cseq, extra];
        self.texts.invite.fill(&fields, &mut call.request);
        out.send_to(self.plan.target, |buffer| buffer.extend_from_slice(&call.request));
        self.timers.push(now, (ident, call.phase));
    }

    fn handle(
        &mut self,
        message: &Message<'_>,
        from: SocketAddrV4,
        now: Instant,
        out: &mut Outgoing<'_>,
    ) {
        if message.status == 0 {
            return self.handle_request(message, from, out);
        }
        let ident = Ident::read(message.dialog.call_id);
        let call = ident.and_then(|ident| Some((ident, self.calls.get(ident.slot as usize)?)));
        let Some((ident, call)) = call else {
            return self.chapters.last().fault("a response to nothing of ours".to_owned());
        };
        if call.serial != ident.serial || call.state == State::Free {
            self.chapters.of(ident.serial).repeated += 1;
            return;
        }
        let is_of_now = message.cseq_number() == u32::from(call.phase);
        match (message.method(), call.state) {
            (b"INVITE", State::Inviting) if is_of_now => {
                self.handle_answer(ident, message, now, out)
            }
            (b"INVITE", _) => {
                self.chapters.of(ident.serial).repeated += 1;
                if (200..300).contains(&message.status) {
                    self.acknowledge(ident, message, out);
                } else if message.status >= 300 {
                    self.acknowledge_refusal(ident, message, out);
                }
            }
            (b"BYE", State::Ending) if message.status >= 200 => {
                let took = now.saturating_duration_since(call.since);
                if message.status < 300 {
                    self.chapters.of(ident.serial).ending.record(took);
                    self.chapters.of(ident.serial).done += 1;
                } else {
                    self.chapters.of(ident.serial).fail(format!("{} to a BYE", message.status));
                }
                self.release(ident);
            }
            (b"BYE", State::Ending) => self.calls[ident.slot as usize].is_heard = true,
            _ => self.chapters.of(ident.serial).repeated += 1,
        }
    }

    fn handle_answer(
        &mut self,
        ident: Ident,
        message: &Message<'_>,
        now: Instant,
        out: &mut Outgoing<'_>,
    ) {
        let call = &mut self.calls[ident.slot as usize];
        match message.status {
            ..200 => call.is_heard = true,
            200..300 => {
                self.chapters
                    .of(ident.serial)
                    .setup
                    .record(now.saturating_duration_since(call.since));
                call.state = State::Up;
                let stays = call.stays;
                self.acknowledge(ident, message, out);
                self.prepare_bye(ident, message);
                if stays {
                    self.staying.push(ident);
                } else if self.plan.hold.is_zero() {
                    self.bye(ident, now, out);
                } else {
                    self.holds.push(now, ident);
                }
            }
            401 | 407 if call.phase == 1 && self.plan.credentials.is_some() => {
                self.acknowledge_refusal(ident, message, out);
                self.authorize(ident, message, now, out);
            }
            status => {
                self.acknowledge_refusal(ident, message, out);
                self.chapters.of(ident.serial).fail(format!("{status} to an INVITE"));
                self.release(ident);
            }
        }
    }

    fn authorize(
        &mut self,
        ident: Ident,
        message: &Message<'_>,
        now: Instant,
        out: &mut Outgoing<'_>,
    ) {
        let number = self.plan.numbers.number(ident.serial);
        let mut uri = b"sip:".to_vec();
        uri.extend_from_slice(&number);
        uri.extend_from_slice(format!("@{}", self.plan.target).as_bytes());
        let mut line = vec![];
        let count = u64::from(ident.serial);
        let credentials = self.plan.credentials.as_mut();
        let is_answered = credentials.is_some_and(|credentials| {
            credentials.answer(message, (b"INVITE", &uri), count, &mut line)
        });
        if is_answered {
            self.invite(ident, &line, now, out);
        } else {
            self.chapters.of(ident.serial).fail("a challenge that cannot be answered".to_owned());
            self.release(ident);
        }
    }

    /// The ACK of a refusal is of the INVITE's transaction (RFC 3261 17.1.1.3).
    fn acknowledge_refusal(&self, ident: Ident, message: &Message<'_>, out: &mut Outgoing<'_>) {
        let number = self.plan.numbers.number(ident.serial);
        let cseq = message.dialog.cseq.split(|byte| *byte == b' ').next().unwrap_or_default();
        let fields: [&[u8]; 4] = [&ident.text(), &number, message.dialog.to, cseq];
        out.send_to(self.plan.target, |buffer| self.texts.ack.fill(&fields, buffer));
    }

    fn acknowledge(&self, ident: Ident, message: &Message<'_>, out: &mut Outgoing<'_>) {
        let cseq = message.dialog.cseq.split(|byte| *byte == b' ').next().unwrap_or_default();
        out.send_to(self.plan.target, |buffer| {
            self.in_dialog(ident, b"ACK", cseq, message, buffer);
        });
    }

    fn prepare_bye(&mut self, ident: Ident, message: &Message<'_>) {
        let mut request = std::mem::take(&mut self.calls[ident.slot as usize].request);
        request.clear();
        let cseq = [b'1' + self.calls[ident.slot as usize].phase];
        self.in_dialog(ident, b"BYE", &cseq, message, &mut request);
        self.calls[ident.slot as usize].request = request;
    }

    /// Writes a request of the dialog that a 200 has made (RFC 3261 12.2.1.1).
    fn in_dialog(
        &self,
        ident: Ident,
        method: &[u8],
        cseq: &[u8],
        answer: &Message<'_>,
        buffer: &mut Vec<u8>,
    ) {
        let mut routes = vec![];
        answer.record_route.write_reversed(b"Route", &mut routes);
        let uri = message::uri(answer.dialog.contact);
        let fields: [&[u8]; 6] = [&ident.text(), method, uri, answer.dialog.to, cseq, &routes];
        self.texts.in_dialog.fill(&fields, buffer);
    }

    fn bye(&mut self, ident: Ident, now: Instant, out: &mut Outgoing<'_>) {
        let call = &mut self.calls[ident.slot as usize];
        call.state = State::Ending;
        call.phase += 1;
        call.is_heard = false;
        call.since = now;
        out.send_to(self.plan.target, |buffer| buffer.extend_from_slice(&call.request));
        self.timers.push(now, (ident, call.phase));
    }

    fn release(&mut self, ident: Ident) {
        self.calls[ident.slot as usize].state = State::Free;
        self.free.push(ident.slot);
    }

    /// The target's own requests: keep-alives are answered; a BYE is not expected.
    fn handle_request(
        &mut self,
        message: &Message<'_>,
        from: SocketAddrV4,
        out: &mut Outgoing<'_>,
    ) {
        match message.method() {
            b"ACK" => return,
            b"OPTIONS" => {}
            b"BYE" => {
                let ident = Ident::read(message.dialog.call_id);
                let is_live = |ident: &Ident| {
                    let call = self.calls.get(ident.slot as usize);
                    call.is_some_and(|c| c.serial == ident.serial && c.state != State::Free)
                };
                let why = "a BYE from the target".to_owned();
                match ident.filter(is_live) {
                    Some(ident) => {
                        self.chapters.of(ident.serial).fail(why);
                        self.release(ident);
                    }
                    None => self.chapters.last().fail(why),
                }
            }
            other => self
                .chapters
                .last()
                .fault(format!("{} at the caller", String::from_utf8_lossy(other))),
        }
        out.send_to(from, |buffer| message.respond(b"200 OK", b"", buffer));
    }

    fn handle_due(&mut self, now: Instant, out: &mut Outgoing<'_>) {
        while let Some(ident) = self.holds.pop_due(now) {
            let call = &self.calls[ident.slot as usize];
            if call.serial == ident.serial && call.state == State::Up {
                self.bye(ident, now, out);
            }
        }
        let mut timers = std::mem::take(&mut self.timers);
        timers.handle_due(now, |(ident, phase), due| self.handle_silence(ident, phase, due, out));
        self.timers = timers;
    }

    /// Whether the request still waits for its answer.
    fn handle_silence(
        &mut self,
        ident: Ident,
        phase: u8,
        due: Due,
        out: &mut Outgoing<'_>,
    ) -> bool {
        let call = &self.calls[ident.slot as usize];
        let waits = matches!(call.state, State::Inviting | State::Ending);
        if call.serial != ident.serial || call.phase != phase || !waits {
            return false;
        }
        match due {
            Due::Again if call.is_heard => {}
            Due::Again => {
                self.chapters.of(ident.serial).resent += 1;
                out.send_to(self.plan.target, |buffer| buffer.extend_from_slice(&call.request));
            }
            Due::Over => {
                let what = if call.state == State::Ending { "BYE" } else { "INVITE" };
                self.chapters.of(ident.serial).fail(format!("no final response to {what}"));
                self.release(ident);
            }
        }
        true
    }
}

/// The To of a new call.
fn to_of(number: &[u8], target: SocketAddrV4) -> Vec<u8> {
    let mut to = b"<sip:".to_vec();
    to.extend_from_slice(number);
    to.extend_from_slice(format!("@{target}>").as_bytes());
    to
}
