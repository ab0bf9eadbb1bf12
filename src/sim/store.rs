//! The store in the world: a disk that is slow, full or failing for a while, behind the product's own spool.
//!
//! Owns: what is on the disk, what was handed over, and what must be true of the two.
//! Never: makes the product wait, or forgets what it has said to be written.

use crate::{
    call::Record,
    guard::Ban,
    ids::CallId,
    observe::{
        cdr::Cdr,
        spool::{Limits, Spool, Weight},
    },
    registrar::Binding,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// What may wait for the disk: more than any world has to say.
const LIMITS: Limits = Limits { most: 50_000, much: 25_000, batch: 16 };

/// How the disk is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Disk {
    /// It writes at once.
    Well,
    /// Each transaction takes so long.
    Slow(Duration),
    /// It writes nothing: it is full, locked or gone.
    Gone,
    /// It says that it has written nothing, and has.
    Liar,
}

/// What is on the disk, or would be if all were.
#[derive(Debug, Default)]
struct Table {
    cdrs: BTreeMap<CallId, Cdr>,
    running: BTreeSet<CallId>,
    bound: BTreeMap<(Box<str>, Box<str>), Binding>,
    bans: Vec<Ban>,
    /// Calls of which there came another record.
    doubled: Vec<CallId>,
}

impl Table {
    /// Writes a record; one that is there is not written again.
    fn write(&mut self, record: &Record) {
        match record {
            Record::Cdr(cdr) => {
                self.running.remove(&cdr.call);
                let is_other = |there: &Cdr| *there != **cdr;
                self.doubled
                    .extend(self.cdrs.get(&cdr.call).filter(|c| is_other(c)).map(|c| c.call));
                self.cdrs.entry(cdr.call).or_insert_with(|| (**cdr).clone());
            }
            Record::Running(cdr) => {
                self.running.insert(cdr.call);
            }
            Record::Bind(binding) => {
                let key = (binding.aor.clone(), binding.contact.clone());
                self.bound.insert(key, (**binding).clone());
            }
            Record::Unbind { aor, contact } => {
                self.bound.remove(&(aor.clone(), contact.clone()));
            }
            Record::Ban(ban) => {
                self.bans.retain(|known| known.source != ban.source);
                self.bans.push((**ban).clone());
            }
            Record::Lift(network) => self.bans.retain(|known| !known.source.overlaps(*network)),
        }
    }
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    disk: Disk,
    /// What comes while a transaction is written.
    queue: VecDeque<Record>,
    spool: Spool<Record>,
    /// The transaction that is written, and until when.
    writing: Option<(Instant, Vec<Record>)>,
    retry_at: Option<Instant>,
    written: Table,
    /// What would be written if the disk were always well.
    told: Table,
    dropped: u64,
    held_up: u64,
    refusals: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            disk: Disk::Well,
            queue: VecDeque::new(),
            spool: Spool::new(LIMITS),
            writing: None,
            retry_at: None,
            written: Table::default(),
            told: Table::default(),
            dropped: 0,
            held_up: 0,
            refusals: 0,
        }
    }
}

impl Store {
    /// Lets the disk be otherwise from now on. What waited for it is tried when it is time.
    pub(super) fn set_disk(&mut self, disk: Disk) {
        self.disk = disk;
    }

    /// Lets so many records wait, instead of more than there are. Before the first of them.
    pub(super) fn limit(&mut self, most: usize) {
        debug_assert!(self.is_quiet(), "what waits would be forgotten");
        self.spool = Spool::new(Limits { most, much: most / 2, ..LIMITS });
    }

    /// Takes over a record, to be written when that can be done.
    pub(super) fn put(&mut self, record: Record, now: Instant) {
        self.told.write(&record);
        self.queue.push_back(record);
        self.write(now);
        self.held_up += u64::from(!self.is_quiet());
    }

    fn spool_up(&mut self, record: Record) {
        let weight = match &record {
            Record::Running(_) => Weight::Spare,
            Record::Cdr(_)
            | Record::Bind(_)
            | Record::Unbind { .. }
            | Record::Ban(_)
            | Record::Lift(_) => Weight::Dear,
        };
        let is_refused = self.spool.put(record, weight).is_err();
        self.dropped += u64::from(is_refused && weight == Weight::Dear);
    }

    /// Writes what can be written by now.
    pub(super) fn write(&mut self, now: Instant) {
        loop {
            if self.writing.as_ref().is_some_and(|(until, _)| now < *until) {
                return;
            }
            if let Some((_, batch)) = self.writing.take() {
                self.finish(batch, now);
            }
            // What has come meanwhile, behind what came back.
            for record in std::mem::take(&mut self.queue) {
                self.spool_up(record);
            }
            if self.retry_at.is_some_and(|at| now < at) {
                return;
            }
            self.retry_at = None;
            let Some(batch) = self.spool.take() else { return };
            match self.disk {
                Disk::Slow(takes) => self.writing = Some((now + takes, batch)),
                Disk::Well | Disk::Gone | Disk::Liar => self.finish(batch, now),
            }
        }
    }

