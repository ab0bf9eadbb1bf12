//! `[tls]`, and what a trunk says about TLS.
//!
//! Owns: their keys and defaults, and every mistake about certificates.
//! Never: opens a file itself, or speaks TLS.

use super::{
    checked::{Tls, Trunk, TrunkTls},
    problem::ConfigError,
    raw::{Entry, Kind, Span, Table, Value},
    report::Severity,
    section::{Reading, Section, items},
    source::beside,
    values::{flag, is_host, one_of, string, text},
};
use crate::{
    ids::Transport,
    tls::{Authorities, Clients, Identity, Unusable},
};
use std::{collections::BTreeMap, sync::Arc};

/// A certificate should have been renewed by then; authorities give them for 90 days or less.
const SOON_DAYS: i64 = 14;
/// Where SIP is spoken in the clear.
const PLAIN_PORT: u16 = 5060;

/// What can be wrong about TLS.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's sentence is its documentation")]
pub enum TlsProblem {
    #[error("cannot use `{path}`: {why}")]
    Unusable { path: Box<str>, why: Unusable },
    #[error("the key in `{key}` is not that of the certificate in `{certificate}`")]
    OtherKey { certificate: Box<str>, key: Box<str> },
    #[error("a TLS listener needs a certificate")]
    NoCertificate,
    #[error("the certificate in `{path}` expired {} ago", Days(.days.unsigned_abs()))]
    Expired { path: Box<str>, days: i64 },
    #[error("the certificate in `{path}` holds only in {}", Days(*.days))]
    NotYet { path: Box<str>, days: u64 },
    #[error("the certificate in `{path}` expires in {}", Days(.days.unsigned_abs()))]
    ExpiresSoon { path: Box<str>, days: i64 },
    #[error("port 5060 is the one without TLS")]
    PlainPort,
    #[error("the trunk cannot call us over TLS: there is no TLS listener")]
    NoListener,
    #[error("anybody can pretend to be this trunk: its certificate is not checked")]
    Unverified,
    #[error("`tls` without `transport = \"tls\"`: the trunk is called in the clear")]
    Unused,
}

/// Days, in words.
struct Days(u64);

impl std::fmt::Display for Days {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("less than a day"),
            1 => f.write_str("1 day"),
            days => write!(f, "{days} days"),
        }
    }
}

impl TlsProblem {
    /// Returns a code that stays the same across releases.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => "C070",
            Self::OtherKey { .. } => "C071",
            Self::NoCertificate => "C072",
            Self::Expired { .. } => "C073",
            Self::NotYet { .. } => "C074",
            Self::ExpiresSoon { .. } => "C075",
            Self::PlainPort => "C076",
            Self::NoListener => "C077",
            Self::Unverified => "C078",
            Self::Unused => "C079",
        }
    }

    /// Returns how bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Unusable { .. } | Self::OtherKey { .. } | Self::NoCertificate => Severity::Error,
            Self::Expired { .. }
            | Self::NotYet { .. }
            | Self::ExpiresSoon { .. }
            | Self::PlainPort
            | Self::NoListener
            | Self::Unverified
            | Self::Unused => Severity::Warning,
        }
    }

    /// Returns what to write instead.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unusable { .. } => {
                "PEM files begin with `-----BEGIN`; a key must not be behind a passphrase"
            }
            Self::OtherKey { .. } => {
                "`certificate` and `key` come from one request, such as `fullchain.pem` and \
                 `privkey.pem`"
            }
            Self::NoCertificate => {
                "add `[tls]` with `certificate = \"fullchain.pem\"` and `key = \"privkey.pem\"`"
            }
            Self::Expired { .. } | Self::ExpiresSoon { .. } => {
                "renew it, then `tandem reload`: connections stay"
            }
            Self::NotYet { .. } => "look at this machine's clock, or use it later",
            Self::PlainPort => "write 5061, or leave the port out",
            Self::NoListener => "add \"tls:0.0.0.0:5061\" to `[sip] listen`",
            Self::Unverified => "remove `verify = false`, and name the carrier's authority in `ca`",
            Self::Unused => "write `transport = \"tls\"`",
        }
    }
}

