//! Which endpoints of a Service port serve which class of traffic.
//!
//! The order of the questions is kube-proxy's (`CategorizeEndpoints`): traffic policy, topology,
//! readiness. An endpoint whose condition `ready` is true takes new connections, also while it
//! terminates: only `publishNotReadyAddresses` makes that so. If a class has no such endpoint, those
//! that terminate and still serve get its traffic (KEP-1669).

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{DestinationKey, Endpoint, EndpointSlice, Node, ServicePort};

/// The node that the endpoints are chosen for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    /// Name of the node.
    pub(super) name: &'a str,
    /// Its zone.
    pub(super) zone: Option<&'a str>,
}

impl<'a> Here<'a> {
    pub(super) fn new(name: &'a str, node: Option<&'a Node>) -> Self {
        let zone = node.and_then(|node| node.zone.as_deref()).filter(|zone| !zone.is_empty());
        Self { name, zone }
    }
}

/// The endpoints of one Service port in one address family.
#[derive(Clone, Debug)]
pub(super) struct Endpoints<'a> {
    all: BTreeMap<DestinationKey, Candidate<'a>>,
    here: Here<'a>,
}

/// An endpoint, as the best of the slices that list it has it.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    ready: bool,
    /// Terminates, and serves what it has.
    draining: bool,
    /// On this node.
    local: bool,
    endpoint: &'a Endpoint,
}

/// Those that get the new connections of a class of traffic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Chosen {
    /// They are.
    pub(super) keys: BTreeSet<DestinationKey>,
    /// Some endpoint somewhere could serve, although policy may keep it from this node.
    pub(super) any: bool,
}

impl<'a> Endpoints<'a> {
    /// Collects the endpoints of a port out of the slices of its Service.
    pub(super) fn of(
        port: &ServicePort,
        slices: &[&'a EndpointSlice],
        ipv6: bool,
        here: Here<'a>,
    ) -> Self {
        let mut all = BTreeMap::new();
        for slice in slices {
            for served in &slice.ports {
                if served.name != port.name || served.protocol != port.protocol {
                    continue;
                }
                for endpoint in &slice.endpoints {
                    if endpoint.addr.is_ipv6() != ipv6 {
                        continue;
                    }
                    let key = DestinationKey { addr: endpoint.addr, port: served.port };
                    let candidate = Candidate::new(endpoint, here);
                    all.entry(key)
                        .and_modify(|held: &mut Candidate<'_>| *held = held.better(candidate))
                        .or_insert(candidate);
                }
            }
        }
        Self { all, here }
    }

    /// Returns every endpoint that is listed, whatever its state.
    pub(super) fn listed(&self) -> impl Iterator<Item = (DestinationKey, &'a Endpoint)> {
        self.all.iter().map(|(key, candidate)| (*key, candidate.endpoint))
    }

    /// Returns those that drain, wherever they are.
    pub(super) fn draining(&self) -> impl Iterator<Item = DestinationKey> {
        self.all.iter().filter(|(_, candidate)| candidate.draining).map(|(key, _)| *key)
    }

    /// Returns those that may get new connections: whom it is worth to check.
    pub(super) fn of_use(&self) -> impl Iterator<Item = DestinationKey> {
        let of_use = |candidate: &Candidate<'_>| candidate.ready || candidate.draining;
        self.all.iter().filter(move |(_, candidate)| of_use(candidate)).map(|(key, _)| *key)
    }

    /// Chooses for traffic policy Cluster: all endpoints, narrowed down by topology hints.
    pub(super) fn cluster(&self) -> Chosen {
        let topology = self.topology();
        let mut keys = self.those(|candidate| candidate.ready && topology.takes(candidate));
        if keys.is_empty() {
            keys = self.those(|candidate| candidate.draining);
        }
        let any = !keys.is_empty();
        Chosen { keys, any }
    }

    /// Chooses for traffic policy Local: the endpoints of this node, whatever the hints.
    pub(super) fn local(&self) -> Chosen {
        let mut keys = self.those(|candidate| candidate.ready && candidate.local);
        if keys.is_empty() {
            keys = self.those(|candidate| candidate.draining && candidate.local);
        }
        let any = self.all.values().any(|candidate| candidate.ready || candidate.draining);
        Chosen { keys, any }
    }

    /// Returns how many endpoints of this node are ready and do not terminate: what a load balancer
    /// that asks `healthCheckNodePort` counts.
    pub(super) fn ready_here(&self) -> BTreeSet<DestinationKey> {
        self.those(|candidate| {
            candidate.ready && !candidate.endpoint.terminating && candidate.local
        })
    }

    fn those(&self, wanted: impl Fn(&Candidate<'_>) -> bool) -> BTreeSet<DestinationKey> {
        let those = self.all.iter().filter(|(_, candidate)| wanted(candidate));
        those.map(|(key, _)| *key).collect()
    }

    /// Hints hold only if every ready endpoint has them and one of them means us; hints for nodes
    /// go before hints for zones (KEP-3015, KEP-2433).
    fn topology(&self) -> Topology<'_> {
        let Here { name, zone } = self.here;
        let ready = || self.all.values().filter(|candidate| candidate.ready);
        let node_hints = |candidate: &Candidate<'a>| &candidate.endpoint.node_hints;
        let zone_hints = |candidate: &Candidate<'a>| &candidate.endpoint.zone_hints;
        let names = |hints: &[String], name: &str| hints.iter().any(|hint| hint == name);
        if ready().all(|candidate| !node_hints(candidate).is_empty())
            && ready().any(|candidate| names(node_hints(candidate), name))
        {
            return Topology::Node(name);
        }
        match zone {
            Some(zone)
                if ready().all(|candidate| !zone_hints(candidate).is_empty())
                    && ready().any(|candidate| names(zone_hints(candidate), zone)) =>
            {
                Topology::Zone(zone)
            }
            _ => Topology::Anywhere,
        }
    }
}

impl<'a> Candidate<'a> {
    fn new(endpoint: &'a Endpoint, here: Here<'_>) -> Self {
        let draining = endpoint.terminating && endpoint.serving;
        let local = endpoint.node.as_deref() == Some(here.name);
        Self { ready: endpoint.ready, draining, local, endpoint }
    }

    /// Of two slices that list an endpoint, the one in which it is good for more is right: the
    /// other is behind.
    fn better(self, other: Self) -> Self {
        if other.merit() > self.merit() { other } else { self }
    }

    /// Good for more comes first, on this node second, as in kube-proxy; the rest is there so that
    /// the order of the slices decides nothing.
    fn merit(&self) -> impl Ord {
        let Endpoint { terminating, node, zone_hints, node_hints, .. } = self.endpoint;
        (self.ready, self.draining, self.local, !terminating, node_hints, zone_hints, node)
    }
}

/// Which endpoints are near enough.
enum Topology<'a> {
    Anywhere,
    Node(&'a str),
    Zone(&'a str),
}

impl Topology<'_> {
    fn takes(&self, candidate: &Candidate<'_>) -> bool {
        let (hints, wanted) = match self {
            Self::Anywhere => return true,
            Self::Node(name) => (&candidate.endpoint.node_hints, name),
            Self::Zone(zone) => (&candidate.endpoint.zone_hints, zone),
        };
        hints.iter().any(|hint| hint == wanted)
    }
}
