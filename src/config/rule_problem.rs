//! What can be wrong with a dialplan: a sentence, a stable code, and what to write instead.
//!
//! Owns: the words for `D...` codes.
//! Never: finds anything wrong itself.

use super::report::Severity;
use crate::dialplan::{PatternError, TemplateError};
use std::borrow::Cow;

/// What can be wrong with a rule, hours or a test case.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's sentence is its documentation")]
pub enum RuleError {
    #[error("{0}")]
    Pattern(PatternError),
    #[error("{0}")]
    Template(TemplateError),
    #[error("no group of `match` is called `{0}`")]
    NoGroup(Box<str>),
    #[error("the rule does nothing")]
    NoAction,
    #[error("nothing can come after `{0}`")]
    AfterLast(&'static str),
    #[error("{0} is not a status between 400 and 699")]
    Status(i64),
    #[error("`{0}` is not something to dial")]
    Target(Box<str>),
    #[error("a target is one of `user`, `trunk` and `uri`")]
    TargetKeys,
    #[error("there is no user `{name}`")]
    NoUser { name: Box<str>, near: Option<Box<str>> },
    #[error("there is no trunk `{name}`")]
    NoTrunk { name: Box<str>, near: Option<Box<str>> },
    #[error("there is no context `{name}`")]
    NoContext { name: Box<str>, near: Option<Box<str>> },
    #[error("there are no hours `{name}`")]
    NoHours { name: Box<str>, near: Option<Box<str>> },
    #[error("there is nobody to dial")]
    NobodyToDial,
    #[error(
        "a list of targets rings all of them, a list of lists one after the other; this is both"
    )]
    MixedGroups,
    #[error("`{0}` without `dial`")]
    WithoutDial(&'static str),
    #[error("`steps` already says what to do")]
    StepsAndMore,
    #[error("`false` does nothing")]
    False,
    #[error("only \"next\" can stand here instead of a table")]
    NotNext,
    #[error("this rule is never reached: `{by}` takes every number that it would")]
    Unreachable { by: Box<str> },
    #[error("this goes round in a circle: {path}")]
    Loop { path: Box<str> },
    #[error("rules are a list: `[[{0}.rule]]`")]
    NotAList(Box<str>),
    #[error("two rules are called `{0}`")]
    NameTwice(Box<str>),
    #[error("`{0}` is not a day of the week")]
    Days(Box<str>),
    #[error("`{0}` is not a span of the day")]
    Times(Box<str>),
    #[error("`{0}` is not a day of the calendar")]
    Holiday(Box<str>),
    #[error("there is no file `{0}`")]
    NoFile(Box<str>),
    #[error("`{0}` is not a date and time")]
    At(Box<str>),
    #[error("the case wants nothing")]
    WantsNothing,
    #[error("there are no rules: every call is refused with 404")]
    NoRules,
}

impl RuleError {
    /// Returns a code that stays the same across releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pattern(_) => "D001",
            Self::Template(_) => "D002",
            Self::NoGroup(_) => "D003",
            Self::NoAction => "D004",
            Self::AfterLast(_) => "D005",
            Self::Status(_) => "D006",
            Self::Target(_) => "D007",
            Self::TargetKeys => "D008",
            Self::NoUser { .. } => "D009",
            Self::NoTrunk { .. } => "D010",
            Self::NoContext { .. } => "D011",
            Self::NoHours { .. } => "D012",
            Self::NobodyToDial => "D013",
            Self::MixedGroups => "D014",
            Self::WithoutDial(_) => "D015",
            Self::StepsAndMore => "D016",
            Self::False => "D017",
            Self::NotNext => "D018",
            Self::Unreachable { .. } => "D019",
            Self::Loop { .. } => "D020",
            Self::NotAList(_) => "D021",
            Self::NameTwice(_) => "D022",
            Self::Days(_) => "D023",
            Self::Times(_) => "D024",
            Self::Holiday(_) => "D025",
            Self::NoFile(_) => "D026",
            Self::At(_) => "D027",
            Self::WantsNothing => "D028",
            Self::NoRules => "D029",
        }
    }

    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        if *self == Self::NoRules { Severity::Warning } else { Severity::Error }
    }

    /// Returns what to write instead.
    pub fn help(&self) -> Option<Cow<'static, str>> {
        let fixed = match self {
            Self::NoUser { near: Some(near), .. }
            | Self::NoTrunk { near: Some(near), .. }
            | Self::NoContext { near: Some(near), .. }
            | Self::NoHours { near: Some(near), .. } => {
                return Some(format!("did you mean `{near}`?").into());
            }
            Self::NoUser { name, near: None } => {
                return Some(format!("add a `[user.{name}]`").into());
            }
            Self::NoTrunk { name, near: None } => {
                return Some(format!("add a `[trunk.{name}]`").into());
            }
            Self::NoContext { name, near: None } => {
                return Some(format!("add a `[[{name}.rule]]`").into());
            }
            Self::NoHours { name, near: None } => {
                let keys = "`days = \"mon-fri\"` and `times = \"09:00-17:00\"`";
                return Some(format!("add `[hours.{name}]` with {keys}").into());
            }
            Self::Pattern(_) => {
                "write a number (\"1001\"), a pattern (\"_1XXX\", \"_+.\") or \"re:'...'\""
            }
            Self::Template(_) => "`{number}`, `{from}`, `{dialled}`, or a named group of `match`",
            Self::NoGroup(_) => "name it in every `re:` of `match`: \"re:'9(?<rest>.*)'\"",
            Self::NoAction => {
                "add `dial`, `reject`, `answer`, `play`, `echo`, `wait`, `hangup`, `goto` or `steps`"
            }
            Self::AfterLast(_) => "what follows a dial nobody answers is said by `on` and `else`",
            Self::Status(_) => "486 is busy, 480 unavailable, 403 forbidden, 404 unknown",
            Self::NobodyToDial => "leave `dial` out, or put a target into the list",
            Self::Target(_) => {
                "write \"user:1001\", \"trunk:NAME\", \"trunk:NAME/{number}\" or \"sip:name@host\""
            }
            Self::TargetKeys => {
                "write { trunk = \"NAME\", number = \"{number}\" }, { user = \"1001\" } or { uri = ... }"
            }
            Self::MixedGroups => "write [[\"user:1001\"], [\"user:1002\", \"user:1003\"]]",
            Self::WithoutDial(_) => "it says how to dial, or what to do if nobody answers",
            Self::StepsAndMore => "put everything into `steps`, in order",
            Self::False => "leave the key out",
            Self::NotNext => "write \"next\" to go on with the rules below, or { play = ... }",
            Self::Unreachable { .. } => "move it above, or remove it",
            Self::Loop { .. } => "send the number somewhere else, or change it on the way",
            Self::NotAList(_) => "write the brackets twice",
            Self::NameTwice(_) => "logs and CDRs tell rules apart by their names",
            Self::Days(_) => "write \"mon-fri\", or [\"mon\", \"wed\"]",
            Self::Times(_) => "write \"09:00-17:30\", or \"22:00-06:00\" across midnight",
            Self::Holiday(_) => "write \"2026-12-25\", or \"12-25\" for every year",
            Self::NoFile(_) => "paths are relative to the dialplan file",
            Self::At(_) => "write \"2026-12-25 10:30\"",
            Self::WantsNothing => "add `rule`, `to`, `via`, `caller_id` or `rejected`",
            Self::NoRules => "name files with `[[internal.rule]]` in `dialplan = [...]`",
        };
        Some(fixed.into())
    }
}
