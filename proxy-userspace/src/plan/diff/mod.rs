//! Compares desired and observed, plane by plane.

mod elements;
mod fast_path;
mod local_ports;
mod node;
mod servers;

use std::collections::BTreeSet;

use super::{
    Action, Desired, DesiredServer, Limits, Observed, Plan,
    desired::Touched,
    order::{Rank, Step, ordered, urgent},
};
use crate::model::{DestinationKey, Frontend, Notice};

/// Which unwanted destinations may go. One that nobody wants any more keeps its connections at
/// weight 0 until they have ended or its time is over; who keeps the time says so here.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Drains {
    /// All of them, at once.
    #[default]
    Over,
    /// These; the others are kept.
    OverFor(BTreeSet<(Frontend, DestinationKey)>),
}

impl Drains {
    fn over(&self, frontend: Frontend, key: DestinationKey) -> bool {
        match self {
            Self::Over => true,
            Self::OverFor(over) => over.contains(&(frontend, key)),
        }
    }
}

/// Returns the actions that lead from `observed` to `desired`, and what has to stay undone.
///
/// A virtual server that is not ours is never touched: at a desired frontend it is a conflict,
/// and nothing else is made for that frontend either; elsewhere it is ignored. After a plan has
/// been applied the next one is empty, but for one case: ids freed in a full BPF map are given
/// out again by the plan after.
pub fn plan(desired: &Desired, observed: &Observed, limits: &Limits, drains: &Drains) -> Plan {
    let mut touched = Touched::default();
    touched.frontends.extend(desired.servers.keys().chain(observed.servers.keys()));
    touched.frontends.extend(observed.frontends.keys());
    touched.frontends.extend(observed.local_ports.iter().flat_map(|ports| ports.keys()));
    touched.vips.extend(desired.vips.iter().chain(&observed.vips));
    touched.elements.extend(desired.elements.iter());
    touched.elements.extend(observed.table.iter().flat_map(|table| &table.elements));
    touched.backends.extend(desired.backends.iter().chain(observed.backends.keys()));
    plan_touched(desired, observed, limits, drains, touched)
}

/// Plans for a part of the keys.
pub(super) fn plan_touched(
    desired: &Desired,
    observed: &Observed,
    limits: &Limits,
    drains: &Drains,
    touched: Touched,
) -> Plan {
    let mut changes = Changes::new(desired, observed, touched);
    node::compare(&mut changes);
    elements::compare(&mut changes);
    servers::compare(&mut changes, drains);
    local_ports::compare(&mut changes);
    if observed.fast_path {
        fast_path::compare(&mut changes, limits);
    }
    let Changes { steps, mut conflicts, draining, lingering, .. } = changes;
    conflicts.sort();
    Plan { actions: ordered(steps), conflicts, draining, lingering }
}

/// What the comparisons share: the input, and the result.
struct Changes<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    touched: Touched,
    steps: Vec<Step>,
    conflicts: Vec<Notice>,
    draining: BTreeSet<(Frontend, DestinationKey)>,
    lingering: BTreeSet<(Frontend, DestinationKey)>,
}

impl<'a> Changes<'a> {
    fn new(desired: &'a Desired, observed: &'a Observed, touched: Touched) -> Self {
        let mut changes = Self {
            desired,
            observed,
            touched,
            steps: Vec::new(),
            conflicts: Vec::new(),
            draining: BTreeSet::new(),
            lingering: BTreeSet::new(),
        };
        for &frontend in &changes.touched.frontends {
            if let Some(server) = desired.servers.get(&frontend)
                && server.leads_to.is_none()
                && changes.is_foreign(&frontend)
            {
                let service = server.service.clone();
                changes.conflicts.push(Notice::ForeignVirtualServer { frontend, service });
            }
        }
        changes
    }

    /// Returns whether IPVS has a virtual server there that somebody else made.
    fn is_foreign(&self, frontend: &Frontend) -> bool {
        self.observed.servers.get(frontend).is_some_and(|held| !held.owned)
    }

    /// Returns the desired virtual server of a frontend, if it may be made.
    fn wanted(&self, frontend: &Frontend) -> Option<&'a DesiredServer> {
        let server = self.desired.servers.get(frontend)?;
        (server.leads_to.is_none() && !self.is_foreign(frontend)).then_some(server)
    }

    fn push(&mut self, rank: Rank, action: Action) {
        self.steps.push(Step { rank, urgent: false, action });
    }

    fn push_for(&mut self, server: &DesiredServer, rank: Rank, action: Action) {
        self.steps.push(Step { rank, urgent: urgent(&server.service.service), action });
    }
}
