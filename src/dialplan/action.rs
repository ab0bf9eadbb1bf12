//! What a rule says to do, with placeholders where a call's numbers go.
//!
//! Owns: placeholders, and turning actions into [`Step`]s for one call.
//! Never: decides whether the rule applies.

use super::{
    AFTER,
    number::{Country, E164},
    pattern::Pattern,
    step::{Dial, Limits, On, Step, Target},
};
use std::{fmt, sync::Arc, time::Duration};

/// A [`Step`] before a call fills it in.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// See [`Step::Dial`].
    Dial(Ring),
    /// See [`Step::Reject`].
    Reject(u16),
    /// See [`Step::Answer`].
    Answer,
    /// See [`Step::Play`].
    Play(Template),
    /// See [`Step::Echo`].
    Echo,
    /// See [`Step::Wait`].
    Wait(Duration),
    /// See [`Step::Hangup`].
    Hangup,
    /// See [`Step::Goto`].
    Goto {
        /// The context.
        context: Box<str>,
        /// What to look up there.
        number: Template,
    },
    /// Go on with the rules after this one.
    Next,
}

/// A [`Dial`] before a call fills it in.
#[derive(Clone, Debug, PartialEq)]
pub struct Ring {
    /// See [`Dial::groups`].
    pub groups: Vec<Vec<Callee>>,
    /// See [`Dial::ring`].
    pub ring: Duration,
    /// See [`Dial::caller_id`].
    pub caller_id: Option<E164>,
    /// See [`Dial::limits`].
    pub limits: Limits,
    /// See [`On::busy`].
    pub busy: Vec<Action>,
    /// See [`On::no_answer`].
    pub no_answer: Vec<Action>,
    /// See [`On::failed`].
    pub failed: Vec<Action>,
}

/// A [`Target`] before a call fills it in.
#[derive(Clone, Debug, PartialEq)]
pub enum Callee {
    /// See [`Target::User`].
    User(Template),
    /// See [`Target::Trunk`].
    Trunk {
        /// The trunk's name.
        trunk: Box<str>,
        /// The number; `{number}` unless the rule rewrites it.
        number: Template,
        /// See [`Target::Trunk`].
        caller_id: Option<E164>,
        /// Whether the trunk takes numbers in E.164 form only, short ones aside.
        e164: bool,
    },
    /// See [`Target::Uri`].
    Uri(Template),
}

/// Text with placeholders: `{number}`, `{from}`, `{dialled}`, and `{name}` of a group of the
/// expression that matched; `{number:1}` leaves out the first character.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    Text(Box<str>),
    Value { value: Value, skip: usize },
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Value {
    Number,
    From,
    Dialled,
    Group(Box<str>),
}

/// Why a text is not a [`Template`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// `{number`
    #[error("`{{` without its `}}`")]
    Open,
    /// `number}`
    #[error("`}}` without its `{{`")]
    Close,
    /// `{}` or `{number:x}`
    #[error("`{{{0}}}` is not a placeholder")]
    Placeholder(Box<str>),
}

/// One call as the rule that matched saw it.
#[derive(Clone, Copy)]
pub(super) struct Filling<'a> {
    /// The form of the number that matched: as dialled, or E.164.
    pub number: &'a str,
    /// As it was dialled.
    pub dialled: &'a str,
    /// Who calls.
    pub from: &'a str,
    /// What matched.
    pub pattern: &'a Pattern,
    /// Where, for numbers that a rule writes.
    pub country: Country,
    /// Where to go on after this rule: the context, and how many of its rules to leave out.
    pub next: (&'a str, usize),
}

impl Template {
    /// Reads a text with placeholders.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = vec![];
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            push_text(&mut pieces, before)?;
            let (name, after) = after.split_once('}').ok_or(TemplateError::Open)?;
            pieces.push(placeholder(name)?);
            rest = after;
        }
        push_text(&mut pieces, rest)?;
        Ok(Self(pieces))
    }

    /// Returns the text, if it has no placeholders.
    pub fn literal(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the names of the groups that it wants of the expression.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Value { value: Value::Group(name), .. } => Some(&**name),
            Piece::Value { value: Value::Number | Value::From | Value::Dialled, .. }
            | Piece::Text(_) => None,
        })
    }

    fn fill(&self, call: Filling<'_>) -> Box<str> {
        match self.0.as_slice() {
            [only] => only.fill(call).into(),
            pieces => pieces.iter().map(|piece| piece.fill(call)).collect::<String>().into(),
        }
    }
}

impl Piece {
    fn fill<'a>(&'a self, call: Filling<'a>) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Value { value, skip } => {
                let value = match value {
                    Value::Number => call.number,
                    Value::From => call.from,
                    Value::Dialled => call.dialled,
                    Value::Group(name) => call.pattern.group(name, call.number).unwrap_or_default(),
                };
                let from = value.char_indices().nth(*skip).map_or(value.len(), |(from, _)| from);
                value.get(from..).unwrap_or_default()
            }
        }
    }
}

