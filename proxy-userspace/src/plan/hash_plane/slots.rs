//! The table of a frontend as the map has it, and what of it changed.

use std::net::IpAddr;

use proxy_common::{
    abi::HashSlot,
    hash::{
        mh::{Size, Table, TooMany},
        word,
    },
};

use super::{Carried, Member};
use crate::model::SchedulerFlags;

/// `mh-fallback` and `mh-port`.
const FALLBACK: SchedulerFlags = SchedulerFlags(0x08);
const PORT: SchedulerFlags = SchedulerFlags(0x10);

/// The table of one frontend: the kernel's, and the map's.
#[derive(Clone, Debug)]
pub struct Slots {
    table: Table,
    values: Vec<u32>,
}

impl Slots {
    /// Builds the table. `before` is what the map has; empty when it has nothing.
    ///
    /// A slot whose backend is another than before is marked, and so is one whose backend takes
    /// nothing: flows may live elsewhere that the kernel knows of. Marks of before stay, until
    /// [`Slots::unmark`].
    ///
    /// # Errors
    ///
    /// [`TooMany`]: the kernel refuses as many.
    pub fn build(size: Size, carried: &Carried, before: &[u32]) -> Result<Self, TooMany> {
        let table = Table::build(size, &carried.places())?;
        let value = |slot: usize| {
            let member = table.owners().get(slot).and_then(|at| carried.members.get(*at as usize));
            let Some(member) = member else { return 0 };
            let had = before.get(slot).copied();
            let moved = had.is_some_and(|had| {
                had & HashSlot::ASK != 0 || had & HashSlot::BACKEND != member.index
            });
            let ask = moved || member.destination.weight == 0;
            member.index | if ask { HashSlot::ASK } else { 0 }
        };
        let values = (0..size.slots() as usize).map(value).collect();
        Ok(Self { table, values })
    }

    /// Returns what the map shall have, a [`HashSlot`] each.
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// Says whether a slot is marked whose backend takes new flows: one whose mark ends.
    pub fn is_marked(&self, carried: &Carried) -> bool {
        let drained = drained(carried);
        self.values.iter().any(|value| {
            value & HashSlot::ASK != 0 && !drained.contains(&(value & HashSlot::BACKEND))
        })
    }

    /// Takes the marks away, but of slots whose backend takes nothing.
    pub fn unmark(&mut self, carried: &Carried) {
        let drained = drained(carried);
        for value in &mut self.values {
            if !drained.contains(&(*value & HashSlot::BACKEND)) {
                *value &= !HashSlot::ASK;
            }
        }
    }

    /// Marks all slots: flows may live anywhere that nobody has told us of.
    pub fn mark_all(&mut self) {
        for value in &mut self.values {
            *value |= HashSlot::ASK;
        }
    }

    /// Returns the backend that IPVS would choose for a client that it does not know.
    pub fn choice<'a>(
        &self,
        carried: &'a Carried,
        (addr, port): (IpAddr, u16),
    ) -> Option<&'a Member> {
        let port = if is_set(carried.flags, PORT) { port } else { 0 };
        let client = word(addr, carried.family()).wrapping_add(port.into());
        let member = |position: u32| carried.members.get(position as usize);
        let takes_new =
            |position| member(position).is_some_and(|member| member.destination.weight > 0);
        let fallback = is_set(carried.flags, FALLBACK);
        self.table.choose(client, fallback, takes_new).and_then(member)
    }
}

fn is_set(flags: SchedulerFlags, flag: SchedulerFlags) -> bool {
    flags.0 & flag.0 != 0
}

