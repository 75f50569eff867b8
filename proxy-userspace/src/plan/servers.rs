//! One Service, and what the node should hold for it alone.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    Destinations, NodeFacts, Settings,
    desired::{Admission, DesiredServer, HealthCheck, Origin},
    endpoints::{Chosen, Endpoints, Here},
    standing::{Checked, Failed, Rest, Standing},
};
use crate::model::{
    Backend, Destination, DestinationKey, Element, Endpoint, EndpointSlice, FastPath, Forwarding,
    Frontend, LocalEndpoints, Masquerade, Notice, Protocol, Service, ServiceKind, ServicePort,
    ServicePortName, Sources, TrafficPolicy, VirtualServer,
};

/// What a Service is served with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) settings: &'a Settings,
    pub(super) facts: &'a NodeFacts,
    pub(super) here: Here<'a>,
    pub(super) failed: &'a Failed,
}

/// What a Service wants.
#[derive(Default)]
pub(super) struct Wanted {
    /// Its virtual servers; who gets a frontend that two want is decided elsewhere.
    pub(super) servers: Vec<DesiredServer>,
    pub(super) notices: Vec<Notice>,
    pub(super) health: Option<HealthCheck>,
    /// Backends to check.
    pub(super) checked: Option<Checked>,
    /// Ports that lead to others although the Service asks for a way that cannot change them: the
    /// first is told.
    kept: BTreeSet<KeptPort>,
}

/// A port that is masqueraded because it leads to another one. Node ports are the last: they
/// differ nearly always, and are seldom what the Service is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct KeptPort {
    node_port: bool,
    port: u16,
    target: u16,
}

