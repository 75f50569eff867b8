//! What the node should hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{claims::Claims, endpoints};
use crate::model::{
    Destination, DestinationKey, EndpointSlice, FastPath, Frontend, NatElements, Notice, Protocol,
    Scheduler, SchedulerFlags, Service, ServiceKind, ServiceName, ServicePort, ServicePortName,
    Snapshot, VirtualServer,
};

/// What the decision needs to know about the node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeFacts {
    /// Addresses of the node that answer NodePorts.
    pub node_port_addrs: BTreeSet<Ipv4Addr>,
}

/// Settings for Services that do not say otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Defaults {
    /// Scheduler of a virtual server.
    pub scheduler: Scheduler,
}

/// Why a frontend exists.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// A cluster IP and port of the Service.
    ClusterIp,
    /// An address of the node and a node port of the Service.
    NodePort,
}

/// A virtual server that should be, and everything that hangs on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DesiredServer {
    /// Its settings in IPVS.
    pub virtual_server: VirtualServer,
    /// Its destinations; none at all when the Service has no endpoint that could serve.
    pub destinations: BTreeMap<DestinationKey, Destination>,
    /// The Service port it serves.
    pub service: ServicePortName,
    /// Why it exists.
    pub origin: Origin,
    /// Its flows may be learned: the Service allows it and the protocol is TCP or UDP.
    pub fast_path: bool,
}

/// Everything that should be on the node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Desired {
    /// Virtual servers by frontend.
    pub servers: BTreeMap<Frontend, DesiredServer>,
    /// Addresses to route to this node: those of frontends that no interface has.
    pub vips: BTreeSet<IpAddr>,
    /// Elements of the nft table.
    pub nat: NatElements,
    /// What was asked for and cannot be, sorted.
    pub notices: Vec<Notice>,
}

/// Returns what the node should hold for these Services and endpoints.
///
/// IPv4 only: an IPv6 cluster IP gives a notice. Of two Services that claim one frontend or one
/// node port the older one has it (`created_at`; a Service without one is the youngest), and of
/// two of the same age the first by namespace and name; the other keeps its remaining frontends.
pub fn desired(snapshot: &Snapshot, node: &NodeFacts, defaults: &Defaults) -> Desired {
    let slices = slices_by_service(snapshot);
    let mut claims = Claims::default();
    for service in by_seniority(snapshot) {
        let slices = slices.get(&service.name).map_or(&[][..], Vec::as_slice);
        // Sorted, so that the order in which a source lists the ports decides nothing.
        let mut ports: Vec<_> = service.ports.iter().collect();
        ports.sort_by_key(|port| (port.port, port.protocol, &port.name));
        for port in ports {
            claim_port(&mut claims, service, port, slices, node, defaults);
        }
        for addr in service.cluster_ips.iter().filter(|addr| addr.is_ipv6()) {
            let service = service.name.clone();
            claims.notices.insert(Notice::Ipv6NotServed { service, addr: *addr });
        }
    }
    assemble(claims, node)
}

fn slices_by_service(snapshot: &Snapshot) -> BTreeMap<&ServiceName, Vec<&EndpointSlice>> {
    let mut by_service = BTreeMap::<_, Vec<_>>::new();
    for slice in snapshot.slices.values() {
        by_service.entry(&slice.service).or_default().push(slice);
    }
    by_service
}

fn by_seniority(snapshot: &Snapshot) -> Vec<&Service> {
    let mut services: Vec<_> = snapshot.services.values().collect();
    // The sort is stable, and the map's order is namespace and name.
    services.sort_by_key(|service| service.created_at.unwrap_or(i64::MAX));
    services
}

fn claim_port(
    claims: &mut Claims,
    service: &Service,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    node: &NodeFacts,
    defaults: &Defaults,
) {
    let name = ServicePortName { service: service.name.clone(), port: port.name.clone() };
    let destinations = endpoints::destinations(port, slices);
    let server = |frontend: Frontend, origin: Origin| DesiredServer {
        virtual_server: VirtualServer {
            frontend,
            scheduler: service.scheduler.map_or(defaults.scheduler, |(scheduler, _)| scheduler),
            flags: SchedulerFlags::default(),
            persistent_secs: 0,
        },
        destinations: destinations.clone(),
        service: name.clone(),
        origin,
        fast_path: service.fast_path == FastPath::On && port.protocol != Protocol::Sctp,
    };
    for &addr in service.cluster_ips.iter().filter(|addr| addr.is_ipv4()) {
        let frontend = Frontend { addr, port: port.port, protocol: port.protocol };
        claims.claim(server(frontend, Origin::ClusterIp));
    }
    if service.kind == ServiceKind::ClusterIP {
        return;
    }
    let Some(node_port) = port.node_port else { return };
    if claims.claim_node_port(port.protocol, node_port, &name) {
        for &addr in &node.node_port_addrs {
            let frontend = Frontend { addr: addr.into(), port: node_port, protocol: port.protocol };
            claims.claim(server(frontend, Origin::NodePort));
        }
    }
}

fn assemble(claims: Claims, node: &NodeFacts) -> Desired {
    let vips4: BTreeSet<Ipv4Addr> = claims
        .servers
        .values()
        .filter(|server| server.origin == Origin::ClusterIp)
        .filter_map(|server| ipv4(server.virtual_server.frontend.addr))
        // An address of the node is local already, and guarding it as a VIP would refuse
        // everything else the node listens on.
        .filter(|addr| !node.node_port_addrs.contains(addr))
        .collect();
    let backends = claims
        .servers
        .values()
        .flat_map(|server| server.destinations.keys())
        .filter_map(|key| ipv4(key.addr))
        .collect();
    Desired {
        vips: vips4.iter().copied().map(IpAddr::V4).collect(),
        nat: NatElements {
            vips: vips4,
            node_addrs: node.node_port_addrs.clone(),
            node_ports: claims.node_ports.into_keys().collect(),
            backends,
        },
        servers: claims.servers,
        notices: claims.notices.into_iter().collect(),
    }
}

fn ipv4(addr: IpAddr) -> Option<Ipv4Addr> {
    match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    }
}
