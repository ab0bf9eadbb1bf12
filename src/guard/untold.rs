//! What guards have counted and another process has not heard of yet, in as few words as it can be said.
//!
//! Owns: when calls left, the news of each leg, and what was used by calls that have begun and ended unheard of.
//! Never: grows with calls that are over, however long nobody listens; or forgets one.

use super::{
    budget::{Account, Ledger},
    gate::Rate,
    note::Note,
};
use crate::ids::LegId;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Longer than any window of a budget: what is counted after the first of it falls into slots of its own.
const LONG: Duration = Duration::from_secs(25 * 3600);

/// What the guards of another process are to hear.
#[derive(Debug, Default)]
pub struct Untold {
    /// By trunk, no more than a rate can ask for.
    left: BTreeMap<Box<str>, VecDeque<Instant>>,
    /// By leg, in order. Whoever hears the first hears the others.
    legs: BTreeMap<LegId, VecDeque<(Instant, Note)>>,
    /// Of calls that the other one need not hear of any more.
    spent: BTreeMap<Account, Ledger>,
}

impl Untold {
    /// Adds what was counted at `at`.
    pub fn add(&mut self, note: &Note, at: Instant) {
        match note {
            Note::Left { trunk } => {
                let left = self.left.entry(trunk.clone()).or_default();
                left.push_back(at);
                if left.len() > usize::from(Rate::CALLS_MAX) {
                    left.pop_front();
                }
            }
            Note::Spent { account, spent } => self.ledger(account, at).add(spent, at),
            Note::PaidBy { leg, .. } | Note::Charged { leg, .. } | Note::Answered { leg } => {
                self.legs.entry(*leg).or_default().push_back((at, note.clone()));
            }
            Note::PassedOn { from, to } => self.pass_on(*from, *to, at),
            Note::Ended { leg } => self.end(*leg, at),
        }
    }

    /// Takes the next thing to say, and when it was.
    pub fn next(&mut self, now: Instant) -> Option<(Instant, Note)> {
        if let Some(mut entry) = self.left.first_entry() {
            let (trunk, left) = (entry.key().clone(), entry.get_mut().pop_front());
            if entry.get().is_empty() {
                entry.remove();
            }
            return left.map(|at| (at, Note::Left { trunk }));
        }
        if let Some((account, ledger)) = self.spent.pop_first() {
            return Some((now, Note::Spent { account, spent: ledger.spent(now) }));
        }
        let mut entry = self.legs.first_entry()?;
        let next = entry.get_mut().pop_front();
        if entry.get().is_empty() {
            entry.remove();
        }
        next
    }

    fn ledger(&mut self, account: &Account, at: Instant) -> &mut Ledger {
        let begin = at.checked_sub(LONG).unwrap_or(at);
        self.spent.entry(account.clone()).or_insert_with(|| Ledger::new(begin))
    }

    /// A leg that takes another one's place takes what there is to say of it.
    fn pass_on(&mut self, from: LegId, to: LegId, at: Instant) {
        let mut notes = self.legs.remove(&from).unwrap_or_default();
        match notes.back_mut() {
            Some((
                _,
                Note::Charged { leg, .. }
                | Note::PaidBy { leg, .. }
                | Note::PassedOn { to: leg, .. },
            )) => *leg = to,
            Some((
                _,
                Note::Left { .. } | Note::Spent { .. } | Note::Answered { .. } | Note::Ended { .. },
            ))
            | None => notes.push_back((at, Note::PassedOn { from, to })),
        }
        self.legs.insert(to, notes);
    }

