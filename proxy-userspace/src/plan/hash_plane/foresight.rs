//! What the kernel will list of a frontend's destinations once a plan is carried out: IPVS has to be told
//! of the flows that its next table would move before it has that table.

use std::collections::BTreeMap;

use super::Carried;
use crate::{
    model::{Destination, Frontend},
    plan::Action,
};

/// Returns the destinations of each of these frontends that the actions change, as the kernel will list
/// them: the newest first.
pub fn foresee(
    carried: &BTreeMap<Frontend, Carried>,
    actions: &[Action],
) -> BTreeMap<Frontend, Vec<Destination>> {
    let mut foreseen = BTreeMap::new();
    for action in actions {
        let frontend = match action {
            Action::PutDestination { frontend, .. }
            | Action::RemoveDestination { frontend, .. }
            | Action::OrderDestinations { frontend, .. } => frontend,
            _ => continue,
        };
        let Some(carried) = carried.get(frontend) else { continue };
        let listed: &mut Vec<Destination> = foreseen
            .entry(*frontend)
            .or_insert_with(|| carried.members.iter().map(|each| each.destination).collect());
        follow(listed, action);
    }
    foreseen
}

fn follow(listed: &mut Vec<Destination>, action: &Action) {
    match action {
        Action::PutDestination { destination, .. } => {
            match listed.iter_mut().find(|each| each.key == destination.key) {
                Some(held) => *held = *destination,
                None => listed.insert(0, *destination),
            }
        }
        Action::RemoveDestination { key, .. } => listed.retain(|each| each.key != *key),
        Action::OrderDestinations { destinations, .. } => {
            for destination in destinations {
                listed.retain(|each| each.key != destination.key);
                listed.insert(0, *destination);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{DestinationKey, Forwarding, Protocol, SchedulerFlags},
        plan::hash_plane::Member,
    };

    fn frontend(port: u16) -> Frontend {
        Frontend { addr: [192, 0, 2, 1].into(), port, protocol: Protocol::Tcp }
    }

    fn destination(host: u8, weight: u32) -> Destination {
        let key = DestinationKey { addr: [10, 0, 0, host].into(), port: 80 };
        Destination { key, weight, forwarding: Forwarding::Route, limits: Default::default() }
    }

    /// The hosts and weights that are foreseen for a frontend with hosts 3, 2 and 1.
    fn foreseen(actions: &[Action]) -> Option<Vec<(String, u32)>> {
        let member = |host| Member {
            destination: destination(host, 1),
            last_weight: 1,
            index: host.into(),
            generation: 1,
        };
        let carried = Carried {
            frontend: frontend(80),
            table: 0,
            flags: SchedulerFlags::default(),
            members: vec![member(3), member(2), member(1)],
        };
        let mut foreseen = foresee(&[(frontend(80), carried)].into(), actions);
        let listed = foreseen.remove(&frontend(80))?;
        assert!(foreseen.is_empty(), "{foreseen:?}");
        Some(listed.iter().map(|each| (each.key.addr.to_string(), each.weight)).collect())
    }

    fn put(host: u8, weight: u32) -> Action {
        Action::PutDestination { frontend: frontend(80), destination: destination(host, weight) }
    }

    fn hosts(hosts: &[(u8, u32)]) -> Option<Vec<(String, u32)>> {
        Some(hosts.iter().map(|(host, weight)| (format!("10.0.0.{host}"), *weight)).collect())
    }

    #[test]
    fn a_new_destination_is_listed_first_and_a_known_one_stays_where_it_is() {
        assert_eq!(foreseen(&[put(4, 1)]), hosts(&[(4, 1), (3, 1), (2, 1), (1, 1)]));
        assert_eq!(foreseen(&[put(2, 0)]), hosts(&[(3, 1), (2, 0), (1, 1)]));
    }

    #[test]
    fn a_destination_that_goes_is_not_listed() {
        let key = destination(3, 1).key;
        let remove = Action::RemoveDestination { frontend: frontend(80), key };
        assert_eq!(foreseen(&[remove, put(4, 1)]), hosts(&[(4, 1), (2, 1), (1, 1)]));
    }

    #[test]
    fn destinations_that_are_made_again_are_listed_in_the_reverse_of_their_order() {
        let destinations = vec![destination(3, 1), destination(1, 2)];
        let order = Action::OrderDestinations { frontend: frontend(80), destinations };
        assert_eq!(foreseen(&[order]), hosts(&[(1, 2), (3, 1), (2, 1)]));
    }

    #[test]
    fn nothing_is_foreseen_of_frontends_that_stay_or_are_not_carried() {
        let other =
            Action::PutDestination { frontend: frontend(81), destination: destination(9, 1) };
        assert_eq!(foreseen(&[other, Action::PutDevice]), None);
    }
}
