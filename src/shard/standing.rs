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
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long news wait, which is what a killed process may lose of them.
const WAITS: Duration = Duration::from_millis(50);

/// Calls of which there is news, the oldest first.
#[derive(Debug, Default)]
pub(super) struct News(VecDeque<(Instant, CallId)>);

impl News {
    pub(super) fn note(&mut self, call: CallId, now: Instant) {
        self.0.push_back((now + WAITS, call));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<CallId> {
        self.0.front().filter(|(at, _)| *at <= now)?;
        self.0.pop_front().map(|(_, call)| call)
    }
}

impl Shard {
    /// Tells of the calls that still go on.
    pub(super) fn tell_news(&mut self, now: Instant) {
        while let Some(call) = self.news.pop_due(now) {
            if let Some(cdr) = self.calls.get(&call).and_then(|call| call.standing()) {
                self.core.effects.push_back(Effect::Record(Record::Running(Box::new(cdr))));
            }
        }
    }
}
