//! `[hours.NAME]`: when somebody is there.
//!
//! Owns: how days, times and holidays are written.
//! Never: looks at a clock.

use super::super::{
    load::named_tables,
    problem::{ConfigError, Problem},
    raw::{Entry, Kind, Value},
    rule_problem::RuleError,
    section::{Reading, Section},
    values::text,
};
use crate::dialplan::{Holiday, Hours, Span, Weekday};
use std::collections::BTreeMap;

/// Reads every `[hours.NAME]` of a file; a name that two files define is set twice.
pub(super) fn read(
    entry: Option<&Entry>,
    hours: &mut BTreeMap<Box<str>, Hours>,
    reading: &mut Reading<'_>,
) {
    for (entry, table) in named_tables(entry, reading) {
        let title = ("hours.NAME", format!("[hours.{}]", entry.key));
        let mut section = Section::new(table, &entry.key_span, title, reading);
        let days = section.several("days", |value| -> Result<_, Problem> {
            let text = text(value)?;
            Weekday::parse_range(text).ok_or_else(|| RuleError::Days(text.into()).into())
        });
        let times = section.several("times", |value| -> Result<_, Problem> {
            let text = text(value)?;
            Span::parse(text).ok_or_else(|| RuleError::Times(text.into()).into())
        });
        let holidays = section.several("holidays", holiday).unwrap_or_default();
        section.finish();

        let read = Hours {
            days: match days {
                Some(days) => days.into_iter().flat_map(|(days, _)| days).collect(),
                None => Weekday::ALL.into(),
            },
            times: match times {
                Some(times) => times.into_iter().map(|(span, _)| span).collect(),
                None => vec![Span::DAY],
            },
            holidays: holidays.into_iter().map(|(day, _)| day).collect(),
        };
        if hours.insert(entry.key.clone(), read).is_some() {
            let problem = ConfigError::SetTwice(format!("hours.{}", entry.key).into());
            reading.problem(&entry.key_span, problem);
        }
    }
}

/// Reads `"2026-12-25"`, `2026-12-25` or `"12-25"`.
fn holiday(value: &Value) -> Result<Holiday, Problem> {
    let written = match &value.kind {
        Kind::Moment(moment) => moment,
        Kind::Text(_)
        | Kind::Integer(_)
        | Kind::Number
        | Kind::Flag(_)
        | Kind::List(_)
        | Kind::Table(_) => text(value)?,
    };
    Holiday::parse(written).ok_or_else(|| RuleError::Holiday(written.into()).into())
}
