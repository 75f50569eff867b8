//! Numbers that name frontends and backends in the BPF maps.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::{Deref, RangeInclusive},
};

/// Capacities of the BPF maps, in entries. What does not fit is served by the slow path only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Capacity of the frontend map.
    pub frontends: u32,
    /// Capacity of the backend map.
    pub backends: u32,
}

impl Limits {
    /// Returns the ids that a frontend can have. 0 means none in the datapath.
    pub(super) fn frontend_ids(self) -> RangeInclusive<u32> {
        1..=self.frontends
    }

    /// Returns the ids that a backend can have: indexes of the generation array, where 0 is the
    /// epoch and 1 the edit counter.
    pub(super) fn backend_ids(self) -> RangeInclusive<u32> {
        2..=self.backends.saturating_add(1)
    }
}

/// An entry that carries an id.
pub trait Numbered {
    /// Returns the id.
    fn id(&self) -> u32;
}

impl Numbered for u32 {
    fn id(&self) -> u32 {
        *self
    }
}

/// A BPF map whose values carry ids, and the ids that are in use.
#[derive(Clone, Debug)]
pub struct IdMap<K, V> {
    entries: BTreeMap<K, V>,
    /// One bit an id: what is held is many, and what changes is little.
    used: Vec<u64>,
    /// Ids beyond their first holder, and those too large for `used`: left by a foreign hand.
    odd: BTreeMap<u32, u32>,
}

/// No array of ours reaches this id.
const TOO_LARGE: u32 = 1 << 24;

impl<K, V> Default for IdMap<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), used: Vec::new(), odd: BTreeMap::new() }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for IdMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl<K: Eq, V: Eq> Eq for IdMap<K, V> {}

impl<K: Ord, V: Numbered> FromIterator<(K, V)> for IdMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

impl<K: Ord, V> Deref for IdMap<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.entries
    }
}

impl<K: Ord, V: Numbered> IdMap<K, V> {
    /// Puts an entry.
    pub fn insert(&mut self, key: K, value: V) {
        self.mark(value.id());
        if let Some(old) = self.entries.insert(key, value) {
            self.unmark(old.id());
        }
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: &K) {
        if let Some(old) = self.entries.remove(key) {
            self.unmark(old.id());
        }
    }

    /// Returns the id of the entry, if no other entry has a better right to it: two holders of one
    /// id, or an id outside the range, come from a foreign hand in the map, and the first by key
    /// keeps it.
    pub(super) fn rightful(&self, key: &K, range: &RangeInclusive<u32>) -> Option<u32> {
        let id = self.entries.get(key)?.id();
        let mut holders = self.entries.iter().filter(|(_, value)| value.id() == id);
        let shared = self.odd.contains_key(&id);
        let first = !shared || holders.next().is_some_and(|(first, _)| first == key);
        (range.contains(&id) && first).then_some(id)
    }

    /// Returns the lowest id from `start` to `end` that nobody has.
    pub(super) fn lowest_free(&self, start: u32, end: u32) -> Option<u32> {
        let mut id = start;
        while id <= end {
            let word = self.used.get(id as usize / 64).copied().unwrap_or(0) >> (id % 64);
            if word & 1 == 0 {
                return Some(id);
            }
            id = id.checked_add(word.trailing_ones())?;
        }
        None
    }

    fn mark(&mut self, id: u32) {
        let (index, bit) = (id as usize / 64, 1_u64 << (id % 64));
        if id < TOO_LARGE && self.used.len() <= index {
            self.used.resize(index + 1, 0);
        }
        match self.used.get_mut(index) {
            Some(word) if id < TOO_LARGE && *word & bit == 0 => *word |= bit,
            _ => *self.odd.entry(id).or_default() += 1,
        }
    }

    fn unmark(&mut self, id: u32) {
        if let Entry::Occupied(mut odd) = self.odd.entry(id) {
            *odd.get_mut() -= 1;
            if *odd.get() == 0 {
                odd.remove();
            }
            return;
        }
        if let Some(word) = self.used.get_mut(id as usize / 64) {
            *word &= !(1 << (id % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_lowest_free_id_is_found(
            puts in prop::collection::vec((0..400_u32, 0..300_u32, any::<bool>()), 0..600),
            start in 0..300_u32,
        ) {
            let mut map = IdMap::default();
            for (key, id, stays) in puts {
                if stays { map.insert(key, id) } else { map.remove(&key) }
            }
            let expected = (start..=299).find(|id| !map.values().any(|used| used == id));
            prop_assert_eq!(map.lowest_free(start, 299), expected);
        }

        #[test]
        fn one_id_has_one_rightful_holder(
            puts in prop::collection::vec((0..40_u32, 0..30_u32), 0..60),
        ) {
            let map: IdMap<u32, u32> = puts.into_iter().collect();
            for id in map.values() {
                let rightful = map.keys().filter(|key| map.rightful(key, &(0..=29)) == Some(*id));
                prop_assert_eq!(rightful.count(), 1);
            }
        }
    }

    #[test]
    fn an_id_beyond_every_array_is_nobodys_right() {
        let map: IdMap<u32, u32> = [(1, u32::MAX)].into_iter().collect();
        assert_eq!(map.rightful(&1, &(2..=1000)), None);
        assert_eq!(map.lowest_free(2, 1000), Some(2));
    }
}
