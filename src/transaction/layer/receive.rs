//! What comes from peers, each kind on its way to its transaction.
//!
//! Owns: what is answered before there is a transaction, and what is nobody's.
//! Never: takes a step of a machine by itself.

use super::Layer;
use crate::{
    ids::Flow,
    sip::{Builder, HeaderName, Message, Method, default_reason},
    transaction::{
        Class, ClientInput, Discard, ServerInput,
        event::{Event, Output},
        matching::{ClientKey, MergeKey, ServerKey},
        server::Server,
    },
};
use std::time::Instant;

/// What an overloaded layer asks for, in seconds.
const RETRY_AFTER_S: u8 = 5;

impl Layer {
    /// A request that is new, other than ACK and CANCEL.
    pub(super) fn receive_request(
        &mut self,
        message: Message,
        key: ServerKey,
        flow: Flow,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if !self.has_room() {
            self.discards.count(Discard::Overload);
            let mut reply = self.reply(&message, 503, key, flow);
            reply.header(HeaderName::RetryAfter, RETRY_AFTER_S);
            out.push(Output::Send { flow, bytes: reply.finish() });
            return;
        }
        let merge = MergeKey::of(&message, self.mint.key());
        if self.servers.is_merged(merge) {
            self.discards.count(Discard::Merged);
            let bytes = self.reply(&message, 482, key, flow).finish();
            let tx = self.open(&message, (key, merge), flow);
            self.respond(tx, 482, bytes, now, out);
            return;
        }
        let tx = self.open(&message, (key, merge), flow);
        if message.method() == Method::Invite && self.says_trying {
            // RFC 3261 17.2.1 allows 200 ms; at once, the caller stops retransmitting.
            let trying = Builder::reply(&message, 100, default_reason(100), None, flow.remote);
            self.respond(tx, 100, trying.finish(), now, out);
        }
        out.push(Output::Event(Event::Request { tx, message, flow }));
    }

    pub(super) fn receive_ack(
        &mut self,
        message: Message,
        flow: Flow,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        match self.servers.find(ServerKey::of(&message, self.mint.key())) {
            Some(tx) => {
                let cause = Some((&message, flow));
                self.step_server(tx, Some(ServerInput::Ack), cause, now, out);
            }
            None => out.push(Output::Event(Event::Ack { message, flow })),
        }
    }

    /// A CANCEL that is new (RFC 3261 9.2).
    pub(super) fn receive_cancel(
        &mut self,
        message: Message,
        key: ServerKey,
        flow: Flow,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let invite = ServerKey::of_cancelled(&message, self.mint.key());
        let Some(invite) = self.servers.find(invite) else {
            self.discards.count(Discard::StrayCancel);
            let bytes = self.reply(&message, 481, key, flow).finish();
            out.push(Output::Send { flow, bytes });
            return;
        };
        let tag = self.tag_of_answer(invite);
        let tag = tag.unwrap_or_else(|| self.mint.tag_of_digest(key.digest()));
        let ok = Builder::reply(&message, 200, default_reason(200), Some(&tag), flow.remote);
        if !self.has_room() {
            out.push(Output::Send { flow, bytes: ok.finish() });
        } else {
            let merge = MergeKey::of(&message, self.mint.key());
            let tx = self.open(&message, (key, merge), flow);
            self.respond(tx, 200, ok.finish(), now, out);
        }
        if self.servers.get(invite).is_some_and(Server::is_pending_invite) {
            out.push(Output::Event(Event::Cancel { tx: invite, message }));
        }
    }

    pub(super) fn receive_response(
        &mut self,
        message: &Message,
        flow: Flow,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let key = ClientKey::of(message, self.mint.key());
        match self.clients.find(key, message.cseq().method) {
            Some(tx) => {
                let input = ClientInput::Response(Class::of(message.status()));
                self.step_client(tx, Some(input), Some((message, flow)), now, out);
            }
            None => self.discards.count(Discard::StrayResponse),
        }
    }
}
