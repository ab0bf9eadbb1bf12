//! What the configuration means for calls, though it has no mistake in it.
//!
//! Owns: the questions about caller IDs, codecs, destinations and emergency calls.
//! Never: asks anybody outside.

use super::report::{Finding, Report, Verdict};
use crate::{
    config::{Config, Trunk},
    dialplan::{Countries, Country, Decision, Query, Step, Target},
    guard,
    sdp::Codec,
};
use std::time::SystemTime;

/// Looks at one trunk.
pub(super) fn trunk(config: &Config, trunk: &Trunk, report: &mut Report) {
    report.add(caller_id(trunk).of(&trunk.name));
    report.add(codecs(trunk).of(&trunk.name));
    report.add(destinations(config, trunk).of(&trunk.name));
}

/// Looks at who reaches help.
pub(super) fn dialplan(config: &Config, report: &mut Report) {
    for number in &config.emergency.numbers {
        report.add(emergency(config, number).of(number));
    }
}

fn caller_id(trunk: &Trunk) -> Finding {
    let Some(number) = &trunk.caller_id else {
        return Finding::new("caller id", Verdict::Wrong, "none")
            .help("set `caller_id` to a number of the trunk's account");
    };
    let country = Country::of(number);
    let weak = guard::weakness(number, None);
    if let Some(weak) = weak {
        let found = format!("{number} is of a range for {}", weak.what);
        return Finding::new("caller id", Verdict::Note, found)
            .help("call from another number: carriers refuse this range, and people distrust it");
    }
    match country {
        Some(country) => {
            Finding::new("caller id", Verdict::Well, format!("{number}, of {country}"))
        }
        None => Finding::new("caller id", Verdict::Wrong, format!("{number} is of no country"))
            .help("set `caller_id` to a number of the trunk's account"),
    }
}

fn codecs(trunk: &Trunk) -> Finding {
    let names: Vec<_> = trunk.codecs.iter().map(Codec::name).collect();
    let found = names.join(", ");
    let has_g711 = trunk.codecs.iter().any(|codec| matches!(codec, Codec::Pcmu | Codec::Pcma));
    match has_g711 {
        true => Finding::new("codecs", Verdict::Well, found),
        false => Finding::new("codecs", Verdict::Wrong, format!("{found}: no G.711"))
            .help("add \"PCMU\" and \"PCMA\" to the trunk's `codecs`: carriers answer 415 without"),
    }
}

/// Lists where calls may go: the carrier's own permissions must say the same.
fn destinations(config: &Config, trunk: &Trunk) -> Finding {
    let countries = trunk.guard.allow.as_ref().and_then(|allow| allow.countries.as_ref());
    let found = match countries {
        Some(Countries::Any) => "every country".to_owned(),
        Some(Countries::These(these)) => {
            let these: Vec<_> = these.iter().map(Country::to_string).collect();
            these.join(", ")
        }
        None => config.node.country.to_string(),
    };
    let found = format!("{found}; the carrier's console must permit the same");
    Finding::new("destinations", Verdict::Well, found)
}

/// Says who reaches an emergency service now.
fn emergency(config: &Config, number: &str) -> Finding {
    let at = config.node.timezone.local(SystemTime::now());
    let (mut reach, mut miss) = (0_usize, vec![]);
    for user in config.users.values() {
        let query = Query { context: &user.context, from: &user.name, dialled: number, at };
        match reaches(&config.dialplan.route(&query), config) {
            true => reach += 1,
            false => miss.push(&*user.name),
        }
    }
    let caller_id = config.emergency.caller_id.as_ref();
    let from = caller_id.map_or_else(String::new, |number| format!(", from {number}"));
    if miss.is_empty() {
        let found = format!("reached by all {reach} users{from}");
        return Finding::new("emergency", Verdict::Well, found);
    }
    let found = format!("not reached by {}", miss.join(", "));
    Finding::new("emergency", Verdict::Wrong, found)
        .help("name a trunk in `[emergency] trunk`, or add a rule that dials it")
}

fn reaches(decision: &Decision, config: &Config) -> bool {
    let Decision::Matched { steps, .. } = decision else { return false };
    steps.iter().any(|step| match step {
        Step::Dial(dial) => dial.groups.iter().flatten().any(|target| match target {
            Target::Trunk { number, .. } => config.emergency.is(number),
            Target::User(_) | Target::Uri(_) => true,
        }),
        Step::Reject(_)
        | Step::Answer
        | Step::Play(_)
        | Step::Echo
        | Step::Wait(_)
        | Step::Hangup
        | Step::Goto { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Files};

    fn config(text: &str) -> Config {
        let plan = "[[internal.rule]]\nmatch = \"_+.\"\ndial = \"trunk:twilio\"\n";
        let files = Files::default().with("pbx.toml", text).with("plan.toml", plan);
        let checked = config::check("pbx.toml", &files);
        checked.config.unwrap_or_else(|| panic!("{}", checked.report.render(false)))
    }

    fn trunk_with(more: &str) -> Config {
        config(&format!(
            "dialplan = ['plan.toml']\n[trunk.twilio]\npreset = 'twilio'\nusername = 'u'\n\
             uri = 'a.pstn.twilio.com'\npassword = 'p'\n{more}\n[user.1001]\npassword = 'x'\n"
        ))
    }

    #[test]
    fn a_trunk_is_looked_at_from_every_side() {
        for (more, check, verdict, word) in [
            ("caller_id = '+17756187988'", "caller id", Verdict::Well, "+1775****988, of US"),
            ("caller_id = '+19005550100'", "caller id", Verdict::Note, "premium rate"),
            ("caller_id = '+17756187988'", "codecs", Verdict::Well, "PCMU, PCMA"),
            ("caller_id = '+17756187988'\ncodecs = ['opus']", "codecs", Verdict::Wrong, "no G.711"),
            ("caller_id = '+17756187988'", "destinations", Verdict::Well, "US"),
            (
                "caller_id = '+17756187988'\nallow = { countries = ['NL', 'US'] }",
                "destinations",
                Verdict::Well,
                "NL, US",
            ),
        ] {
            let config = trunk_with(more);
            let mut report = Report::default();
            for found in config.trunks.values() {
                trunk(&config, found, &mut report);
            }
            let finding = report.findings.iter().find(|finding| finding.check == check).unwrap();
            assert_eq!(finding.verdict, verdict, "{more}: {finding:?}");
            assert!(finding.found.contains(word), "{more}: {finding:?}");
        }
    }

    #[test]
    fn everybody_must_reach_help() {
        let config = trunk_with("caller_id = '+17756187988'");
        let mut report = Report::default();
        dialplan(&config, &mut report);
        assert!(!report.findings.is_empty());
        assert!(report.findings.iter().all(|f| f.verdict == Verdict::Well), "{report}");
        let mut config = config;
        config.dialplan = std::sync::Arc::new(crate::dialplan::Dialplan::empty(Country::US));
        let mut report = Report::default();
        dialplan(&config, &mut report);
        assert!(report.findings.iter().all(|f| f.verdict == Verdict::Wrong), "{report}");
    }
}
