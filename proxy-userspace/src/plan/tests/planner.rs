//! Properties of a planner that takes up changes one by one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, option, prelude::*, sample::Index, strategy::Union};

use super::{
    ROOMY, apply, config, decide,
    generate::{
        World, down, facts, node_object, service, service_cidrs, service_name, settings, slice,
        snapshot, world,
    },
    node::{foreign_node, foreign_of, node},
};
use crate::{
    model::{Backend, Change, ServiceName, SliceName, Snapshot, Update},
    plan::{Drains, NodeFacts, Observed, Planner},
};

/// What an agent takes up.
#[derive(Clone, Debug)]
enum Event {
    Changes(Vec<Change>),
    Everything(Snapshot),
    Facts(NodeFacts),
    Failed(ServiceName, BTreeSet<Backend>),
}

fn change() -> impl Strategy<Value = Change> {
    let gone = (service_name(), 0..2_u8).prop_map(|(service, number)| {
        let name = format!("slice-{number}").into();
        Change::Slice(SliceName { namespace: service.namespace, name }, None)
    });
    Union::new_weighted(vec![
        (
            4,
            service()
                .prop_map(|service| Change::Service(service.name.clone(), Some(service)))
                .boxed(),
        ),
        (2, service_name().prop_map(|name| Change::Service(name, None)).boxed()),
        (4, slice().prop_map(|slice| Change::Slice(slice.name.clone(), Some(slice))).boxed()),
        (1, gone.boxed()),
        (1, option::of(node_object()).prop_map(|node| Change::Node("here".into(), node)).boxed()),
        (1, service_cidrs().prop_map(Change::ServiceCidrs).boxed()),
    ])
}

fn event() -> impl Strategy<Value = Event> {
    Union::new_weighted(vec![
        (8, vec(change(), 1..4).prop_map(Event::Changes).boxed()),
        (1, snapshot().prop_map(Event::Everything).boxed()),
        (1, facts().prop_map(Event::Facts).boxed()),
        (
            3,
            (service_name(), down())
                .prop_map(|(service, down)| Event::Failed(service, down))
                .boxed(),
        ),
    ])
}

fn take(planner: &mut Planner, world: &mut World, event: Event) {
    match event {
        Event::Changes(changes) => {
            changes.iter().cloned().for_each(|change| world.snapshot.apply(change));
            planner.take(Update::Change(changes));
        }
        Event::Everything(snapshot) => {
            world.snapshot = snapshot.clone();
            planner.take(Update::Replace(snapshot));
        }
        Event::Facts(facts) => {
            world.facts = facts.clone();
            planner.set_facts(facts);
        }
        Event::Failed(service, down) => {
            planner.set_failed(&service, down.clone());
            world.failed.insert(service, down);
        }
    }
}

fn fresh(world: &World) -> Planner {
    let mut planner = Planner::new(world.settings.clone(), world.facts.clone());
    planner.take(Update::Replace(world.snapshot.clone()));
    for (service, down) in &world.failed {
        planner.set_failed(service, down.clone());
    }
    planner
}

