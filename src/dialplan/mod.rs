//! Routing: rules in order, of which the first that matches wins.
//!
//! Owns: what a checked rule is, and which one a call takes.
//! Never: reads files (`config` does, and finds everything that can be wrong), tells the time, or
//! carries anything out.

mod action;
mod destination;
mod explain;
mod hours;
mod lint;
mod number;
mod pattern;
mod step;

pub use action::{Action, Callee, Ring, Template, TemplateError};
pub use destination::{Allow, Countries, Kind};
pub use explain::{Check, Considered, Explanation};
pub use hours::{Date, Holiday, Hours, LocalTime, Span, Weekday};
pub use lint::{Circle, Unreachable, circles, unreachable};
pub use number::{Country, E164, place, warm};
pub use pattern::{Pattern, PatternError};
pub use step::{Dial, Limits, On, Step, Target};

use action::{Filling, fill};
use std::{cell::OnceCell, collections::BTreeMap, fmt};

/// Separates a context from the number of rules to leave out, in [`Step::Goto`]'s context.
const AFTER: char = '#';

/// One call, as far as routing it goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Query<'a> {
    /// Which rules; of a [`Step::Goto`], whatever it says.
    pub context: &'a str,
    /// The user's name, or the caller's number.
    pub from: &'a str,
    /// As dialled: `(415) 555-0199`, `1001`, `+17756187988`.
    pub dialled: &'a str,
    /// The time at the node.
    pub at: LocalTime,
}

/// What becomes of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// A rule applies.
    Matched {
        /// Its name, or `internal[2]` for the second of a context.
        rule: Box<str>,
        /// What to do, in order.
        steps: Vec<Step>,
        /// The dialled number's E.164 form, if it has one.
        number: Option<E164>,
    },
    /// No rule of the context applies.
    NoRule,
    /// There is no such context.
    NoContext,
}

/// Where in the files something was written.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    /// The file's path.
    pub file: Box<str>,
    /// From 1 on.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str("by itself"),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Hours that a rule wants to be open, or (`"!office"`) closed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct When {
    /// A name of [`Dialplan::hours`].
    pub hours: Box<str>,
    /// What it must be.
    pub open: bool,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.open { "" } else { "!" }, self.hours)
    }
}

/// One rule, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique within the context; appears in logs, CDRs and explanations.
    pub name: Box<str>,
    /// Where it stands.
    pub origin: Origin,
    /// One of them must fit the dialled number, as dialled or in E.164 form.
    pub matches: Vec<Pattern>,
    /// One of them must fit the caller; empty: anyone.
    pub from: Vec<Pattern>,
    /// All of them must hold.
    pub when: Vec<When>,
    /// What to do.
    pub actions: Vec<Action>,
}

/// Every rule of every context.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialplan {
    /// Where numbers without a country code are dialled.
    pub country: Country,
    /// By name: rules in the order in which they are tried.
    pub contexts: BTreeMap<Box<str>, Vec<Rule>>,
    /// By name.
    pub hours: BTreeMap<Box<str>, Hours>,
}

impl Dialplan {
    /// Creates a dialplan without rules.
    pub fn empty(country: Country) -> Self {
        Self { country, contexts: BTreeMap::new(), hours: BTreeMap::new() }
    }

    /// Returns what the first rule that applies says.
    pub fn route(&self, query: &Query<'_>) -> Decision {
        let (context, skip) = split_context(query.context);
        let Some(rules) = self.contexts.get(context) else { return Decision::NoContext };
        let call = Numbers::new(query, self.country);

        for (index, rule) in rules.iter().enumerate().skip(skip) {
            if let Some(fit) = self.fit(rule, query, &call) {
                let steps = self.steps(query, (context, index), rule, &fit);
                let number = fit.call.dialled.e164().cloned();
                return Decision::Matched { rule: rule.name.clone(), steps, number };
            }
        }
        Decision::NoRule
    }

    /// Fills in what a rule says, of which the context and the index are given as well.
    fn steps(
        &self,
        query: &Query<'_>,
        (context, index): (&str, usize),
        rule: &Rule,
        fit: &Fit<'_>,
    ) -> Vec<Step> {
        let filling = Filling {
            number: fit.number,
            dialled: query.dialled,
            from: query.from,
            pattern: fit.pattern,
            country: self.country,
            next: (context, index + 1),
        };
        fill(&rule.actions, filling)
    }

    /// Returns which of the rule's patterns took which form of the number, if the rule applies.
    fn fit<'a>(&self, rule: &'a Rule, query: &Query<'_>, call: &'a Numbers<'_>) -> Option<Fit<'a>> {
        let (pattern, number) = call.dialled.first_fit(&rule.matches)?;
        let from = rule.from.is_empty() || call.from.first_fit(&rule.from).is_some();
        let when = rule.when.iter().all(|when| self.is_open(&when.hours, query.at) == when.open);
        (from && when).then_some(Fit { pattern, number, call })
    }

    fn is_open(&self, hours: &str, at: LocalTime) -> bool {
        self.hours.get(hours).is_some_and(|hours| hours.is_open(at))
    }

    /// Returns every rule that is considered on the way to the decision, and why.
    pub fn explain(&self, query: &Query<'_>) -> Explanation {
        explain::explain(self, query)
    }
}

/// How a rule came to apply.
struct Fit<'a> {
    pattern: &'a Pattern,
    number: &'a str,
    call: &'a Numbers<'a>,
}

/// A number as it was written and, once somebody asks, as the world would write it.
struct Forms<'a> {
    raw: &'a str,
    country: Country,
    e164: OnceCell<Option<E164>>,
}

impl<'a> Forms<'a> {
    fn new(raw: &'a str, country: Country) -> Self {
        Self { raw, country, e164: OnceCell::new() }
    }

    fn e164(&self) -> Option<&E164> {
        self.e164.get_or_init(|| self.country.normalise(self.raw)).as_ref()
    }

    /// Returns the first of `patterns` that fits, and what it fits: the raw form comes first.
    fn first_fit<'s>(&'s self, patterns: &'s [Pattern]) -> Option<(&'s Pattern, &'s str)> {
        let fit = |number: &'s str| {
            patterns.iter().find(|pattern| pattern.matches(number)).map(|pattern| (pattern, number))
        };
        fit(self.raw).or_else(|| fit(self.e164()?.expose()))
    }
}

/// Both numbers of a call.
struct Numbers<'a> {
    dialled: Forms<'a>,
    from: Forms<'a>,
}

impl<'a> Numbers<'a> {
    fn new(query: &Query<'a>, country: Country) -> Self {
        Self { dialled: Forms::new(query.dialled, country), from: Forms::new(query.from, country) }
    }
}

/// Splits `internal#3` into the context and how many of its rules to leave out.
fn split_context(context: &str) -> (&str, usize) {
    let after = context.split_once(AFTER);
    after.map_or((context, 0), |(name, skip)| (name, skip.parse().unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests;
