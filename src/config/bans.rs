//! `[bans]`: when a source is answered no more, and for how long.
//!
//! Owns: its keys and defaults.
//! Never: bans anybody.

use super::{
    problem::ConfigError,
    raw::Table,
    section::{Reading, Section},
    values::{count, duration_within, network, text},
};
use crate::{guard::BanPolicy, network::Network};
use std::time::Duration;

/// This machine: a forger elsewhere cannot speak in its name, and whoever is on it needs no guesses.
const NEVER: [&str; 2] = ["127.0.0.0/8", "::1"];
/// What scanners write into User-Agent unless they are told to hide.
const SCANNERS: [&str; 10] = [
    "friendly-scanner",
    "friendly-request",
    "sipvicious",
    "sipcli",
    "sundayddr",
    "pplsip",
    "sip-scan",
    "sipscan",
    "siparmyknife",
    "iwar",
];

/// Reads `[bans]`.
pub(super) fn bans(root: &Table, reading: &mut Reading<'_>) -> BanPolicy {
    let mut section = Section::open(root.get("bans"), ("bans", "[bans]".to_owned()), reading);
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let policy = BanPolicy {
        guesses: section.or_off("guesses", Some(50), count(1, 10_000)),
        junk: section.or_off("junk", Some(100), count(1, 100_000)),
        within: section.or("within", minutes(10), duration_within("1s", "1d")),
        first: section.or("first", minutes(5), duration_within("1s", "7d")),
        longest: section.or("longest", minutes(24 * 60), duration_within("1s", "7d")),
        never: match section.several("never", network) {
            Some(read) => read.into_iter().map(|(network, _)| network).collect(),
            None => NEVER.iter().filter_map(|text| Network::parse(text).ok()).collect(),
        },
        scanners: match section.several("scanners", scanner) {
            Some(read) => read.into_iter().map(|(scanner, _)| scanner).collect(),
            None => SCANNERS.map(Into::into).into(),
        },
    };
    if policy.first > policy.longest {
        let key = if section.has("first") { "first" } else { "longest" };
        let span = section.span_of(key);
        section.reading.problem(&span, ConfigError::BanOrder);
    }
    section.finish();
    policy
}

/// Reads a part of a User-Agent: so short a one would fit half of all phones.
fn scanner(value: &super::raw::Value) -> Result<Box<str>, ConfigError> {
    let text = text(value)?;
    let is_good = text.len() >= 4 && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if is_good { Ok(text.into()) } else { Err(ConfigError::Scanner(text.into())) }
}
