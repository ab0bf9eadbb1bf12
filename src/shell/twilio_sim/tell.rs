//! What the simulated trunk tells: lines for people, or JSON lines for programs.
//!
//! Owns: the words.
//! Never: tells a number in full.

use super::trunk::Ended;
use crate::{
    observe::mask::Text,
    sim::twilio::{Deviation, Entry},
};
use serde::Serialize;
use std::{
    io::{self, Write},
    net::SocketAddr,
};

/// How to tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// A sentence a line.
    Text,
    /// An object a line.
    Json,
}

/// Something to tell.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Told {
    /// A socket is open.
    Listening { transport: &'static str, address: SocketAddr },
    /// The PBX broke a rule.
    Deviation(Entry),
    /// A call is over.
    Call {
        call: u64,
        status: u16,
        sent: u64,
        received: u64,
        lost: u64,
        heard_ms: u128,
        digits: Box<str>,
    },
    /// The end: how much there was, and how much is left.
    Total { calls: usize, deviations: usize, open: usize },
}

impl Told {
    pub(super) fn deviation(deviation: &Deviation) -> Self {
        let evidence = Text(&deviation.evidence).to_string();
        Self::Deviation(Entry { evidence, ..deviation.entry() })
    }

    pub(super) fn call(ended: &Ended) -> Self {
        let report = &ended.report;
        Self::Call {
            call: ended.call.0,
            status: ended.status,
            sent: report.sent,
            received: report.received,
            lost: report.lost,
            heard_ms: report.heard.as_millis(),
            digits: report.digits.clone(),
        }
    }

    fn line(&self) -> String {
        match self {
            Self::Listening { transport, address } => format!("listening on {transport}:{address}"),
            Self::Deviation(Entry { sentence, evidence, error, .. }) => {
                let error = error.map_or_else(String::new, |e| format!(" (Twilio error {e})"));
                format!("deviation: {sentence}, but: {evidence}{error}")
            }
            Self::Call { status, sent, received, lost, heard_ms, digits, .. } => {
                let pressed =
                    if digits.is_empty() { String::new() } else { format!(", keys {digits}") };
                format!(
                    "call: {status}, {sent} packets sent, {received} received, {lost} lost, tone heard \
                     for {heard_ms} ms{pressed}"
                )
            }
            Self::Total { calls, deviations, open } => {
                format!("total: {calls} calls, {deviations} deviations, {open} calls not over")
            }
        }
    }
}

/// Writes one line.
pub(super) fn tell(form: Form, told: &Told) -> io::Result<()> {
    let line = match form {
        Form::Text => told.line(),
        Form::Json => serde_json::to_string(told).map_err(io::Error::other)?,
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
