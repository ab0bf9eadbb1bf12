//! Reading single values: durations, addresses, numbers, words.
//!
//! Owns: how each is spelled.
//! Never: knows under which key it stands.

use super::{
    checked::{KernelPath, Listen, PublicIp, TrunkUri},
    near::nearest,
    problem::ConfigError,
    raw::{Kind, Value},
    routing::RetryOn,
    section::items,
};
use crate::{
    dialplan::{Country, E164},
    ids::Transport,
    network::Network,
    sdp::Codec,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

type Read<T> = Result<T, ConfigError>;

/// Codecs that we know by name; all but the first two only pass through.
const CODECS: [&str; 8] = ["PCMU", "PCMA", "opus", "G722", "G729", "GSM", "iLBC", "speex"];

/// Where name servers listen (RFC 1035 4.2).
const DNS_PORT: u16 = 53;

fn wrong<T>(value: &Value, want: &'static str) -> Read<T> {
    Err(ConfigError::Type { want, found: value.kind.name() })
}

pub(super) fn text(value: &Value) -> Read<&str> {
    if let Kind::Text(text) = &value.kind { Ok(text) } else { wrong(value, "a string") }
}

/// Reads a string as it is.
pub(super) fn string(value: &Value) -> Read<Box<str>> {
    text(value).map(Into::into)
}

/// Reads what will stand in a header: nothing that would have to be escaped there.
pub(super) fn header_text(value: &Value) -> Read<Box<str>> {
    let text = text(value)?;
    let bad = text.is_empty() || text.contains(|c: char| c.is_control() || "\"\\".contains(c));
    if bad {
        Err(ConfigError::HeaderText(text.escape_debug().to_string().into()))
    } else {
        Ok(text.into())
    }
}

pub(super) fn flag(value: &Value) -> Read<bool> {
    if let Kind::Flag(flag) = value.kind { Ok(flag) } else { wrong(value, "true or false") }
}

/// Reads an integer between two others.
pub(super) fn integer(min: i64, max: i64) -> impl Fn(&Value) -> Read<i64> {
    move |value| {
        let Kind::Integer(value) = value.kind else { return wrong(value, "an integer") };
        let allowed = (min..=max).contains(&value);
        if allowed { Ok(value) } else { Err(ConfigError::Range { value, min, max }) }
    }
}

/// Reads an integer of another type, all of whose values from `min` on are allowed up to `max`.
pub(super) fn count<T: TryFrom<i64>>(min: i64, max: i64) -> impl Fn(&Value) -> Read<T> {
    move |value| {
        let value = integer(min, max)(value)?;
        T::try_from(value).map_err(|_| ConfigError::Range { value, min, max })
    }
}

/// Reads `"1h30m"` or a number of seconds.
pub(super) fn duration(value: &Value) -> Read<Duration> {
    let bad = |text: &str| ConfigError::Duration(text.into());
    if let Kind::Integer(seconds) = value.kind {
        let seconds = u64::try_from(seconds).map_err(|_| bad(&seconds.to_string()))?;
        return Ok(Duration::from_secs(seconds));
    }
    let Kind::Text(text) = &value.kind else { return wrong(value, "a duration such as \"20s\"") };
    parse_duration(text).ok_or_else(|| bad(text))
}

/// Reads a duration between two others, which are given in words as well.
pub(super) fn duration_within(
    min: &'static str,
    max: &'static str,
) -> impl Fn(&Value) -> Read<Duration> {
    move |value| {
        let read = duration(value)?;
        let above = parse_duration(min).is_none_or(|min| min <= read);
        let below = parse_duration(max).is_none_or(|max| read <= max);
        if above && below {
            return Ok(read);
        }
        let value = text(value).map_or_else(|_| format!("{}s", read.as_secs()), str::to_owned);
        let value = value.into();
        Err(ConfigError::DurationRange { value, min, max })
    }
}

/// Reads one or more of a number and its unit, the biggest unit first or not.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let number: u64 = number.parse().ok()?;
        let us = match unit.trim() {
            "us" => 1,
            "ms" => 1000,
            "s" => 1_000_000,
            "m" | "min" => 60 * 1_000_000,
            "h" => 60 * 60 * 1_000_000,
            "d" => 24 * 60 * 60 * 1_000_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_micros(number.checked_mul(us)?))?;
        rest = after;
    }
    Some(sum)
}

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&Value) -> Read<T> {
    move |value| {
        let text = text(value)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let allowed: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        Err(ConfigError::OneOf {
            value: text.into(),
            allowed: allowed.join(", ").into(),
            near: nearest(text, words.iter().map(|(word, _)| *word)).map(Into::into),
        })
    }
}

