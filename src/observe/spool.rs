//! Records on their way to a disk that may be slow, full or gone.
//!
//! Owns: their order, how many may wait, what is written together, what is tried again.
//! Never: writes, waits, or looks into a record.

use std::collections::VecDeque;

/// How much may wait, and how much is written at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records that may wait, beside one batch that is being written.
    pub most: usize,
    /// From so many on, only what nothing else can stand for is kept.
    pub much: usize,
    /// Records in one transaction.
    pub batch: usize,
}

/// Whether something else stands for a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Weight {
    /// Nobody misses it unless this process dies.
    Spare,
    /// It is all there is.
    Dear,
}

/// What waits to be written, in the order in which it came.
#[derive(Debug)]
pub struct Spool<T> {
    waiting: VecDeque<T>,
    limits: Limits,
    /// How many at the front are written each on its own, because one of them cannot be.
    alone: usize,
}

impl<T> Spool<T> {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        Self { waiting: VecDeque::new(), limits, alone: 0 }
    }

    /// Returns whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how many records wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether there is a whole transaction's worth.
    pub fn has_batch(&self) -> bool {
        self.waiting.len() >= self.limits.batch
    }

    /// Lets a record wait behind the others.
    ///
    /// # Errors
    /// The record, where there is no room.
    pub fn put(&mut self, record: T, weight: Weight) -> Result<(), T> {
        let most = match weight {
            Weight::Spare => self.limits.much,
            Weight::Dear => self.limits.most,
        };
        if self.waiting.len() >= most {
            return Err(record);
        }
        self.waiting.push_back(record);
        Ok(())
    }

    /// Takes what is to be written next, all or nothing of it; `None` where nothing waits. Whoever takes it gives it
    /// back by [`Self::put_back`] or [`Self::split`], or has written it.
    pub fn take(&mut self) -> Option<Vec<T>> {
        let most = if self.alone > 0 { 1 } else { self.limits.batch };
        self.alone = self.alone.saturating_sub(1);
        let batch: Vec<T> = self.waiting.drain(..self.waiting.len().min(most)).collect();
        (!batch.is_empty()).then_some(batch)
    }

    /// Takes back what could not be written now.
    pub fn put_back(&mut self, batch: Vec<T>) {
        if self.alone > 0 {
            self.alone = self.alone.saturating_add(batch.len());
        }
        batch.into_iter().rev().for_each(|record| self.waiting.push_front(record));
    }

    /// Takes back what can never be written because of one record in it: from now on, each is tried on its own.
    /// Returns that record, where it was on its own.
    pub fn split(&mut self, mut batch: Vec<T>) -> Option<T> {
        if batch.len() == 1 {
            return batch.pop();
        }
        self.alone = batch.len();
        batch.into_iter().rev().for_each(|record| self.waiting.push_front(record));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(records: u64) -> Spool<u64> {
        let mut spool = Spool::new(Limits { most: 10, much: 5, batch: 4 });
        (0..records).for_each(|n| spool.put(n, Weight::Dear).unwrap());
        spool
    }

    #[test]
    fn what_can_be_missed_makes_room() {
        let mut spool = spool(5);
        assert_eq!(spool.put(5, Weight::Spare), Err(5));
        (5..10).for_each(|n| spool.put(n, Weight::Dear).unwrap());
        assert_eq!((spool.put(10, Weight::Dear), spool.len()), (Err(10), 10));
        assert_eq!(spool.take(), Some(vec![0, 1, 2, 3]));
        assert_eq!(spool.put(10, Weight::Dear), Ok(()));
    }

    #[test]
    fn what_comes_back_goes_first() {
        let mut spool = spool(6);
        let batch = spool.take().unwrap();
        spool.put_back(batch);
        assert_eq!((spool.take(), spool.take()), (Some(vec![0, 1, 2, 3]), Some(vec![4, 5])));
        assert!(spool.take().is_none() && spool.is_empty());
    }

    /// The disk goes away in between.
    #[test]
    fn one_that_cannot_be_written_costs_no_other_and_no_order() {
        let mut spool = spool(6);
        let (mut written, mut refused) = (vec![], vec![]);
        for attempt in 0.. {
            let Some(batch) = spool.take() else { break };
            if attempt % 3 == 1 {
                spool.put_back(batch);
            } else if batch.contains(&1) {
                refused.extend(spool.split(batch));
            } else {
                written.push(batch);
            }
        }
        assert_eq!((written, refused), (vec![vec![0], vec![2], vec![3], vec![4, 5]], vec![1]));
    }
}
