//! What the loop does where more has come than one look takes.
//!
//! Owns: in which portions everything is read, how long new work is done before the next look, and that answers to
//! many are sent together.
//! Never: decides what is new work, or who is refused; the shard does.

use super::ShardLoop;
use crate::{
    ids::{Flow, Transport},
    shell::now,
};
use bytes::Bytes;
use std::time::Duration;

/// How many datagrams are read in a row. What belongs to calls that are up should not wait in the kernel behind new
/// ones; but deadlines must have their turn.
const READ_MAX: usize = 1024;
/// How long new work is done before the next look at what else has come.
const SLICE: Duration = Duration::from_millis(1);

impl ShardLoop {
    /// Reads what has come. Where that is little, it is done as it comes; otherwise it is sorted. Returns whether
    /// there may be more, and how many datagrams there were.
    pub(super) fn take_datagrams(&mut self) -> (bool, usize) {
        let mut arrived = std::mem::take(&mut self.arrived);
        let (mut is_more, mut datagrams) = self.read(&mut arrived);
        self.is_crowded |= is_more || self.shard.has_waiting();
        self.take_arrived(&mut arrived);
        while is_more && datagrams < READ_MAX {
            let (more, read) = self.read(&mut arrived);
            (is_more, datagrams) = (more, datagrams.saturating_add(read));
            self.take_arrived(&mut arrived);
        }
        self.arrived = arrived;
        (is_more, datagrams)
    }

    /// Reads a batch. Returns whether there may be more, and how many datagrams there were, with those that are
    /// thrown away at once.
    fn read(&mut self, into: &mut Vec<(Flow, Bytes)>) -> (bool, usize) {
        let Self { shard, udp, .. } = self;
        let mut needless = 0_usize;
        let is_more = udp.read(into, |datagram| {
            let is_needless = shard.is_needless(datagram);
            needless = needless.saturating_add(usize::from(is_needless));
            is_needless
        });
        self.transports.received.add(Transport::Udp.param(), needless as u64);
        (is_more, into.len().saturating_add(needless))
    }

    fn take_arrived(&mut self, arrived: &mut Vec<(Flow, Bytes)>) {
        for (flow, bytes) in arrived.drain(..) {
            self.take_message(flow, bytes);
            self.carry_out();
        }
    }

    /// Does new work for a while, then refuses what has waited for too long. Where we are behind with what is under
    /// way, that must not become more.
    pub(super) fn serve(&mut self, is_behind: bool) {
        let (began, slice) = (now(), if is_behind { Duration::ZERO } else { SLICE });
        let mut time = began;
        while time.saturating_duration_since(began) < slice && self.shard.serve_next(time) {
            self.carry_out();
            time = now();
        }
        if self.shard.has_waiting() {
            self.shard.refuse_stale(time);
            self.carry_out();
        }
    }

    /// Sends refusals together, where several of the same length go the same way.
    pub(super) fn refuse_together(&mut self) {
        let mut datagrams = std::mem::take(&mut self.departing);
        while let Some((flow, bytes)) = self.shard.poll_refusal() {
            match flow.transport {
                Transport::Udp => datagrams.push((flow, bytes)),
                Transport::Tcp | Transport::Tls => self.transmit(flow, bytes),
            }
        }
        datagrams.sort_by_key(|(flow, bytes)| (*flow, bytes.len()));
        let is_alike = |a: &(Flow, Bytes), b: &(Flow, Bytes)| (a.0, a.1.len()) == (b.0, b.1.len());
        for alike in datagrams.chunk_by(is_alike) {
            self.transmit_alike(alike);
        }
        datagrams.clear();
        self.departing = datagrams;
    }

    fn transmit_alike(&mut self, mut datagrams: &[(Flow, Bytes)]) {
        while let Some((flow, _)) = datagrams.first() {
            let Ok(sent) = self.udp.send_alike(*flow, datagrams) else { break };
            self.transports.sent.add(flow.transport.param(), sent as u64);
            datagrams = datagrams.get(sent..).unwrap_or_default();
        }
        // What is left is one, or this system or path does not take them together.
        for (flow, bytes) in datagrams {
            self.transmit(*flow, bytes.clone());
        }
    }
}
