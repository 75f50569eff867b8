//! Which destination has which index in the maps, and what the kernel remembers of its weight.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::{
    abi::hash_capacity,
    hash::{Family, mh},
};
use serde::{Deserialize, Serialize};

use crate::model::{Destination, DestinationKey, Frontend, SchedulerFlags, VirtualServer};

/// The first index of a backend: 0 in a table means nobody.
const FIRST_INDEX: u32 = 1;

/// Frontends of the hash plane, and their backends, as the maps have them. It outlives the agent in a
/// file: the kernel tells nobody which weight a drained destination had before.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Layout {
    carried: BTreeMap<Frontend, Carried>,
    /// Taken indexes of tables.
    tables: BTreeSet<u32>,
    /// Taken indexes of backends.
    backends: BTreeSet<u32>,
    /// The last generation that was given.
    generation: u32,
}

/// The form in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The last that was given: what it was given to may be gone, and flows may still name it.
    generation: u32,
    carried: Vec<Carried>,
}

/// A frontend of the hash plane.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Carried {
    /// What clients dial.
    pub frontend: Frontend,
    /// Index in `hash_tables`.
    pub table: u32,
    /// `mh-port` and `mh-fallback`.
    pub flags: SchedulerFlags,
    /// Its backends, in the kernel's order.
    pub members: Vec<Member>,
}

/// A destination of a frontend of the hash plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// As IPVS has it.
    pub destination: Destination,
    /// Its last weight that was not 0; 0 when it never had another.
    pub last_weight: u32,
    /// Index in `hash_backends`.
    pub index: u32,
    /// No other destination ever has the same index and generation.
    pub generation: u32,
}

/// What became of a frontend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It is as before.
    Same,
    /// The maps have to follow. These members are gone.
    Changed {
        /// Members that have lost their place.
        gone: Vec<Member>,
    },
    /// The kernel drained a destination before anybody looked: whether it still has slots is not
    /// known.
    UnknownWeight(DestinationKey),
    /// There is no index left.
    Full,
}

impl From<Kept> for Layout {
    fn from(Kept { generation, carried }: Kept) -> Self {
        let members = carried.iter().flat_map(|each| &each.members);
        Self {
            tables: carried.iter().map(|each| each.table).collect(),
            backends: members.map(|member| member.index).collect(),
            generation,
            carried: carried.into_iter().map(|each| (each.frontend, each)).collect(),
        }
    }
}

impl From<Layout> for Kept {
    fn from(Layout { generation, carried, .. }: Layout) -> Self {
        Self { generation, carried: carried.into_values().collect() }
    }
}

impl Layout {
    /// Returns the frontends.
    pub fn carried(&self) -> &BTreeMap<Frontend, Carried> {
        &self.carried
    }

    /// Takes up a virtual server and its destinations, as the kernel lists them. `seen_made` says that
    /// all of them were made since somebody has been looking: one of weight 0 never had another.
    pub fn settle(
        &mut self,
        server: &VirtualServer,
        destinations: &[Destination],
        seen_made: bool,
    ) -> Settled {
        let before = self.carried.get(&server.frontend);
        let members: Result<Vec<_>, _> = destinations
            .iter()
            .map(|destination| {
                let held = before.and_then(|carried| carried.member(&destination.key));
                let known = held.is_some() || before.is_some() || seen_made;
                match (destination.weight, held) {
                    (0, None) if !known => Err(destination.key),
                    (0, held) => Ok((held.copied(), held.map_or(0, |held| held.last_weight))),
                    (weight, held) => Ok((held.copied(), weight)),
                }
            })
            .collect();
        let members = match members {
            Ok(members) => members,
            Err(key) => return Settled::UnknownWeight(key),
        };
        let gone: Vec<Member> = before
            .iter()
            .flat_map(|carried| &carried.members)
            .filter(|held| destinations.iter().all(|each| each.key != held.destination.key))
            .copied()
            .collect();
        let table = before.map(|carried| carried.table);
        self.put(server, destinations, members, table, gone)
    }

    fn put(
        &mut self,
        server: &VirtualServer,
        destinations: &[Destination],
        members: Vec<(Option<Member>, u32)>,
        table: Option<u32>,
        gone: Vec<Member>,
    ) -> Settled {
        let new = members.iter().filter(|(held, _)| held.is_none()).count();
        let Some(table) = table.or_else(|| lowest_free(&self.tables, 0, hash_capacity::FRONTENDS))
        else {
            return Settled::Full;
        };
        let room = (hash_capacity::BACKENDS - FIRST_INDEX) as usize;
        if self.backends.len() + new > room {
            return Settled::Full;
        }
        let members = destinations.iter().zip(members).filter_map(|(destination, (held, last))| {
            let (index, generation) = match held {
                Some(held) => (held.index, held.generation),
                None => self.allocate()?,
            };
            Some(Member { destination: *destination, last_weight: last, index, generation })
        });
        let members = members.collect();
        for member in &gone {
            self.backends.remove(&member.index);
        }
        self.tables.insert(table);
        let (frontend, flags) = (server.frontend, server.flags);
        let carried = Carried { frontend, table, flags, members };
        match self.carried.insert(frontend, carried.clone()) {
            Some(before) if before == carried => Settled::Same,
            _ => Settled::Changed { gone },
        }
    }

    fn allocate(&mut self) -> Option<(u32, u32)> {
        let index = lowest_free(&self.backends, FIRST_INDEX, hash_capacity::BACKENDS)?;
        self.backends.insert(index);
        // 0 means that there is none.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        Some((index, self.generation))
    }

    /// Forgets a frontend, and returns what the maps had of it.
    pub fn withdraw(&mut self, frontend: &Frontend) -> Option<Carried> {
        let carried = self.carried.remove(frontend)?;
        self.tables.remove(&carried.table);
        for member in &carried.members {
            self.backends.remove(&member.index);
        }
        Some(carried)
    }
}