impl Default for Template {
    /// `{number}`
    fn default() -> Self {
        Self(vec![Piece::Value { value: Value::Number, skip: 0 }])
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Value { value, skip } => {
                let name = match value {
                    Value::Number => "number",
                    Value::From => "from",
                    Value::Dialled => "dialled",
                    Value::Group(name) => name,
                };
                if *skip == 0 { write!(f, "{{{name}}}") } else { write!(f, "{{{name}:{skip}}}") }
            }
        })
    }
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) -> Result<(), TemplateError> {
    if text.contains('}') {
        return Err(TemplateError::Close);
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Ok(())
}

fn placeholder(text: &str) -> Result<Piece, TemplateError> {
    let wrong = || TemplateError::Placeholder(text.into());
    let (name, skip) = match text.split_once(':') {
        Some((name, skip)) => (name, skip.parse().map_err(|_| wrong())?),
        None => (text, 0),
    };
    let value = match name {
        "number" => Value::Number,
        "from" => Value::From,
        "dialled" => Value::Dialled,
        name if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            return Err(wrong());
        }
        name => Value::Group(name.into()),
    };
    Ok(Piece::Value { value, skip })
}

/// Fills in one call's numbers.
pub(super) fn fill(actions: &[Action], call: Filling<'_>) -> Vec<Step> {
    actions.iter().map(|action| action.fill(call)).collect()
}

impl Action {
    fn fill(&self, call: Filling<'_>) -> Step {
        match self {
            Self::Dial(ring) => Step::Dial(Arc::new(ring.fill(call))),
            Self::Reject(status) => Step::Reject(*status),
            Self::Answer => Step::Answer,
            Self::Play(file) => Step::Play(file.fill(call)),
            Self::Echo => Step::Echo,
            Self::Wait(time) => Step::Wait(*time),
            Self::Hangup => Step::Hangup,
            Self::Goto { context, number } => {
                Step::Goto { context: context.clone(), number: number.fill(call) }
            }
            Self::Next => {
                let (context, skip) = call.next;
                let context = format!("{context}{AFTER}{skip}").into();
                Step::Goto { context, number: call.dialled.into() }
            }
        }
    }

    /// Returns the key that writes it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Dial(_) => "dial",
            Self::Reject(_) => "reject",
            Self::Answer => "answer",
            Self::Play(_) => "play",
            Self::Echo => "echo",
            Self::Wait(_) => "wait",
            Self::Hangup => "hangup",
            Self::Goto { .. } => "goto",
            Self::Next => "next",
        }
    }

    /// Returns whether nothing can follow this action.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Dial(_)
            | Self::Reject(_)
            | Self::Echo
            | Self::Hangup
            | Self::Goto { .. }
            | Self::Next => true,
            Self::Answer | Self::Play(_) | Self::Wait(_) => false,
        }
    }
}

impl Default for Ring {
    /// Nobody, for a minute.
    fn default() -> Self {
        Self {
            groups: vec![],
            ring: Duration::from_secs(60),
            caller_id: None,
            limits: Limits::default(),
            busy: vec![],
            no_answer: vec![],
            failed: vec![],
        }
    }
}

impl Ring {
    fn fill(&self, call: Filling<'_>) -> Dial {
        let group = |group: &Vec<Callee>| group.iter().map(|callee| callee.fill(call)).collect();
        Dial {
            groups: self.groups.iter().map(group).collect(),
            ring: self.ring,
            caller_id: self.caller_id.clone(),
            limits: self.limits.clone(),
            on: On {
                busy: fill(&self.busy, call),
                no_answer: fill(&self.no_answer, call),
                failed: fill(&self.failed, call),
            },
        }
    }
}

impl Callee {
    fn fill(&self, call: Filling<'_>) -> Target {
        match self {
            Self::User(name) => Target::User(name.fill(call)),
            Self::Uri(uri) => Target::Uri(uri.fill(call)),
            Self::Trunk { trunk, number, caller_id, e164 } => {
                let number = number.fill(call);
                let normal = if *e164 { call.country.normalise(&number) } else { None };
                Target::Trunk {
                    trunk: trunk.clone(),
                    number: normal.map_or(number, |normal| normal.expose().into()),
                    caller_id: caller_id.clone(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled() {
        let pattern = Pattern::parse("re:'9(?<rest>.*)'").unwrap();
        let call = Filling {
            number: "9123",
            dialled: "9-123",
            from: "1001",
            pattern: &pattern,
            country: Country::US,
            next: ("internal", 1),
        };
        for (template, want) in [
            ("{number}", "9123"),
            ("{number:1}", "123"),
            ("+1{rest}", "+1123"),
            ("{from}/{dialled}", "1001/9-123"),
            ("plain", "plain"),
            ("{number:99}", ""),
            ("", ""),
        ] {
            let template_read = Template::parse(template).unwrap();
            assert_eq!(&*template_read.fill(call), want, "{template}");
            assert_eq!(template_read.to_string(), template);
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (template, want) in [
            ("{number", "`{` without its `}`"),
            ("number}", "`}` without its `{`"),
            ("{}", "`{}` is not a placeholder"),
            ("{number:x}", "`{number:x}` is not a placeholder"),
            ("{a b}", "`{a b}` is not a placeholder"),
        ] {
            assert_eq!(Template::parse(template).unwrap_err().to_string(), want);
        }
    }
}
