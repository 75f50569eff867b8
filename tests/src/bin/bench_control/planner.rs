//! The one place that knows how plans are made: a change goes in, a plan comes out.

use std::collections::BTreeMap;

use proxy_userspace::{
    model::{Change, Frontend, Snapshot, Update},
    plan::{self, DesiredServer, Drains, Limits, NodeFacts, Observed, Plan, Settings},
};

/// What the agent keeps between two plans.
pub(crate) struct Planner {
    planner: plan::Planner,
    limits: Limits,
}

impl Planner {
    /// Takes the first state of the source.
    pub(crate) fn new(snapshot: Snapshot, node: NodeFacts, limits: Limits) -> Self {
        let mut planner = plan::Planner::new(Settings::default(), node);
        planner.take(Update::Replace(snapshot));
        Self { planner, limits }
    }

    /// Returns the plan for everything.
    pub(crate) fn all(&mut self, observed: &Observed) -> Plan {
        self.planner.plan_all(observed, &self.limits, &Drains::Over)
    }

    /// Returns the virtual servers that should be.
    pub(crate) fn servers(&mut self) -> &BTreeMap<Frontend, DesiredServer> {
        &self.planner.desired().servers
    }

    /// Returns the plan for one change.
    pub(crate) fn change(&mut self, change: Change, observed: &Observed) -> Plan {
        self.planner.take(Update::Change(vec![change]));
        self.planner.plan_changes(observed, &self.limits, &Drains::Over)
    }
}
