//! The bounded way from connections to the shard. Datagrams do not take it: the shard reads them
//! itself.
//!
//! Owns: the queue, and what may be in it.
//! Never: drops a message of a connection; its peer waits meanwhile.

use super::stream::{End, Writer};
use crate::{
    ids::Flow,
    shard::{Kin, Note},
};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for the shard.
const PACKETS_MAX: usize = 8192;

/// What a connection has for the shard.
#[derive(Debug)]
pub(super) enum Packet {
    /// One message, or what should be one.
    Message {
        /// Where from.
        flow: Flow,
        /// The bytes.
        bytes: Bytes,
    },
    /// A peer has opened a connection.
    Opened {
        /// Which.
        flow: Flow,
        /// The way back.
        writer: Writer,
        /// Ends it where it is dropped.
        end: oneshot::Sender<()>,
    },
    /// Another process of an upgrade has received a message that is for this one.
    Passed {
        /// Who.
        from: Kin,
        /// Where from.
        flow: Flow,
        /// The bytes.
        bytes: Bytes,
    },
    /// Another process of an upgrade has counted something.
    Told {
        /// Who.
        from: Kin,
        /// What.
        note: Note,
    },
    /// The process that took over has something for a connection that is ours.
    Write {
        /// Which.
        flow: Flow,
        /// The bytes.
        bytes: Bytes,
    },
    /// The process before this one is gone.
    Outlived,
    /// The process that took over is gone.
    HeirGone {
        /// Whether yet another one has taken over from it.
        has_heir: bool,
    },
    /// A connection is gone, or could not be opened.
    Closed {
        /// Which.
        flow: Flow,
        /// What it leaves.
        end: End,
    },
}

/// The bounded way into the shard.
#[derive(Clone, Debug)]
pub(super) struct Ingress {
    packets: mpsc::Sender<Packet>,
}

impl Ingress {
    /// Creates the queue.
    pub(super) fn new() -> (Self, mpsc::Receiver<Packet>) {
        let (packets, queue) = mpsc::channel(PACKETS_MAX);
        (Self { packets }, queue)
    }

    /// Hands over what must not be lost; the connection waits meanwhile.
    pub(super) async fn tell(&self, packet: Packet) {
        let _ = self.packets.send(packet).await;
    }

    /// Returns whether the shard is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.packets.is_closed()
    }
}
