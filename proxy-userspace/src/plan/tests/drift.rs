//! After a change by somebody else: it is named, nothing else is, and the plan undoes it.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};

use super::{
    ROOMY, config, decide,
    generate::{World, world},
    plan, settle,
};
use crate::{
    model::{Destination, DestinationKey, Element, Forwarding, Scheduler},
    plan::{
        Drift, Observed, drift,
        drift::{Kind, Object},
        review::{State, rows},
    },
};

/// One change by somebody else.
#[derive(Clone, Copy, Debug)]
enum Injury {
    Device,
    VipMissing,
    VipAdded,
    Table,
    ElementMissing,
    ElementAdded,
    Server,
    Scheduler,
    Persistence,
    DestinationMissing,
    DestinationAdded,
    Weight,
    FrontendMissing,
    FrontendValue,
    BackendMissing,
    BackendAdded,
    LocalPort,
}

fn injury() -> impl Strategy<Value = Injury> {
    prop::sample::select(vec![
        Injury::Device,
        Injury::VipMissing,
        Injury::VipAdded,
        Injury::Table,
        Injury::ElementMissing,
        Injury::ElementAdded,
        Injury::Server,
        Injury::Scheduler,
        Injury::Persistence,
        Injury::DestinationMissing,
        Injury::DestinationAdded,
        Injury::Weight,
        Injury::FrontendMissing,
        Injury::FrontendValue,
        Injury::BackendMissing,
        Injury::BackendAdded,
        Injury::LocalPort,
    ])
}

/// Does it; returns what should be named, or `None` where there is nothing to do it to.
fn injure(node: &mut Observed, injury: Injury, at: &Index) -> Option<(Object, Kind)> {
    let stray = DestinationKey { addr: [10, 9, 0, 9].into(), port: 9 };
    match injury {
        Injury::Device => {
            node.device = false;
            Some((Object::Device, Kind::Missing))
        }
        Injury::VipMissing => {
            let addr = nth(node.vips.iter().copied(), at)?;
            node.vips.remove(&addr);
            Some((Object::Vip(addr), Kind::Missing))
        }
        Injury::VipAdded => {
            node.vips.insert(stray.addr).then_some((Object::Vip(stray.addr), Kind::Added))
        }
        Injury::Table => {
            node.table = None;
            Some((Object::Table, Kind::Missing))
        }
        Injury::ElementMissing => {
            let elements = &mut node.table.as_mut()?.elements;
            let element = nth(elements.iter().copied(), at)?;
            elements.remove(&element);
            Some((Object::Element(element), Kind::Missing))
        }
        Injury::ElementAdded => {
            let element = Element::Vip(stray.addr);
            node.table.as_mut()?.elements.insert(element);
            Some((Object::Element(element), Kind::Added))
        }
        Injury::FrontendMissing => {
            let key = nth(node.frontends.keys().copied(), at)?;
            node.frontends.remove(&key);
            Some((Object::FrontendEntry(key), Kind::Missing))
        }
        Injury::FrontendValue => {
            let key = nth(node.frontends.keys().copied(), at)?;
            let mut entry = node.frontends[&key];
            entry.id = 999;
            node.frontends.insert(key, entry);
            Some((Object::FrontendEntry(key), Kind::Value))
        }
        Injury::BackendMissing => {
            let key = nth(node.backends.keys().copied(), at)?;
            node.backends.remove(&key);
            Some((Object::BackendEntry(key), Kind::Missing))
        }
        Injury::BackendAdded => {
            let backend = crate::model::Backend::new(stray, crate::model::Protocol::Tcp);
            node.backends.insert(backend, 998);
            Some((Object::BackendEntry(backend), Kind::Added))
        }
        Injury::LocalPort => {
            let ports = node.local_ports.as_mut()?;
            let key = nth(ports.keys().copied(), at)?;
            ports.remove(&key);
            Some((Object::LocalPort(key), Kind::Missing))
        }
        of_server => injure_server(node, of_server, at, stray),
    }
}

