//! What was said on the wire and in which order, as text: the same for operators and for tests.
//!
//! Owns: the format of a line, the drawing in columns, and the bound on what is kept of a call.
//! Never: keeps a header, a body, a number in full or a secret.

mod kept;

use super::{mask, plain, word::Word};
use kept::{Kept, Words};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::VecDeque, fmt, sync::Arc, time::Instant};

/// Messages kept of one call.
pub const CALL_ENTRIES_MAX: usize = 200;
/// Of what is kept, one part in this many is the end of the call; the rest is its beginning.
const TAIL_PART: usize = 4;
/// Different texts kept, for each message that is kept.
const TEXTS_EACH: usize = 2;
/// How many lines there is room for at once: an ordinary call has thirteen.
const ENTRIES_USUAL: usize = 16;
/// Longest reason phrase, event and note kept, in characters.
const TEXT_MAX: usize = 80;

/// What one line of a ladder is about.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A request.
    Request {
        /// As written on the wire.
        method: Word,
    },
    /// A response.
    Response {
        /// 100 to 699.
        status: u16,
        /// As written on the wire, numbers masked.
        reason: Word,
        /// Of the request that it answers.
        method: Word,
    },
    /// Something that is no message but explains the next one: a timer, a prompt, a lost connection.
    Event(
        /// At most a few words.
        Word,
    ),
}

/// What came in, as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Told<'a> {
    Request { method: Cow<'a, str> },
    Response { status: u16, reason: Cow<'a, str>, method: Cow<'a, str> },
    Event(Cow<'a, str>),
}

/// One message, or one event, as it comes in. Reduced to an [`Entry`] by [`Ladder::record`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line<'a> {
    what: Told<'a>,
    cseq: Option<u32>,
    sdp: bool,
    note: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    /// Describes a request.
    pub fn request(method: impl Into<Cow<'a, str>>, cseq: u32) -> Self {
        Self::new(Told::Request { method: method.into() }, Some(cseq))
    }

    /// Describes a response by its status, its reason phrase and its CSeq.
    pub fn response(
        status: u16,
        reason: impl Into<Cow<'a, str>>,
        method: impl Into<Cow<'a, str>>,
        cseq: u32,
    ) -> Self {
        let (reason, method) = (reason.into(), method.into());
        Self::new(Told::Response { status, reason, method }, Some(cseq))
    }

    /// Describes something that is no message.
    pub fn event(text: impl Into<Cow<'a, str>>) -> Self {
        Self::new(Told::Event(text.into()), None)
    }

    /// Adds whether the message carries a session description.
    #[must_use]
    pub fn with_sdp(mut self, sdp: bool) -> Self {
        self.sdp = sdp;
        self
    }

    /// Adds a remark, printed in brackets: `lost`, `again`, `Q.850 17`.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<Cow<'a, str>>) -> Self {
        self.note = Some(note.into());
        self
    }

    fn new(what: Told<'a>, cseq: Option<u32>) -> Self {
        Self { what, cseq, sdp: false, note: None }
    }
}

/// One line of a ladder. `Display` prints the line form.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// When, from the ladder's start.
    pub at_ms: u64,
    /// Who sent it: a phone, a trunk, `tandem`.
    pub from: Word,
    /// To whom; the sender itself for an event.
    pub to: Word,
    /// What.
    #[serde(flatten)]
    pub what: What,
    /// The number in CSeq; none for an event.
    pub cseq: Option<u32>,
    /// Whether it carries a session description.
    pub sdp: bool,
    /// A remark.
    pub note: Option<Word>,
}

impl Entry {
    /// Returns what stands on the arrow: `INVITE (sdp)`, `200 OK (INVITE, sdp)`, `no answer`.
    pub fn label(&self) -> String {
        let sdp = if self.sdp { ["", " (sdp)", ", sdp"] } else { ["", "", ""] };
        match &self.what {
            What::Request { method } => format!("{method}{}", sdp[1]),
            What::Response { status, reason, method } => {
                let space = if reason.is_empty() { "" } else { " " };
                format!("{status}{space}{reason} ({method}{})", sdp[2])
            }
            What::Event(text) => text.to_string(),
        }
    }

    /// Returns the remark as it is printed: two spaces and brackets, or nothing.
    fn remark(&self) -> String {
        self.note.as_ref().map_or_else(String::new, |note| format!("  [{note}]"))
    }

