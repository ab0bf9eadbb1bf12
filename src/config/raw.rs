//! TOML as a tree in which everything knows where it was written.
//!
//! Owns: the `toml` crate. What follows it works on [`Table`] and [`Value`].
//! Never: knows a key.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// A place in one of the files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Span {
    /// Index of the file.
    pub file: usize,
    /// Bytes of its text.
    pub range: Range<usize>,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) span: Span,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(Box<str>),
    Integer(i64),
    /// A fraction, or an integer beyond 64 bits: nothing wants either.
    Number,
    Flag(bool),
    /// A date, a time or both, as written.
    Moment(Box<str>),
    List(Vec<Value>),
    Table(Table),
}

impl Kind {
    /// Returns what it is called in a sentence.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Number => "a number",
            Self::Flag(_) => "true or false",
            Self::Moment(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// One `key = value` or one header.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) key_span: Span,
    pub(super) value: Value,
}

/// Keys and values in the order in which they were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(pub(super) Vec<Entry>);

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| *entry.key == *key)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let index = self.0.iter().position(|entry| *entry.key == *key)?;
        Some(self.0.remove(index))
    }

    /// Adds what another file says. Returns the keys that both set to anything but tables.
    pub(super) fn merge(&mut self, other: Self) -> Vec<Clash> {
        let mut clashes = vec![];
        for entry in other.0 {
            match self.0.iter_mut().find(|ours| ours.key == entry.key) {
                None => self.0.push(entry),
                Some(ours) => match (&mut ours.value.kind, entry.value.kind) {
                    (Kind::Table(ours), Kind::Table(theirs)) => clashes.extend(ours.merge(theirs)),
                    (_, _) => clashes.push(Clash {
                        key: entry.key,
                        first: ours.key_span.clone(),
                        second: entry.key_span,
                    }),
                },
            }
        }
        clashes
    }
}

/// A key that two files set.
#[derive(Debug)]
pub(super) struct Clash {
    pub(super) key: Box<str>,
    pub(super) first: Span,
    pub(super) second: Span,
}

/// Reads a text as far as it goes, and says what keeps it from being TOML.
pub(super) fn parse(file: usize, text: &str) -> (Table, Vec<(Span, String)>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let errors = errors.into_iter().map(|error| {
        let range = error.span().unwrap_or(0..0);
        (Span { file, range }, error.message().to_owned())
    });
    (table(file, root.get_ref()), errors.collect())
}

fn table(file: usize, raw: &DeTable<'_>) -> Table {
    let mut entries: Vec<_> = raw
        .iter()
        .map(|(key, raw)| Entry {
            key: key.get_ref().as_ref().into(),
            key_span: Span { file, range: key.span() },
            value: value(file, raw.span(), raw.get_ref()),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.range.start);
    Table(entries)
}

fn value(file: usize, range: Range<usize>, raw: &DeValue<'_>) -> Value {
    let kind = match raw {
        DeValue::String(text) => Kind::Text(text.as_ref().into()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Kind::Number, Kind::Integer),
        DeValue::Float(_) => Kind::Number,
        DeValue::Boolean(flag) => Kind::Flag(*flag),
        DeValue::Datetime(moment) => Kind::Moment(moment.to_string().into()),
        DeValue::Array(list) => {
            Kind::List(list.iter().map(|item| value(file, item.span(), item.get_ref())).collect())
        }
        DeValue::Table(raw) => Kind::Table(table(file, raw)),
    };
    Value { span: Span { file, range }, kind }
}
