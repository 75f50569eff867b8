//! Properties of every plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{Index, select},
    strategy::Union,
};

use super::{
    Action, Desired, Drains, FrontendEntry, Limits, NodeFacts, Observed, ObservedServer, Plan,
    Settings, desired,
};
use crate::model::{
    Element, Endpoint, EndpointPort, EndpointSlice, FastPath, Forwarding, Frontend, Protocol,
    Scheduler, SchedulerFlags, Service, ServiceKind, ServiceName, ServicePort, SliceName, Snapshot,
    Sources, TrafficPolicy, VirtualServer, Weights,
};

const ROOMY: Limits = Limits { frontends: 1_000, backends: 1_000 };

fn address(net: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(10, net, 0, host).into()
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    let names =
        [("default", "kubernetes"), ("kube-system", "kube-dns"), ("shop", "a"), ("shop", "b")];
    select(names.to_vec()).prop_map(|(namespace, name)| ServiceName {
        namespace: namespace.into(),
        name: name.into(),
    })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}

fn service() -> impl Strategy<Value = Service> {
    let port_key = (select(vec![53_u16, 80]), protocol());
    let port_value = option::of(select(vec![30_053_u16, 30_080, 53]));
    (
        service_name(),
        select(vec![ServiceKind::ClusterIP, ServiceKind::NodePort]),
        vec((1..4_u8).prop_map(|host| address(96, host)), 1..3),
        btree_map(port_key, port_value, 1..4),
        option::of(select(vec![Scheduler::Rr, Scheduler::Mh, Scheduler::Wlc])),
        select(vec![FastPath::On, FastPath::Off]),
        option::of(0..3_i64),
    )
        .prop_map(|(name, kind, cluster_ips, ports, scheduler, fast_path, created_at)| {
            let ports = ports.into_iter().map(|((port, protocol), node_port)| ServicePort {
                name: format!("{port}-{protocol}"),
                protocol,
                port,
                node_port,
            });
            let ports = ports.collect();
            Service {
                name,
                kind,
                cluster_ips,
                external_ips: Vec::new(),
                load_balancer_ips: Vec::new(),
                sources: Sources::Any,
                ports,
                internal_policy: TrafficPolicy::Cluster,
                external_policy: TrafficPolicy::Cluster,
                affinity_secs: None,
                health_check_port: None,
                scheduler: scheduler.map(|scheduler| (scheduler, SchedulerFlags::default())),
                weights: Weights::default(),
                forwarding: Forwarding::Masq,
                fast_path,
                created_at,
            }
        })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (1..5_u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(host, ready, serving, terminating)| Endpoint {
            addr: address(1, host),
            ready,
            serving,
            terminating,
            node: None,
            zone: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        },
    )
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    let port = (select(vec![53_u16, 80]), protocol(), select(vec![53_u16, 8_080])).prop_map(
        |(service_port, protocol, port)| EndpointPort {
            name: format!("{service_port}-{protocol}"),
            protocol,
            port,
        },
    );
    (service_name(), 0..2_u8, vec(port, 1..4), vec(endpoint(), 0..5)).prop_map(
        |(service, number, ports, endpoints)| EndpointSlice {
            name: SliceName {
                namespace: service.namespace.clone(),
                name: format!("{}-{number}", service.name),
            },
            service,
            ports,
            endpoints,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (vec(service(), 0..5), vec(slice(), 0..6)).prop_map(|(services, slices)| Snapshot {
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        slices: slices.into_iter().map(|slice| (slice.name.clone(), slice)).collect(),
        ..Snapshot::default()
    })
}

fn facts() -> NodeFacts {
    let addrs: BTreeSet<IpAddr> = [1, 2].map(|host| Ipv4Addr::new(192, 168, 0, host).into()).into();
    NodeFacts { name: "here".into(), node_port_addrs: addrs.clone(), addrs, no_ipv6: false }
}

fn decide(snapshot: &Snapshot) -> Desired {
    desired(snapshot, &facts(), &Settings::default())
}

fn plan(desired: &Desired, observed: &Observed, limits: &Limits) -> Plan {
    super::plan(desired, observed, limits, &Drains::Over)
}

fn apply(observed: &mut Observed, actions: &[Action]) {
    actions.iter().for_each(|action| observed.apply(action));
}

fn settle(mut observed: Observed, desired: &Desired, limits: &Limits) -> Observed {
    let plan = plan(desired, &observed, limits);
    apply(&mut observed, &plan.actions);
    observed
}

fn foreign(frontend: Frontend) -> ObservedServer {
    ObservedServer {
        virtual_server: VirtualServer {
            frontend,
            scheduler: Scheduler::Sh,
            flags: SchedulerFlags::default(),
            persistent_secs: 60,
        },
        destinations: BTreeMap::new(),
        owned: false,
        in_order: true,
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
    SameFrontendIds,
    SameBackendIds(u32),
    ForeignServer(u8),
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
        Just(Accident::SameFrontendIds).boxed(),
        select(vec![0, 2, 7, u32::MAX]).prop_map(Accident::SameBackendIds).boxed(),
        (1..4_u8).prop_map(Accident::ForeignServer).boxed(),
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
                server.destinations.clear();
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
        Accident::SameFrontendIds => {
            let same = |(key, entry): (&Frontend, &FrontendEntry)| {
                (*key, FrontendEntry { id: 1, ..*entry })
            };
            observed.frontends = observed.frontends.iter().map(same).collect();
        }
        Accident::SameBackendIds(id) => {
            observed.backends = observed.backends.keys().map(|key| (*key, *id)).collect();
        }
        Accident::ForeignServer(host) => {
            let frontend = Frontend { addr: address(96, *host), port: 80, protocol: Protocol::Tcp };
            observed.servers.insert(frontend, foreign(frontend));
        }
    }
}

/// A node that has served another snapshot, and then had accidents.
fn node() -> impl Strategy<Value = Observed> {
    (snapshot(), vec(accident(), 0..4), any::<bool>()).prop_map(
        |(history, accidents, fast_path)| {
            let observed = Observed { fast_path, ..Observed::default() };
            let mut observed = settle(observed, &decide(&history), &ROOMY);
            accidents.iter().for_each(|accident| happen(&mut observed, accident));
            observed
        },
    )
}

fn foreign_of(observed: &Observed) -> BTreeMap<Frontend, ObservedServer> {
    let servers = observed.servers.clone().into_iter();
    servers.filter(|(_, server)| !server.owned).collect()
}

/// Whether the leases of a backend have ended; an id outside the array never had any.
fn dead(invalidated: &BTreeSet<u32>, id: u32) -> bool {
    invalidated.contains(&id) || !ROOMY.backend_ids().contains(&id)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_applied_plan_leaves_nothing_to_do(snapshot in snapshot(), node in node()) {
        let desired = decide(&snapshot);
        let settled = settle(node, &desired, &ROOMY);
        prop_assert_eq!(plan(&desired, &settled, &ROOMY).actions, []);
    }

    #[test]
    fn a_plan_may_be_applied_twice_or_halfway(
        snapshot in snapshot(), node in node(), stop in any::<Index>(),
    ) {
        let desired = decide(&snapshot);
        let actions = plan(&desired, &node, &ROOMY).actions;
        let mut twice = settle(node.clone(), &desired, &ROOMY);
        let once = twice.clone();
        apply(&mut twice, &actions);
        prop_assert_eq!(&twice, &once);
        let mut halfway = node;
        apply(&mut halfway, &actions[..stop.index(actions.len() + 1)]);
        let settled = settle(halfway, &desired, &ROOMY);
        prop_assert_eq!(plan(&desired, &settled, &ROOMY).actions, []);
    }

    #[test]
    fn full_maps_settle_in_two_plans(
        snapshot in snapshot(), node in node(), frontends in 0..6_u32, backends in 0..6_u32,
    ) {
        let limits = Limits { frontends, backends };
        let desired = decide(&snapshot);
        let settled = settle(settle(node, &desired, &limits), &desired, &limits);
        prop_assert!(settled.frontends.len() <= frontends as usize);
        prop_assert!(settled.backends.len() <= backends as usize);
        prop_assert_eq!(plan(&desired, &settled, &limits).actions, []);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_in_any_order(snapshot in snapshot(), node in node()) {
        let mut mirrored = snapshot.clone();
        mirrored.services.values_mut().for_each(|service| service.ports.reverse());
        for slice in mirrored.slices.values_mut() {
            slice.ports.reverse();
            slice.endpoints.reverse();
        }
        let one = plan(&decide(&snapshot), &node, &ROOMY);
        let other = plan(&decide(&mirrored), &node, &ROOMY);
        prop_assert_eq!(one.to_string(), other.to_string());
        prop_assert_eq!(one, other);
    }

    #[test]
    fn ids_never_collide(snapshot in snapshot(), node in node()) {
        let node = Observed { fast_path: true, ..node };
        let settled = settle(node, &decide(&snapshot), &ROOMY);
        let frontends: BTreeSet<_> = settled.frontends.values().map(|entry| entry.id).collect();
        let backends: BTreeSet<_> = settled.backends.values().copied().collect();
        prop_assert_eq!(frontends.len(), settled.frontends.len());
        prop_assert_eq!(backends.len(), settled.backends.len());
        prop_assert!(frontends.iter().all(|id| *id >= 1) && backends.iter().all(|id| *id >= 2));
    }

    #[test]
    fn a_freed_id_is_not_given_out_in_the_same_plan(snapshot in snapshot(), node in node()) {
        let held: BTreeSet<u32> = node.backends.values().copied().collect();
        let actions = plan(&decide(&snapshot), &node, &ROOMY).actions;
        for action in &actions {
            if let Action::PutBackend { backend, id } = action {
                prop_assert!(!held.contains(id) || node.backends.get(backend) == Some(id));
            }
        }
    }

    #[test]
    fn removing_everything_leaves_nothing_of_ours(node in node()) {
        let before = foreign_of(&node);
        let settled = settle(node, &decide(&Snapshot::default()), &ROOMY);
        prop_assert_eq!(&settled.servers, &before);
        prop_assert!(settled.vips.is_empty());
        prop_assert!(!settled.fast_path || settled.frontends.is_empty());
        prop_assert!(!settled.fast_path || settled.backends.is_empty());
        prop_assert!(settled.table.unwrap().elements.is_empty());
    }

    #[test]
    fn foreign_virtual_servers_are_never_touched(snapshot in snapshot(), node in node()) {
        let before = foreign_of(&node);
        let settled = settle(node, &decide(&snapshot), &ROOMY);
        prop_assert_eq!(foreign_of(&settled), before.clone());
        prop_assert!(!before.keys().any(|frontend| settled.frontends.contains_key(frontend)));
    }

    #[test]
    fn every_step_of_a_plan_is_safe(snapshot in snapshot(), node in node()) {
        let desired = decide(&snapshot);
        let mut now = node.clone();
        let mut invalidated = BTreeSet::new();
        for action in plan(&desired, &node, &ROOMY).actions {
            let id = |frontend: &Frontend, key| node.backend_id(key, frontend.protocol);
            match &action {
                Action::PutVip(addr) => {
                    prop_assert!(now.device, "a VIP without its device");
                    prop_assert!(now.servers.keys().any(|frontend| frontend.addr == *addr));
                    let guarded = now.table.as_ref().is_some_and(|table| {
                        table.elements.contains(&Element::Vip(*addr))
                    });
                    prop_assert!(guarded, "a VIP without its guard");
                }
                Action::PutDestination { frontend, .. } => {
                    prop_assert!(now.servers.get(frontend).is_some_and(|server| server.owned));
                }
                Action::PutFrontend { frontend, entry } if entry.learn => {
                    let wanted = &desired.servers[frontend].destinations;
                    prop_assert_eq!(&now.servers[frontend].destinations, &**wanted);
                    let known = |key| now.backend_id(key, frontend.protocol).is_some();
                    let known = wanted.keys().copied().all(known);
                    prop_assert!(known, "learning before the backends are known");
                }
                Action::RemoveDestination { frontend, key } if node.fast_path => {
                    prop_assert!(id(frontend, *key).is_none_or(|id| dead(&invalidated, id)));
                }
                Action::RemoveBackend { id, .. } => prop_assert!(dead(&invalidated, *id)),
                Action::RemoveVirtualServer(frontend) => {
                    prop_assert!(!now.frontends.contains_key(frontend) || !node.fast_path);
                }
                Action::Invalidate { backends } => invalidated.extend(backends.iter().copied()),
                _ => {}
            }
            now.apply(&action);
        }
    }
}
