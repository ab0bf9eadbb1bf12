//! The sections about this machine: `[node] [sip] [rtp] [http] [store] [log] [control]`.
//!
//! Owns: their keys and defaults.
//! Never: knows trunks or users.

use super::{
    checked::{
        Control, Http, KernelPath, Listen, Log, LogFormat, LogLevel, Node, PublicIp, Rtp, Sip,
        Store,
    },
    problem::ConfigError,
    raw::Table,
    section::{Reading, Section},
    timezone::Timezone,
    tls::TlsProblem,
    values::{
        address, codec, count, duration_within, header_text, kernel_path, listen, name_server,
        one_of, ports, public_ip, store, string, text,
    },
};
use crate::{dialplan::Country, ids::Transport, sdp::Codec, sip::digest::Algorithm};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

const HTTP_DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8090);
/// A minute less than the unit's `TimeoutStopSec`, so that those who are left are told and recorded.
const DRAIN_DEFAULT: Duration = Duration::from_secs(14 * 60);
/// RTP and RTCP for each of a call's legs.
const PORTS_PER_CALL: usize = 4;

fn section<'t, 'r, 's>(
    root: &'t Table,
    name: &'static str,
    reading: &'r mut Reading<'s>,
) -> Section<'t, 'r, 's> {
    Section::open(root.get(name), (name, format!("[{name}]")), reading)
}

/// Reads `[node]`; `country` is the one to assume.
pub(super) fn node(root: &Table, country: Country, reading: &mut Reading<'_>) -> Node {
    let mut section = section(root, "node", reading);
    let node = Node {
        name: section.or("name", "tandem".into(), string),
        country: section.or("country", country, |value| {
            let code = text(value)?;
            Country::parse(code).ok_or_else(|| ConfigError::Country(code.into()))
        }),
        timezone: section.or("timezone", Timezone::UTC, |value| {
            let name = text(value)?;
            Timezone::parse(name).ok_or_else(|| ConfigError::Timezone {
                name: name.into(),
                near: Timezone::nearest(name),
            })
        }),
        public_ip: section.or("public_ip", PublicIp::Auto, public_ip),
        resolver: name_servers(&mut section),
        drain: section.or("drain", DRAIN_DEFAULT, duration_within("0s", "7d")),
    };
    section.finish();
    node
}

fn name_servers(section: &mut Section<'_, '_, '_>) -> Vec<SocketAddr> {
    let read = section.several("resolver", name_server).unwrap_or_default();
    read.into_iter().map(|(server, _)| server).collect()
}

/// CS3 (RFC 4594 4.2) and EF (RFC 3246): what telephones are marked with.
const DSCP_SIGNALLING: u8 = 24;
const DSCP_VOICE: u8 = 46;

/// Reads `[sip]`.
pub(super) fn sip(root: &Table, reading: &mut Reading<'_>) -> Sip {
    let mut section = section(root, "sip", reading);
    let seconds = Duration::from_secs;
    let sip = Sip {
        listen: listeners(&mut section, super::tls::has_certificate(root)),
        realm: section.or("realm", "tandem".into(), header_text),
        digest: digests(&mut section),
        expires_min: section.or("expires_min", seconds(60), duration_within("1s", "1d")),
        expires_default: section.or("expires_default", seconds(3600), duration_within("1s", "7d")),
        expires_max: section.or("expires_max", seconds(7200), duration_within("1s", "7d")),
        ping_phones: section.or_off("ping_phones", None, duration_within("5s", "1h")),
        session_expires: section.or("session_expires", seconds(1800), duration_within("90s", "1d")),
        // RFC 4028 4: never below 90 seconds.
        min_se: section.or("min_se", seconds(90), duration_within("90s", "1d")),
        max_forwards: section.or("max_forwards", 70, count(1, 255)),
        max_ringing: section.or("max_ringing", 1000, count(1, 1_000_000)),
        max_connections: section.or("max_connections", 16_384, count(16, 1_000_000)),
        dscp: section.or("dscp", DSCP_SIGNALLING, count(0, 63)),
        user_agent: section.or("user_agent", "Tandem".into(), header_text),
    };
    let ordered = sip.expires_min <= sip.expires_default && sip.expires_default <= sip.expires_max;
    if !ordered {
        let key = ["expires_default", "expires_max", "expires_min"];
        let key = key.into_iter().find(|key| section.has(key)).unwrap_or_default();
        let span = section.span_of(key);
        section.reading.problem(&span, ConfigError::ExpiresOrder);
    }
    section.finish();
    sip
}

fn digests(section: &mut Section<'_, '_, '_>) -> Vec<Algorithm> {
    let words = [("SHA-256", Algorithm::Sha256), ("MD5", Algorithm::Md5)];
    let read = section.several("digest", one_of(&words)).filter(|read| !read.is_empty());
    read.map_or_else(
        || words.map(|(_, algorithm)| algorithm).into(),
        |read| read.into_iter().map(|(algorithm, _)| algorithm).collect(),
    )
}

