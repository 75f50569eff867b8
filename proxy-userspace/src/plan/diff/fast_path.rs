//! The BPF maps: frontends, backends, and the generations that end leases.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::Changes;
use crate::{
    model::{Backend, FastPath, Frontend, Notice, ServicePortName},
    plan::{
        Action, DesiredServer, FrontendEntry, Limits,
        ids::{IdMap, Numbered},
        order::{Rank, urgent},
    },
};

pub(super) fn compare(changes: &mut Changes<'_>, limits: &Limits) {
    let frontends = assign_frontends(changes, limits);
    let backends = assign_backends(changes, limits);
    invalidate(changes, &frontends, &backends, limits);
    compare_frontends(changes, &frontends);
    compare_backends(changes, &backends);
}

/// The entries of the touched keys as they should be; a key without one has no place.
type Entries<K, V> = BTreeMap<K, V>;

/// Returns the entries of the frontend map as they should be, urgent Services first when there is
/// no room for all.
fn assign_frontends(
    changes: &mut Changes<'_>,
    limits: &Limits,
) -> Entries<Frontend, FrontendEntry> {
    let touched = changes.touched.frontends.iter();
    let mut wanted: Vec<(Frontend, &DesiredServer)> =
        touched.filter_map(|frontend| Some((*frontend, changes.wanted(frontend)?))).collect();
    wanted.sort_by_key(|(_, server)| !urgent(&server.service.service));
    let keys = wanted.iter().map(|(frontend, _)| *frontend);
    let assigned = assign(&changes.observed.frontends, keys, limits.frontend_ids());
    let mut left_out = wanted.iter().filter(|(frontend, _)| !assigned.contains_key(frontend));
    if let Some((_, first)) = left_out.next() {
        changes.conflicts.push(Notice::FrontendsFull {
            limit: limits.frontends,
            left_out: 1 + left_out.count(),
            first: first.service.clone(),
        });
    }
    let entry = |(frontend, server): (Frontend, &DesiredServer)| {
        let id = *assigned.get(&frontend)?;
        Some((frontend, FrontendEntry { id, fast_path: server.fast_path }))
    };
    wanted.into_iter().filter_map(entry).collect()
}

/// Gives ids to the backends that frontends which learn lead to.
fn assign_backends(changes: &mut Changes<'_>, limits: &Limits) -> Entries<Backend, u32> {
    let touched = changes.touched.backends.iter();
    let mut wanted: Vec<Backend> =
        touched.filter(|backend| changes.desired.backends.contains(backend)).copied().collect();
    let all = wanted.len();
    let held = &changes.observed.backends;
    let first_come = assign(held, wanted.iter().copied(), limits.backend_ids());
    if first_come.len() == all {
        return first_come;
    }
    // Who uses a backend is asked only when there is no room for all.
    let users = users(changes);
    wanted.sort_by_key(|backend| !users.get(backend).is_some_and(|user| urgent(&user.service)));
    let assigned = assign(held, wanted.iter().copied(), limits.backend_ids());
    let first = wanted.iter().find(|backend| !assigned.contains_key(backend));
    if let Some(first) = first.and_then(|first| users.get(first)) {
        changes.conflicts.push(Notice::BackendsFull {
            limit: limits.backends,
            left_out: all - assigned.len(),
            first: (*first).clone(),
        });
    }
    assigned
}

/// Returns a Service port that uses each backend, an urgent one where there is one.
fn users<'a>(changes: &Changes<'a>) -> BTreeMap<Backend, &'a ServicePortName> {
    let mut users = BTreeMap::<Backend, &ServicePortName>::new();
    for server in changes.desired.servers.values() {
        for backend in server.backends() {
            let user = users.entry(backend).or_insert(&server.service);
            if urgent(&server.service.service) {
                *user = &server.service;
            }
        }
    }
    users
}

/// Gives each of `wanted` an id: the one it holds, or the lowest free one, in the order of
/// `wanted`. An id that somebody holds counts as used even if its holder is no longer wanted: a
/// flow entry may carry it until the plan is through.
fn assign<K: Copy + Ord, V: Numbered>(
    held: &IdMap<K, V>,
    wanted: impl IntoIterator<Item = K>,
    range: RangeInclusive<u32>,
) -> BTreeMap<K, u32> {
    let mut next = *range.start();
    let mut assigned = BTreeMap::new();
    for key in wanted {
        let id = held.rightful(&key, &range).or_else(|| {
            let id = held.lowest_free(next, *range.end())?;
            next = id + 1;
            Some(id)
        });
        if let Some(id) = id {
            assigned.insert(key, id);
        }
    }
    assigned
}