    fn is_event(&self) -> bool {
        matches!(self.what, What::Event(_))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_ms, from, to, .. } = self;
        let (label, remark) = (self.label(), self.remark());
        if self.is_event() {
            write!(f, "{at_ms:>6} ms  {from}  * {label}{remark}")
        } else {
            write!(f, "{at_ms:>6} ms  {from} -> {to}  {label}{remark}")
        }
    }
}

/// The ladder of one call while it is being written: bounded, beginning and end kept.
#[derive(Clone, Debug)]
pub struct Ladder {
    start: Instant,
    head_max: usize,
    tail_max: usize,
    head: Vec<Kept>,
    tail: VecDeque<Kept>,
    omitted: u64,
    words: Words,
}

impl Ladder {
    /// Creates the ladder of a call.
    pub fn new(start: Instant) -> Self {
        Self::with_limit(start, CALL_ENTRIES_MAX)
    }

    /// Creates a ladder that keeps at most `limit` entries.
    pub fn with_limit(start: Instant, limit: usize) -> Self {
        let tail_max = limit / TAIL_PART;
        let head_max = limit - tail_max;
        let head = Vec::with_capacity(head_max.min(ENTRIES_USUAL));
        let (tail, words) = (VecDeque::new(), Words::default());
        Self { start, head_max, tail_max, head, tail, omitted: 0, words }
    }

    /// Adds one message. Beyond the bound, the oldest entry of the end gives way and is counted.
    pub fn record(&mut self, from: &str, to: &str, line: Line<'_>, now: Instant) {
        let at_ms = millis(now.saturating_duration_since(self.start));
        let texts_max = TEXTS_EACH * (self.head_max + self.tail_max);
        let kept = Kept::new(at_ms, (from, to), &line, &mut self.words, texts_max);
        if self.head.len() < self.head_max {
            self.head.push(kept);
            return;
        }
        self.tail.push_back(kept);
        if self.tail.len() > self.tail_max {
            self.tail.pop_front();
            self.omitted += 1;
        }
    }

    /// Adds an event at one participant.
    pub fn event(&mut self, at: &str, text: &str, now: Instant) {
        self.record(at, at, Line::event(text), now);
    }

    /// Returns how many entries were recorded, kept or not.
    pub fn recorded(&self) -> u64 {
        (self.head.len() + self.tail.len()) as u64 + self.omitted
    }

    /// Returns a copy to show, send or store.
    pub fn rungs(&self) -> Rungs {
        let entry = |kept: &Kept| kept.entry(&self.words);
        let (head, tail) = (self.head.iter().map(entry), self.tail.iter().map(entry));
        Rungs { head: head.collect(), omitted: self.omitted, tail: tail.collect() }
    }
}

impl fmt::Display for Ladder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.rungs(), f)
    }
}

/// A ladder that no longer grows. `Display` prints the line form, [`Rungs::columns`] the drawing.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Rungs {
    /// The beginning.
    pub head: Vec<Entry>,
    /// How many entries between beginning and end were not kept.
    pub omitted: u64,
    /// The end.
    pub tail: Vec<Entry>,
}

impl Rungs {
    /// Returns the participants in the order of their first appearance.
    pub fn participants(&self) -> Vec<&str> {
        let mut names: Vec<&str> = vec![];
        for entry in self.head.iter().chain(&self.tail) {
            for name in [&*entry.from, &*entry.to] {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Draws one column per participant and an arrow per message.
    pub fn columns(&self) -> String {
        let names = self.participants();
        let entries: Vec<&Entry> = self.head.iter().chain(&self.tail).collect();
        let columns = Columns::fit(&names, &entries);
        let mut drawing = columns.header(&names);
        for (n, entry) in entries.iter().enumerate() {
            if self.omitted > 0 && n == self.head.len() {
                drawing.push_str(&gap_line(self.omitted));
                drawing.push('\n');
            }
            drawing.push_str(&columns.row(entry));
        }
        drawing
    }
}

impl fmt::Display for Rungs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.head {
            writeln!(f, "{entry}")?;
        }
        if self.omitted > 0 {
            writeln!(f, "{}", gap_line(self.omitted))?;
        }
        for entry in &self.tail {
            writeln!(f, "{entry}")?;
        }
        Ok(())
    }
}

/// Where the columns of a drawing are.
struct Columns<'a> {
    names: Vec<&'a str>,
    /// From one column to the next, in characters.
    pitch: usize,
    /// From the left edge to the first column, without the time.
    indent: usize,
}

