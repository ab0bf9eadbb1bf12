//! The store's thread: takes what has come, writes it in one transaction, then answers questions about it.
//!
//! Owns: what waits while the database cannot be written to, when it is tried again, and the database itself.
//! Never: loses a record that could be written later, unless there are too many.

use super::{
    Shared, StoreError, Task, Write,
    sqlite::{Database, DatabaseError},
};
use crate::{
    observe::{
        log,
        spool::{Limits, Spool, Weight},
    },
    shell::now,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

/// Records in one transaction.
const BATCH_MAX: usize = 512;
/// What is kept while the database cannot be written to.
const LIMITS: Limits = Limits { most: 50_000, much: 25_000, batch: BATCH_MAX };
/// How long a record may wait for others to share its transaction: one that writes the same pages
/// once for hundreds of records costs each of them a fraction.
const LINGER: Duration = Duration::from_millis(50);
/// Between two attempts to write.
const RETRY: Duration = Duration::from_secs(1);
/// How often the file is told that calls go on: a call that is lost has talked until then.
const SIGN_EVERY: Duration = Duration::from_secs(10);

/// What is wanted of the database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Aim {
    Read,
    Write,
}

/// What the thread works with.
pub(super) struct Writer {
    path: PathBuf,
    database: Option<Database>,
    pending: Spool<Write>,
    retry_at: Option<Instant>,
    has_complained: bool,
    must_close_lost: bool,
    /// When the file is told next that calls go on; `None` where none does.
    sign_at: Option<Instant>,
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn new(path: &Path, shared: Arc<Shared>) -> Self {
        Self {
            path: path.to_owned(),
            database: None,
            pending: Spool::new(LIMITS),
            retry_at: None,
            has_complained: false,
            must_close_lost: false,
            sign_at: None,
            shared,
        }
    }

    /// Writes until nobody can hand over anything any more, or it is told to close.
    pub(super) fn run(mut self, queue: Receiver<Task>) {
        self.write_pending();
        while self.step(&queue) {}
        self.write_pending();
        for _ in 0..self.pending.len() {
            self.shared.drop_record();
        }
    }

