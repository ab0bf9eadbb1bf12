//! Rules, numbers and hours: what each call hits.

use super::*;
use std::time::Duration;

/// The rules of the README, and some that need more.
fn plan() -> Dialplan {
    let mut plan = Dialplan::empty(Country::US);
    let hours = Hours {
        days: Weekday::parse_range("mon-fri").unwrap(),
        times: vec![Span::parse("09:00-17:00").unwrap()],
        holidays: vec![],
    };
    plan.hours.insert("office".into(), hours);
    plan.contexts.insert(
        "internal".into(),
        vec![
            rule("extensions", "_1XXX", vec![ring(Callee::User(Template::default()))]),
            Rule {
                from: vec![Pattern::parse("1009").unwrap()],
                ..rule("barred", "_+.", vec![Action::Reject(403)])
            },
            Rule {
                when: vec![When { hours: "office".into(), open: false }],
                ..rule("night", "*97", vec![Action::Reject(480)])
            },
            rule("emergency", "911", vec![ring(trunk())]),
            rule("out", "_+.", vec![ring(trunk())]),
        ],
    );
    plan
}

fn rule(name: &str, pattern: &str, actions: Vec<Action>) -> Rule {
    Rule {
        name: name.into(),
        origin: Origin { file: "dialplan/default.toml".into(), line: 1 },
        matches: vec![Pattern::parse(pattern).unwrap()],
        from: vec![],
        when: vec![],
        actions,
    }
}

fn ring(callee: Callee) -> Action {
    Action::Dial(Ring {
        groups: vec![vec![callee]],
        ring: Duration::from_secs(60),
        caller_id: None,
        limits: Limits::default(),
        busy: vec![],
        no_answer: vec![Action::Next],
        failed: vec![],
    })
}

fn trunk() -> Callee {
    let number = Template::default();
    Callee::Trunk { trunk: "twilio".into(), number, caller_id: None, e164: true }
}

fn query<'a>(from: &'a str, dialled: &'a str, at: &str) -> Query<'a> {
    let at = LocalTime::parse(at).unwrap();
    Query { context: "internal", from, dialled, at }
}

const NOON: &str = "2026-11-20 12:00"; // A Friday.
const NIGHT: &str = "2026-11-20 23:00";

#[test]
fn the_first_rule_that_applies_wins() {
    for (from, dialled, at, want) in [
        ("1001", "1002", NOON, Some("extensions")),
        ("1001", "(415) 555-0199", NOON, Some("out")),
        ("1001", "+14155550199", NOON, Some("out")),
        ("1009", "+14155550199", NOON, Some("barred")),
        ("1009", "1001", NOON, Some("extensions")),
        ("1001", "911", NOON, Some("emergency")),
        ("1001", "*97", NOON, None),
        ("1001", "*97", NIGHT, Some("night")),
        ("1001", "112", NOON, None),
        ("1001", "bob", NOON, None),
        ("1001", "", NOON, None),
    ] {
        let rule = match plan().route(&query(from, dialled, at)) {
            Decision::Matched { rule, .. } => Some(rule),
            Decision::NoRule | Decision::NoContext => None,
        };
        assert_eq!(rule.as_deref(), want, "{from} {dialled} {at}");
    }
}

#[test]
fn trunks_get_e164_except_for_short_numbers() {
    for (dialled, want) in [("(415) 555-0199", "+14155550199"), ("911", "911")] {
        let decision = plan().route(&query("1001", dialled, NOON));
        let Decision::Matched { steps, .. } = decision else { panic!("{dialled}") };
        let [Step::Dial(dial)] = steps.as_slice() else { panic!("{steps:?}") };
        let target = Target::Trunk { trunk: "twilio".into(), number: want.into(), caller_id: None };
        assert_eq!(dial.groups, [[target]]);
    }
}

#[test]
fn next_goes_on_after_the_rule() {
    let decision = plan().route(&query("1001", "911", NOON));
    let Decision::Matched { steps, .. } = decision else { panic!() };
    let [Step::Dial(dial)] = steps.as_slice() else { panic!("{steps:?}") };
    let [Step::Goto { context, number }] = dial.on.no_answer.as_slice() else { panic!() };
    assert_eq!((&**context, &**number), ("internal#4", "911"));
    let next = Query { context, ..query("1001", "911", NOON) };
    assert_eq!(plan().route(&next), Decision::NoRule);
}

#[test]
fn unknown_contexts_are_told_apart() {
    let query = Query { context: "nowhere", ..query("1001", "911", NOON) };
    assert_eq!(plan().route(&query), Decision::NoContext);
}

#[test]
fn an_explanation_shows_every_rule_and_every_condition() {
    let text = plan().explain(&query("1001", "(415) 555-0199", NOON)).to_string();
    assert_eq!(
        text,
        r#"1001 dials "(415) 555-0199", which is +14155550199 in US, at fri 2026-11-20 12:00
  extensions  (dialplan/default.toml:1)
    no  match "_1XXX": "(415) 555-0199" or "+14155550199"
  barred  (dialplan/default.toml:1)
    yes match "_+.": "+14155550199"
    no  from  "1009": "1001"
  night  (dialplan/default.toml:1)
    no  match "*97": "(415) 555-0199" or "+14155550199"
    yes when  !office: office is open at fri 2026-11-20 12:00
  emergency  (dialplan/default.toml:1)
    no  match "911": "(415) 555-0199" or "+14155550199"
  out  (dialplan/default.toml:1)
    yes match "_+.": "+14155550199"
=> rule out because "+14155550199" fits "_+.", and none of the 4 rules before it applies
  1. dial +14155550199 via trunk twilio, ring 60s
       no answer: go to internal#5 with (415) 555-0199
"#
        .replace("yes when  !office", "no  when  !office")
    );
}
