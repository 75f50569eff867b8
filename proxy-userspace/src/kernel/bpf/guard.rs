//! Finds BPF of others on an interface: a redirect would skip it.

use std::{collections::BTreeSet, fmt};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};

use super::{Hook, attach::has_tcx};

/// A program on an interface that is not ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForeignProgram {
    /// `tcx ingress`, `tcx egress`, `tc ingress`, `tc egress` or `xdp`.
    pub place: &'static str,
    /// Its name, or the filter's kind when it is no BPF program.
    pub name: String,
    /// Its id; 0 when it is no BPF program.
    pub id: u32,
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} program {} (id {})", self.place, self.name, self.id)
    }
}

/// Returns the TCX programs on an interface that use none of our maps, or cannot be read. Kernels
/// without TCX have none.
pub fn foreign_programs(interface: &str, our_maps: &BTreeSet<u32>) -> Vec<ForeignProgram> {
    if !has_tcx(interface) {
        return Vec::new();
    }
    let places = [(Hook::Ingress, "tcx ingress"), (Hook::Egress, "tcx egress")];
    let found = places.into_iter().flat_map(|(hook, place)| {
        let attach_type: TcAttachType = hook.attach_type();
        let foreign = |name: &str, id| ForeignProgram { place, name: name.to_owned(), id };
        match SchedClassifier::query_tcx(interface, attach_type) {
            Ok((_, programs)) => programs
                .iter()
                .filter(|program| !is_ours(program, our_maps))
                .map(|program| foreign(program.name_as_str().unwrap_or("?"), program.id()))
                .collect(),
            // A doubt counts.
            Err(_) => vec![foreign("that cannot be read", 0)],
        }
    });
    found.collect()
}

/// Returns the ids of all programs that use none of our maps. One whose maps cannot be read is not
/// ours.
pub fn others_programs(our_maps: &BTreeSet<u32>) -> BTreeSet<u32> {
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .filter(|program| !is_ours(program, our_maps))
        .map(|program| program.id())
        .collect()
}

fn is_ours(program: &ProgramInfo, our_maps: &BTreeSet<u32>) -> bool {
    program
        .map_ids()
        .ok()
        .flatten()
        .is_some_and(|maps| maps.iter().any(|map| our_maps.contains(map)))
}
