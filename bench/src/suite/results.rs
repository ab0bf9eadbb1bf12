//! The results as a document.
//!
//! Owns: its shape. Never: a figure that was not measured.

use super::{
    place,
    runs::{Runs, Spread},
    verdict::{CRITERIA, Criterion, Limit},
};
use crate::Sample;
use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

/// Figures that are shown for each run, where it has them.
const SHOWN: &[&str] = &[
    "ready_ms",
    "begun_per_s",
    "done",
    "failed",
    "resent",
    "repeated",
    "cpu_ms_per_call",
    "cpu_us_per_register",
    "beside_cpu_ms_per_call",
    "setup_p50_ms",
    "setup_p99_ms",
    "setup_p999_ms",
    "bye_p50_ms",
    "bye_p99_ms",
    "bye_p999_ms",
    "challenge_p50_ms",
    "challenge_p99_ms",
    "register_p50_ms",
    "register_p99_ms",
    "late_p99_ms",
    "late_max_ms",
    "sent_per_s",
    "loss_share",
    "carried",
    "cpu_us_per_packet",
    "cores",
    "busiest_thread_cores",
    "next_thread_cores",
    "busy_share",
    "stolen_share",
    "holding_cores",
    "delay_p50_ms",
    "delay_p99_ms",
    "delay_p999_ms",
    "jitter_mean_us",
    "pss_kb_per_call",
    "kb_per_call",
    "fds_per_call",
    "threads_per_call",
    "before_pss_kb",
    "held_pss_kb",
    "peak_pss_kb",
    "after_pss_kb",
    "pss_growth_percent",
    "peak_threads",
    "peak_fds",
    "after_fds",
];

/// What stands at the top.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// How it was made.
    pub(super) command: String,
    /// Whether it was only a look.
    pub(super) quick: bool,
    /// What is particular about this machine.
    pub(super) remarks: Vec<String>,
}

/// The whole document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Document<'a> {
    /// The top.
    pub(super) head: &'a Head,
    /// The samples.
    pub(super) runs: &'a Runs,
}

impl Display for Document<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { head, runs } = *self;
        let commit = place::said("git", &["describe", "--always", "--dirty"]);
        let date = place::said("date", &["-u", "+%F %R UTC"]);
        writeln!(f, "# Results\n\nMade by `{}`; not written by hand.\n", head.command)?;
        writeln!(f, "- {}", place::machine())?;
        writeln!(f, "- {date}, commit {commit}")?;
        for remark in &head.remarks {
            writeln!(f, "- {remark}")?;
        }
        if head.quick {
            writeln!(f, "- **Quick: short runs, not repeated. A look, not a result.**")?;
        }
        self.verdicts(f)?;
        for (name, subjects) in runs.rows() {
            row(name, subjects, runs, f)?;
        }
        self.faults(f)
    }
}

impl Document<'_> {
    fn verdicts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let passed = CRITERIA.iter().filter(|criterion| criterion.passes(self.runs)).count();
        writeln!(f, "\n## What must be\n\n{passed} of {} pass.\n", CRITERIA.len())?;
        writeln!(f, "| | median (least to most) | floor, same run | ratio | must | aim | |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        CRITERIA.iter().try_for_each(|criterion| verdict(criterion, self.runs, f))
    }

    fn faults(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> =
            self.runs.troubles.iter().map(|line| format!("not run: {line}")).collect();
        for (name, subjects) in self.runs.rows() {
            for (subject, samples) in subjects {
                let faults = samples.iter().flat_map(|sample| &sample.faults);
                lines.extend(faults.map(|fault| format!("{name}, {subject}: {fault}")));
            }
        }
        writeln!(f, "\n## What went wrong\n")?;
        if lines.is_empty() {
            return writeln!(f, "Nothing.");
        }
        lines.iter().try_for_each(|line| writeln!(f, "- {line}"))
    }
}

/// The line of one criterion.
fn verdict(criterion: &Criterion, runs: &Runs, f: &mut Formatter<'_>) -> fmt::Result {
    let value = (criterion.value)(runs);
    let floor = criterion.floor.and_then(|floor| floor(runs));
    let ratio = value.zip(floor).map(|(value, floor)| value.median / floor.median);
    let shown = value.map_or_else(|| "not measured".to_owned(), |v| v.to_string());
    let word = if criterion.passes(runs) { "PASS" } else { "**FAIL**" };
    writeln!(
        f,
        "| {}{} | {shown} | {} | {} | {} | {} | {word} |",
        criterion.what,
        if criterion.unit.is_empty() { String::new() } else { format!(", {}", criterion.unit) },
        floor.map(|floor| floor.to_string()).unwrap_or_default(),
        ratio.map(number).unwrap_or_default(),
        criterion.must,
        criterion.aim.map(|aim| aim.to_string()).unwrap_or_default(),
    )
}

