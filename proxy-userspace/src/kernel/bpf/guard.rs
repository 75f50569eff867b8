//! Finds BPF of others on an interface: a redirect would skip it.
//!
//! What is ours is told by our pins, our descriptors and our place among filters. The kernel would
//! tell what any program is by its id, but to CAP_SYS_ADMIN only, which an agent has no other need of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use aya::programs::{
    SchedClassifier,
    links::{LinkInfo, PinnedLink},
};

use super::{
    Datapath, Hook,
    attach::{PRIORITY, has_tcx},
    hash_plane::{FILTER_PRIORITY, TC},
    load::TRANSIT,
    query::{self, AtHook},
    tc_link::HANDLE_NUMBER,
};
use crate::kernel::{
    link,
    tc::{Direction, Filter},
};

/// A program on an interface that is not ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForeignProgram {
    /// `tcx ingress` or `tcx egress`.
    pub place: &'static str,
    /// Its name; empty when the kernel does not tell it.
    pub name: String,
    /// Its id; 0 when not even that is known.
    pub id: u32,
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.id, self.name.as_str()) {
            (0, _) => write!(f, "{} program that cannot be read", self.place),
            (id, "") => write!(f, "{} program (id {id})", self.place),
            (id, name) => write!(f, "{} program {name} (id {id})", self.place),
        }
    }
}

impl Datapath {
    /// Returns the TCX programs on an interface that are behind no pinned link of ours. Kernels
    /// without TCX have none.
    pub fn foreign_programs(&self, index: u32) -> Vec<ForeignProgram> {
        if !has_tcx(index) {
            return Vec::new();
        }
        let places = [(Hook::Ingress, "tcx ingress"), (Hook::Egress, "tcx egress")];
        places.into_iter().flat_map(|(hook, place)| self.foreign_at(index, hook, place)).collect()
    }

    fn foreign_at(&self, index: u32, hook: Hook, place: &'static str) -> Vec<ForeignProgram> {
        let Ok(mut found) = query::tcx(index, hook) else {
            // A doubt counts.
            return vec![ForeignProgram { place, name: String::new(), id: 0 }];
        };
        // The hash plane's is ours as well, whether it is at tc or at XDP.
        let pins = [self.link_pin(index, hook.program()), self.pins.hash_link(index)];
        let ours: Vec<u32> =
            pins.iter().filter_map(|pin| pinned(pin)).map(|link| link.id()).collect();
        found.retain(|AtHook { link, .. }| *link == 0 || !ours.contains(link));
        let names = if found.is_empty() { BTreeMap::new() } else { names(index, hook) };
        let foreign = |AtHook { program, .. }: AtHook| {
            let name = names.get(&program).cloned().unwrap_or_default();
            ForeignProgram { place, name, id: program }
        };
        found.into_iter().map(foreign).collect()
    }

    /// Says whether the XDP program on an interface is the one behind our pinned link.
    pub fn is_our_xdp(&self, index: u32, program: u32) -> bool {
        let ours = pinned(&self.link_pin(index, TRANSIT)).map(|link| link.program_id());
        ours == Some(program)
    }
}

/// Says whether one of these programs is on a hook of an interface; `None` where TCX does not say:
/// the kernel lacks it, or the interface is gone.
pub fn is_attached(index: u32, hook: Hook, programs: &BTreeSet<u32>) -> Option<bool> {
    let found = query::tcx(index, hook).ok()?;
    Some(found.iter().any(|at| programs.contains(&at.program)))
}

/// Says whether a filter is one that an agent attached: by its place, which only one filter can have,
/// and its program's name.
pub fn is_our_filter(filter: &Filter) -> bool {
    let hook = match filter.direction {
        Direction::Ingress => Hook::Ingress,
        Direction::Egress => Hook::Egress,
    };
    let is_at = |priority, program| {
        filter.priority == priority && filter.bpf_name.as_deref() == Some(program)
    };
    filter.handle == HANDLE_NUMBER
        && (is_at(PRIORITY, hook.program())
            || (is_at(FILTER_PRIORITY, TC) && filter.direction == Direction::Ingress))
}

/// Returns what the kernel says of a pinned link.
fn pinned(path: &Path) -> Option<LinkInfo> {
    aya::programs::links::FdLink::from(PinnedLink::from_pin(path).ok()?).info().ok()
}

/// Returns the names of the programs at a TCX hook, where the kernel tells them: to CAP_SYS_ADMIN.
fn names(index: u32, hook: Hook) -> BTreeMap<u32, String> {
    let programs = link::name(index)
        .and_then(|name| SchedClassifier::query_tcx(&name, hook.attach_type()).ok())
        .map(|(_, programs)| programs);
    let name = |program: &aya::programs::ProgramInfo| {
        Some((program.id(), program.name_as_str()?.to_owned()))
    };
    programs.iter().flatten().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(name: &str, priority: u16, handle: u32, direction: Direction) -> Filter {
        Filter {
            direction,
            kind: "bpf".into(),
            priority,
            handle,
            bpf_name: Some(name.into()),
            bpf_id: Some(7),
        }
    }

    #[test]
    fn a_filter_is_ours_by_its_place_and_its_name() {
        use Direction::{Egress, Ingress};
        assert!(is_our_filter(&filter("tc_in", PRIORITY, 1, Ingress)));
        assert!(is_our_filter(&filter("tc_out", PRIORITY, 1, Egress)));
        assert!(is_our_filter(&filter("tc_lb", FILTER_PRIORITY, 1, Ingress)));
        assert!(!is_our_filter(&filter("tc_lb", FILTER_PRIORITY, 1, Egress)));
        assert!(!is_our_filter(&filter("tc_lb", PRIORITY, 1, Ingress)));
        assert!(!is_our_filter(&filter("tc_out", PRIORITY, 1, Ingress)));
        assert!(!is_our_filter(&filter("tc_in", 1, 1, Ingress)));
        assert!(!is_our_filter(&filter("tc_in", PRIORITY, 2, Ingress)));
        assert!(!is_our_filter(&filter("cil_from_container", PRIORITY, 1, Ingress)));
    }

    #[test]
    fn a_program_is_told_as_far_as_the_kernel_tells_it() {
        let told = |name: &str, id| {
            ForeignProgram { place: "tcx ingress", name: name.into(), id }.to_string()
        };
        assert_eq!(told("cil", 7), "tcx ingress program cil (id 7)");
        assert_eq!(told("", 7), "tcx ingress program (id 7)");
        assert_eq!(told("", 0), "tcx ingress program that cannot be read");
    }
}
