//! How much may be called: calls, minutes and countries in an hour and a day, for a user or a trunk.
//!
//! Owns: the limits, and what has been used of them in sliding windows.
//! Never: counts an emergency call, or grows with the number of calls that are over.

use super::{
    Refusal,
    note::{ago_ms, before},
};
use crate::{dialplan::Country, ids::LegId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    fmt,
    time::{Duration, Instant},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A window is this many slots and the one that runs: an hour is sixty to sixty-one minutes.
const SLOTS: u64 = 60;

/// `budget = { calls_per_hour, ... }`; `None`: without a limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Budget {
    /// Calls that left in an hour, answered or not.
    pub calls_per_hour: Option<u32>,
    /// The same in a day.
    pub calls_per_day: Option<u32>,
    /// Minutes talked in an hour, running calls included.
    pub minutes_per_hour: Option<u32>,
    /// The same in a day.
    pub minutes_per_day: Option<u32>,
    /// Different countries in a day.
    pub countries_per_day: Option<u32>,
}

/// What is done with calls out of hours.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OutOfHours {
    /// They are refused.
    #[default]
    Refuse,
    /// They leave, and the log warns.
    Alarm,
}

/// `hours` and `out_of_hours`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opening {
    /// A name of the dialplan's hours.
    pub hours: Box<str>,
    /// What holds outside of them.
    pub otherwise: OutOfHours,
}

/// Whose budget.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Account {
    /// A user's calls by trunks.
    User(Box<str>),
    /// A trunk's calls.
    Trunk(Box<str>),
}

impl Account {
    /// Returns the user's or the trunk's name.
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Trunk(name) => name,
        }
    }

    /// Returns `user` or `trunk`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Trunk(_) => "trunk",
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind(), self.name())
    }
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Use {
    /// In the last hour.
    pub calls_hour: u32,
    /// In the last day.
    pub calls_day: u32,
    /// In the last hour, begun ones not counted.
    pub minutes_hour: u32,
    /// In the last day, likewise.
    pub minutes_day: u32,
    /// In the last day.
    pub countries_day: u32,
}

/// Calls and seconds in slots of a sliding window.
#[derive(Clone, Debug)]
struct Window {
    /// Of the whole window.
    length: Duration,
    /// Slot, calls, seconds; the newest last.
    slots: VecDeque<(u64, u32, u64)>,
}

impl Window {
    fn new(length: Duration) -> Self {
        Self { length, slots: VecDeque::new() }
    }

    fn slot_s(&self) -> u64 {
        self.length.as_secs() / SLOTS
    }

    /// Returns the slot in which something happens, and forgets those that are too old for it.
    fn slot(&mut self, index: u64) -> &mut (u64, u32, u64) {
        while self.slots.front().is_some_and(|(old, ..)| old + SLOTS < index) {
            self.slots.pop_front();
        }
        let at = self.slots.partition_point(|(slot, ..)| *slot < index);
        if self.slots.get(at).is_none_or(|(slot, ..)| *slot != index) {
            self.slots.insert(at, (index, 0, 0));
        }
        &mut self.slots[at]
    }

    fn add_call(&mut self, at_s: u64) {
        let index = at_s / self.slot_s();
        let calls = &mut self.slot(index).1;
        *calls = calls.saturating_add(1);
    }

    /// Adds a talk from one second to another, to the slots in which it took place.
    fn add_talk(&mut self, from_s: u64, until_s: u64) {
        let (slot_s, last) = (self.slot_s(), until_s / self.slot_s());
        for index in (from_s / slot_s).max(last.saturating_sub(SLOTS))..=last {
            let begin = from_s.max(index * slot_s);
            let end = until_s.min((index + 1) * slot_s);
            self.slot(index).2 += end.saturating_sub(begin);
        }
    }

    fn sum(&self, at_s: u64) -> (u32, u64) {
        let now = at_s / self.slot_s();
        let recent = self.slots.iter().filter(|(slot, ..)| slot + SLOTS >= now);
        recent.fold((0, 0), |(calls, seconds), slot| {
            (u32::saturating_add(calls, slot.1), seconds + slot.2)
        })
    }
}

/// What a ledger says, to be read by another process. Times are ages, in milliseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Spent {
    began: u64,
    hour: Vec<(u64, u32, u64)>,
    day: Vec<(u64, u32, u64)>,
    countries: Vec<(Country, u64)>,
    known: Vec<Country>,
    talking: Vec<(LegId, u64)>,
}

