//! Things that several owners want: they stay while one of them does.

use std::collections::{BTreeMap, BTreeSet};

/// A set that counts how often each member was added, and remembers which came or went.
#[derive(Clone, Debug)]
pub struct Counted<K> {
    counts: BTreeMap<K, u32>,
    touched: BTreeSet<K>,
}

impl<K> Default for Counted<K> {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), touched: BTreeSet::new() }
    }
}

/// Sets are equal when their members are.
impl<K: Ord> PartialEq for Counted<K> {
    fn eq(&self, other: &Self) -> bool {
        self.counts.keys().eq(other.counts.keys())
    }
}

impl<K: Ord> Eq for Counted<K> {}

impl<K: Clone + Ord> Counted<K> {
    /// Adds one owner of `key`.
    pub(super) fn add(&mut self, key: &K) {
        match self.counts.get_mut(key) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(key.clone(), 1);
                self.touched.insert(key.clone());
            }
        }
    }

    /// Takes one owner of `key` away.
    pub(super) fn take(&mut self, key: &K) {
        match self.counts.get_mut(key) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.counts.remove(key);
                self.touched.insert(key.clone());
            }
            None => {}
        }
    }

    /// Returns whether somebody wants `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.counts.contains_key(key)
    }

    /// Returns the members, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &K> {
        self.counts.keys()
    }

    /// Returns the members that came or went since the last call.
    pub(super) fn touched(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.touched)
    }
}