    /// Takes what has come, writes it in one transaction, then answers questions about it.
    /// Returns false where there is nothing more to come.
    fn step(&mut self, queue: &Receiver<Task>) -> bool {
        let first = match self.retry_at.or(self.sign_at) {
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => queue.recv_timeout(at.saturating_duration_since(now())),
        };
        let mut questions = vec![];
        match first {
            Ok(task) => {
                if !self.gather(task, queue, &mut questions) {
                    self.retry_at = None;
                    return false;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        self.write_pending();
        for question in questions {
            self.answer(question);
        }
        true
    }

    /// Takes what comes until somebody asks, a transaction is full or the first record has waited
    /// long enough; returns false at the end.
    fn gather(&mut self, first: Task, queue: &Receiver<Task>, questions: &mut Vec<Task>) -> bool {
        let until = now() + LINGER;
        let mut first = Some(first);
        loop {
            let tasks = first.take().into_iter().chain(queue.try_iter()).take(BATCH_MAX);
            if !self.sort(tasks, questions) {
                return false;
            }
            let left = until.saturating_duration_since(now());
            if !questions.is_empty() || self.pending.has_batch() || left.is_zero() {
                return true;
            }
            thread::park_timeout(left);
        }
    }

    /// Puts records aside to be written and questions to be answered; returns false at the end.
    fn sort(&mut self, tasks: impl Iterator<Item = Task>, questions: &mut Vec<Task>) -> bool {
        for task in tasks {
            match task {
                Task::Write(record) => self.put_aside(record),
                Task::CloseLost => self.must_close_lost = true,
                Task::Close => return false,
                question @ (Task::Cdrs(..)
                | Task::Ladder(..)
                | Task::Bindings(..)
                | Task::Bans(..)
                | Task::Flush(_)) => questions.push(question),
            }
        }
        true
    }

    fn put_aside(&mut self, record: Write) {
        let weight = record.weight();
        if let Err(record) = self.pending.put(record, weight) {
            return self.shared.refuse(&record);
        }
        if weight == Weight::Spare && self.sign_at.is_none() {
            self.sign_at = Some(now() + SIGN_EVERY);
        }
    }

    /// Writes all that waits, unless an attempt failed a moment ago.
    fn write_pending(&mut self) {
        // First, so that a call of now is not taken for one of before.
        if self.must_close_lost && self.may_try() {
            self.close_lost();
        }
        while self.may_try()
            && let Some(batch) = self.pending.take()
        {
            match self.attempt(Aim::Write, |database| database.write(&batch)) {
                Ok(_) => batch.iter().for_each(|record| self.finish(record)),
                Err(error) if error.is_about_the_record() => {
                    if let Some(record) = self.pending.split(batch) {
                        tracing::error!(%error, "record cannot be written");
                        self.shared.refuse(&record);
                    }
                }
                Err(_) => self.pending.put_back(batch),
            }
        }
        if self.database.is_none() && self.may_try() {
            _ = self.attempt(Aim::Write, |_| Ok(()));
        }
        self.sign();
        if self.pending.is_empty() && self.database.is_some() {
            self.shared.is_dropping.store(false, Relaxed);
        }
    }

    fn finish(&self, record: &Write) {
        self.shared.written.fetch_add(u64::from(!record.is_spare()), Relaxed);
        self.shared.queued.fetch_sub(1, Relaxed);
    }

    fn close_lost(&mut self) {
        match self.attempt(Aim::Write, Database::close_lost) {
            Ok(lost) => {
                self.must_close_lost = false;
                self.shared.closed.fetch_add(lost.len() as u64, Relaxed);
                if !lost.is_empty() {
                    tracing::warn!(calls = lost.len(), "calls of before closed as lost");
                }
                for cdr in &lost {
                    let _call = tracing::info_span!("call", call = %cdr.call).entered();
                    log::call_ended(cdr, None);
                }
            }
            Err(error) if error.is_about_the_record() => {
                tracing::error!(%error, "calls of before cannot be closed");
                self.must_close_lost = false;
            }
            Err(_) => {}
        }
    }

    /// Tells the file that calls go on, when it is time.
    fn sign(&mut self) {
        if self.sign_at.is_none_or(|at| at > now()) || !self.may_try() {
            return;
        }
        let is_busy = self.attempt(Aim::Write, |database| database.sign(SystemTime::now()));
        let goes_on = is_busy.unwrap_or(true);
        self.sign_at = goes_on.then(|| now() + SIGN_EVERY);
    }

    fn may_try(&self) -> bool {
        self.retry_at.is_none_or(|at| at <= now())
    }

    fn answer(&mut self, question: Task) {
        match question {
            Task::Cdrs(query, reply) => {
                let found = self.attempt(Aim::Read, |database| database.cdrs(&query));
                _ = reply.send(found.map_err(broken));
            }
            Task::Ladder(call, reply) => {
                let found = self.attempt(Aim::Read, |database| database.ladder(call));
                _ = reply.send(found.map_err(broken));
            }
            Task::Bindings(wall, reply) => {
                let found = self.attempt(Aim::Read, |database| database.bindings(wall));
                _ = reply.send(found.map_err(broken));
            }
            Task::Bans(wall, reply) => {
                let found = self.attempt(Aim::Read, |database| database.bans(wall));
                _ = reply.send(found.map_err(broken));
            }
            Task::Flush(reply) => {
                let is_done = self.pending.is_empty();
                _ = reply.send(is_done.then_some(()).ok_or(StoreError::Busy));
            }
            Task::Write(_) | Task::CloseLost | Task::Close => {
                debug_assert!(false, "not a question")
            }
        }
    }

    /// Does something with the database, opened anew where it was closed; notes how that went.
    fn attempt<T>(
        &mut self,
        aim: Aim,
        work: impl FnOnce(&mut Database) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        if self.database.take_if(|database| !database.is_at(&self.path)).is_some() {
            tracing::warn!(path = %self.path.display(), "store is another file now");
        }
        let result = match &mut self.database {
            Some(database) => work(database),
            None => {
                Database::open(&self.path).and_then(|database| work(self.database.insert(database)))
            }
        };
        match &result {
            Ok(_) => self.is_well(aim),
            Err(error) if error.is_about_the_record() => {}
            Err(error) => self.is_ill(error),
        }
        result
    }

    /// What can be read can perhaps not be written: that is known when what waits has been tried.
    fn is_well(&mut self, aim: Aim) {
        self.retry_at = None;
        if aim == Aim::Read && !self.pending.is_empty() {
            return;
        }
        self.shared.is_well.store(true, Relaxed);
        if std::mem::take(&mut self.has_complained) {
            tracing::info!(waiting = self.pending.len(), "store works again");
        }
    }

    fn is_ill(&mut self, error: &DatabaseError) {
        self.database = None;
        self.retry_at = Some(now() + RETRY);
        self.shared.is_well.store(false, Relaxed);
        self.shared.errors.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut self.has_complained, true) {
            tracing::error!(%error, path = %self.path.display(), "store cannot be used");
        }
    }
}

fn broken(error: DatabaseError) -> StoreError {
    StoreError::Broken(error.to_string())
}
