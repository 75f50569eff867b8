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
    // What takes the place of something else has to come in the moment in which that goes: a map
    // has one value a key, and ranges may not overlap.
    let places: BTreeSet<Place> = added.iter().filter_map(Place::of).collect();
    let replaced = |element: &Element| Place::of(element).is_some_and(|p| places.contains(&p));
    let (replaced, removed): (BTreeSet<_>, BTreeSet<_>) = removed.into_iter().partition(replaced);
    if !added.is_empty() {
        changes.push(Rank::Guard, Action::ChangeElements { added, removed: replaced });
    }
    if !removed.is_empty() {
        let added = BTreeSet::new();
        changes.push(Rank::Unguard, Action::ChangeElements { added, removed });
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
            | Element::Inside(frontend, ..)
            | Element::Shadow(frontend) => !changes.is_foreign(frontend),
            Element::Hairpin(_) | Element::PodCidr(_) | Element::ServiceCidr(_) => true,
        }
}
