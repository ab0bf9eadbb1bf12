//! The store: call detail records and bindings, written behind the calls' backs.
//!
//! Owns: the bounded queue to its thread, and what both sides count.
//! Never: makes a call wait. What does not fit is counted, and said once.

use crate::{
    guard::Ban,
    ids::CallId,
    network::Network,
    observe::{
        cdr::Cdr,
        ladder::Rungs,
        metrics,
        spool::Weight,
        status::{CdrQuery, StoreReport},
    },
    registrar::Binding,
};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, SystemTime},
};
use tokio::{sync::oneshot, time::timeout};

mod running;
mod sqlite;
mod writer;
use writer::Writer;

/// Tasks that may wait for the thread.
const QUEUE_MAX: usize = 4_096;
/// So many records wake the thread before that.
const WAKE_EVERY: u64 = 256;
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
        let writer = Writer::new(path, Arc::clone(&shared));
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