pub(super) fn transport(value: &Value) -> Read<Transport> {
    one_of(&Transport::ALL.map(|transport| (transport.param(), transport)))(value)
}

pub(super) fn codec(value: &Value) -> Read<Codec> {
    let words = CODECS.map(|name| (name, name));
    let name = text(value)?;
    let known = CODECS.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    known.map_or_else(|| one_of(&words)(value), Ok).map(Codec::parse)
}

pub(super) fn e164(country: Country) -> impl Fn(&Value) -> Read<E164> {
    move |value| {
        let number = text(value)?;
        let meant = || country.normalise(number).map(|meant| meant.expose().into());
        let bad = || ConfigError::NotE164 { number: number.into(), meant: meant() };
        E164::parse(number).ok_or_else(bad)
    }
}

pub(super) fn address(value: &Value) -> Read<SocketAddr> {
    let text = text(value)?;
    text.parse().map_err(|_| ConfigError::Address(text.into()))
}

/// Reads an address with a port, or without one where DNS is served at the usual one.
pub(super) fn name_server(value: &Value) -> Read<SocketAddr> {
    let text = text(value)?;
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    alone.or_else(|_| text.parse()).map_err(|_| ConfigError::NameServer(text.into()))
}

/// Reads an address alone.
pub(super) fn ip(value: &Value) -> Read<IpAddr> {
    let text = text(value)?;
    text.parse().map_err(|_| ConfigError::Ip { text: text.into(), want: "an address" })
}

pub(super) fn ipv4(value: &Value) -> Read<Ipv4Addr> {
    let text = text(value)?;
    text.parse().map_err(|_| ConfigError::Ip { text: text.into(), want: "an IPv4 address" })
}

/// Reads what numbers of a country begin with.
pub(super) fn prefix(value: &Value) -> Read<Box<str>> {
    let text = text(value)?;
    let digits = text.strip_prefix('+').unwrap_or_default();
    let is_good = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_good { Ok(text.into()) } else { Err(ConfigError::Prefix(text.into())) }
}

/// Reads keys of a telephone, or none.
pub(super) fn digits(value: &Value) -> Read<Box<str>> {
    let text = text(value)?;
    let is_key = |c: char| c.is_ascii_digit() || "*#ABCD".contains(c);
    if text.chars().all(is_key) { Ok(text.into()) } else { Err(ConfigError::Keys(text.into())) }
}

/// Reads the name or the address of a host.
pub(super) fn host(value: &Value) -> Read<Box<str>> {
    let host = text(value)?;
    if is_host(host) { Ok(host.into()) } else { Err(ConfigError::Host(host.into())) }
}

/// Reads `udp:0.0.0.0:5060`.
pub(super) fn listen(value: &Value) -> Read<Listen> {
    let text = text(value)?;
    let parsed = text.split_once(':').and_then(|(transport, address)| {
        let transport = Transport::ALL.into_iter().find(|known| known.param() == transport)?;
        Some(Listen { transport, address: address.parse().ok()? })
    });
    parsed.ok_or_else(|| ConfigError::Listen(text.into()))
}

pub(super) fn network(value: &Value) -> Read<Network> {
    let text = text(value)?;
    Network::parse(text)
        .map_err(|error| ConfigError::Network { text: text.into(), why: error.to_string().into() })
}

pub(super) fn public_ip(value: &Value) -> Read<PublicIp> {
    let text = text(value)?;
    match text.strip_prefix("interface:") {
        Some(name) if !name.is_empty() => Ok(PublicIp::Interface(name.into())),
        None if text == "auto" => Ok(PublicIp::Auto),
        Some(_) | None => {
            text.parse().map(PublicIp::Address).map_err(|_| ConfigError::PublicIp(text.into()))
        }
    }
}

