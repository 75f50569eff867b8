//! What the node should hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Counted, Destinations, NodeFacts, Settings,
    claims::Claims,
    servers::{Context, wanted},
    settings::DetectLocal,
    standing::{Checked, Failed},
    unserved::Unserved,
};
use crate::model::{
    Backend, DestinationKey, Element, EndpointSlice, FastPath, Frontend, LocalEndpoints, Notice,
    Protocol, RuleOptions, Service, ServiceName, ServicePortName, Snapshot, VirtualServer,
};

/// Why a frontend exists.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Origin {
    /// A cluster IP and port of the Service.
    ClusterIp,
    /// A load-balancer IP and port of the Service.
    LoadBalancerIp,
    /// An external IP and port of the Service.
    ExternalIp,
    /// An address of the node and a node port of the Service.
    NodePort,
    /// Where inside sources are sent that dial a frontend of `externalTrafficPolicy: Local`, if the
    /// cluster IP is of `internalTrafficPolicy: Local` too.
    Inside,
    /// The loopback addresses and a node port of the Service. No virtual server: `leads_to` says
    /// where a process of the node gets that dials it.
    Loopback,
}

/// What becomes of new connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// A destination gets them.
    Serve,
    /// They are dropped: traffic policy Local, and endpoints on other nodes only.
    Drop,
    /// They are refused: no endpoint could serve them anywhere.
    Reject,
}

/// What `healthCheckNodePort` says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HealthCheck {
    /// The port, host order.
    pub port: u16,
    /// Endpoints of this node that are ready.
    pub local_endpoints: LocalEndpoints,
}

/// A virtual server that should be, and everything that hangs on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DesiredServer {
    /// Its settings in IPVS.
    pub virtual_server: VirtualServer,
    /// Its destinations; none at all when the Service has no endpoint that could serve.
    pub destinations: Arc<Destinations>,
    /// Endpoints that are listed and get nothing: if IPVS has them, their connections go on.
    pub lingering: Arc<BTreeSet<DestinationKey>>,
    /// Endpoints that failed their health check and go at once, with their connections.
    pub cut: Option<Arc<BTreeSet<DestinationKey>>>,
    /// The Service port it serves.
    pub service: ServicePortName,
    /// Age of the Service.
    pub created_at: Option<i64>,
    /// Why it exists.
    pub origin: Origin,
    /// What becomes of new connections.
    pub admission: Admission,
    /// Its address belongs to no interface of the node, and has to be routed here.
    pub vip: bool,
    /// What its flows may do: as the Service wants it, if the datapath can.
    pub fast_path: FastPath,
    /// What it needs in the nft table; one thing may be there twice.
    pub elements: Vec<Element>,
    /// Another frontend, that sockets are sent to which dial this one; then nothing of this one is
    /// in IPVS.
    pub leads_to: Option<Frontend>,
}

/// Everything that should be on the node.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Virtual servers by frontend.
    pub servers: BTreeMap<Frontend, DesiredServer>,
    /// Addresses to route to this node: those of frontends that no interface has.
    pub vips: Counted<IpAddr>,
    /// Elements of the nft table.
    pub elements: Counted<Element>,
    /// Where frontends that learn lead to: entries of the backend map.
    pub backends: Counted<Backend>,
    /// How many servers are forced: whether interfaces with programs of others are of use.
    pub forced: usize,
    /// Services whose traffic is dropped here, since their endpoints are on other nodes.
    pub unserved: Unserved,
    /// Fixed rules of the nft table.
    pub rules: RuleOptions,
    /// Ranges whose virtual servers are somebody else's.
    pub exclude_cidrs: Vec<IpNet>,
    /// What load balancers are told.
    pub health: BTreeMap<ServiceName, HealthCheck>,
    /// Backends whose health is to be checked.
    pub checked: BTreeMap<ServiceName, Checked>,
    claims: Claims,
    notices: BTreeMap<ServiceName, Vec<Notice>>,
    /// Frontends whose server may have changed since the last plan.
    touched: BTreeSet<Frontend>,
}

