//! The nft table.

use std::collections::BTreeSet;

use super::{Changes, node::served};
use crate::{
    model::{Element, Frontend},
    plan::{Action, order::Rank},
};

pub(super) fn compare(changes: &mut Changes<'_>) {
    let held = changes.observed.table.as_ref();
    let rules = &changes.desired.rules;
    let Some(table) = held.filter(|table| table.rules == *rules) else {
        let elements = changes.desired.elements.iter().copied();
        let elements = elements.filter(|element| wanted(changes, element)).collect();
        changes.push(Rank::Guard, Action::InstallTable { rules: rules.clone(), elements });
        return;
    };
    let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for &element in &changes.touched.elements {
        match (wanted(changes, &element), table.elements.contains(&element)) {
            (true, false) => added.insert(element),
            (false, true) => removed.insert(element),
            _ => false,
        };
    }
    change(changes, added, removed);
}

/// Orders the changes of elements so that nobody is refused, or admitted, who should not be.
///
/// Where sources change, up to four transactions are needed. A set of ranges
/// (`nft_set_pipapo`) shows what came with a transaction a moment after it hides what went, so
/// what goes and what comes in its place may not share one; and they may overlap, so they cannot
/// be in one set either. The new ranges spend the change in a set of their own.
fn change(changes: &mut Changes<'_>, added: BTreeSet<Element>, removed: BTreeSet<Element>) {
    // What takes the place of something else has to come in the moment in which that goes: a map
    // has one value a key, and ranges may not overlap.
    let places: BTreeSet<Place> = added.iter().filter_map(Place::of).collect();
    let replaced = |element: &Element| Place::of(element).is_some_and(|p| places.contains(&p));
    let (replaced, removed): (BTreeSet<_>, BTreeSet<_>) = removed.into_iter().partition(replaced);
    let is_source = |element: &Element| matches!(element, Element::Source(..));
    let (moved, replaced): (BTreeSet<_>, BTreeSet<_>) = replaced.into_iter().partition(is_source);
    let (stale, removed): (BTreeSet<_>, BTreeSet<_>) =
        removed.into_iter().partition(|element| matches!(element, Element::InterimSource(..)));

    let moving: BTreeSet<Place> = moved.iter().filter_map(Place::of).collect();
    let moves = |element: &Element| Place::of(element).is_some_and(|p| moving.contains(&p));
    let interim: BTreeSet<Element> = added
        .iter()
        .filter_map(|element| match element {
            Element::Source(frontend, net) if moves(element) => {
                Some(Element::InterimSource(*frontend, *net))
            }
            _ => None,
        })
        .collect();
    // Sources are there before what refuses all others.
    let (first, second): (BTreeSet<_>, BTreeSet<_>) =
        added.into_iter().partition(|element| is_source(element) && !moves(element));
    let (last, removed): (BTreeSet<_>, BTreeSet<_>) = removed.into_iter().partition(is_source);

    let none = BTreeSet::new();
    let obsolete = if interim.is_empty() { none.clone() } else { &stale - &interim };
    let outlasted = &(&stale - &obsolete) | &interim;
    push(changes, Rank::Guard, &first | &(&interim - &stale), obsolete);
    push(changes, Rank::Guard, none.clone(), moved);
    push(changes, Rank::Guard, second, replaced);
    push(changes, Rank::Unguard, none.clone(), removed);
    push(changes, Rank::Unguard, none, &last | &outlasted);
}

fn push(
    changes: &mut Changes<'_>,
    rank: Rank,
    added: BTreeSet<Element>,
    removed: BTreeSet<Element>,
) {
    if !added.is_empty() || !removed.is_empty() {
        changes.push(rank, Action::ChangeElements { added, removed });
    }
}

/// Where only one element can be.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Place {
    Inside(Frontend),
    Sources(Frontend),
    PodCidrs,
    ServiceCidrs,
}

impl Place {
    fn of(element: &Element) -> Option<Self> {
        match element {
            Element::Inside(frontend, ..) => Some(Self::Inside(*frontend)),
            Element::Source(frontend, _) => Some(Self::Sources(*frontend)),
            Element::PodCidr(_) => Some(Self::PodCidrs),
            Element::ServiceCidr(_) => Some(Self::ServiceCidrs),
            _ => None,
        }
    }
}

/// An element of a frontend that somebody else serves would get into their way.
fn wanted(changes: &Changes<'_>, element: &Element) -> bool {
    changes.desired.elements.contains(element)
        && match element {
            Element::Vip(addr) | Element::ClusterIp(addr) => served(changes, *addr).is_some(),
            Element::Masquerade(frontend)
            | Element::Reject(frontend)
            | Element::Drop(frontend)
            | Element::Ranged(frontend)
            | Element::RangedHost(frontend)
            | Element::Source(frontend, _)
            | Element::InterimSource(frontend, _)
            | Element::Inside(frontend, ..)
            | Element::Shadow(frontend) => !changes.is_foreign(frontend),
            Element::Hairpin(_) | Element::PodCidr(_) | Element::ServiceCidr(_) => true,
        }
}
