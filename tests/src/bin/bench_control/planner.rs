//! The one place that knows how plans are made: a change goes in, a plan comes out.

use proxy_userspace::{
    model::{Change, Snapshot},
    plan::{self, Defaults, Limits, NodeFacts, Observed, Plan},
};

/// What the agent keeps between two plans.
pub(crate) struct Planner {
    snapshot: Snapshot,
    node: NodeFacts,
    defaults: Defaults,
    limits: Limits,
}

impl Planner {
    /// Takes the first state of the source.
    pub(crate) fn new(snapshot: Snapshot, node: NodeFacts, limits: Limits) -> Self {
        Self { snapshot, node, defaults: Defaults::default(), limits }
    }

    /// Returns the plan for everything.
    pub(crate) fn all(&mut self, observed: &Observed) -> Plan {
        let desired = plan::desired(&self.snapshot, &self.node, &self.defaults);
        plan::plan(&desired, observed, &self.limits)
    }

    /// Returns the plan for one change.
    pub(crate) fn change(&mut self, change: Change, observed: &Observed) -> Plan {
        self.snapshot.apply(change);
        self.all(observed)
    }
}
