//! The desired state over time.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Desired, Failed, Limits, NodeFacts, Observed, Plan, Settings,
    desired::{context, desired_with},
    diff::{self, Drains},
};
use crate::model::{
    Backend, Change, EndpointSlice, RuleOptions, Service, ServiceName, SliceName, Snapshot, Update,
};

/// Takes up changes of the objects and of the node, and plans at a cost that depends on what
/// changed, not on what there is.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    settings: Settings,
    facts: NodeFacts,
    snapshot: Snapshot,
    slices_of: BTreeMap<ServiceName, Vec<SliceName>>,
    failed: Failed,
    desired: Desired,
    /// Services whose desired state may be another now.
    dirty: BTreeSet<ServiceName>,
    /// Something changed that everything hangs on.
    all_dirty: bool,
    /// The desired state was made anew since the last plan: what went is not known.
    remade: bool,
}

impl Planner {
    /// Returns a planner without objects.
    pub fn new(settings: Settings, facts: NodeFacts) -> Self {
        Self { settings, facts, all_dirty: true, ..Self::default() }
    }

    /// Returns the objects.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns the fixed rules that the settings call for.
    pub fn rules(&self) -> RuleOptions {
        self.settings.rules()
    }

    /// Takes up what the source says.
    pub fn take(&mut self, update: Update) {
        match update {
            Update::Replace(snapshot) => self.replace(snapshot),
            Update::Change(changes) => changes.into_iter().for_each(|change| self.change(change)),
        }
    }

    /// Takes up what the node is now.
    pub fn set_facts(&mut self, facts: NodeFacts) {
        if self.facts != facts {
            self.facts = facts;
            self.all_dirty = true;
        }
    }

    /// Takes up which backends of a Service are down by their health checks.
    pub fn set_failed(&mut self, service: &ServiceName, failed: BTreeSet<Backend>) {
        let held = self.failed.get(service);
        if held.is_some_and(|held| *held == failed) || held.is_none() && failed.is_empty() {
            return;
        }
        self.dirty.insert(service.clone());
        if failed.is_empty() {
            self.failed.remove(service);
        } else {
            self.failed.insert(service.clone(), failed);
        }
    }

    /// Returns what should be, with all that was taken up.
    pub fn desired(&mut self) -> &Desired {
        if std::mem::take(&mut self.all_dirty) {
            self.dirty.clear();
            self.remade = true;
            self.desired = desired_with(&self.snapshot, &self.facts, &self.settings, &self.failed);
        }
        let dirty = std::mem::take(&mut self.dirty);
        let context = context(&self.snapshot, &self.facts, &self.settings, &self.failed);
        for name in &dirty {
            let service = self.snapshot.services.get(name);
            let slices = slices(&self.snapshot, &self.slices_of, name);
            self.desired.put(name, service, &slices, context);
        }
        &self.desired
    }

    /// Returns what should be, and what it was decided with.
    pub fn desired_with_facts(&mut self) -> (&Desired, &NodeFacts) {
        self.desired();
        (&self.desired, &self.facts)
    }

    /// Plans for what changed since the last plan.
    pub fn plan_changes(&mut self, observed: &Observed, limits: &Limits, drains: &Drains) -> Plan {
        self.desired();
        if self.remade {
            return self.plan_all(observed, limits, drains);
        }
        let touched = self.desired.touched();
        diff::plan_touched(&self.desired, observed, limits, drains, touched)
    }

    /// Plans for everything.
    pub fn plan_all(&mut self, observed: &Observed, limits: &Limits, drains: &Drains) -> Plan {
        self.desired();
        self.desired.touched();
        self.remade = false;
        diff::plan(&self.desired, observed, limits, drains)
    }

    /// Looks again at one Service: its drains have ended, say.
    pub fn touch(&mut self, service: &ServiceName) {
        self.dirty.insert(service.clone());
    }

    fn replace(&mut self, snapshot: Snapshot) {
        let old = std::mem::take(&mut self.snapshot);
        self.all_dirty |=
            old.nodes != snapshot.nodes || old.service_cidrs != snapshot.service_cidrs;
        self.dirty.extend(differing(&old.services, &snapshot.services).cloned());
        for name in differing(&old.slices, &snapshot.slices) {
            let slices = [old.slices.get(name), snapshot.slices.get(name)];
            self.dirty.extend(slices.into_iter().flatten().map(|slice| slice.service.clone()));
        }
        self.slices_of.clear();
        for slice in snapshot.slices.values() {
            add(&mut self.slices_of, slice);
        }
        self.snapshot = snapshot;
    }

    fn change(&mut self, change: Change) {
        match &change {
            Change::Service(name, service) => self.service_changes(name, service.as_ref()),
            Change::Slice(name, slice) => self.slice_changes(name, slice.as_ref()),
            Change::Node(name, node) => {
                let ours = *name == self.facts.name;
                self.all_dirty |= ours && self.snapshot.nodes.get(name) != node.as_ref();
            }
            Change::ServiceCidrs(cidrs) => self.all_dirty |= self.snapshot.service_cidrs != *cidrs,
        }
        self.snapshot.apply(change);
    }

    fn service_changes(&mut self, name: &ServiceName, service: Option<&Service>) {
        if self.snapshot.services.get(name) != service {
            self.dirty.insert(name.clone());
        }
    }

    fn slice_changes(&mut self, name: &SliceName, slice: Option<&EndpointSlice>) {
        let old = self.snapshot.slices.get(name);
        if old == slice {
            return;
        }
        if let Some(old) = old {
            self.dirty.insert(old.service.clone());
            if let Some(slices) = self.slices_of.get_mut(&old.service) {
                slices.retain(|slice| slice != name);
                if slices.is_empty() {
                    self.slices_of.remove(&old.service);
                }
            }
        }
        if let Some(slice) = slice {
            self.dirty.insert(slice.service.clone());
            add(&mut self.slices_of, slice);
        }
    }
}

/// Notes a slice of a Service. They are sorted: the order in which they came is not known to all
/// nodes.
fn add(slices_of: &mut BTreeMap<ServiceName, Vec<SliceName>>, slice: &EndpointSlice) {
    let slices = slices_of.entry(slice.service.clone()).or_insert_with(|| Vec::with_capacity(1));
    if let Err(position) = slices.binary_search(&slice.name) {
        slices.insert(position, slice.name.clone());
    }
}

fn slices<'a>(
    snapshot: &'a Snapshot,
    slices_of: &BTreeMap<ServiceName, Vec<SliceName>>,
    name: &ServiceName,
) -> Vec<&'a EndpointSlice> {
    let names = slices_of.get(name).into_iter().flatten();
    names.filter_map(|name| snapshot.slices.get(name)).collect()
}

/// Returns the keys whose values differ, or that only one side has.
fn differing<'a, K: Ord, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let changed = one.iter().filter(|(key, value)| other.get(key) != Some(value));
    let new = other.keys().filter(|key| !one.contains_key(key));
    changed.map(|(key, _)| key).chain(new)
}
