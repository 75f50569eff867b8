//! One pass: what should be, what is, and the changes between.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proxy_common::abi::capacity;
use tracing::{debug, error, info, warn};

use super::{Agent, FIRST_RETRY};
use crate::{
    apply::{Executor, Outcome},
    audit::observe::observe,
    chain::chain,
    ledger::{self, Ledger, Record},
    model::{Frontend, Notice},
    plan::{self, Defaults, Desired, Limits, NodeFacts, Observed, Plan},
    status::Pass,
};

/// Capacities of the maps the agent writes.
const LIMITS: Limits = Limits { frontends: capacity::FRONTENDS, backends: capacity::BACKENDS };

impl Agent {
    /// Compares with everything read anew: finds what others changed.
    pub(super) async fn resync(&mut self) {
        match observe(&self.node, self.ledger.owned()).await {
            Ok(observed) => {
                if let Err(error) = forget_absent(&mut self.ledger, &observed) {
                    warn!(event = "ledger_failed", error = chain(&error), "the ledger is behind");
                }
                self.observed = observed;
            }
            Err(error) => {
                error!(event = "observe_failed", error = chain(&error), "the node cannot be read");
                return;
            }
        }
        self.refresh_interfaces().await;
        self.reconcile().await;
    }

    /// Plans from what is known and carries it out.
    pub(super) async fn reconcile(&mut self) {
        let Some(snapshot) = &self.snapshot else {
            self.report();
            return;
        };
        let started = Instant::now();
        let defaults = Defaults { scheduler: self.flags.scheduler };
        self.desired = plan::desired(snapshot, &self.node_facts(), &defaults);
        let plan = plan::plan(&self.desired, &self.observed, &LIMITS);
        let services = service_names(&self.desired);
        let mut executor =
            Executor { node: &mut self.node, ledger: &mut self.ledger, services: &services };
        let outcomes = executor.apply(&plan, &mut self.observed).await;
        self.note(&plan, &outcomes, started.elapsed());
        self.report();
    }

    /// Returns the addresses that answer NodePorts: all of the node's but loopback ones and those
    /// of the device that carries the VIPs.
    fn node_facts(&self) -> NodeFacts {
        let node_port_addrs: BTreeSet<Ipv4Addr> = self
            .present
            .iter()
            .filter(|interface| interface.name != self.flags.dummy_device)
            .flat_map(|interface| interface.addrs.iter().copied())
            .filter(|addr| !addr.is_loopback())
            .collect();
        NodeFacts { node_port_addrs }
    }

    fn note(&mut self, plan: &Plan, outcomes: &[Outcome], took: Duration) {
        let errors: Vec<String> = outcomes
            .iter()
            .map(|outcome| format!("{}: {}", outcome.action, chain(&outcome.failure)))
            .collect();
        for action in &plan.actions {
            debug!(event = "action", %action);
        }
        if !plan.actions.is_empty() {
            info!(
                event = "reconciled",
                changes = plan.actions.len(),
                failed = outcomes.len(),
                duration_ms = took.as_millis() as u64,
                "the node was changed"
            );
        }
        for error in errors.iter().filter(|error| !self.pass.errors.contains(error)) {
            error!(event = "action_failed", "{error}");
        }
        self.note_notices(plan);
        self.retry = match (errors.is_empty(), self.pass.errors.is_empty()) {
            (true, _) | (false, true) => FIRST_RETRY,
            (false, false) => (self.retry * 2).min(self.flags.sync_period),
        };
        self.retry_at = (!errors.is_empty()).then(|| tokio::time::Instant::now() + self.retry);
        self.ready = !outcomes.iter().any(Outcome::is_foundation);
        self.pass = Pass {
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            duration_ms: took.as_millis() as u64,
            actions: plan.actions.len() - outcomes.len().min(plan.actions.len()),
            errors,
        };
    }

    fn note_notices(&mut self, plan: &Plan) {
        let all: [&[Notice]; 3] = [&self.source_notices, &self.desired.notices, &plan.conflicts];
        let mut notices: Vec<Notice> = all.concat();
        notices.sort();
        notices.dedup();
        for notice in notices.iter().filter(|notice| !self.notices.contains(notice)) {
            warn!(event = "notice", reason = notice.reason(), "{notice}");
        }
        self.notices = notices;
    }
}

/// Strikes virtual servers out of the ledger that are not in IPVS any more: whoever makes one there
/// next, it is not us.
pub(super) fn forget_absent(ledger: &mut Ledger, observed: &Observed) -> Result<(), ledger::Error> {
    let absent: Vec<Record> = ledger
        .owned()
        .virtual_servers
        .keys()
        .filter(|frontend| !observed.servers.contains_key(frontend))
        .map(|frontend| Record::VirtualServer { frontend: *frontend, service: None })
        .collect();
    ledger.record(absent)
}

fn service_names(desired: &Desired) -> BTreeMap<Frontend, String> {
    desired
        .servers
        .iter()
        .map(|(frontend, server)| (*frontend, server.service.to_string()))
        .collect()
}
