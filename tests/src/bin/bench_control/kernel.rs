//! What a plan is carried out on.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use proxy_userspace::{
    model::Frontend,
    plan::{DesiredServer, Observed, Plan},
};

/// A kernel, made up or real.
pub(crate) trait Kernel {
    /// Returns what the node holds.
    fn observed(&self) -> &Observed;

    /// Carries a plan out, for these virtual servers.
    fn apply(&mut self, plan: &Plan, servers: &BTreeMap<Frontend, DesiredServer>) -> Result<Sent>;

    /// Looks at the node as the audit does; returns the processor time it took, where there is a node
    /// to look at.
    fn look(&mut self) -> Result<Option<Duration>>;

    /// Errs if the node does not hold what it was given.
    fn check(&mut self) -> Result<()>;
}

/// What a plan took.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sent {
    /// Requests to IPVS.
    pub(crate) requests: usize,
    /// Their bytes; 0 where they are not counted.
    pub(crate) bytes: usize,
}
