//! Wrong passwords: how many from one source are looked at, and how often the log speaks of them.
//!
//! Owns: how many each source has left, who was warned about, how many attempts the log has not told.
//! Never: knows a password, or answers.

use crate::{
    network,
    observe::{mask::Number, plain},
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long one warning holds.
const EVERY: Duration = Duration::from_secs(60);
/// How many pairs of user and source are told apart. A flood of names is counted together.
const PAIRS_MAX: usize = 64;
/// User names are cut to this length: they come from strangers.
const NAME_MAX: usize = 32;

/// How many wrong passwords from one source are looked at: so many at once, and one in so long.
const BURST: u32 = 10;
const ANOTHER_AFTER: Duration = Duration::from_secs(30);
/// How many sources are remembered; the one that has guessed least makes room.
const SOURCES_MAX: usize = 4096;

/// What a source may still try, as of a time.
#[derive(Clone, Copy, Debug)]
struct Left {
    tries: u32,
    at: Instant,
}

impl Left {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs() / ANOTHER_AFTER.as_secs();
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        self.at += ANOTHER_AFTER.saturating_mul(more);
        self.tries = self.tries.saturating_add(more).min(BURST);
    }
}

/// What was said of one pair.
#[derive(Debug)]
struct Said {
    until: Instant,
    since: u64,
}

/// Wrong passwords, seen by one shard.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    said: BTreeMap<(Box<str>, IpAddr), Said>,
    /// Attempts beyond [`PAIRS_MAX`].
    others: u64,
    /// By source, and a user who is registered from there; nobody where that is not so.
    left: BTreeMap<(IpAddr, Box<str>), Left>,
}

impl Guesses {
    /// Returns whether a wrong password has come from there.
    pub(super) fn suspects(&self, source: IpAddr) -> bool {
        let source = network::source(source);
        let of_it = self.left.range((source, Box::default())..).next();
        of_it.is_some_and(|((ip, _), _)| *ip == source)
    }

    /// Returns whether another password from there is looked at. Who is registered from there is judged
    /// apart from those around.
    pub(super) fn may_judge(&self, source: IpAddr, at_home: Option<&str>, now: Instant) -> bool {
        let left = self.left.get(&key(source, at_home)).copied();
        left.is_none_or(|mut left| {
            left.refill(now);
            left.tries > 0
        })
    }

    /// Notes that one was wrong.
    pub(super) fn spend(&mut self, source: IpAddr, at_home: Option<&str>, now: Instant) {
        let key = key(source, at_home);
        if self.left.len() >= SOURCES_MAX && !self.left.contains_key(&key) {
            self.make_room(now);
        }
        let left = self.left.entry(key).or_insert(Left { tries: BURST, at: now });
        left.refill(now);
        left.tries = left.tries.saturating_sub(1);
    }

    fn make_room(&mut self, now: Instant) {
        for left in self.left.values_mut() {
            left.refill(now);
        }
        self.left.retain(|_, left| left.tries < BURST);
        if self.left.len() >= SOURCES_MAX {
            let least = self.left.iter().max_by_key(|(_, left)| left.tries);
            if let Some(least) = least.map(|(key, _)| key.clone()) {
                self.left.remove(&least);
            }
        }
    }

    /// Notes a wrong password. Returns whether it is to be told now.
    pub(super) fn note(&mut self, user: &str, source: IpAddr, now: Instant) -> bool {
        let user: Box<str> = user.chars().filter(|c| plain::is_plain(*c)).take(NAME_MAX).collect();
        if let Some(said) = self.said.get_mut(&(user.clone(), source)) {
            said.since = said.since.saturating_add(1);
            return false;
        }
        if self.said.len() >= PAIRS_MAX {
            self.others = self.others.saturating_add(1);
            return false;
        }
        tracing::warn!(user = %Number(&user), %source, "wrong credentials");
        self.said.insert((user, source), Said { until: now + EVERY, since: 0 });
        true
    }

