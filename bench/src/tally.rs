//! What became of calls or registrations.
//!
//! Owns: the counts. Never: judges them.

use crate::{Sample, histogram::Histogram};
use std::{collections::BTreeMap, time::Duration};

/// Counts of one run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Begun.
    pub begun: u64,
    /// Begun and ended as they must.
    pub done: u64,
    /// Ended otherwise.
    pub failed: u64,
    /// Messages that we sent again for want of an answer.
    pub resent: u64,
    /// Messages that came again.
    pub repeated: u64,
    /// From the first request to its success.
    pub setup: Histogram,
    /// From the last request to its success.
    pub ending: Histogram,
    faults: BTreeMap<String, u64>,
}

/// Different faults that are kept: what they quote is the target's to choose.
const FAULTS_MAX: usize = 20;

impl Tally {
    /// Counts what must not be. Equal sentences are counted together.
    pub fn fault(&mut self, sentence: String) {
        let is_full = self.faults.len() >= FAULTS_MAX;
        let sentence = match is_full && !self.faults.contains_key(&sentence) {
            true => "others".to_owned(),
            false => sentence,
        };
        *self.faults.entry(sentence).or_default() += 1;
    }

    /// Counts a failure and why.
    pub fn fail(&mut self, why: String) {
        self.failed += 1;
        self.fault(why);
    }

    /// Adds what the other side has counted.
    pub fn merge(&mut self, other: &Self) {
        self.begun += other.begun;
        self.done += other.done;
        self.failed += other.failed;
        self.resent += other.resent;
        self.repeated += other.repeated;
        self.setup.merge(&other.setup);
        self.ending.merge(&other.ending);
        for (sentence, count) in &other.faults {
            *self.faults.entry(sentence.clone()).or_default() += count;
        }
    }

    /// Notes counts and faults. `elapsed` is from the first to the last begun.
    #[must_use]
    pub fn note(&self, elapsed: Duration, sample: Sample) -> Sample {
        let mut sample = sample
            .got("begun", self.begun as f64)
            .got("begun_per_s", self.begun as f64 / elapsed.as_secs_f64().max(1e-9))
            .got("done", self.done as f64)
            .got("failed", self.failed as f64)
            .got("resent", self.resent as f64)
            .got("repeated", self.repeated as f64);
        for (sentence, count) in &self.faults {
            sample.faults.push(format!("{count} x {sentence}"));
        }
        sample
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_faults_are_one_line_and_their_number_is_bounded() {
        let mut tally = Tally { begun: 30, ..Tally::default() };
        (0..3).for_each(|_| tally.fail("a 503".to_owned()));
        (0..30).for_each(|number| tally.fault(format!("odd {number}")));
        let mut both = Tally { begun: 10, ..Tally::default() };
        both.merge(&tally);
        let sample = both.note(Duration::from_secs(4), Sample::default());
        assert_eq!(sample.figure("failed"), Some(3.0));
        assert_eq!(sample.figure("begun_per_s"), Some(10.0));
        assert!(sample.faults.contains(&"3 x a 503".to_owned()), "{:?}", sample.faults);
        assert_eq!(sample.faults.len(), FAULTS_MAX + 1);
    }
}
