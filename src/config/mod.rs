//! Configuration: what the files say, checked.
//!
//! Owns: everything that reads TOML, and finding all that is wrong with it at once.
//! Never: opens a file (a [`Source`] does); no foreign type leaves the module.

mod bans;
mod checked;
mod difference;
mod guards;
mod load;
mod near;
mod node;
mod outbound;
mod problem;
mod raw;
mod report;
mod routing;
mod rule_problem;
mod rules;
pub mod scenario;
mod secret;
mod section;
mod source;
mod srtp;
mod timezone;
mod tls;
mod trunks;
mod users;
mod values;

pub use checked::{
    Config, Control, Http, KernelPath, LatchPolicy, Listen, Log, LogFormat, LogLevel, Node,
    PublicIp, Rtp, Sip, Store, Tls, Trunk, TrunkTls, TrunkUri, User, UserSecret,
};
pub use difference::difference;
pub use outbound::Outbound;
pub use problem::{ConfigError, Problem};
pub use raw::Span;
pub use report::{Diagnostic, Report, Severity, SourceFile};
pub use routing::{Retry, RetryNext, RetryOn, Routing};
pub use rule_problem::RuleError;
pub use rules::Case;
pub use secret::Secret;
pub use source::{Files, Source, Text, WithoutSecrets, fits};
pub use timezone::Timezone;
pub use tls::TlsProblem;

use crate::dialplan::Country;
use raw::Table;
use section::{Keys, Reading};
use std::{collections::BTreeSet, sync::Arc};

/// The sections of a configuration file, and what stands beside them.
const SECTIONS: [&str; 15] = [
    "node",
    "sip",
    "tls",
    "rtp",
    "http",
    "store",
    "log",
    "control",
    "bans",
    "emergency",
    "trunk",
    "user",
    "hours",
    "include",
    "dialplan",
];

/// What came of reading the files.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// `None` where there are errors.
    pub config: Option<Config>,
    /// Everything that is wrong, also warnings.
    pub report: Report,
    /// The dialplan's `[[test]]` tables.
    pub cases: Vec<Case>,
}

/// Reads the configuration that begins with the file at `path`.
pub fn check(path: &str, source: &dyn Source) -> Checked {
    read(path, source).0
}

/// Reads the configuration, and returns the keys that it looked for, and those that it found.
fn read(path: &str, source: &dyn Source) -> (Checked, [Keys; 2]) {
    let mut reading = Reading::new(source);
    let loaded = load::load(path, &mut reading);
    let root = &loaded.root;
    check_names(root, &SECTIONS, "the configuration", &mut reading);

    let home = trunks::home(root).unwrap_or(Country::US);
    let node = node::node(root, home, &mut reading);
    let sip = node::sip(root, &mut reading);
    let mut trunks = trunks::trunks(root, node.country, &mut reading);
    let users = users::users(root, node.country, &sip, &mut reading);
    if root.get("trunk").is_none() && root.get("user").is_none() {
        reading.problem(&Span::default(), ConfigError::Nothing);
    }
    guards::own_dids(&mut trunks, &users);
    guards::check_users(root, node.country, (&trunks, &users), &mut reading);
    let emergency = guards::emergency(root, node.country, &trunks, &mut reading);
    let mut plan = rules::read(&loaded, node.country, (&trunks, &users), &mut reading);
    rules::check_contexts(&plan.dialplan, root, (&trunks, &users), &mut reading);
    guards::check_hours(&plan.dialplan, root, &mut reading);
    guards::let_emergencies_out(&mut plan.dialplan, &emergency, (&trunks, &users));
    guards::check_emergencies(&plan.dialplan, root, &emergency, (&trunks, &users), &mut reading);

    tls::check_trunks(root, &trunks, &mut reading);

    let config = Config {
        node,
        sip,
        tls: tls::tls(root, &mut reading),
        rtp: node::rtp(root, &mut reading),
        http: node::http(root, &mut reading),
        store: node::store_section(root, &mut reading),
        log: node::log(root, &mut reading),
        control: node::control(root, &mut reading),
        bans: bans::bans(root, &mut reading),
        trunks,
        users,
        emergency,
        dialplan: Arc::new(plan.dialplan),
    };
    let Reading { mut report, asked, found, .. } = reading;
    tidy(&mut report);
    let config = (report.errors() == 0).then_some(config);
    (Checked { config, report, cases: plan.cases }, [asked, found])
}

/// Reports every section of a file that nobody knows.
fn check_names(
    root: &Table,
    sections: &[&'static str],
    file: &'static str,
    reading: &mut Reading<'_>,
) {
    for entry in root.0.iter().filter(|entry| !sections.contains(&&*entry.key)) {
        let near = near::nearest(&entry.key, sections.iter().copied()).map(Into::into);
        let (key, place) = (entry.key.clone(), file.into());
        reading.problem(&entry.key_span, ConfigError::UnknownKey { key, place, near });
    }
}

/// Sorts by place, and keeps quiet about what a line says that is not TOML anyway.
fn tidy(report: &mut Report) {
    if report.files.is_empty() {
        report.diagnostics.truncate(1); // There is no file, and nothing to say of its contents.
        return;
    }
    let line = |diagnostic: &Diagnostic| report.origin(&diagnostic.span);
    let is_syntax = |diagnostic: &Diagnostic| {
        matches!(diagnostic.problem, Problem::Config(ConfigError::Syntax(_)))
    };
    let broken: BTreeSet<_> =
        report.diagnostics.iter().filter(|d| is_syntax(d)).map(line).collect();
    let mut kept: Vec<_> = report
        .diagnostics
        .iter()
        .filter(|d| is_syntax(d) || !broken.contains(&line(d)))
        .cloned()
        .collect();
    kept.sort_by_key(|d| (d.span.file, d.span.range.start));
    kept.dedup();
    report.diagnostics = kept;
}

#[cfg(test)]
mod mistakes_tests;
#[cfg(test)]
mod tests;
