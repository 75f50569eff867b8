//! Made-up clusters: the same size gives the same objects.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

pub(crate) use proxy_tests::size::Size;
use proxy_userspace::{
    model::{
        Change, Endpoint, EndpointPort, EndpointSlice, FastPath, Forwarding, Protocol, Service,
        ServiceKind, ServiceName, ServicePort, SliceName, Snapshot, Sources, TrafficPolicy,
        Weights,
    },
    plan::NodeFacts,
};

/// Services of a namespace.
const PER_NAMESPACE: u32 = 100;
/// One Service of so many is of type NodePort: 2,500 of 50,000, which fit the default range.
const NODE_PORT_EVERY: u32 = 20;
/// One Service of so many has load-balancer IPs.
const LOAD_BALANCER_EVERY: u32 = 50;
const NODES: u32 = 1000;
const ZONES: u32 = 3;

/// Returns what plans need to know about the node.
pub(crate) fn node() -> NodeFacts {
    let addrs: BTreeSet<IpAddr> = [[172, 18, 0, 2].into()].into();
    NodeFacts { name: "node-0".into(), node_port_addrs: addrs.clone(), addrs, no_ipv6: false }
}

/// Returns the cluster of this size.
pub(crate) fn snapshot(size: Size) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for index in 0..size.services {
        let service = service(index);
        let slice = slice(size, index, 0);
        snapshot.services.insert(service.name.clone(), service);
        snapshot.slices.insert(slice.name.clone(), slice);
    }
    snapshot
}

/// Returns the `turn`th change: a Pod is replaced, as in a rollout that goes through all Services.
pub(crate) fn change(size: Size, turn: u32) -> Change {
    // A prime step visits all Services before it comes to one again, far from each other.
    let index = u32::try_from(u64::from(turn) * 7919 % u64::from(size.services)).unwrap_or(0);
    let slice = slice(size, index, turn + 1);
    Change::Slice(slice.name.clone(), Some(slice))
}

fn name(index: u32) -> ServiceName {
    ServiceName {
        namespace: format!("team-{}", index / PER_NAMESPACE).into(),
        name: format!("service-{index}").into(),
    }
}

fn addr(base: [u8; 4], index: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::from(base)) + index).into()
}

fn service(index: u32) -> Service {
    let balanced = index % LOAD_BALANCER_EVERY == LOAD_BALANCER_EVERY - 1;
    let node_port = index.is_multiple_of(NODE_PORT_EVERY);
    let (kind, load_balancer_ips) = match (node_port, balanced) {
        (true, _) => (ServiceKind::NodePort, Vec::new()),
        (_, true) => (ServiceKind::LoadBalancer, vec![addr([198, 18, 0, 0], index)]),
        _ => (ServiceKind::ClusterIP, Vec::new()),
    };
    let offset = u16::try_from(index / NODE_PORT_EVERY).unwrap_or(u16::MAX);
    Service {
        limits: Default::default(),
        name: name(index),
        kind,
        cluster_ips: vec![addr([10, 96, 0, 1], index)],
        external_ips: Vec::new(),
        load_balancer_ips,
        sources: Sources::Any,
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: node_port.then(|| 30_000u16.saturating_add(offset)),
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_secs: None,
        health_check_port: None,
        scheduler: None,
        weights: Weights::default(),
        forwarding: Forwarding::Masq,
        fast_path: FastPath::Auto,
        watching: None,
        created_at: Some(1_700_000_000 + i64::from(index)),
    }
}

/// The slice of a Service. In each generation but the first another endpoint has another address.
fn slice(size: Size, index: u32, generation: u32) -> EndpointSlice {
    let service = name(index);
    let endpoint = |nth: u32| {
        let pod = index * size.endpoints + nth;
        let replaced = generation > 0 && generation % size.endpoints == nth;
        // Half of 10.128.0.0/9 is for first Pods, half for those that replace them.
        let base = if replaced { [10, 192, 0, 1] } else { [10, 128, 0, 1] };
        let node = pod % NODES;
        Endpoint {
            addr: addr(base, pod.wrapping_add(if replaced { generation } else { 0 }) % (1 << 22)),
            ready: true,
            serving: true,
            terminating: false,
            node: Some(format!("node-{node}").into()),
            zone: Some(format!("zone-{}", node % ZONES).into()),
            zone_hints: Box::default(),
            node_hints: Box::default(),
        }
    };
    EndpointSlice {
        name: SliceName {
            namespace: service.namespace.clone(),
            name: format!("{}-abcde", service.name).into(),
        },
        service,
        ports: vec![EndpointPort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: (0..size.endpoints).map(endpoint).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SIZE: Size = Size { services: 2000, endpoints: 4 };

    #[test]
    fn a_size_gives_its_number_of_distinct_addresses() {
        let made = snapshot(SIZE);
        assert_eq!(made, snapshot(SIZE), "the same every time");
        assert_eq!((made.services.len(), made.slices.len()), (2000, 2000));
        let vips: BTreeSet<_> = made.services.values().flat_map(|s| &s.cluster_ips).collect();
        assert_eq!(vips.len(), 2000);
        let pods: BTreeSet<_> =
            made.slices.values().flat_map(|s| &s.endpoints).map(|e| e.addr).collect();
        assert_eq!(pods.len(), 8000);
        let ports: BTreeSet<_> =
            made.services.values().flat_map(|s| &s.ports).filter_map(|p| p.node_port).collect();
        assert_eq!(ports.len(), 100);
        let balanced = made.services.values().filter(|s| !s.load_balancer_ips.is_empty()).count();
        assert_eq!(balanced, 40);
    }

    #[test]
    fn every_change_replaces_an_endpoint() {
        let mut last = snapshot(SIZE);
        let mut touched = BTreeSet::new();
        for turn in 0..4000 {
            let Change::Slice(name, Some(slice)) = change(SIZE, turn) else { panic!() };
            let before = &last.slices[&name];
            assert_eq!(slice.endpoints.len(), before.endpoints.len());
            assert_ne!(slice.endpoints, before.endpoints, "turn {turn}");
            touched.insert(name.clone());
            last.apply(Change::Slice(name, Some(slice)));
        }
        assert_eq!(touched.len(), 2000);
    }

    #[test]
    fn sizes_are_read_and_wrong_ones_refused() {
        assert_eq!("2000x4".parse(), Ok(SIZE));
        assert_eq!(SIZE.to_string(), "2000x4");
        for wrong in ["", "2000", "0x4", "4x0", "99999x4", "4x101", "x"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
