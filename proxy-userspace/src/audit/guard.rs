//! Finds what a redirect would skip: BPF, filters and XDP programs of others on an interface.

use std::collections::BTreeSet;

use crate::{
    kernel::{
        bpf,
        node::Node,
        tc::{self, Filter},
    },
    model::interface::Interface,
    plan::interfaces::Foreign,
};

/// Returns what others have on each interface. Everything on one that cannot be read counts: a
/// doubt is a reason for the slow path.
pub async fn foreign(node: &Node, interfaces: &[Interface]) -> Foreign {
    let ours = node.datapath.as_ref().map(|datapath| datapath.maps.ids().clone());
    let ours = ours.unwrap_or_default();
    let mut foreign = Foreign::new();
    for interface in interfaces {
        let found = on_interface(node, interface, &ours).await;
        if !found.is_empty() {
            foreign.insert(interface.index, found);
        }
    }
    foreign
}

async fn on_interface(node: &Node, interface: &Interface, ours: &BTreeSet<u32>) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(id) = interface.xdp_program.filter(|id| !bpf::is_program_ours(*id, ours)) {
        found.push(format!("foreign XDP program (id {id})"));
    }
    let programs = bpf::foreign_programs(&interface.name, ours);
    found.extend(programs.iter().map(|program| format!("foreign {program}")));
    match node.traffic.filters(interface.index).await {
        Ok(filters) => {
            found.extend(filters.iter().filter(|filter| !is_ours(filter, ours)).map(describe))
        }
        Err(error) => found.push(format!("filters cannot be read: {error}")),
    }
    found
}

fn is_ours(filter: &Filter, ours: &BTreeSet<u32>) -> bool {
    filter.bpf_id.is_some_and(|id| bpf::is_program_ours(id, ours))
}

fn describe(filter: &Filter) -> String {
    let tc::Filter { direction, kind, priority, bpf_name, bpf_id, .. } = filter;
    match (bpf_name, bpf_id) {
        (Some(name), Some(id)) => {
            format!("foreign tc {direction} program {name} (id {id}, priority {priority})")
        }
        _ => format!("foreign tc {direction} filter {kind} (priority {priority})"),
    }
}