fn injure_server(
    node: &mut Observed,
    injury: Injury,
    at: &Index,
    stray: DestinationKey,
) -> Option<(Object, Kind)> {
    let frontend = nth(node.servers.keys().copied(), at)?;
    if matches!(injury, Injury::Server) {
        node.servers.remove(&frontend);
        return Some((Object::VirtualServer(frontend), Kind::Missing));
    }
    let server = node.servers.get_mut(&frontend)?;
    let destination = nth(server.destinations.iter().copied(), at);
    match injury {
        Injury::Scheduler => {
            let is_sed = server.virtual_server.scheduler == Scheduler::Sed;
            server.virtual_server.scheduler = if is_sed { Scheduler::Nq } else { Scheduler::Sed };
            Some((Object::VirtualServer(frontend), Kind::Scheduler))
        }
        Injury::Persistence => {
            server.virtual_server.persistent_secs += 1;
            Some((Object::VirtualServer(frontend), Kind::Persistence))
        }
        Injury::DestinationMissing => {
            let key = destination?.key;
            server.destinations.remove(&key);
            server.order.retain(|held| *held != key);
            Some((Object::Destination(frontend, key), Kind::Missing))
        }
        Injury::DestinationAdded => {
            let added = Destination {
                limits: Default::default(),
                key: stray,
                weight: 1,
                forwarding: Forwarding::Masq,
            };
            server.destinations.insert(added);
            server.order.push(stray);
            Some((Object::Destination(frontend, stray), Kind::Added))
        }
        _ => {
            let held = destination?;
            server.destinations.insert(Destination { weight: held.weight + 7, ..held });
            Some((Object::Destination(frontend, held.key), Kind::Weight))
        }
    }
}

fn nth<T>(mut all: impl Iterator<Item = T> + Clone, at: &Index) -> Option<T> {
    let count = all.clone().count();
    (count > 0).then(|| all.nth(at.index(count)))?
}

fn settled(world: &World, (fast_path, localhost): (bool, bool)) -> Observed {
    let local_ports = localhost.then(BTreeMap::new);
    let empty = Observed { fast_path, local_ports, ..Observed::default() };
    settle(empty, &decide(world), &ROOMY)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_change_by_others_is_named_alone_and_the_plan_undoes_it(
        world in world(), planes in any::<(bool, bool)>(), injury in injury(), at in any::<Index>(),
    ) {
        let desired = decide(&world);
        let left = settled(&world, planes);
        prop_assert_eq!(drift(&left, &left), []);
        let mut found = left.clone();
        let Some((object, kind)) = injure(&mut found, injury, &at) else { return Ok(()) };
        // What no map exists for is not looked at.
        if !left.fast_path && found.backends != left.backends {
            return Ok(());
        }
        let named = drift(&left, &found);
        prop_assert_eq!(
            named.iter().map(|drift| (drift.object.clone(), drift.kind)).collect::<Vec<_>>(),
            [(object.clone(), kind)]
        );
        prop_assert_ne!(&named[0].expected, &named[0].found);
        let plan = plan(&desired, &found, &ROOMY);
        let rows = rows(&desired, &found, &plan, &named);
        let drifted: Vec<_> = rows.iter().filter(|row| row.state == State::Drift).collect();
        prop_assert!(!drifted.is_empty(), "{rows:#?}");
        let healed = settle(found, &desired, &ROOMY);
        let after = drift(&left, &healed);
        let renumbered = |drift: &Drift| {
            // An id that was given to another hand in between need not come back.
            matches!(drift.object, Object::FrontendEntry(_) | Object::BackendEntry(_))
                && drift.kind == Kind::Value
        };
        prop_assert!(after.iter().all(renumbered), "{after:#?}");
    }

    #[test]
    fn what_agrees_has_no_row_but_that_of_its_server_or_destination(
        world in world(), planes in any::<(bool, bool)>(),
    ) {
        let desired = decide(&world);
        let node = settled(&world, planes);
        let plan = plan(&desired, &node, &ROOMY);
        let rows = rows(&desired, &node, &plan, &[]);
        prop_assert!(rows.iter().all(|row| row.state == State::Same), "{rows:#?}");
        let servers = desired.servers.values().filter(|server| server.leads_to.is_none());
        let destinations: usize =
            servers.clone().map(|server| server.destinations.iter().count()).sum();
        prop_assert_eq!(rows.len(), servers.count() + destinations);
    }
}

#[test]
fn foreign_virtual_servers_are_nobodys_drift() {
    let mut left = Observed::default();
    let node = super::node::foreign_node();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..20 {
        let found = proptest::strategy::ValueTree::current(&node.new_tree(&mut runner).unwrap());
        assert_eq!(drift(&left, &found), []);
        assert_eq!(drift(&found, &left), []);
        left.servers = found.servers;
    }
}
