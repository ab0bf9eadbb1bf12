//! `srtp`: whether a peer's media is encrypted, and whether its keys are safe on the way.
//!
//! Owns: the key, its defaults, what Twilio demands of it.
//! Never: draws a key.

use super::{problem::ConfigError, section::Section, values::one_of};
use crate::{
    ids::Transport,
    sdp::{CryptoSuite, Srtp},
};

const WORDS: [(&str, Srtp); 3] =
    [("off", Srtp::Off), ("prefer", Srtp::Prefer), ("require", Srtp::Require)];

/// What Twilio takes.
const TWILIO_SUITES: [CryptoSuite; 2] =
    [CryptoSuite::AesCm128HmacSha1_80, CryptoSuite::AesCm128HmacSha1_32];

/// Reads a trunk's, and returns the suites with it. Twilio's secure trunks want TLS and SRTP, all
/// others neither.
pub(super) fn trunk(
    section: &mut Section<'_, '_, '_>,
    is_twilio: bool,
    transport: Transport,
) -> (Srtp, Vec<CryptoSuite>) {
    let is_private = transport == Transport::Tls;
    let default = if is_twilio && is_private { Srtp::Require } else { Srtp::Prefer };
    let srtp = section.or("srtp", default, one_of(&WORDS));
    if srtp == Srtp::Require && !is_private {
        let span = section.span_of("srtp");
        let problem =
            if is_twilio { ConfigError::SrtpWithoutTls } else { ConfigError::KeysReadable };
        section.reading.problem(&span, problem);
    }
    let suites = if is_twilio { &TWILIO_SUITES[..] } else { &CryptoSuite::ALL };
    (srtp, suites.to_vec())
}

/// Reads a user's.
pub(super) fn user(section: &mut Section<'_, '_, '_>, listens_on_tls: bool) -> Srtp {
    let srtp = section.or("srtp", Srtp::Prefer, one_of(&WORDS));
    if srtp == Srtp::Require && !listens_on_tls {
        let span = section.span_of("srtp");
        section.reading.problem(&span, ConfigError::KeysReadable);
    }
    srtp
}