    /// Tells of the attempts since the last warning, where a minute has passed.
    pub(super) fn tell(&mut self, now: Instant) {
        self.said.retain(|(user, source), said| {
            if said.until > now {
                return true;
            }
            let count = std::mem::take(&mut said.since);
            said.until = now + EVERY;
            if count > 0 {
                tracing::warn!(user = %Number(user), %source, count, "wrong credentials");
            }
            count > 0
        });
        if self.others > 0 && self.said.len() < PAIRS_MAX {
            let count = std::mem::take(&mut self.others);
            tracing::warn!(count, "wrong credentials");
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.said.values().map(|said| said.until).min()
    }
}

fn key(source: IpAddr, at_home: Option<&str>) -> (IpAddr, Box<str>) {
    (network::source(source), at_home.unwrap_or_default().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three hundred in five minutes, all from one network: twenty are looked at.
    #[test]
    fn a_guesser_is_looked_at_ever_more_seldom() {
        let start = crate::sim::epoch();
        for (every_ms, want) in [(10, 10), (100, 10), (1000, 19)] {
            let mut guesses = Guesses::default();
            let judged = (0..300_u64).filter(|n| {
                let now = start + Duration::from_millis(n * every_ms);
                let source = format!("2001:db8:1:2::{n:x}").parse().unwrap();
                let may = guesses.may_judge(source, None, now);
                if may {
                    guesses.spend(source, None, now);
                }
                may
            });
            assert_eq!(judged.count(), want, "one in {every_ms} ms");
            let (elsewhere, home) = ("2001:db8:1:3::1".parse().unwrap(), Some("1001"));
            assert!(guesses.may_judge(elsewhere, None, start), "the neighbour is not it");
            assert!(guesses.may_judge("2001:db8:1:2::1".parse().unwrap(), home, start));
            assert!(
                !guesses.suspects(elsewhere) && guesses.suspects("2001:db8:1:2::".parse().unwrap())
            );
        }
    }

    #[test]
    fn sources_are_bounded_and_those_that_guess_most_are_remembered() {
        let start = crate::sim::epoch();
        let ip = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let mut guesses = Guesses::default();
        for _ in 0..BURST {
            guesses.spend(ip(5), None, start);
        }
        for n in 10..20_000 {
            guesses.spend(ip(n), None, start);
        }
        assert_eq!(guesses.left.len(), SOURCES_MAX);
        assert!(!guesses.may_judge(ip(5), None, start));
        guesses.spend(ip(6), None, start + Duration::from_secs(3600));
        assert_eq!(guesses.left.len(), 1, "an hour later all is forgotten");
    }

    #[test]
    fn each_pair_is_told_once_a_minute_with_the_rest_counted() {
        let start = crate::sim::epoch();
        let at = |s| start + Duration::from_secs(s);
        let source = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut guesses = Guesses::default();
        assert!(guesses.note("1001", source(1), start));
        assert!(guesses.note("1001", source(2), start));
        assert!(guesses.note("1002", source(1), start));
        for s in 0..59 {
            assert!(!guesses.note("1001", source(1), at(s)));
        }
        let counted = |guesses: &Guesses| guesses.said.values().map(|said| said.since).max();
        assert_eq!(counted(&guesses), Some(59));
        guesses.tell(at(59));
        assert_eq!(guesses.said.len(), 3, "nothing is due");
        guesses.tell(at(60));
        assert_eq!((guesses.said.len(), counted(&guesses)), (1, Some(0)), "told with its count");
        assert!(!guesses.note("1001", source(1), at(61)));
        guesses.tell(at(120));
        guesses.tell(at(180));
        assert_eq!(guesses.poll_timeout(), None);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let start = crate::sim::epoch();
        let mut guesses = Guesses::default();
        let told = (0..10_000)
            .filter(|n| guesses.note(&format!("user{n}"), IpAddr::from([192, 0, 2, 1]), start))
            .count();
        assert_eq!((told, guesses.others), (PAIRS_MAX, 10_000 - PAIRS_MAX as u64));
        guesses.tell(start + EVERY);
        assert_eq!((guesses.said.len(), guesses.others), (0, 0));
    }
}