/// Ends the leases of every backend that loses a destination, a virtual server, its place in the
/// map, or a frontend that learns; and of those behind a frontend whose flows may do something else
/// from now on.
fn invalidate(
    changes: &mut Changes<'_>,
    frontends: &Entries<Frontend, FrontendEntry>,
    backends: &Entries<Backend, u32>,
    limits: &Limits,
) {
    let observed = changes.observed;
    let edited = edited_backends(changes);
    let mut lost = edited.clone();
    for frontend in &changes.touched.frontends {
        let held = observed.frontends.get(frontend);
        if held.is_some_and(|held| is_outdated(held, frontends.get(frontend))) {
            lost.extend(backends_behind(changes, frontend));
        }
    }
    for backend in &changes.touched.backends {
        if let Some(id) = observed.backends.get(backend)
            && backends.get(backend) != Some(id)
        {
            lost.insert(*id);
        }
    }
    lost.retain(|id| limits.backend_ids().contains(id));
    if lost.is_empty() {
        return;
    }
    let action = Action::Invalidate { backends: lost };
    if !edited.is_empty() {
        changes.push(Rank::InvalidateAfter, action.clone());
    }
    changes.push(Rank::InvalidateBefore, action);
}

/// Says whether flows that were learned for an entry may do something else from now on.
fn is_outdated(held: &FrontendEntry, wanted: Option<&FrontendEntry>) -> bool {
    held.learns() && wanted.is_none_or(|wanted| wanted.fast_path != held.fast_path)
}

/// Returns the ids of the backends that IPVS is about to lose somewhere.
fn edited_backends(changes: &Changes<'_>) -> BTreeSet<u32> {
    let mut edited = BTreeSet::new();
    for step in &changes.steps {
        match &step.action {
            Action::RemoveDestination { frontend, key } => {
                edited.extend(changes.observed.backend_id(*key, frontend.protocol));
            }
            Action::RemoveVirtualServer(frontend) => {
                edited.extend(backends_behind(changes, frontend));
            }
            _ => {}
        }
    }
    edited
}

/// Returns the ids of the backends that a frontend leads or led to.
fn backends_behind(changes: &Changes<'_>, frontend: &Frontend) -> BTreeSet<u32> {
    let held = changes.observed.servers.get(frontend).map(|server| server.destinations.keys());
    let wanted = changes.wanted(frontend).map(|server| server.destinations.keys());
    held.into_iter()
        .chain(wanted)
        .flatten()
        .filter_map(|key| changes.observed.backend_id(*key, frontend.protocol))
        .collect()
}

fn compare_frontends(changes: &mut Changes<'_>, wanted: &Entries<Frontend, FrontendEntry>) {
    let observed = &changes.observed.frontends;
    for frontend in changes.touched.frontends.clone() {
        let held = observed.get(&frontend);
        match wanted.get(&frontend) {
            Some(entry) if held == Some(entry) => {}
            Some(&entry) => {
                let put = |entry| Action::PutFrontend { frontend, entry };
                // Nothing may be learned the old way over the invalidation that follows.
                if held.is_some_and(|held| is_outdated(held, Some(&entry))) {
                    let quiet = FrontendEntry { fast_path: FastPath::Off, ..entry };
                    changes.push(Rank::StopLearning, put(quiet));
                    if entry == quiet {
                        continue;
                    }
                }
                changes.push(Rank::PutFrontend, put(entry));
            }
            None if held.is_some() => {
                changes.push(Rank::StopLearning, Action::RemoveFrontend(frontend));
            }
            None => {}
        }
    }
}

fn compare_backends(changes: &mut Changes<'_>, wanted: &Entries<Backend, u32>) {
    let observed = &changes.observed.backends;
    for backend in changes.touched.backends.clone() {
        match (wanted.get(&backend), observed.get(&backend)) {
            (Some(&id), held) if held != Some(&id) => {
                changes.push(Rank::PutBackend, Action::PutBackend { backend, id });
            }
            (None, Some(&id)) => {
                changes.push(Rank::RemoveBackend, Action::RemoveBackend { backend, id });
            }
            _ => {}
        }
    }
}