/// One table: figures downwards, subjects sideways.
fn row(
    name: &str,
    subjects: &BTreeMap<String, Vec<Sample>>,
    runs: &Runs,
    f: &mut Formatter<'_>,
) -> fmt::Result {
    writeln!(f, "\n## {}\n", name[..1].to_uppercase() + &name[1..])?;
    let columns: Vec<_> = columns(subjects, runs, name);
    let names: Vec<_> = columns.iter().map(|(title, _)| title.as_str()).collect();
    writeln!(f, "| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()))?;
    for figure in SHOWN {
        let values: Vec<_> = columns.iter().map(|(_, values)| values.get(figure)).collect();
        if values.iter().any(Option::is_some) {
            let shown: Vec<_> =
                values.iter().map(|v| v.map_or(String::new(), Spread::to_string)).collect();
            writeln!(f, "| {figure} | {} |", shown.join(" | "))?;
        }
    }
    Ok(())
}

type Column = (String, BTreeMap<&'static str, Spread>);

/// A column a subject; where one has samples with different parameters, as in a search, a column each.
fn columns(subjects: &BTreeMap<String, Vec<Sample>>, runs: &Runs, row: &str) -> Vec<Column> {
    let mut found = vec![];
    for (subject, samples) in subjects {
        let is_search = samples.iter().any(|sample| sample.asked != samples[0].asked);
        if is_search {
            for sample in samples {
                let calls = sample.asked.get("calls").copied().unwrap_or_default();
                let one =
                    |name: &'static str| Some((name, Spread::of(vec![sample.figure(name)?])?));
                let values = SHOWN.iter().filter_map(|name| one(name)).collect();
                found.push((format!("{subject} {}", number(calls)), values));
            }
        } else {
            let one = |name: &'static str| Some((name, runs.spread(row, subject, name)?));
            found.push((subject.clone(), SHOWN.iter().filter_map(|name| one(name)).collect()));
        }
    }
    found
}

impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (median, min, max) = (number(self.median), number(self.min), number(self.max));
        if self.runs == 1 || min == max {
            return write!(f, "{median}");
        }
        write!(f, "{median} ({min} to {max})")
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Most(most) => write!(f, "<= {}", number(*most)),
            Self::Least(least) => write!(f, ">= {}", number(*least)),
        }
    }
}

/// Three digits that count; whole numbers whole.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    let decimals = (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::row::CALLS_4000;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (12_000.0, "12000"),
            (1234.56, "1235"),
            (12.345, "12.3"),
            (0.061_23, "0.0612"),
            (0.18, "0.18"),
            (0.000_123_456, "0.000123"),
            (-2.5, "-2.5"),
            (1e-9, "0"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn the_document_shows_verdicts_runs_and_faults() {
        let mut runs = Runs::default();
        for (subject, ms) in [("tandem", 0.17), ("tandem", 0.15), ("tandem", 0.2), ("floor", 0.05)]
        {
            let mut sample = Sample::new("calls", subject).got("cpu_ms_per_call", ms);
            sample.faults = (ms > 0.19).then(|| "1 x 503".to_owned()).into_iter().collect();
            runs.push(CALLS_4000, sample);
        }
        runs.troubles.push("no rtpengine".to_owned());
        let head = Head {
            command: "make bench".to_owned(),
            quick: true,
            remarks: vec!["a remark".to_owned()],
        };
        let text = Document { head: &head, runs: &runs }.to_string();
        for line in [
            "| CPU per call at 4,000 calls/s, ms | 0.17 (0.15 to 0.2) | 0.05 | 3.4 | <= 0.18 | <= 0.1 | PASS |",
            "| threads of a held call | not measured |  |  | <= 0 |  | **FAIL** |",
            "## 4,000 calls/s",
            "| | floor | tandem |",
            "| cpu_ms_per_call | 0.05 | 0.17 (0.15 to 0.2) |",
            "- not run: no rtpengine",
            "- 4,000 calls/s, tandem: 1 x 503",
            "- a remark",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\nnot in\n{text}");
        }
        assert!(text.contains("A look, not a result."));
    }

    #[test]
    fn a_search_has_a_column_a_step() {
        let mut runs = Runs::default();
        for calls in [1600.0, 2400.0] {
            let sample = Sample::new("media", "tandem").asked("calls", calls).got("carried", 1.0);
            runs.push("media", sample);
        }
        let head = Head { command: String::new(), quick: false, remarks: vec![] };
        let text = Document { head: &head, runs: &runs }.to_string();
        assert!(text.contains("## Media\n\n| | tandem 1600 | tandem 2400 |\n"), "{text}");
        assert!(!text.contains("A look"));
    }
}