/// Keys whose desired state may have changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    pub(super) frontends: BTreeSet<Frontend>,
    pub(super) vips: BTreeSet<IpAddr>,
    pub(super) elements: BTreeSet<Element>,
    pub(super) backends: BTreeSet<Backend>,
}

impl PartialEq for Desired {
    fn eq(&self, other: &Self) -> bool {
        self.servers == other.servers
            && self.vips == other.vips
            && self.elements == other.elements
            && self.backends == other.backends
            && self.rules == other.rules
            && self.health == other.health
            && self.checked == other.checked
            && self.unserved == other.unserved
            && self.notices() == other.notices()
    }
}

impl Eq for Desired {}

/// Returns what the node should hold for these Services and endpoints, all of them healthy.
pub fn desired(snapshot: &Snapshot, facts: &NodeFacts, settings: &Settings) -> Desired {
    desired_with(snapshot, facts, settings, &Failed::new())
}

/// Returns what the node should hold for these Services and endpoints, some of which failed their
/// health checks.
///
/// Of two Services that claim one frontend or one node port the one whose cluster IP it is has it,
/// else the older one (`created_at`; a Service without one is the youngest), and of two of the same
/// age the first by namespace and name; the other keeps its remaining frontends.
pub fn desired_with(
    snapshot: &Snapshot,
    facts: &NodeFacts,
    settings: &Settings,
    failed: &Failed,
) -> Desired {
    let mut slices = BTreeMap::<_, Vec<_>>::new();
    for slice in snapshot.slices.values() {
        slices.entry(&slice.service).or_default().push(slice);
    }
    let mut desired = Desired {
        rules: settings.rules(),
        exclude_cidrs: settings.exclude_cidrs.clone(),
        ..Desired::default()
    };
    for element in fixed(snapshot, facts, settings) {
        desired.elements.add(&element);
    }
    let context = context(snapshot, facts, settings, failed);
    for service in snapshot.services.values() {
        let slices = slices.get(&service.name).map_or(&[][..], Vec::as_slice);
        desired.put(&service.name, Some(service), slices, context);
    }
    desired
}

/// Returns what Services are decided with.
pub(super) fn context<'a>(
    snapshot: &'a Snapshot,
    facts: &'a NodeFacts,
    settings: &'a Settings,
    failed: &'a Failed,
) -> Context<'a> {
    let here = super::endpoints::Here::new(&facts.name, snapshot.nodes.get(&facts.name));
    Context { settings, facts, here, failed }
}

