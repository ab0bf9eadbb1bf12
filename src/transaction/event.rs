//! What the layer asks of its owner.
//!
//! Owns: the vocabulary.
//! Never: acts.

use super::{ClientId, ServerId};
use crate::{ids::Flow, sip::Message};
use bytes::Bytes;

/// What the owner of the layer must do, in order.
#[derive(Clone, Debug)]
pub enum Output {
    /// Hand these bytes to the transport.
    Send {
        /// Where to.
        flow: Flow,
        /// One message.
        bytes: Bytes,
    },
    /// Tell the transaction user.
    Event(Event),
}

/// What the transaction user gets to know.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new request, other than ACK and CANCEL. An INVITE was answered with 100 already.
    Request {
        /// What to answer with [`super::Layer::respond`], once and finally.
        tx: ServerId,
        /// The request.
        message: Message,
        /// Where it came from.
        flow: Flow,
    },
    /// The caller no longer wants an INVITE that has no final response yet: the user answers it with
    /// 487. The CANCEL itself is answered, and its copies too; only above the cap are they told.
    Cancel {
        /// The INVITE.
        tx: ServerId,
        /// The CANCEL.
        message: Message,
    },
    /// An ACK that belongs to a 2xx, or to nothing: for the dialog.
    Ack {
        /// The ACK.
        message: Message,
        /// Where it came from.
        flow: Flow,
    },
    /// A refused caller never acknowledged (timer H), or is gone. Nothing is left to do.
    NeverAcked {
        /// The INVITE.
        tx: ServerId,
    },
    /// A response to a request of ours: provisional, the final one, and each further 2xx to an
    /// INVITE, be it a copy or another branch's (RFC 6026 7.2).
    Response {
        /// The request.
        tx: ClientId,
        /// The response.
        message: Message,
        /// Where it came from.
        flow: Flow,
    },
    /// Nobody answered (timer B or F), or a cancelled INVITE went without a final response.
    Timeout {
        /// The request.
        tx: ClientId,
    },
    /// The request could not be sent.
    SendFailed {
        /// The request.
        tx: ClientId,
    },
}
