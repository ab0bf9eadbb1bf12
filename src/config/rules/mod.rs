//! Dialplan files: `[[CONTEXT.rule]]`, `[hours.NAME]`, `[[test]]`.
//!
//! Owns: turning them into a checked [`Dialplan`], and finding rules that make no sense together.
//! Never: routes a call.

mod action;
mod case;
mod hours;

pub use case::Case;

use super::{
    checked::{Trunk, User},
    load::Loaded,
    near::nearest,
    problem::ConfigError,
    raw::{Entry, Kind, Span, Table, Value},
    rule_problem::RuleError,
    section::{Reading, Section, items, table},
    values::{string, text},
};
use crate::dialplan::{
    Action, Callee, Country, Dialplan, Origin, Pattern, Ring, Rule, Template, When, circles,
    unreachable,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Top-level names of a dialplan file that are not contexts.
const NOT_CONTEXTS: [&str; 2] = ["hours", "test"];

type Trunks = BTreeMap<Box<str>, Arc<Trunk>>;
type Users = BTreeMap<Box<str>, Arc<User>>;

/// Everything that a rule may name. Names whose sections have mistakes count, too.
struct Names {
    country: Country,
    users: BTreeSet<Box<str>>,
    /// `None` where its section has a mistake that leaves nothing of it.
    trunks: BTreeMap<Box<str>, Option<Arc<Trunk>>>,
    contexts: BTreeSet<Box<str>>,
    hours: BTreeSet<Box<str>>,
}

/// A rule and where it was written.
struct Written {
    rule: Rule,
    span: Span,
    match_span: Span,
}

/// What dialplan files say.
pub(super) struct Plan {
    pub(super) dialplan: Dialplan,
    pub(super) cases: Vec<Case>,
}

/// Reads all of them.
pub(super) fn read(
    loaded: &Loaded,
    country: Country,
    (trunks, users): (&Trunks, &Users),
    reading: &mut Reading<'_>,
) -> Plan {
    let names = names(loaded, country, trunks);
    let mut plan = Dialplan::empty(country);
    let mut written: BTreeMap<Box<str>, Vec<Written>> = BTreeMap::new();
    let mut cases = vec![];

    for table in loaded.dialplans.iter().chain([&loaded.root]) {
        hours::read(table.get("hours"), &mut plan.hours, reading);
    }
    for table in &loaded.dialplans {
        for entry in table.0.iter().filter(|entry| !NOT_CONTEXTS.contains(&&*entry.key)) {
            let rules = written.entry(entry.key.clone()).or_default();
            context(entry, rules, &names, reading);
        }
        cases.extend(case::read(table.get("test"), country, reading));
    }
    let spans = spans(&written);
    for (context, rules) in written {
        check_names(&rules, reading);
        plan.contexts.insert(context, rules.into_iter().map(|written| written.rule).collect());
    }
    check_whole(&plan, &spans, reading);
    ring_by_did(&mut plan, trunks, users);
    Plan { dialplan: plan, cases }
}

fn names(loaded: &Loaded, country: Country, trunks: &Trunks) -> Names {
    let tables = || loaded.dialplans.iter();
    let below = |table: &Table, key: &str| -> Vec<Box<str>> {
        let Some(Kind::Table(table)) = table.get(key).map(|entry| &entry.value.kind) else {
            return vec![];
        };
        table.0.iter().map(|entry| entry.key.clone()).collect()
    };
    let trunk = |name: Box<str>| {
        let trunk = trunks.get(&name).cloned();
        (name, trunk)
    };
    Names {
        country,
        users: below(&loaded.root, "user").into_iter().collect(),
        trunks: below(&loaded.root, "trunk").into_iter().map(trunk).collect(),
        contexts: tables()
            .flat_map(|table| table.0.iter().map(|entry| entry.key.clone()))
            .filter(|key| !NOT_CONTEXTS.contains(&&**key))
            .collect(),
        hours: tables().chain([&loaded.root]).flat_map(|table| below(table, "hours")).collect(),
    }
}

/// Reads `[[CONTEXT.rule]]`.
fn context(entry: &Entry, rules: &mut Vec<Written>, names: &Names, reading: &mut Reading<'_>) {
    let context = &entry.key;
    let title = ("CONTEXT", format!("the context `{context}`"));
    let mut section = Section::open(Some(entry), title, reading);
    if let Some(list) = section.entry("rule") {
        if !matches!(list.value.kind, Kind::List(_)) {
            let problem = RuleError::NotAList(context.clone());
            section.reading.problem(&list.key_span, problem);
        }
        for value in items(&list.value) {
            let default = format!("{context}[{}]", rules.len() + 1);
            rules.extend(rule(value, default.into(), names, section.reading));
        }
    }
    section.finish();
}

fn rule(
    value: &Value,
    default_name: Box<str>,
    names: &Names,
    reading: &mut Reading<'_>,
) -> Option<Written> {
    let table = table(value);
    let table = reading.keep(&value.span, table)?;
    let Origin { file, line } = reading.report.origin(&value.span);
    let title = ("rule", "the rule".to_owned());
    let mut section = Section::new(table, &value.span, title, reading);

    let name = section.or("name", default_name, string);
    if !section.has("match") {
        section.missing("match", "match = \"_1XXX\"");
    }
    let matches = patterns("match", &mut section);
    let from = patterns("from", &mut section);
    let when = conditions(&mut section, names);
    let match_span = section.span_of("match");
    let scope = action::Scope { names, patterns: &matches };
    let actions = action::actions(&mut section, &scope);
    if actions.is_empty() && !action::has_any(&section) {
        let span = section.span.clone();
        section.reading.problem(&span, RuleError::NoAction);
    }
    section.finish();
    let origin = Origin { file, line };
    let rule = Rule { name, origin, matches, from, when, actions };
    Some(Written { rule, span: value.span.clone(), match_span })
}

fn patterns(key: &'static str, section: &mut Section<'_, '_, '_>) -> Vec<Pattern> {
    let read = section.several(key, |value| -> Result<Pattern, super::problem::Problem> {
        let text = text(value)?;
        Ok(Pattern::parse(text).map_err(RuleError::Pattern)?)
    });
    read.unwrap_or_default().into_iter().map(|(pattern, _)| pattern).collect()
}

/// Reads `when = "office"`, `"!office"`, or a list of which all must hold.
fn conditions(section: &mut Section<'_, '_, '_>, names: &Names) -> Vec<When> {
    let mut conditions = vec![];
    for (written, span) in section.several("when", string).unwrap_or_default() {
        let (hours, open) = match written.strip_prefix('!') {
            Some(hours) => (hours.trim().into(), false),
            None => (written, true),
        };
        if !names.hours.contains(&hours) {
            let near = near(&hours, &names.hours);
            section.reading.problem(&span, RuleError::NoHours { name: hours.clone(), near });
        }
        conditions.push(When { hours, open });
    }
    conditions
}

fn near<'n>(name: &str, names: impl IntoIterator<Item = &'n Box<str>>) -> Option<Box<str>> {
    nearest(name, names.into_iter().map(|name| &**name)).map(Into::into)
}

