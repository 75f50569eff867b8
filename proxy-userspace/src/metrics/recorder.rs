//! What the loop tells. Nothing here has a lock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;

use super::{
    DriftRecorder,
    names::{PROGRAMMING_BUCKETS, SYNC_BUCKETS},
};
use crate::{
    apply::{Tally, Tries},
    audit::counters::AuditCounters,
    checks::BackendCheck,
    health::ProxyHealth,
    model::{Change, Update},
    source::{Trigger, kubernetes::Requests},
    status::Report,
    tally::{Counter, Gauge, Histogram, Table},
};

/// Everything that the loop counts, and what it said last.
#[derive(Debug)]
pub struct Recorder {
    started_at: SystemTime,
    pub(super) sync: Histogram,
    pub(super) sync_full: Histogram,
    pub(super) sync_partial: Histogram,
    pub(super) synced_at: Gauge,
    pub(super) queued_at: Gauge,
    pub(super) services: Changes,
    pub(super) endpoints: Changes,
    /// By address family.
    pub(super) programming: [Histogram; 2],
    pub(super) conntrack: [Histogram; 2],
    pub(super) conntrack_deleted: [Counter; 2],
    /// By scope and outcome.
    pub(super) passes: Table<Pair>,
    pub(super) actions: Table<Pair>,
    pub(super) ipvs: Table<Pair>,
    pub(super) nft: Table<&'static str>,
    pub(super) drift: DriftRecorder,
    pub(super) audit: Arc<AuditCounters>,
    pub(super) health: Arc<ProxyHealth>,
    pub(super) requests: Option<Arc<Requests>>,
    pub(super) state: ArcSwap<State>,
}

type Pair = (&'static str, &'static str);

/// Changes of a kind of objects.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) total: Counter,
    pub(super) pending: Gauge,
}

impl Changes {
    /// Only the loop calls it, so that nothing comes in between.
    fn add(&self, changes: usize) {
        self.total.add(changes as u64);
        self.pending.set(self.pending.value() + changes as f64);
    }
}

/// What the agent is like at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// What it says of itself.
    pub report: Report,
    /// What there is a notice of, a reason each.
    pub notices: Vec<&'static str>,
    /// The source has told everything once.
    pub has_snapshot: bool,
    /// How often the source listed a kind anew.
    pub relists: u64,
    /// Services without endpoints here, by address family, and by whether traffic is from outside.
    pub no_local_endpoints: [[usize; 2]; 2],
    /// The node has IPv6.
    pub has_ipv6: bool,
    /// Backends that are checked.
    pub checks: Arc<[BackendCheck]>,
}

/// A pass over the node.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Everything was compared.
    pub whole: bool,
    /// What it took.
    pub took: Duration,
    /// Everything that should be is in the kernel.
    pub complete: bool,
}

impl Recorder {
    /// Makes one. `health` and `requests` are read at each scrape.
    pub fn new(health: Arc<ProxyHealth>, requests: Option<Arc<Requests>>) -> Self {
        let sync = || Histogram::new(SYNC_BUCKETS);
        let programming = || Histogram::new(PROGRAMMING_BUCKETS);
        Self {
            started_at: SystemTime::now(),
            sync: sync(),
            sync_full: sync(),
            sync_partial: sync(),
            synced_at: Gauge::default(),
            queued_at: Gauge::default(),
            services: Changes::default(),
            endpoints: Changes::default(),
            programming: [programming(), programming()],
            conntrack: [sync(), sync()],
            conntrack_deleted: Default::default(),
            passes: Table::default(),
            actions: Table::default(),
            ipvs: Table::default(),
            nft: Table::default(),
            drift: DriftRecorder::default(),
            audit: Arc::default(),
            health,
            requests,
            state: ArcSwap::default(),
        }
    }

    /// Returns what an audit counts with.
    pub fn drift(&self) -> DriftRecorder {
        self.drift.clone()
    }

    /// Returns what counts the audit's looks.
    pub fn audit(&self) -> Arc<AuditCounters> {
        Arc::clone(&self.audit)
    }

    /// Takes up that a change came that is to be carried out.
    pub fn queued(&self, update: &Update) {
        self.queued_at.set(seconds(SystemTime::now()));
        let (services, slices) = match update {
            Update::Replace(snapshot) => (snapshot.services.len(), snapshot.slices.len()),
            Update::Change(changes) => {
                let count = |of: fn(&Change) -> bool| changes.iter().filter(|c| of(c)).count();
                let services = count(|change| matches!(change, Change::Service(..)));
                (services, count(|change| matches!(change, Change::Slice(..))))
            }
        };
        self.services.add(services);
        self.endpoints.add(slices);
    }

    /// Takes up a pass.
    pub fn passed(&self, passed: Passed) {
        let Passed { whole, took, complete } = passed;
        self.sync.observe(took);
        if whole { &self.sync_full } else { &self.sync_partial }.observe(took);
        let scope = if whole { "all" } else { "changes" };
        self.passes.add(&(scope, outcome(complete)), 1);
        if complete {
            self.synced_at.set(seconds(SystemTime::now()));
            self.services.pending.set(0.0);
            self.endpoints.pending.set(0.0);
        }
    }

    /// Takes up that what these triggers brought about is in the kernel. What happened before the
    /// agent ran is not its delay.
    pub fn programmed(&self, triggers: impl IntoIterator<Item = Trigger>) {
        let now = SystemTime::now();
        for Trigger { at, ipv6 } in triggers {
            if at > self.started_at {
                // Clocks of other nodes may be ahead.
                let took = now.duration_since(at).unwrap_or_default();
                self.programming[usize::from(ipv6)].observe(took);
            }
        }
    }

    /// Takes up what plans did.
    pub fn tallied(&self, tally: &Tally) {
        let each = |table: &Table<Pair>, name: &'static str, tries: &Tries| {
            for (outcome, count) in [("done", tries.done), ("failed", tries.failed)] {
                if count > 0 {
                    table.add(&(name, outcome), count);
                }
            }
        };
        tally.actions.iter().for_each(|(name, tries)| each(&self.actions, name, tries));
        tally.ipvs.iter().for_each(|(name, tries)| each(&self.ipvs, name, tries));
        for (outcome, count) in [("done", tally.nft.done), ("failed", tally.nft.failed)] {
            self.nft.add(&outcome, count);
        }
        for search in &tally.searches {
            let family = usize::from(search.ipv6);
            self.conntrack[family].observe(search.took);
            self.conntrack_deleted[family].add(search.deleted);
        }
    }

    /// Replaces what the agent is like.
    pub fn publish(&self, state: State) {
        self.state.store(Arc::new(state));
    }
}

/// Returns the word for whether something succeeded.
pub(super) fn outcome(done: bool) -> &'static str {
    if done { "done" } else { "failed" }
}

pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
