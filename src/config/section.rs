//! Reading one table key by key, and noticing the keys that nobody asked for.
//!
//! Owns: collecting every problem on the way; a wrong value is reported and read as if absent.
//! Never: knows a section of the files.

use super::{
    near::nearest,
    problem::{ConfigError, Problem},
    raw::{Entry, Kind, Span, Table, Value},
    report::{Diagnostic, Report},
    source::Source,
};
use std::collections::{BTreeMap, BTreeSet};

/// Kinds of tables, and keys in them.
pub(super) type Keys = BTreeSet<(&'static str, &'static str)>;

/// What is being read, and what was found.
pub(super) struct Reading<'s> {
    pub(super) source: &'s dyn Source,
    pub(super) report: Report,
    /// Every key that was asked for, by the kind of its table.
    pub(super) asked: Keys,
    /// Those of them that were there.
    pub(super) found: Keys,
    /// Which diagnostic counts the passwords in a file that others can read, by file.
    readable: BTreeMap<usize, usize>,
}

impl<'s> Reading<'s> {
    pub(super) fn new(source: &'s dyn Source) -> Self {
        let (asked, found) = (Keys::new(), Keys::new());
        Self { source, report: Report::default(), asked, found, readable: BTreeMap::new() }
    }

    pub(super) fn problem(&mut self, span: &Span, problem: impl Into<Problem>) {
        let problem = problem.into();
        self.report.diagnostics.push(Diagnostic { problem, span: span.clone(), related: None });
    }

    /// Reports a password that others can read: once for each file, with their number.
    pub(super) fn readable(&mut self, span: &Span) {
        let first = self.readable.get(&span.file).copied();
        let first = first.and_then(|index| self.report.diagnostics.get_mut(index));
        match first.map(|diagnostic| &mut diagnostic.problem) {
            Some(Problem::Config(ConfigError::SecretReadable(count))) => *count += 1,
            Some(Problem::Config(_) | Problem::Rule(_)) | None => {
                self.readable.insert(span.file, self.report.diagnostics.len());
                self.problem(span, ConfigError::SecretReadable(1));
            }
        }
    }

    pub(super) fn problem_with(
        &mut self,
        span: &Span,
        problem: impl Into<Problem>,
        related: (Span, &'static str),
    ) {
        let (problem, related) = (problem.into(), Some(related));
        self.report.diagnostics.push(Diagnostic { problem, span: span.clone(), related });
    }

    /// Returns the path of the file in which something was written.
    pub(super) fn file(&self, span: &Span) -> &str {
        self.report.files.get(span.file).map_or("", |file| &file.path)
    }

    /// Takes the problem out of a result.
    pub(super) fn keep<T, E: Into<Problem>>(
        &mut self,
        span: &Span,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|problem| self.problem(span, problem)).ok()
    }
}

/// One table on its way through the reader.
pub(super) struct Section<'t, 'r, 's> {
    table: &'t Table,
    /// The header, or the table itself where it is inline.
    pub(super) span: Span,
    /// What it is called in sentences: `[trunk.twilio]`, `this rule`.
    pub(super) place: Box<str>,
    /// What it is called in `conf/reference.toml`: `trunk.NAME`, `rule`.
    kind: &'static str,
    known: Vec<&'static str>,
    pub(super) reading: &'r mut Reading<'s>,
}

