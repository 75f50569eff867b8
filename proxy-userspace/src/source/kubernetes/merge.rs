//! The lists and changes of all kinds, put together to updates. Pure: no clock, no I/O.
//!
//! A list is taken apart from what is known until it is complete, so that half of a list is never
//! seen; and the first update waits for a list of every kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use ipnet::IpNet;

use super::{
    super::{
        Trigger,
        convert::{Converted, Identity, Kind, StoredOutcome},
    },
    objects::KINDS,
};
use crate::model::{Change, Notice, ServiceName, SliceName, Snapshot, Update};

/// What the watch of a kind tells.
#[derive(Debug)]
pub(super) enum Told {
    /// The API server answered a request.
    Answered,
    /// A list begins; what came of an unfinished one is forgotten.
    Listing,
    /// An object of the list.
    Listed(Box<Seen>),
    /// The list is complete.
    Complete,
    /// An object changed.
    Changed(Box<Seen>),
    /// An object was deleted.
    Deleted(Identity),
    /// The kind is not to be had; without it, the rest has to do.
    Absent,
}

/// An object as it is now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    identity: Identity,
    /// `None` when it has no forwarding state.
    value: Option<Converted>,
    notices: Vec<Notice>,
    triggered_at: Option<SystemTime>,
}

impl Seen {
    /// Returns an object that is gone.
    fn gone(identity: Identity) -> Self {
        Self { identity, value: None, notices: Vec::new(), triggered_at: None }
    }

    /// Takes what became of a stored object; `None` for one without a name.
    pub(super) fn new(outcome: StoredOutcome) -> Option<Self> {
        let identity = outcome.identity?;
        let service = (identity.kind == Kind::Service).then(|| service_name(&identity));
        let mut notices = outcome.notices;
        notices.extend(outcome.problems.iter().map(|problem| Notice::Unreadable {
            object: problem.object.clone(),
            service: service.clone(),
            problem: match problem.field.as_str() {
                "" => problem.fault.to_string(),
                field => format!("{field}: {}", problem.fault),
            },
        }));
        let triggered_at = outcome.triggered_at;
        Some(Self { identity, value: outcome.converted, notices, triggered_at })
    }
}

impl Seen {
    /// Returns why an EndpointSlice is as it is. One that is gone tells of the time before.
    fn trigger(&self) -> Option<Trigger> {
        let Some(Converted::Slice(slice)) = &self.value else { return None };
        let ipv6 = slice.endpoints.first().is_some_and(|endpoint| endpoint.addr.is_ipv6());
        Some(Trigger { at: self.triggered_at?, ipv6 })
    }
}

/// What is known of one kind besides its objects.
#[derive(Debug, Default)]
struct Progress {
    /// Has been listed once, or is not to be had.
    known: bool,
    /// The list that is under way.
    list: Option<BTreeMap<Identity, Seen>>,
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Merge {
    kinds: BTreeMap<Kind, Progress>,
    snapshot: Arc<Snapshot>,
    /// The ranges of each ServiceCIDR object; the snapshot has them together.
    service_cidrs: BTreeMap<String, BTreeSet<IpNet>>,
    noticed: BTreeMap<Identity, Vec<Notice>>,
    notices_changed: bool,
    /// Somebody has got the first update.
    published: bool,
    replaced: bool,
    changed: Vec<Identity>,
    pending: BTreeSet<Identity>,
    relists: u64,
    /// Of the changes that are to be told.
    triggers: Vec<Trigger>,
}

impl Merge {
    /// Takes up what a watch told. Returns whether there is something to tell on.
    pub(super) fn take(&mut self, kind: Kind, told: Told) {
        match told {
            Told::Answered => {}
            Told::Listing => self.progress(kind).list = Some(BTreeMap::new()),
            Told::Listed(seen) => {
                if let Some(list) = &mut self.progress(kind).list {
                    list.insert(seen.identity.clone(), *seen);
                }
            }
            Told::Complete => self.complete(kind),
            Told::Changed(seen) => self.change(*seen),
            Told::Deleted(identity) => {
                self.change(Seen::gone(identity));
            }
            Told::Absent => {
                let progress = self.progress(kind);
                progress.known = true;
                progress.list = None;
            }
        }
    }

    /// Returns whether every kind is known.
    pub(super) fn is_complete(&self) -> bool {
        let known = |kind: &Kind| self.kinds.get(kind).is_some_and(|progress| progress.known);
        KINDS.iter().all(known)
    }

    /// Returns whether a kind that is known is being listed anew.
    pub(super) fn is_relisting(&self) -> bool {
        self.kinds.values().any(|progress| progress.known && progress.list.is_some())
    }

    /// Returns how often a kind was listed after the first time.
    pub(super) fn relists(&self) -> u64 {
        self.relists
    }

    /// Returns everything that is known.
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Returns all notices about the objects as they are now.
    pub(super) fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.noticed.values().flatten()
    }

    /// Returns whether notices came or went since [`Merge::take_notices_changed`].
    pub(super) fn notices_changed(&self) -> bool {
        self.notices_changed
    }

    /// The same, and begins anew.
    pub(super) fn take_notices_changed(&mut self) -> bool {
        std::mem::take(&mut self.notices_changed)
    }

    /// Returns whether [`Merge::update`] has something.
    pub(super) fn has_update(&self) -> bool {
        self.is_complete() && (!self.published || self.replaced || !self.changed.is_empty())
    }

    /// Returns what changed since the last call, each object once.
    pub(super) fn update(&mut self) -> Option<Update> {
        if !self.has_update() {
            return None;
        }
        let changed = std::mem::take(&mut self.changed);
        self.pending.clear();
        let replace = std::mem::take(&mut self.replaced) || !self.published;
        self.published = true;
        Some(match replace {
            true => Update::Replace(Snapshot::clone(&self.snapshot)),
            false => Update::Change(changed.iter().map(|identity| self.now(identity)).collect()),
        })
    }

