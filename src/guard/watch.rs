//! What the guards of one shard remember of its calls.
//!
//! Owns: every trunk's gate; what users and trunks have used of their budgets.
//! Never: outlives its node; a restart begins anew, an upgrade does not.

use super::{
    Refusal,
    budget::{Account, Budget, Ledger, Use},
    gate::{Asking, Entry, Gate, Pacing, Turn},
    note::{Journal, Note},
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
    /// For the other processes of an upgrade.
    pub journal: Journal,
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
        let entry = self.gates.get_mut(trunk).map_or(Entry::Go, |gate| gate.enter(asking, now));
        if entry == Entry::Go {
            self.journal.note(|| Note::Left { trunk: trunk.into() });
        }
        entry
    }

    /// Counts a call that leaves whatever there is.
    pub fn count(&mut self, trunk: &str, now: Instant) {
        if let Some(gate) = self.gates.get_mut(trunk) {
            gate.count(now);
            self.journal.note(|| Note::Left { trunk: trunk.into() });
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
        let mut gates = self.gates.iter_mut();
        let next = gates.find_map(|(name, gate)| Some((name, gate.next_turn(running(name), now)?)));
        let (trunk, turn) = next?;
        if turn.outcome.is_ok() {
            self.journal.note(|| Note::Left { trunk: trunk.clone() });
        }
        Some(turn)
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
        let charged = || Note::Charged { leg, accounts: accounts.clone(), country };
        self.journal.note(charged);
        let mut is_first = None;
        for account in &accounts {
            if !self.ledgers.contains_key(account) {
                self.ledgers.insert(account.clone(), Ledger::new(now));
            }
            let charged = self.ledgers.get_mut(account).map(|ledger| ledger.charge(country, now));
            is_first = is_first.or(charged);
        }
        self.legs.insert(leg, accounts);
        is_first.unwrap_or(false)
    }

    /// Another leg takes a leg's place in the same call, which pays once.
    pub fn pass_on(&mut self, from: LegId, to: LegId) {
        if let Some(accounts) = self.legs.remove(&from) {
            self.legs.insert(to, accounts);
            self.journal.note(|| Note::PassedOn { from, to });
        }
    }

    /// A leg was answered; nothing happens if nobody pays for it.
    pub fn answered(&mut self, leg: LegId, now: Instant) {
        let Some(accounts) = self.legs.get(&leg) else { return };
        self.journal.note(|| Note::Answered { leg });
        for account in accounts {
            if let Some(ledger) = self.ledgers.get_mut(account) {
                ledger.answered(leg, now);
            }
        }
    }

    /// A leg is gone.
    pub fn ended(&mut self, leg: LegId, now: Instant) {
        let Some(accounts) = self.legs.remove(&leg) else { return };
        self.journal.note(|| Note::Ended { leg });
        for account in accounts {
            if let Some(ledger) = self.ledgers.get_mut(&account) {
                ledger.ended(leg, now);
            }
        }
    }

    /// Returns everything that another process must know to go on, and when it was.
    pub fn notes(&self, now: Instant) -> Vec<(Instant, Note)> {
        let left = self.gates.iter().flat_map(|(trunk, gate)| {
            gate.departures().map(|at| (at, Note::Left { trunk: trunk.clone() }))
        });
        let spent = self.ledgers.iter().map(|(account, ledger)| {
            (now, Note::Spent { account: account.clone(), spent: ledger.spent(now) })
        });
        let paid = self.legs.iter();
        let paid = paid.map(|(leg, by)| (now, Note::PaidBy { leg: *leg, accounts: by.clone() }));
        left.chain(spent).chain(paid).collect()
    }

    /// Counts what another process counted at `now`.
    pub fn hear(&mut self, note: &Note, now: Instant) {
        // It is known where it comes from.
        let journal = std::mem::take(&mut self.journal);
        match note {
            Note::Left { trunk } => self.count(trunk, now),
            Note::Spent { account, spent } => {
                let before = self.ledgers.remove(account);
                let ledger = match before {
                    Some(mut ledger) => {
                        ledger.add(spent, now);
                        ledger
                    }
                    None => Ledger::take_up(spent, now),
                };
                self.ledgers.insert(account.clone(), ledger);
            }
            Note::PaidBy { leg, accounts } => _ = self.legs.insert(*leg, accounts.clone()),
            Note::Charged { leg, accounts, country } => {
                self.charge(*leg, accounts.clone(), *country, now);
            }
            Note::PassedOn { from, to } => self.pass_on(*from, *to),
            Note::Answered { leg } => self.answered(*leg, now),
            Note::Ended { leg } => self.ended(*leg, now),
        }
        self.journal = journal;
    }

    /// Ends those legs that nobody will tell the end of.
    pub fn end_all(&mut self, is_meant: impl Fn(LegId) -> bool, now: Instant) {
        let legs: Vec<_> = self.legs.keys().copied().filter(|leg| is_meant(*leg)).collect();
        legs.into_iter().for_each(|leg| self.ended(leg, now));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{guard::Rate, ids::ShardId};
    use std::time::Duration;

    const TRUNK: &str = "carrier";

    fn watch(now: Instant) -> Watch {
        let mut watch = Watch::default();
        let rate = Rate::parse("2/m");
        let pacing = Pacing { rate, calls_max: None, queue_for: None, queue_max: 0 };
        watch.configure([(TRUNK, pacing)].into_iter(), &BTreeSet::new(), now);
        watch
    }

    fn asking() -> Asking {
        Asking { call: CallId::new(ShardId(0), 1), running: 0, may_wait: false }
    }

    /// What one process counts before and after the other begins, both have counted in the end, once.
    #[test]
    fn two_processes_count_the_same() {
        let start = crate::sim::epoch();
        let at = |seconds| start + Duration::from_secs(seconds);
        let leg = |n| LegId::new(ShardId(0), n);
        let account = Account::User("1001".into());
        let mut old = watch(start);
        assert_eq!(old.enter(TRUNK, asking(), at(1)), Entry::Go);
        old.charge(leg(1), vec![account.clone()], None, at(1));
        old.answered(leg(1), at(3));
        assert!(old.journal.take().is_empty(), "there is nobody to tell");

        let mut new = watch(at(10));
        old.notes(at(10)).iter().for_each(|(at, note)| new.hear(note, *at));
        old.journal.keep(true);
        new.journal.keep(true);
        assert_eq!(new.used(&account, at(63)), old.used(&account, at(63)));
        assert_eq!(new.used(&account, at(63)).minutes_hour, 1);
        // Another call, whose first leg was not answered, goes on when this one ends.
        old.count(TRUNK, at(20));
        old.charge(leg(2), vec![account.clone()], None, at(20));
        old.pass_on(leg(2), leg(3));
        old.answered(leg(3), at(21));
        old.ended(leg(1), at(22));
        let notes = old.journal.take();
        assert_eq!(notes.len(), 5, "{notes:?}");
        notes.iter().for_each(|note| new.hear(note, at(22)));
        assert!(new.journal.take().is_empty(), "nothing is told back");
        assert_eq!(new.used(&account, at(80)), old.used(&account, at(80)));
        assert_eq!(new.used(&account, at(80)).calls_hour, 2);
        // Two have left within the minute.
        assert_eq!(new.enter(TRUNK, asking(), at(60)), Entry::Refused(Refusal::Rate));
        assert_eq!(new.enter(TRUNK, asking(), at(62)), Entry::Go);
        new.journal.take().iter().for_each(|note| old.hear(note, at(62)));
        assert_eq!(old.enter(TRUNK, asking(), at(79)), Entry::Refused(Refusal::Rate));
        // The old one dies.
        assert!(!new.is_quiet());
        new.end_all(|leg| leg.shard() == ShardId(0), at(90));
        assert!(new.is_quiet());
    }
}