/// Reads `"timeout"`, a final status, or a range of them: `"500-504"`.
pub(super) fn retry_on(value: &Value) -> Read<RetryOn> {
    if let Kind::Integer(_) = value.kind {
        let status = count(300, 699)(value)?;
        return Ok(RetryOn::Status(status, status));
    }
    let text = text(value)?;
    let range = || {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        let is_sound = 300 <= first && first <= last && last <= 699;
        is_sound.then_some(RetryOn::Status(first, last))
    };
    let bad = || ConfigError::RetryOn(text.into());
    if text == "timeout" { Ok(RetryOn::Timeout) } else { range().ok_or_else(bad) }
}

/// Reads the host of a trunk, with its port if need be.
pub(super) fn trunk_uri(value: &Value) -> Read<TrunkUri> {
    let text = text(value)?;
    let bad = || ConfigError::Host(text.into());
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => {
            (host, Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?))
        }
        Some(_) | None => (text, None),
    };
    let bare = host.trim_end_matches('.').to_ascii_lowercase();
    // Also of one place: `example.sip.frankfurt.twilio.com`.
    if bare.ends_with(".twilio.com") && bare.split('.').any(|label| label == "sip") {
        return Err(ConfigError::SipDomain(bare.into()));
    }
    if is_host(host) { Ok(TrunkUri { host: host.into(), port }) } else { Err(bad()) }
}

/// Returns whether a host is one of Twilio's trunks': `NAME.pstn.twilio.com`, with or without the
/// place (`NAME.pstn.frankfurt.twilio.com`).
pub(super) fn is_twilio_termination(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host.strip_suffix(".twilio.com").and_then(|rest| rest.split_once(".pstn")).is_some_and(
        |(name, place)| !name.is_empty() && (place.is_empty() || place.starts_with('.')),
    )
}

/// Returns whether a text can be the host of a SIP URI (RFC 3261 25.1).
pub(super) fn is_host(text: &str) -> bool {
    if let Some(v6) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        let ends = !label.starts_with('-') && !label.ends_with('-');
        let len = (1..=63).contains(&label.len());
        len && ends && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// Reads `"10000-20000"`.
pub(super) fn ports(value: &Value) -> Read<(u16, u16)> {
    let text = text(value)?;
    let bad = || ConfigError::Ports(text.into());
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let port = |text: &str| {
        let port: i64 = text.trim().parse().map_err(|_| bad())?;
        let allowed = u16::try_from(port).ok().filter(|port| *port >= 1024);
        allowed.ok_or(ConfigError::PortRange(port))
    };
    let (first, last) = (port(first)?, port(last)?);
    if first < last { Ok((first, last)) } else { Err(bad()) }
}

/// Reads `true`, `false`, or the names of network interfaces.
pub(super) fn kernel_path(value: &Value) -> Read<KernelPath> {
    let want = "true, false, or names of network interfaces";
    let name = |value: &Value| text(value).map(Into::into).or_else(|_| wrong(value, want));
    if let Kind::Flag(everywhere) = value.kind {
        return Ok(if everywhere { KernelPath::All } else { KernelPath::Off });
    }
    items(value).iter().map(name).collect::<Result<_, _>>().map(KernelPath::These)
}

/// Reads `"sqlite:PATH"`.
pub(super) fn store(value: &Value) -> Read<Box<str>> {
    let text = text(value)?;
    let path = text.strip_prefix("sqlite:").filter(|path| !path.is_empty());
    path.map(Into::into).ok_or_else(|| ConfigError::Store(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, want_ms) in [
            ("20s", Some(20_000)),
            ("5m", Some(300_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("1d", Some(86_400_000)),
            ("0s", Some(0)),
            ("20", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("20 parsecs", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            let want = want_ms.map(Duration::from_millis);
            assert_eq!(parse_duration(text), want, "{text}");
        }
        assert_eq!(parse_duration("1ms 50us"), Some(Duration::from_micros(1050)));
    }
}
