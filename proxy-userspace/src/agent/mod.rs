//! The loop: a change of Services or of the node, a plan, its changes, a report.

mod admin;
mod adoption;
mod attachments;
mod audit;
mod checks;
mod datapath;
mod drains;
mod facts;
mod hash_plane;
mod health;
mod interfaces;
mod localhost;
mod metrics;
mod pass;
mod preflight;
pub mod privileges;
mod quiet;
mod rehearsal;
mod sysctls;
mod transit;
mod witness;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use proxy_common::hash::mh::Size;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info, warn};

pub(crate) use adoption::find_live as live_kube_proxy;
use health::Health;
use pass::Scope;
pub use preflight::Fatal;
pub use rehearsal::{Rehearsal, rehearse};
pub use sysctls::{Setting, settings};
pub use witness::Witnesses;

use crate::{
    apply,
    audit::observe,
    config::{self, Settings},
    kernel::{
        self,
        link::{self, Event},
        node::Node,
        tc,
    },
    ledger::Ledger,
    metrics::Recorder,
    model::{Notice, interface::Interface},
    plan::{Observed, Planner},
    source::{
        Source, SourceError, SourceEvent,
        kubernetes::{Login, Options, Publisher},
    },
    status::{FastPathReport, InterfaceReport, Lease, Lock, Pass, Report},
};

/// Between two looks for what others did to our interfaces without an event: TCX programs, XDP
/// programs by a link, and flowtables. As long as the hard lease: so much later may anything of
/// others take effect.
const GUARD_PERIOD: Duration = Duration::from_secs(5);
/// Between two looks whether the connections of leaving endpoints have ended.
const DRAIN_PERIOD: Duration = Duration::from_secs(1);
/// Events of one cause come together: one look at the interfaces serves them all.
const SETTLE: Duration = Duration::from_millis(20);
/// Between a pass that failed in part and the next try, doubled up to the sync period.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// What one agent knows.
struct Agent {
    settings: Settings,
    node: Node,
    ledger: Ledger,
    node_name: String,
    planner: Planner,
    source: SourceEvent,
    source_name: String,
    /// Puts notices as Events into the cluster.
    publisher: Option<Publisher>,
    /// The source has said something; nothing is planned before.
    has_snapshot: bool,
    /// The next plan compares everything.
    whole_next: bool,
    waiting: drains::Waiting,
    adoption: adoption::Progress,
    observed: Observed,
    interfaces: interfaces::Interfaces,
    present: Vec<Interface>,
    health: Health,
    checks: checks::Checks,
    metrics: metrics::Metrics,
    /// The kernel has IPv6.
    has_ipv6: bool,
    fast_path: FastPathReport,
    hash_plane: hash_plane::State,
    /// Why node ports are not served at loopback addresses, though asked for.
    no_localhost: Option<String>,
    pass: Pass,
    /// Finds what others change.
    audit: audit::Audit,
    notices: Arc<[Notice]>,
    ready: bool,
    retry: Duration,
    retry_at: Option<tokio::time::Instant>,
    /// When changes of the source may be carried out again.
    next_pass: tokio::time::Instant,
    /// Changes of the source wait for that.
    collecting: bool,
}

/// A time that a timer without a purpose may wait for.
fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(3600)
}

