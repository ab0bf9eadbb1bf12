//! Configuration and dialplan: whatever is in them, each mistake has a place, and what is taken can be
//! asked.

use crate::{fuzz, lines, root};
use std::fs;
use tandem::config::{self, Files, Report, scenario};

const PBX: &str = "dialplan = \"rules.toml\"\n[trunk.carrier]\nuri = \"carrier.example.com\"\n\
                   caller_id = \"+14155550100\"\n[user.1001]\npassword = \"secret\"\n\
                   [user.1002]\npassword = \"secret\"\n";
const RULES: &str = "[[internal.rule]]\nmatch = \"_1XXX\"\ndial = \"user:{number}\"\n";

#[test]
fn a_configuration() {
    fuzz(
        "configuration",
        4_000,
        &parts(&["reference.toml", "pbx.toml"], "pbx.txt", PBX),
        |bytes| {
            check("pbx.toml", &text(bytes), RULES);
        },
    );
}

#[test]
fn a_dialplan() {
    let corpus = parts(&["reference-dialplan.toml"], "rules.txt", RULES);
    fuzz("dialplan", 2_000, &corpus, |bytes| {
        check("pbx.toml", PBX, &text(bytes));
    });
}

#[test]
fn a_scenario() {
    let whole = read("reference-scenario.toml");
    fuzz(
        "scenario",
        4_000,
        &parts(&["reference-scenario.toml"], "scenario.txt", &whole),
        |bytes| {
            let files = Files::default().with("x.toml", &text(bytes));
            let (_, report) = scenario::check("x.toml", &files);
            check_places(&report);
        },
    );
}

/// As much of a file as is played: each mistake is drawn with what is around it, and long files are slow.
const PART_MAX: usize = 4_000;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(PART_MAX)]).into_owned()
}

fn check(path: &str, pbx: &str, rules: &str) {
    let files = Files::default().with("pbx.toml", pbx).with("rules.toml", rules);
    let files = files.with_env("SECRET", "a secret");
    let checked = config::check(path, &files);
    assert_eq!(checked.config.is_some(), checked.report.errors() == 0);
    check_places(&checked.report);
}

/// Each mistake has a code, a sentence and a place in a file that was read; all of it can be drawn.
fn check_places(report: &Report) {
    for diagnostic in &report.diagnostics {
        let origin = report.origin(&diagnostic.span);
        let Some(file) = report.files.get(diagnostic.span.file) else {
            panic!("{} is nowhere", diagnostic.problem);
        };
        assert!((1..=file.text.lines().count() + 1).contains(&origin.line), "{origin:?}");
        assert!(
            !diagnostic.problem.code().is_empty() && !diagnostic.problem.to_string().is_empty()
        );
    }
    assert_eq!(report.problems().len(), report.diagnostics.len());
    let _ = report.render(true);
}

/// Returns the shipped files, whole and in their sections (which are quicker to read), each with what makes it
/// complete; and what was found before.
fn parts(shipped: &[&str], found: &str, complete: &str) -> Vec<Vec<u8>> {
    let mut parts = vec![complete.to_owned()];
    for name in shipped {
        let text = read(name);
        let sections = text.split("\n\n").filter(|part| !part.trim().is_empty());
        parts.extend(sections.map(|section| format!("{section}\n")));
    }
    parts.iter().map(|part| part.as_bytes().to_vec()).chain(lines(found)).collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join("conf").join(name)).expect("shipped")
}
