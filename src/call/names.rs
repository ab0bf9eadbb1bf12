//! Whose a message is, by what it says: our tag, a Call-ID.
//!
//! Owns: both tables, and what each call has put into them.
//! Never: believes a message because of its Call-ID; that tells whose ladder it belongs to, and no more.

use super::wire::Owner;
use crate::{
    ids::{CallId, Digest, MintKey},
    table::Table,
};
use std::sync::Arc;

/// The tags and Call-IDs of one shard's calls, as digests: peers choose Call-IDs.
#[derive(Debug)]
pub struct Names {
    key: MintKey,
    tags: Table<Digest, Owner>,
    /// The call, and what the peer of that leg is called.
    call_ids: Table<Digest, (CallId, Arc<str>)>,
    /// Which Call-IDs a call has.
    by_call: Table<CallId, Vec<Digest>>,
}

impl Names {
    /// Creates empty tables.
    pub fn new(key: MintKey) -> Self {
        let (tags, call_ids, by_call) = (Table::default(), Table::default(), Table::default());
        Self { key, tags, call_ids, by_call }
    }

    /// Notes our tag of a leg.
    pub fn insert_tag(&mut self, tag: &str, owner: Owner) {
        self.tags.insert(self.digest(tag), owner);
    }

    /// Forgets a tag of ours.
    pub fn remove_tag(&mut self, tag: &str) {
        self.tags.remove(self.digest(tag));
    }

    /// Returns whose dialog has this tag of ours.
    pub fn owner_of(&self, tag: &str) -> Option<Owner> {
        self.tags.get(self.digest(tag)).copied()
    }

    /// Notes the Call-ID of a leg whose peer is called `name`.
    pub fn insert_call_id(&mut self, call_id: &str, call: CallId, name: &Arc<str>) {
        let digest = self.digest(call_id);
        self.call_ids.insert(digest, (call, name.clone()));
        self.by_call.get_or_insert_with(call, || Vec::with_capacity(2)).push(digest);
    }

    /// Returns whose call has this Call-ID, and the name of the peer who says it.
    pub fn call_of(&self, call_id: &str) -> Option<(CallId, &str)> {
        self.call_ids.get(self.digest(call_id)).map(|(call, name)| (*call, &**name))
    }

    /// Forgets the Call-IDs of a call that is over.
    pub fn forget(&mut self, call: CallId) {
        for digest in self.by_call.remove(call).unwrap_or_default() {
            // Another call may have taken the same Call-ID meanwhile.
            if self.call_ids.get(digest).is_some_and(|(owner, _)| *owner == call) {
                self.call_ids.remove(digest);
            }
        }
    }

    /// Returns how many dialogs there are.
    pub fn dialogs(&self) -> usize {
        self.tags.len()
    }

    /// Returns whether nothing is left of past calls.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.call_ids.is_empty() && self.by_call.is_empty()
    }

    fn digest(&self, text: &str) -> Digest {
        self.key.digest().text(text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ShardId;

    #[test]
    fn a_call_takes_its_own_names_along_and_no_others() {
        let mut names = Names::new(MintKey::new([1; 16]));
        let (one, two) = (CallId::new(ShardId(0), 1), CallId::new(ShardId(0), 2));
        names.insert_call_id("a", one, &"1001".into());
        names.insert_call_id("b", one, &"carrier".into());
        names.insert_call_id("c", two, &"1002".into());
        // Somebody says a Call-ID that another call has.
        names.insert_call_id("b", two, &"1003".into());
        assert_eq!(names.call_of("a"), Some((one, "1001")));
        assert_eq!(names.call_of("b"), Some((two, "1003")));
        names.forget(one);
        assert_eq!(names.call_of("a"), None);
        assert_eq!(names.call_of("b"), Some((two, "1003")));
        names.forget(two);
        assert!(names.is_empty());
    }
}
