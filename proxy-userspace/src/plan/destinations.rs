//! The destinations of one virtual server.

use std::ops::Index;

use crate::model::{Destination, DestinationKey};

/// Destinations by key, sorted. A node holds a few for each of tens of thousands of virtual servers:
/// a tree would take three times the memory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Destinations(Vec<Destination>);

impl Destinations {
    fn position(&self, key: &DestinationKey) -> Result<usize, usize> {
        self.0.binary_search_by(|held| held.key.cmp(key))
    }

    /// Returns a destination.
    pub fn get(&self, key: &DestinationKey) -> Option<&Destination> {
        self.0.get(self.position(key).ok()?)
    }

    /// Returns whether there is a destination of this key.
    pub fn contains_key(&self, key: &DestinationKey) -> bool {
        self.position(key).is_ok()
    }

    /// Puts a destination, and returns the one that had its place.
    pub fn insert(&mut self, destination: Destination) -> Option<Destination> {
        match self.position(&destination.key) {
            Ok(position) => {
                self.0.get_mut(position).map(|held| std::mem::replace(held, destination))
            }
            Err(position) => {
                self.0.insert(position, destination);
                None
            }
        }
    }

    /// Removes a destination, and returns it.
    pub fn remove(&mut self, key: &DestinationKey) -> Option<Destination> {
        self.position(key).ok().map(|position| self.0.remove(position))
    }

    /// Returns the keys, sorted.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &DestinationKey> {
        self.0.iter().map(|destination| &destination.key)
    }

    /// Returns the destinations, sorted by key.
    pub fn iter(&self) -> std::slice::Iter<'_, Destination> {
        self.0.iter()
    }

    /// Keeps those for which `wanted` is true.
    pub fn retain(&mut self, wanted: impl FnMut(&Destination) -> bool) {
        self.0.retain(wanted);
    }
}

impl FromIterator<Destination> for Destinations {
    /// Of several of one key the last is kept.
    fn from_iter<I: IntoIterator<Item = Destination>>(destinations: I) -> Self {
        let mut all: Vec<_> = destinations.into_iter().collect();
        all.reverse();
        all.sort_by_key(|destination| destination.key);
        all.dedup_by_key(|destination| destination.key);
        all.shrink_to_fit();
        Self(all)
    }
}

impl<'a> IntoIterator for &'a Destinations {
    type Item = &'a Destination;
    type IntoIter = std::slice::Iter<'a, Destination>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Index<&DestinationKey> for Destinations {
    type Output = Destination;

    /// # Panics
    ///
    /// There is no destination of this key.
    #[expect(clippy::indexing_slicing, reason = "as of every map")]
    fn index(&self, key: &DestinationKey) -> &Destination {
        let position = self.position(key).unwrap_or(usize::MAX);
        &self.0[position]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Forwarding;

    proptest! {
        #[test]
        fn it_is_a_map(
            edits in prop::collection::vec((1..9_u8, 0..3_u32, any::<bool>()), 0..40),
        ) {
            let (mut ours, mut map) = (Destinations::default(), BTreeMap::new());
            for (host, weight, put) in edits {
                let key = DestinationKey { addr: [10, 1, 0, host].into(), port: 80 };
                let destination = Destination { limits: Default::default(), key, weight, forwarding: Forwarding::Masq };
                if put {
                    prop_assert_eq!(ours.insert(destination), map.insert(key, destination));
                } else {
                    prop_assert_eq!(ours.remove(&key), map.remove(&key));
                }
                prop_assert_eq!(ours.get(&key), map.get(&key));
                prop_assert_eq!(ours.contains_key(&key), map.contains_key(&key));
            }
            prop_assert!(ours.keys().eq(map.keys()) && ours.iter().eq(map.values()));
            prop_assert_eq!(ours.iter().rev().copied().collect::<Destinations>(), ours);
        }
    }
}