impl From<TlsProblem> for super::Problem {
    fn from(problem: TlsProblem) -> Self {
        Self::Config(ConfigError::Tls(problem))
    }
}

/// Reads `[tls]`; `None` where there is no certificate, or nobody may read its key.
pub(super) fn tls(root: &Table, reading: &mut Reading<'_>) -> Option<Tls> {
    let title = ("tls", "[tls]".to_owned());
    let mut section = Section::open(root.get("tls"), title, reading);
    let identity = identity(&mut section);
    let authorities = authorities(&mut section, "client_ca");
    let words = ["off", "optional", "require"].map(|word| (word, word));
    let asked = section.optional("client_certificates", one_of(&words));
    if asked.is_some_and(|asked| asked != "off") && !section.has("client_ca") {
        let span = section.span_of("client_certificates");
        let (has, needs) = ("client_certificates", "client_ca");
        section.reading.problem(&span, ConfigError::Alone { has, needs });
    }
    section.finish();
    let clients = match (asked, authorities) {
        (None | Some("require"), Some(authorities)) => Clients::Require(authorities),
        (Some("optional"), Some(authorities)) => Clients::Optional(authorities),
        (_, _) => Clients::Off,
    };
    Some(Tls { identity: identity?, clients })
}

/// Reads a trunk's `tls = { ... }`.
pub(super) fn trunk_tls(section: &mut Section<'_, '_, '_>) -> TrunkTls {
    let entry = section.entry("tls");
    let title = ("trunk.NAME.tls", "`tls`".to_owned());
    let mut inner = Section::open(entry, title, section.reading);
    let tls = TrunkTls {
        authorities: authorities(&mut inner, "ca"),
        identity: identity(&mut inner),
        server_name: inner.optional("server_name", |value| {
            let host = string(value)?;
            if is_host(&host) { Ok(host) } else { Err(ConfigError::Host(host)) }
        }),
        verify: inner.or("verify", true, flag),
    };
    if !tls.verify {
        let span = inner.span_of("verify");
        inner.reading.problem(&span, TlsProblem::Unverified);
    }
    inner.finish();
    tls
}

/// Compares the trunks with each other's neighbours in the file: their ports, our listeners.
pub(super) fn check_trunks(
    root: &Table,
    trunks: &BTreeMap<Box<str>, Arc<Trunk>>,
    reading: &mut Reading<'_>,
) {
    let listens = listens(root);
    for trunk in trunks.values() {
        let Some(table) = root.get("trunk").and_then(|all| inside(all, &trunk.name)) else {
            continue;
        };
        let at = |key: &str| table.get(key).map(|entry| entry.value.span.clone());
        if trunk.transport != Transport::Tls {
            if let Some(span) = at("tls") {
                reading.problem(&span, TlsProblem::Unused);
            }
            continue;
        }
        let ports = trunk.uris.iter().filter_map(|uri| uri.port);
        let (key, mut ports): (_, Vec<_>) = match trunk.address {
            Some(address) => ("address", vec![address.port()]),
            None => ("uri", ports.collect()),
        };
        ports.retain(|port| *port == PLAIN_PORT);
        if let (Some(span), Some(_)) = (at(key), ports.first()) {
            reading.problem(&span, TlsProblem::PlainPort);
        }
        // Who may not call us needs no way to.
        if let (false, false, Some(span)) = (listens, trunk.sources.is_empty(), at("transport")) {
            reading.problem(&span, TlsProblem::NoListener);
        }
    }
}

/// Returns whether `[tls]` names a certificate, good or not: then that is what is wrong.
pub(super) fn has_certificate(root: &Table) -> bool {
    root.get("tls").is_some_and(|tls| {
        let Kind::Table(tls) = &tls.value.kind else { return true };
        tls.get("certificate").is_some() || tls.get("key").is_some()
    })
}

fn listens(root: &Table) -> bool {
    let Some(Entry { value: Value { kind: Kind::Table(sip), .. }, .. }) = root.get("sip") else {
        return false;
    };
    let listen = sip.get("listen").map(|entry| items(&entry.value)).unwrap_or_default();
    listen.iter().any(|item| text(item).is_ok_and(|text| text.starts_with("tls:")))
}

