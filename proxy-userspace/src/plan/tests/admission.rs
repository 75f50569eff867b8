//! Properties of every moment of a change of source ranges.

use std::{collections::BTreeSet, net::IpAddr};

use proptest::{prelude::*, sample::Index};

use super::{ROOMY, apply, config, decide, generate::world, node::node, plan, settle};
use crate::{
    model::{Element, Frontend},
    plan::{Action, Observed},
};

/// Returns whether a live address lets a source in. What a table does not hold refuses nobody.
fn admits(observed: &Observed, frontend: Frontend, source: IpAddr) -> bool {
    let Some(table) = &observed.table else { return true };
    let named = |element: &Element| match element {
        Element::Source(of, net) | Element::InterimSource(of, net) => {
            *of == frontend && net.contains(&source)
        }
        _ => false,
    };
    !table.elements.contains(&Element::Ranged(frontend)) || table.elements.iter().any(named)
}

/// Returns a source of each range that either state knows.
fn sources(before: &Observed, after: &Observed) -> BTreeSet<IpAddr> {
    let tables = before.table.iter().chain(&after.table);
    let ranges = tables.flat_map(|table| &table.elements).filter_map(|element| match element {
        Element::Source(_, net) | Element::InterimSource(_, net) => Some(net.network()),
        _ => None,
    });
    ranges.chain(["198.18.0.1".parse().unwrap(), "2001:db8:ffff::1".parse().unwrap()]).collect()
}

fn live(observed: &Observed, frontend: Frontend) -> bool {
    observed.servers.get(&frontend).is_some_and(|server| server.owned)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_address_with_source_ranges_never_comes_to_life_without_them(
        world in world(), node in node(),
    ) {
        let desired = decide(&world);
        let mut now = node.clone();
        for action in plan(&desired, &node, &ROOMY).actions {
            now.apply(&action);
            // Nothing comes to life with the device.
            if action == Action::PutDevice {
                continue;
            }
            for (frontend, server) in &desired.servers {
                if live(&now, *frontend) && !live(&node, *frontend) {
                    let held = now.table.as_ref().map(|table| &table.elements);
                    let mut missing = server.elements.iter().filter(|element| {
                        matches!(
                            element,
                            Element::Ranged(_) | Element::RangedHost(_) | Element::Source(..)
                        ) && !held.is_some_and(|held| held.contains(element))
                    });
                    prop_assert_eq!(missing.next(), None, "after {}", action);
                }
            }
        }
    }

    /// From a node that a change of something else left halfway, too.
    #[test]
    fn a_change_of_source_ranges_refuses_nobody_who_is_named_before_and_after_and_admits_nobody_else(
        world in world(), other in world(), node in node(), until in any::<Index>(),
    ) {
        let mut node = node;
        let actions = plan(&decide(&other), &node, &ROOMY).actions;
        apply(&mut node, &actions[..until.index(actions.len() + 1)]);
        let desired = decide(&world);
        let after = settle(node.clone(), &desired, &ROOMY);
        let sources = sources(&node, &after);
        let mut now = node.clone();
        for action in plan(&desired, &node, &ROOMY).actions {
            now.apply(&action);
            let stay = node.servers.keys().filter(|key| live(&now, **key) && live(&after, **key));
            for &frontend in stay {
                for &source in &sources {
                    let ends = [&node, &after].map(|end| admits(end, frontend, source));
                    let now = admits(&now, frontend, source);
                    let right = if now { ends != [false; 2] } else { ends != [true; 2] };
                    prop_assert!(right, "{} from {} after {}: {}", frontend, source, action, now);
                }
            }
        }
    }
}
