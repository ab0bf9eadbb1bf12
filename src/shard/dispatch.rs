//! Whose an event of the transaction layer is: a call's, a probe's, or nobody's.
//!
//! Owns: finding the owner by our tag, or by the transaction; the end of answers that come too late.
//! Never: acts on any other message; the owner does.

use super::{Core, Shard, admission::Refusal};
use crate::{
    call::By,
    dialog::{Dialog, Reach, contact_uri},
    ids::Flow,
    sip::{Builder, HeaderName, Message, Method},
    transaction::{self, ClientId, ServerId},
};
use bytes::Bytes;
use std::time::Instant;

impl Shard {
    pub(super) fn on_event(&mut self, event: transaction::Event, now: Instant) {
        use transaction::Event;
        match event {
            Event::Request { tx, message, flow } => self.on_request(tx, message, flow, now),
            Event::Cancel { tx, message } => {
                if let Some(owner) = self.invites.get(tx).copied() {
                    self.step(owner.call, now, |call, wire| {
                        call.on_cancel(owner.leg, &message, wire);
                    });
                }
            }
            Event::Ack { message, flow } => self.on_ack(&message, flow, now),
            // The leg has sent its refusal and is gone; the peer will find out by itself.
            Event::NeverAcked { .. } => self.counters.discards.count("never_acked"),
            Event::Response { tx, message, flow } => self.on_response(tx, &message, flow, now),
            Event::Timeout { tx } => {
                self.counters.timeouts += 1;
                self.on_failure(tx, By::Silence, now);
            }
            Event::SendFailed { tx } => self.on_failure(tx, By::Transport, now),
        }
    }

    /// A request belongs to a dialog of ours by its To tag, or is new.
    fn on_request(&mut self, tx: ServerId, message: Message, flow: Flow, now: Instant) {
        let Some(tag) = message.to_tag() else { return self.admit(tx, message, flow, now) };
        let owner = self.core.names.owner_of(tag).filter(|owner| {
            let leg = self.calls.get(&owner.call).and_then(|call| call.leg(owner.leg));
            leg.is_some_and(|leg| leg.owns(&message))
        });
        match owner {
            Some(owner) => {
                if message.method() == Method::Invite {
                    self.say_trying(tx, &message, flow, now);
                }
                self.step(owner.call, now, |call, wire| {
                    call.on_request(owner.leg, (tx, &message, flow), wire);
                });
            }
            None if message.method() == Method::Options => {
                self.answer_options(tx, &message, flow);
            }
            None => self.turn_away(tx, &message, flow, &Refusal::plain(481)),
        }
    }

    fn on_ack(&mut self, ack: &Message, _flow: Flow, now: Instant) {
        let owner = ack.to_tag().and_then(|tag| self.core.names.owner_of(tag));
        match owner {
            Some(owner) => {
                self.step(owner.call, now, |call, wire| call.on_ack(owner.leg, ack, wire));
            }
            // Of a refusal of which we have kept nothing.
            None if ack.to_tag() == Some(&*self.core.mint.tag_of(ack.call_id())) => {}
            None => self.counters.discards.count("stray_ack"),
        }
    }

    fn on_response(&mut self, tx: ClientId, response: &Message, flow: Flow, now: Instant) {
        let is_success = response.method() == Method::Invite && response.status() / 100 == 2;
        let acked =
            response.to_tag().filter(|_| is_success).and_then(|tag| self.core.acks.find(tx, tag));
        if let Some((flow, ack)) = acked {
            if let Some(owner) = self.core.owners.get(tx).copied() {
                self.step(owner.call, now, |call, wire| call.on_repeated_answer(owner.leg, wire));
            }
            return self.transmit(flow, ack, now);
        }
        if self.probes.contains_key(&tx) {
            return self.probe_answered(tx, response, flow, now);
        }
        if self.pings.has(tx) {
            return self.ping_answered(tx, response, now);
        }
        match self.core.owners.get(tx).copied() {
            Some(owner) => {
                self.call_answered(owner, tx, flow, now);
                self.learn_from_call(owner, response, flow);
                self.step(owner.call, now, |call, wire| {
                    call.on_response(owner.leg, (tx, response, flow), wire);
                });
            }
            None if is_success && self.core.hang_up_fork(tx, response, flow, now) => {}
            None => self.counters.discards.count("stray_response"),
        }
    }

    fn on_failure(&mut self, tx: ClientId, by: By, now: Instant) {
        if self.probes.contains_key(&tx) {
            return self.probe_failed(tx, now);
        }
        if self.pings.has(tx) {
            return self.ping_failed(tx, now);
        }
        if let Some(owner) = self.core.owners.get(tx).copied() {
            self.call_failed(owner, tx, by, now);
            self.step(owner.call, now, |call, wire| call.on_failure(owner.leg, tx, by, wire));
        }
    }
}

impl Core {
    /// Acknowledges and ends an answer to an INVITE of ours whose leg is gone: another fork behind the
    /// peer picked up late (RFC 3261 13.2.2.4). All that is needed is in the response; it goes back
    /// the way it came. A re-INVITE's late answer is acknowledged, and no more: its leg has sent its
    /// BYE. Returns false where it cannot be answered, or there are too many.
    fn hang_up_fork(&mut self, tx: ClientId, response: &Message, flow: Flow, now: Instant) -> bool {
        if contact_uri(response).is_none() || !self.acks.has_room(tx) {
            return false;
        }
        let mut dialog = Dialog::from_response(response, response, flow, Reach::Flow);
        let mut wire = self.wire(now);
        let via = wire.via(flow);
        let reinvite = wire.tx.sent(tx).filter(|invite| invite.to_tag().is_some());
        let ack = match &reinvite {
            None => dialog.ack(response.cseq().number, via.text()).finish(),
            Some(invite) => late_ack(invite, via.text()),
        };
        wire.acks.keep(tx, &dialog.remote_tag, flow, ack.clone(), now);
        wire.send(flow, ack);
        if reinvite.is_some() {
            return true;
        }
        let via = wire.via(flow);
        dialog.skip_forgotten();
        let mut bye = dialog.request(Method::Bye, via.text());
        bye.header(HeaderName::Reason, "SIP;cause=487;text=\"Call is over\"");
        wire.tx.request(bye.finish(), via.branch(), Method::Bye, flow, now, wire.sent);
        true
    }
}

/// Writes the ACK of a 2xx to a re-INVITE from the re-INVITE: the dialog is gone, its route set and
/// target are in there.
fn late_ack(invite: &Message, via: &str) -> Bytes {
    let mut ack = Builder::request(Method::Ack.as_str(), invite.uri());
    ack.header(HeaderName::Via, via)
        .header(HeaderName::MaxForwards, 70)
        .copy(invite, HeaderName::Route)
        .copy(invite, HeaderName::From)
        .copy(invite, HeaderName::To)
        .copy(invite, HeaderName::CallId)
        .header(HeaderName::CSeq, format_args!("{} ACK", invite.cseq().number));
    ack.finish()
}