fn listeners(section: &mut Section<'_, '_, '_>, has_certificate: bool) -> Vec<Listen> {
    let read = section.several("listen", listen);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5060));
    let Some(read) = read.filter(|read| !read.is_empty()) else {
        return [Transport::Udp, Transport::Tcp]
            .map(|transport| Listen { transport, address: any })
            .into();
    };
    for (index, (listen, span)) in read.iter().enumerate() {
        if listen.transport == Transport::Tls && !has_certificate {
            section.reading.problem(span, TlsProblem::NoCertificate);
        }
        if let Some((_, first)) = read[..index].iter().find(|(other, _)| is_same(other, listen)) {
            let first = first.clone();
            let text = format!("{}:{}", listen.transport.param(), listen.address);
            let problem = ConfigError::ListenTwice(text.into());
            section.reading.problem_with(span, problem, (first, "here first"));
        }
    }
    read.into_iter().map(|(listen, _)| listen).collect()
}

/// Returns whether only one of two listeners can be opened.
fn is_same(a: &Listen, b: &Listen) -> bool {
    let (x, y) = (a.address.ip(), b.address.ip());
    let all = x.is_ipv4() == y.is_ipv4() && (x.is_unspecified() || y.is_unspecified());
    // Port 0, any free one, is another one each time.
    let port = a.address.port() == b.address.port() && a.address.port() != 0;
    // TLS is spoken over TCP.
    a.transport.is_reliable() == b.transport.is_reliable() && port && (x == y || all)
}

/// Reads `[rtp]`.
pub(super) fn rtp(root: &Table, reading: &mut Reading<'_>) -> Rtp {
    let mut section = section(root, "rtp", reading);
    let rtp = Rtp {
        ports: section.or("ports", (10_000, 20_000), ports),
        codecs: codecs(&mut section, vec![Codec::Pcmu, Codec::Pcma]),
        timeout: section.or("timeout", Duration::from_secs(60), duration_within("5s", "1d")),
        unanswered: section.or("unanswered", Duration::from_secs(30), duration_within("5s", "1d")),
        workers: section.or("workers", 2, count(1, 64)),
        dscp: section.or("dscp", DSCP_VOICE, count(0, 63)),
        coalesce: section.or("coalesce", Duration::ZERO, duration_within("0s", "2ms")),
        kernel: section.or("kernel", KernelPath::Off, kernel_path),
    };
    let (first, last) = rtp.ports;
    let ports = usize::from(last - first) + 1;
    let need = rtp.workers * PORTS_PER_CALL;
    if ports < need {
        let span = section.span_of(if section.has("ports") { "ports" } else { "workers" });
        let problem = ConfigError::PortsTooFew { ports, workers: rtp.workers, need };
        section.reading.problem(&span, problem);
    }
    section.finish();
    rtp
}

/// Reads `codecs`; an empty list is no list.
pub(super) fn codecs(section: &mut Section<'_, '_, '_>, default: Vec<Codec>) -> Vec<Codec> {
    let read = section.several("codecs", codec).filter(|read| !read.is_empty());
    read.map_or(default, |read| read.into_iter().map(|(codec, _)| codec).collect())
}

/// Reads `[http]`.
pub(super) fn http(root: &Table, reading: &mut Reading<'_>) -> Http {
    let mut section = section(root, "http", reading);
    let listen = section.or_off("listen", Some(HTTP_DEFAULT), address);
    if let Some(open) = listen.filter(|listen| !listen.ip().is_loopback()) {
        let span = section.span_of("listen");
        let address = open.to_string().into();
        section.reading.problem(&span, ConfigError::HttpOpen { address });
    }
    section.finish();
    Http { listen }
}

/// Reads `[store]`.
pub(super) fn store_section(root: &Table, reading: &mut Reading<'_>) -> Store {
    let mut section = section(root, "store", reading);
    let sqlite = section.optional("url", store);
    section.finish();
    Store { sqlite }
}

/// Reads `[log]`.
pub(super) fn log(root: &Table, reading: &mut Reading<'_>) -> Log {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    let levels = [Error, Warn, Info, Debug, Trace].map(|level| (level.name(), level));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let mut section = section(root, "log", reading);
    let log = Log {
        level: section.or("level", Info, one_of(&levels)),
        format: section.or("format", LogFormat::Text, one_of(&formats)),
    };
    section.finish();
    log
}

/// Reads `[control]`.
pub(super) fn control(root: &Table, reading: &mut Reading<'_>) -> Control {
    let mut section = section(root, "control", reading);
    let socket = section.optional("socket", string);
    section.finish();
    Control { socket }
}
