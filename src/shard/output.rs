//! What a shard wants done, and what it is told of what it has asked.
//!
//! Owns: these two vocabularies.
//! Never: does anything; the shell does.

use super::Kin;
use crate::{
    call::{Ask, Record, ResolveFor},
    ids::{CallId, Flow},
    locate::Located,
    media,
};
use bytes::Bytes;

/// What the shell must do, in order.
#[derive(Debug)]
pub enum Output {
    /// Send one message.
    Transmit {
        /// Where to.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Give a message to the process that it is for.
    Pass {
        /// Which.
        kin: Kin,
        /// Where from.
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Tell the media worker that owns this call's legs.
    Media(CallId, media::Command),
    /// Ask a helper.
    Ask(Ask),
    /// Keep something.
    Record(Record),
}

/// What helpers answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Ask::Resolve`].
    Resolved {
        /// As asked.
        token: ResolveFor,
        /// Where it is.
        located: Located,
    },
    /// To [`Ask::Prompt`].
    Prompt {
        /// As asked.
        call: CallId,
        /// As asked.
        file: Box<str>,
        /// The sound, or `None` where it cannot be read.
        prompt: Option<media::Prompt>,
    },
}
