//! `floor-b2bua`: the least that a B2BUA can do, as the floor below which nothing can be.
//!
//! Owns: a table of calls and one socket. Never: a transaction, a timer, a check, media.
//!
//! What comes from the callee's address goes to the caller, and the other way round, with the headers
//! of the other dialog. Bodies go through. A REGISTER is challenged, and then believed.

use crate::{
    ident::Ident,
    message::{self, Message},
    udp::{Outgoing, Wire},
};
use anyhow::Result;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::{collections::HashMap, net::SocketAddrV4};

/// Where it is, and whom it calls.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where it listens.
    #[arg(long, default_value = "127.0.0.1:5060")]
    pub listen: SocketAddrV4,
    /// Where all calls go.
    #[arg(long, default_value = "127.0.0.20:5060")]
    pub callee: SocketAddrV4,
    /// The forced From.
    #[arg(long, default_value = "+17756187988")]
    pub from_user: String,
}

/// Serves until it is killed.
///
/// # Errors
/// If the address cannot be bound.
pub fn run(args: &Args) -> Result<()> {
    let mut wire = Wire::bind(args.listen)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&wire, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    let mut floor = Floor {
        listen: wire.local(),
        callee: args.callee,
        from_user: args.from_user.clone(),
        calls: vec![],
        free: vec![],
        slots: HashMap::new(),
        serial: 0,
    };
    let mut events = [EpollEvent::empty()];
    loop {
        // A signal may interrupt it; then nothing is received.
        let _ = epoll.wait(&mut events, EpollTimeout::NONE);
        while wire.receive()? > 0 {
            let (received, mut out) = wire.parts();
            for (datagram, from) in received.iter() {
                if let Some(message) = Message::read(datagram) {
                    floor.handle(&message, from, &mut out);
                }
            }
            wire.flush()?;
        }
    }
}

struct Floor {
    listen: SocketAddrV4,
    callee: SocketAddrV4,
    from_user: String,
    calls: Vec<Call>,
    free: Vec<u32>,
    /// Callers' Call-IDs.
    slots: HashMap<Vec<u8>, u32>,
    serial: u32,
}

/// What one side's messages need of the other's.
#[derive(Default)]
struct Call {
    /// A Call-ID is of one call only.
    serial: u32,
    caller: Option<SocketAddrV4>,
    call_id: Vec<u8>,
    /// Via, From, To, Call-ID and CSeq of the caller's request, as lines; To without a tag.
    head: Vec<u8>,
    /// The callee's To and Contact.
    to: Vec<u8>,
    contact: Vec<u8>,
}

impl Floor {
    fn handle(&mut self, message: &Message<'_>, from: SocketAddrV4, out: &mut Outgoing<'_>) {
        match (message.status, message.method()) {
            (0, b"INVITE") => self.handle_invite(message, from, out),
            (0, b"ACK" | b"BYE") => self.pass_request(message, out),
            (0, b"REGISTER") => self.register(message, from, out),
            (0, _) => out.send_to(from, |buffer| message.respond(b"200 OK", b"f", buffer)),
            _ => self.pass_response(message, out),
        }
    }

