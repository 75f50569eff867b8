//! IPVS: virtual servers and destinations.

use std::mem;

use super::{Changes, Drains};
use crate::{
    model::{Destination, DestinationKey, Forwarding, Frontend, Protocol},
    plan::{Action, DesiredServer, Destinations, ObservedServer, order::Rank},
};

pub(super) fn compare(changes: &mut Changes<'_>, drains: &Drains) {
    let observed = changes.observed;
    let frontends = mem::take(&mut changes.touched.frontends);
    for &frontend in &frontends {
        match (changes.wanted(&frontend), observed.servers.get(&frontend)) {
            (Some(server), Some(held)) => {
                compare_server(changes, frontend, server, held, drains);
                flush_the_first(changes, frontend, server, Some(held));
            }
            (Some(server), None) => {
                make(changes, frontend, server);
                flush_the_first(changes, frontend, server, None);
            }
            (None, Some(held)) if held.owned && !changes.desired.excludes(frontend.addr) => {
                changes.push(Rank::RemoveVirtualServer, Action::RemoveVirtualServer(frontend));
                flush(changes, frontend, None);
            }
            _ => {}
        }
    }
    changes.touched.frontends = frontends;
}

/// Draining destinations come with the others here, so that the order of insertion is the sorted
/// one on every node.
fn make(changes: &mut Changes<'_>, frontend: Frontend, server: &DesiredServer) {
    let action = Action::PutVirtualServer(server.virtual_server);
    changes.push_for(server, Rank::VirtualServer, action);
    for &destination in server.destinations.iter() {
        let action = Action::PutDestination { frontend, destination };
        changes.push_for(server, Rank::Destination, action);
    }
}

fn compare_server(
    changes: &mut Changes<'_>,
    frontend: Frontend,
    server: &DesiredServer,
    held: &ObservedServer,
    drains: &Drains,
) {
    if held.virtual_server != server.virtual_server {
        let action = Action::PutVirtualServer(server.virtual_server);
        changes.push_for(server, Rank::VirtualServer, action);
    }
    for &destination in server.destinations.iter() {
        if let Some(rank) = rank_of_put(&held.destinations, &destination) {
            changes.push_for(server, rank, Action::PutDestination { frontend, destination });
        }
    }
    for &destination in &held.destinations {
        let key = destination.key;
        if server.destinations.contains_key(&key) {
            continue;
        }
        // UDP has no end that could be waited for: a client that goes on sending from its port
        // would stay with the endpoint for ever.
        let udp = frontend.protocol == Protocol::Udp;
        // Nor would a client of one that failed, and is not to keep it waiting.
        let cut = server.cuts(&key);
        if udp || cut || drains.over(frontend, key) {
            let action = Action::RemoveDestination { frontend, key };
            changes.push_for(server, Rank::RemoveDestination, action);
            flush(changes, frontend, Some(key));
            continue;
        }
        let listed = server.lingering.contains(&key);
        let kept = if listed { &mut changes.lingering } else { &mut changes.draining };
        kept.insert((frontend, key));
        if destination.weight > 0 {
            let destination = Destination { weight: 0, ..destination };
            let action = Action::PutDestination { frontend, destination };
            changes.push_for(server, Rank::Drain, action);
        }
    }
    if server.virtual_server.scheduler.depends_on_order() {
        order(changes, frontend, server, held);
    }
}

/// Puts the destinations into the one order, that of their keys: from the first that would not be
/// in its place on, they are made again.
fn order(
    changes: &mut Changes<'_>,
    frontend: Frontend,
    server: &DesiredServer,
    held: &ObservedServer,
) {
    // What drains holds its place as well.
    let mut left = (*server.destinations).clone();
    for destination in &held.destinations {
        let kept = (frontend, destination.key);
        if changes.lingering.contains(&kept) || changes.draining.contains(&kept) {
            left.insert(Destination { weight: 0, ..*destination });
        }
    }
    let stay = held.order.iter().filter(|key| left.contains_key(key));
    let come = left.keys().filter(|key| !held.destinations.contains_key(key));
    let newest_first = stay.chain(come).rev().copied();
    let Some(first) = first_misplaced(newest_first) else { return };
    let misplaced = left.iter().filter(|destination| destination.key >= first);
    let destinations: Vec<_> = misplaced.copied().collect();
    let action = Action::OrderDestinations { frontend, destinations };
    changes.push_for(server, Rank::Order, action);
}

/// Returns the least key that a smaller one comes after.
fn first_misplaced(newest_first: impl Iterator<Item = DestinationKey>) -> Option<DestinationKey> {
    let (mut least, mut misplaced) = (None, None);
    for key in newest_first {
        match least {
            Some(smaller) if key > smaller => {
                misplaced = Some(misplaced.map_or(key, |held: DestinationKey| held.min(key)));
            }
            _ => least = Some(key),
        }
    }
    misplaced
}

fn rank_of_put(held: &Destinations, wanted: &Destination) -> Option<Rank> {
    match held.get(&wanted.key) {
        Some(held) if same(held, wanted) => None,
        Some(held) if wanted.weight == 0 && held.weight > 0 => Some(Rank::Drain),
        _ => Some(Rank::Destination),
    }
}

/// The kernel may report a destination on this host as local, however it is to be reached.
fn same(held: &Destination, wanted: &Destination) -> bool {
    let local = held.forwarding == Forwarding::Local;
    held.weight == wanted.weight
        && held.limits == wanted.limits
        && (local || held.forwarding == wanted.forwarding)
}

/// What conntrack knows of a UDP frontend that had nothing to serve it leads nowhere.
fn flush_the_first(
    changes: &mut Changes<'_>,
    frontend: Frontend,
    server: &DesiredServer,
    held: Option<&ObservedServer>,
) {
    let serves =
        |destinations: &Destinations| destinations.iter().any(|destination| destination.weight > 0);
    if serves(&server.destinations) && !held.is_some_and(|held| serves(&held.destinations)) {
        flush(changes, frontend, None);
    }
}

fn flush(changes: &mut Changes<'_>, frontend: Frontend, to: Option<DestinationKey>) {
    if frontend.protocol == Protocol::Udp {
        changes.push(Rank::Flush, Action::Flush { frontend, to });
    }
}
