//! Schedulers `sh` and `dh`: tables of 256 slots.

use super::{FIXED_SLOTS, fall_back, fixed_slot};

/// Position of the destination that has each slot; `None` when there is no destination.
type Owners = Option<[u32; FIXED_SLOTS as usize]>;

/// The table of scheduler `sh`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShTable(Owners);

impl ShTable {
    /// Fills the table from the weights in the kernel's order. Each destination in turn takes as many
    /// slots as its weight, one at least: also one that takes nothing.
    pub fn build(weights: &[u32]) -> Self {
        let mut cycle = (0..).zip(weights).cycle();
        let (mut position, mut left) = (0, 0_u32);
        Self((!weights.is_empty()).then(|| {
            [(); FIXED_SLOTS as usize].map(|()| {
                if left == 0
                    && let Some((next, weight)) = cycle.next()
                {
                    (position, left) = (next, (*weight).max(1));
                }
                left -= 1;
                position
            })
        }))
    }

    /// Returns the position of the destination that a client is sent to: the word of its address and,
    /// with `sh-port`, its port added. `available` says of a position whether its weight is above 0.
    pub fn choose(
        &self,
        client: u32,
        fallback: bool,
        available: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let owner = |slot: u32| self.0?.get(slot as usize).copied();
        let first = fixed_slot(client, 0);
        let named = owner(first)?;
        if available(named) {
            return Some(named);
        }
        let slot_at = |offset| fixed_slot(client, offset);
        fallback.then(|| fall_back(first, FIXED_SLOTS, slot_at, owner, available)).flatten()
    }
}

/// The table of scheduler `dh`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DhTable {
    destinations: u32,
}

impl DhTable {
    /// Makes the table of so many destinations, which take a slot each, in turn.
    pub fn build(destinations: u32) -> Self {
        Self { destinations }
    }

    /// Returns the position of the destination that connections to a frontend are sent to, by the word
    /// of its address. The kernel asks nobody else when that one's weight is 0.
    pub fn choose(&self, frontend: u32, available: impl Fn(u32) -> bool) -> Option<u32> {
        fixed_slot(frontend, 0).checked_rem(self.destinations).filter(|owner| available(*owner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::ipv4;

    /// Seen on real kernels with `sh-port`.
    #[test]
    fn slots_are_those_of_the_kernel() {
        for (client, port, expected) in [
            ([100, 71, 1, 74], 19_864, 101),
            ([100, 67, 211, 151], 40_991, 255),
            ([100, 107, 248, 112], 15_324, 36),
        ] {
            assert_eq!(fixed_slot(ipv4(client) + port, 0), expected, "{client:?}");
        }
    }

    /// A place whose first slot is this one.
    fn place(slot: u32) -> u32 {
        (0..).find(|place| fixed_slot(*place, 0) == slot).unwrap()
    }

    fn owners(table: &ShTable) -> Vec<Option<u32>> {
        (0..FIXED_SLOTS).map(|slot| table.choose(place(slot), false, |_| true)).collect()
    }

    #[test]
    fn sh_gives_slots_by_weight_and_one_at_least() {
        let found = owners(&ShTable::build(&[2, 0, 3]));
        let cycle = [0, 0, 1, 2, 2, 2].map(Some);
        let expected: Vec<_> = cycle.into_iter().cycle().take(256).collect();
        assert_eq!(found, expected);
        assert_eq!(owners(&ShTable::build(&[300, 1])), vec![Some(0); 256]);
        assert_eq!(owners(&ShTable::build(&[])), vec![None; 256]);
    }

    #[test]
    fn sh_refuses_who_hashes_to_a_drained_destination_but_for_the_fallback() {
        let table = ShTable::build(&[1, 1]);
        let available = |position| position == 1;
        assert_eq!(table.choose(place(4), false, available), None);
        assert_eq!(table.choose(place(5), false, available), Some(1));
        assert_eq!(table.choose(place(4), true, available), Some(1));
        assert_eq!(table.choose(place(4), true, |_| false), None);
        assert_eq!(ShTable::build(&[]).choose(place(4), true, available), None);
    }

    #[test]
    fn dh_takes_destinations_in_turn_whatever_they_weigh() {
        let table = DhTable::build(3);
        assert_eq!(table.choose(place(7), |_| true), Some(1));
        assert_eq!(table.choose(place(255), |_| true), Some(0));
        assert_eq!(table.choose(place(7), |position| position != 1), None);
        assert_eq!(DhTable::build(0).choose(place(7), |_| true), None);
    }
}
