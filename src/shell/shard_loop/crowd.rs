//! What the loop does where more has come than one look takes.
//!
//! Owns: in which portions everything is read, how long new work is done before the next look, and that answers to
//! many are sent together.
//! Never: decides what is new work, or who is refused; the shard does.

use super::ShardLoop;
use crate::{
    ids::{Flow, Transport},
    shard::{Refusal, Refusals},
    shell::{datagrams, now},
};
use bytes::Bytes;
use std::time::Duration;

/// How many datagrams are read in a row. What belongs to calls that are up should not wait in the kernel behind new
/// ones; but deadlines must have their turn.
const READ_MAX: usize = 1024;
/// How long new work is done before the next look at what else has come. With four times as long, a call takes a tenth more
/// of the processor: as more calls are under way at once, less of them is in its caches. With a quarter, the looks cost more.
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
            if self.shard.has_enough_refusals() {
                self.refuse_together();
            }
            let (more, read) = self.read(&mut arrived);
            (is_more, datagrams) = (more, datagrams.saturating_add(read));
            self.take_arrived(&mut arrived);
        }
        self.arrived = arrived;
        (is_more, datagrams)
    }

    /// Reads a batch. Returns whether there may be more, and how many datagrams there were, with those that are done
    /// with at once: in a crowd most are new work, of which nothing need be kept, not even for a moment.
    fn read(&mut self, into: &mut Vec<(Flow, Bytes)>) -> (bool, usize) {
        let Self { shard, udp, is_crowded, .. } = self;
        let (mut aside, at) = (0_usize, now());
        let is_more = udp.read(into, |flow, datagram| {
            let is_aside = if *is_crowded {
                shard.put_aside(flow, datagram, at)
            } else {
                shard.is_needless(datagram)
            };
            aside = aside.saturating_add(usize::from(is_aside));
            is_aside
        });
        self.transports.received.add(Transport::Udp.param(), aside as u64);
        (is_more, into.len().saturating_add(aside))
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
        let mut refusals = std::mem::take(&mut self.refusals);
        self.shard.swap_refusals(&mut refusals);
        refusals.sort();
        for alike in refusals.alike() {
            self.transmit_alike(&refusals, alike);
        }
        self.refusals = refusals;
    }

    fn transmit_alike(&mut self, refusals: &Refusals, mut alike: &[Refusal]) {
        while let Some(first) = alike.first() {
            let flow = first.flow();
            let together = alike.get(..datagrams::together_max(refusals.text(first).len()));
            let together = together.unwrap_or(alike);
            if flow.transport != Transport::Udp || together.len() < 2 {
                break;
            }
            let parts = refusals.parts(together);
            if self.udp.send_alike(flow, refusals.text(first).len(), &parts).is_err() {
                break;
            }
            self.transports.sent.add(flow.transport.param(), together.len() as u64);
            alike = alike.get(together.len()..).unwrap_or_default();
        }
        // What is left is one, or this system or path does not take them together.
        for refusal in alike {
            self.transmit(refusal.flow(), Bytes::copy_from_slice(refusals.text(refusal)));
        }
    }
}
