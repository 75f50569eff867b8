//! Random objects, settings and nodes, out of few names and addresses, so that they meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};

use crate::{
    model::{
        Backend, Check, Endpoint, EndpointPort, EndpointSlice, FastPath, Forwarding, Masquerade,
        Node, OnFailure, Probe, Protocol, Scheduler, SchedulerFlags, Service, ServiceKind,
        ServiceName, ServicePort, SliceName, Snapshot, SorryServer, Sources, TrafficPolicy, Tunnel,
        Watching, Weights,
    },
    plan::{DetectLocal, ExternalIps, Failed, NodeFacts, Settings},
};

/// The name of the node that is planned for.
const HERE: &str = "here";

/// All that a desired state is decided from.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) snapshot: Snapshot,
    pub(super) facts: NodeFacts,
    pub(super) settings: Settings,
    pub(super) failed: Failed,
}

pub(super) fn address(net: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(10, net, 0, host).into()
}

fn addrs(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Some of these, in this order.
fn some<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    let count = all.len();
    subsequence(all, 0..=count)
}

/// At most two of these.
fn few<T: Clone + std::fmt::Debug + 'static>(all: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    subsequence(all, 0..=2)
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

pub(super) fn service_name() -> impl Strategy<Value = ServiceName> {
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

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

/// Where a Service is reached.
#[derive(Clone, Debug)]
struct Exposure {
    cluster_ips: Vec<IpAddr>,
    external_ips: Vec<IpAddr>,
    load_balancer_ips: Vec<IpAddr>,
    sources: Sources,
}

fn exposure() -> impl Strategy<Value = Exposure> {
    let ranges =
        nets(&["198.51.100.0/24", "198.51.100.128/25", "192.168.0.0/24", "2001:db8:f::/48"]);
    (
        few(addrs(&["10.96.0.1", "10.96.0.2", "10.96.0.3", "fd00:96::1", "fd00:96::2"])),
        few(addrs(&["192.0.2.1", "10.96.0.1", "192.168.0.1", "2001:db8::1"])),
        few(addrs(&["192.0.2.1", "192.0.2.2", "192.168.0.2", "2001:db8::1"])),
        option::of(some(ranges)),
    )
        .prop_map(|(mut cluster_ips, external_ips, load_balancer_ips, ranges)| {
            if cluster_ips.is_empty() {
                cluster_ips.push(address(96, 1));
            }
            let sources = ranges.map_or(Sources::Any, Sources::Only);
            Exposure { cluster_ips, external_ips, load_balancer_ips, sources }
        })
}

/// How the endpoints of a Service are used.
type Manner =
    (Option<(Scheduler, SchedulerFlags)>, Weights, Forwarding, FastPath, Option<Box<Watching>>);

fn watching() -> impl Strategy<Value = Option<Box<Watching>>> {
    // One is an endpoint as well.
    let sorry = addrs(&["10.1.0.3", "192.0.2.9", "fd00:1::9"]);
    let sorry = (some(sorry), option::of(Just(80_u16))).prop_map(|(mut addrs, port)| {
        addrs.dedup_by_key(|addr| addr.is_ipv4());
        addrs.into_iter().map(|addr| SorryServer { addr, port }).collect()
    });
    let check = option::of(Just(Check::of(Probe::Tcp)));
    let on_failure = select(vec![OnFailure::Inhibit, OnFailure::Remove]);
    option::of((check, on_failure, 1..4_u32, sorry)).prop_map(|watching| {
        watching.map(|(check, on_failure, quorum, sorry_servers)| {
            Box::new(Watching { check, on_failure, quorum, sorry_servers })
        })
    })
}

/// Backends of a Service that are down.
pub(super) fn down() -> impl Strategy<Value = BTreeSet<Backend>> {
    let backend = (
        select(addrs(&["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00:1::1", "fd00:1::2"])),
        select(vec![53_u16, 8_080]),
        protocol(),
    );
    prop::collection::btree_set(
        backend.prop_map(|(addr, port, protocol)| Backend { addr, port, protocol }),
        0..12,
    )
}

fn failed() -> impl Strategy<Value = Failed> {
    prop::collection::btree_map(service_name(), down(), 0..4)
}

fn manner() -> impl Strategy<Value = Manner> {
    let scheduler = select(vec![
        (Scheduler::Rr, SchedulerFlags::default()),
        (Scheduler::Mh, SchedulerFlags(0x10)),
        (Scheduler::Wlc, SchedulerFlags::default()),
    ]);
    (
        option::of(scheduler),
        option::of(0..3_u32),
        option::of(0..3_u32),
        select(vec![
            Forwarding::Masq,
            Forwarding::Masq,
            Forwarding::Route,
            Forwarding::Tunnel(Tunnel::Gre),
        ]),
        select(FastPath::WORDS.map(|(_, mode)| mode).to_vec()),
        watching(),
    )
        .prop_map(|(scheduler, by_addr, by_node, forwarding, fast_path, watching)| {
            let weights = Weights {
                by_addr: by_addr.map(|weight| (address(1, 1), weight)).into_iter().collect(),
                by_node: by_node.map(|weight| (HERE.into(), weight)).into_iter().collect(),
            };
            (scheduler, weights, forwarding, fast_path, watching)
        })
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let key = (select(vec![53_u16, 80]), protocol());
    let node_port = option::of(select(vec![30_053_u16, 30_080, 53]));
    btree_map(key, node_port, 1..4).prop_map(|ports| {
        let ports = ports.into_iter().map(|((port, protocol), node_port)| ServicePort {
            name: format!("{port}-{protocol}"),
            protocol,
            port,
            node_port,
        });
        ports.collect()
    })
}

pub(super) fn service() -> impl Strategy<Value = Service> {
    (
        service_name(),
        select(vec![ServiceKind::ClusterIP, ServiceKind::NodePort, ServiceKind::LoadBalancer]),
        exposure(),
        ports(),
        (policy(), policy()),
        option::of(select(vec![10_u32, 10_800])),
        option::of(Just(32_000_u16)),
        manner(),
        option::of(0..3_i64),
    )
        .prop_map(
            |(name, kind, exposure, ports, policies, affinity_secs, health, manner, age)| {
                let balanced = kind == ServiceKind::LoadBalancer;
                let (scheduler, weights, forwarding, fast_path, watching) = manner;
                Service {
                    limits: Default::default(),
                    name,
                    kind,
                    cluster_ips: exposure.cluster_ips,
                    external_ips: exposure.external_ips,
                    load_balancer_ips: if balanced {
                        exposure.load_balancer_ips
                    } else {
                        Vec::new()
                    },
                    sources: if balanced { exposure.sources } else { Sources::Any },
                    ports,
                    internal_policy: policies.0,
                    external_policy: policies.1,
                    affinity_secs,
                    health_check_port: health.filter(|_| balanced),
                    scheduler,
                    weights,
                    forwarding,
                    fast_path,
                    watching,
                    created_at: age,
                }
            },
        )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (
        select(addrs(&["10.1.0.1", "10.1.0.2", "10.1.0.3", "fd00:1::1", "fd00:1::2"])),
        (any::<bool>(), any::<bool>(), any::<bool>()),
        option::of(select(texts(&[HERE, "there"]))),
        // Hints count only if all have them.
        prop_oneof![Just(Vec::new()), Just(texts(&["z1"])), Just(texts(&["z1", "z2"]))],
        prop_oneof![Just(Vec::new()), Just(texts(&[HERE])), Just(texts(&["there"]))],
    )
        .prop_map(|(addr, (ready, serving, terminating), node, zone_hints, node_hints)| {
            Endpoint {
                addr,
                ready,
                serving,
                terminating,
                node: node.map(String::into),
                zone: None,
                zone_hints: zone_hints.into(),
                node_hints: node_hints.into(),
            }
        })
}

pub(super) fn slice() -> impl Strategy<Value = EndpointSlice> {
    let port = (select(vec![53_u16, 80]), protocol(), select(vec![53_u16, 8_080])).prop_map(
        |(service_port, protocol, port)| EndpointPort {
            name: format!("{service_port}-{protocol}"),
            protocol,
            port,
        },
    );
    (service_name(), 0..2_u8, vec(port, 1..4), vec(endpoint(), 0..5)).prop_map(
        |(service, number, ports, endpoints)| EndpointSlice {
            // The name does not tell whose it is: a slice may change its Service.
            name: SliceName {
                namespace: service.namespace.clone(),
                name: format!("slice-{number}").into(),
            },
            service,
            ports,
            endpoints,
        },
    )
}

pub(super) fn node_object() -> impl Strategy<Value = Node> {
    let cidrs = nets(&["10.1.0.0/16", "10.1.0.0/24", "fd00:1::/64"]);
    (option::of(select(texts(&["z1", "z2", "z3"]))), some(cidrs)).prop_map(|(zone, pod_cidrs)| {
        Node { name: HERE.into(), zone, pod_cidrs, ..Node::default() }
    })
}

pub(super) fn service_cidrs() -> impl Strategy<Value = BTreeSet<IpNet>> {
    let all = nets(&["10.96.0.0/16", "10.96.0.0/24", "10.97.0.0/16", "fd00:96::/112"]);
    some(all).prop_map(|cidrs| cidrs.into_iter().collect())
}

pub(super) fn snapshot() -> impl Strategy<Value = Snapshot> {
    (vec(service(), 0..5), vec(slice(), 0..6), option::of(node_object()), service_cidrs()).prop_map(
        |(services, slices, node, service_cidrs)| Snapshot {
            services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
            slices: slices.into_iter().map(|slice| (slice.name.clone(), slice)).collect(),
            nodes: node.into_iter().map(|node| (node.name.clone(), node)).collect(),
            service_cidrs,
        },
    )
}

pub(super) fn facts() -> impl Strategy<Value = NodeFacts> {
    let answering = addrs(&["192.168.0.1", "192.168.0.2", "fd00:a::1", "127.0.0.1", "::1"]);
    let addrs = addrs(&["192.168.0.1", "192.168.0.2", "fd00:a::1", "127.0.0.1"]);
    (some(answering), prop::bool::weighted(0.2)).prop_map(move |(answering, no_ipv6)| NodeFacts {
        name: HERE.into(),
        addrs: addrs.iter().copied().collect(),
        node_port_addrs: answering.into_iter().collect(),
        no_ipv6,
    })
}

pub(super) fn settings() -> impl Strategy<Value = Settings> {
    let detect_local = vec![
        DetectLocal::Nothing,
        DetectLocal::NodeCidr,
        DetectLocal::ClusterCidr(nets(&["10.1.0.0/16", "fd00:1::/48"])),
        DetectLocal::BridgeInterface("cbr0".into()),
        DetectLocal::InterfacePrefix("veth".into()),
    ];
    let external_ips = vec![
        ExternalIps::Any,
        ExternalIps::Within(nets(&["192.0.2.0/24", "2001:db8::/32"])),
        ExternalIps::Off,
    ];
    (
        select(vec![Scheduler::Rr, Scheduler::Sh]),
        select(vec![Masquerade::Needed, Masquerade::OffCluster, Masquerade::All]),
        select(detect_local),
        select(external_ips),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(
                scheduler,
                masquerade,
                detect_local,
                external_ips,
                ranges_on_external_ips,
                reject_unassigned,
                leave_vips,
            )| Settings {
                scheduler,
                scheduler_flags: SchedulerFlags::default(),
                masquerade,
                detect_local,
                external_ips,
                ranges_on_external_ips,
                exclude_cidrs: Vec::new(),
                reject_unassigned,
                leave_vips,
            },
        )
}

pub(super) fn world() -> impl Strategy<Value = World> {
    (snapshot(), facts(), settings(), failed())
        .prop_map(|(snapshot, facts, settings, failed)| World { snapshot, facts, settings, failed })
}

/// Returns the same world, written down the other way round.
pub(super) fn mirrored(world: &World) -> World {
    let mut mirrored = world.clone();
    for service in mirrored.snapshot.services.values_mut() {
        service.ports.reverse();
        service.external_ips.reverse();
        service.load_balancer_ips.reverse();
        if let Sources::Only(nets) = &mut service.sources {
            nets.reverse();
        }
    }
    for slice in mirrored.snapshot.slices.values_mut() {
        slice.ports.reverse();
        slice.endpoints.reverse();
    }
    mirrored
}

/// Returns what a world without objects is, on the same node.
pub(super) fn emptied(world: &World) -> World {
    let snapshot = Snapshot { services: BTreeMap::new(), ..Snapshot::default() };
    let facts = world.facts.clone();
    World { snapshot, facts, ..World::default() }
}
