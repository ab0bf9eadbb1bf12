//! What a carrier answered to a request, as far as it tells why.
//!
//! Owns: reading it out of a response, and its words with every number masked.
//! Never: says what it means; the table of refusals does.

use crate::{observe::mask::Text, sip::Message};
use std::{fmt, net::IpAddr};

/// What the trunk answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Nothing, until our patience or timer B ended.
    Silence,
    /// Our INVITE did not get out: no connection, no route.
    Unsent,
    /// A final response.
    Final {
        /// 300..=699.
        status: u16,
        /// The reason phrase. May contain telephone numbers; `Display` masks them.
        reason: Box<str>,
        /// The number at the start of `X-Twilio-Error`, where the carrier sends one.
        error: Option<u32>,
        /// The address that the carrier saw us at: `received` of our Via.
        received: Option<IpAddr>,
    },
}

impl Answer {
    /// Reads a final response.
    pub fn of(response: &Message) -> Self {
        Self::Final {
            status: response.status(),
            reason: String::from_utf8_lossy(response.reason()).into(),
            error: carrier_error(response),
            received: response.via().received(),
        }
    }
}

/// Returns the number at the start of `X-Twilio-Error`: `32204`, or `32204 Caller ID ...`.
pub fn carrier_error(response: &Message) -> Option<u32> {
    let value = response.other("X-Twilio-Error")?;
    let text = std::str::from_utf8(&value).ok()?;
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => f.write_str("no answer"),
            Self::Unsent => f.write_str("no connection"),
            Self::Final { status, reason, error: None, .. } => {
                write!(f, "{status} {}", Text(reason))
            }
            Self::Final { status, reason, error: Some(error), .. } => {
                write!(f, "{status} {}, error {error}", Text(reason))
            }
        }
    }
}
