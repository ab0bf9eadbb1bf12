//! What guards calls that leave: `owned`, `verified`, `caller_ids`, `anonymous`, `allow`, `[emergency]`.
//!
//! Owns: their keys and defaults, and finding numbers that a carrier will not take.
//! Never: guards a call.

use super::{
    checked::{Trunk, User},
    load::named_tables,
    problem::{ConfigError, Problem},
    raw::{Entry, Kind as Raw, Span, Table, Value},
    rule_problem::RuleError,
    section::{Reading, Section, items, table},
    values::{count, duration_within, e164, flag, one_of, string, text},
};
use crate::{
    dialplan::{
        Action, Allow, Callee, Countries, Country, Decision, Dialplan, E164, Kind, LocalTime,
        Origin, Pattern, Query, Ring, Rule, Step, Target, Template,
    },
    guard::{
        Budget, Callers, Emergency, Opening, OutOfHours, Rate, TrunkGuard, UserGuard, by_country,
        weakness,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How long a call waits for its turn, and how many do, unless the trunk says otherwise.
const QUEUE_FOR: Duration = Duration::from_secs(30);
const QUEUE_MAX: u16 = 20;

type Trunks = BTreeMap<Box<str>, Arc<Trunk>>;
type Users = BTreeMap<Box<str>, Arc<User>>;

/// Reads the guards of a trunk, whose own numbers are given.
pub(super) fn trunk(
    section: &mut Section<'_, '_, '_>,
    caller_id: Option<&E164>,
    defaults: (bool, Option<Rate>),
    country: Country,
) -> TrunkGuard {
    let (anonymous_from, rate) = defaults;
    let owned = numbers("owned", section, country);
    let verified = numbers("verified", section, country);
    let by_country = caller_ids(section, country);
    let own = caller_id.into_iter().chain(by_country.values()).map(literal);
    let owned = match (owned, verified) {
        (None, None) => None,
        (owned, verified) => {
            Some(owned.into_iter().chain(verified).flatten().chain(own).collect::<Vec<_>>())
        }
    };
    let anonymous_from = section.or("anonymous_from", anonymous_from, flag);
    let callers = Callers { owned, by_country, anonymous_from };
    TrunkGuard {
        callers,
        allow: allow(section),
        rate: section.or_off("max_rate", rate, |value| {
            let text = text(value)?;
            Rate::parse(text).ok_or_else(|| ConfigError::Rate(text.into()))
        }),
        queue_for: section.or_off("queue_for", Some(QUEUE_FOR), duration_within("1s", "10m")),
        queue_max: section.or("queue_max", QUEUE_MAX, count(1, 1000)),
        budget: budget(section),
        opening: opening(section),
    }
}

/// Reads the guards of a user.
pub(super) fn user(section: &mut Section<'_, '_, '_>, country: Country) -> UserGuard {
    UserGuard {
        caller_ids: caller_ids(section, country),
        anonymous: section.or("anonymous", false, flag),
        allow: allow(section),
        budget: budget(section),
        opening: opening(section),
    }
}

fn budget(section: &mut Section<'_, '_, '_>) -> Budget {
    let Some(entry) = section.entry("budget") else { return Budget::default() };
    let title = ("budget", "`budget`".to_owned());
    let mut inner = Section::open(Some(entry), title, section.reading);
    let mut limit = |key| inner.optional(key, count(0, 1_000_000));
    let budget = Budget {
        calls_per_hour: limit("calls_per_hour"),
        calls_per_day: limit("calls_per_day"),
        minutes_per_hour: limit("minutes_per_hour"),
        minutes_per_day: limit("minutes_per_day"),
        countries_per_day: limit("countries_per_day"),
    };
    inner.finish();
    budget
}

/// Reads `hours` and `out_of_hours`; that the hours exist is seen to once the dialplan is read.
fn opening(section: &mut Section<'_, '_, '_>) -> Option<Opening> {
    let hours = section.optional("hours", string);
    let words = [("refuse", OutOfHours::Refuse), ("alarm", OutOfHours::Alarm)];
    let otherwise = section.or("out_of_hours", OutOfHours::Refuse, one_of(&words));
    hours.map(|hours| Opening { hours, otherwise })
}

/// Reports hours that nobody has defined.
pub(super) fn check_hours(plan: &Dialplan, root: &Table, reading: &mut Reading<'_>) {
    for kind in ["trunk", "user"] {
        for (_, table) in named_tables(root.get(kind), &mut Reading::new(reading.source)) {
            let Some(value) = table.get("hours").map(|entry| &entry.value) else { continue };
            let Ok(name) = text(value) else { continue };
            if !plan.hours.contains_key(name) {
                let known = plan.hours.keys().map(|name| &**name);
                let near = super::near::nearest(name, known).map(Into::into);
                reading.problem(&value.span, RuleError::NoHours { name: name.into(), near });
            }
        }
    }
}

fn literal(number: &E164) -> Pattern {
    Pattern::Literal(number.expose().into())
}

/// Reads numbers and patterns of numbers.
fn numbers(
    key: &'static str,
    section: &mut Section<'_, '_, '_>,
    country: Country,
) -> Option<Vec<Pattern>> {
    let read = section.several(key, |value| -> Result<Pattern, Problem> {
        match text(value)? {
            pattern if pattern.starts_with('_') => pattern_of(value),
            _ => Ok(literal(&e164(country)(value)?)),
        }
    })?;
    Some(read.into_iter().map(|(pattern, _)| pattern).collect())
}

fn pattern_of(value: &Value) -> Result<Pattern, Problem> {
    Ok(Pattern::parse(text(value)?).map_err(RuleError::Pattern)?)
}

/// Reads `caller_ids = { NL = "+31..." }`.
fn caller_ids(section: &mut Section<'_, '_, '_>, country: Country) -> BTreeMap<Country, E164> {
    let mut read = BTreeMap::new();
    let Some(entry) = section.entry("caller_ids") else { return read };
    let Some(table) = section.reading.keep(&entry.value.span, table(&entry.value)) else {
        return read;
    };
    for entry in &table.0 {
        let towards = country_of(&entry.key);
        let towards = section.reading.keep(&entry.key_span, towards);
        let number = section.reading.keep(&entry.value.span, e164(country)(&entry.value));
        if let (Some(towards), Some(number)) = (towards, number) {
            check_weak(&number, Some(towards), &entry.value.span, section.reading);
            read.insert(towards, number);
        }
    }
    read
}

fn country_of(code: &str) -> Result<Country, ConfigError> {
    Country::parse(code).ok_or_else(|| ConfigError::Country(code.into()))
}

/// Reads `allow = { countries, deny_types, numbers }`.
pub(super) fn allow(section: &mut Section<'_, '_, '_>) -> Option<Allow> {
    let entry = section.entry("allow")?;
    let title = ("allow", "`allow`".to_owned());
    let mut inner = Section::open(Some(entry), title, section.reading);
    let countries = inner.optional("countries", |value| {
        if matches!(&value.kind, Raw::Text(word) if **word == *"any") {
            return Ok(Countries::Any);
        }
        let read = items(value).iter().map(|value| country_of(text(value)?));
        read.collect::<Result<_, ConfigError>>().map(Countries::These)
    });
    let deny = inner.several("deny_types", one_of(&Kind::WORDS));
    let numbers = inner.several("numbers", pattern_of).unwrap_or_default();
    inner.finish();
    Some(Allow {
        countries,
        deny: deny.map(|kinds| kinds.into_iter().map(|(kind, _)| kind).collect()),
        numbers: numbers.into_iter().map(|(pattern, _)| pattern).collect(),
    })
}

/// Reads `[emergency]`. Unless it says otherwise, the first trunk carries such calls.
pub(super) fn emergency(
    root: &Table,
    country: Country,
    trunks: &Trunks,
    reading: &mut Reading<'_>,
) -> Emergency {
    let title = ("emergency", "[emergency]".to_owned());
    let mut section = Section::open(root.get("emergency"), title, reading);
    let extra = section.several("numbers", |value| -> Result<Box<str>, ConfigError> {
        let number = text(value)?;
        let good = (2..=15).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        if good { Ok(number.into()) } else { Err(ConfigError::EmergencyNumber(number.into())) }
    });
    let extra = extra.unwrap_or_default().into_iter().map(|(number, _)| number);
    let caller_id = section.optional("caller_id", e164(country));
    let first = first_trunk(root).filter(|name| trunks.contains_key(name));
    let trunk = section.or_off("trunk", first, |value| text(value).map(Into::into));
    if let Some(name) = trunk.as_ref().filter(|name| !trunks.contains_key(*name)) {
        let span = section.span_of("trunk");
        let near = super::near::nearest(name, trunks.keys().map(|name| &**name)).map(Into::into);
        section.reading.problem(&span, RuleError::NoTrunk { name: name.clone(), near });
    }
    let carrier = trunk.as_ref().and_then(|name| trunks.get(name));
    if let (Some(number), Some(trunk)) = (&caller_id, carrier) {
        let span = section.span_of("caller_id");
        check_owned(number, trunk, &span, section.reading);
    }
    section.finish();
    let own = by_country(country).iter().map(|number| Box::from(*number));
    let numbers: BTreeSet<Box<str>> = own.chain(extra).collect();
    Emergency { numbers: numbers.into_iter().collect(), caller_id, trunk }
}

/// The trunk that is written first, in whatever order the names are.
fn first_trunk(root: &Table) -> Option<Box<str>> {
    let Raw::Table(trunks) = &root.get("trunk")?.value.kind else { return None };
    trunks.0.first().map(|entry| entry.key.clone())
}

/// Numbers at which users are rung are ours on every trunk.
pub(super) fn own_dids(trunks: &mut Trunks, users: &Users) {
    let dids: Vec<Pattern> = users.values().flat_map(|user| &user.did).map(literal).collect();
    for trunk in trunks.values_mut().filter(|trunk| trunk.guard.callers.owned.is_some()) {
        let owned = &mut Arc::make_mut(trunk).guard.callers.owned;
        owned.iter_mut().for_each(|owned| owned.extend(dids.iter().cloned()));
    }
}

/// Reports a number that a trunk's carrier will not take as ours.
pub(super) fn check_owned(number: &E164, trunk: &Trunk, span: &Span, reading: &mut Reading<'_>) {
    if !trunk.guard.callers.owns(number) {
        let (number, trunk) = (number.clone(), trunk.name.clone());
        reading.problem(span, ConfigError::NotOwned { number, trunk });
    }
}

/// Reports a number in a range from which no call should seem to come.
pub(super) fn check_weak(
    number: &E164,
    towards: Option<Country>,
    span: &Span,
    reading: &mut Reading<'_>,
) {
    if let Some(weak) = weakness(number, towards) {
        let (number, what) = (number.clone(), weak.what);
        reading.problem(span, ConfigError::WeakCallerId { number, what });
    }
}

/// Reports users whose number no trunk's carrier takes, and numbers not worth showing at home.
pub(super) fn check_users(
    root: &Table,
    country: Country,
    (trunks, users): (&Trunks, &Users),
    reading: &mut Reading<'_>,
) {
    let places: Vec<(Box<str>, &Entry)> = ["trunk", "user"]
        .into_iter()
        .flat_map(|kind| named_tables(root.get(kind), &mut Reading::new(reading.source)))
        .filter_map(|(entry, table)| Some((entry.key.clone(), table.get("caller_id")?)))
        .collect();
    for (_, entry) in &places {
        for value in items(&entry.value) {
            if let Ok(number) = e164(country)(value) {
                check_weak(&number, Some(country), &value.span, reading);
            }
        }
    }
    for (name, entry) in places {
        let number = users.get(&name).and_then(|user| user.caller_id.as_ref());
        let taken = |number: &E164| trunks.values().any(|trunk| trunk.guard.callers.owns(number));
        if let Some(number) = number.filter(|number| !trunks.is_empty() && !taken(number))
            && let Some(trunk) = trunks.values().next()
        {
            check_owned(number, trunk, &entry.value.span, reading);
        }
    }
}

/// Adds, below all rules of users' contexts, one for emergency calls: by the trunk that is meant for
/// them and, should that fail, by every other.
pub(super) fn let_emergencies_out(
    plan: &mut Dialplan,
    emergency: &Emergency,
    (trunks, users): (&Trunks, &Users),
) {
    let Some(first) = &emergency.trunk else { return };
    let others = trunks.keys().filter(|name| *name != first);
    let callee = |trunk: &str| Callee::Trunk {
        trunk: trunk.into(),
        number: Template::default(),
        caller_id: None,
        e164: false,
    };
    let groups: Vec<_> = [first].into_iter().chain(others).map(|name| vec![callee(name)]).collect();
    let contexts: BTreeSet<_> = users.values().map(|user| user.context.clone()).collect();
    for context in contexts {
        let groups = groups.clone();
        plan.contexts.entry(context).or_default().push(Rule {
            name: "emergency".into(),
            origin: Origin::default(),
            matches: emergency.numbers.iter().cloned().map(Pattern::Literal).collect(),
            from: vec![],
            when: vec![],
            actions: vec![Action::Dial(Ring { groups, ..Ring::default() })],
        });
    }
}

/// Reports contexts whose users cannot reach an emergency number: on a Wednesday's noon, or in the
/// night to a Sunday.
pub(super) fn check_emergencies(
    plan: &Dialplan,
    root: &Table,
    emergency: &Emergency,
    (trunks, users): (&Trunks, &Users),
    reading: &mut Reading<'_>,
) {
    let times = ["2026-01-07 12:00", "2026-01-11 03:00"].map(LocalTime::parse);
    let mut told = BTreeSet::new();
    for user in users.values().filter(|_| !trunks.is_empty()) {
        let missing: Vec<&str> = emergency
            .numbers
            .iter()
            .map(|number| &**number)
            .filter(|number| {
                !times.iter().flatten().all(|at| {
                    let (context, from) = (&*user.context, &*user.name);
                    let query = Query { context, from, dialled: number, at: *at };
                    reaches(&plan.explain(&query).decision, emergency)
                })
            })
            .collect();
        if !missing.is_empty() && told.insert(user.context.clone()) {
            let span = super::rules::place_of(root, "user", &user.name).unwrap_or_default();
            let (context, numbers) = (user.context.clone(), missing.join(", ").into());
            reading.problem(&span, ConfigError::NoEmergency { context, numbers });
        }
    }
}

fn reaches(decision: &Decision, emergency: &Emergency) -> bool {
    let steps = match decision {
        Decision::Matched { steps, .. } => steps.as_slice(),
        Decision::NoRule | Decision::NoContext => &[],
    };
    steps.iter().filter_map(Step::as_dial).flat_map(|dial| dial.groups.iter().flatten()).any(
        |target| match target {
            Target::Trunk { number, .. } => emergency.is(number),
            Target::User(_) | Target::Uri(_) => false,
        },
    )
}
