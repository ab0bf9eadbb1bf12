//! `register`: phones that register with digest, and come back.
//!
//! Owns: the phones, their schedule and the measurement. Never: the same nonce twice.

use crate::{
    Sample,
    delay::{Due, Retransmissions},
    digest::Credentials,
    histogram::Histogram,
    ident::{Ident, Numbers, first_serial},
    message::Message,
    pace::Pace,
    process::Usage,
    tally::Tally,
    template::Template,
    udp::{Outgoing, Wire},
};
use anyhow::Result;
use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

/// How many phones, how fast, how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where the target listens.
    #[arg(long, default_value = "127.0.0.1:5060")]
    pub target: SocketAddrV4,
    /// Its process, whose cost (and that of its children) is measured.
    #[arg(long)]
    pub pid: Option<u32>,
    /// What it is called in the line.
    #[arg(long, default_value = "tandem")]
    pub subject: String,
    /// Where the phones are, all of them.
    #[arg(long, default_value = "127.0.0.11:5060")]
    pub phones_at: SocketAddrV4,
    /// Their users; each X is a digit, from phone to phone.
    #[arg(long, default_value = "1XXXXX")]
    pub user: String,
    /// Their password.
    #[arg(long, default_value = "phone-secret")]
    pub password: String,
    /// How many there are.
    #[arg(long, default_value_t = 1000)]
    pub phones: u32,
    /// How often each registers: from the second time on it is a refresh.
    #[arg(long, default_value_t = 1)]
    pub rounds: u64,
    /// Registrations begun per second.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// What they ask for.
    #[arg(long, default_value_t = 3600)]
    pub expires: u32,
    /// What is waited for after the last before the target's cost is read: it may still write.
    #[arg(long, default_value_t = 2.5)]
    pub settle: f64,
}

/// Registers.
///
/// # Errors
/// If the address cannot be bound, or the target's process is not there.
pub fn run(args: &Args) -> Result<Sample> {
    let mut wire = Wire::bind(args.phones_at)?;
    let mut phones = Phones::new(args, wire.local());
    let used = || args.pid.map(Usage::of).transpose();
    let before = used()?;
    let total = u64::from(args.phones) * args.rounds;
    let start = Instant::now();
    let mut pace = Pace::new(start, args.rate, total);
    let (mut beginning, mut late_max) = (Duration::ZERO, Duration::ZERO);
    while pace.next().is_some() || phones.live > 0 {
        let now = Instant::now();
        if let Some(due) = pace.next() {
            late_max = late_max.max(now.saturating_duration_since(due));
            beginning = now - start;
        }
        for _ in 0..pace.take_due(now) {
            phones.begin(now, &mut wire.parts().1);
        }
        turn(&mut wire, &mut phones, now)?;
    }
    let peak = used()?;
    let end = Instant::now() + Duration::from_secs_f64(args.settle);
    while Instant::now() < end {
        turn(&mut wire, &mut phones, Instant::now())?;
    }
    let sample = Sample::new("register", &args.subject)
        .asked("phones", args.phones.into())
        .asked("rounds", args.rounds as f64)
        .asked("registers_per_s", args.rate);
    let sample =
        phones.tally.note(beginning, sample).got("late_max_ms", late_max.as_secs_f64() * 1e3);
    let sample = phones.tally.setup.note("register", phones.challenged.note("challenge", sample));
    Ok(cost(total, [before, peak, used()?], sample))
}

fn cost(registrations: u64, used: [Option<Usage>; 3], sample: Sample) -> Sample {
    let [Some(before), Some(peak), Some(after)] = used else { return sample };
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let sample = sample.got("cpu_us_per_register", 1e6 * cpu / registrations as f64);
    after.note("after", peak.note("peak", before.note("before", sample)))
}

fn turn(wire: &mut Wire, phones: &mut Phones, now: Instant) -> Result<()> {
    wire.flush()?;
    if wire.receive()? == 0 {
        std::hint::spin_loop();
    }
    let (received, mut out) = wire.parts();
    for (datagram, from) in received.iter() {
        if let Some(message) = Message::read(datagram) {
            phones.handle(&message, from, now, &mut out);
        } else {
            phones.tally.fault("a datagram that is no SIP".to_owned());
        }
    }
    phones.handle_due(now, &mut out);
    wire.flush()
}

#[derive(Debug)]
struct Phones {
    target: SocketAddrV4,
    text: Template,
    users: Numbers,
    phones: Vec<Phone>,
    /// Of all of them: each keeps its Call-ID.
    serial: u32,
    /// Whose turn it is.
    next: usize,
    live: u64,
    timers: Retransmissions<(Ident, u32)>,
    tally: Tally,
    challenged: Histogram,
}

#[derive(Debug)]
struct Phone {
    credentials: Credentials,
    cseq: u32,
    state: State,
    since: Instant,
    /// The present request, while it waits for its answer.
    request: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Rests,
    Asks,
    Proves,
}