/// Returns the elements that hang on no Service.
fn fixed(snapshot: &Snapshot, facts: &NodeFacts, settings: &Settings) -> Vec<Element> {
    let pods = match &settings.detect_local {
        DetectLocal::ClusterCidr(cidrs) => cidrs.clone(),
        DetectLocal::NodeCidr => {
            let node = snapshot.nodes.get(&facts.name);
            node.map(|node| node.pod_cidrs.clone()).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let service_cidrs: Vec<_> = match settings.reject_unassigned {
        true => snapshot.service_cidrs.iter().copied().collect(),
        false => Vec::new(),
    };
    // nft refuses ranges that overlap.
    let pods = ipnet::IpNet::aggregate(&pods).into_iter().map(Element::PodCidr);
    let service_cidrs =
        ipnet::IpNet::aggregate(&service_cidrs).into_iter().map(Element::ServiceCidr);
    pods.chain(service_cidrs).collect()
}

impl Desired {
    /// Returns what was asked for and cannot be, sorted.
    pub fn notices(&self) -> BTreeSet<Notice> {
        let mut notices = self.claims.notices(&self.servers);
        notices.extend(self.notices.values().flatten().cloned());
        notices
    }

    /// Takes up a Service as it is now; `None` when it is gone.
    pub(super) fn put(
        &mut self,
        name: &ServiceName,
        service: Option<&Service>,
        slices: &[&EndpointSlice],
        context: Context<'_>,
    ) {
        let mut touched = BTreeSet::new();
        for (frontend, held) in self.claims.withdraw(name, &mut self.servers) {
            held.iter().for_each(|server| self.release(server));
            touched.insert(frontend);
        }
        let wanted = service.map(|service| wanted(service, slices, context)).unwrap_or_default();
        for mut server in wanted.servers {
            // There are many, and they stay.
            server.elements.shrink_to_fit();
            touched.insert(server.virtual_server.frontend);
            self.claims.claim(server);
        }
        set(&mut self.notices, name, Some(wanted.notices).filter(|notices| !notices.is_empty()));
        set(&mut self.health, name, wanted.health);
        set(&mut self.checked, name, wanted.checked);
        for &frontend in &touched {
            let settled = self.claims.settle(frontend, &mut self.servers);
            settled.gained.iter().for_each(|server| self.acquire(server));
            settled.lost.iter().for_each(|server| self.release(server));
        }
        // Not `append`, which costs as much as both together.
        self.touched.extend(touched);
    }

    /// Returns what may have changed since the last call.
    pub(super) fn touched(&mut self) -> Touched {
        let mut touched = Touched {
            frontends: std::mem::take(&mut self.touched),
            vips: self.vips.touched(),
            elements: self.elements.touched(),
            backends: self.backends.touched(),
        };
        // An address may be wanted as before, but be live for another reason: of its frontends,
        // those that somebody else serves are none.
        for &Frontend { addr, .. } in &touched.frontends {
            touched.vips.insert(addr);
            touched.elements.extend([Element::Vip(addr), Element::ClusterIp(addr)]);
        }
        touched
    }

    /// Returns whether virtual servers of the address are somebody else's.
    pub(super) fn excludes(&self, addr: IpAddr) -> bool {
        self.exclude_cidrs.iter().any(|cidr| cidr.contains(&addr))
    }

    /// Returns the servers at an address.
    pub(super) fn servers_at(
        &self,
        addr: IpAddr,
    ) -> impl Iterator<Item = (&Frontend, &DesiredServer)> {
        let edge = |port, protocol| Frontend { addr, port, protocol };
        self.servers.range(edge(0, Protocol::Tcp)..=edge(u16::MAX, Protocol::Sctp))
    }

    fn acquire(&mut self, server: &DesiredServer) {
        server.elements.iter().for_each(|element| self.elements.add(element));
        server.backends().for_each(|backend| self.backends.add(&backend));
        self.forced += usize::from(server.fast_path == FastPath::Force);
        self.unserved.add(server);
        if server.vip {
            self.vips.add(&server.virtual_server.frontend.addr);
        }
    }

    fn release(&mut self, server: &DesiredServer) {
        server.elements.iter().for_each(|element| self.elements.take(element));
        server.backends().for_each(|backend| self.backends.take(&backend));
        self.forced -= usize::from(server.fast_path == FastPath::Force);
        self.unserved.take(server);
        if server.vip {
            self.vips.take(&server.virtual_server.frontend.addr);
        }
    }
}

impl DesiredServer {
    /// Says whether a destination goes at once, with its connections.
    pub(super) fn cuts(&self, key: &DestinationKey) -> bool {
        self.cut.as_ref().is_some_and(|cut| cut.contains(key))
    }

    /// Returns the backends that its flows may be learned to; nothing else is ever looked up.
    pub(super) fn backends(&self) -> impl Iterator<Item = Backend> {
        let protocol = self.virtual_server.frontend.protocol;
        let keys = (self.fast_path != FastPath::Off).then(|| self.destinations.keys());
        keys.into_iter().flatten().map(move |key| Backend::new(*key, protocol))
    }
}

fn set<V>(map: &mut BTreeMap<ServiceName, V>, key: &ServiceName, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key.clone(), value);
        }
        None => {
            map.remove(key);
        }
    }
}
