//! Why a call takes the rule that it takes, in words.
//!
//! Owns: walking the rules a second time, slowly, noting what each condition saw.
//! Never: decides; the decision is [`Dialplan::route`]'s.

use super::{
    Country, Decision, Dialplan, E164, Forms, LocalTime, Numbers, Origin, Pattern, Query, Rule,
    Step, split_context,
};
use std::fmt;

/// How many times a number may be sent on before it is called a loop.
const GOTO_MAX: usize = 16;

/// Every rule that was considered, and the decision. Prints numbers in full: it is for the terminal
/// of whoever asked, never for a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Explanation {
    from: Box<str>,
    dialled: Box<str>,
    e164: Option<E164>,
    country: Country,
    at: LocalTime,
    /// In the order in which they were looked at.
    pub considered: Vec<Considered>,
    /// What [`Dialplan::route`] says, gotos followed.
    pub decision: Decision,
}

/// One rule that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Considered {
    /// Its context.
    pub context: Box<str>,
    /// Its name.
    pub rule: Box<str>,
    /// Where it stands.
    pub origin: Origin,
    /// Its conditions.
    pub checks: Vec<Check>,
}

/// One condition of a rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// The key: `match`, `from`, `when`.
    pub key: &'static str,
    /// What the rule wants.
    pub wants: Box<str>,
    /// What the call has.
    pub has: Box<str>,
    /// Whether that is enough.
    pub holds: bool,
}

pub(super) fn explain(plan: &Dialplan, query: &Query<'_>) -> Explanation {
    let mut considered = vec![];
    let mut context: Box<str> = query.context.into();
    let mut dialled: Box<str> = query.dialled.into();
    let mut decision = Decision::NoContext;
    for _ in 0..=GOTO_MAX {
        let here = Query { context: &context, dialled: &dialled, ..*query };
        consider(plan, &here, &mut considered);
        decision = plan.route(&here);
        match first_goto(&decision) {
            Some((to, number)) => (context, dialled) = (to, number),
            None => break,
        }
    }
    Explanation {
        from: query.from.into(),
        dialled: query.dialled.into(),
        e164: plan.country.normalise(query.dialled),
        country: plan.country,
        at: query.at,
        considered,
        decision,
    }
}

fn first_goto(decision: &Decision) -> Option<(Box<str>, Box<str>)> {
    match decision {
        Decision::Matched { steps, .. } => match steps.first() {
            Some(Step::Goto { context, number }) => Some((context.clone(), number.clone())),
            Some(_) | None => None,
        },
        Decision::NoRule | Decision::NoContext => None,
    }
}

fn consider(plan: &Dialplan, query: &Query<'_>, considered: &mut Vec<Considered>) {
    let (context, skip) = split_context(query.context);
    let call = Numbers::new(query, plan.country);
    for rule in plan.contexts.get(context).into_iter().flatten().skip(skip) {
        let checks = checks(plan, rule, query, &call);
        let applies = checks.iter().all(|check| check.holds);
        considered.push(Considered {
            context: context.into(),
            rule: rule.name.clone(),
            origin: rule.origin.clone(),
            checks,
        });
        if applies {
            return;
        }
    }
}

fn checks(plan: &Dialplan, rule: &Rule, query: &Query<'_>, call: &Numbers<'_>) -> Vec<Check> {
    let mut checks = vec![check_patterns("match", &rule.matches, &call.dialled)];
    if !rule.from.is_empty() {
        checks.push(check_patterns("from", &rule.from, &call.from));
    }
    for when in &rule.when {
        let open = plan.is_open(&when.hours, query.at);
        let state = if open { "open" } else { "closed" };
        checks.push(Check {
            key: "when",
            wants: when.to_string().into(),
            has: format!("{} is {state} at {}", when.hours, query.at).into(),
            holds: open == when.open,
        });
    }
    checks
}

fn check_patterns(key: &'static str, patterns: &[Pattern], number: &Forms<'_>) -> Check {
    let list = |patterns: &[Pattern]| {
        let texts: Vec<_> = patterns.iter().map(|pattern| format!("\"{pattern}\"")).collect();
        texts.join(", ")
    };
    match number.first_fit(patterns) {
        Some((pattern, form)) => Check {
            key,
            wants: list(std::slice::from_ref(pattern)).into(),
            has: format!("\"{form}\"").into(),
            holds: true,
        },
        None => {
            let e164 = number.e164().map(E164::expose).filter(|form| *form != number.raw);
            let e164 = e164.map_or(String::new(), |form| format!(" or \"{form}\""));
            Check {
                key,
                wants: list(patterns).into(),
                has: format!("\"{}\"{e164}", number.raw).into(),
                holds: false,
            }
        }
    }
}

impl Explanation {
    /// Returns whether a rule applies.
    pub fn is_match(&self) -> bool {
        match self.decision {
            Decision::Matched { .. } => true,
            Decision::NoRule | Decision::NoContext => false,
        }
    }

    /// Returns the decision in one sentence: which rule, and what spoke for it.
    pub fn sentence(&self) -> String {
        match (&self.decision, self.considered.last()) {
            (Decision::Matched { rule, .. }, Some(last)) => {
                let because: Vec<_> = last.checks.iter().map(Check::because).collect();
                let others = self.considered.len() - 1;
                let after = match others {
                    0 => String::new(),
                    1 => ", and the rule before it does not apply".to_owned(),
                    _ => format!(", and none of the {others} rules before it applies"),
                };
                format!("rule {rule} because {}{after}", because.join(" and "))
            }
            (Decision::Matched { rule, .. }, None) => format!("rule {rule}"),
            (Decision::NoRule, _) => "no rule applies".to_owned(),
            (Decision::NoContext, _) => "there is no such context".to_owned(),
        }
    }
}

impl Check {
    fn because(&self) -> String {
        match self.key {
            "when" => self.has.to_string(),
            "from" => format!("the caller {} fits {}", self.has, self.wants),
            _ => format!("{} fits {}", self.has, self.wants),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dials \"{}\"", self.from, self.dialled)?;
        match &self.e164 {
            Some(number) => write!(f, ", which is {} in {}", number.expose(), self.country)?,
            None => write!(f, ", which is not a telephone number in {}", self.country)?,
        }
        writeln!(f, ", at {}", self.at)?;
        for considered in &self.considered {
            writeln!(f, "{considered}")?;
        }
        writeln!(f, "=> {}", self.sentence())?;
        match &self.decision {
            Decision::Matched { steps, .. } => {
                steps.iter().enumerate().try_for_each(|(n, step)| {
                    let step = step.to_string().replace('\n', "\n     ");
                    writeln!(f, "  {}. {step}", n + 1)
                })
            }
            Decision::NoRule | Decision::NoContext => writeln!(f, "  1. reject with 404"),
        }
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}  ({})", self.rule, self.origin)?;
        self.checks.iter().try_for_each(|Check { key, wants, has, holds }| {
            let verdict = if *holds { "yes" } else { "no " };
            write!(f, "\n    {verdict} {key:<5} {wants}: {has}")
        })
    }
}
