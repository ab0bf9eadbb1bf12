//! What one run has measured, and the line of JSON that carries it.
//!
//! Owns: the line's shape. Never: a measurement.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One run: what was asked of whom, and what came out.
///
/// Names of figures end in their unit: `calls_per_s`, `cpu_ms_per_call`, `setup_p99_ms`. Nothing
/// that could not be measured is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The kind of load: the subcommand's name.
    pub what: String,
    /// Who carried it: "tandem", "floor", "kamailio".
    pub subject: String,
    /// The parameters that make runs comparable.
    pub asked: BTreeMap<String, f64>,
    /// The figures.
    pub got: BTreeMap<String, f64>,
    /// What went otherwise than it must, in sentences, the first few of each kind; empty is well.
    pub faults: Vec<String>,
}

impl Sample {
    /// A run without figures yet.
    pub fn new(what: &str, subject: &str) -> Self {
        Self { what: what.to_owned(), subject: subject.to_owned(), ..Self::default() }
    }

    /// Notes a parameter.
    #[must_use]
    pub fn asked(mut self, name: &str, value: f64) -> Self {
        self.asked.insert(name.to_owned(), value);
        self
    }

    /// Notes a figure.
    #[must_use]
    pub fn got(mut self, name: &str, value: f64) -> Self {
        self.got.insert(name.to_owned(), value);
        self
    }

    /// A figure by its name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.got.get(name).copied()
    }

    /// One line of JSON, without its end.
    ///
    /// # Errors
    /// Never for figures that are numbers.
    pub fn line(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Reads what `line` wrote.
    ///
    /// # Errors
    /// If it is another thing.
    pub fn read(line: &str) -> Result<Self> {
        Ok(serde_json::from_str(line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_all_of_it() {
        let mut sample = Sample::new("calls", "floor").asked("calls_per_s", 4000.0);
        sample = sample.got("cpu_ms_per_call", 0.0625);
        sample.faults.push("2 calls failed".to_owned());
        let line = sample.line().unwrap();
        assert_eq!(
            line,
            r#"{"what":"calls","subject":"floor","asked":{"calls_per_s":4000.0},"got":{"cpu_ms_per_call":0.0625},"faults":["2 calls failed"]}"#
        );
        assert_eq!(Sample::read(&line).unwrap(), sample);
        assert_eq!(sample.figure("cpu_ms_per_call"), Some(0.0625));
        assert_eq!(sample.figure("loss"), None);
    }
}
