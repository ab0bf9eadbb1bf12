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
pub struct Table<K, V> {
    map: HashMap<K, V, BuildHasherDefault<Mix>>,
    /// How many values it has room for; of a small one, not kept up to date.
    room: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { map: HashMap::default(), room: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// Adds a value; returns what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.make_room();
        self.map.insert(key, value)
    }

    /// Adds a value to a table that is only ever emptied as a whole: it can be filled to seven eighths, and takes half of the
    /// memory.
    pub fn insert_for_good(&mut self, key: K, value: V) -> Option<V> {
        self.map.insert(key, value)
    }

    /// Removes all values; the room stays.
    pub fn clear(&mut self) {
        self.map.clear();
    }

    /// Removes and returns a value.
    pub fn remove(&mut self, key: K) -> Option<V> {
        let removed = self.map.remove(&key);
        // After a burst, its memory goes back; halving at an eighth keeps the cost of that constant.
        if self.room > SPARE_MAX && self.map.len() < self.room / 8 {
            self.map.shrink_to(self.room / 2);
            self.room = self.map.capacity();
        }
        removed
    }

    /// Doubles a table before it is more than half full.
    ///
    /// A value that is removed where it is crowded leaves a place that no new value can count on. Once all free places
    /// are such, a map that is half full at most is put in order where it is, and a fuller one doubles, without
    /// a value more: where values come and go, minutes after there were as many as there ever will be. So all
    /// memory that a load takes is taken when it comes.
    fn make_room(&mut self) {
        let len = self.map.len();
        if len >= SPARE_MAX / 2 && len >= self.room / 2 {
            self.map.reserve(len + 1);
            self.room = self.map.capacity();
        }
    }

    /// Returns a value.
    pub fn get(&self, key: K) -> Option<&V> {
        self.map.get(&key)
    }

    /// Returns a value, to be changed.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.map.get_mut(&key)
    }

    /// Returns a value, which is made where there is none.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        self.make_room();
        self.map.entry(key).or_insert_with(make)
    }

    /// Returns whether there is a value.
    pub fn contains(&self, key: K) -> bool {
        self.map.contains_key(&key)
    }

    /// Returns all of it in the order of the keys. Sorts: for a dump, not for every day.
    pub fn sorted(&self) -> Vec<(K, &V)>
    where
        K: Ord,
    {
        #[expect(clippy::disallowed_methods, reason = "sorted before anybody sees it")]
        let mut all: Vec<(K, &V)> = self.map.iter().map(|(key, value)| (*key, value)).collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Returns for how many there is room.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.map.capacity()
    }
}

/// Below this many places, a table is not worth making smaller, nor larger before its time.
const SPARE_MAX: usize = 4096;

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} entries)", self.map.len())
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
        assert!(table.map.capacity() >= 100_000);
        for n in 0..100_000 {
            table.remove(n);
        }
        let room = table.map.capacity();
        assert!(table.is_empty() && room <= 2 * SPARE_MAX, "{room}");
    }

    #[test]
    fn what_is_only_emptied_as_a_whole_can_be_full_and_keeps_its_room() {
        let mut table = Table::default();
        for n in 0..7 << 15 {
            assert_eq!(table.insert_for_good(n, ()), None);
            assert!(n > 0 || table.insert_for_good(n, ()).is_some());
        }
        assert_eq!(table.room(), 7 << 15, "full");
        table.clear();
        assert!(table.is_empty() && !table.contains(1));
        assert_eq!(table.room(), 7 << 15);
    }

    /// As many values as before, each of which stays as long as before: what a busy node remembers.
    #[test]
    fn values_that_come_and_go_take_no_more_memory_in_time() {
        for percent in [48, 52, 60, 75, 90, 99] {
            let len = (1 << 14) / 8 * 7 * percent / 100;
            let mut table = Table::default();
            for n in 0..len {
                table.insert(n, n);
            }
            let room = table.map.capacity();
            for n in len..40 * len {
                table.insert(n, n);
                table.remove(n - len);
                assert!(table.map.capacity() <= room, "{percent} %, after {}", n / len);
            }
        }
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
