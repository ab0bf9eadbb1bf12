//! `[trunk.NAME]`: carriers, and what a preset knows about them.
//!
//! Owns: their keys, their defaults, Twilio's particulars.
//! Never: resolves a host.

use super::{
    checked::{Trunk, TrunkUri},
    guards,
    load::named_tables,
    node::codecs,
    problem::ConfigError,
    raw::{Entry, Kind, Span, Table},
    routing::{Retry, RetryNext, Routing},
    secret::Secret,
    section::{Reading, Section, items},
    srtp,
    tls::trunk_tls,
    users::{check_name, secret},
    values::{
        address, count, duration_within, e164, flag, header_text, host, is_twilio_termination,
        network, one_of, retry_on, string, text, transport, trunk_uri,
    },
};
use crate::{
    dialplan::{Country, E164},
    guard::Rate,
    ids::Transport,
    network::Network,
    sdp::Codec,
    trunk::{
        health::Pace,
        source::{TWILIO_MEDIA, TWILIO_SIGNALLING},
    },
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Twilio bans who asks more often than every 10 to 15 seconds.
const TWILIO_QUALIFY_MIN: Duration = Duration::from_secs(15);

/// How long an INVITE may go without any response, unless the trunk says otherwise: Twilio's advice.
const FAILOVER: Duration = Duration::from_secs(4);

/// How a trunk is asked after its health, unless it says otherwise.
const PACE: Pace =
    Pace { every: Duration::from_secs(30), timeout: Duration::from_secs(4), down_after: 3 };

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Preset {
    None,
    Twilio,
}

/// What a trunk is without a word about it.
struct Defaults {
    codecs: Vec<Codec>,
    qualify: Option<Pace>,
    sources: Vec<Network>,
    media_sources: Vec<Network>,
    session_timers: bool,
    prack: bool,
    update: bool,
    e164: bool,
    anonymous_from: bool,
    max_rate: Option<Rate>,
}

impl Preset {
    fn defaults(self) -> Defaults {
        match self {
            Self::None => Defaults {
                codecs: vec![Codec::Pcmu, Codec::Pcma],
                qualify: None,
                sources: vec![],
                media_sources: vec![],
                session_timers: true,
                prack: true,
                update: true,
                e164: false,
                anonymous_from: true,
                max_rate: None,
            },
            // No session timers, PRACK or UPDATE: Twilio answers 422 or does not list them in Allow.
            Self::Twilio => Defaults {
                codecs: vec![Codec::Pcmu, Codec::Pcma],
                qualify: Some(PACE),
                sources: TWILIO_SIGNALLING.to_vec(),
                media_sources: TWILIO_MEDIA.to_vec(),
                session_timers: false,
                prack: false,
                update: false,
                e164: true,
                // Twilio reads the From's user part, and wants a number there.
                anonymous_from: false,
                // What an account begins with; more is bought.
                max_rate: Some(Rate { calls: 1, per: Duration::from_secs(1) }),
            },
        }
    }
}

/// Returns the country of the first caller ID that any trunk has, before anything else is read.
pub(super) fn home(root: &Table) -> Option<Country> {
    let Kind::Table(trunks) = &root.get("trunk")?.value.kind else { return None };
    trunks.0.iter().find_map(|entry| {
        let Kind::Table(trunk) = &entry.value.kind else { return None };
        let number = text(items(&trunk.get("caller_id")?.value).first()?).ok()?;
        Country::of(&E164::parse(number)?)
    })
}

/// Reads every trunk.
pub(super) fn trunks(
    root: &Table,
    country: Country,
    reading: &mut Reading<'_>,
) -> BTreeMap<Box<str>, Arc<Trunk>> {
    let mut trunks = BTreeMap::new();
    for (entry, table) in named_tables(root.get("trunk"), reading) {
        if let Some(trunk) = trunk(entry, table, country, reading) {
            trunks.insert(entry.key.clone(), Arc::new(trunk));
        }
    }
    trunks
}

fn trunk(
    entry: &Entry,
    table: &Table,
    country: Country,
    reading: &mut Reading<'_>,
) -> Option<Trunk> {
    check_name(entry, reading);
    let title = ("trunk.NAME", format!("[trunk.{}]", entry.key));
    let mut section = Section::new(table, &entry.key_span, title, reading);
    let presets = [("none", Preset::None), ("twilio", Preset::Twilio)];
    let preset = section.or("preset", Preset::None, one_of(&presets));
    let defaults = preset.defaults();

    let uris = uris(&mut section, preset);
    let address = section.optional("address", address);
    let (username, password) = credentials(&mut section);
    let mut caller_ids = caller_ids(&mut section, country).into_iter();
    let caller_id = caller_ids.next();
    if preset == Preset::Twilio && !section.has("caller_id") {
        let span = section.span.clone();
        section.reading.problem(&span, ConfigError::NoCallerId);
    }
    let guard = guards::trunk(
        &mut section,
        caller_id.as_ref(),
        (defaults.anonymous_from, defaults.max_rate),
        country,
    );
    let transport = section.or("transport", Transport::Udp, transport);
    let (srtp, srtp_suites) = srtp::trunk(&mut section, preset == Preset::Twilio, transport);
    let at_hand = at_hand(address, uris.as_deref().unwrap_or_default());

    let trunk = Trunk {
        name: entry.key.clone(),
        uris: uris.unwrap_or_default(),
        address,
        transport,
        tls: trunk_tls(&mut section),
        tcp_too: section.or("tcp_too", false, flag),
        username,
        password,
        from_domain: section.optional("from_domain", host),
        routing: routing(&mut section, caller_ids.collect()),
        caller_id,
        caller_name: section.optional("caller_name", header_text),
        qualify: qualify(&mut section, preset, defaults.qualify),
        max_calls: section.or_off("max_calls", None, count(1, 1_000_000)),
        max_duration: section.or(
            "max_duration",
            Duration::from_secs(4 * 60 * 60),
            duration_within("10s", "7d"),
        ),
        codecs: codecs(&mut section, defaults.codecs),
        sources: networks(&mut section, "source", &defaults.sources, &at_hand),
        media_sources: networks(&mut section, "media_source", &defaults.media_sources, &at_hand),
        session_timers: section.or("session_timers", defaults.session_timers, flag),
        prack: section.or("prack", defaults.prack, flag),
        update: section.or("update", defaults.update, flag),
        context: section.or("context", "inbound".into(), string),
        e164: section.or("e164", defaults.e164, flag),
        srtp,
        srtp_suites,
        guard,
    };
    section.finish();
    (!trunk.uris.is_empty()).then_some(trunk)
}

fn uris(section: &mut Section<'_, '_, '_>, preset: Preset) -> Option<Vec<TrunkUri>> {
    if !section.has("uri") {
        section.entry("uri");
        section.missing("uri", "uri = \"example.pstn.twilio.com\"");
        return None;
    }
    let read = section.several("uri", trunk_uri)?;
    for (uri, span) in &read {
        if preset == Preset::Twilio && !is_twilio_termination(&uri.host) {
            section.reading.problem(span, ConfigError::NotTermination(uri.host.clone()));
        }
    }
    Some(read.into_iter().map(|(uri, _)| uri).collect())
}

/// Reads one number or several; the first is the one we call from.
fn caller_ids(section: &mut Section<'_, '_, '_>, country: Country) -> Vec<E164> {
    let read = section.several("caller_id", e164(country)).unwrap_or_default();
    read.into_iter().map(|(number, _)| number).collect()
}

fn routing(section: &mut Section<'_, '_, '_>, caller_ids: Vec<E164>) -> Routing {
    Routing {
        proxy: section.optional("proxy", trunk_uri),
        failover: section.or("failover", FAILOVER, duration_within("500ms", "32s")),
        caller_ids,
        retry: retry(section),
    }
}

/// Reads `retry = { on, next }`.
fn retry(section: &mut Section<'_, '_, '_>) -> Retry {
    let default = Retry::default();
    let Some(entry) = section.entry("retry") else { return default };
    let title = ("retry", "`retry`".to_owned());
    let mut inner = Section::open(Some(entry), title, section.reading);
    let words =
        [("caller_id", RetryNext::CallerId), ("uri", RetryNext::Uri), ("trunk", RetryNext::Trunk)];
    let on = inner.several("on", retry_on);
    let next = inner.several("next", one_of(&words));
    inner.finish();
    Retry {
        on: on.map_or(default.on, |on| on.into_iter().map(|(on, _)| on).collect()),
        next: next.map_or(default.next, |next| next.into_iter().map(|(next, _)| next).collect()),
    }
}

pub(super) fn credentials(section: &mut Section<'_, '_, '_>) -> (Option<Box<str>>, Option<Secret>) {
    let username = section.optional("username", string);
    let password = secret(section, "password").map(|(secret, _)| secret);
    let alone = match (section.has("username"), section.has("password")) {
        (true, false) => Some(("username", "password")),
        (false, true) => Some(("password", "username")),
        (true, true) | (false, false) => None,
    };
    if let Some((has, needs)) = alone {
        let span = section.span_of(has);
        section.reading.problem(&span, ConfigError::Alone { has, needs });
    }
    (username, password)
}

/// Returns the addresses that the trunk itself names: calls and media may come from there, too.
fn at_hand(address: Option<SocketAddr>, uris: &[TrunkUri]) -> Vec<Network> {
    let literal = |uri: &TrunkUri| {
        uri.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()
    };
    let named = uris.iter().filter_map(literal);
    named.chain(address.map(|address| address.ip())).map(Network::single).collect()
}

fn networks(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
    default: &[Network],
    at_hand: &[Network],
) -> Vec<Network> {
    match section.several(key, network) {
        Some(read) => read.into_iter().map(|(network, _)| network).collect(),
        None => default.iter().chain(at_hand).copied().collect(),
    }
}

/// Reads `qualify = { every, timeout, down_after }`, or `false`.
fn qualify(
    section: &mut Section<'_, '_, '_>,
    preset: Preset,
    default: Option<Pace>,
) -> Option<Pace> {
    let entry = section.entry("qualify");
    let Some(entry) = entry else { return default };
    if matches!(entry.value.kind, Kind::Flag(false)) {
        return None;
    }
    let title = ("qualify", "`qualify`".to_owned());
    let base = default.unwrap_or(PACE);
    let mut inner = Section::open(Some(entry), title, section.reading);
    let pace = Pace {
        every: inner.or("every", base.every, duration_within("1s", "1h")),
        timeout: inner.or("timeout", base.timeout, duration_within("500ms", "32s")),
        down_after: inner.or("down_after", base.down_after, count(1, 100)),
    };
    let span = inner.span_of("every");
    check_pace(pace, preset, &span, inner.reading);
    inner.finish();
    Some(pace)
}

fn check_pace(pace: Pace, preset: Preset, span: &Span, reading: &mut Reading<'_>) {
    if pace.timeout > pace.every {
        reading.problem(span, ConfigError::QualifyTimeout);
    }
    if preset == Preset::Twilio && pace.every < TWILIO_QUALIFY_MIN {
        reading.problem(span, ConfigError::QualifyBan);
    }
}
