//! The one place that knows how plans are made: a change goes in, a plan comes out.

use proxy_userspace::{
    model::{Change, Snapshot, Update},
    plan::{self, Drains, Limits, NodeFacts, Observed, Plan, Settings},
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

    /// Returns the plan for one change.
    pub(crate) fn change(&mut self, change: Change, observed: &Observed) -> Plan {
        self.planner.take(Update::Change(vec![change]));
        self.planner.plan_changes(observed, &self.limits, &Drains::Over)
    }
}