/// The indexes of a node are few and change rarely: no list of free ones is kept.
fn lowest_free(taken: &BTreeSet<u32>, first: u32, end: u32) -> Option<u32> {
    let mut free = first;
    for index in taken.range(first..) {
        if *index != free {
            break;
        }
        free += 1;
    }
    (free < end).then_some(free)
}

impl Carried {
    /// Returns the backend of a destination.
    pub fn member(&self, key: &DestinationKey) -> Option<&Member> {
        self.members.iter().find(|member| member.destination.key == *key)
    }

    /// Returns the address family.
    pub fn family(&self) -> Family {
        Family::of(self.frontend.addr)
    }

    /// Returns the destinations as the kernel's table sees them.
    pub fn places(&self) -> Vec<mh::Destination> {
        let place = |member: &Member| {
            let key = member.destination.key;
            mh::Destination::new(key.addr, key.port, self.family(), member.last_weight)
        };
        self.members.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Forwarding, Protocol, Scheduler};

    fn server(port: u16) -> VirtualServer {
        let addr = [192, 0, 2, 1].into();
        VirtualServer {
            frontend: Frontend { addr, port, protocol: Protocol::Tcp },
            scheduler: Scheduler::Mh,
            flags: SchedulerFlags(0x18),
            persistent_secs: 0,
        }
    }

    fn to(host: u8, weight: u32) -> Destination {
        let key = DestinationKey { addr: [10, 0, 0, host].into(), port: 80 };
        Destination { limits: Default::default(), key, weight, forwarding: Forwarding::Route }
    }

    fn members(layout: &Layout, port: u16) -> Vec<(u32, u32, u32)> {
        let members = &layout.carried()[&server(port).frontend].members;
        members.iter().map(|each| (each.index, each.generation, each.last_weight)).collect()
    }

    #[test]
    fn a_destination_keeps_its_index_while_it_is_there() {
        let mut layout = Layout::default();
        layout.settle(&server(80), &[to(2, 1), to(1, 1)], true);
        assert_eq!(members(&layout, 80), [(1, 1, 1), (2, 2, 1)]);
        assert_eq!(layout.settle(&server(80), &[to(2, 1), to(1, 1)], true), Settled::Same);
        layout.settle(&server(80), &[to(3, 1), to(2, 1), to(1, 1)], true);
        assert_eq!(members(&layout, 80), [(3, 3, 1), (1, 1, 1), (2, 2, 1)]);
    }

    #[test]
    fn an_index_is_given_again_with_another_generation() {
        let mut layout = Layout::default();
        layout.settle(&server(80), &[to(2, 1), to(1, 1)], true);
        let settled = layout.settle(&server(80), &[to(1, 1)], true);
        assert!(matches!(settled, Settled::Changed { gone } if gone[0].index == 1));
        layout.settle(&server(81), &[to(2, 1)], true);
        assert_eq!(members(&layout, 81), [(1, 3, 1)]);
        let tables: Vec<u32> = layout.carried().values().map(|each| each.table).collect();
        assert_eq!(tables, [0, 1]);
        assert_eq!(layout.withdraw(&server(80).frontend).unwrap().table, 0);
        layout.settle(&server(82), &[], true);
        assert_eq!(layout.carried()[&server(82).frontend].table, 0);
    }

    #[test]
    fn a_drained_destination_keeps_the_weight_it_had() {
        let mut layout = Layout::default();
        layout.settle(&server(80), &[to(2, 0), to(1, 5)], true);
        assert_eq!(
            members(&layout, 80),
            [(1, 1, 0), (2, 2, 5)],
            "made with 0, it never had another"
        );
        layout.settle(&server(80), &[to(2, 3), to(1, 0)], true);
        assert_eq!(members(&layout, 80), [(1, 1, 3), (2, 2, 5)]);
    }

    #[test]
    fn what_was_drained_before_anybody_looked_is_not_guessed() {
        let mut layout = Layout::default();
        let settled = layout.settle(&server(80), &[to(2, 0), to(1, 1)], false);
        assert_eq!(settled, Settled::UnknownWeight(to(2, 0).key));
        assert!(layout.carried().is_empty());
        layout.settle(&server(80), &[to(2, 1), to(1, 1)], false);
        let settled = layout.settle(&server(80), &[to(2, 0), to(1, 1)], false);
        assert!(matches!(settled, Settled::Changed { .. }), "its weight was seen");
    }

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        let mut layout = Layout::default();
        layout.settle(&server(80), &[to(2, 1), to(1, 0)], true);
        layout.settle(&server(81), &[to(2, 7)], true);
        let text = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), layout);
    }

    #[test]
    fn a_generation_of_what_is_gone_is_not_given_again_by_the_next_agent() {
        let mut layout = Layout::default();
        layout.settle(&server(80), &[to(2, 1), to(1, 1)], true);
        layout.settle(&server(80), &[to(2, 1)], true);
        let text = serde_json::to_string(&layout).unwrap();
        let mut next: Layout = serde_json::from_str(&text).unwrap();
        next.settle(&server(80), &[to(3, 1), to(2, 1)], true);
        assert_eq!(members(&next, 80), [(2, 3, 1), (1, 1, 1)], "the flows of host 1 are not its");
    }

    #[test]
    fn more_than_the_maps_hold_is_refused() {
        let backends = (1..hash_capacity::BACKENDS).collect();
        let mut layout = Layout { backends, ..Layout::default() };
        assert_eq!(layout.settle(&server(80), &[to(1, 1)], true), Settled::Full);
        assert!(layout.carried().is_empty());
    }
}
