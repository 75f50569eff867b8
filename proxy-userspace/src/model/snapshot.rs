//! Everything a source knows at one moment, and how that changes.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

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

    /// Returns the changes that make this snapshot the newer one: one for each object that differs,
    /// kind by kind and sorted, since no two of them touch the same object.
    pub fn changes_to(&self, newer: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        differences(&self.services, &newer.services, |name, service| {
            changes.push(Change::Service(name.clone(), service.cloned()));
        });
        differences(&self.slices, &newer.slices, |name, slice| {
            changes.push(Change::Slice(name.clone(), slice.cloned()));
        });
        differences(&self.nodes, &newer.nodes, |name, node| {
            changes.push(Change::Node(name.clone(), node.cloned()));
        });
        if self.service_cidrs != newer.service_cidrs {
            changes.push(Change::ServiceCidrs(newer.service_cidrs.clone()));
        }
        changes
    }
}

/// Walks two maps side by side and names each key whose value differs, with the newer value.
fn differences<'a, K: Ord, V: PartialEq>(
    older: &'a BTreeMap<K, V>,
    newer: &'a BTreeMap<K, V>,
    mut differs: impl FnMut(&'a K, Option<&'a V>),
) {
    let (mut older, mut newer) = (older.iter().peekable(), newer.iter().peekable());
    loop {
        let order = match (older.peek(), newer.peek()) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        let gone = if order.is_le() { older.next() } else { None };
        let there = if order.is_ge() { newer.next() } else { None };
        match (gone, there) {
            (Some((_, old)), Some((key, new))) if old != new => differs(key, Some(new)),
            (Some((key, _)), None) => differs(key, None),
            (None, Some((key, new))) => differs(key, Some(new)),
            _ => {}
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::btree_map, prelude::*};

    use super::{Change, Snapshot};
    use crate::model::{
        EndpointSlice, FastPath, Forwarding, Node, Service, ServiceKind, ServiceName, SliceName,
        Sources, TrafficPolicy, Weights,
    };

    fn service(name: &str, created_at: i64) -> (ServiceName, Service) {
        let name = ServiceName { namespace: "shop".into(), name: name.into() };
        let service = Service {
            limits: Default::default(),
            name: name.clone(),
            kind: ServiceKind::ClusterIP,
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            sources: Sources::Any,
            ports: Vec::new(),
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            affinity_secs: None,
            health_check_port: None,
            scheduler: None,
            weights: Weights::default(),
            forwarding: Forwarding::Masq,
            fast_path: FastPath::Auto,
            watching: None,
            created_at: Some(created_at),
        };
        (name, service)
    }

    fn slice(name: &str, service: &str) -> (SliceName, EndpointSlice) {
        let name = SliceName { namespace: "shop".into(), name: name.into() };
        let service = ServiceName { namespace: "shop".into(), name: service.into() };
        let (ports, endpoints) = (Vec::new(), Vec::new());
        (name.clone(), EndpointSlice { name, service, ports, endpoints })
    }

    fn node(name: &str, leaving: bool) -> (String, Node) {
        (name.to_owned(), Node { name: name.to_owned(), leaving, ..Node::default() })
    }

    /// Few names and few values, so that two snapshots have much in common.
    fn snapshots() -> impl Strategy<Value = Snapshot> {
        let objects = || btree_map("[a-e]", 0..2_u8, 0..5);
        (objects(), objects(), objects(), 0..3_u8).prop_map(|(services, slices, nodes, cidrs)| {
            let cidrs = (0..cidrs).map(|third| format!("10.96.{third}.0/24").parse().unwrap());
            Snapshot {
                services: services.iter().map(|(name, of)| service(name, (*of).into())).collect(),
                slices: slices.iter().map(|(name, of)| slice(name, &of.to_string())).collect(),
                nodes: nodes.iter().map(|(name, of)| node(name, *of == 1)).collect(),
                service_cidrs: cidrs.collect(),
            }
        })
    }

    fn differing<K: Ord, V: PartialEq>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> usize {
        let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
        keys.into_iter().filter(|key| one.get(key) != other.get(key)).count()
    }

    proptest! {
        #[test]
        fn the_changes_to_a_snapshot_lead_to_it_and_none_is_in_vain(
            older in snapshots(),
            newer in snapshots(),
        ) {
            let changes = older.changes_to(&newer);
            let expected = differing(&older.services, &newer.services)
                + differing(&older.slices, &newer.slices)
                + differing(&older.nodes, &newer.nodes)
                + usize::from(older.service_cidrs != newer.service_cidrs);
            prop_assert_eq!(changes.len(), expected);
            let mut changed = older.clone();
            for change in changes {
                let before = changed.clone();
                changed.apply(change);
                prop_assert_ne!(&changed, &before);
            }
            prop_assert_eq!(changed, newer);
        }
    }

    #[test]
    fn a_snapshot_differs_from_itself_in_nothing() {
        let snapshot = Snapshot { services: [service("a", 1)].into(), ..Snapshot::default() };
        assert_eq!(snapshot.changes_to(&snapshot), []);
    }

    #[test]
    fn an_object_that_went_away_is_a_change_to_nothing() {
        let [(a, one), (b, other), (c, third)] = ["a", "b", "c"].map(|name| service(name, 1));
        let older =
            Snapshot { services: [(a.clone(), one), (b, other)].into(), ..Snapshot::default() };
        let mut newer = older.clone();
        newer.services.remove(&a);
        newer.services.insert(c.clone(), third.clone());
        let expected = [Change::Service(a, None), Change::Service(c, Some(third))];
        assert_eq!(older.changes_to(&newer), expected);
    }
}
