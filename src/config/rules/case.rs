//! `[[test]]`: a call, and what the dialplan must make of it.
//!
//! Owns: reading cases, and saying how a decision differs from what a case wants.
//! Never: changes anything; cases are for `tandem dialplan test`.

use super::super::{
    checked::Config,
    problem::Problem,
    raw::{Entry, Kind, Value},
    rule_problem::RuleError,
    section::{Reading, Section, items, table},
    values::{e164, integer, string, text},
};
use crate::dialplan::{
    Country, Decision, Dial, E164, Explanation, LocalTime, Origin, Query, Step, Target,
};
use std::fmt;

/// When a call is made if the case does not say: a Wednesday's noon.
const NOON: &str = "2026-01-07 12:00";

/// One call and what is wanted of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Where it stands.
    pub origin: Origin,
    /// Of the caller, unless given.
    context: Option<Box<str>>,
    from: Box<str>,
    dialled: Box<str>,
    at: LocalTime,
    want: Want,
}

/// Only what is there is compared.
#[derive(Clone, Debug, Default, PartialEq)]
struct Want {
    rule: Option<Box<str>>,
    to: Option<Vec<Box<str>>>,
    via: Option<Box<str>>,
    caller_id: Option<E164>,
    rejected: Option<i64>,
}

/// Reads the cases of one file.
pub(super) fn read(
    entry: Option<&Entry>,
    country: Country,
    reading: &mut Reading<'_>,
) -> Vec<Case> {
    let values = entry.map(|entry| items(&entry.value)).unwrap_or_default();
    let cases = values.iter().filter_map(|value| {
        let table = reading.keep(&value.span, table(value))?;
        let origin = reading.report.origin(&value.span);
        let title = ("test", "the case".to_owned());
        let mut section = Section::new(table, &value.span, title, reading);
        let from = required("from", "from = \"1001\"", &mut section);
        let dialled = required("dial", "dial = \"(415) 555-0199\"", &mut section);
        let at = section.optional("at", moment).or_else(|| LocalTime::parse(NOON));
        let context = section.optional("context", string);
        let want = want(country, &mut section);
        section.finish();

        Some(Case { origin, context, from: from?, dialled: dialled?, at: at?, want: want? })
    });
    cases.collect()
}

fn required(
    key: &'static str,
    example: &'static str,
    section: &mut Section<'_, '_, '_>,
) -> Option<Box<str>> {
    if !section.has(key) {
        section.missing(key, example);
    }
    section.optional(key, string)
}

fn moment(value: &Value) -> Result<LocalTime, Problem> {
    let written = if let Kind::Moment(moment) = &value.kind { moment } else { text(value)? };
    LocalTime::parse(written).ok_or_else(|| RuleError::At(written.into()).into())
}

fn want(country: Country, section: &mut Section<'_, '_, '_>) -> Option<Want> {
    if !section.has("want") {
        section.missing("want", "want = { rule = \"internal[1]\" }");
    }
    let entry = section.entry("want")?;
    let title = ("want", "`want`".to_owned());
    let mut inner = Section::open(Some(entry), title, section.reading);
    let to = inner.several("to", string);
    let want = Want {
        rule: inner.optional("rule", string),
        to: to.map(|to| to.into_iter().map(|(to, _)| to).collect()),
        via: inner.optional("via", string),
        caller_id: inner.optional("caller_id", e164(country)),
        rejected: inner.optional("rejected", integer(300, 699)),
    };
    let keys = ["rule", "to", "via", "caller_id", "rejected"];
    let wants_nothing = !keys.iter().any(|key| inner.has(key));
    inner.finish();
    if wants_nothing {
        section.reading.problem(&entry.value.span, RuleError::WantsNothing);
    }
    Some(want)
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} dials \"{}\"", self.origin, self.from, self.dialled)
    }
}

impl Case {
    /// Returns how the dialplan's decision differs from what is wanted; empty if it does not.
    pub fn differences(&self, config: &Config) -> Vec<String> {
        let explanation = self.explain(config);
        let got = Got::new(&explanation, (&self.from, self.at), config);
        let want = &self.want;
        let compared = [
            differs("the rule", want.rule.as_deref(), got.rule.as_deref()),
            differs(
                "the call goes to",
                want.to.as_ref().map(|to| to.join(", ")).as_deref(),
                got.to.as_ref().map(|to| to.join(", ")).as_deref(),
            ),
            differs("it goes via", want.via.as_deref(), got.via.as_deref()),
            differs(
                "the caller ID",
                want.caller_id.as_ref().map(E164::expose),
                got.caller_id.as_ref().map(E164::expose),
            ),
            differs(
                "it is rejected with",
                want.rejected.map(|status| status.to_string()).as_deref(),
                got.rejected.map(|status| status.to_string()).as_deref(),
            ),
        ];
        compared.into_iter().flatten().collect()
    }

    /// Returns why the call takes the rule that it takes.
    pub fn explain(&self, config: &Config) -> Explanation {
        let own = || config.context_of(&self.from);
        config.dialplan.explain(&Query {
            context: self.context.as_deref().unwrap_or_else(own),
            from: &self.from,
            dialled: &self.dialled,
            at: self.at,
        })
    }
}

fn differs(what: &str, want: Option<&str>, got: Option<&str>) -> Option<String> {
    let want = want?;
    let got = got.unwrap_or("nothing");
    (want != got).then(|| format!("{what}: wanted `{want}`, got `{got}`"))
}

/// What a decision amounts to, in the words of a case.
#[derive(Default)]
struct Got {
    rule: Option<Box<str>>,
    to: Option<Vec<Box<str>>>,
    via: Option<Box<str>>,
    caller_id: Option<E164>,
    rejected: Option<u16>,
}

impl Got {
    fn new(explanation: &Explanation, (from, at): (&str, LocalTime), config: &Config) -> Self {
        let (rule, steps) = match &explanation.decision {
            Decision::Matched { rule, steps, .. } => (rule, steps),
            Decision::NoRule | Decision::NoContext => {
                return Self { rejected: Some(404), ..Self::default() };
            }
        };
        let mut got = Self { rule: Some(rule.clone()), ..Self::default() };
        for step in steps {
            match step {
                Step::Dial(dial) => got.dial(dial, (from, at), config),
                Step::Reject(status) => got.rejected = Some(*status),
                Step::Answer
                | Step::Play(_)
                | Step::Echo
                | Step::Wait(_)
                | Step::Hangup
                | Step::Goto { .. } => {}
            }
        }
        got
    }

    fn dial(&mut self, dial: &Dial, (from, at): (&str, LocalTime), config: &Config) {
        let targets = || dial.groups.iter().flatten();
        let to = targets().map(|target| match target {
            Target::User(to) | Target::Trunk { number: to, .. } | Target::Uri(to) => to.clone(),
        });
        self.to = Some(to.collect());
        self.via = targets().find_map(|target| match target {
            Target::Trunk { trunk, .. } => Some(trunk.clone()),
            Target::User(_) | Target::Uri(_) => None,
        });
        let outbound: Vec<_> =
            targets().filter_map(|target| config.outbound(from, dial, target)).collect();
        self.caller_id = match outbound.iter().find_map(|outbound| outbound.as_ref().ok()) {
            Some(outbound) => outbound.caller_ids.first().cloned(),
            None => dial.caller_id.clone(),
        };
        // Where nobody is left to be called, the guards' refusal is the call's.
        let objections = config.objections(from, dial, at);
        if let Some((_, refusal)) = objections.first()
            && objections.len() == targets().count()
        {
            self.rejected = Some(refusal.answer().0);
        }
    }
}