/// `{:>6} ms  `
const TIME_WIDTH: usize = 11;
const PITCH_MIN: usize = 12;
const PITCH_MAX: usize = 48;
/// `--`, a space on both sides of the label, `->`.
const ARROW_WIDTH: usize = 6;

impl<'a> Columns<'a> {
    fn fit(names: &[&'a str], entries: &[&Entry]) -> Self {
        let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let mut columns =
            Self { names: names.to_vec(), pitch: PITCH_MIN.max(widest + 2), indent: widest / 2 };
        for entry in entries.iter().filter(|entry| !entry.is_event()) {
            let (left, right) = columns.ends(entry);
            let needed = entry.label().chars().count() + ARROW_WIDTH + 1;
            columns.pitch = columns.pitch.max(needed.div_ceil((right - left).max(1)));
        }
        columns.pitch = columns.pitch.min(PITCH_MAX.max(widest + 2));
        columns
    }

    fn index(&self, name: &str) -> usize {
        self.names.iter().position(|known| *known == name).unwrap_or(0)
    }

    /// Returns the columns an arrow lies between, the left one first.
    fn ends(&self, entry: &Entry) -> (usize, usize) {
        let (from, to) = (self.index(&entry.from), self.index(&entry.to));
        (from.min(to), from.max(to))
    }

    fn position(&self, column: usize) -> usize {
        self.indent + column * self.pitch
    }

    fn header(&self, names: &[&str]) -> String {
        let mut line = Canvas::default();
        for (n, name) in names.iter().enumerate() {
            let start = self.position(n).saturating_sub(name.chars().count() / 2);
            line.put(start, name);
        }
        format!("{:TIME_WIDTH$}{line}\n", "")
    }

    fn row(&self, entry: &Entry) -> String {
        let mut line = Canvas::default();
        for n in 0..self.names.len() {
            line.put(self.position(n), "|");
        }
        let (left, right) = self.ends(entry);
        let (start, end) = (self.position(left), self.position(right));
        if entry.is_event() || left == right {
            line.put(start, &format!("* {}", entry.label()));
        } else {
            let is_rightwards = self.index(&entry.from) == left;
            line.put(start + 1, &arrow(&entry.label(), end - start - 1, is_rightwards));
        }
        format!("{:>6} ms  {line}{}\n", entry.at_ms, entry.remark())
    }
}

/// Draws an arrow of exactly `width` characters with its label in the middle.
fn arrow(label: &str, width: usize, is_rightwards: bool) -> String {
    let room = width.saturating_sub(ARROW_WIDTH);
    let label = match label.chars().count() {
        fits if fits <= room => label.to_owned(),
        _ => label.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    };
    let shaft = width.saturating_sub(label.chars().count() + 3);
    let (before, after) = ("-".repeat(shaft / 2), "-".repeat(shaft - shaft / 2));
    if is_rightwards {
        format!("{before} {label} {after}>")
    } else {
        format!("<{before} {label} {after}")
    }
}

/// One line of characters that can be written at any position.
#[derive(Default)]
struct Canvas(Vec<char>);

impl Canvas {
    fn put(&mut self, start: usize, text: &str) {
        let end = start + text.chars().count();
        if self.0.len() < end {
            self.0.resize(end, ' ');
        }
        self.0.splice(start..end, text.chars());
    }
}

impl fmt::Display for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|c| fmt::Write::write_char(f, *c))
    }
}

fn gap_line(omitted: u64) -> String {
    format!("       …   {omitted} more, not kept")
}

/// Shortens, masks and cleans what peers wrote: nothing but plain text reaches a terminal.
fn clipped(text: &str) -> Arc<str> {
    let clean = plain::spaced(&mask::Text(text).to_string());
    clean.chars().take(TEXT_MAX).collect::<String>().into()
}

