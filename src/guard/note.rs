//! What two processes of an upgrade tell each other, so that how fast calls leave and what may be used hold for both
//! together.
//!
//! Owns: these words, and those that nobody has asked for yet.
//! Never: counts anything; [`super::Watch`] does.

use super::budget::{Account, Spent};
use crate::{dialplan::Country, ids::LegId};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// A change of what is counted. When it was, is told beside it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Note {
    /// A call left by a trunk.
    Left {
        /// Its name.
        trunk: Box<str>,
    },
    /// What an account has used, beside what else is told.
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

/// What was counted since somebody asked, while there is anybody to be told.
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

    /// Returns what was counted.
    pub fn take(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}

/// Returns how long ago something was, in milliseconds: processes have no clock in common.
pub fn ago_ms(at: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)
}

/// Returns when that was.
pub fn before(now: Instant, ago_ms: u64) -> Instant {
    now.checked_sub(Duration::from_millis(ago_ms)).unwrap_or(now)
}