fn check_names(rules: &[Written], reading: &mut Reading<'_>) {
    let mut seen: BTreeMap<&str, &Span> = BTreeMap::new();
    for Written { rule, span, .. } in rules {
        if let Some(first) = seen.insert(&rule.name, span) {
            let problem = RuleError::NameTwice(rule.name.clone());
            reading.problem_with(span, problem, (first.clone(), "here first"));
        }
    }
}

/// Where each rule stands, and its `match`.
type Spans = BTreeMap<Box<str>, Vec<(Span, Span)>>;

fn spans(written: &BTreeMap<Box<str>, Vec<Written>>) -> Spans {
    let spans = |rules: &Vec<Written>| {
        rules.iter().map(|rule| (rule.span.clone(), rule.match_span.clone())).collect()
    };
    written.iter().map(|(context, rules)| (context.clone(), spans(rules))).collect()
}

/// Finds what is wrong with rules that are right one by one.
fn check_whole(plan: &Dialplan, spans: &Spans, reading: &mut Reading<'_>) {
    if plan.contexts.values().all(Vec::is_empty) {
        reading.problem(&Span::default(), RuleError::NoRules);
    }
    let place = |context: &str, rule: usize| spans.get(context)?.get(rule).cloned();
    let name =
        |context: &str, rule: usize| Some(plan.contexts.get(context)?.get(rule)?.name.clone());
    for found in unreachable(plan) {
        let Some((_, here)) = place(&found.context, found.rule) else { continue };
        let Some((_, there)) = place(&found.context, found.by) else { continue };
        let Some(by) = name(&found.context, found.by) else { continue };
        let problem = RuleError::Unreachable { by };
        reading.problem_with(&here, problem, (there, "because of this"));
    }
    for found in circles(plan) {
        let Some((here, _)) = place(&found.context, found.rule) else { continue };
        let first = found.way.first().cloned();
        let way: Vec<_> = found.way.into_iter().chain(first).collect();
        reading.problem(&here, RuleError::Loop { path: way.join(" -> ").into() });
    }
}

/// Adds, below all rules for calls from trunks, one for each user's own numbers.
fn ring_by_did(plan: &mut Dialplan, trunks: &Trunks, users: &Users) {
    let contexts: BTreeSet<_> = trunks.values().map(|trunk| trunk.context.clone()).collect();
    for (name, user) in users.iter().filter(|(_, user)| !user.did.is_empty()) {
        let Ok(callee) = Template::parse(name) else { continue };
        for context in &contexts {
            plan.contexts.entry(context.clone()).or_default().push(Rule {
                name: format!("user.{name}.did").into(),
                origin: Origin::default(),
                matches: user.did.iter().map(|n| Pattern::Literal(n.expose().into())).collect(),
                from: vec![],
                when: vec![],
                actions: vec![Action::Dial(Ring {
                    groups: vec![vec![Callee::User(callee.clone())]],
                    ..Ring::default()
                })],
            });
        }
    }
}

/// Reports users and trunks whose calls find no rules.
pub(super) fn check_contexts(
    plan: &Dialplan,
    root: &Table,
    (trunks, users): (&Trunks, &Users),
    reading: &mut Reading<'_>,
) {
    if plan.contexts.is_empty() {
        return; // That is reported already, once.
    }
    let users = users.iter().map(|(name, user)| ("user", name, &user.context));
    let trunks = trunks.iter().map(|(name, trunk)| ("trunk", name, &trunk.context));
    let mut known: BTreeSet<_> = plan.contexts.keys().cloned().collect();
    for (kind, name, context) in users.chain(trunks) {
        // Once for all who share it.
        if !known.insert(context.clone()) {
            continue;
        }
        let span = place_of(root, kind, name).unwrap_or_default();
        let near = near(context, plan.contexts.keys());
        reading.problem(&span, ConfigError::NoContext { context: context.clone(), near });
    }
}

/// Returns where a section's `context` stands, or its header.
pub(in crate::config) fn place_of(root: &Table, kind: &str, name: &str) -> Option<Span> {
    let Kind::Table(all) = &root.get(kind)?.value.kind else { return None };
    let entry = all.get(name)?;
    let Kind::Table(section) = &entry.value.kind else { return None };
    Some(section.get("context").map_or(&entry.key_span, |context| &context.value.span).clone())
}

#[cfg(test)]
mod tests;
