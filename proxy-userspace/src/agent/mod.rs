//! The loop: a change of Services or of the node, a plan, its changes, a report.

mod datapath;
mod drains;
mod facts;
mod interfaces;
mod pass;
mod preflight;
mod sysctls;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::{error, info};

use pass::Scope;
pub use preflight::Fatal;
pub use sysctls::{Setting, settings};

use crate::{
    audit,
    config::{FastPathMode, RunFlags, flags::SourceArgument},
    kernel::{
        link::{self, Event},
        node::Node,
    },
    ledger::Ledger,
    model::{Notice, Update, interface::Interface},
    plan::{Observed, Planner, Settings},
    source,
    status::{FastPathReport, InterfaceReport, Lock, Pass, Report},
};

/// Between two looks for programs of others on our interfaces: they come without an event.
const GUARD_PERIOD: Duration = Duration::from_secs(5);
/// Between two looks whether the connections of leaving endpoints have ended.
const DRAIN_PERIOD: Duration = Duration::from_secs(1);
/// Events of one cause come together: one look at the interfaces serves them all.
const SETTLE: Duration = Duration::from_millis(20);
/// Between a pass that failed in part and the next try, doubled up to the sync period.
const FIRST_RETRY: Duration = Duration::from_millis(250);

/// What one agent knows.
struct Agent {
    flags: RunFlags,
    path: PathBuf,
    node: Node,
    ledger: Ledger,
    node_name: String,
    planner: Planner,
    /// The source has said something; nothing is planned before.
    has_snapshot: bool,
    /// The next plan compares everything.
    whole_next: bool,
    waiting: drains::Waiting,
    source_notices: Vec<Notice>,
    source_error: Option<String>,
    observed: Observed,
    interfaces: interfaces::Interfaces,
    present: Vec<Interface>,
    fast_path: FastPathReport,
    pass: Pass,
    notices: Vec<Notice>,
    ready: bool,
    retry: Duration,
    retry_at: Option<tokio::time::Instant>,
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
pub async fn run(flags: RunFlags) -> Result<(), Fatal> {
    preflight::root()?;
    let _lock = Lock::take(&flags.paths.state_dir)?;
    let mut agent = Agent::start(flags).await?;
    let mut source = source::watch(&agent.path).map_err(Fatal::Watch)?;
    let mut links = link::Watch::open(&agent.flags.dummy_device).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Fatal::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Fatal::Signal)?;
    let mut guard = interval(GUARD_PERIOD.min(agent.flags.sync_period));
    let mut sync = interval(agent.flags.sync_period);
    let mut drain = interval(DRAIN_PERIOD);
    for timer in [&mut guard, &mut sync, &mut drain] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.reset();
    }
    agent.refresh_interfaces().await;
    agent.reload().await;
    agent.reconcile(Scope::All).await;
    loop {
        let retry = agent.retry_at;
        tokio::select! {
            changed = source.changed() => {
                changed.map_err(Fatal::Watch)?;
                agent.reload().await;
                agent.reconcile(Scope::Changes).await;
            }
            Some(event) = links.next() => {
                let settled = settle(&mut links, event).await;
                agent.node_changed(&settled).await;
            }
            _ = guard.tick() => agent.look_for_foreign().await,
            _ = sync.tick() => agent.resync().await,
            _ = drain.tick(), if !agent.waiting.is_empty() => agent.end_drains().await,
            () = tokio::time::sleep_until(retry.unwrap_or_else(far)), if retry.is_some() => {
                agent.resync().await;
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        agent.report();
    }
    info!(event = "stopped", "the agent stops; forwarding stays as it is");
    Ok(())
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
    async fn start(flags: RunFlags) -> Result<Self, Fatal> {
        let SourceArgument::File(path) = flags.source.clone();
        let mut ledger = Ledger::open(&flags.paths.state_dir)?;
        let mut node = preflight::open(&flags, &mut ledger).await?;
        sysctls::apply(&mut ledger, sysctls::Need::Always)?;
        let fast_path = datapath::load(&flags, &mut node, &mut ledger);
        let settings = Settings { scheduler: flags.scheduler, ..Settings::default() };
        let observed = audit::observe::observe(&node, ledger.owned(), &settings.rules()).await?;
        let node_name = facts::node_name();
        pass::forget_absent(&mut ledger, &observed)?;
        info!(
            event = "started",
            version = env!("CARGO_PKG_VERSION"),
            kernel = crate::cli::version::kernel(),
            source = %path.display(),
            fast_path = fast_path.mode,
            "the agent starts"
        );
        Ok(Self {
            retry: FIRST_RETRY,
            retry_at: None,
            flags,
            path,
            node,
            ledger,
            planner: Planner::new(settings, facts::facts(&node_name, &[], "")),
            node_name,
            has_snapshot: false,
            whole_next: false,
            waiting: drains::Waiting::default(),
            source_notices: Vec::new(),
            source_error: None,
            observed,
            interfaces: interfaces::Interfaces::default(),
            present: Vec::new(),
            fast_path,
            pass: Pass::default(),
            notices: Vec::new(),
            ready: false,
        })
    }

    /// Loads the source. What cannot be read leaves the last good state in force.
    async fn reload(&mut self) {
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || source::load(&path)).await;
        match loaded {
            Ok(Ok((snapshot, notices))) => {
                if self.source_error.take().is_some() {
                    info!(event = "source_good", path = %self.path.display(), "the source is good again");
                }
                self.planner.take(Update::Replace(snapshot));
                self.has_snapshot = true;
                self.source_notices = notices;
            }
            Ok(Err(error)) => self.source_failed(error.to_string()),
            Err(error) => self.source_failed(error.to_string()),
        }
    }

    fn source_failed(&mut self, text: String) {
        if self.source_error.as_ref() != Some(&text) {
            error!(
                event = "source_bad",
                path = %self.path.display(),
                "the source cannot be used, the last good state stays:\n{text}"
            );
        }
        self.source_error = Some(text);
    }

    /// Takes up changes of links, addresses, routes and neighbours. What was learned may be wrong
    /// now: the epoch is raised before anything is looked at.
    async fn node_changed(&mut self, events: &[Event]) {
        self.raise_epoch();
        let only_paths = events
            .iter()
            .all(|event| matches!(event, Event::RouteChanged | Event::NeighbourChanged { .. }));
        if !only_paths {
            self.refresh_interfaces().await;
            self.reconcile(Scope::Changes).await;
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
        let report = Report {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            ready: self.ready,
            source: format!("file:{}", self.path.display()),
            source_error: self.source_error.clone(),
            services: self.planner.snapshot().services.len(),
            frontends: self.planner.desired().servers.len(),
            last_reconcile: self.pass.clone(),
            notices: self.notices.iter().map(ToString::to_string).collect(),
            fast_path: self.fast_path.clone(),
            interfaces: self.interface_reports(),
        };
        if let Err(error) = report.write(&self.flags.paths.state_dir) {
            error!(event = "report_failed", %error, "the status file could not be written");
        }
    }

    fn interface_reports(&self) -> Vec<InterfaceReport> {
        match self.flags.fast_path {
            FastPathMode::Off => Vec::new(),
            _ => self.interfaces.reports(&self.present),
        }
    }
}
