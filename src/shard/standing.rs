//! Calls that go on, told to the store a moment after there is news of them: many are over by then, and
//! what is known of a call is not copied for nothing.
//!
//! Owns: of which calls there is news, and since when.
//! Never: tells of a call that has ended; its record does.

use super::Shard;
use crate::{
    call::{Effect, Record},
    ids::CallId,
};
use std::time::{Duration, Instant};

/// How long the oldest news wait, which is what a killed process may lose of them. All others are told with
/// them: a deadline for each call would be one for each turn of the shard.
const WAITS: Duration = Duration::from_millis(50);

/// Calls of which there is news.
#[derive(Debug, Default)]
pub(super) struct News {
    calls: Vec<CallId>,
    tell_at: Option<Instant>,
}

impl News {
    pub(super) fn note(&mut self, call: CallId, now: Instant) {
        self.tell_at.get_or_insert(now + WAITS);
        self.calls.push(call);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.tell_at
    }

    fn take_due(&mut self, now: Instant) -> Vec<CallId> {
        if self.tell_at.is_none_or(|at| at > now) {
            return vec![];
        }
        self.tell_at = None;
        std::mem::take(&mut self.calls)
    }
}

impl Shard {
    /// Tells of the calls that still go on.
    pub(super) fn tell_news(&mut self, now: Instant) {
        for call in self.news.take_due(now) {
            if let Some(cdr) = self.calls.get(&call).and_then(|call| call.standing()) {
                self.core.effects.push_back(Effect::Record(Record::Running(Box::new(cdr))));
            }
        }
    }
}