    fn handle_invite(&mut self, message: &Message<'_>, from: SocketAddrV4, out: &mut Outgoing<'_>) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.calls.push(Call::default());
            (self.calls.len() - 1) as u32
        });
        self.slots.insert(message.dialog.call_id.to_vec(), slot);
        out.send_to(from, |buffer| message.respond(b"100 Trying", b"", buffer));
        let call = &mut self.calls[slot as usize];
        self.serial = self.serial.wrapping_add(1);
        call.serial = self.serial;
        call.caller = Some(from);
        call.call_id.clear();
        call.call_id.extend_from_slice(message.dialog.call_id);
        write_head(message, &mut call.head);
        let id = Ident { slot, serial: call.serial }.text();
        let Self { listen, callee, from_user, .. } = self;
        let number = message::user(message::uri(message.dialog.to));
        out.send_to(*callee, |buffer| {
            buffer.extend_from_slice(b"INVITE sip:");
            buffer.extend_from_slice(number);
            push(buffer, format_args!("@{callee} SIP/2.0\r\n"));
            own_head(buffer, *listen, &id, b"INVITE");
            push(buffer, format_args!("From: <sip:{from_user}@{listen}>;tag=f\r\nTo: <sip:"));
            buffer.extend_from_slice(number);
            push(buffer, format_args!("@{callee}>\r\nContact: <sip:{listen}>\r\n"));
            write_body(message, buffer);
        });
    }

    fn pass_request(&mut self, message: &Message<'_>, out: &mut Outgoing<'_>) {
        let Some(slot) = self.slots.get(message.dialog.call_id) else { return };
        let slot = *slot;
        let call = &mut self.calls[slot as usize];
        let id = Ident { slot, serial: call.serial }.text();
        let method = message.method();
        if method == b"BYE" {
            write_head(message, &mut call.head);
        }
        let (listen, from_user) = (self.listen, &self.from_user);
        out.send_to(self.callee, |buffer| {
            buffer.extend_from_slice(method);
            buffer.push(b' ');
            buffer.extend_from_slice(&call.contact);
            buffer.extend_from_slice(b" SIP/2.0\r\n");
            own_head(buffer, listen, &id, method);
            push(buffer, format_args!("From: <sip:{from_user}@{listen}>;tag=f\r\n"));
            message::line(b"To", &call.to, buffer);
            buffer.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        });
    }

    fn pass_response(&mut self, message: &Message<'_>, out: &mut Outgoing<'_>) {
        let Some(ident) = Ident::read(message.dialog.call_id) else { return };
        let Some(call) = self.calls.get_mut(ident.slot as usize) else { return };
        let Some(caller) = call.caller else { return };
        if message.method() == b"INVITE" {
            call.to.clear();
            call.to.extend_from_slice(message.dialog.to);
            call.contact.clear();
            call.contact.extend_from_slice(message::uri(message.dialog.contact));
        }
        let listen = self.listen;
        out.send_to(caller, |buffer| {
            buffer.extend_from_slice(message.start);
            buffer.extend_from_slice(b"\r\n");
            buffer.extend_from_slice(&call.head);
            push(buffer, format_args!("Contact: <sip:{listen}>\r\n"));
            write_body(message, buffer);
        });
        if message.method() == b"BYE" {
            call.caller = None;
            self.slots.remove(&call.call_id);
            self.free.push(ident.slot);
        }
    }

    fn register(&self, message: &Message<'_>, from: SocketAddrV4, out: &mut Outgoing<'_>) {
        out.send_to(from, |buffer| {
            if message.credentials.is_empty() {
                let at = buffer.len();
                message.respond(b"401 Unauthorized", b"f", buffer);
                // In place of the empty line.
                buffer.truncate(buffer.len() - 2);
                let nonce = buffer.len() - at;
                push(buffer, format_args!("WWW-Authenticate: Digest realm=\"floor\", "));
                push(buffer, format_args!("nonce=\"{nonce}\", qop=\"auth\"\r\n\r\n"));
            } else {
                message.respond_in_dialog(b"200 OK", b"f", "<sip:floor>;expires=3600", "", buffer);
            }
        });
    }
}

fn push(buffer: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = std::io::Write::write_fmt(buffer, text);
}

fn own_head(buffer: &mut Vec<u8>, listen: SocketAddrV4, id: &[u8], method: &[u8]) {
    push(buffer, format_args!("Via: SIP/2.0/UDP {listen};branch=z9hG4bK"));
    buffer.extend_from_slice(id);
    buffer.extend_from_slice(method);
    buffer.extend_from_slice(b"\r\nMax-Forwards: 70\r\nCall-ID: ");
    buffer.extend_from_slice(id);
    let number = if method == b"BYE" { 2 } else { 1 };
    push(buffer, format_args!("@{listen}\r\nCSeq: {number} "));
    buffer.extend_from_slice(method);
    buffer.extend_from_slice(b"\r\n");
}

fn write_head(message: &Message<'_>, head: &mut Vec<u8>) {
    head.clear();
    message.via.write(b"Via", head);
    message::line(b"From", message.dialog.from, head);
    let to = message.dialog.to;
    let tag: &[u8] = if message::tag(to).is_none() { b";tag=f" } else { b"" };
    head.extend_from_slice(b"To: ");
    head.extend_from_slice(to);
    head.extend_from_slice(tag);
    head.extend_from_slice(b"\r\n");
    message::line(b"Call-ID", message.dialog.call_id, head);
    message::line(b"CSeq", message.dialog.cseq, head);
}

fn write_body(message: &Message<'_>, buffer: &mut Vec<u8>) {
    if !message.content_type.is_empty() {
        message::line(b"Content-Type", message.content_type, buffer);
    }
    push(buffer, format_args!("Content-Length: {}\r\n\r\n", message.body.len()));
    buffer.extend_from_slice(message.body);
}
