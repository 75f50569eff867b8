//! Everything a source knows at one moment, and how that changes.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{EndpointSlice, Node, Service, ServiceName, SliceName};

/// All objects, sorted: the same input gives the same plan, byte for byte.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Services with forwarding state.
    pub services: BTreeMap<ServiceName, Service>,
    /// Slices, also those whose Service is not (yet) there.
    pub slices: BTreeMap<SliceName, EndpointSlice>,
    /// Nodes by name. A cluster's agent sees its own only.
    pub nodes: BTreeMap<String, Node>,
    /// `spec.cidrs` of all ServiceCIDR objects (KEP-1880).
    pub service_cidrs: BTreeSet<IpNet>,
}

/// One change of one object. `None` is an object that went away, or that has no forwarding state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// A Service.
    Service(ServiceName, Option<Service>),
    /// An EndpointSlice.
    Slice(SliceName, Option<EndpointSlice>),
    /// A Node.
    Node(String, Option<Node>),
    /// The CIDRs of all ServiceCIDR objects together.
    ServiceCidrs(BTreeSet<IpNet>),
}

/// What a source says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Update {
    /// Everything anew: after a start, a relist, a changed file.
    Replace(Snapshot),
    /// These objects changed, in this order.
    Change(Vec<Change>),
}

impl Snapshot {
    /// Takes up a change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Service(name, service) => put(&mut self.services, name, service),
            Change::Slice(name, slice) => put(&mut self.slices, name, slice),
            Change::Node(name, node) => put(&mut self.nodes, name, node),
            Change::ServiceCidrs(cidrs) => self.service_cidrs = cidrs,
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => {
            map.insert(key, value);
        }
        None => {
            map.remove(&key);
        }
    }
}