    /// Of a leg that began unheard of, only what it used is left to say.
    fn end(&mut self, leg: LegId, at: Instant) {
        let mut notes = self.legs.remove(&leg).unwrap_or_default();
        let Some((charged_at, Note::Charged { accounts, country, .. })) = notes.front() else {
            notes.push_back((at, Note::Ended { leg }));
            self.legs.insert(leg, notes);
            return;
        };
        let is_answer = |(_, note): &&(Instant, Note)| matches!(note, Note::Answered { .. });
        let answered_at = notes.iter().find(is_answer).map(|(at, _)| *at);
        for account in accounts {
            let ledger = self.ledger(account, *charged_at);
            ledger.charge(*country, *charged_at);
            if let Some(answered_at) = answered_at {
                ledger.answered(leg, answered_at);
                ledger.ended(leg, at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dialplan::Country,
        guard::{Pacing, Watch},
        ids::{CallId, Entropy, ShardId},
    };
    use std::collections::BTreeSet;

    const TRUNK: &str = "carrier";

    fn leg(n: u64) -> LegId {
        LegId::new(ShardId(0), n)
    }

    fn accounts() -> Vec<Account> {
        vec![Account::User("1001".into()), Account::Trunk(TRUNK.into())]
    }

    fn watch(now: Instant) -> Watch {
        let mut watch = Watch::default();
        let rate = Rate::parse("7/m");
        let pacing = Pacing { rate, calls_max: None, queue_for: None, queue_max: 0 };
        watch.configure([(TRUNK, pacing)].into_iter(), &BTreeSet::from_iter(accounts()), now);
        watch
    }

    /// What one counts, and another hears now and then.
    struct Pair {
        here: Watch,
        untold: Untold,
        there: Watch,
    }

    impl Pair {
        fn new(now: Instant) -> Self {
            let mut pair = Self { here: watch(now), untold: Untold::default(), there: watch(now) };
            pair.here.journal.keep(true);
            pair
        }

        fn note(&mut self, now: Instant) {
            let notes = self.here.journal.take();
            notes.iter().for_each(|note| self.untold.add(note, now));
        }

        /// Tells so much at most.
        fn tell(&mut self, most: usize, now: Instant) {
            for _ in 0..most {
                let Some((at, note)) = self.untold.next(now) else { return };
                self.there.hear(&note, at);
            }
        }

        fn assert_same(&self, now: Instant) {
            for account in accounts() {
                assert_eq!(self.there.used(&account, now), self.here.used(&account, now));
            }
            assert_eq!(self.there.is_quiet(), self.here.is_quiet());
            let departures = |watch: &Watch| -> Vec<Instant> {
                let notes = watch.notes(now).into_iter();
                let left = notes.filter(|(_, note)| matches!(note, Note::Left { .. }));
                left.map(|(at, _)| at).collect()
            };
            assert_eq!(departures(&self.there), departures(&self.here));
        }
    }

    /// Calls come, fail over, are answered and end, while the other one listens at random, for a word or for all.
    #[test]
    fn whoever_listens_now_and_then_has_counted_the_same_in_the_end() {
        let start = crate::sim::epoch();
        for seed in 0..200 {
            let mut entropy = Entropy::from_u64(seed);
            let mut pair = Pair::new(start);
            let mut live: Vec<(u64, bool)> = vec![];
            let mut now = start;
            for n in 0..100 {
                now += Duration::from_secs(entropy.below(4));
                let picked = usize::try_from(entropy.below(5)).unwrap();
                match (entropy.below(5), live.get_mut(picked)) {
                    (0 | 1, _) | (_, None) => {
                        pair.here.count(TRUNK, now);
                        let country = [Some(Country::US), None][usize::from(n % 3 == 0)];
                        pair.here.charge(leg(n), accounts(), country, now);
                        live.push((n, false));
                    }
                    (2, Some((of, false))) => {
                        pair.here.pass_on(leg(*of), leg(1000 + n));
                        *of = 1000 + n;
                    }
                    (3, Some((of, is_answered))) => {
                        pair.here.answered(leg(*of), now);
                        *is_answered = true;
                    }
                    (_, Some(_)) => pair.here.ended(leg(live.remove(picked).0), now),
                }
                pair.note(now);
                if entropy.below(6) == 0 {
                    pair.tell(usize::try_from(entropy.below(9)).unwrap(), now);
                }
            }
            pair.tell(usize::MAX, now);
            assert!(pair.untold.next(now).is_none(), "{seed}");
            pair.assert_same(now);
            for (of, _) in live {
                pair.here.ended(leg(of), now);
            }
            pair.note(now);
            pair.tell(usize::MAX, now);
            pair.assert_same(now);
            assert!(pair.there.is_quiet(), "{seed}");
        }
    }

    /// A hundred thousand calls in half an hour, and nobody listens.
    #[test]
    fn what_is_kept_is_bounded() {
        let start = crate::sim::epoch();
        let mut pair = Pair::new(start);
        let mut now = start;
        pair.here.charge(leg(u64::MAX >> 8), accounts(), None, now);
        pair.note(now);
        pair.tell(usize::MAX, now);
        for n in 0..100_000 {
            now += Duration::from_millis(20);
            pair.here.count(TRUNK, now);
            pair.here.charge(leg(2 * n), accounts(), Some(Country::US), now);
            pair.here.pass_on(leg(2 * n), leg(2 * n + 1));
            pair.here.answered(leg(2 * n + 1), now);
            pair.note(now);
            let end = now + Duration::from_secs(3);
            pair.here.ended(leg(2 * n + 1), end);
            pair.note(end);
            let untold = &pair.untold;
            assert!(untold.legs.is_empty() && untold.spent.len() <= 2 && untold.left.len() <= 1);
        }
        assert!(pair.untold.left[TRUNK].len() <= usize::from(Rate::CALLS_MAX));
        pair.here.ended(leg(u64::MAX >> 8), now);
        pair.note(now);
        pair.tell(usize::MAX, now + Duration::from_secs(3));
        pair.assert_same(now + Duration::from_secs(3));
        let asking = crate::guard::Asking { call: CallId(1), running: 0, may_wait: false };
        assert_ne!(pair.there.enter(TRUNK, asking, now), crate::guard::Entry::Go);
    }
}