/// What a node holds, but for the past: destinations of endpoints that get nothing new, their order
/// where it decides nothing, and which ids were free.
fn without_past(mut observed: Observed, planner: &mut Planner) -> Observed {
    let desired = planner.desired();
    for (frontend, held) in observed.servers.iter_mut().filter(|(_, held)| held.owned) {
        let wanted = &desired.servers[frontend].destinations;
        held.destinations.retain(|held| wanted.contains_key(&held.key));
        held.order.retain(|key| wanted.contains_key(key));
    }
    let frontends = observed.frontends.iter();
    observed.frontends = frontends
        .map(|(key, entry)| {
            let mut entry = *entry;
            entry.id = 1;
            (*key, entry)
        })
        .collect();
    observed.backends = observed.backends.keys().map(|key| (*key, 2)).collect();
    observed
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn changes_one_by_one_lead_where_everything_at_once_does(
        mut world in world(),
        start in foreign_node(),
        events in vec(event(), 1..6),
        waits in any::<bool>(),
    ) {
        let drains = if waits { Drains::OverFor(Default::default()) } else { Drains::Over };
        let mut planner = fresh(&world);
        let mut now = start.clone();
        for event in events {
            take(&mut planner, &mut world, event);
            let plan = planner.plan_changes(&now, &ROOMY, &drains);
            apply(&mut now, &plan.actions);
            prop_assert_eq!(planner.desired(), &decide(&world));
            let rest = planner.clone().plan_all(&now, &ROOMY, &drains);
            prop_assert_eq!(rest.actions, [], "after {}", plan);
        }
        let mut other = fresh(&world);
        let mut at_once = start;
        let plan = other.plan_all(&at_once, &ROOMY, &drains);
        apply(&mut at_once, &plan.actions);
        prop_assert_eq!(other.plan_all(&now, &ROOMY, &drains).actions, []);
        prop_assert_eq!(without_past(now, &mut other), without_past(at_once, &mut other));
    }

    #[test]
    fn the_order_of_events_does_not_matter(
        (world, changes) in world().prop_flat_map(|world| {
            let changes = Snapshot::default().changes_to(&world.snapshot);
            (Just(world), Just(changes).prop_shuffle())
        }),
        pauses in vec(any::<bool>(), 16),
    ) {
        let mut planner = Planner::new(world.settings.clone(), world.facts.clone());
        for (service, down) in &world.failed {
            planner.set_failed(service, down.clone());
        }
        for (change, pause) in changes.into_iter().zip(pauses.into_iter().cycle()) {
            planner.take(Update::Change(vec![change]));
            if pause {
                planner.desired();
            }
        }
        prop_assert_eq!(planner.desired(), &decide(&world));
    }

    #[test]
    fn any_part_of_a_plan_and_a_restart_lead_where_everything_at_once_does(
        before in world(),
        after in world(),
        node in node(),
        stop in any::<Index>(),
    ) {
        let foreign = foreign_of(&node);
        let mut now = node;
        let actions = fresh(&before).plan_all(&now, &ROOMY, &Drains::Over).actions;
        apply(&mut now, &actions[..stop.index(actions.len() + 1)]);
        let mut planner = fresh(&after);
        let plan = planner.plan_all(&now, &ROOMY, &Drains::Over);
        apply(&mut now, &plan.actions);
        prop_assert_eq!(planner.plan_all(&now, &ROOMY, &Drains::Over).actions, []);
        prop_assert_eq!(foreign_of(&now), foreign.clone());
        let fast_path = now.fast_path;
        let local_ports = now.local_ports.as_ref().map(|_| BTreeMap::new());
        let empty = Observed::default();
        let mut at_once = Observed { fast_path, local_ports, servers: foreign, ..empty };
        let plan = planner.plan_all(&at_once, &ROOMY, &Drains::Over);
        apply(&mut at_once, &plan.actions);
        let mut now = without_past(now, &mut planner);
        let at_once = without_past(at_once, &mut planner);
        if !fast_path {
            // Nobody looks at maps that are not there.
            now.frontends = at_once.frontends.clone();
            now.backends = at_once.backends.clone();
        }
        prop_assert_eq!(now, at_once);
    }

    #[test]
    fn settings_take_effect_at_a_restart(world in world(), settings in settings(), node in node()) {
        let mut now = node;
        let plan = fresh(&world).plan_all(&now, &ROOMY, &Drains::Over);
        apply(&mut now, &plan.actions);
        let changed = World { settings, ..world };
        let mut planner = fresh(&changed);
        let plan = planner.plan_all(&now, &ROOMY, &Drains::Over);
        apply(&mut now, &plan.actions);
        prop_assert_eq!(planner.plan_all(&now, &ROOMY, &Drains::Over).actions, []);
        prop_assert_eq!(now.table.unwrap().rules, changed.settings.rules());
    }
}
