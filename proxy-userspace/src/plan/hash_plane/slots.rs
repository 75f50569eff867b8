//! The table of a frontend: which destination has which slot, and for which slots the kernel is to be
//! asked.

use std::collections::BTreeSet;

use proxy_common::{
    abi::HashSlot,
    hash::{
        Family,
        mh::{self, Size, Table, TooMany},
    },
};

use crate::model::DestinationKey;

/// A destination in its place in the kernel's list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Placed {
    /// The destination.
    pub key: DestinationKey,
    /// Its last weight that was not 0; see [`mh::Destination`].
    pub last_weight: u32,
    /// Its weight is above 0.
    pub takes_new: bool,
}

/// Who has which slot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Slots {
    destinations: Vec<Placed>,
    /// Positions in `destinations`, one a slot.
    owners: Vec<u32>,
}

impl Slots {
    /// Shares the slots out as the kernel does, which has the destinations in this order.
    pub fn build(size: Size, family: Family, destinations: Vec<Placed>) -> Result<Self, TooMany> {
        let listed: Vec<_> = destinations
            .iter()
            .map(|Placed { key, last_weight, .. }| {
                mh::Destination::new(key.addr, key.port, family, *last_weight)
            })
            .collect();
        let owners = match Table::build(size, &listed)?.owners() {
            [] => vec![u32::MAX; usize::try_from(size.slots()).unwrap_or_default()],
            owners => owners.to_vec(),
        };
        Ok(Self { destinations, owners })
    }

    /// Returns the slots whose flows may live elsewhere, after these were their owners: those that
    /// somebody else had, and those whose owner took no new flows, which went on to others, or takes
    /// none any more.
    pub fn moved_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = u32> + 'a {
        let slots = (0..).zip(self.owners.iter().zip(&before.owners));
        slots.filter_map(move |(slot, (now, then))| {
            let owner = |slots: &'a Self, position: &u32| {
                slots.owner(*position).map(|owner| (owner.key, owner.takes_new))
            };
            (owner(self, now) != owner(before, then)).then_some(slot)
        })
    }

    /// Returns the entries of the BPF map, given the index of each destination's backend. The kernel
    /// is asked about slots that are marked, and about those whose owner takes no new flows: theirs
    /// are with it, or with those that others were chosen in its place.
    pub fn entries(
        &self,
        index: impl Fn(&DestinationKey) -> Option<u32>,
        marked: &BTreeSet<u32>,
    ) -> Vec<u32> {
        let indexes: Vec<u32> = self
            .destinations
            .iter()
            .map(|Placed { key, takes_new, .. }| {
                let ask = if *takes_new { 0 } else { HashSlot::ASK };
                index(key).map_or(HashSlot::ASK, |index| index & HashSlot::BACKEND | ask)
            })
            .collect();
        let entry = |(slot, position): (u32, &u32)| {
            let held = usize::try_from(*position).ok().and_then(|at| indexes.get(at));
            let ask = if marked.contains(&slot) { HashSlot::ASK } else { 0 };
            held.copied().unwrap_or_default() | ask
        };
        (0..).zip(&self.owners).map(entry).collect()
    }

    fn owner(&self, position: u32) -> Option<&Placed> {
        self.destinations.get(usize::try_from(position).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(host: u8, last_weight: u32) -> Placed {
        let key = DestinationKey { addr: [10, 1, 0, host].into(), port: 8080 };
        Placed { key, last_weight, takes_new: last_weight > 0 }
    }

    fn slots(destinations: &[Placed]) -> Slots {
        Slots::build(Size::DEFAULT, Family::Ipv4, destinations.to_vec()).unwrap()
    }

    /// The backend of 10.1.0.N has index N.
    fn index(key: &DestinationKey) -> Option<u32> {
        match key.addr {
            std::net::IpAddr::V4(addr) => Some(addr.octets()[3].into()),
            std::net::IpAddr::V6(_) => None,
        }
    }

    fn entries(slots: &Slots, marked: &[u32]) -> Vec<u32> {
        slots.entries(index, &marked.iter().copied().collect())
    }

    #[test]
    fn entries_are_the_owners_that_the_kernel_has() {
        let table = slots(&[placed(12, 1), placed(11, 1), placed(10, 1)]);
        let found = entries(&table, &[]);
        assert_eq!(found.len(), 4093);
        // As seen on three kernels.
        let first = [11, 10, 11, 12, 10, 12, 11, 10, 10, 11, 10, 11, 11, 11, 10, 11];
        assert_eq!(found[..16], first);
    }

    #[test]
    fn a_marked_slot_keeps_its_owner_and_asks() {
        let table = slots(&[placed(12, 1), placed(11, 1)]);
        let (plain, asked) = (entries(&table, &[]), entries(&table, &[7]));
        assert_eq!(asked[7], plain[7] | HashSlot::ASK);
        assert!(plain.iter().all(|entry| entry & HashSlot::ASK == 0));
        assert_eq!(asked.iter().filter(|entry| *entry & HashSlot::ASK != 0).count(), 1);
    }

    #[test]
    fn the_same_owners_in_another_place_have_moved_nothing() {
        let before = slots(&[placed(12, 1)]);
        assert_eq!(before.moved_since(&before).count(), 0);
        // Nobody has a slot of a destination that has never had a weight.
        let after = slots(&[placed(9, 0), placed(12, 1)]);
        assert_eq!(after.moved_since(&before).count(), 0);
    }

    #[test]
    fn what_another_destination_had_has_moved() {
        let before = slots(&[placed(12, 1), placed(11, 1)]);
        let after = slots(&[placed(10, 1), placed(12, 1), placed(11, 1)]);
        let (old, new) = (entries(&before, &[]), entries(&after, &[]));
        let changed = |slot: &u32| old[*slot as usize] != new[*slot as usize];
        let expected: Vec<u32> = (0..4093).filter(changed).collect();
        assert!(!expected.is_empty() && expected.len() < 4093);
        assert_eq!(after.moved_since(&before).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn slots_of_one_that_drains_ask_and_have_moved_when_it_is_back() {
        let drained = Placed { takes_new: false, ..placed(12, 1) };
        let (whole, drain) =
            (slots(&[placed(12, 1), placed(11, 1)]), slots(&[drained, placed(11, 1)]));
        let asked: Vec<u32> = (0..)
            .zip(entries(&drain, &[]))
            .filter_map(|(slot, entry)| (entry == 12 | HashSlot::ASK).then_some(slot))
            .collect();
        let owned = entries(&whole, &[]).iter().filter(|entry| **entry == 12).count();
        assert_eq!(asked.len(), owned);
        assert_eq!(drain.moved_since(&whole).collect::<Vec<_>>(), asked);
        assert_eq!(whole.moved_since(&drain).collect::<Vec<_>>(), asked);
    }

    #[test]
    fn without_any_weight_nobody_has_a_slot() {
        let table = slots(&[placed(12, 0)]);
        assert_eq!(entries(&table, &[]), [0; 4093]);
        assert_eq!(entries(&table, &[0])[0], HashSlot::ASK);
        let before = slots(&[placed(12, 1)]);
        assert_eq!(table.moved_since(&before).count(), 4093);
    }

    #[test]
    fn a_destination_without_a_backend_is_left_to_the_kernel() {
        let table = slots(&[placed(12, 1)]);
        let found = table.entries(|_| None, &BTreeSet::new());
        assert!(found.iter().all(|entry| *entry == HashSlot::ASK));
    }
}
