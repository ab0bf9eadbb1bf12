//! Whatever comes in: each reader is given what it knows, and what became of it on the way.
//!
//! A target has a corpus and a check. The corpus is played as it is, then mutated, the same each time:
//! `TANDEM_FUZZ=1000000` plays as many cases (of slow targets proportionally fewer), `TANDEM_FUZZ_FROM=N`
//! begins with the Nth. A case that fails is printed with its number and its bytes; put into the corpus,
//! as it is printed, it is played for good.
//!
//! A mutator of our own, and not cargo-fuzz: libFuzzer's coverage needs a nightly compiler, and what runs
//! here runs wherever `cargo test` does.
#![cfg(test)]

mod digest;
mod files;
mod media;
mod mutate;
mod sdp;
mod sip;
mod srtp;
mod text;
mod world;

use mutate::{Random, mutate};
use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Longer than any case takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the quick targets play where nobody wants more.
const USUAL: u64 = 20_000;

/// Says which cases are played: `usual` of them, or as many times that as somebody wants.
fn cases(usual: u64) -> std::ops::Range<u64> {
    let asked = |name: &str| env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let from = asked("TANDEM_FUZZ_FROM").unwrap_or(0);
    let count = asked("TANDEM_FUZZ").unwrap_or(USUAL).saturating_mul(usual) / USUAL;
    from..from.saturating_add(count.max(1))
}

/// Plays a target: its corpus, then `usual` mutations of it.
fn fuzz(target: &str, usual: u64, corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    for (nth, bytes) in corpus.iter().enumerate() {
        play(&format!("{target}: entry {nth} of the corpus"), bytes, &check);
    }
    for case in cases(usual) {
        let mut random = Random::new(seed(target, case));
        let mut bytes = random.of(corpus).clone();
        mutate(&mut bytes, corpus, &mut random);
        play(&format!("{target}: TANDEM_FUZZ_FROM={case} TANDEM_FUZZ=1"), &bytes, &check);
    }
}

/// Plays one case. Where it fails, says how to play it again.
#[expect(clippy::disallowed_methods, reason = "what hangs is measured by the clock")]
fn play(name: &str, bytes: &[u8], check: &impl Fn(&[u8])) {
    let began = Instant::now();
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(bytes))) {
        say(&format!("{name}\n{}", bytes.escape_ascii()));
        resume_unwind(panic);
    }
    assert!(began.elapsed() < PATIENCE, "{name} hangs:\n{}", bytes.escape_ascii());
}

/// Shows what failed beside the panic.
fn say(text: &str) {
    eprintln!("{text}");
}

/// Each target goes its own way.
fn seed(target: &str, case: u64) -> u64 {
    let name =
        target.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Random::new(name ^ case.rotate_left(32)).next()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads a corpus: a line each, as `escape_ascii` writes bytes. Lines that begin with `# ` are comments.
fn lines(name: &str) -> Vec<Vec<u8>> {
    let path = root().join("tests/fuzz/corpus").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let entries = text.lines().filter(|line| !line.starts_with("# ") && !line.is_empty());
    entries.map(unescape).collect()
}

fn unescape(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (vec![], line.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let (byte, len) = match (first, after) {
            (b'\\', [b'x', high, low, ..]) => {
                let hex = [*high, *low];
                let hex = std::str::from_utf8(&hex).expect("ASCII");
                (u8::from_str_radix(hex, 16).expect("two hexadecimal digits"), 3)
            }
            (b'\\', [b'r', ..]) => (b'\r', 1),
            (b'\\', [b'n', ..]) => (b'\n', 1),
            (b'\\', [b't', ..]) => (b'\t', 1),
            (b'\\', [other, ..]) => (*other, 1),
            (other, _) => (*other, 0),
        };
        bytes.push(byte);
        rest = &rest[len..];
    }
    bytes
}

/// Returns the messages that all readers of SIP share.
fn all_messages() -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = ["rfc4475", "rfc5118", "real"]
        .iter()
        .flat_map(|folder| {
            fs::read_dir(root().join("tests/corpus").join(folder)).expect("a folder")
        })
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|ending| ending != "md"))
        .collect();
    files.sort();
    let messages = files.iter().map(|path| fs::read(path).expect("a message"));
    let messages: Vec<_> = messages.chain(lines("sip.txt")).collect();
    assert!(messages.len() > 130, "{}", messages.len());
    messages
}

/// The same without those of 60 KB, which make mutating slow.
fn messages() -> Vec<Vec<u8>> {
    let mut messages = all_messages();
    messages.retain(|bytes| bytes.len() < 5000);
    messages
}

#[test]
fn what_is_printed_is_read_back() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unescape(&all.escape_ascii().to_string()), all);
}

/// The same seed gives the same bytes, and few cases are alike.
#[test]
fn mutations_are_the_same_each_time_and_many() {
    let corpus = messages();
    let made = |case| {
        let mut random = Random::new(seed("x", case));
        let mut bytes = random.of(&corpus).clone();
        mutate(&mut bytes, &corpus, &mut random);
        bytes
    };
    let mut all: Vec<_> = (0..1000).map(made).collect();
    assert!(all.iter().zip(0..).all(|(bytes, case)| *bytes == made(case)));
    all.sort();
    all.dedup();
    assert!(all.len() > 950, "{}", all.len());
}
