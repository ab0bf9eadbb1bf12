//! `tandem check`, `tandem dialplan try`, `tandem dialplan test`.
//!
//! Owns: what they print and how they exit.
//! Never: prints; the command does, or a test compares.

use super::config_files::Disk;
use crate::{
    config::{self, Checked, Config, Source, WithoutSecrets},
    dialplan::{Decision, Dial, E164, LocalTime, Query, Rule, Step, Target},
    trunk::routes::Edge,
};
use std::time::SystemTime;

/// What a command has to say, and its exit code.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// For standard output; ends with a line break.
    pub text: String,
    /// See [`OK`], [`WRONG`] and [`USAGE`].
    pub code: u8,
}

/// Exit code: all is well.
pub const OK: u8 = 0;
/// Exit code: something was found wrong.
pub const WRONG: u8 = 1;
/// Exit code: the command itself was not understood.
pub const USAGE: u8 = 2;

/// Lists all that is wrong with the configuration.
pub fn check(path: &str, coloured: bool) -> Outcome {
    check_in(path, &Disk, coloured)
}

/// Explains which rule a call takes. `at` is `2026-12-25 10:30`; `None` is now.
pub fn dialplan_try(path: &str, from: &str, dialled: &str, at: Option<&str>) -> Outcome {
    try_in(path, &Disk, (from, dialled), at)
}

/// Runs the `[[test]]` tables of the dialplan.
pub fn dialplan_test(path: &str) -> Outcome {
    test_in(path, &Disk)
}

fn check_in(path: &str, source: &dyn Source, coloured: bool) -> Outcome {
    let checked = config::check(path, source);
    let mut text = checked.report.render(coloured);
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    match &checked.config {
        Some(config) => {
            let written = |rule: &&Rule| rule.origin.line > 0;
            let rules = config.dialplan.contexts.values().flatten().filter(written).count();
            let counts = [
                count(config.trunks.len(), "trunk"),
                count(config.users.len(), "user"),
                count(rules, "rule"),
                count(checked.cases.len(), "test"),
            ];
            text.push_str(&format!("{path}: {}", counts.join(", ")));
        }
        None => {
            text.push_str(&format!("{path}: {}", count(checked.report.errors(), "error")));
        }
    }
    match checked.report.warnings() {
        0 => {}
        warnings => text.push_str(&format!(", {}", count(warnings, "warning"))),
    }
    text.push('\n');
    Outcome { text, code: if checked.config.is_some() { OK } else { WRONG } }
}

fn try_in(
    path: &str,
    source: &dyn Source,
    (from, dialled): (&str, &str),
    at: Option<&str>,
) -> Outcome {
    let config = match without_secrets(path, source) {
        Ok((config, _)) => config,
        Err(outcome) => return outcome,
    };
    let at = match at {
        None => config.node.timezone.local(SystemTime::now()),
        Some(text) => match LocalTime::parse(text) {
            Some(at) => at,
            None => {
                let text = format!("`{text}` is not a time; write \"2026-12-25 10:30\"\n");
                return Outcome { text, code: USAGE };
            }
        },
    };
    let context = config.context_of(from);
    let explanation = config.dialplan.explain(&Query { context, from, dialled, at });
    let (guards, is_refused) = guards(&config, (from, at), &explanation.decision);
    let ways = ways(&config, from, &explanation.decision);
    let text = format!("context {context} of {path}\n{explanation}{ways}{guards}");
    let is_well = explanation.is_match() && !is_refused;
    Outcome { text, code: if is_well { OK } else { WRONG } }
}

/// Tells which edges of a trunk a call takes, in order, under which numbers.
fn ways(config: &Config, from: &str, decision: &Decision) -> String {
    let mut text = String::new();
    for dial in dials(decision) {
        for target in dial.groups.iter().flatten() {
            let Target::Trunk { trunk: name, .. } = target else { continue };
            let (Some(trunk), Some(Ok(outbound))) =
                (config.trunks.get(name), config.outbound(from, dial, target))
            else {
                continue;
            };
            let edges = trunk.edges();
            let edges: Vec<_> = edges.iter().map(Edge::authority).collect();
            let mut ids: Vec<_> = outbound.caller_ids.iter().take(1).map(E164::expose).collect();
            let spare = trunk.spare_ids(&outbound);
            ids.extend(spare.iter().map(E164::expose));
            let (edges, ids) = (edges.join(", then "), ids.join(", then "));
            text.push_str(&format!("     trunk {name}: {edges}, as {ids}\n"));
        }
    }
    text
}

fn dials(decision: &Decision) -> impl Iterator<Item = &Dial> {
    let steps = match decision {
        Decision::Matched { steps, .. } => steps.as_slice(),
        Decision::NoRule | Decision::NoContext => &[],
    };
    steps.iter().filter_map(Step::as_dial)
}

/// Tells what the guards say against each target that leaves by a trunk, and whether that leaves
/// nobody to be called by a dial.
fn guards(config: &Config, (from, at): (&str, LocalTime), decision: &Decision) -> (String, bool) {
    let mut text = String::new();
    let mut is_refused = false;
    for dial in dials(decision) {
        let objections = config.objections(from, dial, at);
        is_refused |= objections.len() == dial.groups.iter().map(Vec::len).sum::<usize>();
        for (target, refusal) in objections {
            let (status, phrase) = refusal.answer();
            let (code, help) = (refusal.code(), refusal.help());
            text.push_str(&format!(
                "     guard: {target} is refused with {status} {phrase}: {code} {refusal} \
                 (help: {help})\n"
            ));
        }
    }
    (text, is_refused)
}

