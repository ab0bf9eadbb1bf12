//! Columns of text.
//!
//! Owns: widths, and that nothing which a peer wrote moves the cursor.
//! Never: knows what a cell means.

use crate::observe::plain;
use std::fmt;

/// A table with a header, or a list of names and values.
pub(in crate::shell) struct Table {
    /// Printed where there are no rows.
    empty: &'static str,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(in crate::shell) fn new(empty: &'static str, header: &[&str]) -> Self {
        Self { empty, header: header.iter().map(|cell| (*cell).into()).collect(), rows: vec![] }
    }

    pub(super) fn pairs() -> Self {
        Self { empty: "nothing", header: vec![], rows: vec![] }
    }

    pub(in crate::shell) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| plain::spaced(cell)).collect());
    }

    pub(super) fn pair(&mut self, name: &str, value: String) {
        self.row(vec![name.into(), value]);
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        std::iter::once(&self.header).filter(|header| !header.is_empty()).chain(&self.rows)
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.lines().filter_map(|cells| cells.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return writeln!(f, "{}", self.empty);
        }
        for cells in self.lines() {
            let mut line = String::new();
            for (n, cell) in cells.iter().enumerate() {
                line.push_str(cell);
                let used = cell.chars().count();
                line.extend(std::iter::repeat_n(' ', self.width(n) - used + 2));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Shows an empty text as a dash.
pub(super) fn dash(text: &str) -> String {
    if text.is_empty() { "-".into() } else { text.into() }
}

/// Shows what is absent as a dash.
pub(super) fn or_dash(value: Option<&impl ToString>) -> String {
    dash(&value.map(ToString::to_string).unwrap_or_default())
}