impl<'t, 'r, 's> Section<'t, 'r, 's> {
    pub(super) fn new(
        table: &'t Table,
        span: &Span,
        (kind, place): (&'static str, String),
        reading: &'r mut Reading<'s>,
    ) -> Self {
        let place = place.into();
        Self { table, span: span.clone(), place, kind, known: vec![], reading }
    }

    /// Begins a table under its header; anything else is reported and read as an empty table.
    pub(super) fn open(
        entry: Option<&'t Entry>,
        (kind, place): (&'static str, String),
        reading: &'r mut Reading<'s>,
    ) -> Self {
        const EMPTY: &Table = &Table(Vec::new());
        let (table, span) = match entry {
            None => (EMPTY, Span::default()),
            Some(entry) => match table(&entry.value) {
                Ok(table) => (table, entry.key_span.clone()),
                Err(problem) => {
                    reading.problem(&entry.value.span, problem);
                    (EMPTY, entry.key_span.clone())
                }
            },
        };
        Self::new(table, &span, (kind, place), reading)
    }

    /// Returns what was written under a key.
    pub(super) fn entry(&mut self, key: &'static str) -> Option<&'t Entry> {
        self.known.push(key);
        self.reading.asked.insert((self.kind, key));
        let entry = self.table.get(key)?;
        self.reading.found.insert((self.kind, key));
        Some(entry)
    }

    /// Returns those of `keys` that are there, in the order in which they were written.
    pub(super) fn in_order(&mut self, keys: &[&'static str]) -> Vec<(&'static str, &'t Entry)> {
        let found = keys.iter().filter_map(|key| Some((*key, self.entry(key)?)));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(_, entry)| entry.key_span.range.start);
        found
    }

    /// Reads a value, if the key is there.
    pub(super) fn optional<T, E: Into<Problem>>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'t Value) -> Result<T, E>,
    ) -> Option<T> {
        let value = &self.entry(key)?.value;
        self.reading.keep(&value.span, read(value))
    }

    /// Reads a value; without one there is `default`.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&'t Value) -> Result<T, ConfigError>,
    ) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// Reads a value, or `false` for none.
    pub(super) fn or_off<T>(
        &mut self,
        key: &'static str,
        default: Option<T>,
        read: impl FnOnce(&'t Value) -> Result<T, ConfigError>,
    ) -> Option<T> {
        self.or(key, default, |value| {
            let off = matches!(value.kind, Kind::Flag(false));
            if off { Ok(None) } else { read(value).map(Some) }
        })
    }

    /// Reads one value or a list of them, with the place of each; each is reported for itself.
    pub(super) fn several<T, E: Into<Problem>>(
        &mut self,
        key: &'static str,
        read: impl Fn(&'t Value) -> Result<T, E>,
    ) -> Option<Vec<(T, Span)>> {
        let value = &self.entry(key)?.value;
        let values = items(value).iter();
        let read = values.filter_map(|value| {
            let read = self.reading.keep(&value.span, read(value));
            Some((read?, value.span.clone()))
        });
        Some(read.collect())
    }

    /// Reports that a key is not there.
    pub(super) fn missing(&mut self, key: &'static str, example: &'static str) {
        let place = self.place.clone();
        let span = self.span.clone();
        self.reading.problem(&span, ConfigError::Missing { key, place, example });
    }

    /// Returns the place of a key's value, or of the section without one.
    pub(super) fn span_of(&self, key: &str) -> Span {
        self.table.get(key).map_or_else(|| self.span.clone(), |entry| entry.value.span.clone())
    }

    /// Returns whether there is such a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for entry in &self.table.0 {
            if self.known.iter().any(|key| **key == *entry.key) {
                continue;
            }
            let near = nearest(&entry.key, self.known.iter().copied()).map(Into::into);
            let (key, place) = (entry.key.clone(), self.place.clone());
            self.reading.problem(&entry.key_span, ConfigError::UnknownKey { key, place, near });
        }
    }
}

/// Returns the values of a list, or the one value that stands for a list of one.
pub(super) fn items(value: &Value) -> &[Value] {
    if let Kind::List(list) = &value.kind { list } else { std::slice::from_ref(value) }
}

/// Reads a table.
pub(super) fn table(value: &Value) -> Result<&Table, ConfigError> {
    if let Kind::Table(table) = &value.kind {
        Ok(table)
    } else {
        Err(ConfigError::Type { want: "a table", found: value.kind.name() })
    }
}
