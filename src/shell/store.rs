//! The store: call detail records and bindings, written behind the calls' backs.
//!
//! Owns: its thread, its bounded queue, what waits while the database cannot be written to.
//! Never: makes a call wait. What does not fit is counted, and said once.

use crate::{
    guard::Ban,
    ids::CallId,
    network::Network,
    observe::{
        cdr::Cdr,
        ladder::Rungs,
        log, metrics,
        spool::{Limits, Spool, Weight},
        status::{CdrQuery, StoreReport},
    },
    registrar::Binding,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant, SystemTime},
};
use tokio::{sync::oneshot, time::timeout};

mod running;
mod sqlite;
use sqlite::{Database, DatabaseError};

/// Tasks that may wait for the thread.
const QUEUE_MAX: usize = 4_096;
/// Records in one transaction.
const BATCH_MAX: usize = 512;
/// What is kept while the database cannot be written to.
const LIMITS: Limits = Limits { most: 50_000, much: 25_000, batch: BATCH_MAX };
/// How long a record may wait for others to share its transaction: one that writes the same pages
/// once for hundreds of records costs each of them a fraction.
const LINGER: Duration = Duration::from_millis(50);
/// So many records wake the thread before that.
const WAKE_EVERY: u64 = 256;
/// Between two attempts to write.
const RETRY: Duration = Duration::from_secs(1);
/// How often the file is told that calls go on: a call that is lost has talked until then.
const SIGN_EVERY: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A record to write.
#[derive(Clone, Debug)]
pub enum Write {
    /// A call is over.
    Cdr(Box<Cdr>),
    /// A call goes on; so far, its record says this.
    Running(Box<Cdr>),
    /// A contact was bound, refreshed or changed.
    Bind(Box<Binding>),
    /// A contact was removed.
    Unbind {
        /// The user.
        aor: Box<str>,
        /// As the binding had it.
        contact: Box<str>,
    },
    /// A source is banned.
    Ban(Box<Ban>),
    /// No source in these addresses is any more.
    Lift(Network),
}

impl Write {
    /// Returns whether something else stands for it.
    fn weight(&self) -> Weight {
        match self {
            Self::Running(_) => Weight::Spare,
            Self::Cdr(_) | Self::Bind(_) | Self::Unbind { .. } | Self::Ban(_) | Self::Lift(_) => {
                Weight::Dear
            }
        }
    }

    fn is_spare(&self) -> bool {
        self.weight() == Weight::Spare
    }
}

/// Why the store has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It has too much to do, or has been closed.
    #[error("the store is busy or closed")]
    Busy,
    /// It cannot be opened or read.
    #[error("the store cannot be read: {0}")]
    Broken(String),
}

type Answer<T> = Result<T, StoreError>;

enum Task {
    Write(Write),
    /// Make records of the calls whose process is gone.
    CloseLost,
    Cdrs(CdrQuery, oneshot::Sender<Answer<Vec<Cdr>>>),
    Ladder(CallId, oneshot::Sender<Answer<Option<Rungs>>>),
    Bindings(SystemTime, oneshot::Sender<Answer<Vec<Binding>>>),
    Bans(SystemTime, oneshot::Sender<Answer<Vec<Ban>>>),
    /// Answered as soon as an attempt to write what came before was made.
    Flush(oneshot::Sender<Answer<()>>),
    Close,
}

/// What the thread and the handles both count.
#[derive(Debug, Default)]
struct Shared {
    is_well: AtomicBool,
    is_dropping: AtomicBool,
    queued: AtomicU64,
    written: AtomicU64,
    errors: AtomicU64,
    dropped: AtomicU64,
    closed: AtomicU64,
}

impl Shared {
    /// Counts a record that finds no room.
    fn refuse(&self, record: &Write) {
        self.queued.fetch_sub(1, Relaxed);
        if !record.is_spare() {
            self.drop_record();
        }
    }

    /// Counts a record that is lost; the first of a row is told.
    fn drop_record(&self) {
        self.dropped.fetch_add(1, Relaxed);
        if !self.is_dropping.swap(true, Relaxed) {
            tracing::error!("store drops records");
        }
    }
}

