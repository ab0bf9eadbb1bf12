//! Sound files, read once: kept as prompts while they do not change and there is room.
//!
//! Owns: the task that reads them, and what it keeps.
//! Never: keeps more than its limit, or plays what a file no longer says.

use crate::media::{self, Prompt};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Sound files above this are refused: an hour at 8 kHz.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Room for the prompts that are kept.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Questions that may wait.
const QUESTIONS_MAX: usize = 256;
/// Files read at a time: each costs memory and a core.
const READING_MAX: usize = 2;

/// What tells one content of a file from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
}

/// What was read, by file. Its samples alone count against the limit.
#[derive(Debug)]
struct Kept {
    limit: usize,
    bytes: usize,
    prompts: BTreeMap<PathBuf, (Stamp, Prompt)>,
    /// The least recently wanted first.
    order: VecDeque<PathBuf>,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, prompts: BTreeMap::new(), order: VecDeque::new() }
    }

    fn find(&mut self, path: &Path, stamp: Stamp) -> Option<Prompt> {
        let (at, prompt) = self.prompts.get(path)?;
        let found = (*at == stamp).then(|| prompt.clone())?;
        self.order.retain(|other| other != path);
        self.order.push_back(path.to_owned());
        Some(found)
    }

    fn keep(&mut self, path: &Path, stamp: Stamp, prompt: Prompt) {
        self.forget(path);
        let bytes = bytes_of(&prompt);
        if bytes > self.limit {
            return;
        }
        while self.bytes.saturating_add(bytes) > self.limit {
            let Some(oldest) = self.order.front().cloned() else { return };
            self.forget(&oldest);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.prompts.insert(path.to_owned(), (stamp, prompt));
        self.order.push_back(path.to_owned());
    }

    fn forget(&mut self, path: &Path) {
        if let Some((_, prompt)) = self.prompts.remove(path) {
            self.bytes = self.bytes.saturating_sub(bytes_of(&prompt));
            self.order.retain(|other| other != path);
        }
    }
}

fn bytes_of(prompt: &Prompt) -> usize {
    size_of_val(prompt.samples())
}

enum Question {
    /// Is this known?
    Find(PathBuf, Stamp, oneshot::Sender<Option<Prompt>>),
    /// This was read.
    Keep(PathBuf, Stamp, Prompt),
}

/// The way to the prompts. Clones lead to the same.
#[derive(Clone, Debug)]
pub(super) struct Prompts {
    questions: mpsc::Sender<Question>,
    room: Arc<Semaphore>,
}

impl Prompts {
    /// Starts the task that keeps them; it ends with the last clone.
    pub(super) fn new() -> Self {
        Self::with_limit(KEPT_BYTES_MAX)
    }

    fn with_limit(limit: usize) -> Self {
        let (questions, mut queue) = mpsc::channel(QUESTIONS_MAX);
        tokio::spawn(async move {
            let mut kept = Kept::new(limit);
            while let Some(question) = queue.recv().await {
                match question {
                    // Whoever asked may have gone away.
                    Question::Find(path, stamp, reply) => {
                        _ = reply.send(kept.find(&path, stamp));
                    }
                    Question::Keep(path, stamp, prompt) => kept.keep(&path, stamp, prompt),
                }
            }
        });
        Self { questions, room: Arc::new(Semaphore::new(READING_MAX)) }
    }

    /// Returns the prompt in a file: what was read before where the file is still the same.
    pub(super) async fn load(&self, path: &Path) -> io::Result<Prompt> {
        if let Some(prompt) = self.find(path, stamp(path).await?).await {
            return Ok(prompt);
        }
        let permit = self.room.acquire().await.map_err(io::Error::other)?;
        // Somebody else may have read it meanwhile.
        let stamp = stamp(path).await?;
        if let Some(prompt) = self.find(path, stamp).await {
            return Ok(prompt);
        }
        let bytes = tokio::fs::read(path).await?;
        let read = tokio::task::spawn_blocking(move || media::read_wav(&bytes)).await;
        drop(permit);
        let prompt = read.map_err(io::Error::other)?.map_err(io::Error::other)?;
        _ = self.questions.send(Question::Keep(path.to_owned(), stamp, prompt.clone())).await;
        Ok(prompt)
    }

    async fn find(&self, path: &Path, stamp: Stamp) -> Option<Prompt> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question::Find(path.to_owned(), stamp, reply)).await.ok()?;
        answer.await.ok().flatten()
    }
}

async fn stamp(path: &Path) -> io::Result<Stamp> {
    let about = tokio::fs::metadata(path).await?;
    if about.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("the file is longer than an hour; cut it"));
    }
    Ok(Stamp { modified: about.modified().ok(), len: about.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn prompt(bytes: usize) -> Prompt {
        Prompt::new(vec![0; bytes / 2])
    }

    fn at(len: u64) -> Stamp {
        Stamp { modified: Some(SystemTime::UNIX_EPOCH), len }
    }

    #[test]
    fn what_was_wanted_least_recently_makes_room() {
        let mut kept = Kept::new(100);
        let [a, b, c] = ["a", "b", "c"].map(Path::new);
        kept.keep(a, at(1), prompt(40));
        kept.keep(b, at(1), prompt(40));
        assert!(kept.find(a, at(1)).is_some());
        kept.keep(c, at(1), prompt(60));
        let known = [a, b, c].map(|path| kept.find(path, at(1)).is_some());
        assert_eq!((known, kept.bytes), ([true, false, true], 100));
        assert_eq!(kept.find(a, at(2)), None, "the file has changed");
        kept.keep(a, at(2), prompt(20));
        assert_eq!((kept.find(a, at(1)), kept.bytes), (None, 80));
        kept.keep(b, at(1), prompt(102));
        assert!(kept.find(b, at(1)).is_none(), "too large to be kept");
        assert_eq!((kept.prompts.len(), kept.order.len(), kept.bytes), (2, 2, 80));
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let write = |samples: &[i16]| {
            let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            let len = (data.len() as u32).to_le_bytes();
            let head = b"RIFF\x00\x00\x00\x00WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data";
            std::fs::write(&path, [&head[..], &len, &data].concat()).unwrap();
        };
        let prompts = Prompts::new();
        assert!(prompts.load(&path).await.is_err());
        write(&[1, 2, 3]);
        let first = prompts.load(&path).await.unwrap();
        assert_eq!(first.samples(), [1, 2, 3]);
        let again = prompts.load(&path).await.unwrap();
        assert!(std::ptr::eq(first.samples(), again.samples()), "not read again");
        write(&[4, 5, 6]);
        let later = SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(prompts.load(&path).await.unwrap().samples(), [4, 5, 6]);
        std::fs::remove_file(&path).unwrap();
        assert!(prompts.load(&path).await.is_err(), "gone is gone");
    }
}
