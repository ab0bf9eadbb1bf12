//! The ladders of running calls: every message of theirs, as it came and went.
//!
//! Owns: a bounded ladder for each call; which are worth keeping once their call is over.
//! Never: keeps more of a message than its start line, CSeq and whether it had a body.

use crate::{
    call::Names,
    ids::CallId,
    observe::ladder::{Ladder, Line, Rungs},
    sip::{Glance, Message},
    table::Table,
};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// What this program is called in ladders.
const US: &str = "tandem";
/// How many messages may wait for their call to be known: the 100 to its INVITE.
const UNCLAIMED_MAX: usize = 4;
/// Of calls that went well, so many ladders of each second are kept: those of the newest 10,000 calls are in the
/// store, which would be two seconds of a busy node, and cost it more than their records.
const KEPT_PER_S: u32 = 400;

/// The ladders of one shard.
#[derive(Debug, Default)]
pub(super) struct Ladders {
    running: Table<CallId, Ladder>,
    /// Sent before the call was known, in this step.
    unclaimed: Vec<Bytes>,
    /// Since when those are counted that were kept, and how many there were.
    kept: Option<(Instant, u32)>,
}

impl Ladders {
    /// Begins a call's ladder with its INVITE.
    pub(super) fn begin(&mut self, call: CallId, name: &str, invite: &Message, now: Instant) {
        let mut ladder = Ladder::new(now);
        ladder.record(name, US, line(invite), now);
        for bytes in self.unclaimed.drain(..) {
            if let Some(sent) = Glance::of(&bytes)
                && sent.call_id == invite.call_id()
            {
                ladder.record(US, name, line_of(&sent), now);
            }
        }
        self.running.insert(call, ladder);
    }

    /// Notes a message from a peer.
    pub(super) fn received(&mut self, message: &Message, names: &Names, now: Instant) {
        if !self.running.is_empty()
            && let Some((call, name)) = names.call_of(message.call_id())
            && let Some(ladder) = self.running.get_mut(call)
        {
            ladder.record(name, US, line(message), now);
        }
    }

    /// Notes a message to a peer.
    pub(super) fn sent(&mut self, bytes: &Bytes, names: &Names, now: Instant) {
        if self.running.is_empty() && status_of(bytes) != Some(100) {
            return;
        }
        // Only what we built ourselves comes here, so it can be read.
        let Some(sent) = Glance::of(bytes) else { return };
        let known = names.call_of(sent.call_id);
        match known.and_then(|(call, name)| Some((self.running.get_mut(call)?, name))) {
            Some((ladder, name)) => ladder.record(US, name, line_of(&sent), now),
            None if sent.status == 100 && self.unclaimed.len() < UNCLAIMED_MAX => {
                self.unclaimed.push(bytes.clone());
            }
            None => {}
        }
    }

    /// Ends a step: what nobody claimed was no call's.
    pub(super) fn forget_unclaimed(&mut self) {
        self.unclaimed.clear();
    }

    /// Returns the ladder of a call that is over, if it is worth keeping: every one that failed is.
    pub(super) fn keep(&mut self, call: CallId, is_failed: bool, now: Instant) -> Option<Rungs> {
        let second = Duration::from_secs(1);
        let is_new = |since: Instant| now.saturating_duration_since(since) >= second;
        let (since, kept) = self.kept.filter(|(since, _)| !is_new(*since)).unwrap_or((now, 0));
        if !is_failed && kept >= KEPT_PER_S {
            return None;
        }
        self.kept = Some((since, kept.saturating_add(u32::from(!is_failed))));
        self.of(call)
    }

    /// Returns the ladder of a running call.
    pub(super) fn of(&self, call: CallId) -> Option<Rungs> {
        self.running.get(call).map(Ladder::rungs)
    }

    /// Ends a call's ladder.
    pub(super) fn forget(&mut self, call: CallId) {
        self.running.remove(call);
    }
}

fn line(message: &Message) -> Line<'_> {
    let cseq = message.cseq().number;
    let line = if message.is_request() {
        Line::request(message.method_token(), cseq)
    } else {
        let reason = String::from_utf8_lossy(message.reason());
        Line::response(message.status(), reason, message.method().as_str(), cseq)
    };
    line.with_sdp(message.content_type_is("application/sdp") && !message.body().is_empty())
}

fn line_of<'m>(sent: &Glance<'m>) -> Line<'m> {
    let Glance { status, reason, method, cseq, has_sdp, .. } = *sent;
    let line = match status {
        0 => Line::request(method, cseq),
        status => Line::response(status, reason, method, cseq),
    };
    line.with_sdp(has_sdp)
}

/// Reads the status of a response that we built; `None` of a request.
pub(super) fn status_of(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    digits.iter().try_fold(0, |status, digit| match digit {
        b'0'..=b'9' => Some(status * 10 + u16::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::ShardId, sim::epoch};

    #[test]
    fn where_too_many_calls_end_those_that_failed_leave_their_ladders() {
        let mut ladders = Ladders::default();
        let begin = epoch();
        let mut kept = |calls: u32, is_failed, ms| {
            let now = begin + Duration::from_millis(ms);
            let all = (0..calls).filter(|n| {
                let call = CallId::new(ShardId(0), (*n).into());
                ladders.running.insert(call, Ladder::new(begin));
                ladders.keep(call, is_failed, now).is_some()
            });
            all.count()
        };
        let most = KEPT_PER_S as usize;
        assert_eq!(kept(300, false, 0), 300);
        assert_eq!(kept(300, false, 500), most - 300);
        assert_eq!(kept(300, false, 999), 0);
        assert_eq!(kept(1000, true, 999), 1000, "they are what is asked for");
        assert_eq!(kept(1000, false, 1000), most);
        assert_eq!(kept(1000, false, 5000), most);
    }
}
