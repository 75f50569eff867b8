//! Properties of every plan.

mod admission;
mod adoption;
mod drift;
mod generate;
mod node;
mod planner;
mod steps;

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::Index};

use self::{
    generate::{World, emptied, mirrored, world},
    node::{foreign_of, node},
};
use super::{Action, Desired, Drains, Limits, Observed, Plan, desired_with};

const ROOMY: Limits = Limits { frontends: 1_000, backends: 1_000 };

fn config() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

fn decide(world: &World) -> Desired {
    desired_with(&world.snapshot, &world.facts, &world.settings, &world.failed)
}

fn plan(desired: &Desired, observed: &Observed, limits: &Limits) -> Plan {
    super::plan(desired, observed, limits, &Drains::Over)
}

fn apply(observed: &mut Observed, actions: &[Action]) {
    actions.iter().for_each(|action| observed.apply(action));
}

fn settle(mut observed: Observed, desired: &Desired, limits: &Limits) -> Observed {
    let plan = plan(desired, &observed, limits);
    apply(&mut observed, &plan.actions);
    observed
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_applied_plan_leaves_nothing_to_do(world in world(), node in node()) {
        let desired = decide(&world);
        let settled = settle(node, &desired, &ROOMY);
        prop_assert_eq!(plan(&desired, &settled, &ROOMY).actions, []);
    }

    #[test]
    fn a_plan_may_be_applied_twice_or_halfway(
        world in world(), node in node(), stop in any::<Index>(),
    ) {
        let desired = decide(&world);
        let actions = plan(&desired, &node, &ROOMY).actions;
        let mut twice = settle(node.clone(), &desired, &ROOMY);
        let once = twice.clone();
        apply(&mut twice, &actions);
        prop_assert_eq!(&twice, &once);
        let mut halfway = node;
        apply(&mut halfway, &actions[..stop.index(actions.len() + 1)]);
        let settled = settle(halfway, &desired, &ROOMY);
        prop_assert_eq!(plan(&desired, &settled, &ROOMY).actions, []);
    }

    #[test]
    fn full_maps_settle_in_two_plans(
        world in world(), node in node(), frontends in 0..6_u32, backends in 0..6_u32,
    ) {
        let limits = Limits { frontends, backends };
        let desired = decide(&world);
        let settled = settle(settle(node, &desired, &limits), &desired, &limits);
        prop_assert!(settled.frontends.len() <= frontends as usize);
        prop_assert!(settled.backends.len() <= backends as usize);
        prop_assert_eq!(plan(&desired, &settled, &limits).actions, []);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_in_any_order(world in world(), node in node()) {
        let mirrored = mirrored(&world);
        let one = plan(&decide(&world), &node, &ROOMY);
        let other = plan(&decide(&mirrored), &node, &ROOMY);
        prop_assert_eq!(one.to_string(), other.to_string());
        prop_assert_eq!(one, other);
    }

    #[test]
    fn ids_never_collide(world in world(), node in node()) {
        let node = Observed { fast_path: true, ..node };
        let settled = settle(node, &decide(&world), &ROOMY);
        let frontends: BTreeSet<_> = settled.frontends.values().map(|entry| entry.id).collect();
        let backends: BTreeSet<_> = settled.backends.values().copied().collect();
        prop_assert_eq!(frontends.len(), settled.frontends.len());
        prop_assert_eq!(backends.len(), settled.backends.len());
        prop_assert!(frontends.iter().all(|id| *id >= 1) && backends.iter().all(|id| *id >= 2));
    }

    #[test]
    fn a_freed_id_is_not_given_out_in_the_same_plan(world in world(), node in node()) {
        let held: BTreeSet<u32> = node.backends.values().copied().collect();
        let actions = plan(&decide(&world), &node, &ROOMY).actions;
        for action in &actions {
            if let Action::PutBackend { backend, id } = action {
                prop_assert!(!held.contains(id) || node.backends.get(backend) == Some(id));
            }
        }
    }

    #[test]
    fn removing_everything_leaves_nothing_of_ours(world in world(), node in node()) {
        let before = foreign_of(&node);
        let settled = settle(node, &decide(&emptied(&world)), &ROOMY);
        prop_assert_eq!(&settled.servers, &before);
        prop_assert!(settled.vips.is_empty());
        prop_assert!(!settled.fast_path || settled.frontends.is_empty());
        prop_assert!(!settled.fast_path || settled.backends.is_empty());
        prop_assert!(settled.table.unwrap().elements.is_empty());
    }

    #[test]
    fn foreign_virtual_servers_are_never_touched(world in world(), node in node()) {
        let before = foreign_of(&node);
        let settled = settle(node, &decide(&world), &ROOMY);
        prop_assert_eq!(foreign_of(&settled), before.clone());
        prop_assert!(!before.keys().any(|frontend| settled.frontends.contains_key(frontend)));
    }
}