fn test_in(path: &str, source: &dyn Source) -> Outcome {
    let (config, checked) = match without_secrets(path, source) {
        Ok(read) => read,
        Err(outcome) => return outcome,
    };
    let mut text = String::new();
    let mut failed = 0;
    for case in &checked.cases {
        let differences = case.differences(&config);
        if differences.is_empty() {
            text.push_str(&format!("ok    {case}\n"));
            continue;
        }
        failed += 1;
        text.push_str(&format!("WRONG {case}\n"));
        for difference in differences {
            text.push_str(&format!("      {difference}\n"));
        }
        for line in case.explain(&config).to_string().lines() {
            text.push_str(&format!("      | {line}\n"));
        }
    }
    text.push_str(&format!("{}, {failed} wrong\n", count(checked.cases.len(), "test")));
    Outcome { text, code: if failed == 0 { OK } else { WRONG } }
}

/// Reads the configuration for those who route no real call: secrets may be missing.
fn without_secrets(path: &str, source: &dyn Source) -> Result<(Config, Checked), Outcome> {
    let mut checked = config::check(path, &WithoutSecrets(source));
    match checked.config.take() {
        Some(config) => Ok((config, checked)),
        None => Err(check_in(path, &WithoutSecrets(source), false)),
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Files;

    const PBX: &str = include_str!("../../conf/pbx.toml");
    const DIALPLAN: &str = include_str!("../../dialplan/default.toml");
    const CASES: &str = include_str!("../../dialplan/cases.toml");

    /// Without the passwords, which only `check` wants.
    fn shipped() -> Files {
        Files::default()
            .with("conf/pbx.toml", PBX)
            .with("dialplan/cases.toml", CASES)
            .with("dialplan/default.toml", DIALPLAN)
    }

    #[test]
    fn check_counts_what_there_is() {
        let files = shipped()
            .with_env("TWILIO_TRUNK_PASSWORD", "t")
            .with_env("PHONE_1001_PASSWORD", "a")
            .with_env("PHONE_1002_PASSWORD", "b");
        let outcome = check_in("conf/pbx.toml", &files, false);
        assert_eq!(outcome.text, "conf/pbx.toml: 1 trunk, 2 users, 3 rules, 9 tests\n");
        assert_eq!(outcome.code, OK);
    }

    #[test]
    fn check_lists_every_missing_secret() {
        let outcome = check_in("conf/pbx.toml", &shipped(), false);
        assert_eq!(outcome.text.matches("error[C022]").count(), 3, "{}", outcome.text);
        assert!(outcome.text.ends_with("\nconf/pbx.toml: 3 errors\n"), "{}", outcome.text);
        assert_eq!(outcome.code, WRONG);
    }

    #[test]
    fn try_explains_the_rule() {
        let call = ("1001", "(415) 555-0199");
        let outcome = try_in("conf/pbx.toml", &shipped(), call, Some("2026-11-20 12:00"));
        assert_eq!(
            outcome.text,
            r#"context internal of conf/pbx.toml
1001 dials "(415) 555-0199", which is +14155550199 in US, at fri 2026-11-20 12:00
  internal[1]  (dialplan/default.toml:2)
    no  match "_1XXX": "(415) 555-0199" or "+14155550199"
  internal[2]  (dialplan/default.toml:5)
    yes match "_+.": "+14155550199"
=> rule internal[2] because "+14155550199" fits "_+.", and the rule before it does not apply
  1. dial +14155550199 via trunk twilio, ring 60s
     trunk twilio: asterisk-pbx1.pstn.twilio.com, as +17756187988
"#
        );
        assert_eq!(outcome.code, OK);
    }

    #[test]
    fn try_says_when_nothing_applies_and_when_the_time_is_none() {
        let refused = try_in("conf/pbx.toml", &shipped(), ("1001", "2001"), None);
        assert!(refused.text.ends_with("=> no rule applies\n  1. reject with 404\n"));
        assert_eq!(refused.code, WRONG);
        let never = try_in("conf/pbx.toml", &shipped(), ("1001", "2001"), Some("soon"));
        assert_eq!(never.text, "`soon` is not a time; write \"2026-12-25 10:30\"\n");
        assert_eq!(never.code, USAGE);
    }

    #[test]
    fn the_shipped_cases_pass() {
        let outcome = test_in("conf/pbx.toml", &shipped());
        assert!(outcome.text.ends_with("\n9 tests, 0 wrong\n"), "{}", outcome.text);
        assert_eq!(outcome.code, OK);
    }

    #[test]
    fn a_wrong_case_shows_what_was_wanted_and_why_it_is_not_so() {
        let case = "[[test]]\nfrom = '1001'\ndial = '411'\n\
                    want = { to = '411', via = 'twilio', rule = 'services' }\n";
        let outcome = test_in("conf/pbx.toml", &shipped().with("dialplan/cases.toml", case));
        let want = r#"WRONG dialplan/cases.toml:1: 1001 dials "411"
      the rule: wanted `services`, got `nothing`
      the call goes to: wanted `411`, got `nothing`
      it goes via: wanted `twilio`, got `nothing`
      | 1001 dials "411", which is not a telephone number in US, at wed 2026-01-07 12:00
"#;
        assert!(outcome.text.starts_with(want), "{}", outcome.text);
        assert!(outcome.text.ends_with("\n1 test, 1 wrong\n"), "{}", outcome.text);
        assert_eq!(outcome.code, WRONG);
    }
}
