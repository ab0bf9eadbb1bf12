//! The lines of a message's head, found by name.
//!
//! Owns: where each line is, and the index of the names.
//! Never: decides whether a message may have them.

use super::{
    header::HeaderName,
    parse::Problem,
    text::{self, Hiding, Span},
};
use bytes::Bytes;

/// One header line's place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Line {
    pub(super) id: HeaderName,
    start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    end: u32,
}

impl Line {
    /// Makes the place of a line that begins at `start`: its name and what it is, the line, its value less space in front.
    pub(super) fn new(
        start: usize,
        name: &[u8],
        id: HeaderName,
        line: &[u8],
        value: &[u8],
    ) -> Self {
        let start = start as u32;
        let end = start.wrapping_add(line.len() as u32);
        let value_start = end.wrapping_sub(value.len() as u32);
        Self {
            id,
            start,
            name_end: start.wrapping_add(name.len() as u32),
            value_start,
            value_end: value_start.wrapping_add(text::trim_end(value).len() as u32),
            end,
        }
    }

    /// Returns where its name is.
    pub(super) fn name(&self) -> Span {
        Span::new(self.start, self.name_end)
    }

    /// Returns where its value is, trimmed, still folded.
    pub(super) fn value(&self) -> Span {
        Span::new(self.value_start, self.value_end)
    }

    /// Returns where all of it is, without the last line end.
    pub(super) fn line(&self) -> Span {
        Span::new(self.start, self.end)
    }
}

/// Lines of one message.
pub(super) trait Lines {
    /// Returns the message.
    fn bytes(&self) -> &[u8];

    /// Returns every line of that name.
    fn all(&self, name: HeaderName) -> impl Iterator<Item = &Line>;

    /// Returns the first line of that name.
    fn first(&self, name: HeaderName) -> Option<&Line> {
        self.all(name).next()
    }

    /// Returns a line's value, trimmed, still folded.
    fn value(&self, line: &Line) -> &[u8] {
        line.value().get(self.bytes())
    }
}

impl Lines for Head {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn all(&self, name: HeaderName) -> impl Iterator<Item = &Line> {
        self.index.lines(&self.lines, name).iter().filter(move |line| line.id == name)
    }
}

/// A message's bytes and its header lines.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) bytes: Bytes,
    pub(super) lines: Vec<Line>,
    pub(super) index: Index,
}

/// Where to begin to look for a name among the lines.
#[derive(Debug)]
pub(super) struct Index {
    /// By name: the number of its first line; [`Self::LATE`] where that is not below it, [`Self::NONE`] where there is none.
    first: [u8; HeaderName::COUNT],
    /// One bit for each name of several lines; other names may share it.
    repeated: u64,
}

impl Index {
    const NONE: u8 = u8::MAX;
    const LATE: u8 = Self::NONE - 1;

    pub(super) fn new() -> Self {
        Self { first: [Self::NONE; HeaderName::COUNT], repeated: 0 }
    }

    fn bit(name: HeaderName) -> u64 {
        1_u64.wrapping_shl(name as u32)
    }

    /// Takes note of the line with this number.
    pub(super) fn add(&mut self, name: HeaderName, number: usize) {
        let Some(first) = self.first.get_mut(name as usize) else { return };
        if *first == Self::NONE {
            *first = u8::try_from(number).unwrap_or(Self::LATE).min(Self::LATE);
        } else {
            self.repeated |= Self::bit(name);
        }
    }

    /// Returns the lines among which are all of that name.
    fn lines<'l>(&self, lines: &'l [Line], name: HeaderName) -> &'l [Line] {
        let first = self.first.get(name as usize).copied().unwrap_or(Self::LATE);
        let found = match first {
            Self::NONE => None,
            Self::LATE => lines.get(Self::LATE.into()..),
            first if self.repeated & Self::bit(name) == 0 => {
                lines.get(first.into()..).and_then(|lines| lines.get(..1))
            }
            first => lines.get(first.into()..),
        };
        found.unwrap_or_default()
    }
}

impl Head {
    /// Returns where a part of the message is.
    pub(super) fn place(&self, part: &[u8]) -> Span {
        Span::of(&self.bytes, part)
    }

    /// Returns the comma separated values of every line of that name, still folded.
    pub(super) fn values(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> + use<'_> {
        let lines = self.all(name).map(|line| self.value(line));
        lines
            .flat_map(|value| text::commas(value, Hiding::Brackets))
            .filter(|part| !part.is_empty())
    }

    /// Returns the only value of a header that must be there once.
    pub(super) fn single(&self, name: HeaderName) -> Result<&[u8], Problem> {
        let mut lines = self.all(name);
        let line = lines.next().ok_or(Problem::Missing(name))?;
        if lines.next().is_some() {
            return Err(Problem::Repeated(name));
        }
        Ok(self.value(line))
    }
}

/// Reads a header line that begins at `at` of the message.
pub(super) fn read_header_line(at: usize, line: &[u8]) -> Option<Line> {
    if let Some((id, name, value)) = known_name(line) {
        return Some(Line::new(at, name, id, line, text::trim_start(value)));
    }
    let (name, rest) = text::split_while(line, text::TOKEN);
    let value = text::trim_start(text::trim_start(rest).strip_prefix(b":")?);
    (!name.is_empty()).then(|| Line::new(at, name, HeaderName::parse(name), line, value))
}

/// Reads a name that is a known one with its colon right behind it, as nearly all are. Returns it, and what follows the
/// colon.
#[inline]
pub(super) fn known_name(text: &[u8]) -> Option<(HeaderName, &[u8], &[u8])> {
    // Where there is no colon so near, it may be anywhere, and is not looked for again and again.
    let near = text.get(..HeaderName::LEN_MAX.saturating_add(1)).unwrap_or(text);
    let (name, rest) = text.split_at_checked(text::find_byte(near, b':')?)?;
    let id = HeaderName::parse(name);
    (id != HeaderName::Other).then_some((id, name, rest.get(1..)?))
}