/// The store, held by whoever closes it.
#[derive(Debug)]
pub struct Store {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Store {
    /// Starts the thread; it opens the file, and keeps trying where that fails.
    pub fn spawn(path: &Path) -> io::Result<Self> {
        let (tasks, queue) = sync_channel(QUEUE_MAX);
        let shared = Arc::new(Shared::default());
        let writer = Writer {
            path: path.to_owned(),
            database: None,
            pending: Spool::new(LIMITS),
            retry_at: None,
            has_complained: false,
            must_close_lost: false,
            sign_at: None,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new().name("store".into()).spawn(|| {
            super::epoll::let_others_go_first();
            writer.run(queue);
        })?;
        let writer = thread.thread().clone();
        Ok(Self { handle: Handle { tasks, shared, path: path.into(), writer }, thread })
    }

    /// Returns a handle for another task.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes what waits and ends the thread. Blocks until it has ended.
    pub fn close(self) {
        // The queue may be full; the thread empties it, so waiting for room is safe here.
        let told = self.handle.tasks.send(Task::Close).is_ok();
        self.handle.writer.unpark();
        if told && self.thread.join().is_err() {
            tracing::error!("store thread panicked");
        }
    }
}

/// The way to the store. Writing never blocks and never fails for the caller.
#[derive(Clone, Debug)]
pub struct Handle {
    tasks: SyncSender<Task>,
    shared: Arc<Shared>,
    path: Arc<Path>,
    writer: Thread,
}

impl Handle {
    /// Hands over a record; where there is no room it is dropped and counted.
    pub fn write(&self, record: Write) {
        let waiting = self.shared.queued.fetch_add(1, Relaxed);
        match self.tasks.try_send(Task::Write(record)) {
            Ok(()) if waiting % WAKE_EVERY == WAKE_EVERY - 1 => self.writer.unpark(),
            Ok(()) => {}
            Err(
                TrySendError::Full(Task::Write(record))
                | TrySendError::Disconnected(Task::Write(record)),
            ) => self.shared.refuse(&record),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Makes records of the calls that other processes had when they died, as soon as the file can be
    /// written to.
    pub fn close_lost(&self) {
        // Where there is no room, the next start does it.
        if self.tasks.try_send(Task::CloseLost).is_ok() {
            self.writer.unpark();
        }
    }

    /// Returns call detail records, the newest first.
    pub async fn cdrs(&self, query: CdrQuery) -> Answer<Vec<Cdr>> {
        self.ask(|reply| Task::Cdrs(query, reply)).await
    }

    /// Returns the ladder of a call that is over, where it was kept.
    pub async fn ladder(&self, call: CallId) -> Answer<Option<Rungs>> {
        self.ask(|reply| Task::Ladder(call, reply)).await
    }

    /// Returns the bindings that have not ended at `wall`.
    pub async fn bindings(&self, wall: SystemTime) -> Answer<Vec<Binding>> {
        self.ask(|reply| Task::Bindings(wall, reply)).await
    }

    /// Returns the bans that hold at `wall`, and those that ended not long before.
    pub async fn bans(&self, wall: SystemTime) -> Answer<Vec<Ban>> {
        self.ask(|reply| Task::Bans(wall, reply)).await
    }

    /// Returns once everything handed over before has been written; fails where it cannot be.
    pub async fn flush(&self) -> Answer<()> {
        self.ask(Task::Flush).await
    }

    /// Returns whether the last attempt to open, read or write succeeded.
    pub fn is_open(&self) -> bool {
        self.shared.is_well.load(Relaxed)
    }

    /// Returns how the store is.
    pub fn report(&self) -> StoreReport {
        let problem = (!self.is_open())
            .then(|| format!("the store {} cannot be written to", self.path.display()));
        StoreReport {
            problem,
            queued: self.shared.queued.load(Relaxed),
            dropped: self.shared.dropped.load(Relaxed),
        }
    }

    /// Returns the counters.
    pub fn counters(&self) -> metrics::Store {
        metrics::Store {
            written: self.shared.written.load(Relaxed),
            errors: self.shared.errors.load(Relaxed),
            calls_lost: self.shared.closed.load(Relaxed),
            report: self.report(),
        }
    }

    async fn ask<T>(&self, task: impl FnOnce(oneshot::Sender<Answer<T>>) -> Task) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.tasks.try_send(task(reply)).map_err(|_| StoreError::Busy)?;
        self.writer.unpark();
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(StoreError::Busy),
        }
    }
}

/// What is wanted of the database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Aim {
    Read,
    Write,
}

/// What the thread works with.
struct Writer {
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
    fn run(mut self, queue: Receiver<Task>) {
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
            Some(at) => queue.recv_timeout(at.saturating_duration_since(super::now())),
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
        let until = super::now() + LINGER;
        let mut first = Some(first);
        loop {
            let tasks = first.take().into_iter().chain(queue.try_iter()).take(BATCH_MAX);
            if !self.sort(tasks, questions) {
                return false;
            }
            let left = until.saturating_duration_since(super::now());
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
            self.sign_at = Some(super::now() + SIGN_EVERY);
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
        if self.sign_at.is_none_or(|at| at > super::now()) || !self.may_try() {
            return;
        }
        let is_busy = self.attempt(Aim::Write, |database| database.sign(SystemTime::now()));
        let goes_on = is_busy.unwrap_or(true);
        self.sign_at = goes_on.then(|| super::now() + SIGN_EVERY);
    }

    fn may_try(&self) -> bool {
        self.retry_at.is_none_or(|at| at <= super::now())
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
        self.retry_at = Some(super::now() + RETRY);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::cdr::tests::{answered, refused};

    fn cdr(cdr: Cdr) -> Write {
        Write::Cdr(Box::new(cdr))
    }

    #[tokio::test]
    async fn what_is_written_can_be_read_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::spawn(&folder.path().join("t.db")).unwrap();
        let handle = store.handle();
        handle.write(cdr(answered(1)));
        handle.write(cdr(refused(2)));
        let found = handle.cdrs(CdrQuery::default()).await.unwrap();
        assert_eq!(found, [refused(2), answered(1)]);
        assert_eq!((handle.counters().written, handle.report().queued), (2, 0));
        assert!(handle.is_open());
        assert_eq!(handle.ladder(answered(1).call).await.unwrap(), None);
        assert_eq!(handle.bindings(SystemTime::UNIX_EPOCH).await.unwrap(), []);
        tokio::task::spawn_blocking(|| store.close()).await.unwrap();
        handle.write(cdr(answered(3)));
        assert_eq!(handle.report().dropped, 1, "after the end, records are lost and counted");
        assert!(matches!(handle.flush().await, Err(StoreError::Busy)));
    }

    #[tokio::test]
    async fn closing_writes_what_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let store = Store::spawn(&path).unwrap();
        for n in 0..3_000 {
            store.handle().write(cdr(answered(n)));
        }
        let (handle, report) = (store.handle(), store.handle());
        tokio::task::spawn_blocking(|| store.close()).await.unwrap();
        drop(handle);
        assert_eq!((report.report().dropped, report.counters().written), (0, 3_000));
        let again = Store::spawn(&path).unwrap();
        let all = CdrQuery { limit: u32::MAX, ..CdrQuery::default() };
        assert_eq!(again.handle().cdrs(all).await.unwrap().len(), 3_000);
    }