impl Phones {
    fn new(args: &Args, local: SocketAddrV4) -> Self {
        let Args { target, expires, .. } = args;
        let text = format!(
            "REGISTER sip:{target} SIP/2.0\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{{id}}.{{cseq}};rport\n\
             Max-Forwards: 70\nFrom: <sip:{{user}}@{target}>;tag={{id}}\nTo: <sip:{{user}}@{target}>\n\
             Call-ID: {{id}}@{local}\nCSeq: {{cseq}} REGISTER\nContact: <sip:{{user}}@{local}>\n\
             {{extra}}Expires: {expires}\nUser-Agent: tandem-bench\nContent-Length: 0\n\n"
        );
        let users = Numbers::new(&args.user);
        let now = Instant::now();
        let phone = |number| Phone {
            credentials: Credentials::new(
                &String::from_utf8_lossy(&users.number(number)),
                &args.password,
            ),
            cseq: 0,
            state: State::Rests,
            since: now,
            request: vec![],
        };
        Self {
            target: *target,
            text: Template::new(&text, &["id", "user", "cseq", "extra"]),
            phones: (0..args.phones).map(phone).collect(),
            users,
            serial: first_serial(),
            next: 0,
            live: 0,
            timers: Retransmissions::default(),
            tally: Tally::default(),
            challenged: Histogram::default(),
        }
    }

    fn begin(&mut self, now: Instant, out: &mut Outgoing<'_>) {
        let slot = self.next;
        self.next = (self.next + 1) % self.phones.len();
        self.tally.begun += 1;
        if self.phones[slot].state != State::Rests {
            // It has not done with the last time: the target is far behind.
            return self.tally.fail("a phone whose last registration is not over".to_owned());
        }
        self.live += 1;
        self.phones[slot].state = State::Asks;
        self.phones[slot].since = now;
        self.send(slot, b"", now, out);
    }

    fn send(&mut self, slot: usize, extra: &[u8], now: Instant, out: &mut Outgoing<'_>) {
        let phone = &mut self.phones[slot];
        phone.cseq += 1;
        phone.request.clear();
        let ident = Ident { slot: slot as u32, serial: self.serial };
        let (user, cseq) = (self.users.number(slot as u32), phone.cseq.to_string());
        let fields: [&[u8]; 4] = [&ident.text(), &user, cseq.as_bytes(), extra];
        self.text.fill(&fields, &mut phone.request);
        out.send_to(self.target, |buffer| buffer.extend_from_slice(&phone.request));
        self.timers.push(now, (ident, phone.cseq));
    }

    fn handle(
        &mut self,
        message: &Message<'_>,
        from: SocketAddrV4,
        now: Instant,
        out: &mut Outgoing<'_>,
    ) {
        if message.status == 0 {
            // Keep-alives, for example.
            return out.send_to(from, |buffer| message.respond(b"200 OK", b"", buffer));
        }
        let slot = Ident::read(message.dialog.call_id).map_or(usize::MAX, |i| i.slot as usize);
        let Some(phone) = self.phones.get_mut(slot) else {
            return self.tally.fault("a response to nothing of ours".to_owned());
        };
        if message.cseq_number() != phone.cseq || phone.state == State::Rests {
            self.tally.repeated += 1;
            return;
        }
        let took = now.saturating_duration_since(phone.since);
        match (phone.state, message.status) {
            (_, ..200) => {}
            (State::Asks, 401 | 407) => {
                self.challenged.record(took);
                let uri = format!("sip:{}", self.target);
                let mut line = vec![];
                let count = u64::from(phone.cseq);
                let request = (&b"REGISTER"[..], uri.as_bytes());
                if phone.credentials.answer(message, request, count, &mut line) {
                    phone.state = State::Proves;
                    self.send(slot, &line, now, out);
                } else {
                    self.end(slot);
                    self.tally.fail("a challenge that cannot be answered".to_owned());
                }
            }
            (State::Proves, 200..300) => {
                self.tally.setup.record(took);
                self.tally.done += 1;
                self.end(slot);
            }
            (State::Asks | State::Proves | State::Rests, status) => {
                self.end(slot);
                self.tally.fail(format!("{status} to a REGISTER"));
            }
        }
    }

    fn end(&mut self, slot: usize) {
        self.live -= 1;
        self.phones[slot].state = State::Rests;
        self.phones[slot].request = vec![];
    }

    fn handle_due(&mut self, now: Instant, out: &mut Outgoing<'_>) {
        let mut timers = std::mem::take(&mut self.timers);
        timers.handle_due(now, |(ident, cseq), due| {
            let slot = ident.slot as usize;
            let phone = &self.phones[slot];
            if phone.cseq != cseq || phone.state == State::Rests {
                return false;
            }
            match due {
                Due::Again => {
                    self.tally.resent += 1;
                    out.send_to(self.target, |buffer| buffer.extend_from_slice(&phone.request));
                }
                Due::Over => {
                    self.end(slot);
                    self.tally.fail("no final response to a REGISTER".to_owned());
                }
            }
            true
        });
        self.timers = timers;
    }
}
