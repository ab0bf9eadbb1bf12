//! A log line for each message, at TRACE.
//!
//! Owns: how much of a message such a line tells.
//! Never: tells a number in full, a header's contents or a body.

use crate::{
    ids::Flow,
    observe::mask::Number,
    sip::{Message, ParseError, Uri},
};
use bytes::Bytes;

/// A message has come.
pub(super) fn received(message: &Message, flow: Flow) {
    if tracing::enabled!(tracing::Level::TRACE) {
        log(message, flow, "received");
    }
}

/// What came is no message.
pub(super) fn unreadable(error: &ParseError, flow: Flow) {
    tracing::trace!(%flow, problem = %error.problem, "unreadable");
}

/// A message is on its way.
pub(super) fn sent(bytes: &Bytes, flow: Flow) {
    if tracing::enabled!(tracing::Level::TRACE)
        && let Ok(message) = Message::parse(bytes.clone())
    {
        log(&message, flow, "sent");
    }
}

fn log(message: &Message, flow: Flow, way: &'static str) {
    let (sip_call_id, cseq) = (message.call_id(), message.cseq());
    let (number, bytes) = (cseq.number, message.bytes().len());
    if message.is_request() {
        let uri = Uri::parse(message.uri());
        let user = uri.map(|uri| uri.user_unescaped().into_owned()).unwrap_or_default();
        let method = message.method_token();
        tracing::trace!(%flow, sip_call_id, method, to = %Number(&user), number, bytes, "{way}");
    } else {
        let (status, method) = (message.status(), cseq.method.as_str());
        tracing::trace!(%flow, sip_call_id, status, method, number, bytes, "{way}");
    }
}