    /// The disk has its say: of what it was at the end, a transaction is written as a whole or not at all.
    fn finish(&mut self, batch: Vec<Record>, now: Instant) {
        if self.disk != Disk::Gone {
            batch.iter().for_each(|record| self.written.write(record));
        }
        match self.disk {
            Disk::Well | Disk::Slow(_) => {}
            Disk::Gone | Disk::Liar => {
                self.refusals += 1;
                self.retry_at = Some(now + RETRY);
                self.spool.put_back(batch);
            }
        }
    }

    /// Returns when [`Self::write`] has something to do.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let until = self.writing.as_ref().map(|(until, _)| *until);
        until.or(self.retry_at)
    }

    /// Returns whether nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.writing.is_none() && self.queue.is_empty() && self.spool.is_empty()
    }

    /// Returns how many records had to wait.
    pub(super) fn held_up(&self) -> u64 {
        self.held_up
    }

    /// Returns how often the disk has refused.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Returns how many records there was no room for.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns the records of calls that are on the disk.
    pub(super) fn cdrs(&self) -> usize {
        self.written.cdrs.len()
    }

    /// Returns the calls that would be closed as lost if the process died now.
    pub(super) fn running(&self) -> &BTreeSet<CallId> {
        &self.written.running
    }

    /// Returns the users and contacts that are on the disk.
    pub(super) fn bound(&self) -> impl Iterator<Item = &(Box<str>, Box<str>)> {
        self.written.bound.keys()
    }

    /// Returns what is wrong with what is on the disk, once nothing waits.
    pub(super) fn faults(&self) -> Vec<String> {
        let Self { written, told, .. } = self;
        let mut faults = vec![];
        let mut compare = |is_same: bool, what: &str| {
            if !is_same {
                faults.push(format!("{what} on the disk are not those that were handed over"));
            }
        };
        compare(written.cdrs == told.cdrs, "the records of calls");
        compare(written.running == told.running, "the calls that go on");
        compare(written.bound == told.bound, "the bindings");
        compare(written.bans == told.bans, "the bans");
        let doubled = told.doubled.iter().chain(&written.doubled);
        faults.extend(doubled.map(|call| format!("the call {call} has two records")));
        if !self.is_quiet() || self.dropped > 0 {
            let written = self.writing.as_ref().map_or(0, |(_, batch)| batch.len());
            let waiting = self.spool.len() + self.queue.len() + written;
            faults.push(format!("{waiting} records wait, {} were dropped", self.dropped));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observe::cdr::tests::answered, sim::epoch};

    fn at(ms: u64) -> Instant {
        epoch() + Duration::from_millis(ms)
    }

    fn cdr(n: u64) -> Record {
        Record::Cdr(Box::new(answered(n)))
    }

    fn run(store: &mut Store, ms: u64) {
        while let Some(due) = store.next_at().filter(|due| *due <= at(ms)) {
            store.write(due);
        }
    }

    #[test]
    fn everything_lands_in_the_end_and_once() {
        for disk in [Disk::Well, Disk::Slow(Duration::from_millis(700)), Disk::Gone, Disk::Liar] {
            let mut store = Store::default();
            store.put(cdr(0), at(0));
            store.set_disk(disk);
            for n in 1..40 {
                store.put(Record::Running(Box::new(answered(n))), at(100 * n));
                store.put(cdr(n), at(100 * n + 50));
                run(&mut store, 100 * n + 99);
            }
            assert_eq!(store.is_quiet(), disk == Disk::Well, "{disk:?}");
            assert_eq!(store.cdrs() == 40, disk == Disk::Well, "{disk:?}");
            store.set_disk(Disk::Well);
            run(&mut store, 10_000);
            assert_eq!((store.faults(), store.cdrs()), (vec![], 40), "{disk:?}");
            assert!(store.running().is_empty() && store.next_at().is_none());
        }
    }

    /// What came while a transaction was written that failed in the end is not overtaken by what comes then.
    #[test]
    fn a_disk_that_fails_at_the_end_changes_no_order() {
        let mut store = Store::default();
        store.set_disk(Disk::Slow(Duration::from_millis(700)));
        store.put(cdr(1), at(0));
        store.put(Record::Running(Box::new(answered(2))), at(100));
        store.set_disk(Disk::Gone);
        run(&mut store, 800);
        store.put(cdr(2), at(800));
        store.set_disk(Disk::Well);
        run(&mut store, 10_000);
        assert_eq!((store.faults(), store.cdrs()), (vec![], 2));
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let mut store = Store::default();
        store.limit(3);
        store.set_disk(Disk::Gone);
        (0..5).for_each(|n| store.put(cdr(n), at(n)));
        store.set_disk(Disk::Well);
        run(&mut store, 2_000);
        assert_eq!((store.cdrs(), store.dropped()), (3, 2));
        assert_eq!(store.faults().len(), 2);
    }

    #[test]
    fn what_the_disk_has_otherwise_is_found() {
        let mut store = Store::default();
        store.put(cdr(1), at(0));
        assert_eq!(store.faults(), [""; 0]);
        let mut other = answered(1);
        other.times.end = other.times.start;
        store.put(Record::Cdr(Box::new(other)), at(1));
        assert_eq!(store.faults().len(), 2, "told and written");
        let mut store = Store::default();
        store.put(cdr(1), at(0));
        store.written.cdrs.clear();
        assert_eq!(store.faults().len(), 1);
    }
}
