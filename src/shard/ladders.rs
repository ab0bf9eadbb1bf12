//! The ladders of running calls: every message of theirs, as it came and went.
//!
//! Owns: a bounded ladder for each call.
//! Never: keeps more of a message than its start line, CSeq and whether it had a body.

use crate::{
    ids::CallId,
    observe::ladder::{Ladder, Line, Rungs},
    sip::Message,
};
use bytes::Bytes;
use std::{collections::BTreeMap, time::Instant};

/// What this program is called in ladders.
const US: &str = "tandem";
/// How many messages may wait for their call to be known: the 100 to its INVITE.
const UNCLAIMED_MAX: usize = 4;

/// Which call a Call-ID belongs to, and what the peer of that leg is called.
pub(super) type CallIds = BTreeMap<Box<str>, (CallId, Box<str>)>;

/// The ladders of one shard.
#[derive(Debug, Default)]
pub(super) struct Ladders {
    running: BTreeMap<CallId, Ladder>,
    /// Sent before the call was known, in this step.
    unclaimed: Vec<(Box<str>, Line)>,
}

impl Ladders {
    /// Begins a call's ladder with its INVITE.
    pub(super) fn begin(&mut self, call: CallId, name: &str, invite: &Message, now: Instant) {
        let mut ladder = Ladder::new(now);
        ladder.record(name, US, line(invite), now);
        for (call_id, line) in self.unclaimed.drain(..) {
            if *call_id == *invite.call_id() {
                ladder.record(US, name, line, now);
            }
        }
        self.running.insert(call, ladder);
    }

    /// Notes a message from a peer.
    pub(super) fn received(&mut self, message: &Message, ids: &CallIds, now: Instant) {
        if let Some((call, name)) = ids.get(message.call_id())
            && let Some(ladder) = self.running.get_mut(call)
        {
            ladder.record(name, US, line(message), now);
        }
    }

    /// Notes a message to a peer.
    pub(super) fn sent(&mut self, bytes: &Bytes, ids: &CallIds, now: Instant) {
        // Only what we built ourselves comes here, so it can be read.
        let Ok(message) = Message::parse(bytes.clone()) else { return };
        let known = ids.get(message.call_id());
        match known.and_then(|(call, name)| Some((self.running.get_mut(call)?, name))) {
            Some((ladder, name)) => ladder.record(US, name, line(&message), now),
            None if message.status() == 100 && self.unclaimed.len() < UNCLAIMED_MAX => {
                self.unclaimed.push((message.call_id().into(), line(&message)));
            }
            None => {}
        }
    }

    /// Ends a step: what nobody claimed was no call's.
    pub(super) fn forget_unclaimed(&mut self) {
        self.unclaimed.clear();
    }

    /// Returns the ladder of a running call.
    pub(super) fn of(&self, call: CallId) -> Option<Rungs> {
        self.running.get(&call).map(Ladder::rungs)
    }

    /// Ends a call's ladder.
    pub(super) fn take(&mut self, call: CallId) -> Option<Rungs> {
        self.running.remove(&call).map(|ladder| ladder.rungs())
    }
}

fn line(message: &Message) -> Line {
    let cseq = message.cseq().number;
    let line = if message.is_request() {
        Line::request(message.method_token(), cseq)
    } else {
        let reason = String::from_utf8_lossy(message.reason());
        Line::response(message.status(), &reason, message.method().as_str(), cseq)
    };
    line.with_sdp(message.content_type_is("application/sdp") && !message.body().is_empty())
}

/// Reads the status of a response that we built; `None` of a request.
pub(super) fn status_of(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
