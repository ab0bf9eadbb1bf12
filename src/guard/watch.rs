//! What the guards of one shard remember of its calls.
//!
//! Owns: every trunk's gate; what users and trunks have used of their budgets.
//! Never: outlives its shard; a restart begins anew.

use super::{
    Refusal,
    budget::{Account, Budget, Ledger, Use},
    gate::{Asking, Entry, Gate, Pacing, Turn},
};
use crate::{
    dialplan::Country,
    ids::{CallId, LegId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// The guards of one shard.
#[derive(Debug, Default)]
pub struct Watch {
    gates: BTreeMap<Box<str>, Gate>,
    ledgers: BTreeMap<Account, Ledger>,
    /// Who pays for each leg.
    legs: BTreeMap<LegId, Vec<Account>>,
}

impl Watch {
    /// Takes a configuration: old trunks keep their queue, new ones begin with an empty one; who is in
    /// `accounts` keeps what it has used, others are forgotten. Who waits for a trunk that is gone must
    /// be told: returns those.
    pub fn configure<'t>(
        &mut self,
        trunks: impl Iterator<Item = (&'t str, Pacing)>,
        accounts: &BTreeSet<Account>,
        now: Instant,
    ) -> Vec<Turn> {
        self.ledgers.retain(|account, _| accounts.contains(account));
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
        let waited_for = self.gates.iter().filter(|(_, gate)| gate.waiting() > 0);
        waited_for.filter_map(|(name, gate)| gate.poll_timeout(running(name))).min()
    }

    /// Returns which limit does not allow another call to `country`.
    pub fn check(
        &self,
        account: &Account,
        budget: &Budget,
        country: Option<Country>,
        now: Instant,
    ) -> Result<(), Refusal> {
        // Nothing used may be too much: a limit may be zero.
        let ledger = || Ledger::new(now);
        match self.ledgers.get(account) {
            Some(ledger) => ledger.check(account, budget, country, now),
            None => ledger().check(account, budget, country, now),
        }
    }

    /// Counts a call that leaves, for everybody who pays. Returns whether it is the first call of the
    /// first of them to its country.
    pub fn charge(
        &mut self,
        leg: LegId,
        accounts: Vec<Account>,
        country: Option<Country>,
        now: Instant,
    ) -> bool {
        let mut is_first = vec![];
        for account in &accounts {
            let ledger = self.ledgers.entry(account.clone()).or_insert_with(|| Ledger::new(now));
            is_first.push(ledger.charge(country, now));
        }
        self.legs.insert(leg, accounts);
        is_first.first().copied().unwrap_or(false)
    }

    /// Another leg takes a leg's place in the same call, which pays once.
    pub fn pass_on(&mut self, from: LegId, to: LegId) {
        if let Some(accounts) = self.legs.remove(&from) {
            self.legs.insert(to, accounts);
        }
    }

    /// A leg was answered; nothing happens if nobody pays for it.
    pub fn answered(&mut self, leg: LegId, now: Instant) {
        for account in self.legs.get(&leg).into_iter().flatten() {
            if let Some(ledger) = self.ledgers.get_mut(account) {
                ledger.answered(leg, now);
            }
        }
    }

    /// A leg is gone.
    pub fn ended(&mut self, leg: LegId, now: Instant) {
        for account in self.legs.remove(&leg).unwrap_or_default() {
            if let Some(ledger) = self.ledgers.get_mut(&account) {
                ledger.ended(leg, now);
            }
        }
    }

    /// Returns what an account has used.
    pub fn used(&self, account: &Account, now: Instant) -> Use {
        self.ledgers.get(account).map_or_else(Use::default, |ledger| ledger.used(now))
    }

    /// Forgets what an account has used; its running calls are counted no more. Returns whether there
    /// was anything.
    pub fn reset(&mut self, account: &Account) -> bool {
        self.ledgers.remove(account).is_some()
    }

    /// Returns whether nobody waits, and nobody pays for a call that runs.
    pub fn is_quiet(&self) -> bool {
        self.legs.is_empty()
            && self.gates.values().all(|gate| gate.waiting() == 0)
            && self.ledgers.values().all(Ledger::is_quiet)
    }
}
