//! Why a guard lets no call pass: a sentence, a stable code, and what to write where.
//!
//! Owns: the words for `G...` codes, and the statuses that go with them.
//! Never: prints a number in full.

use super::Account;
use crate::dialplan::{Country, E164, Kind};
use std::{fmt, time::Duration};

/// Why a call does not leave.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Nobody has a number to call from.
    NoCallerId,
    /// The number to call from is not one of the trunk's.
    NotOwned(E164),
    /// The number to call from lies in a range that is not worth showing, and what that range is.
    Weak(E164, &'static str),
    /// The country is not allowed.
    Country {
        /// Which; `None`: the number belongs to no country.
        country: Option<Country>,
        /// What the number is for.
        kind: Kind,
    },
    /// Numbers of this kind are not allowed.
    Kind(Kind),
    /// It is not a number, and too long for a short one.
    NotANumber,
    /// Calls come faster than `max_rate`, and this one could not wait.
    Rate,
    /// There are as many calls as `max_calls`, and this one could not wait.
    TrunkFull(u32),
    /// So many wait already.
    QueueFull(usize),
    /// Its turn did not come in this time.
    WaitedTooLong(Duration),
    /// A limit of a budget is reached.
    Budget {
        /// Whose.
        whose: Account,
        /// The limit's key.
        key: &'static str,
        /// What it allows.
        limit: u32,
    },
    /// Nobody is to call now.
    OutOfHours {
        /// Who is not.
        whose: Account,
        /// When it would be: named hours.
        hours: Box<str>,
    },
}

/// How soon a caller may try again, in seconds, where waiting helps (RFC 3261 20.33).
const RETRY_AFTER_S: u32 = 10;

impl Refusal {
    /// Returns a code that stays the same across releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoCallerId => "G001",
            Self::NotOwned(_) => "G002",
            Self::Weak(..) => "G003",
            Self::Country { .. } => "G010",
            Self::Kind(_) => "G011",
            Self::NotANumber => "G012",
            Self::Rate => "G020",
            Self::TrunkFull(_) => "G021",
            Self::QueueFull(_) => "G022",
            Self::WaitedTooLong(_) => "G023",
            Self::Budget { .. } => "G030",
            Self::OutOfHours { .. } => "G031",
        }
    }

    /// Returns what the caller's phone is told: status and reason phrase.
    pub fn answer(&self) -> (u16, &'static str) {
        match self {
            Self::NoCallerId | Self::NotOwned(_) | Self::Weak(..) => (403, "Caller ID Not Allowed"),
            Self::Country { .. } => (403, "Country Not Allowed"),
            Self::Kind(_) => (403, "Number Type Not Allowed"),
            Self::NotANumber => (403, "Not A Telephone Number"),
            Self::Rate => (503, "Too Many Calls A Second"),
            Self::TrunkFull(_) => (503, "Trunk Full"),
            Self::QueueFull(_) => (503, "Queue Full"),
            Self::WaitedTooLong(_) => (503, "Waited Too Long"),
            Self::Budget { .. } => (403, "Budget Used Up"),
            Self::OutOfHours { .. } => (403, "Out Of Hours"),
        }
    }

    /// Returns how soon a caller may try again, in seconds, where that helps.
    pub fn retry_after_s(&self) -> Option<u32> {
        (self.answer().0 == 503).then_some(RETRY_AFTER_S)
    }

    /// Returns what to write where.
    pub fn help(&self) -> String {
        match self {
            Self::NoCallerId => "set `caller_id` of the trunk, the user or the rule".to_owned(),
            Self::NotOwned(_) => {
                "add it to `owned` or `verified` of the trunk, or set another `caller_id`".to_owned()
            }
            Self::Weak(..) => {
                "set `caller_ids = { COUNTRY = \"+...\" }` of the trunk or the user".to_owned()
            }
            Self::Country { country: Some(country), .. } => format!(
                "add \"{country}\" to `allow = {{ countries = [...] }}` of the trunk, the user or \
                 the rule"
            ),
            Self::Country { country: None, .. } => {
                "write `allow = { countries = \"any\" }`, or the number into its `numbers`".to_owned()
            }
            Self::Kind(_) => {
                "leave it out of `allow = { deny_types = [...] }`, or write the number into `numbers`"
                    .to_owned()
            }
            Self::NotANumber => "write it into `allow = { numbers = [...] }` if it is meant".to_owned(),
            Self::Rate => "raise `max_rate` if the carrier allows more, or set `queue_for`".to_owned(),
            Self::TrunkFull(_) => {
                "raise `max_calls` if the carrier allows more, or set `queue_for`".to_owned()
            }
            Self::QueueFull(_) => "raise `queue_max`, or `max_rate` and `max_calls`".to_owned(),
            Self::Budget { whose, key, .. } => format!(
                "see who calls what with `tandem cdr` and `tandem budgets`; then raise `{key}`, or \
                 `tandem budgets --reset-{} {}`",
                whose.kind(),
                whose.name()
            ),
            Self::OutOfHours { whose, .. } => format!(
                "change `hours` of the {}, or write `out_of_hours = \"alarm\"`",
                whose.kind()
            ),
            Self::WaitedTooLong(_) => {
                "raise `queue_for`, or `max_rate` and `max_calls` if the carrier allows more".to_owned()
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCallerId => f.write_str("there is no number to call from"),
            Self::NotOwned(number) => write!(f, "{number} is neither owned nor verified there"),
            Self::Weak(number, what) => {
                write!(f, "{number} is not worth showing there: it is one of the {what}")
            }
            Self::Country { country: Some(country), .. } => {
                write!(f, "calls to {country} are not allowed")
            }
            Self::Country { country: None, kind } => {
                write!(f, "calls to {kind} numbers of no country are not allowed")
            }
            Self::Kind(kind) => write!(f, "calls to {kind} numbers are not allowed"),
            Self::NotANumber => f.write_str("what was dialled is not a telephone number"),
            Self::Rate => f.write_str("calls come faster than `max_rate`"),
            Self::TrunkFull(max) => {
                write!(f, "it carries {max} calls, which is all of `max_calls`")
            }
            Self::QueueFull(waiting) => write!(f, "{waiting} calls wait for it already"),
            Self::Budget { whose, key, limit } => {
                write!(f, "{whose} has used up its budget: `{key} = {limit}`")
            }
            Self::OutOfHours { whose, hours } => {
                write!(f, "{whose} does not call outside of the hours `{hours}`")
            }
            Self::WaitedTooLong(waited) => {
                write!(f, "its turn did not come within {} s", waited.as_secs())
            }
        }
    }
}
