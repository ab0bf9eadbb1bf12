//! What is wrong with rules as a whole: some never apply, some send a call round in a circle.
//!
//! Owns: finding both without a call, by what surely covers what and by numbers that surely fit.
//! Never: guesses; a rule that may apply is left alone.

use super::{
    Action, Dialplan, Fit, LocalTime, Numbers, Pattern, Query, Rule, Step, When, split_context,
};
use std::collections::BTreeSet;

/// A longer way than this is called a circle.
const WAY_MAX: usize = 16;

/// A rule that never applies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unreachable {
    /// Its context.
    pub context: Box<str>,
    /// Its index there.
    pub rule: usize,
    /// The index of the rule before it that takes its calls (the last of them, if several do).
    pub by: usize,
}

/// A rule that sends some number to where it came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Circle {
    /// The rule's context.
    pub context: Box<str>,
    /// Its index there.
    pub rule: usize,
    /// The names of the rules on the way.
    pub way: Vec<Box<str>>,
}

/// Returns the rules that never apply, because rules before them take all they would.
pub fn unreachable(plan: &Dialplan) -> Vec<Unreachable> {
    let mut found = vec![];
    for (context, rules) in &plan.contexts {
        for (index, rule) in rules.iter().enumerate() {
            let before = &rules[..index];
            let by = rule.matches.iter().map(|pattern| covering(before, rule, pattern));
            // Each of its patterns must be covered, be it by different rules.
            let by = by.collect::<Option<Vec<_>>>().unwrap_or_default();
            if let Some(by) = by.into_iter().max() {
                found.push(Unreachable { context: context.clone(), rule: index, by });
            }
        }
    }
    found
}

/// Returns the first rule that applies to every call for which `rule` would by `pattern`.
fn covering(before: &[Rule], rule: &Rule, pattern: &Pattern) -> Option<usize> {
    before.iter().position(|earlier| {
        let takes_number = earlier.matches.iter().any(|ours| ours.covers(pattern));
        let takes_time = earlier.when.iter().all(|when| rule.when.contains(when));
        takes_number && takes_time && takes_callers(earlier, rule) && !goes_on(&earlier.actions)
    })
}

fn takes_callers(earlier: &Rule, rule: &Rule) -> bool {
    let covers = |theirs: &Pattern| earlier.from.iter().any(|ours| ours.covers(theirs));
    earlier.from.is_empty() || (!rule.from.is_empty() && rule.from.iter().all(covers))
}

/// Returns whether a call may get past this rule: by "next".
fn goes_on(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::Next => true,
        Action::Dial(ring) => {
            [&ring.busy, &ring.no_answer, &ring.failed].into_iter().any(|a| goes_on(a))
        }
        Action::Reject(_)
        | Action::Answer
        | Action::Play(_)
        | Action::Echo
        | Action::Wait(_)
        | Action::Hangup
        | Action::Goto { .. } => false,
    })
}

/// Returns whether a call may be sent to a context.
fn sends_on(actions: &[Action]) -> bool {
    actions.iter().any(|action| match action {
        Action::Goto { .. } => true,
        Action::Dial(ring) => {
            [&ring.busy, &ring.no_answer, &ring.failed].into_iter().any(|a| sends_on(a))
        }
        Action::Reject(_)
        | Action::Answer
        | Action::Play(_)
        | Action::Echo
        | Action::Wait(_)
        | Action::Hangup
        | Action::Next => false,
    })
}

/// Returns the rules that send a number in a circle; at most one per rule.
pub fn circles(plan: &Dialplan) -> Vec<Circle> {
    let all = || plan.contexts.values().flatten();
    // What only goes on to the next rule comes to an end.
    if !all().any(|rule| sends_on(&rule.actions)) {
        return vec![];
    }
    let samples: BTreeSet<String> =
        all().flat_map(|rule| &rule.matches).filter_map(Pattern::sample).collect();
    let mut found: Vec<Circle> = vec![];
    for context in plan.contexts.keys() {
        let mut walk = Walk { plan, way: vec![], assumed: vec![], harmless: BTreeSet::new() };
        for number in &samples {
            let circle = walk.follow(context, number);
            walk.way.clear();
            walk.assumed.clear();
            let known = |circle: &Circle| {
                found
                    .iter()
                    .any(|f| f.way.iter().collect::<BTreeSet<_>>() == circle.way.iter().collect())
            };
            if let Some(circle) = circle.filter(|circle| !known(circle)) {
                found.push(circle);
            }
        }
    }
    found
}

