//! A hash table for keys that are numbers of ours: serials, and keyed digests of what peers write.
//!
//! Owns: finding, adding and removing by key, in the same time however much is in it.
//! Never: tells an order of its own. Who must go through all of it keeps a `BTreeMap`, or sorts.
//!
//! Beside a `BTreeMap` it saves the walk down a tree whose nodes are cold: with the transactions of 32 seconds
//! of a busy node, a tree takes six cache misses where this takes two. The hash has no secret: what a peer could
//! choose is a key as a keyed digest only (`MintKey::digest`).

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hash, Hasher},
};

/// Values by number.
#[derive(Clone)]
pub struct Table<K, V>(HashMap<K, V, BuildHasherDefault<Mix>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// Adds a value; returns what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0.insert(key, value)
    }

    /// Removes and returns a value.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let removed = self.0.remove(&key);
        // After a burst, its memory goes back; halving at a quarter keeps the cost of that constant.
        if self.0.capacity() > SPARE_MAX && self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.capacity() / 4);
        }
        removed
    }

    /// Returns a value.
    pub fn get(&self, key: K) -> Option<&V> {
        self.0.get(&key)
    }

    /// Returns a value, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.0.get_mut(&key)
    }

    /// Returns a value, which is made where there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.0.entry(key).or_insert_with(make)
    }

    /// Returns whether there is a value.
    pub fn contains(&self, key: K) -> bool {
        self.0.contains_key(&key)
    }

    /// Returns all of it in the order of the keys. Sorts: for a dump, not for every day.
    pub fn sorted(&self) -> Vec<(K, &V)>
    where
        K: Ord,
    {
        #[expect(clippy::disallowed_methods, reason = "sorted before anybody sees it")]
        let mut all: Vec<(K, &V)> = self.0.iter().map(|(key, value)| (*key, value)).collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Below this many places, a table is not worth making smaller.
const SPARE_MAX: usize = 4096;

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} entries)", self.0.len())
    }
}

/// Spreads numbers over 64 bits by multiplications, whose upper bits are folded into the lower ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mix(u64);

/// Odd numbers without a pattern.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

impl Mix {
    fn mix(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(29) ^ number).wrapping_mul(FACTORS[0]);
    }
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let number = part.iter().rev().fold(0, |sum: u64, byte| (sum << 8) | u64::from(*byte));
            self.mix(number);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.mix(number as u64);
    }

    fn write_u128(&mut self, number: u128) {
        self.mix(number as u64);
        self.mix((number >> 64) as u64);
    }

    fn finish(&self) -> u64 {
        let folded = (self.0 ^ (self.0 >> 32)).wrapping_mul(FACTORS[1]);
        folded ^ (folded >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_holds_what_a_tree_holds() {
        let (mut table, mut tree) = (Table::default(), BTreeMap::new());
        for n in 0..20_000_u64 {
            let key = n.wrapping_mul(0x5851_f42d_4c95_7f2d) % 3000;
            match n % 3 {
                0 => assert_eq!(table.remove(key), tree.remove(&key)),
                1 => assert_eq!(table.insert(key, n), tree.insert(key, n)),
                _ => assert_eq!(table.get(key), tree.get(&key)),
            }
            assert_eq!(table.len(), tree.len());
        }
        assert!(table.sorted().into_iter().eq(tree.iter().map(|(key, n)| (*key, n))));
    }

    #[test]
    fn after_a_burst_the_memory_goes_back() {
        let mut table = Table::default();
        for n in 0..100_000_u64 {
            table.insert(n, [0_u64; 8]);
        }
        assert!(table.0.capacity() >= 100_000);
        for n in 0..100_000 {
            table.remove(n);
        }
        assert!(table.is_empty() && table.0.capacity() <= 2 * SPARE_MAX, "{}", table.0.capacity());
    }

    /// Serials, multiples of powers of two and tuples land all over the place.
    #[test]
    fn numbers_are_spread() {
        let hash = |number: u64| {
            let mut mix = Mix::default();
            number.hash(&mut mix);
            mix.finish()
        };
        for step in [1, 2, 256, 1 << 20, 1 << 40, 1 << 56] {
            let low =
                (0..256).map(|n| hash(n * step) % 256).collect::<std::collections::BTreeSet<_>>();
            let high =
                (0..256).map(|n| hash(n * step) >> 57).collect::<std::collections::BTreeSet<_>>();
            assert!(low.len() > 140 && high.len() > 90, "{step}: {} {}", low.len(), high.len());
        }
    }
}