/// Runs the agent until SIGTERM or SIGINT. Forwarding stays as it is then.
///
/// # Errors
///
/// [`Fatal`] when the agent cannot start; once it runs, everything else is reported and retried.
pub async fn run(
    settings: Settings,
    witnesses: Witnesses,
    mh_size: Option<Size>,
) -> Result<(), Fatal> {
    privileges::check()?;
    let _lock = Lock::take(&settings.paths.state_dir)?;
    adoption::check(&settings)?;
    let node_name = facts::node_name(&settings);
    let kept_in = Some(settings.paths.snapshot_dir.clone());
    let mut source = open_source(&settings, &node_name, kept_in).await?;
    let (checks, mut found) = checks::Checks::open(&settings.paths.state_dir);
    let (mut agent, mut looks) =
        Agent::start(settings, node_name, &mut source, witnesses, mh_size, checks).await?;
    let mut asked = admin::open(&agent.settings.paths.state_dir);
    let mut links = link::Watch::open(&agent.settings.dummy_device).await?;
    let mut traffic = tc::Watch::open().map_err(kernel::node::Error::from)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Fatal::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Fatal::Signal)?;
    let mut guard = interval(GUARD_PERIOD.min(agent.settings.sync_period));
    let mut sync = interval(agent.settings.sync_period);
    let mut drain = interval(DRAIN_PERIOD);
    let mut audit = interval(audit::TICK);
    let mut next_hops = interval(hash_plane::TICK);
    for timer in [&mut guard, &mut sync, &mut drain, &mut audit, &mut next_hops] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.reset();
    }
    agent.refresh_interfaces().await;
    agent.report();
    loop {
        let retry = agent.retry_at;
        tokio::select! {
            event = source.next() => agent.heard(event?).await,
            Some(event) = links.next() => {
                // At once; and again when the others that come with it are there.
                agent.raise_epoch();
                let settled = settle(&mut links, event).await;
                agent.node_changed(&settled).await;
            }
            Some(change) = traffic.next() => agent.traffic_changed(change).await,
            () = tokio::time::sleep_until(agent.next_pass), if agent.collecting => {
                agent.reconcile(Scope::Changes).await;
            }
            _ = guard.tick() => {
                agent.look_for_foreign().await;
                agent.go_on_adopting().await;
            }
            _ = sync.tick() => agent.resync_at_times().await,
            // Most looks find nothing: there is nothing to report.
            _ = audit.tick() => {
                agent.begin_audit().await;
                continue;
            }
            Some(seen) = looks.recv() => {
                if !agent.audited(seen, links.vips_changed()).await {
                    continue;
                }
            }
            Some(changed) = found.recv() => agent.checks_changed(changed, &mut found).await,
            Some(request) = asked.recv() => agent.answer(request).await,
            _ = next_hops.tick(), if agent.hash_plane.is_on() => {
                // Mostly nothing is due, and there is nothing to report.
                if !agent.tend_hash_plane().await {
                    continue;
                }
            }
            _ = drain.tick(), if !agent.waiting.is_empty() => agent.end_drains().await,
            () = tokio::time::sleep_until(retry.unwrap_or_else(far)), if retry.is_some() => {
                agent.resync().await;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        agent.metrics.relists = source.status().map_or(0, |status| status.relists);
        agent.report();
    }
    info!(event = "stopped", "the agent stops; forwarding stays as it is");
    Ok(())
}

/// Opens the source; a cluster's last good snapshot is kept in a directory, if there is one.
async fn open_source(
    settings: &Settings,
    node_name: &str,
    state_dir: Option<PathBuf>,
) -> Result<Source, SourceError> {
    let login = match &settings.source {
        config::Source::File(path) => return Source::file(path, settings.proxy_name.clone()),
        config::Source::Kubernetes => Login {
            kubeconfig: settings.kubeconfig.clone(),
            api_servers: settings.api_servers.clone(),
        },
    };
    let options = Options {
        proxy_name: settings.proxy_name.clone(),
        qps: settings.qps,
        burst: settings.burst,
        state_dir,
        ..Options::new(login, node_name.to_owned())
    };
    Source::kubernetes(options).await
}

/// Collects the events that come with the first one.
async fn settle(links: &mut link::Watch, first: Event) -> Vec<Event> {
    let mut events = vec![first];
    let deadline = Instant::now() + SETTLE;
    while let Ok(Some(event)) =
        timeout(deadline.saturating_duration_since(Instant::now()), links.next()).await
    {
        events.push(event);
    }
    events
}

impl Agent {
    async fn start(
        settings: Settings,
        node_name: String,
        source: &mut Source,
        witnesses: Witnesses,
        mh_size: Option<Size>,
        checks: checks::Checks,
    ) -> Result<(Self, mpsc::Receiver<audit::Seen>), Fatal> {
        let mut ledger = Ledger::open(&settings.paths.state_dir)?;
        pass::disown(&mut ledger, &settings.exclude_cidrs)?;
        let mut node = preflight::open(&settings, &mut ledger).await?;
        adoption::tell_of_remains(&settings, &node.ruleset).await;
        sysctls::apply(&mut ledger, sysctls::Need::Always)?;
        let fast_path = datapath::load(&settings, &mut node, &mut ledger).await;
        let no_localhost = localhost::load(&settings, &mut node, &mut ledger);
        let planner =
            Planner::new(facts::decisive(&settings), facts::nameless_addresses(&node_name));
        let observed = observe::observe(&node, ledger.owned(), &planner.rules()).await?;
        pass::forget_absent(&mut ledger, &node, &observed)?;
        let hash_plane = hash_plane::open(&settings, &node, &mut ledger, &observed, mh_size).await;
        node.hash_program = hash_plane.program_id();
        apply::forget_counts(&mut node, &observed);
        info!(
            event = "started",
            version = env!("CARGO_PKG_VERSION"),
            kernel = crate::cli::version::kernel(),
            node = node_name,
            source = source.name(),
            fast_path = fast_path.mode,
            "the agent starts"
        );
        let health = Health::open(&settings);
        let recorder = Recorder::new(health.proxy(), source.requests());
        let (audit, looks) = audit::Audit::open(&settings, &node, recorder.audit(), witnesses);
        let mut agent = Self {
            audit,
            metrics: metrics::Metrics::open(&settings, recorder),
            has_ipv6: !facts::no_ipv6(),
            health,
            checks,
            retry: FIRST_RETRY,
            retry_at: None,
            next_pass: tokio::time::Instant::now(),
            collecting: false,
            settings,
            node,
            ledger,
            planner,
            node_name,
            source_name: source.name(),
            publisher: source.publisher(),
            source: SourceEvent::default(),
            has_snapshot: false,
            whole_next: true,
            waiting: drains::Waiting::default(),
            adoption: adoption::Progress::default(),
            observed,
            interfaces: interfaces::Interfaces::default(),
            present: Vec::new(),
            fast_path,
            hash_plane,
            no_localhost,
            pass: Pass::default(),
            notices: Arc::new([]),
            ready: false,
        };
        // Before the programs are attached.
        agent.refilter();
        Ok((agent, looks))
    }

    /// Takes up what the source says. What it cannot say leaves the last good state in force.
    async fn heard(&mut self, mut event: SourceEvent) {
        let update = event.update.take();
        let triggers = std::mem::take(&mut event.triggers);
        self.tell_of_source(&event);
        self.source = event;
        if let Some(update) = update {
            self.health.changed();
            self.metrics.heard(&update, triggers);
            self.planner.take(update);
            self.has_snapshot = true;
        }
        // Every pass takes up all that was collected, whatever its cause.
        self.collecting = tokio::time::Instant::now() < self.next_pass;
        if !self.collecting {
            self.reconcile(Scope::Changes).await;
        }
    }

    fn tell_of_source(&self, event: &SourceEvent) {
        let source = &self.source_name;
        match (&event.error, &self.source.error) {
            (Some(error), before) if before.as_ref() != Some(error) => error!(
                event = "source_bad",
                source,
                // A manifest may have many problems, and they are one change of state.
                error = error.replace('\n', "; "),
                "the source cannot be used, the last good state stays"
            ),
            (None, Some(_)) => info!(event = "source_good", source, "the source is good again"),
            _ => {}
        }
        if event.stale_since.is_some() && self.source.stale_since.is_none() {
            warn!(
                event = "source_stale",
                source,
                "the API server does not answer: the snapshot that was saved last is served"
            );
        }
    }

    /// Takes up changes of links, addresses, routes and neighbours. What was learned may be wrong
    /// now: the epoch is raised before anything is looked at.
    async fn node_changed(&mut self, events: &[Event]) {
        self.raise_epoch();
        for event in events {
            if let Event::LinkGone(index) = event {
                self.forget_interface(*index);
            }
        }
        self.follow_next_hops().await;
        let only_paths = events
            .iter()
            .all(|event| matches!(event, Event::RouteChanged | Event::NeighbourChanged { .. }));
        if !only_paths {
            self.refresh_interfaces().await;
            self.reconcile(Scope::Changes).await;
        }
    }

    /// Takes up changes that are told by other messages. What they are is looked up.
    async fn traffic_changed(&mut self, change: tc::Change) {
        self.raise_epoch();
        if change == tc::Change::Queueing {
            self.look_for_foreign().await;
        }
    }

    fn raise_epoch(&mut self) {
        if let Some(datapath) = &mut self.node.datapath
            && let Err(error) = datapath.maps.generations.raise_epoch()
        {
            // Leases end by themselves within the hard lease.
            error!(event = "epoch_failed", %error, "flow entries could not be made stale at once");
        }
    }

    fn report(&mut self) {
        let report = self.account();
        if let Err(error) = report.write(&self.settings.paths.state_dir) {
            error!(event = "report_failed", %error, "the status file could not be written");
        }
        self.show_metrics(report);
    }

    fn account(&mut self) -> Report {
        Report {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            ready: self.ready,
            source: self.source_name.clone(),
            source_error: self.source.error.clone(),
            source_stale_since: self.source.stale_since.and_then(seconds),
            services: self.planner.snapshot().services.len(),
            frontends: self.planner.desired().servers.len(),
            last_reconcile: self.pass.clone(),
            notices: self.complaints(),
            fast_path: self.fast_path.clone(),
            hash_plane: self.hash_plane.report(),
            lease: self.node.datapath.is_some().then_some(Lease {
                soft_ms: self.settings.soft_lease.as_millis() as u64,
                hard_ms: self.settings.hard_lease.as_millis() as u64,
            }),
            interfaces: self.interface_reports(),
            audit: self.audit.report(),
        }
    }

    fn complaints(&self) -> Vec<String> {
        let notices = self.notices.iter().chain(self.audit.notices()).map(ToString::to_string);
        let problems = self.health.problems().into_iter().chain(self.metrics.problem());
        let problems = problems.chain(self.no_localhost.clone());
        notices.chain(problems).chain(self.interfaces.losing()).collect()
    }

    fn interface_reports(&self) -> Vec<InterfaceReport> {
        self.interfaces.reports(&self.present)
    }
}

fn seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs())
}