/// Follows a number from rule to rule, wherever it may be sent.
struct Walk<'p> {
    plan: &'p Dialplan,
    way: Vec<Stop>,
    assumed: Vec<When>,
    /// Where no circle begins.
    harmless: BTreeSet<(Box<str>, Box<str>, Vec<When>)>,
}

struct Stop {
    context: Box<str>,
    number: Box<str>,
    rule: usize,
    name: Box<str>,
}

impl Walk<'_> {
    fn follow(&mut self, context: &str, number: &str) -> Option<Circle> {
        if let Some(circle) = self.circle(context, number) {
            return Some(circle);
        }
        let state = (context.into(), number.into(), self.assumed.clone());
        if self.harmless.contains(&state) {
            return None;
        }
        let found = self.look(context, number);
        if found.is_none() {
            self.harmless.insert(state);
        }
        found
    }

    /// Returns the circle, if the way has been here before or never ends.
    fn circle(&self, context: &str, number: &str) -> Option<Circle> {
        let here = |stop: &Stop| *stop.context == *context && *stop.number == *number;
        let endless = (self.way.len() > WAY_MAX).then_some(0);
        let from = self.way.iter().position(here).or(endless)?;
        let last = self.way.last()?;
        Some(Circle {
            context: split_context(&last.context).0.into(),
            rule: last.rule,
            way: self.way[from..].iter().map(|stop| stop.name.clone()).collect(),
        })
    }

    /// Tries every rule that may apply here.
    fn look(&mut self, context: &str, number: &str) -> Option<Circle> {
        const ANY_TIME: LocalTime =
            LocalTime { date: super::Date { year: 2000, month: 1, day: 1 }, minute: 0 };
        let (name, skip) = split_context(context);
        let query = Query { context, from: "", dialled: number, at: ANY_TIME };
        let call = Numbers::new(&query, self.plan.country);
        let plan = self.plan;
        for (index, rule) in plan.contexts.get(name)?.iter().enumerate().skip(skip) {
            let Some((pattern, form)) = call.dialled.first_fit(&rule.matches) else { continue };
            if rule.when.iter().any(|when| self.contradicts(when)) {
                continue;
            }
            let fit = Fit { pattern, number: form, call: &call };
            let steps = plan.steps(&query, (name, index), rule, &fit);
            let before = self.assumed.len();
            let certain =
                rule.from.is_empty() && rule.when.iter().all(|w| self.assumed.contains(w));
            self.assumed.extend(rule.when.iter().cloned());
            self.way.push(Stop {
                context: context.into(),
                number: number.into(),
                rule: index,
                name: rule.name.clone(),
            });
            for (to, number) in gotos(&steps) {
                let circle = self.follow(&to, &number);
                if circle.is_some() {
                    return circle;
                }
            }
            self.way.pop();
            self.assumed.truncate(before);
            if certain {
                break;
            }
        }
        None
    }

    fn contradicts(&self, when: &When) -> bool {
        self.assumed.iter().any(|known| known.hours == when.hours && known.open != when.open)
    }
}

