//! All samples of a suite, by what was asked and of whom; medians and spreads over the repeats.
//!
//! Owns: the samples. Never: a verdict.

use crate::Sample;
use std::collections::BTreeMap;

/// Median and extremes of one figure over the repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    /// The middle one; of an even number the mean of the two.
    pub(super) median: f64,
    /// The least.
    pub(super) min: f64,
    /// The greatest.
    pub(super) max: f64,
    /// Of how many.
    pub(super) runs: usize,
}

impl Spread {
    /// Of these values; none of none.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let runs = values.len();
        let median = (values[(runs - 1) / 2] + values[runs / 2]) / 2.0;
        Some(Self { median, min, max, runs })
    }
}

/// Samples by row ("calls at 4000/s") and subject ("tandem").
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    rows: Vec<(String, BTreeMap<String, Vec<Sample>>)>,
    /// What could not be run, and why.
    pub(super) troubles: Vec<String>,
}

impl Runs {
    /// Keeps a sample.
    pub(super) fn push(&mut self, row: &str, sample: Sample) {
        let place = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_owned(), BTreeMap::new()));
            self.rows.len() - 1
        });
        self.rows[place].1.entry(sample.subject.clone()).or_default().push(sample);
    }

    /// The rows in the order in which they were first run, each with its samples by subject.
    pub(super) fn rows(&self) -> &[(String, BTreeMap<String, Vec<Sample>>)] {
        &self.rows
    }

    /// The samples of one row and subject.
    pub(super) fn samples(&self, row: &str, subject: &str) -> &[Sample] {
        let found = self.rows.iter().find(|(name, _)| name == row);
        found.and_then(|(_, subjects)| subjects.get(subject)).map_or(&[], Vec::as_slice)
    }

    /// A figure over the repeats.
    pub(super) fn spread(&self, row: &str, subject: &str, figure: &str) -> Option<Spread> {
        let samples = self.samples(row, subject);
        Spread::of(samples.iter().filter_map(|sample| sample.figure(figure)).collect())
    }

    /// The sum of some figures of each repeat; none if a sample lacks one.
    pub(super) fn sum(&self, row: &str, subject: &str, figures: &[&str]) -> Option<Spread> {
        let sum = |sample: &Sample| figures.iter().map(|name| sample.figure(name)).sum();
        Spread::of(self.samples(row, subject).iter().map(sum).collect::<Option<Vec<f64>>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads_are_over_the_repeats() {
        let mut runs = Runs::default();
        for (subject, value) in [("tandem", 3.0), ("floor", 1.0), ("tandem", 9.0), ("tandem", 4.0)]
        {
            runs.push("calls", Sample::new("calls", subject).got("ms", value).got("failed", 1.0));
        }
        let spread = runs.spread("calls", "tandem", "ms");
        assert_eq!(spread, Some(Spread { median: 4.0, min: 3.0, max: 9.0, runs: 3 }));
        let sum = runs.sum("calls", "tandem", &["ms", "failed"]).unwrap();
        assert_eq!((sum.median, sum.max), (5.0, 10.0));
        assert_eq!(runs.sum("calls", "tandem", &["ms", "lost"]), None);
        assert_eq!(runs.spread("calls", "kamailio", "ms"), None);
        assert_eq!(Spread::of(vec![2.0, 1.0]).unwrap().median, 1.5);
        assert_eq!(runs.rows()[0].1.len(), 2);
    }
}
