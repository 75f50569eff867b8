//! Numbers that name frontends and backends in the BPF maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
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

/// Who has which id.
pub(super) struct Assignment<K> {
    /// The ids of those that have one.
    pub(super) ids: BTreeMap<K, u32>,
    /// Those that do not fit, in the order they were asked for.
    pub(super) left_out: Vec<K>,
}

/// Gives each of `wanted` an id: the one it holds, or the lowest free one, in the order of
/// `wanted`.
///
/// An id in `held` counts as used even if its holder is no longer wanted: a flow entry may carry
/// it until the plan is through. Two holders of one id, or an id outside the range, come from a
/// foreign hand in the map: the first by key keeps it, the others get new ones.
pub(super) fn assign<K: Copy + Ord>(
    held: impl IntoIterator<Item = (K, u32)>,
    wanted: impl IntoIterator<Item = K>,
    range: RangeInclusive<u32>,
) -> Assignment<K> {
    let mut used = BTreeSet::new();
    let held: BTreeMap<K, u32> =
        held.into_iter().filter(|(_, id)| range.contains(id) && used.insert(*id)).collect();
    let mut free = range.filter(|id| !used.contains(id));
    let mut assignment = Assignment { ids: BTreeMap::new(), left_out: Vec::new() };
    for key in wanted {
        if assignment.ids.contains_key(&key) {
            continue;
        }
        match held.get(&key).copied().or_else(|| free.next()) {
            Some(id) => {
                assignment.ids.insert(key, id);
            }
            None => assignment.left_out.push(key),
        }
    }
    assignment
}
