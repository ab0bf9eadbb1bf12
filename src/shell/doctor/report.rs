//! What the doctor found, as a table and as JSON.
//!
//! Owns: the four verdicts and how a finding is printed.
//! Never: judges.

use crate::{
    observe::plain,
    shell::views::{Exit, Table},
};
use serde::Serialize;
use std::fmt::{self, Write};

/// What came of one check.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Well,
    /// It works, and somebody may be surprised.
    Note,
    /// Calls fail because of it.
    Wrong,
    /// It could not be looked at.
    Unknown,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Well => "ok",
            Self::Note => "note",
            Self::Wrong => "WRONG",
            Self::Unknown => "?",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// What was looked at: `clock`, `dns`, `options`.
    pub check: &'static str,
    /// Of what: a trunk, an address; empty where there is one only.
    pub subject: String,
    /// What came of it.
    pub verdict: Verdict,
    /// What was seen.
    pub found: String,
    /// What to type where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Finding {
    /// Describes what is as it should be, or what is worth a word.
    pub(super) fn new(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self { check, subject: String::new(), verdict, found: found.into(), help: None }
    }

    /// Says of what.
    pub(super) fn of(mut self, subject: impl fmt::Display) -> Self {
        self.subject = subject.to_string();
        self
    }

    /// Says what to do about it.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Everything that was found, in the order in which people fail.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Report {
    /// One for each check and subject.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Returns how the command ends: with 1 where anything is wrong.
    pub fn exit(&self) -> Exit {
        Exit::wrong_if(self.count(Verdict::Wrong) > 0)
    }

    /// Returns the report as JSON, ending in a newline.
    pub fn json(&self) -> String {
        // Only maps with other keys than strings fail, and there is none.
        plain::json(&format!("{:#}\n", serde_json::to_value(self).unwrap_or_default())).into_owned()
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new("nothing was checked", &["", "CHECK", "OF", "FOUND"]);
        for Finding { check, subject, verdict, found, .. } in &self.findings {
            table.row(vec![verdict.word().into(), (*check).into(), subject.clone(), found.clone()]);
        }
        write!(f, "{table}")?;
        let mut todo = String::new();
        for Finding { check, subject, help, .. } in &self.findings {
            let Some(help) = help else { continue };
            let space = if subject.is_empty() { "" } else { " " };
            writeln!(todo, "{check}{space}{}", plain::spaced(&format!("{subject}: {help}")))?;
        }
        if !todo.is_empty() {
            write!(f, "\nWhat to do\n{todo}")?;
        }
        let [wrong, unknown] = [Verdict::Wrong, Verdict::Unknown].map(|v| self.count(v));
        let all = self.findings.len();
        writeln!(f, "\n{all} checks, {wrong} wrong, {unknown} could not be made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let mut report = Report::default();
        report.add(Finding::new("clock", Verdict::Well, "3 ms off"));
        let dns = Finding::new("dns", Verdict::Wrong, "no such name").of("a.pstn.twilio.com");
        report.add(dns.help("set `uri` to the termination URI"));
        assert_eq!(
            report.to_string(),
            "       CHECK  OF                 FOUND
ok     clock                     3 ms off
WRONG  dns    a.pstn.twilio.com  no such name

What to do
dns a.pstn.twilio.com: set `uri` to the termination URI

2 checks, 1 wrong, 0 could not be made
"
        );
        assert_eq!(report.exit(), Exit::Wrong);
        assert!(report.json().contains("\"verdict\": \"wrong\""));
    }

    #[test]
    fn what_could_not_be_checked_is_not_wrong() {
        let mut report = Report::default();
        report.add(Finding::new("clock", Verdict::Unknown, "no time server answers"));
        report.add(Finding::new("files", Verdict::Note, "room for 10 calls"));
        assert_eq!(report.exit(), Exit::Ok);
    }
}
