//! The BPF maps: frontends, backends, and the generations that end leases.

use std::collections::{BTreeMap, BTreeSet};

use super::Changes;
use crate::{
    model::{Backend, Frontend, Notice, ServicePortName},
    plan::{
        Action, FrontendEntry, Limits,
        ids::{Assignment, assign},
        order::{Rank, urgent},
    },
};

pub(super) fn compare(changes: &mut Changes<'_>, limits: &Limits) {
    let frontends = assign_frontends(changes, limits);
    let backends = assign_backends(changes, &frontends, limits);
    invalidate(changes, &frontends, &backends.ids, limits);
    compare_frontends(changes, &frontends);
    compare_backends(changes, &backends.ids);
}

/// Returns the entries of the frontend map as they should be, urgent Services first when there is
/// no room for all.
fn assign_frontends(
    changes: &mut Changes<'_>,
    limits: &Limits,
) -> BTreeMap<Frontend, FrontendEntry> {
    let mut wanted: Vec<_> = changes.servers.iter().collect();
    wanted.sort_by_key(|(_, server)| !urgent(&server.service.service));
    let held = changes.observed.frontends.iter().map(|(frontend, entry)| (*frontend, entry.id));
    let wanted = wanted.into_iter().map(|(frontend, _)| *frontend);
    let Assignment { ids, left_out } = assign(held, wanted, limits.frontend_ids());
    let first = left_out.first().and_then(|first| changes.servers.get(first));
    if let Some(server) = first {
        changes.conflicts.push(Notice::FrontendsFull {
            limit: limits.frontends,
            left_out: left_out.len(),
            first: server.service.clone(),
        });
    }
    ids.into_iter()
        .filter_map(|(frontend, id)| {
            let learn = changes.servers.get(&frontend)?.fast_path;
            Some((frontend, FrontendEntry { id, learn }))
        })
        .collect()
}

/// Gives ids to the destinations of the frontends that learn; nothing else is ever looked up.
fn assign_backends(
    changes: &mut Changes<'_>,
    frontends: &BTreeMap<Frontend, FrontendEntry>,
    limits: &Limits,
) -> Assignment<Backend> {
    let mut users = BTreeMap::<Backend, &ServicePortName>::new();
    for (frontend, server) in &changes.servers {
        if !frontends.get(frontend).is_some_and(|entry| entry.learn) {
            continue;
        }
        for &key in server.destinations.keys() {
            let backend = Backend::new(key, frontend.protocol);
            let user = users.entry(backend).or_insert(&server.service);
            if urgent(&server.service.service) {
                *user = &server.service;
            }
        }
    }
    let mut wanted: Vec<_> = users.iter().collect();
    wanted.sort_by_key(|(_, user)| !urgent(&user.service));
    let held = changes.observed.backends.iter().map(|(backend, id)| (*backend, *id));
    let wanted = wanted.into_iter().map(|(backend, _)| *backend);
    let assignment = assign(held, wanted, limits.backend_ids());
    if let Some(user) = assignment.left_out.first().and_then(|first| users.get(first)) {
        changes.conflicts.push(Notice::BackendsFull {
            limit: limits.backends,
            left_out: assignment.left_out.len(),
            first: (*user).clone(),
        });
    }
    assignment
}

/// Ends the leases of every backend that loses a destination, a virtual server, its place in the
/// map, or a frontend that learns.
fn invalidate(
    changes: &mut Changes<'_>,
    frontends: &BTreeMap<Frontend, FrontendEntry>,
    backends: &BTreeMap<Backend, u32>,
    limits: &Limits,
) {
    let observed = changes.observed;
    let edited = edited_backends(changes);
    let mut lost = edited.clone();
    for (frontend, entry) in &observed.frontends {
        if entry.learn && !frontends.get(frontend).is_some_and(|entry| entry.learn) {
            lost.extend(backends_behind(changes, frontend));
        }
    }
    let moved =
        observed.backends.iter().filter(|(backend, id)| backends.get(*backend) != Some(*id));
    lost.extend(moved.map(|(_, id)| *id));
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
    let wanted = changes.servers.get(frontend).map(|server| server.destinations.keys());
    held.into_iter()
        .chain(wanted)
        .flatten()
        .filter_map(|key| changes.observed.backend_id(*key, frontend.protocol))
        .collect()
}

fn compare_frontends(changes: &mut Changes<'_>, wanted: &BTreeMap<Frontend, FrontendEntry>) {
    let held = &changes.observed.frontends;
    for frontend in held.keys().filter(|frontend| !wanted.contains_key(frontend)) {
        changes.push(Rank::StopLearning, Action::RemoveFrontend(*frontend));
    }
    for (&frontend, &entry) in wanted {
        if held.get(&frontend) == Some(&entry) {
            continue;
        }
        let stops = !entry.learn && held.get(&frontend).is_some_and(|held| held.learn);
        let rank = if stops { Rank::StopLearning } else { Rank::PutFrontend };
        changes.push(rank, Action::PutFrontend { frontend, entry });
    }
}

fn compare_backends(changes: &mut Changes<'_>, wanted: &BTreeMap<Backend, u32>) {
    let held = &changes.observed.backends;
    for (&backend, &id) in held.iter().filter(|(backend, _)| !wanted.contains_key(backend)) {
        changes.push(Rank::RemoveBackend, Action::RemoveBackend { backend, id });
    }
    for (&backend, &id) in wanted {
        if held.get(&backend) != Some(&id) {
            changes.push(Rank::PutBackend, Action::PutBackend { backend, id });
        }
    }
}
