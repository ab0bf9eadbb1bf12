//! How often the log speaks of wrong passwords: once a minute for each user and source, with a count.
//!
//! Owns: who was warned about, and how many attempts the log has not told.
//! Never: decides what happens to an attempt.

use crate::observe::mask::Number;
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
}

impl Guesses {
    /// Notes a wrong password. Returns whether it is to be told now.
    pub(super) fn note(&mut self, user: &str, source: IpAddr, now: Instant) -> bool {
        let user: Box<str> = user.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

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
