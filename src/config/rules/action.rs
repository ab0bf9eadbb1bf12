//! What a rule does: `dial`, `reject`, `answer`, `play`, `echo`, `wait`, `hangup`, `goto`, `steps`.
//!
//! Owns: how actions are written, alone, in a row, and under `on` and `else`.
//! Never: carries one out.

use super::{
    super::{
        checked::Trunk,
        guards,
        problem::Problem,
        raw::{Entry, Kind, Span, Value},
        rule_problem::RuleError,
        section::{Reading, Section, items, table},
        source::beside,
        values::{duration_within, e164, flag, integer, text},
    },
    Names, near,
};
use crate::{
    dialplan::{Action, Callee, E164, Limits, Pattern, Ring, Template},
    sip::{Scheme, Uri},
};
use std::sync::Arc;

/// In a rule or a step, at least one of these.
const ACTIONS: [&str; 9] =
    ["dial", "reject", "answer", "play", "echo", "wait", "hangup", "goto", "steps"];
/// These only with `dial`.
const OF_DIAL: [&str; 6] = ["ring", "caller_id", "allow", "anonymous", "on", "else"];

/// What an action may name.
pub(super) struct Scope<'a> {
    pub(super) names: &'a Names,
    /// The rule's `match`, whose groups are placeholders.
    pub(super) patterns: &'a [Pattern],
}

/// Returns whether anything is said about what to do, right or wrong.
pub(super) fn has_any(section: &Section<'_, '_, '_>) -> bool {
    ACTIONS.iter().any(|key| section.has(key))
}

/// Reads the actions of a rule or a step, in the order in which they are written.
pub(super) fn actions(section: &mut Section<'_, '_, '_>, scope: &Scope<'_>) -> Vec<Action> {
    let written = section.in_order(&ACTIONS);
    let modifiers = section.in_order(&OF_DIAL);
    if !section.has("dial") {
        for (key, entry) in modifiers {
            section.reading.problem(&entry.key_span, RuleError::WithoutDial(key));
        }
    }
    if section.has("steps") {
        for (_, entry) in written.iter().filter(|(key, _)| *key != "steps") {
            section.reading.problem(&entry.key_span, RuleError::StepsAndMore);
        }
    }
    let mut actions = vec![];
    for (key, entry) in written {
        let read = match key {
            "steps" => rows(&entry.value, scope, section.reading),
            _ => action(key, entry, section, scope).into_iter().collect(),
        };
        append(&mut actions, read, &entry.key_span, section.reading);
    }
    actions
}

/// Appends actions, unless what is there already ends the call or hands it on.
fn append(actions: &mut Vec<Action>, more: Vec<Action>, span: &Span, reading: &mut Reading<'_>) {
    if let Some(last) = actions.last().filter(|last| last.is_last())
        && !more.is_empty()
    {
        reading.problem(span, RuleError::AfterLast(last.key()));
    }
    actions.extend(more);
}

fn action(
    key: &'static str,
    entry: &Entry,
    section: &mut Section<'_, '_, '_>,
    scope: &Scope<'_>,
) -> Option<Action> {
    let (value, span) = (&entry.value, &entry.value.span);
    match key {
        "dial" => dial(value, section, scope).map(Action::Dial),
        "reject" => {
            let status = integer(i64::MIN, i64::MAX)(value);
            let status = section.reading.keep(span, status)?;
            let allowed = u16::try_from(status).ok().filter(|s| (400..=699).contains(s));
            let allowed = allowed.ok_or(RuleError::Status(status));
            section.reading.keep(span, allowed).map(Action::Reject)
        }
        "play" => play(value, scope, section.reading).map(Action::Play),
        "wait" => {
            let time = duration_within("0s", "1h")(value);
            section.reading.keep(span, time).map(Action::Wait)
        }
        "goto" => goto(value, scope, section.reading),
        "answer" => yes(value, section.reading).then_some(Action::Answer),
        "echo" => yes(value, section.reading).then_some(Action::Echo),
        _ => yes(value, section.reading).then_some(Action::Hangup),
    }
}

/// Reads `true`; there is no other way to say it.
fn yes(value: &Value, reading: &mut Reading<'_>) -> bool {
    match reading.keep(&value.span, flag(value)) {
        Some(true) => true,
        Some(false) => {
            reading.problem(&value.span, RuleError::False);
            false
        }
        None => false,
    }
}

