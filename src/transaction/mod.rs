//! The transaction layer: every request gets through once, or its sender learns that it did not
//! (RFC 3261 17, RFC 6026).
//!
//! Owns: the four machines, the table that matches messages to them, and what needs no user: 100
//! (Trying), ACK of a refusal, the answer to a CANCEL and to a merged request.
//! Never: knows a dialog, chooses a destination, reads a clock.
//!
//! A machine is told what happened and the time, and answers with effects. [`Layer`] finds the
//! machine of a message, carries out its effects and keeps its deadlines.
#![deny(
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    clippy::arithmetic_side_effects
)]

mod client;
mod discard;
mod event;
mod follow_up;
mod invite_client;
mod invite_server;
mod layer;
mod matching;
mod other_client;
mod other_server;
mod received;
mod server;
pub mod timer;

pub use client::ClientId;
pub use discard::{Discard, Discards};
pub use event::{Event, Output};
pub use layer::{Layer, SERVERS_MAX};
pub use server::ServerId;

use crate::ids::Transport;
use bytes::Bytes;

/// Whether the transport below retransmits for us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reliability {
    /// TCP, TLS.
    Reliable,
    /// UDP.
    Unreliable,
}

impl From<Transport> for Reliability {
    fn from(transport: Transport) -> Self {
        if transport.is_reliable() { Self::Reliable } else { Self::Unreliable }
    }
}

/// What a status means to a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Class {
    /// 100 to 199.
    Provisional,
    /// 200 to 299.
    Success,
    /// 300 to 699.
    Refusal,
}

impl Class {
    fn of(status: u16) -> Self {
        match status {
            0..=199 => Self::Provisional,
            200..=299 => Self::Success,
            300.. => Self::Refusal,
        }
    }
}

/// A response, already serialized.
#[derive(Clone, Debug)]
struct Reply {
    class: Class,
    bytes: Bytes,
}

/// What can happen to a client transaction, time aside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ClientInput {
    /// The network: a response with our branch.
    Response(Class),
    /// The user: CANCEL, as soon as that is allowed. Only an INVITE can be cancelled.
    Cancel,
    /// The transport: the request did not get through.
    SendFailed,
    /// The transport: the connection stood, and has closed. Another one can be opened.
    Severed,
}

/// What a client machine asks of its layer, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
enum ClientEffect {
    /// Send the request (again).
    Send(Bytes),
    /// Send the ACK for the refusal that is being handled (RFC 3261 17.1.1.3).
    SendAck,
    /// Start the transaction of the CANCEL (RFC 3261 9.1).
    SendCancel,
    /// Pass the response that is being handled to the user.
    PassUp,
    /// Tell the user that nobody answered.
    Timeout,
    /// Tell the user that the transport failed.
    SendFailed,
    /// The response that is being handled is late or repeated: nobody needs it.
    Absorb,
}

/// What can happen to a server transaction, time aside.
#[derive(Debug)]
enum ServerInput {
    /// The network: the same request again.
    Retransmission,
    /// The network: an ACK that matches an INVITE.
    Ack,
    /// The user: a response to send.
    Reply(Reply),
    /// The transport: there is no way left to the client.
    SendFailed,
}

/// What a server machine asks of its layer, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
enum ServerEffect {
    /// Send this response (again).
    Send(Bytes),
    /// Pass the ACK that is being handled to the user: it belongs to a 2xx.
    PassUpAck,
    /// Tell the user that the client never acknowledged the refusal.
    NeverAcked,
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "times of a test, not of a peer")]
mod bench;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;
