//! When whose bindings may end: an index, so that a sweep looks at those alone.
//!
//! Owns: for each user with bindings a time not later than the first of them ends.
//! Never: knows a binding; the location service does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

/// Users by when to look at their bindings.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_user: BTreeMap<Arc<str>, SystemTime>,
    queue: BTreeSet<(SystemTime, Arc<str>)>,
}

impl Expiries {
    /// Learns that a binding of this user ends at `at`. A later end of the same binding needs no
    /// more than this: it is found when the user is looked at.
    pub(super) fn note(&mut self, aor: &str, at: SystemTime) {
        if let Some((user, known)) = self.by_user.get_key_value(aor) {
            if *known <= at {
                return;
            }
            self.queue.remove(&(*known, Arc::clone(user)));
        }
        let user: Arc<str> = aor.into();
        self.by_user.insert(Arc::clone(&user), at);
        self.queue.insert((at, user));
    }

    /// Takes one user who is to be looked at.
    pub(super) fn pop_due(&mut self, wall: SystemTime) -> Option<Arc<str>> {
        if self.queue.first().is_none_or(|(at, _)| *at > wall) {
            return None;
        }
        let (_, user) = self.queue.pop_first()?;
        self.by_user.remove(&user);
        Some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn at(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(s)
    }

    #[test]
    fn each_user_is_looked_at_once_and_in_time() {
        let mut expiries = Expiries::default();
        for (aor, s) in [("b", 20), ("a", 30), ("a", 10), ("a", 40), ("b", 20), ("c", 50)] {
            expiries.note(aor, at(s));
        }
        assert_eq!(expiries.queue.len(), 3, "refreshes do not pile up");
        let mut due = |s| expiries.pop_due(at(s)).map(|user| user.to_string());
        let all = [due(9), due(10), due(10), due(30), due(49), due(50), due(99)];
        let names = all.map(|name| name.unwrap_or_default());
        assert_eq!(names, ["", "a", "", "b", "", "c", ""]);
        assert!(expiries.by_user.is_empty());
    }
}
