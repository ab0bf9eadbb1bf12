//! More comes than can be done: new work is refused while it is still cheap (RFC 5390, RFC 7339).
//!
//! Owns: what is refused, and the answer.
//! Never: measures how much there is to do; the shell sees what waits. Keeps anything of what it refuses.

use super::{Output, Shard};
use crate::{
    ids::{Flow, Mint},
    observe::metrics,
    sip::{Builder, HeaderName, Message, Method, Uri, default_reason},
};
use memchr::memmem;
use std::{ops::Range, time::Instant};

/// When whoever is refused may come again, in seconds: at random, so that they do not come together.
const CALL_AGAIN_S: Range<u64> = 1..10;
/// Phones that come back after an outage can wait longer than people who dial.
const REGISTER_AGAIN_S: Range<u64> = 5..60;
/// How often the log speaks of it.
const EVERY_S: u64 = 60;

/// Whether, and how much of it was told.
#[derive(Debug, Default)]
pub(super) struct Overload {
    is_on: bool,
    refused: u64,
    /// In the To of every answer: they have no state that could tell them apart, and their ACKs are
    /// known by it.
    tag: Box<str>,
    /// When the log told last, and how many had been refused by then.
    told: Option<(Instant, u64)>,
}

impl Overload {
    pub(super) fn new(mint: &mut Mint) -> Self {
        Self { tag: mint.tag().into(), ..Self::default() }
    }

    /// Returns whether this is the ACK of a refusal. Nobody waits for it, and there are as many as
    /// refusals: it is not even read.
    pub(super) fn is_ack_of_refusal(&self, bytes: &[u8]) -> bool {
        self.refused > 0
            && bytes.starts_with(b"ACK ")
            && memmem::find(bytes, self.tag.as_bytes()).is_some()
    }

    /// Tells once a minute.
    fn tell(&mut self, now: Instant) {
        let is_due =
            |(at, _): (Instant, u64)| now.saturating_duration_since(at).as_secs() >= EVERY_S;
        if self.told.is_none_or(is_due) {
            let before = self.told.map_or(0, |(_, refused)| refused);
            let refused = self.refused.saturating_sub(before);
            tracing::warn!(refused, "overloaded: new calls and registrations are refused");
            self.told = Some((now, self.refused));
        }
    }
}

impl Shard {
    /// Learns whether more waits than can be done in time.
    pub fn set_overloaded(&mut self, is_on: bool) {
        self.overload.is_on = is_on;
    }

    /// Refuses what would be new work, without state, if there is too much of it. What belongs to a
    /// call, repeats a request or calls for help is never refused. Returns whether it was.
    pub(super) fn is_shed(&mut self, message: &Message, flow: Flow, now: Instant) -> bool {
        if !self.overload.is_on || !message.is_request() || message.to_tag().is_some() {
            return false;
        }
        let again_s = match message.method() {
            Method::Invite => CALL_AGAIN_S,
            Method::Register => REGISTER_AGAIN_S,
            // Cheap, or of no use without a call that is up.
            Method::Ack
            | Method::Bye
            | Method::Cancel
            | Method::Info
            | Method::Message
            | Method::Notify
            | Method::Options
            | Method::Prack
            | Method::Publish
            | Method::Refer
            | Method::Subscribe
            | Method::Update
            | Method::Other => return false,
        };
        if self.core.tx.knows(message) || self.is_for_help(message) {
            return false;
        }
        let span = again_s.end.saturating_sub(again_s.start);
        let again_s = again_s.start.saturating_add(self.core.entropy.below(span));
        let tag = Some(&*self.overload.tag);
        let mut reply = Builder::reply(message, 503, default_reason(503), tag, flow.remote);
        reply.number(HeaderName::RetryAfter, again_s);
        self.overload.refused = self.overload.refused.saturating_add(1);
        self.counters.discards.count("overload");
        self.overload.tell(now);
        self.counters.responses_sent.count(metrics::Shard::class(503));
        self.out.push_back(Output::Transmit { flow, bytes: reply.finish() });
        true
    }

    /// Returns whether somebody calls for help.
    pub(super) fn is_for_help(&self, message: &Message) -> bool {
        let user = Uri::parse(message.uri()).and_then(|uri| uri.user);
        user.is_some_and(|user| self.core.shared.config.emergency.is(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        shard::tests::{USERS, flow, invite, shard},
        sim::epoch,
    };
    use bytes::Bytes;

    /// What the shard answers at once.
    fn answers(shard: &mut Shard, text: &str, now: Instant) -> Vec<Message> {
        shard.handle_message(flow(), Bytes::from(text.to_owned()), now);
        let sent = std::iter::from_fn(|| shard.poll_output()).filter_map(|output| match output {
            Output::Transmit { bytes, .. } => Some(Message::parse(bytes).unwrap()),
            Output::Pass { .. } | Output::Media(..) | Output::Ask(_) | Output::Record(_) => None,
        });
        sent.collect()
    }

    fn statuses(shard: &mut Shard, text: &str, now: Instant) -> Vec<u16> {
        answers(shard, text, now).iter().map(Message::status).collect()
    }

    #[test]
    fn new_work_is_refused_and_nothing_of_it_kept() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        shard.set_overloaded(true);
        let register = invite("r").replace("INVITE", "REGISTER");
        for (text, again_s) in [(invite("one"), CALL_AGAIN_S), (register, REGISTER_AGAIN_S)] {
            let first = answers(&mut shard, &text, now);
            let [refusal] = &first[..] else { panic!("{first:?}") };
            assert_eq!(refusal.status(), 503);
            assert!(again_s.contains(&refusal.number(HeaderName::RetryAfter).unwrap().into()));
            let copy = answers(&mut shard, &text, now);
            assert_eq!(copy[0].to_tag(), refusal.to_tag(), "the same for a copy");
            let tag =
                format!("{};tag={}", "<sip:+14155550100@10.0.0.1>", refusal.to_tag().unwrap());
            let ack = text.replace("INVITE", "ACK").replace("<sip:+14155550100@10.0.0.1>", &tag);
            if text.starts_with("INVITE") {
                assert_eq!(statuses(&mut shard, &ack, now), [0; 0]);
            }
        }
        assert!(shard.is_empty());
        shard.set_overloaded(false);
        assert_eq!(statuses(&mut shard, &invite("two"), now)[0], 100);
    }

    #[test]
    fn what_is_under_way_and_what_calls_for_help_is_not() {
        let now = epoch();
        let mut shard = shard(USERS, now);
        assert_eq!(statuses(&mut shard, &invite("one"), now)[0], 100);
        shard.set_overloaded(true);
        assert_eq!(statuses(&mut shard, &invite("one"), now), [100], "a copy");
        let cancel = invite("one").replace("INVITE", "CANCEL");
        assert!(statuses(&mut shard, &cancel, now).contains(&200));
        let help = invite("two").replace("sip:+14155550100@", "sip:112@");
        assert_eq!(statuses(&mut shard, &help, now)[0], 100);
        let options = invite("three").replace("INVITE", "OPTIONS");
        assert_eq!(statuses(&mut shard, &options, now), [200]);
    }
}
