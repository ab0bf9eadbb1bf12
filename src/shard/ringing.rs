//! How many calls of each user nobody has answered yet: whoever has a password could have all the room there is.
//!
//! Owns: the counts.
//! Never: knows strangers, of whom nothing is kept; or carriers, which have limits of their own.

use crate::ids::CallId;
use std::collections::BTreeMap;

/// The calls of users that ring.
#[derive(Debug, Default)]
pub(super) struct Ringing {
    calls: BTreeMap<CallId, Box<str>>,
    users: BTreeMap<Box<str>, usize>,
}

impl Ringing {
    /// Returns how many a user has.
    pub(super) fn of(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    /// A call of a user's begins.
    pub(super) fn begin(&mut self, call: CallId, user: &str) {
        if self.calls.insert(call, user.into()).is_none() {
            *self.users.entry(user.into()).or_default() += 1;
        }
    }

    /// It was answered, or is over. Nothing happens if that is known.
    pub(super) fn end(&mut self, call: CallId) {
        let Some(user) = self.calls.remove(&call) else { return };
        let Some(count) = self.users.get_mut(&user) else { return };
        *count -= 1;
        if *count == 0 {
            self.users.remove(&user);
        }
    }

    /// Returns whether nobody rings.
    pub(super) fn is_quiet(&self) -> bool {
        self.calls.is_empty() && self.users.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn each_call_is_counted_once_until_it_ends() {
        let call = |n| CallId::new(ShardId(0), n);
        let mut ringing = Ringing::default();
        for (n, user) in [(1, "1001"), (2, "1001"), (3, "1002"), (2, "1001")] {
            ringing.begin(call(n), user);
        }
        assert_eq!(["1001", "1002", "1003"].map(|user| ringing.of(user)), [2, 1, 0]);
        for n in [1, 1, 7, 3] {
            ringing.end(call(n));
        }
        assert_eq!(["1001", "1002"].map(|user| ringing.of(user)), [1, 0]);
        assert!(!ringing.is_quiet());
        ringing.end(call(2));
        assert!(ringing.is_quiet());
    }
}
