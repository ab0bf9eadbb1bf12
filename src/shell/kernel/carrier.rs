//! What one worker has the kernel carry.
//!
//! Owns: which of its legs' packets are in the table, and when their counts were read.
//! Never: reads a packet.

use super::{
    KernelError, Program,
    program::Table,
    ways::{Way, Ways},
};
use crate::media::{Command, Worker};
use std::{
    collections::BTreeMap,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

/// Each flow's counts are read about once in this time, some of them at each step.
const ROUND: Duration = Duration::from_secs(1);
const STEPS: u32 = 20;

/// One worker's flows in the kernel.
#[derive(Debug)]
pub(in crate::shell) struct Carrier {
    table: Table,
    ways: Ways,
    dscp: u8,
    /// By slot.
    carried: BTreeMap<usize, Carried>,
    /// Whose turn it is to be read.
    next: usize,
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Carried {
    /// The leg's own port, under which the table has it.
    port: u16,
    ends: (SocketAddrV4, SocketAddrV4),
    way: Way,
}

impl Carrier {
    /// `dscp` is the code point of packets.
    pub(in crate::shell) fn new(program: &Arc<Program>, dscp: u8) -> Result<Self, KernelError> {
        Ok(Self {
            table: Table::of(program)?,
            ways: Ways::default(),
            dscp,
            carried: BTreeMap::new(),
            next: 0,
            due: None,
        })
    }

    /// Returns how many flows the kernel carries.
    pub(in crate::shell) fn flows(&self) -> usize {
        self.carried.len()
    }

    /// Returns when [`Self::poll`] wants to be called.
    pub(in crate::shell) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Lets the kernel carry a leg's packets, if the worker and the routes allow it.
    pub(in crate::shell) fn offload(&mut self, worker: &mut Worker, slot: usize, now: Instant) {
        let Some(flow) = worker.flow(slot) else { return worker.not_offloaded(slot) };
        let ends = (flow.source, flow.target);
        match self.ways.way(ends, now) {
            Some(way) if self.table.put(&flow, way, self.dscp) => {
                let carried = Carried { port: flow.local.port(), ends, way };
                self.carried.insert(slot, carried);
                self.due = self.due.or(Some(now + ROUND / STEPS));
                worker.offloaded(&flow);
            }
            Some(_) | None => worker.not_offloaded(slot),
        }
    }

    /// Takes back what a command disturbs.
    pub(in crate::shell) fn obey(&mut self, worker: &mut Worker, command: &Command, now: Instant) {
        if self.carried.is_empty() {
            return;
        }
        let disturbed: Vec<_> = worker.disturbed_by(command).collect();
        for slot in disturbed {
            self.reclaim(worker, slot, now);
        }
    }

    /// Takes back a leg's packets, if this one of them counts: it has come to us.
    pub(in crate::shell) fn meet(
        &mut self,
        worker: &mut Worker,
        (slot, from): (usize, SocketAddr),
        packet: &[u8],
        now: Instant,
    ) {
        if self.carried.contains_key(&slot) && worker.is_disturbed_by(slot, from, packet) {
            self.reclaim(worker, slot, now);
        }
    }

    /// Takes back a leg's packets.
    pub(in crate::shell) fn reclaim(&mut self, worker: &mut Worker, slot: usize, now: Instant) {
        let Some(carried) = self.carried.remove(&slot) else { return };
        let progress = self.table.read(carried.port, now);
        self.table.remove(carried.port);
        if let Some(progress) = progress {
            worker.absorb(slot, &progress);
        }
        worker.reclaimed(slot);
    }

    /// Forgets all legs: they are gone.
    pub(in crate::shell) fn clear(&mut self) {
        for carried in std::mem::take(&mut self.carried).into_values() {
            self.table.remove(carried.port);
        }
    }

    /// Reads the counts of those flows whose turn it is, and takes back what goes another way by now.
    pub(in crate::shell) fn poll(&mut self, worker: &mut Worker, now: Instant) {
        if self.due.is_none_or(|at| at > now) {
            return;
        }
        let steps = usize::try_from(STEPS).unwrap_or(1);
        let share = self.carried.len().div_ceil(steps);
        let after = self.carried.range(self.next..);
        let before = self.carried.range(..self.next);
        let turn: Vec<_> =
            after.chain(before).take(share).map(|(slot, carried)| (*slot, *carried)).collect();
        for (slot, carried) in &turn {
            match self.table.read(carried.port, now) {
                Some(progress) if self.ways.way(carried.ends, now) == Some(carried.way) => {
                    worker.absorb(*slot, &progress);
                }
                Some(_) | None => self.reclaim(worker, *slot, now),
            }
        }
        self.next = turn.last().map_or(0, |(slot, _)| slot.saturating_add(1));
        self.due = (!self.carried.is_empty()).then(|| now + ROUND / STEPS);
    }
}

impl Drop for Carrier {
    /// The table outlives one worker.
    fn drop(&mut self) {
        self.clear();
    }
}
