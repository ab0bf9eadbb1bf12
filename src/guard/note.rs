//! What two processes of an upgrade tell each other, so that how fast calls leave and what may be used hold for both
//! together.
//!
//! Owns: these words, and those that were not told yet.
//! Never: counts anything; [`super::Watch`] does.

use super::budget::{Account, Spent};
use crate::{dialplan::Country, ids::LegId};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A change of what is counted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Note {
    /// A call left by a trunk.
    Left {
        /// Its name.
        trunk: Box<str>,
        /// How long ago, in milliseconds.
        ago_ms: u64,
    },
    /// What an account had used until then.
    Spent {
        /// Whose.
        account: Account,
        /// How much.
        spent: Spent,
    },
    /// Who pays for a leg; the call is counted already.
    PaidBy {
        /// Which.
        leg: LegId,
        /// Who.
        accounts: Vec<Account>,
    },
    /// As [`super::Watch::charge`].
    Charged {
        /// Which.
        leg: LegId,
        /// Who pays.
        accounts: Vec<Account>,
        /// Where it goes.
        country: Option<Country>,
    },
    /// As [`super::Watch::pass_on`].
    PassedOn {
        /// From this leg.
        from: LegId,
        /// To this one.
        to: LegId,
    },
    /// As [`super::Watch::answered`].
    Answered {
        /// Which.
        leg: LegId,
    },
    /// As [`super::Watch::ended`].
    Ended {
        /// Which.
        leg: LegId,
    },
}

/// What the others are to be told, while there are any.
#[derive(Debug, Default)]
pub struct Journal {
    is_kept: bool,
    notes: Vec<Note>,
}

impl Journal {
    /// Begins to keep it, or ends.
    pub fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// Keeps a note, if any are kept.
    pub fn note(&mut self, note: impl FnOnce() -> Note) {
        if self.is_kept {
            self.notes.push(note());
        }
    }

    /// Returns what is to be told.
    pub fn take(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

/// Returns how long ago something was, in milliseconds.
pub(super) fn ago_ms(at: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)
}

/// Returns when that was.
pub(super) fn before(now: Instant, ago_ms: u64) -> Instant {
    now.checked_sub(Duration::from_millis(ago_ms)).unwrap_or(now)
}
