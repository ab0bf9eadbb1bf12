//! A map of one or two entries, as most calls have legs and most legs have requests on their way.
//!
//! Owns: finding by key, the order of the keys.
//! Never: is for many: whoever comes or goes moves all behind.
//!
//! A `BTreeMap` takes room for eleven entries with the first: 19 KB where an entry is a leg.

use std::borrow::Borrow;

/// Few values, by key.
#[derive(Clone, Debug)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<K: Ord, V> Few<K, V> {
    /// Creates an empty one with room for so many, where it is known that they will come.
    pub fn with_room(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Adds a value; returns what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.place(&key) {
            Ok(at) => self.0.get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    // Room for one, two, four: the standard growth begins with four.
                    self.0.reserve_exact(self.0.len().max(1));
                }
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Removes and returns a value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (_, value) = self.place(key).ok().map(|at| self.0.remove(at))?;
        // Of the many that rang, one talks.
        if self.0.len() <= self.0.capacity() / 4 {
            self.0.shrink_to_fit();
        }
        Some(value)
    }

    /// Returns a value.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.get(self.place(key).ok()?).map(|(_, value)| value)
    }

    /// Returns a value, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.place(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }

    /// Returns a value to be changed, and another one to look at.
    pub fn get_mut_beside(&mut self, key: &K, other: &K) -> Option<(&mut V, &V)> {
        let (at, beside) = (self.place(key).ok()?, self.place(other).ok()?);
        let (before, after) = self.0.split_at_mut_checked(at.max(beside))?;
        let (low, high) = (before.get_mut(at.min(beside))?, after.first_mut()?);
        Some(if at < beside { (&mut low.1, &high.1) } else { (&mut high.1, &low.1) })
    }

    /// Returns whether there is a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.place(key).is_ok()
    }

    /// Returns the keys in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// Returns the values in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Returns the values in the order of their keys, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.0 = vec![];
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> Result<usize, usize>
    where
        K: Borrow<Q>,
    {
        self.0.binary_search_by(|(known, _)| known.borrow().cmp(key))
    }
}

impl<K, V> IntoIterator for Few<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_holds_what_a_tree_holds() {
        let (mut few, mut tree) = (Few::default(), BTreeMap::new());
        for n in 0..5000_u64 {
            let key = n.wrapping_mul(0x5851_f42d_4c95_7f2d) % 11;
            match n % 3 {
                0 => assert_eq!(few.remove(&key), tree.remove(&key)),
                1 => assert_eq!(few.insert(key, n), tree.insert(key, n)),
                _ => assert_eq!(few.get(&key), tree.get(&key)),
            }
            assert_eq!(few.len(), tree.len());
            assert_eq!(few.contains_key(&key), tree.contains_key(&key));
            assert!(few.keys().eq(tree.keys()) && few.values().eq(tree.values()));
        }
        assert!(few.into_iter().eq(tree));
    }

    #[test]
    fn two_are_had_at_a_time() {
        let mut few: Few<u8, &str> = Few::default();
        (1..).zip(["a", "b", "c"]).for_each(|(key, value)| _ = few.insert(key, value));
        for (key, other, want) in
            [(1, 3, Some(("a", "c"))), (3, 2, Some(("c", "b"))), (2, 2, None), (1, 4, None)]
        {
            let got = few.get_mut_beside(&key, &other).map(|(value, beside)| (*value, *beside));
            assert_eq!(got, want, "{key} {other}");
        }
    }

    #[test]
    fn it_has_room_for_what_is_in_it() {
        let mut few = Few::default();
        for (key, room) in [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8)] {
            few.insert(key, ());
            assert_eq!(few.0.capacity(), room);
        }
        for key in 1..=4 {
            few.remove(&key);
        }
        assert!(few.0.capacity() <= 2);
    }
}
