//! What the guards of one shard remember of its calls.
//!
//! Owns: every trunk's gate.
//! Never: outlives its shard; a restart begins anew.

use super::gate::{Asking, Entry, Gate, Pacing, Turn};
use crate::ids::CallId;
use std::{collections::BTreeMap, time::Instant};

/// The guards of one shard.
#[derive(Debug, Default)]
pub struct Watch {
    gates: BTreeMap<Box<str>, Gate>,
}

impl Watch {
    /// Takes a configuration: old trunks keep their queue, new ones begin with an empty one. Who waits
    /// for a trunk that is gone must be told: returns those.
    pub fn configure<'t>(
        &mut self,
        trunks: impl Iterator<Item = (&'t str, Pacing)>,
        now: Instant,
    ) -> Vec<Turn> {
        let mut before = std::mem::take(&mut self.gates);
        for (name, pacing) in trunks {
            let mut gate = before.remove(name).unwrap_or_default();
            gate.configure(pacing);
            self.gates.insert(name.into(), gate);
        }
        let gone = before.into_values();
        gone.flat_map(|mut gate| {
            gate.configure(Pacing::default());
            std::iter::from_fn(move || gate.next_turn(0, now)).collect::<Vec<_>>()
        })
        .collect()
    }

    /// Lets a call out by a trunk, or has it wait.
    pub fn enter(&mut self, trunk: &str, asking: Asking, now: Instant) -> Entry {
        self.gates.get_mut(trunk).map_or(Entry::Go, |gate| gate.enter(asking, now))
    }

    /// Counts a call that leaves whatever there is.
    pub fn count(&mut self, trunk: &str, now: Instant) {
        if let Some(gate) = self.gates.get_mut(trunk) {
            gate.count(now);
        }
    }

    /// A call waits no longer, anywhere.
    pub fn leave(&mut self, call: CallId) {
        self.gates.values_mut().for_each(|gate| gate.leave(call));
    }

    /// Returns how many calls wait for a trunk.
    pub fn waiting(&self, trunk: &str) -> usize {
        self.gates.get(trunk).map_or(0, Gate::waiting)
    }

    /// Returns the next call whose waiting is over. `running` tells how many calls a trunk carries.
    pub fn next_turn(&mut self, running: impl Fn(&str) -> u32, now: Instant) -> Option<Turn> {
        self.gates.iter_mut().find_map(|(name, gate)| gate.next_turn(running(name), now))
    }

    /// Returns when [`Self::next_turn`] has something to say.
    pub fn poll_timeout(&self, running: impl Fn(&str) -> u32) -> Option<Instant> {
        self.gates.iter().filter_map(|(name, gate)| gate.poll_timeout(running(name))).min()
    }
}