fn inside<'t>(all: &'t Entry, name: &str) -> Option<&'t Table> {
    let Kind::Table(all) = &all.value.kind else { return None };
    let Kind::Table(table) = &all.get(name)?.value.kind else { return None };
    Some(table)
}

/// Reads `certificate` and `key`.
fn identity(section: &mut Section<'_, '_, '_>) -> Option<Identity> {
    let certificate = file(section, "certificate");
    let key = file(section, "key");
    let alone = match (section.has("certificate"), section.has("key")) {
        (true, false) => Some(("certificate", "key")),
        (false, true) => Some(("key", "certificate")),
        (true, true) | (false, false) => None,
    };
    if let Some((has, needs)) = alone {
        let span = section.span_of(has);
        section.reading.problem(&span, ConfigError::Alone { has, needs });
    }
    let ((certificate, span), (key, key_span)) = (certificate?, key?);
    if !section.reading.source.has_secrets() {
        return None;
    }
    let pem = read(&certificate, &span, section.reading);
    let secret = read_key(&key, &key_span, section.reading);
    let (at, span, why) = match Identity::from_pem(&pem?, &secret?) {
        Ok(identity) => {
            check_dates(&identity, certificate, &span, section.reading);
            return Some(identity);
        }
        Err(Unusable::OtherKey) => {
            section.reading.problem(&key_span, TlsProblem::OtherKey { certificate, key });
            return None;
        }
        Err(why @ (Unusable::NoKey | Unusable::BadKey)) => (key, key_span, why),
        Err(why @ (Unusable::NoCertificate | Unusable::BadCertificate | Unusable::Other(_))) => {
            (certificate, span, why)
        }
    };
    section.reading.problem(&span, TlsProblem::Unusable { path: at, why });
    None
}

fn check_dates(identity: &Identity, path: Box<str>, span: &Span, reading: &mut Reading<'_>) {
    let Some(wall) = reading.source.wall() else { return };
    let validity = identity.validity();
    if let Some(days) = validity.days_until(wall) {
        reading.problem(span, TlsProblem::NotYet { path, days });
        return;
    }
    match validity.days_left(wall) {
        past if past < 0 => {
            let days = past.saturating_add(1);
            reading.problem(span, TlsProblem::Expired { path, days });
        }
        days if days < SOON_DAYS => reading.problem(span, TlsProblem::ExpiresSoon { path, days }),
        _ => {}
    }
}

fn authorities(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<Authorities> {
    let (path, span) = file(section, key)?;
    if !section.reading.source.has_secrets() {
        return None;
    }
    let pem = read(&path, &span, section.reading)?;
    let read = Authorities::from_pem(&pem).map_err(|why| TlsProblem::Unusable { path, why });
    section.reading.keep(&span, read)
}

/// Returns the path that a key names, and where it stands.
fn file(section: &mut Section<'_, '_, '_>, key: &'static str) -> Option<(Box<str>, Span)> {
    let path = section.optional(key, string)?;
    let span = section.span_of(key);
    let path = beside(section.reading.file(&span), &path);
    Some((path.into(), span))
}

fn read(path: &str, span: &Span, reading: &mut Reading<'_>) -> Option<String> {
    let unreadable = |why: String| ConfigError::Unreadable { path: path.into(), why: why.into() };
    let read = reading.source.read(path).map_err(unreadable);
    reading.keep(span, read).map(|file| file.text)
}

fn read_key(path: &str, span: &Span, reading: &mut Reading<'_>) -> Option<String> {
    let read = reading.source.secret(path);
    if read.as_ref().is_ok_and(|file| file.is_public) {
        reading.problem(span, ConfigError::SecretFileReadable(path.into()));
    }
    let unreadable = |why: String| ConfigError::Unreadable { path: path.into(), why: why.into() };
    reading.keep(span, read.map_err(unreadable)).map(|file| file.text)
}

#[cfg(test)]
mod tests;
