//! Every INVITE that a call sent to a carrier, and what became of it: for the CDR.
//!
//! Owns: when each began, where it went, its outcome.
//! Never: decides whether another follows.

use super::leg::{By, Refused};
use crate::{
    ids::LegId,
    observe::{
        cdr::{Attempt, AttemptOutcome},
        mask::Text,
    },
    trunk::routes::Hop,
};
use std::time::Instant;

/// The attempts of one call, in the order in which they began.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempts(Vec<Running>);

#[derive(Clone, Debug)]
struct Running {
    leg: LegId,
    began: Instant,
    attempt: Attempt,
    is_over: bool,
}

impl Attempts {
    /// An INVITE goes out.
    pub(super) fn began(
        &mut self,
        (leg, trunk, hop): (LegId, &str, &Hop),
        caller_id: &str,
        after_ms: u64,
        now: Instant,
    ) {
        let attempt = Attempt {
            trunk: trunk.into(),
            host: hop.edge.authority().into_owned(),
            address: hop.flow.text(),
            caller_id: caller_id.into(),
            after_ms,
            took_ms: 0,
            outcome: AttemptOutcome::Abandoned,
            words: None,
        };
        // Most calls have one: the standard growth begins with four.
        self.0.reserve_exact(1);
        self.0.push(Running { leg, began: now, attempt, is_over: false });
    }

    /// The other side accepted.
    pub(super) fn answered(&mut self, leg: LegId, now: Instant) {
        self.ended(leg, (AttemptOutcome::Answered, None), now);
    }

    /// The other side, or the network, said no.
    pub(super) fn refused(&mut self, leg: LegId, refused: &Refused, now: Instant) {
        let (status, reason) = (refused.status, Text(&refused.reason));
        let ending = match refused.by {
            By::Peer => (AttemptOutcome::Refused, Some(format!("{status} {reason}"))),
            By::Silence => (AttemptOutcome::Silent, None),
            By::Transport => (AttemptOutcome::Unreachable, None),
            By::Us => (AttemptOutcome::Abandoned, Some(reason.to_string())),
        };
        self.ended(leg, ending, now);
    }

    fn ended(&mut self, leg: LegId, ending: (AttemptOutcome, Option<String>), now: Instant) {
        if let Some(running) = self.0.iter_mut().find(|running| running.leg == leg) {
            running.end(ending, now);
        }
    }

    /// Returns how many addresses have not answered.
    pub(super) fn unanswered(&self) -> usize {
        let is_it = |running: &&Running| match running.attempt.outcome {
            AttemptOutcome::Silent | AttemptOutcome::Unreachable => true,
            AttemptOutcome::Answered | AttemptOutcome::Refused | AttemptOutcome::Abandoned => false,
        };
        self.0.iter().filter(is_it).count()
    }

    /// Takes the lines of the record; what has no outcome was given up when the call ended.
    pub(super) fn finish(&mut self, now: Instant) -> Vec<Attempt> {
        for running in &mut self.0 {
            running.end((AttemptOutcome::Abandoned, None), now);
        }
        std::mem::take(&mut self.0).into_iter().map(|running| running.attempt).collect()
    }
}

impl Running {
    fn end(&mut self, (outcome, words): (AttemptOutcome, Option<String>), now: Instant) {
        if !std::mem::replace(&mut self.is_over, true) {
            let took = now.saturating_duration_since(self.began).as_millis();
            self.attempt.took_ms = u64::try_from(took).unwrap_or(u64::MAX);
            (self.attempt.outcome, self.attempt.words) = (outcome, words);
        }
    }
}
