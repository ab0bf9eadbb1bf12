//! `[user.NAME]`: people with phones, and how secrets are given.
//!
//! Owns: their keys and defaults; `env:`, `file:` and literal secrets.
//! Never: keeps a secret anywhere but in a [`Secret`].

use super::{
    checked::{LatchPolicy, Sip, User, UserSecret},
    guards,
    load::named_tables,
    problem::ConfigError,
    raw::{Entry, Span, Table},
    secret::Secret,
    section::{Reading, Section},
    source::beside,
    srtp,
    values::{count, e164, header_text, one_of, string, text},
};
use crate::{
    dialplan::{Country, E164},
    ids::Transport,
};
use std::{collections::BTreeMap, sync::Arc};

const MD5_HEX: usize = 32;
const SHA256_HEX: usize = 64;

/// Reads every user.
pub(super) fn users(
    root: &Table,
    country: Country,
    sip: &Sip,
    reading: &mut Reading<'_>,
) -> BTreeMap<Box<str>, Arc<User>> {
    let mut users = BTreeMap::new();
    let mut dids = BTreeMap::new();
    let listens_on_tls = sip.listen.iter().any(|listen| listen.transport == Transport::Tls);
    for (entry, table) in named_tables(root.get("user"), reading) {
        if let Some(user) = user(entry, table, (country, listens_on_tls), &mut dids, reading) {
            users.insert(entry.key.clone(), Arc::new(user));
        }
    }
    users
}

fn user(
    entry: &Entry,
    table: &Table,
    (country, listens_on_tls): (Country, bool),
    dids: &mut BTreeMap<E164, Span>,
    reading: &mut Reading<'_>,
) -> Option<User> {
    check_name(entry, reading);
    let title = ("user.NAME", format!("[user.{}]", entry.key));
    let mut section = Section::new(table, &entry.key_span, title, reading);
    let secret = user_secret(&mut section);
    let display = section.optional("name", header_text);
    let caller_id = section.optional("caller_id", e164(country));
    let did = section.several("did", e164(country)).unwrap_or_default();
    for (number, span) in &did {
        if let Some(first) = dids.insert(number.clone(), span.clone()) {
            let problem = ConfigError::DidTwice(number.clone());
            section.reading.problem_with(span, problem, (first, "here first"));
        }
    }
    let policies = [
        ("learn", LatchPolicy::Learn),
        ("strict", LatchPolicy::Strict),
        ("anywhere", LatchPolicy::Anywhere),
    ];
    let context = section.or("context", "internal".into(), string);
    let max_contacts = section.or("max_contacts", 5, count(1, 1000));
    let srtp = srtp::user(&mut section, listens_on_tls);
    let guard = guards::user(&mut section, country);
    let latch = section.or("latch", LatchPolicy::Learn, one_of(&policies));
    section.finish();
    Some(User {
        name: entry.key.clone(),
        secret: secret?,
        display,
        caller_id,
        did: did.into_iter().map(|(number, _)| number).collect(),
        context,
        max_contacts,
        latch,
        srtp,
        guard,
    })
}

fn user_secret(section: &mut Section<'_, '_, '_>) -> Option<UserSecret> {
    let password = secret(section, "password");
    let hashes = secrets(section, "ha1");
    match (section.has("password"), section.has("ha1")) {
        (true, false) => password.map(|(secret, _)| UserSecret::Password(secret)),
        (false, true) => ha1(hashes, section.reading),
        (true, true) => {
            let span = section.span_of("ha1");
            section.reading.problem(&span, ConfigError::TwoSecrets);
            None
        }
        (false, false) => {
            section.missing("password", "password = \"env:PHONE_PASSWORD\"");
            None
        }
    }
}

/// Sorts hashes by their kind, which their length tells.
fn ha1(hashes: Vec<(Secret, Span)>, reading: &mut Reading<'_>) -> Option<UserSecret> {
    let (mut md5, mut sha256) = (None, None);
    for (hash, span) in hashes {
        let len = hash.expose().len();
        let hexadecimal = hash.expose().bytes().all(|b| b.is_ascii_hexdigit());
        let place = match len {
            MD5_HEX if hexadecimal => &mut md5,
            SHA256_HEX if hexadecimal => &mut sha256,
            _ => {
                reading.problem(&span, ConfigError::Ha1(len));
                continue;
            }
        };
        if place.replace(Secret::new(&hash.expose().to_ascii_lowercase())).is_some() {
            reading.problem(&span, ConfigError::Ha1Twice);
        }
    }
    (md5.is_some() || sha256.is_some()).then_some(UserSecret::Ha1 { md5, sha256 })
}

/// Reads a secret and says where it stands.
pub(super) fn secret(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
) -> Option<(Secret, Span)> {
    let value = &section.entry(key)?.value;
    let written = section.reading.keep(&value.span, text(value))?;
    let secret = resolve(written, &value.span, section.reading)?;
    Some((secret, value.span.clone()))
}

fn secrets(section: &mut Section<'_, '_, '_>, key: &'static str) -> Vec<(Secret, Span)> {
    let written = section.several(key, string).unwrap_or_default();
    let resolved = written.into_iter().filter_map(|(written, span)| {
        let secret = resolve(&written, &span, section.reading)?;
        Some((secret, span))
    });
    resolved.collect()
}

/// Finds out what `env:NAME`, `file:PATH` or a literal stands for.
fn resolve(written: &str, span: &Span, reading: &mut Reading<'_>) -> Option<Secret> {
    let found = if let Some(name) = written.strip_prefix("env:") {
        reading.source.env(name).ok_or_else(|| ConfigError::NoEnv(name.into()))
    } else if let Some(path) = written.strip_prefix("file:") {
        let path = beside(reading.file(span), path);
        let read = reading.source.secret(&path);
        if read.as_ref().is_ok_and(|file| file.is_public) {
            reading.problem(span, ConfigError::SecretFileReadable(path.as_str().into()));
        }
        read.map(|file| file.text)
            .map_err(|why| ConfigError::SecretFile { path: path.into(), why: why.into() })
    } else {
        if reading.report.files.get(span.file).is_some_and(|file| file.is_public) {
            reading.readable(span);
        }
        Ok(written.to_owned())
    };
    let found = reading.keep(span, found)?;
    // A file ends with a line break that is not meant.
    let secret = found.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        reading.problem(span, ConfigError::SecretEmpty);
        return None;
    }
    Some(Secret::new(secret))
}

/// Reports a name that could not stand in a SIP URI.
pub(super) fn check_name(entry: &Entry, reading: &mut Reading<'_>) {
    let name = &entry.key;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    if name.is_empty() || !name.chars().all(good) {
        let problem = ConfigError::Name { name: name.clone() };
        reading.problem(&entry.key_span, problem);
    }
}
