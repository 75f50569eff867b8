//! What a pass would do now: the source and the node are read, and nothing is changed.

use std::{collections::BTreeSet, time::Duration};

use proxy_common::abi::STATS;
use tokio::time::{Instant, timeout_at};

use super::{Fatal, facts, open_source, pass::LIMITS, privileges};
use crate::{
    audit::observe,
    checks::file,
    config::{Settings, Vips},
    kernel::{
        bpf::{Localhost, Maps, PinDirectory},
        node::Node,
    },
    ledger::Owned,
    model::{FastPath, Notice, Update},
    plan::{Drains, Failed, Observed, Plan, Planner},
    source::{Source, SourceEvent},
};

/// A plan that nobody carries out.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Where Services come from.
    pub source: String,
    /// Services with forwarding state.
    pub services: usize,
    /// Frontends that would be served.
    pub frontends: usize,
    /// What would change.
    pub plan: Plan,
    /// What was asked for and would not be done.
    pub notices: BTreeSet<Notice>,
}

/// Plans once, for everything. Waits so long for the source.
///
/// # Errors
///
/// [`Fatal`] as for an agent that cannot start; [`Fatal::NoAnswer`] when the source says nothing.
pub async fn rehearse(settings: &Settings, patience: Duration) -> Result<Rehearsal, Fatal> {
    privileges::check()?;
    let node_name = facts::node_name(settings);
    // The snapshot of a running agent stays as it is.
    let mut source = open_source(settings, &node_name, None).await?;
    let (update, said) = first_update(&mut source, patience).await?;
    let mut node = Node::open(&settings.dummy_device).await?;
    node.vips_are_addresses = settings.vips == Vips::Addresses;
    let mut owned = Owned::read(&settings.paths.state_dir)?;
    let excluded = &settings.exclude_cidrs;
    owned
        .virtual_servers
        .retain(|frontend, _| !excluded.iter().any(|cidr| cidr.contains(&frontend.addr)));
    let mut planner =
        Planner::new(facts::decisive(settings), facts::nameless_addresses(&node_name));
    planner.take(update);
    take_checks(&mut planner, settings);
    let present = node.links.interfaces().await?;
    let this = planner.snapshot().nodes.get(&node_name);
    let facts = facts::facts(&node_name, &present, settings, this);
    planner.set_facts(facts);
    let observed = observe(&node, settings, &owned, &planner).await?;
    let plan = planner.plan_all(&observed, &LIMITS, &Drains::OverFor(BTreeSet::new()));
    let desired = planner.desired();
    let mut notices = BTreeSet::from_iter(desired.notices());
    notices.extend(said.notices.iter().chain(&plan.conflicts).cloned());
    let frontends = desired.servers.len();
    let services = planner.snapshot().services.len();
    Ok(Rehearsal { source: source.name(), services, frontends, plan, notices })
}

/// What the checks of a running agent found holds for it.
fn take_checks(planner: &mut Planner, settings: &Settings) {
    // One that cannot be read is the agent's to tell.
    let found = file::read(&settings.paths.state_dir).unwrap_or_default();
    let mut failed = Failed::new();
    for check in found.into_iter().filter(|check| !check.state.up) {
        failed.entry(check.service).or_default().insert(check.backend);
    }
    failed.into_iter().for_each(|(service, failed)| planner.set_failed(&service, failed));
}

async fn first_update(
    source: &mut Source,
    patience: Duration,
) -> Result<(Update, SourceEvent), Fatal> {
    let deadline = Instant::now() + patience;
    let mut why = format!("nothing came within {} s", patience.as_secs());
    loop {
        let Ok(event) = timeout_at(deadline, source.next()).await else {
            return Err(Fatal::NoAnswer { source_name: source.name(), why });
        };
        let mut event = event?;
        if let Some(update) = event.update.take() {
            return Ok((update, event));
        }
        if let Some(error) = event.error {
            // A file that cannot be read will not become better by itself.
            if matches!(source, Source::File(_)) {
                return Err(Fatal::NoAnswer { source_name: source.name(), why: error });
            }
            why = error;
        }
    }
}

/// Reads the node without loading anything: the maps as they are pinned, or none where an agent would
/// make them.
async fn observe(
    node: &Node,
    settings: &Settings,
    owned: &Owned,
    planner: &Planner,
) -> Result<Observed, Fatal> {
    let mut observed = observe::observe(node, owned, &planner.rules()).await?;
    let pins = PinDirectory::at(&settings.paths.bpffs);
    let modes = settings.interface_modes.iter().map(|rule| rule.mode);
    observed.fast_path = modes.chain([settings.fast_path]).any(|mode| mode != FastPath::Off);
    if observed.fast_path && pins.map(STATS.name).exists() {
        let maps = Maps::open(&pins).map_err(observe::Error::from)?;
        observe::read_entries(&maps, &mut observed)?;
    }
    if facts::wants_localhost(settings) {
        let ports = Localhost::pinned_ports(&pins).map_err(observe::Error::from)?;
        observed.local_ports = Some(ports.unwrap_or_default());
    }
    Ok(observed)
}
