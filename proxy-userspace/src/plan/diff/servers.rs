//! IPVS: virtual servers and destinations.

use std::{collections::BTreeMap, mem};

use super::Changes;
use crate::{
    model::{Destination, DestinationKey, Forwarding, Frontend},
    plan::{Action, DesiredServer, ObservedServer, order::Rank},
};

pub(super) fn compare(changes: &mut Changes<'_>) {
    let observed = changes.observed;
    let servers = mem::take(&mut changes.servers);
    for (&frontend, server) in &servers {
        match observed.servers.get(&frontend) {
            Some(held) => compare_server(changes, frontend, server, held),
            None => make(changes, frontend, server),
        }
    }
    for (&frontend, held) in &observed.servers {
        if held.owned && !servers.contains_key(&frontend) {
            changes.push(Rank::RemoveVirtualServer, Action::RemoveVirtualServer(frontend));
        }
    }
    changes.servers = servers;
}

/// Draining destinations come with the others here, so that the order of insertion is the sorted
/// one on every node.
fn make(changes: &mut Changes<'_>, frontend: Frontend, server: &DesiredServer) {
    let action = Action::PutVirtualServer(server.virtual_server);
    changes.push_for(server, Rank::VirtualServer, action);
    for &destination in server.destinations.values() {
        let action = Action::PutDestination { frontend, destination };
        changes.push_for(server, Rank::Destination, action);
    }
}

fn compare_server(
    changes: &mut Changes<'_>,
    frontend: Frontend,
    server: &DesiredServer,
    held: &ObservedServer,
) {
    if held.virtual_server != server.virtual_server {
        let action = Action::PutVirtualServer(server.virtual_server);
        changes.push_for(server, Rank::VirtualServer, action);
    }
    for &destination in server.destinations.values() {
        if let Some(rank) = rank_of_put(&held.destinations, &destination) {
            changes.push_for(server, rank, Action::PutDestination { frontend, destination });
        }
    }
    for &key in held.destinations.keys() {
        if !server.destinations.contains_key(&key) {
            let action = Action::RemoveDestination { frontend, key };
            changes.push_for(server, Rank::RemoveDestination, action);
        }
    }
}

fn rank_of_put(held: &BTreeMap<DestinationKey, Destination>, wanted: &Destination) -> Option<Rank> {
    match held.get(&wanted.key) {
        Some(held) if same(held, wanted) => None,
        Some(held) if wanted.weight == 0 && held.weight > 0 => Some(Rank::Drain),
        _ => Some(Rank::Destination),
    }
}

/// The kernel may report a masquerading destination on this host as local.
fn same(held: &Destination, wanted: &Destination) -> bool {
    let local = held.forwarding == Forwarding::Local && wanted.forwarding == Forwarding::Masq;
    held.weight == wanted.weight && (local || held.forwarding == wanted.forwarding)
}