/// Reads a table of actions, a list of such tables, or "next".
fn follow(value: &Value, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Vec<Action> {
    if let Kind::Text(word) = &value.kind {
        if **word == *"next" {
            return vec![Action::Next];
        }
        reading.problem(&value.span, RuleError::NotNext);
        return vec![];
    }
    rows(value, scope, reading)
}

/// Reads tables of actions, one after the other.
fn rows(value: &Value, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Vec<Action> {
    let mut all = vec![];
    for value in items(value) {
        let Some(table) = reading.keep(&value.span, table(value)) else { continue };
        let title = ("rule", "this table".to_owned());
        let mut section = Section::new(table, &value.span, title, reading);
        let read = actions(&mut section, scope);
        if read.is_empty() && !has_any(&section) {
            section.reading.problem(&value.span, RuleError::NoAction);
        }
        section.finish();
        append(&mut all, read, &value.span, reading);
    }
    all
}

fn dial(value: &Value, section: &mut Section<'_, '_, '_>, scope: &Scope<'_>) -> Option<Ring> {
    let groups = groups(value, scope, section.reading);
    let default = Ring::default();
    let ring = section.or("ring", default.ring, duration_within("1s", "10m"));
    let caller_id = section.optional("caller_id", e164(scope.names.country));
    if let Some(number) = &caller_id {
        let span = section.span_of("caller_id");
        check_caller_id(number, &groups, &span, (scope, section.reading));
    }
    let limits =
        Limits { allow: guards::allow(section), anonymous: section.or("anonymous", false, flag) };
    let otherwise = section
        .entry("else")
        .map(|entry| follow(&entry.value, scope, section.reading))
        .unwrap_or_default();

    let on = section.entry("on");
    let title = ("on", "`on`".to_owned());
    let mut on = Section::open(on, title, section.reading);
    let mut outcome = |key| match on.entry(key) {
        Some(entry) => follow(&entry.value, scope, on.reading),
        None => otherwise.clone(),
    };
    let (busy, no_answer, failed) = (outcome("busy"), outcome("no_answer"), outcome("failed"));
    on.finish();
    (!groups.is_empty()).then_some(Ring {
        groups,
        ring,
        caller_id,
        limits,
        busy,
        no_answer,
        failed,
    })
}

/// Reads a target; a list, which rings in parallel; or a list of lists, which are tried in order.
fn groups(value: &Value, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Vec<Vec<Callee>> {
    let all = items(value);
    let lists = all.iter().filter(|value| matches!(value.kind, Kind::List(_))).count();
    if lists != 0 && lists != all.len() {
        reading.problem(&value.span, RuleError::MixedGroups);
        return vec![];
    }
    let written = if lists == 0 { std::slice::from_ref(value) } else { all };
    let mut groups = vec![];
    for group in written {
        let callees = items(group);
        if callees.is_empty() {
            reading.problem(&group.span, RuleError::NobodyToDial);
        }
        let callees = callees.iter().filter_map(|value| callee(value, scope, reading));
        groups.push(callees.collect::<Vec<_>>());
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Reads `"user:1001"`, `"trunk:twilio/{number}"`, `"sip:bob@example.com"` or a table.
fn callee(value: &Value, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Option<Callee> {
    let span = &value.span;
    let Kind::Text(written) = &value.kind else { return callee_table(value, scope, reading) };
    match written.split_once(':') {
        Some(("user", name)) => user(name, span, scope, reading),
        Some(("trunk", rest)) => {
            let (name, number) = match rest.split_once('/') {
                Some((name, number)) => (name, template(number, span, scope, reading)?),
                None => (rest, Template::default()),
            };
            trunk(name, number, None, span, (scope, reading))
        }
        Some(("sip", _)) => uri(written, span, scope, reading),
        Some(_) | None => {
            reading.problem(span, RuleError::Target(written.clone()));
            None
        }
    }
}

fn callee_table(value: &Value, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Option<Callee> {
    let table = reading.keep(&value.span, table(value))?;
    let title = ("dial", "a target".to_owned());
    let mut section = Section::new(table, &value.span, title, reading);
    let named = section.in_order(&["user", "trunk", "uri"]);
    let number = section.optional("number", text);
    let caller_id = section.optional("caller_id", e164(scope.names.country));
    let number_span = section.span_of("number");
    let caller_id_span = section.span_of("caller_id");

    let callee = match named.as_slice() {
        [(key, entry)] => {
            let span = &entry.value.span;
            let name = section.reading.keep(span, text(&entry.value));
            name.and_then(|name| match *key {
                "user" => user(name, span, scope, section.reading),
                "uri" => uri(name, span, scope, section.reading),
                _ => {
                    let number = match number {
                        Some(number) => template(number, &number_span, scope, section.reading)?,
                        None => Template::default(),
                    };
                    trunk(name, number, caller_id, span, (scope, section.reading))
                }
            })
        }
        _ => {
            section.reading.problem(&value.span, RuleError::TargetKeys);
            None
        }
    };
    section.finish();
    if let Some(Callee::Trunk { caller_id: Some(number), .. }) = &callee {
        let group = vec![callee.iter().cloned().collect()];
        check_caller_id(number, &group, &caller_id_span, (scope, reading));
    }
    callee
}

/// Reports a number that none of the carriers to be called takes as ours.
fn check_caller_id(
    number: &E164,
    groups: &[Vec<Callee>],
    span: &Span,
    (scope, reading): (&Scope<'_>, &mut Reading<'_>),
) {
    guards::check_weak(number, Some(scope.names.country), span, reading);
    let trunks = groups.iter().flatten().filter_map(|callee| match callee {
        Callee::Trunk { trunk, .. } => scope.names.trunks.get(trunk)?.as_ref(),
        Callee::User(_) | Callee::Uri(_) => None,
    });
    let trunks: Vec<_> = trunks.collect();
    let owns = |trunk: &&Arc<Trunk>| trunk.guard.callers.owns(number);
    if let Some(first) = trunks.first().filter(|_| !trunks.iter().any(owns)) {
        guards::check_owned(number, first, span, reading);
    }
}

fn user(name: &str, span: &Span, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Option<Callee> {
    let template = template(name, span, scope, reading)?;
    if let Some(name) = template.literal()
        && !scope.names.users.contains(name)
    {
        let near = near(name, &scope.names.users);
        reading.problem(span, RuleError::NoUser { name: name.into(), near });
    }
    Some(Callee::User(template))
}

fn trunk(
    name: &str,
    number: Template,
    caller_id: Option<E164>,
    span: &Span,
    (scope, reading): (&Scope<'_>, &mut Reading<'_>),
) -> Option<Callee> {
    match scope.names.trunks.get(name) {
        Some(known) => {
            let e164 = known.as_ref().is_some_and(|trunk| trunk.e164);
            Some(Callee::Trunk { trunk: name.into(), number, caller_id, e164 })
        }
        None => {
            let near = near(name, scope.names.trunks.keys());
            reading.problem(span, RuleError::NoTrunk { name: name.into(), near });
            None
        }
    }
}

fn uri(text: &str, span: &Span, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Option<Callee> {
    let template = template(text, span, scope, reading)?;
    let good = |text: &str| Uri::parse(text).is_some_and(|uri| uri.scheme == Scheme::Sip);
    if template.literal().is_some_and(|text| !good(text)) {
        reading.problem(span, RuleError::Target(text.into()));
    }
    Some(Callee::Uri(template))
}

/// Reads text with placeholders, which the rule's patterns must be able to fill.
fn template(
    text: &str,
    span: &Span,
    scope: &Scope<'_>,
    reading: &mut Reading<'_>,
) -> Option<Template> {
    let template = Template::parse(text).map_err(RuleError::Template);
    let template = reading.keep(span, template)?;
    for group in template.groups() {
        if !scope.patterns.iter().all(|pattern| pattern.has_group(group)) {
            reading.problem(span, RuleError::NoGroup(group.into()));
        }
    }
    Some(template)
}

/// Reads the path of a prompt.
fn play(value: &Value, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Option<Template> {
    let span = &value.span;
    let file = reading.keep(span, text(value))?;
    let path = beside(reading.file(span), file);
    let template = template(&path, span, scope, reading)?;
    if template.literal().is_some_and(|path| !reading.source.exists(path)) {
        reading.problem(span, RuleError::NoFile(file.into()));
    }
    Some(template)
}

/// Reads `"context"`, `"context/number"` or `{ context = ..., number = ... }`.
fn goto(value: &Value, scope: &Scope<'_>, reading: &mut Reading<'_>) -> Option<Action> {
    let span = &value.span;
    let (context, number) = if let Kind::Table(table) = &value.kind {
        let title = ("goto", "`goto`".to_owned());
        let mut section = Section::new(table, span, title, reading);
        if !section.has("context") {
            section.missing("context", "context = \"internal\"");
        }
        let context = section.optional("context", text);
        let number = section.optional("number", text);
        section.finish();
        (context?, number)
    } else {
        let written = reading.keep(span, text(value))?;
        written.split_once('/').map_or((written, None), |(context, n)| (context, Some(n)))
    };
    if !scope.names.contexts.contains(context) {
        let near = near(context, &scope.names.contexts);
        let problem: Problem = RuleError::NoContext { name: context.into(), near }.into();
        reading.problem(span, problem);
    }
    let number = match number {
        Some(number) => template(number, span, scope, reading)?,
        None => Template::default(),
    };
    Some(Action::Goto { context: context.into(), number })
}