/// Masks a participant that is a number, and cleans it.
fn masked_name(name: &str) -> Arc<str> {
    if name.bytes().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_')) {
        return name.into();
    }
    plain::spaced(&mask::Number(name).to_string()).into()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[expect(clippy::disallowed_methods, reason = "virtual time must start somewhere")]
    fn epoch() -> Instant {
        Instant::now()
    }

    fn call() -> Ladder {
        let start = epoch();
        let at = |ms| start + Duration::from_millis(ms);
        let mut ladder = Ladder::new(start);
        ladder.record("1001", "tandem", Line::request("INVITE", 1).with_sdp(true), at(0));
        ladder.record("tandem", "1001", Line::response(100, "Trying", "INVITE", 1), at(1));
        ladder.record("tandem", "twilio", Line::request("INVITE", 7).with_sdp(true), at(2));
        let busy = Line::response(486, "Busy: +17756187988", "INVITE", 7).with_note("Q.850 17");
        ladder.record("twilio", "tandem", busy, at(1200));
        ladder.event("tandem", "rule on.busy", at(1201));
        ladder
    }

    #[test]
    fn lines_are_what_flow_tests_expect() {
        let want = "     0 ms  1001 -> tandem  INVITE (sdp)
     1 ms  tandem -> 1001  100 Trying (INVITE)
     2 ms  tandem -> twilio  INVITE (sdp)
  1200 ms  twilio -> tandem  486 Busy: +1775****988 (INVITE)  [Q.850 17]
  1201 ms  tandem  * rule on.busy
";
        assert_eq!(call().to_string(), want);
        assert_eq!(call().rungs().to_string(), want);
    }

    #[test]
    fn columns_have_an_arrow_for_each_message() {
        let want = "            1001                                 tandem                                twilio
     0 ms     |----------- INVITE (sdp) ----------->|                                     |
     1 ms     |<------- 100 Trying (INVITE) --------|                                     |
     2 ms     |                                     |----------- INVITE (sdp) ----------->|
  1200 ms     |                                     |<- 486 Busy: +1775****988 (INVITE) --|  [Q.850 17]
  1201 ms     |                                     * rule on.busy                        |
";
        assert_eq!(call().rungs().columns(), want);
    }

    #[test]
    fn an_arrow_may_cross_a_column() {
        let start = epoch();
        let mut ladder = Ladder::new(start);
        for (from, to) in [("a", "b"), ("b", "c"), ("a", "c"), ("c", "a"), ("b", "b")] {
            ladder.record(from, to, Line::request("BYE", 1), start);
        }
        assert_eq!(
            ladder.rungs().columns(),
            "           a           b           c
     0 ms  |-- BYE --->|           |
     0 ms  |           |-- BYE --->|
     0 ms  |-------- BYE --------->|
     0 ms  |<-------- BYE ---------|
     0 ms  |           * BYE       |
"
        );
    }

    #[test]
    fn beginning_and_end_are_kept_and_the_rest_is_counted() {
        let start = epoch();
        let mut ladder = Ladder::with_limit(start, 8);
        for n in 1..=20 {
            ladder.record("a", "b", Line::request(format!("M{n}"), n), start);
        }
        assert_eq!(ladder.recorded(), 20);
        let rungs = ladder.rungs();
        let kept: Vec<u32> =
            rungs.head.iter().chain(&rungs.tail).filter_map(|entry| entry.cseq).collect();
        assert_eq!((kept, rungs.omitted), (vec![1, 2, 3, 4, 5, 6, 19, 20], 12));
        assert!(ladder.to_string().contains("12 more, not kept"));
        assert!(rungs.columns().contains("12 more, not kept"));
    }

    #[test]
    fn what_peers_write_is_clipped_cleaned_and_masked() {
        let start = epoch();
        let mut ladder = Ladder::new(start);
        let hostile = format!("\u{1b}[2J+14155550234{}", "x".repeat(500));
        let line = Line::response(486, &hostile, "INVITE", 1);
        ladder.record("+14155550234", "tandem", line, start);
        let text = ladder.to_string();
        assert!(text.contains("+1415****234 -> tandem  486  [2J+1415****234xxx"), "{text}");
        assert!(!text.contains('\u{1b}') && text.len() < 160, "{text}");
        assert!(ladder.rungs().columns().lines().all(|line| line.chars().count() < 120));
    }

    #[test]
    fn rungs_travel_as_json() {
        let rungs = call().rungs();
        let json = serde_json::to_string(&rungs).unwrap();
        assert_eq!(serde_json::from_str::<Rungs>(&json).unwrap(), rungs, "{json}");
    }
}
