//! Which files belong together: the one that was named, what it includes, its dialplan.
//!
//! Owns: reading and merging them into one table, so that nothing after it knows of files.
//! Never: looks at a key other than `include` and `dialplan`.

use super::{
    problem::ConfigError,
    raw::{self, Entry, Kind, Span, Table},
    report::SourceFile,
    section::{Reading, items},
    source::beside,
    values::text,
};

/// Where rules are looked for if nobody says: beside the folder of the configuration, or in it.
const DIALPLAN_DEFAULT: [&str; 2] = ["../dialplan/*.toml", "dialplan/*.toml"];

/// What the files say.
pub(super) struct Loaded {
    /// The configuration files, merged.
    pub(super) root: Table,
    /// The dialplan files, in order.
    pub(super) dialplans: Vec<Table>,
}

/// Reads everything that begins with the file at `path`.
pub(super) fn load(path: &str, reading: &mut Reading<'_>) -> Loaded {
    let mut root = Table::default();
    let mut dialplans = vec![];
    let mut waiting = vec![(path.to_owned(), None)];
    while let Some((path, named)) = waiting.pop() {
        if reading.report.files.iter().any(|file| *file.path == *path) {
            let span = named.unwrap_or_default();
            reading.problem(&span, ConfigError::IncludedTwice(path.into()));
            continue;
        }
        let Some(mut table) = read(&path, named, reading) else { continue };

        let includes = table.take("include");
        waiting.extend(paths(includes.as_ref(), reading).into_iter().rev());
        dialplans.extend(table.take("dialplan"));
        for clash in root.merge(table) {
            let related = (clash.first, "set here first");
            reading.problem_with(&clash.second, ConfigError::SetTwice(clash.key), related);
        }
    }
    let dialplans = read_dialplans(path, &dialplans, reading);
    Loaded { root, dialplans }
}

fn read_dialplans(config: &str, named: &[Entry], reading: &mut Reading<'_>) -> Vec<Table> {
    let mut files = vec![];
    if named.is_empty() {
        let patterns = DIALPLAN_DEFAULT.map(|pattern| beside(config, pattern));
        let found = patterns.iter().flat_map(|pattern| reading.source.list(pattern));
        files.extend(found.map(|path| (path, None)));
    }
    for entry in named {
        files.extend(paths(Some(entry), reading));
    }
    let mut tables = vec![];
    for (path, named) in files {
        // Two patterns may fit the same file; it counts once.
        if !reading.report.files.iter().any(|file| *file.path == *path) {
            tables.extend(read(&path, named, reading));
        }
    }
    tables
}

/// Returns the files that `include` or `dialplan` names, and where it names them.
fn paths(entry: Option<&Entry>, reading: &mut Reading<'_>) -> Vec<(String, Option<Span>)> {
    let mut found = vec![];
    for value in entry.map(|entry| items(&entry.value)).unwrap_or_default() {
        let Some(pattern) = reading.keep(&value.span, text(value)) else { continue };
        let path = beside(reading.file(&value.span), pattern);
        if !pattern.contains(['*', '?']) {
            found.push((path, Some(value.span.clone())));
            continue;
        }
        let files = reading.source.list(&path);
        if files.is_empty() {
            reading.problem(&value.span, ConfigError::NoFile(pattern.into()));
        }
        found.extend(files.into_iter().map(|path| (path, Some(value.span.clone()))));
    }
    found
}

/// Reads one file. Where it cannot be read, the problem points to who names it.
pub(super) fn read(path: &str, named: Option<Span>, reading: &mut Reading<'_>) -> Option<Table> {
    let file = reading.report.files.len();
    match reading.source.read(path) {
        Ok(text) => {
            let (table, errors) = raw::parse(file, &text.text);
            reading.report.files.push(SourceFile {
                path: path.into(),
                text: super::secret::blanked(&text.text).into(),
                is_public: text.is_public,
            });
            for (span, message) in errors {
                reading.problem(&span, ConfigError::Syntax(message));
            }
            Some(table)
        }
        Err(why) => {
            let (path, why) = (path.into(), why.into());
            let span = named.unwrap_or(Span { file, range: 0..0 });
            reading.problem(&span, ConfigError::Unreadable { path, why });
            None
        }
    }
}

/// Returns the tables under a section's name: `[trunk.NAME]`. What is not a table is reported.
pub(super) fn named_tables<'t>(
    entry: Option<&'t Entry>,
    reading: &mut Reading<'_>,
) -> Vec<(&'t Entry, &'t Table)> {
    let Some(entry) = entry else { return vec![] };
    let Kind::Table(all) = &entry.value.kind else {
        let found = entry.value.kind.name();
        reading.problem(&entry.value.span, ConfigError::Type { want: "a table", found });
        return vec![];
    };
    let mut tables = vec![];
    for entry in &all.0 {
        if let Kind::Table(table) = &entry.value.kind {
            tables.push((entry, table));
        } else {
            let found = entry.value.kind.name();
            reading.problem(&entry.value.span, ConfigError::Type { want: "a table", found });
        }
    }
    tables
}