/// What one account has used.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    hour: Window,
    day: Window,
    /// When each country was called last.
    countries: BTreeMap<Country, Instant>,
    /// Every country ever called.
    known: BTreeSet<Country>,
    /// Since when each of its calls talks.
    talking: BTreeMap<LegId, Instant>,
    /// The same by age, and the sum of those seconds: so that nobody has to ask every call.
    by_age: BTreeSet<(Instant, LegId)>,
    since_s: u64,
}

impl Ledger {
    /// Begins with nothing used.
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            hour: Window::new(HOUR),
            day: Window::new(DAY),
            countries: BTreeMap::new(),
            known: BTreeSet::new(),
            talking: BTreeMap::new(),
            by_age: BTreeSet::new(),
            since_s: 0,
        }
    }

    /// Returns what it says.
    pub fn spent(&self, now: Instant) -> Spent {
        let slots = |window: &Window| window.slots.iter().copied().collect();
        let countries = self.countries.iter().map(|(country, at)| (*country, ago_ms(*at, now)));
        let talking = self.talking.iter().map(|(leg, since)| (*leg, ago_ms(*since, now)));
        Spent {
            began: ago_ms(self.began, now),
            hour: slots(&self.hour),
            day: slots(&self.day),
            countries: countries.collect(),
            known: self.known.iter().copied().collect(),
            talking: talking.collect(),
        }
    }

    /// Goes on where another one was.
    pub fn take_up(spent: &Spent, now: Instant) -> Self {
        let mut ledger = Self::new(before(now, spent.began));
        ledger.hour.slots = spent.hour.iter().copied().collect();
        ledger.day.slots = spent.day.iter().copied().collect();
        let countries = spent.countries.iter();
        ledger.countries = countries.map(|(country, ago)| (*country, before(now, *ago))).collect();
        ledger.known = spent.known.iter().copied().collect();
        for (leg, ago) in &spent.talking {
            ledger.answered(*leg, before(now, *ago));
        }
        ledger
    }

    /// Adds what another one says. Where their slots differ, it counts until the last moment that it may have been.
    pub fn add(&mut self, spent: &Spent, now: Instant) {
        let (own, theirs) = (self.began, before(now, spent.began));
        for (window, slots) in [(&mut self.hour, &spent.hour), (&mut self.day, &spent.day)] {
            let slot_s = window.slot_s();
            for (index, calls, seconds) in slots {
                let end = Duration::from_secs(index.saturating_add(1).saturating_mul(slot_s));
                let at = theirs.checked_add(end).map_or(now, |end| end.min(now));
                let slot = window.slot(at.saturating_duration_since(own).as_secs() / slot_s);
                slot.1 = slot.1.saturating_add(*calls);
                slot.2 = slot.2.saturating_add(*seconds);
            }
        }
        for (country, ago) in &spent.countries {
            let at = before(now, *ago);
            let last = self.countries.entry(*country).or_insert(at);
            *last = at.max(*last);
        }
        self.known.extend(&spent.known);
        for (leg, ago) in &spent.talking {
            self.answered(*leg, before(now, *ago));
        }
    }

    fn seconds(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_secs()
    }

    /// Returns what was used in the windows that end now.
    pub fn used(&self, now: Instant) -> Use {
        let at_s = self.seconds(now);
        let minutes = |window: &Window| {
            let (calls, seconds) = window.sum(at_s);
            let minutes = (seconds + self.talked_s(at_s, now, window.length)) / 60;
            (calls, u32::try_from(minutes).unwrap_or(u32::MAX))
        };
        let (calls_hour, minutes_hour) = minutes(&self.hour);
        let (calls_day, minutes_day) = minutes(&self.day);
        let countries_day = self.recent_countries(now).count() as u32;
        Use { calls_hour, calls_day, minutes_hour, minutes_day, countries_day }
    }

    /// Returns the seconds that running calls have talked, each at most as long as the window.
    fn talked_s(&self, at_s: u64, now: Instant, window: Duration) -> u64 {
        let all = (self.talking.len() as u64 * at_s).saturating_sub(self.since_s);
        let talks = self.by_age.iter().map(|(since, _)| now.saturating_duration_since(*since));
        let longer = talks.take_while(|talk| *talk > window);
        all.saturating_sub(longer.map(|talk| (talk - window).as_secs()).sum())
    }

    fn recent_countries(&self, now: Instant) -> impl Iterator<Item = Country> {
        let is_recent = move |at: &Instant| now.saturating_duration_since(*at) < DAY;
        self.countries.iter().filter(move |(_, at)| is_recent(at)).map(|(country, _)| *country)
    }

    /// Returns which limit does not allow another call.
    pub fn check(
        &self,
        whose: &Account,
        budget: &Budget,
        country: Option<Country>,
        now: Instant,
    ) -> Result<(), Refusal> {
        if *budget == Budget::default() {
            return Ok(());
        }
        let used = self.used(now);
        let is_new = |country: Country| self.recent_countries(now).all(|known| known != country);
        let countries_limit = budget.countries_per_day.filter(|_| country.is_some_and(is_new));
        for (key, limit, used) in [
            ("calls_per_hour", budget.calls_per_hour, used.calls_hour),
            ("calls_per_day", budget.calls_per_day, used.calls_day),
            ("minutes_per_hour", budget.minutes_per_hour, used.minutes_hour),
            ("minutes_per_day", budget.minutes_per_day, used.minutes_day),
            ("countries_per_day", countries_limit, used.countries_day),
        ] {
            if let Some(limit) = limit.filter(|limit| used >= *limit) {
                return Err(Refusal::Budget { whose: whose.clone(), key, limit });
            }
        }
        Ok(())
    }

    /// Counts a call that leaves. Returns whether it is the first to its country.
    pub fn charge(&mut self, country: Option<Country>, now: Instant) -> bool {
        let at_s = self.seconds(now);
        self.hour.add_call(at_s);
        self.day.add_call(at_s);
        let Some(country) = country else { return false };
        self.countries.insert(country, now);
        self.known.insert(country)
    }

    /// A call was answered.
    pub fn answered(&mut self, leg: LegId, now: Instant) {
        if let Entry::Vacant(entry) = self.talking.entry(leg) {
            entry.insert(now);
            self.by_age.insert((now, leg));
            self.since_s += self.seconds(now);
        }
    }

    /// A call is over.
    pub fn ended(&mut self, leg: LegId, now: Instant) {
        if let Some(since) = self.talking.remove(&leg) {
            let (from_s, until_s) = (self.seconds(since), self.seconds(now));
            self.by_age.remove(&(since, leg));
            self.since_s = self.since_s.saturating_sub(from_s);
            self.hour.add_talk(from_s, until_s);
            self.day.add_talk(from_s, until_s);
        }
    }

    /// Returns whether none of its calls talks.
    pub fn is_quiet(&self) -> bool {
        self.talking.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    fn country(code: &str) -> Option<Country> {
        Country::parse(code)
    }

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    fn said(ledger: &Ledger, budget: &Budget, country: Option<Country>, now: Instant) -> String {
        let whose = Account::User("1001".into());
        match ledger.check(&whose, budget, country, now) {
            Ok(()) => "allowed".to_owned(),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn calls_count_for_an_hour_and_a_day() {
        let start = crate::sim::epoch();
        let budget =
            Budget { calls_per_hour: Some(2), calls_per_day: Some(3), ..Budget::default() };
        let mut ledger = Ledger::new(start);
        let used =
            |key: &str, limit| format!("user `1001` has used up its budget: `{key} = {limit}`");
        for (at, want) in [
            (0, "allowed".to_owned()),
            (10, "allowed".to_owned()),
            (20, used("calls_per_hour", 2)),
            (60, used("calls_per_hour", 2)),
            (62, "allowed".to_owned()),
            (200, used("calls_per_day", 3)),
            (24 * 60 + 30, "allowed".to_owned()),
        ] {
            let now = start + minutes(at);
            let got = said(&ledger, &budget, country("US"), now);
            assert_eq!(got, want, "minute {at}");
            if got == "allowed" {
                ledger.charge(country("US"), now);
            }
        }
    }

    /// A talk counts in the minutes in which it took place, while it goes on as well.
    #[test]
    fn minutes_count_as_they_pass() {
        let start = crate::sim::epoch();
        let leg = LegId::new(ShardId(0), 1);
        let mut ledger = Ledger::new(start);
        ledger.answered(leg, start + minutes(10));
        let used = |ledger: &Ledger, at| {
            let used = ledger.used(start + minutes(at));
            (used.minutes_hour, used.minutes_day)
        };
        assert_eq!(used(&ledger, 40), (30, 30));
        assert_eq!(used(&ledger, 110), (60, 100));
        ledger.ended(leg, start + minutes(130));
        assert!(ledger.is_quiet());
        // Of the two hours those minutes that are in the last one.
        assert_eq!(used(&ledger, 130), (60, 120));
        assert_eq!(used(&ledger, 160), (30, 120));
        assert_eq!(used(&ledger, 191), (0, 120));
        assert_eq!(used(&ledger, 28 * 60), (0, 0));
        let budget = Budget { minutes_per_hour: Some(31), ..Budget::default() };
        assert_eq!(said(&ledger, &budget, None, start + minutes(160)), "allowed");
        let budget = Budget { minutes_per_hour: Some(30), ..Budget::default() };
        assert_ne!(said(&ledger, &budget, None, start + minutes(160)), "allowed");
    }

    /// Another process goes on with it, half an hour of its own clock later or at once.
    #[test]
    fn what_was_spent_is_taken_up_by_another_process() {
        let start = crate::sim::epoch();
        let legs = [1, 2].map(|n| LegId::new(ShardId(0), n));
        let mut old = Ledger::new(start);
        old.charge(country("US"), start + minutes(5));
        old.answered(legs[0], start + minutes(5));
        old.charge(country("NL"), start + minutes(20));
        old.answered(legs[1], start + minutes(20));
        old.ended(legs[0], start + minutes(25));
        let now = start + minutes(30);
        let text = serde_json::to_string(&old.spent(now)).unwrap();
        let mut new = Ledger::take_up(&serde_json::from_str(&text).unwrap(), now);
        for at in [30, 40, 64, 66, 70, 90, 300, 24 * 60 + 10, 25 * 60 + 30] {
            let then = start + minutes(at);
            if at == 70 {
                old.ended(legs[1], then);
                new.ended(legs[1], then);
            }
            assert_eq!(new.used(then), old.used(then), "minute {at}");
        }
        assert_eq!(old.used(start + minutes(70)).minutes_day, 70);
        assert!(!new.charge(country("NL"), start + minutes(71)), "it has been called before");
    }

    /// Each began at a time of its own; together they have used what one would have.
    #[test]
    fn what_two_have_used_is_added_up() {
        let start = crate::sim::epoch();
        let leg = |n| LegId::new(ShardId(0), n);
        let (mut one, mut other) = (Ledger::new(start), Ledger::new(start + minutes(7)));
        one.charge(country("US"), start + minutes(1));
        one.answered(leg(1), start + minutes(1));
        one.ended(leg(1), start + minutes(11));
        other.charge(country("US"), start + minutes(8));
        other.charge(country("NL"), start + minutes(9));
        other.answered(leg(2), start + minutes(9));
        other.ended(leg(2), start + minutes(14));
        let used = |ledger: &Ledger, at| {
            let used = ledger.used(start + minutes(at));
            (used.calls_hour, used.minutes_hour, used.calls_day, used.minutes_day)
        };
        one.add(&other.spent(start + minutes(20)), start + minutes(20));
        assert_eq!(used(&one, 20), (3, 15, 3, 15));
        assert_eq!(one.used(start + minutes(20)).countries_day, 2);
        assert!(!one.charge(country("NL"), start + minutes(21)), "it has been called before");
        // An hour after, at most a slot is counted longer than it should be.
        assert_eq!(used(&one, 69).0, 3, "the call of minute 8 may have been at its end");
        assert_eq!(used(&one, 80).1, 0);
        // Numbers that nobody can have counted do no harm.
        let wild = r#"{"began":18446744073709551615,"hour":[[18446744073709551615,4294967295,
            18446744073709551615]],"day":[[3,1,18446744073709551615]],"countries":[],"known":[],"talking":[]}"#;
        one.add(&serde_json::from_str(wild).unwrap(), start + minutes(80));
        assert_eq!(one.used(start + minutes(80)).minutes_hour, u32::MAX);
    }

    #[test]
    fn countries_are_counted_once_a_day_and_told_once() {
        let start = crate::sim::epoch();
        let budget = Budget { countries_per_day: Some(2), ..Budget::default() };
        let mut ledger = Ledger::new(start);
        let full = "user `1001` has used up its budget: `countries_per_day = 2`";
        for (at, code, want, is_first) in [
            (0, "US", "allowed", true),
            (1, "NL", "allowed", true),
            (2, "US", "allowed", false),
            (3, "GB", full, false),
            (24 * 60 + 2, "GB", "allowed", true),
            (24 * 60 + 3, "NL", "allowed", false),
        ] {
            let now = start + minutes(at);
            let got = said(&ledger, &budget, country(code), now);
            assert_eq!(got, want, "minute {at}: {code}");
            if got == "allowed" {
                assert_eq!(ledger.charge(country(code), now), is_first, "minute {at}: {code}");
            }
        }
    }

    /// However many calls there were, a ledger stays small.
    #[test]
    fn what_is_kept_is_bounded() {
        let start = crate::sim::epoch();
        let mut ledger = Ledger::new(start);
        for n in 0..100_000 {
            let now = start + Duration::from_secs(n * 7);
            let leg = LegId::new(ShardId(0), n);
            ledger.charge(country("US"), now);
            ledger.answered(leg, now);
            ledger.ended(leg, now + Duration::from_secs(5));
        }
        let slots = ledger.hour.slots.len() + ledger.day.slots.len();
        assert!(slots <= 2 * (SLOTS as usize + 2), "{slots}");
    }
}
