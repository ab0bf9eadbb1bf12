//! Calls that wait for their turn at a trunk.
//!
//! Owns: waking them.
//! Never: decides whose turn it is; the trunk's gate does.

use super::{Core, Shard};
use crate::guard::Turn;
use std::time::Instant;

impl Shard {
    /// Takes the configuration's paces. Who waits for a trunk that is gone goes on without it.
    pub(super) fn configure_guards(&mut self, now: Instant) {
        let config = self.core.shared.config.clone();
        let paces = config.trunks.iter().map(|(name, trunk)| (&**name, trunk.pacing()));
        for turn in self.core.watch.configure(paces, now) {
            self.take_turn(turn, now);
        }
    }

    /// Wakes every call whose waiting is over.
    pub(super) fn fire_queues(&mut self, now: Instant) {
        while let Some(turn) = self.core.next_turn(now) {
            self.take_turn(turn, now);
            self.settle(now);
        }
    }

    fn take_turn(&mut self, turn: Turn, now: Instant) {
        self.step(turn.call, now, |call, wire| call.on_turn(turn, wire));
    }
}

impl Core {
    fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        let trunks = &self.trunks;
        let running = |name: &str| trunks.calls(name);
        self.watch.next_turn(running, now)
    }

    /// Returns when somebody's waiting is over.
    pub(super) fn queue_timeout(&self) -> Option<Instant> {
        let running = |name: &str| self.trunks.calls(name);
        self.watch.poll_timeout(running)
    }
}
