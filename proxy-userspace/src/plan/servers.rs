//! One Service, and what the node should hold for it alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    NodeFacts, Settings,
    desired::{Admission, DesiredServer, HealthCheck, Origin},
    endpoints::{Chosen, Endpoints, Here},
};
use crate::model::{
    Destination, DestinationKey, Element, Endpoint, EndpointSlice, FastPath, Forwarding, Frontend,
    Masquerade, Notice, Protocol, Service, ServiceKind, ServicePort, ServicePortName, Sources,
    TrafficPolicy, VirtualServer,
};

/// What a Service is served with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) settings: &'a Settings,
    pub(super) facts: &'a NodeFacts,
    pub(super) here: Here<'a>,
}

/// What a Service wants.
#[derive(Default)]
pub(super) struct Wanted {
    /// Its virtual servers; who gets a frontend that two want is decided elsewhere.
    pub(super) servers: Vec<DesiredServer>,
    pub(super) notices: Vec<Notice>,
    pub(super) health: Option<HealthCheck>,
}

/// Returns what a Service wants, given the slices that belong to it.
pub(super) fn wanted(service: &Service, slices: &[&EndpointSlice], context: Context<'_>) -> Wanted {
    let mut wanted = Wanted::default();
    // Sorted, so that the order in which a source lists the ports decides nothing.
    let mut ports: Vec<_> = service.ports.iter().collect();
    ports.sort_by_key(|port| (port.port, port.protocol, &port.name));
    for ipv6 in [false, true] {
        let cluster_ip = service.cluster_ips.iter().find(|addr| addr.is_ipv6() == ipv6);
        match cluster_ip {
            Some(&addr) if ipv6 && context.facts.no_ipv6 => {
                let service = service.name.clone();
                wanted.notices.push(Notice::Ipv6NotServed { service, addr });
            }
            Some(&cluster_ip) => {
                let family = Family { service, slices, context, cluster_ip };
                ports.iter().for_each(|port| family.take_port(port, &mut wanted));
                family.refuse_external_ips(&mut wanted.notices);
            }
            None => other_family(service, ipv6, &mut wanted.notices),
        }
    }
    wanted.health = health(service, &ports, slices, context.here);
    wanted
}

/// An address of a family in which the Service has no cluster IP is not served, as in kube-proxy.
fn other_family(service: &Service, ipv6: bool, notices: &mut Vec<Notice>) {
    for &addr in service.external_ips.iter().chain(&service.load_balancer_ips) {
        if addr.is_ipv6() == ipv6 {
            notices.push(Notice::FamilyWithoutClusterIp { service: service.name.clone(), addr });
        }
    }
}

/// Counts as kube-proxy does: the addresses of this node that are ready for some port.
fn health(
    service: &Service,
    ports: &[&ServicePort],
    slices: &[&EndpointSlice],
    here: Here<'_>,
) -> Option<HealthCheck> {
    let port = service.health_check_port?;
    if service.external_policy != TrafficPolicy::Local {
        return None;
    }
    let mut addrs = BTreeSet::new();
    for (service_port, ipv6) in ports.iter().flat_map(|port| [(port, false), (port, true)]) {
        let ready = Endpoints::of(service_port, slices, ipv6, here).ready_here();
        addrs.extend(ready.into_iter().map(|key| key.addr));
    }
    Some(HealthCheck { port, local_endpoints: addrs.len() })
}

/// A Service in one address family.
struct Family<'a> {
    service: &'a Service,
    slices: &'a [&'a EndpointSlice],
    context: Context<'a>,
    cluster_ip: IpAddr,
}

/// The endpoints of one class of traffic, as virtual servers share them.
struct Class {
    destinations: Arc<BTreeMap<DestinationKey, Destination>>,
    lingering: Arc<BTreeSet<DestinationKey>>,
    admission: Admission,
    /// Endpoints that may connect to themselves through the Service.
    hairpins: Vec<Element>,
}