    #[tokio::test]
    async fn records_wait_while_the_file_cannot_be_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        std::fs::create_dir(&path).unwrap(); // a folder where the file should be
        let store = Store::spawn(&path).unwrap();
        let handle = store.handle();
        handle.write(cdr(answered(1)));
        assert!(matches!(handle.flush().await, Err(StoreError::Busy)));
        assert!(matches!(handle.cdrs(CdrQuery::default()).await, Err(StoreError::Broken(_))));
        assert!(!handle.is_open());
        assert!(handle.report().problem.is_some_and(|p| p.contains("t.db cannot be written to")));
        assert_eq!((handle.report().queued, handle.counters().written), (1, 0));
        assert!(handle.counters().errors > 0);
        std::fs::remove_dir(&path).unwrap();
        // A question opens the file anew at once; the record follows at the next attempt.
        handle.cdrs(CdrQuery::default()).await.unwrap();
        handle.flush().await.unwrap();
        assert_eq!(handle.cdrs(CdrQuery::default()).await.unwrap(), [answered(1)]);
        assert!(handle.is_open() && handle.report().problem.is_none());
    }

    #[tokio::test]
    async fn records_wait_while_the_file_cannot_be_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let store = Store::spawn(&path).unwrap();
        let handle = store.handle();
        handle.flush().await.unwrap();
        sqlite::meddle(&path, "ALTER TABLE cdr RENAME TO away");
        handle.write(cdr(answered(1)));
        handle.write(cdr(answered(2)));
        assert!(matches!(handle.flush().await, Err(StoreError::Busy)));
        assert!(!handle.is_open());
        sqlite::meddle(&path, "ALTER TABLE away RENAME TO cdr");
        // A question opens the file anew at once; the records follow, if they have not already.
        handle.cdrs(CdrQuery::default()).await.unwrap();
        handle.flush().await.unwrap();
        let found = handle.cdrs(CdrQuery::default()).await.unwrap();
        assert_eq!(found, [answered(2), answered(1)]);
        assert_eq!((handle.counters().written, handle.report().dropped), (2, 0));
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_written_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let store = Store::spawn(&path).unwrap();
        let handle = store.handle();
        handle.flush().await.unwrap();
        sqlite::meddle(
            &path,
            "CREATE TRIGGER poison BEFORE INSERT ON cdr WHEN new.call = 'c00-2'
             BEGIN SELECT raise(ABORT, 'poison'); END",
        );
        for n in 1..=3 {
            handle.write(cdr(answered(n)));
        }
        handle.flush().await.unwrap();
        let found = handle.cdrs(CdrQuery::default()).await.unwrap();
        assert_eq!(found, [answered(3), answered(1)]);
        let report = handle.report();
        assert_eq!((report.queued, report.dropped, handle.is_open()), (0, 1, true));
    }

    /// Of two kinds of bad news: the file is locked by somebody else, and it can be read.
    #[tokio::test]
    async fn records_wait_while_another_program_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let store = Store::spawn(&path).unwrap();
        let handle = store.handle();
        handle.flush().await.unwrap();
        let lock = sqlite::Lock::take(&path);
        handle.write(cdr(answered(1)));
        assert!(matches!(handle.flush().await, Err(StoreError::Busy)));
        assert_eq!(handle.cdrs(CdrQuery::default()).await.unwrap(), []);
        assert!(!handle.is_open(), "what can be read cannot therefore be written");
        assert_eq!((handle.report().queued, handle.report().dropped), (1, 0));
        drop(lock);
        handle.cdrs(CdrQuery::default()).await.unwrap();
        handle.flush().await.unwrap();
        assert_eq!(handle.cdrs(CdrQuery::default()).await.unwrap(), [answered(1)]);
        assert!(handle.is_open());
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let store = Store::spawn(&path).unwrap();
        let handle = store.handle();
        handle.write(cdr(answered(1)));
        handle.flush().await.unwrap();
        for name in ["t.db", "t.db-wal", "t.db-shm"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        handle.write(cdr(answered(2)));
        handle.flush().await.unwrap();
        tokio::task::spawn_blocking(|| store.close()).await.unwrap();
        let again = Store::spawn(&path).unwrap();
        assert_eq!(again.handle().cdrs(CdrQuery::default()).await.unwrap(), [answered(2)]);
    }

    #[tokio::test]
    async fn the_calls_of_a_process_that_died_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.db");
        let store = Store::spawn(&path).unwrap();
        let handle = store.handle();
        for n in 1..=3 {
            handle.write(Write::Running(Box::new(answered(n))));
        }
        handle.write(cdr(answered(3)));
        handle.close_lost();
        handle.flush().await.unwrap();
        assert_eq!((handle.counters().calls_lost, handle.counters().written), (0, 1));
        sqlite::meddle(&path, "UPDATE process SET identity = 'gone 1 1'");
        handle.close_lost();
        handle.flush().await.unwrap();
        assert_eq!(handle.counters().calls_lost, 2);
        assert_eq!(handle.cdrs(CdrQuery::default()).await.unwrap().len(), 3);
        assert_eq!(handle.report().queued, 0);
    }

    #[test]
    fn what_can_be_missed_makes_room_for_what_cannot() {
        let (tasks, _queue) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let writer = thread::current();
        let handle = Handle { tasks, shared, path: Path::new("t.db").into(), writer };
        for n in 0..5 {
            handle.write(Write::Running(Box::new(answered(n))));
        }
        assert_eq!((handle.report().queued, handle.report().dropped), (1, 0));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (tasks, queue) = sync_channel(2);
        let shared = Arc::new(Shared::default());
        let writer = thread::current();
        let handle = Handle { tasks, shared, path: Path::new("t.db").into(), writer };
        for n in 0..5 {
            handle.write(cdr(answered(n)));
        }
        assert_eq!((handle.report().queued, handle.report().dropped), (2, 3));
        assert_eq!(queue.try_iter().count(), 2);
    }
}
