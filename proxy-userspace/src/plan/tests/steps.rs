//! Properties of every moment of a plan.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    ROOMY, apply, config, decide,
    generate::world,
    node::{foreign_of, node},
    plan, settle,
};
use crate::{
    model::{Element, Frontend, Protocol},
    plan::{self, Action, Drains, Observed, ObservedServer},
};

/// Whether the leases of a backend have ended; an id outside the array never had any.
fn dead(invalidated: &BTreeSet<u32>, id: u32) -> bool {
    invalidated.contains(&id) || !ROOMY.backend_ids().contains(&id)
}

fn frontend_of(element: &Element) -> Option<Frontend> {
    match element {
        Element::Masquerade(frontend)
        | Element::Reject(frontend)
        | Element::Drop(frontend)
        | Element::Ranged(frontend)
        | Element::RangedHost(frontend)
        | Element::Source(frontend, _)
        | Element::InterimSource(frontend, _)
        | Element::Inside(frontend, ..)
        | Element::Shadow(frontend) => Some(*frontend),
        _ => None,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_step_of_a_plan_is_safe(world in world(), node in node()) {
        let desired = decide(&world);
        let mut now = node.clone();
        let mut invalidated = BTreeSet::new();
        for action in plan(&desired, &node, &ROOMY).actions {
            let id = |frontend: &Frontend, key| node.backend_id(key, frontend.protocol);
            match &action {
                Action::PutVip(addr) => {
                    prop_assert!(now.device, "a VIP without its device");
                    prop_assert!(now.servers.keys().any(|frontend| frontend.addr == *addr));
                    let guarded = now.table.as_ref().is_some_and(|table| {
                        table.elements.contains(&Element::Vip(*addr))
                    });
                    prop_assert!(guarded, "a VIP without its guard");
                }
                Action::PutDestination { frontend, .. } => {
                    prop_assert!(now.servers.get(frontend).is_some_and(|server| server.owned));
                }
                Action::PutFrontend { frontend, entry } if entry.learns() => {
                    let wanted = &desired.servers[frontend].destinations;
                    for destination in &now.servers[frontend].destinations {
                        let wanted = wanted.get(&destination.key).map_or(0, |wanted| wanted.weight);
                        prop_assert_eq!(destination.weight, wanted);
                    }
                    let held = &now.servers[frontend].destinations;
                    prop_assert!(wanted.keys().all(|key| held.contains_key(key)));
                    let known = |key| now.backend_id(key, frontend.protocol).is_some();
                    let known = wanted.keys().copied().all(known);
                    prop_assert!(known, "learning before the backends are known");
                }
                Action::RemoveDestination { frontend, key } if node.fast_path => {
                    prop_assert!(id(frontend, *key).is_none_or(|id| dead(&invalidated, id)));
                }
                Action::RemoveBackend { id, .. } => prop_assert!(dead(&invalidated, *id)),
                Action::RemoveVirtualServer(frontend) => {
                    prop_assert!(!now.frontends.contains_key(frontend) || !node.fast_path);
                    let mut leads = now.local_ports.iter().flat_map(BTreeMap::values);
                    prop_assert!(leads.all(|to| to != frontend), "a local port leads there");
                }
                Action::PutLocalPort { frontend, to } => {
                    prop_assert!(frontend.addr.is_loopback() && node.local_ports.is_some());
                    prop_assert!(now.servers.contains_key(to), "a local port that leads nowhere");
                }
                Action::Invalidate { backends } => invalidated.extend(backends.iter().copied()),
                _ => {}
            }
            now.apply(&action);
        }
    }

    /// What is wanted and there is there at every moment: an address that moves to another Service
    /// opens no hole.
    #[test]
    fn what_stays_is_never_taken_away(world in world(), node in node()) {
        let desired = decide(&world);
        let after = settle(node.clone(), &desired, &ROOMY);
        let mut now = node.clone();
        for action in plan(&desired, &node, &ROOMY).actions {
            now.apply(&action);
            let mut vips = node.vips.intersection(&after.vips);
            prop_assert!(!node.device || vips.all(|addr| now.vips.contains(addr)));
            if let (Some(before), Some(after)) = (&node.table, &after.table) {
                let held = now.table.as_ref().map(|table| &table.elements);
                let mut stays = before.elements.intersection(&after.elements);
                prop_assert!(stays.all(|element| held.is_some_and(|held| held.contains(element))));
            }
            for (frontend, before) in &node.servers {
                let Some(after) = after.servers.get(frontend) else { continue };
                prop_assert!(now.servers.contains_key(frontend), "{} after {}", frontend, action);
                for destination in &before.destinations {
                    let key = &destination.key;
                    let served = |servers: &ObservedServer| {
                        servers.destinations.get(key).is_some_and(|held| held.weight > 0)
                    };
                    let stays = destination.weight > 0 && served(after);
                    prop_assert!(!stays || served(&now.servers[frontend]), "{} {}", frontend, key);
                }
            }
        }
    }

    /// A frontend never leads nowhere in between, when it led somewhere before and will.
    #[test]
    fn what_was_served_and_will_be_is_served_at_every_moment(world in world(), node in node()) {
        let desired = decide(&world);
        let serves = |observed: &Observed, frontend: &Frontend| {
            let server = observed.servers.get(frontend);
            server.is_some_and(|server| server.destinations.iter().any(|held| held.weight > 0))
        };
        let after = settle(node.clone(), &desired, &ROOMY);
        let mut now = node.clone();
        for action in plan(&desired, &node, &ROOMY).actions {
            now.apply(&action);
            for frontend in node.servers.keys() {
                if serves(&node, frontend) && serves(&after, frontend) {
                    prop_assert!(serves(&now, frontend), "{} after {}", frontend, action);
                }
            }
        }
    }

    #[test]
    fn no_action_names_what_is_not_ours(world in world(), node in node()) {
        let foreign = foreign_of(&node);
        let actions = plan(&decide(&world), &node, &ROOMY).actions;
        for action in &actions {
            let touched = match action {
                Action::PutVirtualServer(server) => vec![server.frontend],
                Action::RemoveVirtualServer(frontend)
                | Action::PutDestination { frontend, .. }
                | Action::RemoveDestination { frontend, .. }
                | Action::PutFrontend { frontend, .. }
                | Action::PutLocalPort { frontend, .. }
                | Action::Flush { frontend, .. } => vec![*frontend],
                Action::InstallTable { elements, .. }
                | Action::ChangeElements { added: elements, .. } => {
                    elements.iter().filter_map(frontend_of).collect()
                }
                _ => Vec::new(),
            };
            prop_assert!(touched.iter().all(|key| !foreign.contains_key(key)), "{}", action);
        }
    }

    #[test]
    fn a_drain_cuts_no_tcp_connection_but_of_what_failed_and_ends(
        world in world(), node in node(),
    ) {
        let desired = decide(&world);
        let waiting = Drains::OverFor(BTreeSet::new());
        let first = plan::plan(&desired, &node, &ROOMY, &waiting);
        for action in &first.actions {
            if let Action::RemoveDestination { frontend, key } = action {
                let cut = desired.servers[frontend].cuts(key);
                prop_assert!(cut || frontend.protocol == Protocol::Udp);
            }
        }
        let mut now = node;
        apply(&mut now, &first.actions);
        for (frontend, key) in &first.draining {
            prop_assert_eq!(now.servers[frontend].destinations[key].weight, 0);
        }
        prop_assert_eq!(plan::plan(&desired, &now, &ROOMY, &waiting).actions, []);
        let over = Drains::OverFor(first.draining.clone());
        let second = plan::plan(&desired, &now, &ROOMY, &over);
        prop_assert_eq!(second.draining, BTreeSet::new());
        apply(&mut now, &second.actions);
        for (frontend, server) in &desired.servers {
            let held = now.servers.get(frontend).filter(|held| held.owned);
            let mut keys = held.into_iter().flat_map(|held| held.destinations.keys());
            let listed =
                |key| server.destinations.contains_key(key) || server.lingering.contains(key);
            prop_assert!(keys.all(listed), "{}", frontend);
        }
        prop_assert_eq!(plan::plan(&desired, &now, &ROOMY, &waiting).actions, []);
    }
}
