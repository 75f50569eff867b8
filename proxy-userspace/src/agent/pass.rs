//! One pass: what should be, what is, and the changes between.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use proxy_common::abi::capacity;
use tracing::{debug, error, info, warn};

use super::{Agent, FIRST_RETRY, facts::facts};
use crate::{
    apply::{Executor, Outcome, Tally},
    audit::observe::observe,
    chain::chain,
    kernel::node::Node,
    ledger::{self, Ledger, Record},
    metrics::Passed,
    model::Notice,
    plan::{Drains, Limits, Observed, Plan},
    status::Pass,
};

/// Capacities of the maps the agent writes.
pub(super) const LIMITS: Limits =
    Limits { frontends: capacity::FRONTENDS, backends: capacity::BACKENDS };

/// How much is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scope {
    /// What the source or the node changed.
    Changes,
    /// Everything.
    All,
}

impl Agent {
    /// Compares with everything read anew: finds what others changed.
    pub(super) async fn resync(&mut self) {
        let begun = Instant::now();
        match observe(&self.node, self.ledger.owned(), &self.planner.rules()).await {
            Ok(observed) => {
                let drifts = self.take_up(observed);
                self.audit.refreshed(begun);
                if !drifts.is_empty() {
                    self.tell_drifts(&drifts);
                    self.publish();
                }
            }
            Err(error) => {
                error!(event = "observe_failed", error = chain(&error), "the node cannot be read");
                return;
            }
        }
        self.refresh_interfaces().await;
        self.reconcile(Scope::All).await;
    }

    /// The same, as often as it may be: the audit looks at the node in between.
    pub(super) async fn resync_at_times(&mut self) {
        if self.audit.may_read_everything() {
            self.resync().await;
        }
        if self.node.datapath.as_ref().is_some_and(|datapath| datapath.maps.filter.is_stale()) {
            self.refilter();
        }
    }

    /// Plans from what is known and carries it out.
    pub(super) async fn reconcile(&mut self, scope: Scope) {
        self.reconcile_with(scope, &Drains::OverFor(BTreeSet::new())).await;
    }

    /// Removes the destinations whose drain is over.
    pub(super) async fn end_drains(&mut self) {
        let timeout = self.settings.drain_timeout;
        let used = self.used_by_hash_plane();
        let desired = self.planner.desired();
        let over = self.waiting.over(&self.node.ipvs, desired, timeout, &used).await;
        if over.is_empty() {
            return;
        }
        for (frontend, _) in &over {
            let server = self.planner.desired().servers.get(frontend);
            if let Some(service) = server.map(|server| server.service.service.clone()) {
                self.planner.touch(&service);
            }
        }
        self.reconcile_with(Scope::Changes, &Drains::OverFor(over)).await;
    }

    async fn reconcile_with(&mut self, scope: Scope, drains: &Drains) {
        if !self.has_snapshot {
            self.report();
            return;
        }
        let started = Instant::now();
        let node = self.planner.snapshot().nodes.get(&self.node_name);
        self.health.set_node_leaving(node.is_some_and(|node| node.leaving));
        let facts = facts(&self.node_name, &self.present, &self.settings, node);
        self.planner.set_facts(facts);
        self.follow_checks();
        // Rare, and not to be carried along in every pass.
        Box::pin(self.take_over()).await;
        let whole = scope == Scope::All || std::mem::take(&mut self.whole_next);
        let plan = if whole {
            self.planner.plan_all(&self.observed, &LIMITS, drains)
        } else {
            self.planner.plan_changes(&self.observed, &LIMITS, drains)
        };
        // What could not be done is looked at again with everything else.
        self.whole_next = !plan.conflicts.is_empty();
        if whole {
            self.waiting.clear_but(&plan);
        } else {
            self.waiting.take(&plan);
        }
        let desired = self.planner.desired();
        self.health.answer(&desired.health);
        self.hash_plane.foretell(&plan.actions);
        let servers = &self.planner.desired().servers;
        let mut executor = Executor { node: &mut self.node, ledger: &mut self.ledger, servers };
        let mut tally = Tally::default();
        let outcomes = executor.apply_counted(&plan, &mut self.observed, &mut tally).await;
        let took = started.elapsed();
        self.audit.passed(&plan, outcomes.len());
        self.note(&plan, &outcomes, took);
        self.metrics.recorder().tallied(&tally);
        self.metrics.passed(Passed { whole, took, complete: outcomes.is_empty() });
        if outcomes.is_empty() {
            Box::pin(self.clear_away()).await;
        }
        self.collecting = false;
        self.next_pass = tokio::time::Instant::now() + self.settings.min_sync_period;
        self.follow_forced_services().await;
        self.settle_hash_plane().await;
        self.report();
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
            (false, false) => (self.retry * 2).min(self.settings.sync_period),
        };
        self.retry_at = (!errors.is_empty()).then(|| tokio::time::Instant::now() + self.retry);
        if errors.is_empty() {
            self.health.synced();
        }
        self.ready = !outcomes.iter().any(Outcome::is_foundation);
        self.health.set_ready(self.ready);
        self.pass = Pass {
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
            duration_ms: took.as_millis() as u64,
            actions: plan.actions.len() - outcomes.len().min(plan.actions.len()),
            errors,
        };
    }

    fn note_notices(&mut self, plan: &Plan) {
        let mut notices = self.planner.desired().notices();
        notices.extend(self.source.notices.iter().chain(&plan.conflicts).cloned());
        let notices: Arc<[Notice]> = notices.into_iter().collect();
        for notice in notices.iter().filter(|notice| !self.notices.contains(notice)) {
            warn!(event = "notice", reason = notice.reason(), "{notice}");
        }
        let changed = notices != self.notices;
        self.notices = notices;
        if changed {
            self.publish();
        }
    }

    /// Says by Events what there is to say now.
    pub(super) fn publish(&self) {
        if let Some(publisher) = &self.publisher {
            publisher.publish(self.notices.iter().chain(self.audit.notices()).cloned());
        }
    }
}

/// Strikes virtual servers in these ranges out of the ledger: they are somebody else's from now on,
/// and cleanup leaves them alone as well.
pub(super) fn disown(ledger: &mut Ledger, excluded: &[IpNet]) -> Result<(), ledger::Error> {
    let servers = ledger.owned().virtual_servers.keys();
    let disowned: Vec<Record> = servers
        .filter(|frontend| excluded.iter().any(|cidr| cidr.contains(&frontend.addr)))
        .map(|frontend| Record::VirtualServer { frontend: *frontend, service: None })
        .collect();
    ledger.record(disowned)
}

/// Strikes virtual servers and addresses out of the ledger that are not there any more: whoever
/// makes one there next, it is not us.
pub(super) fn forget_absent(
    ledger: &mut Ledger,
    node: &Node,
    observed: &Observed,
) -> Result<(), ledger::Error> {
    let mut absent: Vec<Record> = ledger
        .owned()
        .virtual_servers
        .keys()
        .filter(|frontend| !observed.servers.contains_key(frontend))
        .map(|frontend| Record::VirtualServer { frontend: *frontend, service: None })
        .collect();
    let held = if node.vips_are_addresses { &observed.vips } else { &observed.outdated_vips };
    if let Some(ours) = ledger.owned().addresses.get(&node.device) {
        let addrs: Vec<_> = ours.difference(held).copied().collect();
        let device = node.device.clone();
        absent.push(Record::Addresses { device, addrs, owned: false });
    }
    ledger.record(absent)
}
