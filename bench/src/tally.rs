//! What became of calls or registrations.
//!
//! Owns: the counts, and by which of them a call is counted. Never: judges them.

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

/// Counts of calls by when they began: what becomes of one later is still its chapter's.
#[derive(Clone, Debug)]
pub struct Chapters {
    /// The serial number of the first call of all, which wrap around.
    first: u32,
    /// With how many calls before it each begins.
    chapters: Vec<(u32, Tally)>,
}

impl Chapters {
    /// The first one, which begins with this call.
    pub fn new(serial: u32) -> Self {
        Self { first: serial, chapters: vec![(0, Tally::default())] }
    }

    /// Counts this call and those after it apart from those before.
    pub fn turn(&mut self, serial: u32) {
        self.chapters.push((serial.wrapping_sub(self.first), Tally::default()));
    }

    /// The chapter in which a call began.
    pub fn of(&mut self, serial: u32) -> &mut Tally {
        let nth = serial.wrapping_sub(self.first);
        let after = self.chapters.partition_point(|(begins, _)| *begins <= nth);
        &mut self.chapters[after.saturating_sub(1)].1
    }

    /// The last chapter, for what is no call's.
    pub fn last(&mut self) -> &mut Tally {
        let last = self.chapters.len() - 1;
        &mut self.chapters[last].1
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = &Tally> {
        self.chapters.iter().map(|(_, tally)| tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_counted_where_it_began() {
        let mut chapters = Chapters::new(u32::MAX);
        chapters.of(u32::MAX).begun += 1;
        chapters.of(0).begun += 1;
        chapters.turn(1);
        chapters.last().begun += 1;
        chapters.of(0).done += 1;
        chapters.of(1).done += 1;
        let seen: Vec<_> = chapters.each().map(|tally| (tally.begun, tally.done)).collect();
        assert_eq!(seen, [(2, 1), (1, 1)]);
    }

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
