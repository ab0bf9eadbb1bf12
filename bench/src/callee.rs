//! The side that is called: rings, answers at once, and looks at every INVITE.
//!
//! Owns: its calls and their timers. Never: waits, or reads a clock.

use crate::{
    delay::{Due, Retransmissions},
    message::{self, Message},
    tally::Tally,
    udp::{Outgoing, Wire},
};
use anyhow::Result;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::SocketAddrV4,
    time::Instant,
};

/// What the called side expects and says.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The user that every From must name.
    pub from_user: Option<String>,
    /// The answer.
    pub sdp: String,
}

/// All calls that are answered.
#[derive(Debug)]
pub struct Callee {
    wire: Wire,
    calls: Calls,
}

#[derive(Debug)]
struct Calls {
    plan: Plan,
    contact: String,
    calls: HashMap<u64, Call, BuildHasherDefault<Already>>,
    timers: Retransmissions<u64>,
    tally: Tally,
}

#[derive(Debug)]
struct Call {
    from: SocketAddrV4,
    /// The 200, until its ACK has come.
    answer: Vec<u8>,
}

/// The key is a hash already.
#[derive(Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// FNV-1a, stirred: a table takes its place from one end of it and its fingerprint from the other.
fn key_of(call_id: &[u8]) -> u64 {
    let hash = call_id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Callee {
    /// Binds the called side's address.
    ///
    /// # Errors
    /// If that cannot be bound.
    pub fn new(local: SocketAddrV4, plan: Plan) -> Result<Self> {
        let wire = Wire::bind(local)?;
        let contact = format!("<sip:{}>", wire.local());
        let (timers, tally) = (Retransmissions::default(), Tally::default());
        Ok(Self { wire, calls: Calls { plan, contact, calls: HashMap::default(), timers, tally } })
    }

    /// Handles what has arrived and what is due, sends, and tells how many datagrams came.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn turn(&mut self, now: Instant) -> Result<usize> {
        let came = self.wire.receive()?;
        let (received, mut out) = self.wire.parts();
        for (datagram, from) in received.iter() {
            if let Some(message) = Message::read(datagram) {
                self.calls.handle(&message, from, now, &mut out);
            } else {
                self.calls.tally.fault("a datagram at the callee that is no SIP".to_owned());
            }
        }
        self.calls.handle_due(now, &mut out);
        self.wire.flush()?;
        Ok(came)
    }

    /// What became of them.
    pub fn tally(&self) -> &Tally {
        &self.calls.tally
    }
}

impl Calls {
    fn handle(
        &mut self,
        message: &Message<'_>,
        from: SocketAddrV4,
        now: Instant,
        out: &mut Outgoing<'_>,
    ) {
        if message.status != 0 {
            return self.tally.fault("a response at the callee".to_owned());
        }
        let key = key_of(message.dialog.call_id);
        match message.method() {
            b"INVITE" => self.handle_invite(key, message, from, now, out),
            b"ACK" => match self.calls.get_mut(&key) {
                Some(call) if !call.answer.is_empty() => call.answer = Vec::new(),
                Some(_) | None => self.tally.repeated += 1,
            },
            b"BYE" => {
                if let Some(call) = self.calls.remove(&key) {
                    if !call.answer.is_empty() {
                        self.tally.fault("a BYE before the ACK".to_owned());
                    }
                } else {
                    self.tally.repeated += 1;
                }
                out.send_to(from, |buffer| message.respond(b"200 OK", b"", buffer));
            }
            other => {
                if other != b"OPTIONS" {
                    let method = String::from_utf8_lossy(other);
                    self.tally.fault(format!("{method} at the callee"));
                }
                out.send_to(from, |buffer| message.respond(b"200 OK", b"", buffer));
            }
        }
    }

    fn handle_invite(
        &mut self,
        key: u64,
        message: &Message<'_>,
        from: SocketAddrV4,
        now: Instant,
        out: &mut Outgoing<'_>,
    ) {
        if let Some(call) = self.calls.get(&key) {
            self.tally.repeated += 1;
            return out.send_to(from, |buffer| buffer.extend_from_slice(&call.answer));
        }
        self.check(message);
        let tag = format!("{key:016x}");
        out.send_to(from, |buffer| {
            message.respond_in_dialog(b"180 Ringing", tag.as_bytes(), &self.contact, "", buffer);
        });
        let mut answer = Vec::with_capacity(1024);
        let sdp = &self.plan.sdp;
        message.respond_in_dialog(b"200 OK", tag.as_bytes(), &self.contact, sdp, &mut answer);
        out.send_to(from, |buffer| buffer.extend_from_slice(&answer));
        self.calls.insert(key, Call { from, answer });
        self.timers.push(now, key);
    }

    fn check(&mut self, message: &Message<'_>) {
        if let Err(lacks) = message.check_invite() {
            self.tally.fault(format!("an INVITE with {lacks}"));
        }
        if let Some(expected) = &self.plan.from_user {
            let user = message::user(message::uri(message.dialog.from));
            if user != expected.as_bytes() {
                let user = String::from_utf8_lossy(user);
                self.tally.fault(format!("a From of {user:?}, which must be {expected:?}"));
            }
        }
    }

    fn handle_due(&mut self, now: Instant, out: &mut Outgoing<'_>) {
        let (calls, tally) = (&mut self.calls, &mut self.tally);
        self.timers.handle_due(now, |key, due| {
            let Some(call) = calls.get(&key).filter(|call| !call.answer.is_empty()) else {
                return false;
            };
            match due {
                Due::Again => {
                    tally.resent += 1;
                    out.send_to(call.from, |buffer| buffer.extend_from_slice(&call.answer));
                }
                Due::Over => {
                    tally.fault("no ACK of a 200".to_owned());
                    calls.remove(&key);
                }
            }
            true
        });
    }
}