    /// Returns what brought about the changes since the last call.
    pub(super) fn take_triggers(&mut self) -> Vec<Trigger> {
        std::mem::take(&mut self.triggers)
    }

    fn progress(&mut self, kind: Kind) -> &mut Progress {
        self.kinds.entry(kind).or_default()
    }

    fn complete(&mut self, kind: Kind) {
        let progress = self.progress(kind);
        let Some(list) = progress.list.take() else { return };
        let again = std::mem::replace(&mut progress.known, true);
        self.relists += u64::from(again);
        let gone = self.known_identities(kind);
        let gone = gone.into_iter().filter(|identity| !list.contains_key(identity));
        let gone: Vec<_> = gone.collect();
        let mut differs = false;
        for identity in gone {
            differs |= self.put(Seen::gone(identity));
        }
        for seen in list.into_values() {
            differs |= self.put(seen);
        }
        self.replaced |= differs;
    }

    fn change(&mut self, seen: Seen) {
        let identity = seen.identity.clone();
        let trigger = seen.trigger();
        if self.put(seen) {
            self.triggers.extend(trigger);
            if self.pending.insert(identity.clone()) {
                self.changed.push(identity);
            }
        }
    }

    /// Returns the objects of a kind that are known or noticed.
    fn known_identities(&self, kind: Kind) -> BTreeSet<Identity> {
        let named = |namespace: &str, name: &str| Identity {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        };
        let snapshot = &self.snapshot;
        let mut known: BTreeSet<_> = match kind {
            Kind::Service => {
                snapshot.services.keys().map(|key| named(&key.namespace, &key.name)).collect()
            }
            Kind::EndpointSlice => {
                snapshot.slices.keys().map(|key| named(&key.namespace, &key.name)).collect()
            }
            Kind::Node => snapshot.nodes.keys().map(|name| named("", name)).collect(),
            Kind::ServiceCidr => self.service_cidrs.keys().map(|name| named("", name)).collect(),
        };
        known.extend(self.noticed.keys().filter(|identity| identity.kind == kind).cloned());
        known
    }

    /// Puts one object into the snapshot. Returns whether that changed anything.
    fn put(&mut self, seen: Seen) -> bool {
        let Seen { identity, value, notices, .. } = seen;
        let noticed = self.noticed.get(&identity).map(Vec::as_slice).unwrap_or_default();
        if *noticed != *notices {
            self.notices_changed = true;
            match notices.is_empty() {
                true => self.noticed.remove(&identity),
                false => self.noticed.insert(identity.clone(), notices),
            };
        }
        let change = self.as_change(&identity, value);
        if self.is_known(&change) {
            return false;
        }
        // Copies only while the snapshot is being written to the disk.
        Arc::make_mut(&mut self.snapshot).apply(change);
        true
    }

    fn as_change(&mut self, identity: &Identity, value: Option<Converted>) -> Change {
        match (identity.kind, value) {
            (Kind::Service, Some(Converted::Service(service))) => {
                Change::Service(service_name(identity), Some(service))
            }
            (Kind::Service, _) => Change::Service(service_name(identity), None),
            (Kind::EndpointSlice, Some(Converted::Slice(slice))) => {
                Change::Slice(slice_name(identity), Some(slice))
            }
            (Kind::EndpointSlice, _) => Change::Slice(slice_name(identity), None),
            (Kind::Node, Some(Converted::Node(node))) => {
                Change::Node(identity.name.to_string(), Some(node))
            }
            (Kind::Node, _) => Change::Node(identity.name.to_string(), None),
            (Kind::ServiceCidr, value) => {
                match value {
                    Some(Converted::ServiceCidr(cidrs)) => {
                        self.service_cidrs.insert(identity.name.to_string(), cidrs);
                    }
                    _ => {
                        self.service_cidrs.remove(&*identity.name);
                    }
                }
                Change::ServiceCidrs(self.service_cidrs.values().flatten().copied().collect())
            }
        }
    }

    fn is_known(&self, change: &Change) -> bool {
        let snapshot = &self.snapshot;
        match change {
            Change::Service(name, service) => snapshot.services.get(name) == service.as_ref(),
            Change::Slice(name, slice) => snapshot.slices.get(name) == slice.as_ref(),
            Change::Node(name, node) => snapshot.nodes.get(name) == node.as_ref(),
            Change::ServiceCidrs(cidrs) => snapshot.service_cidrs == *cidrs,
        }
    }

    /// Returns an object as it is now, as a change.
    fn now(&self, identity: &Identity) -> Change {
        let snapshot = &self.snapshot;
        match identity.kind {
            Kind::Service => {
                let name = service_name(identity);
                let service = snapshot.services.get(&name).cloned();
                Change::Service(name, service)
            }
            Kind::EndpointSlice => {
                let name = slice_name(identity);
                let slice = snapshot.slices.get(&name).cloned();
                Change::Slice(name, slice)
            }
            Kind::Node => {
                let node = snapshot.nodes.get(&*identity.name).cloned();
                Change::Node(identity.name.to_string(), node)
            }
            Kind::ServiceCidr => Change::ServiceCidrs(snapshot.service_cidrs.clone()),
        }
    }
}

fn service_name(identity: &Identity) -> ServiceName {
    ServiceName { namespace: identity.namespace.clone(), name: identity.name.clone() }
}

fn slice_name(identity: &Identity) -> SliceName {
    SliceName { namespace: identity.namespace.clone(), name: identity.name.clone() }
}
