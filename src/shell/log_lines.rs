//! Log lines on their way to standard error, many at a time.
//!
//! Owns: the thread that writes them, the bounded queue before it.
//! Never: makes whoever logs wait, or loses a line without saying how many.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, Thread},
    time::Duration,
};
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. Above, they are lost and counted: a full disk or a stuck terminal must not
/// stop calls.
const WAITING_MAX: usize = 16_384;
/// How long a line may wait for others that are written with it: what a killed process loses.
const LINGER: Duration = Duration::from_millis(20);
/// How long the end of the program waits for the last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

enum Task {
    Line(Box<[u8]>),
    /// Answered when all that came before is written.
    Flush(SyncSender<()>),
}

/// Where lines are put.
#[derive(Clone, Debug)]
pub struct Lines {
    tasks: SyncSender<Task>,
    lost: Arc<AtomicU64>,
    writer: Thread,
}

impl Lines {
    /// Starts the thread that writes them to `sink`.
    pub fn to(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (tasks, queue) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let thread = thread::Builder::new().name("log".into()).spawn(move || {
            super::epoll::let_others_go_first();
            write_all(sink, &queue, &counted);
        })?;
        Ok(Self { tasks, lost, writer: thread.thread().clone() })
    }

    /// Returns what flushes them when it is dropped, also by a panic.
    pub fn until_the_end(&self) -> impl Drop + use<> {
        LastWords(self.clone())
    }

    /// Waits until what was logged is written, or a second.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.tasks.try_send(Task::Flush(done)).is_ok() {
            self.writer.unpark();
            // Nobody is left to be told that it takes too long.
            let _: Result<(), RecvTimeoutError> = wait.recv_timeout(FLUSH_MAX);
        }
    }
}

struct LastWords(Lines);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.flush();
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.tasks.try_send(Task::Line(line.into())).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}

fn write_all(mut sink: impl Write, queue: &Receiver<Task>, lost: &AtomicU64) {
    let (mut text, mut flushes) = (vec![], vec![]);
    while let Ok(first) = queue.recv() {
        let mut first = Some(first);
        // Twice: what has come, and what comes until enough is worth a call to the kernel.
        for is_last in [false, true] {
            for task in first.take().into_iter().chain(queue.try_iter().take(WAITING_MAX)) {
                match task {
                    Task::Line(line) => text.extend_from_slice(&line),
                    Task::Flush(done) => flushes.push(done),
                }
            }
            if !is_last && flushes.is_empty() {
                thread::park_timeout(LINGER);
            }
        }
        // Where standard error leads nowhere, there is nobody to tell.
        let _ = sink.write_all(&text).and_then(|()| sink.flush());
        text.clear();
        // Nobody may wait for it any more.
        flushes.drain(..).for_each(|done| _ = done.try_send(()));
        let missing = lost.swap(0, Relaxed);
        if missing > 0 {
            tracing::warn!(lines = missing, "log lines lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// Tells what is written, and writes on when told to.
    struct Sink {
        written: Sender<Vec<u8>>,
        go_on: Receiver<()>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            self.go_on.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> (Lines, Receiver<Vec<u8>>, Sender<()>) {
        let ((written, seen), (go, go_on)) = (channel(), channel());
        (Lines::to(Sink { written, go_on }).unwrap(), seen, go)
    }

    #[test]
    fn lines_are_written_in_order_and_a_flush_waits_for_them() {
        let (lines, seen, go) = lines();
        let all: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        (0..1000).for_each(|_| go.send(()).unwrap());
        for line in all.split_inclusive('\n') {
            (&lines).write_all(line.as_bytes()).unwrap();
        }
        lines.flush();
        let written: Vec<Vec<u8>> = seen.try_iter().collect();
        assert!(written.len() < all.lines().count(), "a call to the kernel for each line");
        assert_eq!(String::from_utf8(written.concat()).unwrap(), all);
    }

    #[test]
    fn a_sink_that_hangs_holds_nobody_up_and_what_is_lost_is_counted() {
        let (lines, seen, go) = lines();
        (&lines).write_all(b"first\n").unwrap();
        assert_eq!(seen.recv().unwrap(), b"first\n");
        for _ in 0..WAITING_MAX + 5 {
            (&lines).write_all(b"more\n").unwrap();
        }
        assert_eq!(lines.lost.load(Relaxed), 5);
        drop(go);
    }
}
