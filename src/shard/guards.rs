//! Calls that wait for their turn at a trunk, and what calls by trunks have used of budgets.
//!
//! Owns: waking who waits; the view of the budgets.
//! Never: decides whose turn it is; the trunk's gate does.

use super::{Core, Shard};
use crate::{
    config::Config,
    guard::{Account, Budget, Turn, Use},
    observe::status::{BudgetRow, Used},
};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// How long we leave a free place to those who wait in the process before us, since we hear of it in the same moment:
/// they have waited longer.
const GIVES_WAY: Duration = Duration::from_millis(100);

impl Shard {
    /// Takes the configuration's paces. Who waits for a trunk that is gone goes on without it.
    pub(super) fn configure_guards(&mut self, now: Instant) {
        let config = self.core.shared.config.clone();
        let paces = config.trunks.iter().map(|(name, trunk)| (&**name, trunk.pacing()));
        for turn in self.core.watch.configure(paces, &accounts(&config), now) {
            self.take_turn(turn, now);
        }
    }

    /// Wakes every call whose waiting is over.
    pub(super) fn fire_queues(&mut self, now: Instant) {
        if self.core.queue_timeout().is_none_or(|at| now < at) {
            self.family.gives_way_until = None;
            return;
        }
        if self.family.predecessor_is_there()
            && now < *self.family.gives_way_until.get_or_insert(now + GIVES_WAY)
        {
            return;
        }
        self.family.gives_way_until = None;
        while let Some(turn) = self.core.next_turn(now) {
            self.take_turn(turn, now);
            self.settle(now);
        }
    }

    /// Returns when somebody's waiting is over.
    pub(super) fn queue_timeout(&self) -> Option<Instant> {
        self.family.gives_way_until.or_else(|| self.core.queue_timeout())
    }

    /// Lists who has a budget, and who has called by a trunk.
    pub fn budgets(&self, now: Instant) -> Vec<BudgetRow> {
        let config = &self.core.shared.config;
        let users = config.users.iter();
        let users = users.map(|(name, user)| (Account::User(name.clone()), user.guard.budget));
        let trunks = config.trunks.iter();
        let trunks = trunks.map(|(name, trunk)| (Account::Trunk(name.clone()), trunk.guard.budget));
        let rows = users.chain(trunks).map(|(account, budget)| {
            let used = self.core.watch.used(&account, now);
            row(&account, &budget, &used)
        });
        rows.filter(|row| row.each().iter().any(|u| u.used > 0 || u.limit.is_some())).collect()
    }

    /// Forgets what was used of a budget; returns whether there was anything.
    pub fn reset_budget(&mut self, account: &Account) -> bool {
        self.core.watch.reset(account)
    }

    fn take_turn(&mut self, turn: Turn, now: Instant) {
        self.step(turn.call, now, |call, wire| call.on_turn(turn, wire));
    }
}

fn row(account: &Account, budget: &Budget, used: &Use) -> BudgetRow {
    let of = |used, limit| Used { used, limit };
    BudgetRow {
        kind: account.kind().to_owned(),
        name: account.name().to_owned(),
        calls_per_hour: of(used.calls_hour, budget.calls_per_hour),
        calls_per_day: of(used.calls_day, budget.calls_per_day),
        minutes_per_hour: of(used.minutes_hour, budget.minutes_per_hour),
        minutes_per_day: of(used.minutes_day, budget.minutes_per_day),
        countries_per_day: of(used.countries_day, budget.countries_per_day),
    }
}

/// Whose budgets there are.
fn accounts(config: &Config) -> BTreeSet<Account> {
    let users = config.users.keys().cloned().map(Account::User);
    users.chain(config.trunks.keys().cloned().map(Account::Trunk)).collect()
}

impl Core {
    fn next_turn(&mut self, now: Instant) -> Option<Turn> {
        let trunks = &self.trunks;
        let running = |name: &str| trunks.calls(name);
        self.watch.next_turn(running, now)
    }

    fn queue_timeout(&self) -> Option<Instant> {
        let running = |name: &str| self.trunks.calls(name);
        self.watch.poll_timeout(running)
    }
}
