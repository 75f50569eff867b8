//! Compares desired and observed, plane by plane.

mod fast_path;
mod node;
mod servers;

use std::collections::BTreeMap;

use super::{
    Action, Desired, DesiredServer, Limits, Observed, Plan,
    order::{Rank, Step, ordered, urgent},
};
use crate::model::{Frontend, Notice};

/// Returns the actions that lead from `observed` to `desired`, and what has to stay undone.
///
/// A virtual server that is not ours is never touched: at a desired frontend it is a conflict,
/// and nothing else is made for that frontend either; elsewhere it is ignored. After a plan has
/// been applied the next one is empty, but for one case: ids freed in a full BPF map are given
/// out again by the plan after.
pub fn plan(desired: &Desired, observed: &Observed, limits: &Limits) -> Plan {
    let mut changes = Changes::new(desired, observed);
    node::compare(&mut changes, desired);
    servers::compare(&mut changes);
    if observed.fast_path {
        fast_path::compare(&mut changes, limits);
    }
    let Changes { steps, mut conflicts, .. } = changes;
    conflicts.sort();
    Plan { actions: ordered(steps), conflicts }
}

/// What the comparisons share: the input without the conflicts, and the result.
struct Changes<'a> {
    /// The desired virtual servers that may be made.
    servers: BTreeMap<Frontend, &'a DesiredServer>,
    observed: &'a Observed,
    steps: Vec<Step>,
    conflicts: Vec<Notice>,
}

impl<'a> Changes<'a> {
    fn new(desired: &'a Desired, observed: &'a Observed) -> Self {
        let mut changes =
            Self { servers: BTreeMap::new(), observed, steps: Vec::new(), conflicts: Vec::new() };
        for (&frontend, server) in &desired.servers {
            if observed.servers.get(&frontend).is_some_and(|held| !held.owned) {
                let service = server.service.clone();
                changes.conflicts.push(Notice::ForeignVirtualServer { frontend, service });
            } else {
                changes.servers.insert(frontend, server);
            }
        }
        changes
    }

    fn push(&mut self, rank: Rank, action: Action) {
        self.steps.push(Step { rank, urgent: false, action });
    }

    fn push_for(&mut self, server: &DesiredServer, rank: Rank, action: Action) {
        self.steps.push(Step { rank, urgent: urgent(&server.service.service), action });
    }
}
