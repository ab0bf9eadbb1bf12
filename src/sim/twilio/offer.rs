//! The PBX's session descriptions, as Twilio's policy sees them.
//!
//! Owns: codecs, SRTP, and addresses that lead nowhere.
//! Never: negotiates; the far end's `Sound` does.

use super::{Rule, admission::Refused};
use crate::{
    ids::{Flow, Transport},
    sip::Message,
};
use std::net::IpAddr;

/// Checks the offer of a call to the PSTN.
pub(super) fn check(message: &Message, is_secure: bool, over: Transport) -> Result<(), Refused> {
    if is_secure && over != Transport::Tls {
        let evidence = format!("INVITE over {}", over.token());
        return Err(Refused::by(Rule::SecureSignalling, 488, evidence));
    }
    let Some(offer) = message.sdp() else { return Ok(()) };
    let offer = String::from_utf8_lossy(&offer);
    let audio = audio(&offer);
    if let Some((rule, evidence)) = media_fault(&offer, is_secure, false) {
        return Err(Refused::by(rule, 488, evidence));
    }
    let mut formats = audio.split(' ').skip(3);
    if formats.any(|format| matches!(format, "0" | "8")) {
        Ok(())
    } else {
        Err(Refused::by(Rule::OffersG711, 415, audio))
    }
}

/// Returns what is wrong with the profile and the keys of a description, towards Twilio or
/// (`is_answer`) to an offer of Twilio's, which has one suite.
pub(super) fn media_fault(
    description: &str,
    is_secure: bool,
    is_answer: bool,
) -> Option<(Rule, String)> {
    let audio = audio(description);
    let is_srtp = audio.contains("/SAVP");
    if !is_secure {
        return is_srtp.then(|| (Rule::PlainRtp, audio.to_owned()));
    }
    if !is_srtp {
        return Some((Rule::SecureMedia, audio.to_owned()));
    }
    let suites: &[&str] = if is_answer {
        &["AES_CM_128_HMAC_SHA1_80"]
    } else {
        &["AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"]
    };
    let keys = || description.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
    let is_good = |key: &str| {
        let mut words = key.split_ascii_whitespace().skip(1);
        let (suite, inline) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        suites.contains(&suite) && !has_mki(inline)
    };
    if keys().any(is_good) {
        return None;
    }
    // The keys themselves are secret; what is wrong is in the suite, or in what follows the key.
    let said: Vec<String> = keys()
        .map(|key| {
            let mut words = key.split_ascii_whitespace().skip(1);
            let suite = words.next().unwrap_or_default();
            let mki = if words.next().is_some_and(has_mki) { " with an MKI" } else { "" };
            format!("{suite}{mki}")
        })
        .collect();
    Some((Rule::SrtpSuites, format!("keys for [{}]", said.join(", "))))
}

/// RFC 4568 6.1: `inline:KEY|2^20|1:4`; the part with a colon is the MKI and its length.
fn has_mki(inline: &str) -> bool {
    inline.split('|').skip(1).any(|part| part.contains(':'))
}

/// Returns the `c=` line that leads nowhere, if there is one.
pub(super) fn unreachable(message: &Message, flow: Flow) -> Option<String> {
    let sdp = message.sdp()?;
    let sdp = String::from_utf8_lossy(&sdp);
    let leads_nowhere = |line: &&str| {
        let address = line.rsplit(' ').next().and_then(|address| address.parse::<IpAddr>().ok());
        address
            .is_some_and(|ip| is_out_of_reach(ip, flow) || (ip.is_ipv6() && flow.local.is_ipv4()))
    };
    sdp.lines().filter(|line| line.starts_with("c=")).find(leads_nowhere).map(str::to_owned)
}

/// Returns whether an address is private, though its owner speaks from a public one.
pub(super) fn is_out_of_reach(ip: IpAddr, flow: Flow) -> bool {
    let is_private = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    is_private(ip) && !is_private(flow.remote.ip()) && !flow.remote.ip().is_loopback()
}

fn audio(description: &str) -> &str {
    description.lines().find(|line| line.starts_with("m=audio")).unwrap_or_default()
}