fn drained(carried: &Carried) -> Vec<u32> {
    let members = carried.members.iter();
    members.filter(|each| each.destination.weight == 0).map(|each| each.index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            Destination, DestinationKey, Forwarding, Frontend, Protocol, Scheduler, VirtualServer,
        },
        plan::hash_plane::Layout,
    };

    const SIZE: Size = Size::DEFAULT;

    /// The frontend with these destinations, by host and weight, in the kernel's order.
    fn settle(layout: &mut Layout, destinations: &[(u8, u32)]) -> Carried {
        let frontend = Frontend { addr: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::Tcp };
        let (scheduler, flags) = (Scheduler::Mh, SchedulerFlags(0x18));
        let server = VirtualServer { frontend, scheduler, flags, persistent_secs: 0 };
        let destinations: Vec<_> = destinations
            .iter()
            .map(|&(host, weight)| {
                let key = DestinationKey { addr: [10, 0, 0, host].into(), port: 80 };
                Destination {
                    limits: Default::default(),
                    key,
                    weight,
                    forwarding: Forwarding::Route,
                }
            })
            .collect();
        layout.settle(&server, &destinations, true);
        layout.carried()[&frontend].clone()
    }

    fn asked(slots: &Slots) -> usize {
        slots.values().iter().filter(|value| *value & HashSlot::ASK != 0).count()
    }

    #[test]
    fn a_first_table_has_no_marks() {
        let carried = settle(&mut Layout::default(), &[(2, 1), (1, 1)]);
        let slots = Slots::build(SIZE, &carried, &[]).unwrap();
        assert_eq!(slots.values().len(), 4093);
        assert_eq!(asked(&slots), 0);
        assert!(slots.values().iter().all(|value| matches!(value, 1 | 2)));
    }

    #[test]
    fn slots_that_move_are_marked_and_no_others() {
        let mut layout = Layout::default();
        let carried = settle(&mut layout, &[(2, 1), (1, 1)]);
        let before = Slots::build(SIZE, &carried, &[]).unwrap();
        let carried = settle(&mut layout, &[(3, 1), (2, 1), (1, 1)]);
        let mut after = Slots::build(SIZE, &carried, before.values()).unwrap();
        for (value, had) in after.values().iter().zip(before.values()) {
            assert_eq!(value & HashSlot::ASK != 0, value & HashSlot::BACKEND != *had);
        }
        assert!(after.is_marked(&carried));
        let again = Slots::build(SIZE, &carried, after.values()).unwrap();
        assert_eq!(asked(&again), asked(&after), "marks stay");
        after.unmark(&carried);
        assert_eq!(asked(&after), 0);
        assert!(!after.is_marked(&carried));
    }

    #[test]
    fn the_slots_of_a_drained_backend_are_marked_as_long_as_it_drains() {
        let mut layout = Layout::default();
        let carried = settle(&mut layout, &[(2, 1), (1, 1)]);
        let before = Slots::build(SIZE, &carried, &[]).unwrap();
        let carried = settle(&mut layout, &[(2, 0), (1, 1)]);
        let mut after = Slots::build(SIZE, &carried, before.values()).unwrap();
        let moved = after.values().iter().zip(before.values());
        assert!(moved.into_iter().all(|(value, had)| value & HashSlot::BACKEND == *had));
        let drained = carried.members[0].index;
        let of_it = before.values().iter().filter(|value| **value == drained).count();
        assert_eq!(asked(&after), of_it);
        after.unmark(&carried);
        assert_eq!(asked(&after), of_it);
        assert!(!after.is_marked(&carried));
    }

    #[test]
    fn ipvs_would_choose_another_one_where_the_slots_backend_drains() {
        let mut layout = Layout::default();
        let carried = settle(&mut layout, &[(2, 1), (1, 1)]);
        let before = Slots::build(SIZE, &carried, &[]).unwrap();
        let drained = settle(&mut layout, &[(2, 0), (1, 1)]);
        let after = Slots::build(SIZE, &drained, before.values()).unwrap();
        let (mut moved, mut stayed) = (0, 0);
        for port in 1000..1200 {
            let client = (IpAddr::from([198, 51, 100, 7]), port);
            let had = before.choice(&carried, client).unwrap().index;
            let has = after.choice(&drained, client).unwrap().index;
            assert_eq!(has, carried.members[1].index);
            if had == has { stayed += 1 } else { moved += 1 }
        }
        assert!(moved > 50 && stayed > 50, "{moved} {stayed}");
    }

    #[test]
    fn a_table_without_weights_is_of_nobody() {
        let carried = settle(&mut Layout::default(), &[(1, 0)]);
        let slots = Slots::build(SIZE, &carried, &[]).unwrap();
        assert!(slots.values().iter().all(|value| *value == 0));
        assert!(slots.choice(&carried, ([198, 51, 100, 7].into(), 1)).is_none());
    }
}