/// Returns wherever a call may be sent by these steps.
fn gotos(steps: &[Step]) -> BTreeSet<(Box<str>, Box<str>)> {
    let mut found = BTreeSet::new();
    for step in steps {
        match step {
            Step::Goto { context, number } => {
                found.insert((context.clone(), number.clone()));
            }
            Step::Dial(dial) => {
                for steps in [&dial.on.busy, &dial.on.no_answer, &dial.on.failed] {
                    found.extend(gotos(steps));
                }
            }
            Step::Reject(_)
            | Step::Answer
            | Step::Play(_)
            | Step::Echo
            | Step::Wait(_)
            | Step::Hangup => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialplan::{Country, Origin, Template};

    fn rule(pattern: &str, when: &[&str], actions: Vec<Action>) -> Rule {
        let when = when.iter().map(|text| {
            let hours = text.trim_start_matches('!').into();
            When { hours, open: !text.starts_with('!') }
        });
        Rule {
            name: pattern.into(),
            origin: Origin::default(),
            matches: pattern.split(' ').map(|text| Pattern::parse(text).unwrap()).collect(),
            from: vec![],
            when: when.collect(),
            actions,
        }
    }

    fn goto(context: &str, number: &str) -> Vec<Action> {
        let number = Template::parse(number).unwrap();
        vec![Action::Goto { context: context.into(), number }]
    }

    fn plan(contexts: Vec<(&str, Vec<Rule>)>) -> Dialplan {
        let mut plan = Dialplan::empty(Country::US);
        plan.contexts = contexts.into_iter().map(|(name, rules)| (name.into(), rules)).collect();
        plan
    }

    #[test]
    fn a_rule_is_unreachable_when_rules_above_take_all_it_would() {
        let reject = || vec![Action::Reject(404)];
        for (above, below, want) in [
            (rule("_+.", &[], reject()), rule("+17756187988", &[], reject()), true),
            (rule("_X.", &[], reject()), rule("_+.", &[], reject()), false),
            (rule("_1. _2.", &[], reject()), rule("_1X _2X", &[], reject()), true),
            (rule("_1.", &[], reject()), rule("_1X _2X", &[], reject()), false),
            (rule("1", &["office"], reject()), rule("1", &[], reject()), false),
            (rule("1", &["office"], reject()), rule("1", &["office"], reject()), true),
            (rule("1", &["office"], reject()), rule("1", &["!office"], reject()), false),
            (rule("1", &[], vec![Action::Next]), rule("1", &[], reject()), false),
        ] {
            let text = format!("{above:?} {below:?}");
            let found = unreachable(&plan(vec![("a", vec![above, below])]));
            assert_eq!(!found.is_empty(), want, "{text}");
        }
    }

    #[test]
    fn callers_count_as_well() {
        let reject = || rule("1", &[], vec![Action::Reject(404)]);
        let from = |text: &str| Rule { from: vec![Pattern::parse(text).unwrap()], ..reject() };
        for (above, below, want) in [
            (from("_10XX"), from("1001"), true),
            (from("1001"), from("_10XX"), false),
            (from("1001"), reject(), false),
            (reject(), from("1001"), true),
        ] {
            let found = unreachable(&plan(vec![("a", vec![above, below])]));
            assert_eq!(!found.is_empty(), want);
        }
    }

    #[test]
    fn circles_are_found_and_nothing_else() {
        let all = |context, number| vec![rule("_!", &[], goto(context, number))];
        let one = |number| vec![rule(number, &[], goto("a", "{number}"))];
        for (a, b, want) in [
            (all("a", "{number}"), vec![], true),
            (all("b", "{number}"), all("a", "{number}"), true),
            (all("b", "{number}"), one("77"), true),
            (all("b", "{number}"), vec![rule("1", &[], vec![Action::Hangup])], false),
            // Ever longer, and ever shorter until nothing is left.
            (all("a", "{number}0"), vec![], true),
            (vec![rule("_X.", &[], goto("a", "{number:1}"))], vec![], false),
            // The rule above takes what would come back.
            (
                vec![
                    rule("_7!", &[], vec![Action::Hangup]),
                    rule("_X!", &[], goto("b", "7{number}")),
                ],
                all("a", "{number}"),
                false,
            ),
            // Never at the same time.
            (
                vec![rule("_!", &["office"], goto("b", "{number}"))],
                vec![rule("_!", &["!office"], goto("a", "{number}"))],
                false,
            ),
            (
                vec![rule("_!", &["office"], goto("b", "{number}"))],
                vec![rule("_!", &["lunch"], goto("a", "{number}"))],
                true,
            ),
        ] {
            let text = format!("{a:?} {b:?}");
            let found = circles(&plan(vec![("a", a), ("b", b)]));
            assert_eq!(!found.is_empty(), want, "{text} {found:?}");
        }
    }
}