/// Returns what a Service wants, given the slices that belong to it.
pub(super) fn wanted(service: &Service, slices: &[&EndpointSlice], context: Context<'_>) -> Wanted {
    let mut wanted = Wanted::default();
    let check = service.watching.as_ref().and_then(|watching| watching.check.clone());
    wanted.checked = check.map(|check| Checked { check, backends: BTreeSet::new() });
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
    exclude(service, context.settings, &mut wanted);
    wanted.notices.extend(wanted.kept.first().map(|&KeptPort { node_port, port, target }| {
        let (service, forwarding) = (service.name.clone(), service.forwarding);
        Notice::PortKept { service, forwarding, port, node_port, target }
    }));
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

/// What is at an excluded address is somebody else's to serve.
fn exclude(service: &Service, settings: &Settings, wanted: &mut Wanted) {
    let mut excluded = BTreeSet::new();
    wanted.servers.retain(|server| {
        let addr = server.virtual_server.frontend.addr;
        let keep = !settings.excludes(addr);
        if !keep {
            excluded.insert(addr);
        }
        keep
    });
    wanted.notices.extend(
        excluded
            .into_iter()
            .map(|addr| Notice::AddressExcluded { service: service.name.clone(), addr }),
    );
}

/// Counts as kube-proxy does: the addresses of this node that are ready for some port.
fn health(
    service: &Service,
    ports: &[&ServicePort],
    slices: &[&EndpointSlice],
    here: Here<'_>,
) -> Option<HealthCheck> {
    let port = service.health_check_port?;
    let balanced = service.kind == ServiceKind::LoadBalancer;
    if service.external_policy != TrafficPolicy::Local || !balanced {
        return None;
    }
    let count = |ipv6: bool| {
        service.cluster_ips.iter().find(|addr| addr.is_ipv6() == ipv6)?;
        let ready = |port: &&ServicePort| Endpoints::of(port, slices, ipv6, here).ready_here();
        let addrs: BTreeSet<_> = ports.iter().flat_map(ready).map(|key| key.addr).collect();
        Some(u32::try_from(addrs.len()).unwrap_or(u32::MAX))
    };
    let local_endpoints = LocalEndpoints { ipv4: count(false), ipv6: count(true) };
    Some(HealthCheck { port, local_endpoints })
}

/// Makes of a server at a loopback address what leads to another one.
fn lead(server: DesiredServer, to: Frontend) -> DesiredServer {
    let (destinations, lingering, cut) = Default::default();
    let admission = Admission::Serve;
    DesiredServer {
        destinations,
        lingering,
        cut,
        admission,
        vip: false,
        fast_path: FastPath::Off,
        elements: Vec::new(),
        leads_to: Some(to),
        ..server
    }
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
    /// Forwarded as the Service asks.
    destinations: Arc<Destinations>,
    /// The same, all masqueraded: for frontends of another port.
    masqueraded: Arc<Destinations>,
    lingering: Arc<BTreeSet<DestinationKey>>,
    cut: Option<Arc<BTreeSet<DestinationKey>>>,
    /// Of the sorry server, also where it is not needed.
    stand_in: Option<u16>,
    admission: Admission,
    /// Endpoints that may connect to themselves through the Service.
    hairpins: Vec<Element>,
}

impl Class {
    /// Returns a port of an endpoint that is not this one. All that are listed count: the way to
    /// forward does not change with what is ready.
    fn other_port(&self, port: u16) -> Option<u16> {
        let listed = self.destinations.keys().chain(self.lingering.iter());
        let listed = listed.chain(self.cut.iter().flat_map(|cut| cut.iter()));
        listed.map(|key| key.port).chain(self.stand_in).find(|target| *target != port)
    }
}

impl Family<'_> {
    fn take_port(&self, port: &ServicePort, wanted: &mut Wanted) {
        let Self { service, slices, context, cluster_ip } = self;
        let endpoints = Endpoints::of(port, slices, cluster_ip.is_ipv6(), context.here);
        let standing = Standing::of(service, port, cluster_ip.is_ipv6(), context.failed);
        let class = |policy| match policy {
            TrafficPolicy::Cluster => self.class(&endpoints, endpoints.cluster(), policy, standing),
            TrafficPolicy::Local => self.class(&endpoints, endpoints.local(), policy, standing),
        };
        if let Some(checked) = &mut wanted.checked {
            let backends = endpoints.of_use().map(|key| Backend::new(key, port.protocol));
            checked.backends.extend(backends);
        }
        let internal = class(service.internal_policy);
        for &addr in service.cluster_ips.iter().filter(|addr| self.is_of(addr)) {
            let server = self.server(port, addr, port.port, Origin::ClusterIp, &internal);
            wanted.servers.push(server);
            wanted.kept.extend(self.kept(port.port, Origin::ClusterIp, &internal));
        }
        let outside = self.outside(port);
        if outside.is_empty() {
            return;
        }
        let external = class(service.external_policy);
        let mut inside = Frontend { addr: *cluster_ip, port: port.port, protocol: port.protocol };
        let split = service.external_policy == TrafficPolicy::Local;
        let sent_inside = |(_, number, origin): &(IpAddr, u16, Origin)| {
            *origin == Origin::Loopback
                || split && self.forwarding(*number, *origin, &external).changes_port()
        };
        // Whom an inside source is sent to must answer by way of this node.
        let cluster_ip_serves_inside = service.internal_policy == TrafficPolicy::Cluster
            && self.forwarding(port.port, Origin::ClusterIp, &internal).changes_port();
        if !cluster_ip_serves_inside && outside.iter().any(sent_inside) {
            // Inside sources get all endpoints, which no cluster IP of this Service has.
            let shadow = self.shadow_port(port);
            let all = class(TrafficPolicy::Cluster);
            wanted.servers.push(self.server(port, *cluster_ip, shadow, Origin::Inside, &all));
            inside.port = shadow;
        }
        for (addr, number, origin) in outside {
            let mut server = self.server(port, addr, number, origin, &external);
            if origin == Origin::Loopback {
                wanted.servers.push(lead(server, inside));
                continue;
            }
            let frontend = server.virtual_server.frontend;
            // A backend that gets the packet as it was sent answers the client by itself.
            if self.forwarding(number, origin, &external).changes_port() {
                server.elements.push(if split {
                    Element::Inside(frontend, inside.addr, inside.port)
                } else {
                    Element::Masquerade(frontend)
                });
            }
            wanted.kept.extend(self.kept(number, origin, &external));
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
            outside.extend(addrs.filter_map(|&addr| match addr.is_loopback() {
                false => Some((addr, node_port, Origin::NodePort)),
                // The kernel has no hook for the sockets of SCTP.
                true if port.protocol == Protocol::Sctp => None,
                true => Some((addr, node_port, Origin::Loopback)),
            }));
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

    fn class(
        &self,
        endpoints: &Endpoints<'_>,
        chosen: Chosen,
        policy: TrafficPolicy,
        standing: Standing<'_>,
    ) -> Class {
        let here = self.context.here.name;
        let elsewhere =
            |endpoint: &Endpoint| endpoint.node.as_deref().is_some_and(|node| node != here);
        let draining: BTreeSet<_> = endpoints.draining().collect();
        let mut destinations = Vec::new();
        let (mut lingering, mut cut) = (BTreeSet::new(), BTreeSet::new());
        let mut hairpins = Vec::new();
        let mut serves = false;
        let forwarding = self.service.forwarding;
        for (key, endpoint) in endpoints.listed() {
            let unreachable = policy == TrafficPolicy::Local && elsewhere(endpoint);
            let weight = if chosen.keys.contains(&key) {
                match standing.rest(key) {
                    Rest::All => {
                        serves = true;
                        self.weight(key, endpoint)
                    }
                    Rest::Connections => 0,
                    Rest::Nothing => {
                        cut.insert(key);
                        continue;
                    }
                }
            } else if draining.contains(&key) && !unreachable {
                0
            } else {
                lingering.insert(key);
                continue;
            };
            destinations.push(Destination { key, weight, forwarding, limits: self.service.limits });
            if !elsewhere(endpoint) {
                hairpins.push(Element::Hairpin(key.addr));
            }
        }
        if standing.stand_in(&mut destinations, (forwarding, self.service.limits)) {
            serves = true;
            let stand_in = destinations.last().map(|destination| destination.key);
            stand_in.iter().for_each(|key| hairpins.push(Element::Hairpin(key.addr)));
            cut.retain(|key| Some(*key) != stand_in);
            lingering.retain(|key| Some(*key) != stand_in);
        }
        let admission = match (serves, chosen.keys.is_empty() && chosen.any) {
            (true, _) => Admission::Serve,
            (false, true) => Admission::Drop,
            (false, false) => Admission::Reject,
        };
        let destinations: Arc<Destinations> = Arc::new(destinations.into_iter().collect());
        let masqueraded = if self.service.forwarding.changes_port() {
            Arc::clone(&destinations)
        } else {
            let masqueraded = destinations
                .iter()
                .map(|&destination| Destination { forwarding: Forwarding::Masq, ..destination });
            Arc::new(masqueraded.collect())
        };
        // Nearly always there are none.
        let cut = Some(cut).filter(|cut| !cut.is_empty()).map(Arc::new);
        let lingering = Arc::new(lingering);
        let stand_in = standing.port_of_stand_in();
        Class { destinations, masqueraded, lingering, cut, stand_in, admission, hairpins }
    }

    /// Returns how packets to a port reach the endpoints. Inside sources come by way of an address
    /// translation, which has to see the answer.
    fn forwarding(&self, port: u16, origin: Origin, class: &Class) -> Forwarding {
        if origin == Origin::Inside || class.other_port(port).is_some() {
            Forwarding::Masq
        } else {
            self.service.forwarding
        }
    }

    /// Returns the port, if it is masqueraded although the Service asks for another way.
    fn kept(&self, port: u16, origin: Origin, class: &Class) -> Option<KeptPort> {
        let target = class.other_port(port).filter(|_| !self.service.forwarding.changes_port())?;
        Some(KeptPort { node_port: origin == Origin::NodePort, port, target })
    }

    fn weight(&self, key: DestinationKey, endpoint: &Endpoint) -> u32 {
        let weights = &self.service.weights;
        let by_node = || weights.by_node.get(endpoint.node.as_deref()?);
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
        let own = facts.addrs.contains(&addr) || facts.node_port_addrs.contains(&addr);
        let vip = !own && !settings.leave_vips;
        let masq = self.forwarding(number, origin, class).changes_port();
        let destinations = if masq { &class.masqueraded } else { &class.destinations };
        let mut elements = class.hairpins.clone();
        elements.extend(vip.then_some(Element::Vip(addr)));
        elements.extend(match class.admission {
            Admission::Serve => None,
            Admission::Drop => Some(Element::Drop(frontend)),
            Admission::Reject => Some(Element::Reject(frontend)),
        });
        let masquerade = settings.rules().masquerade != Masquerade::Needed;
        elements.extend(match origin {
            Origin::ClusterIp => (masq && masquerade).then_some(Element::ClusterIp(addr)),
            Origin::Inside => Some(Element::Shadow(frontend)),
            _ => None,
        });
        let learnable = port.protocol != Protocol::Sctp && masq;
        DesiredServer {
            virtual_server: VirtualServer {
                frontend,
                scheduler,
                flags: flags.for_drains(scheduler),
                persistent_secs: service.affinity_secs.unwrap_or(0),
            },
            destinations: Arc::clone(destinations),
            lingering: Arc::clone(&class.lingering),
            cut: class.cut.clone(),
            service: ServicePortName { service: service.name.clone(), port: port.name.clone() },
            created_at: service.created_at,
            origin,
            admission: class.admission,
            vip,
            fast_path: if learnable { service.fast_path } else { FastPath::Off },
            elements,
            leads_to: None,
        }
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
