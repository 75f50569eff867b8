//! Taking over what kube-proxy made.

use std::{collections::BTreeSet, net::IpAddr};

use proptest::prelude::*;

use super::{
    ROOMY, apply, config, decide,
    generate::{World, world},
    plan, settle,
};
use crate::{
    model::{Estate, Frontend, Protocol, Scheduler, SchedulerFlags, VirtualServer},
    plan::{Action, Adoption, Destinations, Observed, ObservedServer, adoption},
};

/// The node as a proxy left it that is none of ours: IPVS as it should be, and nothing else.
fn left_by_kube_proxy(world: &World) -> Observed {
    let ours = settle(Observed::default(), &decide(world), &ROOMY);
    let servers = ours.servers.into_iter().map(|(frontend, mut server)| {
        server.owned = false;
        (frontend, server)
    });
    Observed { servers: servers.collect(), ..Observed::default() }
}

fn take(observed: &mut Observed, adoption: &Adoption) {
    for (frontend, server) in &mut observed.servers {
        server.owned |= adoption.servers.contains_key(frontend);
    }
}

fn server(frontend: Frontend) -> ObservedServer {
    ObservedServer {
        virtual_server: VirtualServer {
            frontend,
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags::default(),
            persistent_secs: 0,
        },
        destinations: Destinations::default(),
        order: Vec::new(),
        owned: false,
    }
}

fn at(addr: [u8; 4], port: u16) -> Frontend {
    Frontend { addr: addr.into(), port, protocol: Protocol::Tcp }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_services_want_is_taken_over_and_ipvs_is_left_as_it_is(world in world()) {
        let desired = decide(&world);
        let mut observed = left_by_kube_proxy(&world);
        let none = BTreeSet::new();
        let taken = adoption(&desired, &observed, &Estate::default(), &none, &none);
        for frontend in observed.servers.keys() {
            let excluded = desired.excludes(frontend.addr);
            prop_assert_eq!(taken.servers.contains_key(frontend), !excluded);
        }
        take(&mut observed, &taken);
        let plan = plan(&desired, &observed, &ROOMY);
        let edits = plan.actions.iter().filter(|action| matches!(
            action,
            Action::PutVirtualServer(_)
                | Action::RemoveVirtualServer(_)
                | Action::PutDestination { .. }
                | Action::RemoveDestination { .. }
                | Action::OrderDestinations { .. }
                | Action::Flush { .. }
        ));
        prop_assert_eq!(edits.count(), 0, "{:?}", plan.actions);
        apply(&mut observed, &plan.actions);
        prop_assert_eq!(super::plan(&desired, &observed, &ROOMY).actions, []);
    }

    #[test]
    fn what_no_service_wants_is_taken_over_only_where_kube_proxy_is_known_to_have_made_it(
        world in world(), known in any::<bool>(),
    ) {
        let desired = decide(&world);
        let (vip, node) = (at([203, 0, 113, 77], 7777), at([203, 0, 113, 78], 30_777));
        let mut observed = Observed::default();
        for frontend in [vip, node] {
            observed.servers.insert(frontend, server(frontend));
        }
        let held: BTreeSet<IpAddr> = known.then_some(vip.addr).into_iter().collect();
        let node_addrs = [node.addr].into();
        let estate = Estate {
            node_ports: known.then_some((Protocol::Tcp, node.port)).into_iter().collect(),
            ..Estate::default()
        };
        let taken = adoption(&desired, &observed, &estate, &held, &node_addrs);
        for frontend in [vip, node] {
            let expected = known && !desired.excludes(frontend.addr);
            prop_assert_eq!(taken.servers.contains_key(&frontend), expected);
        }
        prop_assert_eq!(taken.addrs.contains(&vip.addr), known && !desired.excludes(vip.addr));
        take(&mut observed, &taken);
        let removed: BTreeSet<Frontend> = plan(&desired, &observed, &ROOMY)
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::RemoveVirtualServer(frontend) => Some(*frontend),
                _ => None,
            })
            .collect();
        prop_assert_eq!(removed, taken.servers.keys().copied().collect::<BTreeSet<_>>());
    }
}

#[test]
fn an_operators_address_on_the_device_stays_the_operators() {
    let held = [IpAddr::from([10, 250, 0, 9])].into();
    let none = BTreeSet::new();
    let desired = Default::default();
    let taken = adoption(&desired, &Observed::default(), &Estate::default(), &held, &none);
    assert!(taken.is_empty());
    let estate = Estate { addrs: held.clone(), ..Estate::default() };
    let taken = adoption(&desired, &Observed::default(), &estate, &held, &none);
    assert_eq!(taken.addrs, held, "kube-proxy's own set names it");
}
