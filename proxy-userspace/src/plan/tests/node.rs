//! Nodes with a past.

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    strategy::Union,
};

use super::{ROOMY, decide, generate::world, settle};
use crate::{
    model::{
        Destination, DestinationKey, Forwarding, Frontend, Protocol, Scheduler, SchedulerFlags,
        VirtualServer,
    },
    plan::{Destinations, FrontendEntry, Observed, ObservedServer},
};

fn foreign(frontend: Frontend) -> ObservedServer {
    ObservedServer {
        virtual_server: VirtualServer {
            frontend,
            scheduler: Scheduler::Sh,
            flags: SchedulerFlags::default(),
            persistent_secs: 60,
        },
        destinations: Destinations::default(),
        owned: false,
        order: Vec::new(),
    }
}

/// What happens to a node behind the agent's back.
#[derive(Clone, Debug)]
enum Accident {
    LoseServer(Index),
    LoseDestinations(Index),
    LoseVips,
    LoseTable,
    LoseDevice,
    LoseFrontend(Index),
    LoseBackend(Index),
    LoseLocalPort(Index),
    LocalPortElsewhere(Index, u8),
    SameFrontendIds,
    SameBackendIds(u32),
    ForeignServer(u8),
    Weights(u32),
    StrayDestination(Index),
}

fn accident() -> impl Strategy<Value = Accident> {
    Union::new([
        any::<Index>().prop_map(Accident::LoseServer).boxed(),
        any::<Index>().prop_map(Accident::LoseDestinations).boxed(),
        Just(Accident::LoseVips).boxed(),
        Just(Accident::LoseTable).boxed(),
        Just(Accident::LoseDevice).boxed(),
        any::<Index>().prop_map(Accident::LoseFrontend).boxed(),
        any::<Index>().prop_map(Accident::LoseBackend).boxed(),
        any::<Index>().prop_map(Accident::LoseLocalPort).boxed(),
        (any::<Index>(), 0..6_u8)
            .prop_map(|(index, number)| Accident::LocalPortElsewhere(index, number))
            .boxed(),
        Just(Accident::SameFrontendIds).boxed(),
        select(vec![0, 2, 7, u32::MAX]).prop_map(Accident::SameBackendIds).boxed(),
        (0..6_u8).prop_map(Accident::ForeignServer).boxed(),
        (0..3_u32).prop_map(Accident::Weights).boxed(),
        any::<Index>().prop_map(Accident::StrayDestination).boxed(),
    ])
}

fn pick<K: Copy + Ord, V>(map: &BTreeMap<K, V>, index: &Index) -> Option<K> {
    (!map.is_empty()).then(|| **index.get(&map.keys().collect::<Vec<_>>()))
}

fn happen(observed: &mut Observed, accident: &Accident) {
    match accident {
        Accident::LoseServer(index) => {
            if let Some(key) = pick(&observed.servers, index) {
                observed.servers.remove(&key);
            }
        }
        Accident::LoseDestinations(index) => {
            if !observed.servers.is_empty() {
                let number = index.index(observed.servers.len());
                let server = observed.servers.values_mut().nth(number).unwrap();
                server.destinations = Destinations::default();
                server.order.clear();
            }
        }
        Accident::LoseVips => observed.vips.clear(),
        Accident::LoseTable => observed.table = None,
        Accident::LoseDevice => observed.device = false,
        Accident::LoseFrontend(index) => {
            if let Some(key) = pick(&observed.frontends, index) {
                observed.frontends.remove(&key);
            }
        }
        Accident::LoseBackend(index) => {
            if let Some(key) = pick(&observed.backends, index) {
                observed.backends.remove(&key);
            }
        }
        Accident::LoseLocalPort(index) => {
            if let Some(ports) = &mut observed.local_ports
                && let Some(key) = pick(ports, index)
            {
                ports.remove(&key);
            }
        }
        Accident::LocalPortElsewhere(index, number) => {
            if let Some(ports) = &mut observed.local_ports
                && let Some(key) = pick(ports, index)
            {
                ports.insert(key, foreign_frontend(*number));
            }
        }
        Accident::SameFrontendIds => {
            let same = |(key, entry): (&Frontend, &FrontendEntry)| {
                (*key, FrontendEntry { id: 1, ..*entry })
            };
            observed.frontends = observed.frontends.iter().map(same).collect();
        }
        Accident::SameBackendIds(id) => {
            observed.backends = observed.backends.keys().map(|key| (*key, *id)).collect();
        }
        Accident::ForeignServer(number) => {
            let frontend = foreign_frontend(*number);
            observed.servers.insert(frontend, foreign(frontend));
        }
        Accident::Weights(weight) => {
            for server in observed.servers.values_mut().filter(|server| server.owned) {
                let held = server.destinations.iter();
                let changed = held.map(|held| Destination { weight: *weight, ..*held });
                server.destinations = changed.collect();
            }
        }
        Accident::StrayDestination(index) => {
            if let Some(key) = pick(&observed.servers, index) {
                let server = observed.servers.get_mut(&key).unwrap();
                let addr = if key.addr.is_ipv6() { "fd00:9::9" } else { "10.9.0.9" };
                let key = DestinationKey { addr: addr.parse().unwrap(), port: 9 };
                let destination = Destination {
                    limits: Default::default(),
                    key,
                    weight: 1,
                    forwarding: Forwarding::Masq,
                };
                if server.destinations.insert(destination).is_none() {
                    server.order.push(key);
                }
            }
        }
    }
}

/// Frontends that the Services may claim too.
fn foreign_frontend(number: u8) -> Frontend {
    let addrs = ["10.96.0.1", "10.96.0.2", "192.0.2.1", "2001:db8::1", "fd00:96::1", "172.16.0.1"];
    let addr = addrs[usize::from(number)].parse().unwrap();
    Frontend { addr, port: 80, protocol: Protocol::Tcp }
}

/// A node that has served another world, and then had accidents.
pub(super) fn node() -> impl Strategy<Value = Observed> {
    (world(), vec(accident(), 0..4), any::<(bool, bool)>()).prop_map(
        |(history, accidents, (fast_path, localhost))| {
            let local_ports = localhost.then(BTreeMap::new);
            let observed = Observed { fast_path, local_ports, ..Observed::default() };
            let mut observed = settle(observed, &decide(&history), &ROOMY);
            accidents.iter().for_each(|accident| happen(&mut observed, accident));
            observed
        },
    )
}

pub(super) fn foreign_of(observed: &Observed) -> BTreeMap<Frontend, ObservedServer> {
    let servers = observed.servers.clone().into_iter();
    servers.filter(|(_, server)| !server.owned).collect()
}

/// Virtual servers of others on a node where we have done nothing yet.
pub(super) fn foreign_node() -> impl Strategy<Value = Observed> {
    (vec(0..6_u8, 0..3), any::<bool>()).prop_map(|(foreign, fast_path)| {
        let mut observed = Observed { fast_path, ..Observed::default() };
        foreign
            .into_iter()
            .for_each(|number| happen(&mut observed, &Accident::ForeignServer(number)));
        observed
    })
}
