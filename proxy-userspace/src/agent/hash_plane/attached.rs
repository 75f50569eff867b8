//! Whether the program is still where it was attached, and what attaching it leaves behind.

use std::collections::BTreeSet;

use tracing::warn;

use super::HashPlane;
use crate::{
    agent::{Agent, interfaces::claim_clsact},
    kernel::{
        bpf::{self, Hook},
        tc::TrafficControl,
    },
    model::{HashMode, interface::Interface},
    plan::interfaces::matches,
};

impl Agent {
    /// Writes down the clsact qdiscs that attaching will make, before they are made.
    pub(super) async fn claim_qdiscs_of_hash_plane(&mut self, present: &[Interface]) {
        let Some(plane) = self.hash_plane.on() else { return };
        let patterns = &self.settings.hash_plane.interfaces;
        let selected =
            present.iter().filter(|each| patterns.iter().any(|one| matches(one, &each.name)));
        for interface in selected.filter(|each| !plane.running.contains_key(&each.index)) {
            let needed = plane.plane.needs_clsact(interface.index);
            let claimed =
                claim_clsact(&self.node.traffic, &mut self.ledger, needed, interface).await;
            if let Err(error) = claimed {
                warn!(event = "ledger_failed", error, "cleanup will not know of a clsact qdisc");
            }
        }
    }
}

impl HashPlane {
    /// Returns those of the interfaces that the program was attached to which still have it. One that
    /// cannot be asked has it.
    pub(super) async fn still_attached(
        &self,
        present: &[Interface],
        traffic: &TrafficControl,
        mode: HashMode,
    ) -> BTreeSet<u32> {
        let Some(ours) = self.plane.program_id() else { return BTreeSet::new() };
        let running = present.iter().filter(|each| self.running.contains_key(&each.index));
        let mut attached = BTreeSet::new();
        for Interface { index, xdp_program, .. } in running {
            let has_it = match mode {
                HashMode::Tc => is_at_tc(*index, ours, traffic).await,
                HashMode::Native | HashMode::Generic => *xdp_program == Some(ours),
            };
            if has_it {
                attached.insert(*index);
            }
        }
        attached
    }
}

async fn is_at_tc(index: u32, program: u32, traffic: &TrafficControl) -> bool {
    match bpf::is_attached(index, Hook::Ingress, &BTreeSet::from([program])) {
        Some(is_attached) => is_attached,
        None => {
            let filters = traffic.filters(index).await;
            filters.map_or(true, |filters| filters.iter().any(|each| each.bpf_id == Some(program)))
        }
    }
}