impl Family<'_> {
    fn take_port(&self, port: &ServicePort, wanted: &mut Wanted) {
        let Self { service, slices, context, cluster_ip } = self;
        let endpoints = Endpoints::of(port, slices, cluster_ip.is_ipv6(), context.here);
        let class = |policy| match policy {
            TrafficPolicy::Cluster => self.class(&endpoints, endpoints.cluster(), policy),
            TrafficPolicy::Local => self.class(&endpoints, endpoints.local(), policy),
        };
        let keeps_port = service.forwarding != Forwarding::Masq;
        if keeps_port && endpoints.listed().any(|(key, _)| key.port != port.port) {
            let service =
                ServicePortName { service: service.name.clone(), port: port.name.clone() };
            wanted.notices.push(Notice::ForwardingKeepsPort { service, port: port.port });
        }
        let internal = class(service.internal_policy);
        for &addr in service.cluster_ips.iter().filter(|addr| self.is_of(addr)) {
            wanted.servers.push(self.server(port, addr, port.port, Origin::ClusterIp, &internal));
        }
        let outside = self.outside(port);
        if outside.is_empty() {
            return;
        }
        let external = class(service.external_policy);
        let mut inside = (*cluster_ip, port.port);
        let split = service.external_policy == TrafficPolicy::Local;
        if split && service.internal_policy == TrafficPolicy::Local {
            // Inside sources get all endpoints, which no cluster IP of this Service has.
            let shadow = self.shadow_port(port);
            let all = class(TrafficPolicy::Cluster);
            wanted.servers.push(self.server(port, *cluster_ip, shadow, Origin::Inside, &all));
            inside.1 = shadow;
        }
        for (addr, number, origin) in outside {
            let mut server = self.server(port, addr, number, origin, &external);
            let frontend = server.virtual_server.frontend;
            server.elements.push(if split {
                Element::Inside(frontend, inside.0, inside.1)
            } else {
                Element::Masquerade(frontend)
            });
            self.restrict(&mut server);
            wanted.servers.push(server);
        }
    }

    fn is_of(&self, addr: &IpAddr) -> bool {
        addr.is_ipv6() == self.cluster_ip.is_ipv6()
    }

    /// Returns what external traffic dials.
    fn outside(&self, port: &ServicePort) -> Vec<(IpAddr, u16, Origin)> {
        let service = self.service;
        let of_family = |addrs: &[IpAddr]| -> Vec<IpAddr> {
            addrs.iter().filter(|addr| self.is_of(addr)).copied().collect()
        };
        let mut outside = Vec::new();
        for addr in of_family(&service.load_balancer_ips) {
            outside.push((addr, port.port, Origin::LoadBalancerIp));
        }
        for addr in of_family(&service.external_ips) {
            if self.context.settings.external_ips.allow(addr) {
                outside.push((addr, port.port, Origin::ExternalIp));
            }
        }
        if service.kind != ServiceKind::ClusterIP
            && let Some(node_port) = port.node_port
        {
            let addrs = self.context.facts.node_port_addrs.iter();
            let addrs = addrs.filter(|addr| self.is_of(addr));
            outside.extend(addrs.map(|&addr| (addr, node_port, Origin::NodePort)));
        }
        outside
    }

    fn refuse_external_ips(&self, notices: &mut Vec<Notice>) {
        for &addr in self.service.external_ips.iter().filter(|addr| self.is_of(addr)) {
            if !self.context.settings.external_ips.allow(addr) {
                let service = self.service.name.clone();
                notices.push(Notice::ExternalIpRefused { service, addr });
            }
        }
    }

    /// Returns a port of the cluster IP that the Service does not use, the same on every node.
    fn shadow_port(&self, port: &ServicePort) -> u16 {
        let used: BTreeSet<u16> = self.service.ports.iter().map(|port| port.port).collect();
        let position = used.iter().position(|used| *used == port.port).unwrap_or_default();
        let mut free = (1..=u16::MAX).rev().filter(|port| !used.contains(port));
        free.nth(position).unwrap_or(u16::MAX)
    }

    fn class(&self, endpoints: &Endpoints<'_>, chosen: Chosen, policy: TrafficPolicy) -> Class {
        let here = self.context.here.name;
        let elsewhere =
            |endpoint: &Endpoint| endpoint.node.as_deref().is_some_and(|node| node != here);
        let draining: BTreeSet<_> = endpoints.draining().collect();
        let mut destinations = BTreeMap::new();
        let mut lingering = BTreeSet::new();
        let mut hairpins = Vec::new();
        for (key, endpoint) in endpoints.listed() {
            let unreachable = policy == TrafficPolicy::Local && elsewhere(endpoint);
            let weight = if chosen.keys.contains(&key) {
                self.weight(key, endpoint)
            } else if draining.contains(&key) && !unreachable {
                0
            } else {
                lingering.insert(key);
                continue;
            };
            let forwarding = self.service.forwarding;
            destinations.insert(key, Destination { key, weight, forwarding });
            if !elsewhere(endpoint) {
                hairpins.push(Element::Hairpin(key.addr));
            }
        }
        let admission = match (chosen.keys.is_empty(), chosen.any) {
            (false, _) => Admission::Serve,
            (true, true) => Admission::Drop,
            (true, false) => Admission::Reject,
        };
        Class {
            destinations: Arc::new(destinations),
            lingering: Arc::new(lingering),
            admission,
            hairpins,
        }
    }

    fn weight(&self, key: DestinationKey, endpoint: &Endpoint) -> u32 {
        let weights = &self.service.weights;
        let by_node = || weights.by_node.get(endpoint.node.as_ref()?);
        weights.by_addr.get(&key.addr).or_else(by_node).copied().unwrap_or(1)
    }

    fn server(
        &self,
        port: &ServicePort,
        addr: IpAddr,
        number: u16,
        origin: Origin,
        class: &Class,
    ) -> DesiredServer {
        let Self { service, context: Context { settings, facts, .. }, .. } = self;
        let frontend = Frontend { addr, port: number, protocol: port.protocol };
        let (scheduler, flags) =
            service.scheduler.unwrap_or((settings.scheduler, settings.scheduler_flags));
        let vip = !facts.addrs.contains(&addr) && !facts.node_port_addrs.contains(&addr);
        let mut elements = class.hairpins.clone();
        elements.extend(vip.then_some(Element::Vip(addr)));
        elements.extend(match class.admission {
            Admission::Serve => None,
            Admission::Drop => Some(Element::Drop(frontend)),
            Admission::Reject => Some(Element::Reject(frontend)),
        });
        let masquerade = settings.rules().masquerade != Masquerade::Needed;
        elements.extend(match origin {
            Origin::ClusterIp => masquerade.then_some(Element::ClusterIp(addr)),
            Origin::Inside => Some(Element::Shadow(frontend)),
            _ => None,
        });
        let masq = service.forwarding == Forwarding::Masq;
        let learnable = matches!(addr, IpAddr::V4(_)) && port.protocol != Protocol::Sctp && masq;
        DesiredServer {
            virtual_server: VirtualServer {
                frontend,
                scheduler,
                flags,
                persistent_secs: service.affinity_secs.unwrap_or(0),
            },
            destinations: self.reachable(&class.destinations, number),
            lingering: Arc::clone(&class.lingering),
            service: ServicePortName { service: service.name.clone(), port: port.name.clone() },
            created_at: service.created_at,
            origin,
            admission: class.admission,
            vip,
            fast_path: service.fast_path == FastPath::On && learnable,
            elements,
        }
    }

    /// Returns the destinations of a virtual server at this port. Without translation a packet keeps
    /// its port: where an endpoint listens on another one, as always behind a node port, it is
    /// masqueraded.
    fn reachable(
        &self,
        destinations: &Arc<BTreeMap<DestinationKey, Destination>>,
        port: u16,
    ) -> Arc<BTreeMap<DestinationKey, Destination>> {
        let elsewhere = destinations.keys().any(|key| key.port != port);
        if self.service.forwarding == Forwarding::Masq || !elsewhere {
            return Arc::clone(destinations);
        }
        let translated = destinations.iter().map(|(&key, &destination)| {
            let forwarding =
                if key.port == port { destination.forwarding } else { Forwarding::Masq };
            (key, Destination { forwarding, ..destination })
        });
        Arc::new(translated.collect())
    }

    /// Adds who may reach the server, where the Service says so.
    fn restrict(&self, server: &mut DesiredServer) {
        let Sources::Only(nets) = &self.service.sources else { return };
        let restricted = match server.origin {
            Origin::LoadBalancerIp => true,
            Origin::ExternalIp => self.context.settings.ranges_on_external_ips,
            _ => false,
        };
        if !restricted {
            return;
        }
        let frontend = server.virtual_server.frontend;
        let of_family = nets.iter().filter(|net| self.is_of(&net.addr()));
        let of_family: Vec<_> = of_family.map(|net| net.trunc()).collect();
        server.elements.push(Element::Ranged(frontend));
        // A host process has no address of its own that a range could name: it may pass where a
        // range has an address of the node, as in kube-proxy.
        let addrs = &self.context.facts.addrs;
        if !addrs.iter().any(|addr| of_family.iter().any(|net| net.contains(addr))) {
            server.elements.push(Element::RangedHost(frontend));
        }
        // What lies in another range is left out: nft refuses ranges that overlap.
        let outermost = ipnet::IpNet::aggregate(&of_family);
        server.elements.extend(outermost.into_iter().map(|net| Element::Source(frontend, net)));
    }
}
