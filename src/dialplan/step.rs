//! What a rule leads to: steps with every number and name filled in, for the call to carry out.
//!
//! Owns: the steps' shapes and how they print.
//! Never: matches, fills in, or carries out.

use super::{destination::Allow, number::E164};
use std::{fmt, sync::Arc, time::Duration};

/// One thing to do with a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Ring somebody.
    Dial(Arc<Dial>),
    /// Refuse with this status, 400 to 699.
    Reject(u16),
    /// Answer the call.
    Answer,
    /// Play a file (its path, from the folder of the dialplan file on).
    Play(Box<str>),
    /// Send back what is heard until the caller hangs up.
    Echo,
    /// Do nothing for a while.
    Wait(Duration),
    /// End the call.
    Hangup,
    /// Look for a rule again.
    Goto {
        /// What to put into [`super::Query::context`]: a context, or the rest of one.
        context: Box<str>,
        /// What to put into [`super::Query::dialled`].
        number: Box<str>,
    },
}

/// Whom to ring, for how long, and what to do if nobody answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dial {
    /// Tried in order; the targets of one group ring in parallel.
    pub groups: Vec<Vec<Target>>,
    /// How long each group rings.
    pub ring: Duration,
    /// The rule's caller ID; a target's own comes before it.
    pub caller_id: Option<E164>,
    /// What the rule says of calls that leave by a trunk.
    pub limits: Limits,
    /// What to do if no target answers.
    pub on: On,
}

/// What a rule says of its calls by trunks, beside whom to ring.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Where they may go; nothing said: where the user and the trunk allow.
    pub allow: Option<Allow>,
    /// Whether the callee is not to be shown who calls (RFC 3323).
    pub anonymous: bool,
}

/// What follows a dial that nobody answered. Empty: the call ends with the best refusal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct On {
    /// Somebody is busy or declined: 486, 600, 603.
    pub busy: Vec<Step>,
    /// It rang for `ring`, or the far end gave up: 408, 480, 487.
    pub no_answer: Vec<Step>,
    /// Anything else, also a trunk that is down or full.
    pub failed: Vec<Step>,
}

/// Whom to ring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// Every phone that is registered under this user's name.
    User(Box<str>),
    /// A number through a trunk.
    Trunk {
        /// The trunk's name.
        trunk: Box<str>,
        /// The user part of the Request-URI: `+14155550199`, `911`.
        number: Box<str>,
        /// Comes before the rule's, the user's and the trunk's.
        caller_id: Option<E164>,
    },
    /// This SIP URI.
    Uri(Box<str>),
}

impl Step {
    /// Returns whom it rings, if it rings anybody.
    pub fn as_dial(&self) -> Option<&Dial> {
        match self {
            Self::Dial(dial) => Some(dial),
            Self::Reject(_)
            | Self::Answer
            | Self::Play(_)
            | Self::Echo
            | Self::Wait(_)
            | Self::Hangup
            | Self::Goto { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(dial) => dial.fmt(f),
            Self::Reject(status) => write!(f, "reject with {status}"),
            Self::Answer => f.write_str("answer"),
            Self::Play(file) => write!(f, "play {file}"),
            Self::Echo => f.write_str("echo"),
            Self::Wait(time) => write!(f, "wait {time:?}"),
            Self::Hangup => f.write_str("hang up"),
            Self::Goto { context, number } => write!(f, "go to {context} with {number}"),
        }
    }
}

impl fmt::Display for Dial {
    /// One line per group and outcome. Numbers print in full: for the operator's terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in self.groups.iter().enumerate() {
            f.write_str(if index == 0 { "dial " } else { "\nthen dial " })?;
            for (index, target) in group.iter().enumerate() {
                write!(f, "{}{target}", if index == 0 { "" } else { " and " })?;
            }
            write!(f, ", ring {:?}", self.ring)?;
        }
        if let Some(number) = &self.caller_id {
            write!(f, ", caller ID {}", number.expose())?;
        }
        if self.limits.anonymous {
            f.write_str(", anonymous")?;
        }
        let outcomes = [
            ("busy", &self.on.busy),
            ("no answer", &self.on.no_answer),
            ("failed", &self.on.failed),
        ];
        for (outcome, steps) in outcomes {
            for (index, step) in steps.iter().enumerate() {
                let lead = if index == 0 { outcome } else { "then" };
                let text = step.to_string().replace('\n', "\n  ");
                write!(f, "\n  {lead}: {text}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {user}"),
            Self::Trunk { trunk, number, caller_id } => {
                write!(f, "{number} via trunk {trunk}")?;
                caller_id.iter().try_for_each(|id| write!(f, " as {}", id.expose()))
            }
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}
