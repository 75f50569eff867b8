//! Tables against those of real kernels, and what must hold of all of them.

use core::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::hash::ipv4;

/// Addresses with these last bytes, in the kernel's order.
fn destinations(prefix: &str, last: &[u32], port: u16, weights: &[u32]) -> Vec<Destination> {
    let at = |(last, weight): (&u32, &u32)| {
        let addr: IpAddr = format!("{prefix}{last}").parse().unwrap();
        Destination::new(addr, port, Family::of(addr), *weight)
    };
    last.iter().zip(weights).map(at).collect()
}

fn table(destinations: &[Destination]) -> Table {
    Table::build(Size::DEFAULT, destinations).unwrap()
}

/// CRC-32 of the owners, a byte each.
fn checksum(table: &Table) -> u32 {
    !table.owners().iter().fold(!0_u32, |sum, owner| {
        (0..8).fold(sum ^ owner, |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

fn three(weights: [u32; 3]) -> Vec<Destination> {
    destinations("10.1.0.", &[12, 11, 10], 8080, &weights)
}

#[test]
fn destinations_start_and_step_as_in_the_kernel() {
    let found: Vec<_> = turns(Size::DEFAULT, &three([1; 3]))
        .iter()
        .map(|turns| (turns.slot, turns.step, turns.slots))
        .collect();
    assert_eq!(found, [(1584, 3324, 1), (2077, 3059, 1), (3944, 3950, 1)]);
}

#[test]
fn tables_are_those_of_the_kernel() {
    let equal = table(&three([1; 3]));
    assert_eq!(equal.owners()[..16], [1, 2, 1, 0, 2, 0, 1, 2, 2, 1, 2, 1, 1, 1, 2, 1]);
    assert_eq!(checksum(&equal), 0x937d_7144);
    let weighted = destinations("10.1.0.", &[23, 22, 21, 20], 80, &[200, 3, 2, 1]);
    let weighted = table(&weighted);
    let slots =
        |position: u32| weighted.owners().iter().filter(|owner| **owner == position).count();
    assert_eq!([0, 1, 2, 3].map(slots), [3862, 77, 77, 77]);
    assert_eq!(checksum(&weighted), 0x256b_5d40);
    let ipv6 = table(&destinations("2001:db8:1::", &[5, 4, 3, 2, 1], 80, &[1; 5]));
    assert_eq!(checksum(&ipv6), 0x0f03_efd8);
}

#[test]
fn clients_go_where_the_kernel_sent_them() {
    let table = table(&three([1; 3]));
    for (client, port, slot, owner) in [
        ([100, 81, 75, 80], 15_965, 1599, 2),
        ([100, 92, 29, 112], 18_314, 175, 0),
        ([100, 79, 54, 243], 10_455, 864, 1),
    ] {
        let client = ipv4(client) + port;
        assert_eq!(Size::DEFAULT.slot(client, 0), slot);
        assert_eq!(table.choose(client, false, |_| true), Some(owner));
        // It takes nothing new: with mh-fallback somebody else does, without it nobody.
        let available = |position| position != owner;
        assert_eq!(table.choose(client, false, available), None);
        assert!(table.choose(client, true, available).is_some_and(available));
        assert_eq!(table.choose(client, true, |_| false), None);
    }
}

#[test]
fn a_drain_moves_nobody_and_a_destination_without_any_weight_has_no_slot() {
    // The weight is 0 now, and the kernel remembers the one before.
    assert_eq!(table(&three([7; 3])), table(&three([1; 3])));
    let without = table(&three([0, 1, 1]));
    assert!(without.owners().iter().all(|owner| *owner != 0));
    assert_eq!(without.owners().len(), 4093);
}

#[test]
fn nobody_is_chosen_of_nobody() {
    for destinations in [vec![], three([0; 3])] {
        let table = table(&destinations);
        assert_eq!(table.owners(), []);
        assert_eq!(table.choose(7, true, |_| true), None);
    }
}

#[test]
fn more_destinations_than_slots_are_refused() {
    let size = Size::of_index(8).unwrap();
    let some = |count| vec![Destination { place: 1, last_weight: 1 }; count];
    assert!(Table::build(size, &some(251)).is_ok());
    let error = Table::build(size, &some(252)).unwrap_err();
    assert_eq!(error.to_string(), "252 destinations, and mh has 251 slots in this kernel");
}

#[test]
fn sizes_are_the_primes_of_the_kernel() {
    for size in Size::all() {
        let slots = size.slots();
        assert!(slots < 1 << size.index() && slots + 32 > 1 << size.index());
        assert!((2..slots).take_while(|n| n * n <= slots).all(|n| !slots.is_multiple_of(n)));
    }
    assert_eq!((Size::of_index(7), Size::of_index(18)), (None, None));
}

fn any_destinations() -> impl Strategy<Value = Vec<Destination>> {
    let one = (any::<u32>(), prop_oneof![0..4_u32, 1..1_u32 << 31])
        .prop_map(|(place, last_weight)| Destination { place, last_weight });
    prop::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn every_slot_has_an_owner_and_shares_follow_the_weights(
        all in any_destinations(),
        index in Size::LEAST_INDEX..=13,
    ) {
        let size = Size::of_index(index).unwrap();
        let table = Table::build(size, &all).unwrap();
        let all_turns = turns(size, &all);
        if all.iter().all(|destination| destination.last_weight == 0) {
            prop_assert!(table.owners().is_empty());
            return Ok(());
        }
        prop_assert_eq!(table.owners().len(), size.slots() as usize);
        // Of whole rounds each has its turns; of the one that the table ends in, no more.
        let round: u32 = all_turns.iter().map(|turns| turns.slots).sum();
        for (position, destination) in all.iter().enumerate() {
            let has = table.owners().iter().filter(|owner| **owner as usize == position).count();
            let turns = all_turns.iter().find(|turns| turns.position as usize == position);
            let turns = turns.map_or(0, |turns| turns.slots);
            prop_assert_eq!(turns == 0, destination.last_weight == 0);
            prop_assert!(turns < 1 << weight_bits(size));
            let least = size.slots() / round * turns;
            prop_assert!((least..=least + turns).contains(&(has as u32)));
        }
    }

    #[test]
    fn a_choice_is_available_or_nobody(
        all in any_destinations(),
        client: u32,
        drained: u64,
        fallback: bool,
    ) {
        let table = Table::build(Size::of_index(9).unwrap(), &all).unwrap();
        let available = |position: u32| drained >> position & 1 == 0;
        let plain = table.choose(client, false, |_| true);
        let chosen = table.choose(client, fallback, available);
        prop_assert!(chosen.is_none_or(available));
        if plain.is_some_and(available) {
            prop_assert_eq!(chosen, plain);
        } else if !fallback {
            prop_assert_eq!(chosen, None);
        }
    }

    #[test]
    fn one_destination_more_moves_few_clients_elsewhere(place: u32) {
        let mut all: Vec<_> =
            (0..20).map(|n| Destination { place: place.wrapping_add(n), last_weight: 1 }).collect();
        let before = table(&all);
        // The newest is the first of the kernel's list.
        all.insert(0, Destination { place: place.wrapping_add(99), last_weight: 1 });
        let after = table(&all);
        let moved = before.owners().iter().zip(after.owners());
        let moved = moved.filter(|(before, after)| **after > 0 && **before + 1 != **after).count();
        prop_assert!(moved < 4093 / 8, "{} of 4093 slots moved between old destinations", moved);
    }
}
