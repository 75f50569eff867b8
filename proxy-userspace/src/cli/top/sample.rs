//! What `top` reads at one moment: counters that only grow, and how things are.

use std::{collections::BTreeMap, time::Instant};

use proxy_common::reason::Reason;

use crate::{
    audit::traffic::{FastTraffic, Traffic},
    chain::chain,
    cli::{Failure, dump},
    config::Paths,
    kernel::{
        bpf::Maps,
        ipvs::{self, Client, VirtualServerState},
        nft::{self, Refused},
    },
    ledger::Owned,
    model::Frontend,
    status::{Lock, Report},
};

/// One look.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When.
    pub(super) at: Instant,
    /// What the agent said last.
    pub(super) report: Report,
    /// An agent runs.
    pub(super) running: bool,
    /// Packets by reason; absent without a fast path.
    pub(super) reasons: Option<BTreeMap<&'static str, u64>>,
    /// What each Service port carried.
    pub(super) services: BTreeMap<String, Carried>,
    /// What our rules refused.
    pub(super) refused: Refused,
    /// Where ledger, IPVS and maps differ.
    pub(super) drift: Drift,
    /// What could not be read.
    pub(super) failed: Vec<String>,
}

/// What a Service port carried since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Carried {
    pub(super) connections: u64,
    pub(super) slow: Traffic,
    pub(super) fast: Traffic,
}

/// What should be the same in several places and is not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub(super) struct Drift {
    /// Virtual servers of the ledger that IPVS has not.
    pub(super) missing_in_ipvs: usize,
    /// Virtual servers of ours that the frontend maps have not.
    pub(super) missing_in_maps: usize,
    /// Frontends in the maps that are no virtual servers of ours.
    pub(super) stray_in_maps: usize,
}

impl Drift {
    /// Returns how many things differ.
    pub(super) fn total(self) -> usize {
        self.missing_in_ipvs + self.missing_in_maps + self.stray_in_maps
    }
}

/// Looks. What cannot be read is said and counts as nothing; that nothing can be read of the state
/// directory is an error.
pub(super) async fn take(paths: &Paths) -> Result<Sample, Failure> {
    let owned = Owned::read(&paths.state_dir)?;
    let mut failed = Vec::new();
    let mut note = |error: &(dyn std::error::Error + 'static)| failed.push(chain(error));
    let maps = dump::maps(paths).unwrap_or_else(|error| {
        note(&error);
        None
    });
    let servers = servers().await.unwrap_or_else(|error| {
        note(&error);
        Vec::new()
    });
    let fast = maps.as_ref().map(FastTraffic::read).transpose().unwrap_or_else(|error| {
        note(&error);
        None
    });
    let refused = refused().await.unwrap_or_else(|error| {
        note(&error);
        Refused::default()
    });
    Ok(Sample {
        at: Instant::now(),
        report: Report::read(&paths.state_dir)?.unwrap_or_default(),
        running: Lock::is_taken(&paths.state_dir),
        reasons: maps.as_ref().map(reasons),
        services: services(&servers, &owned, &fast.unwrap_or_default()),
        refused,
        drift: drift(&servers, &owned, maps.as_ref()),
        failed,
    })
}

async fn servers() -> Result<Vec<VirtualServerState>, ipvs::Error> {
    match Client::open().await {
        Err(ipvs::Error::IpvsMissing) => Ok(Vec::new()),
        client => client?.virtual_servers().await,
    }
}

async fn refused() -> Result<Refused, nft::Error> {
    Ok(nft::Table::open().await?.refused().await?.unwrap_or_default())
}

fn reasons(maps: &Maps) -> BTreeMap<&'static str, u64> {
    let counter = |reason: &Reason| Some((reason.name(), maps.counter(*reason).ok()?.packets));
    Reason::ALL.iter().filter_map(counter).collect()
}

fn services(
    servers: &[VirtualServerState],
    owned: &Owned,
    fast: &FastTraffic,
) -> BTreeMap<String, Carried> {
    let mut services = BTreeMap::<String, Carried>::new();
    for server in servers {
        let frontend = server.virtual_server.frontend;
        let Some(name) = owned.virtual_servers.get(&frontend) else { continue };
        let sum = services.entry(name.clone()).or_default();
        *sum = Carried {
            connections: sum.connections + server.stats.connections,
            slow: sum.slow + Traffic::from(&server.stats),
            fast: sum.fast + fast.frontend(&frontend),
        };
    }
    services
}

fn drift(servers: &[VirtualServerState], owned: &Owned, maps: Option<&Maps>) -> Drift {
    let present: std::collections::BTreeSet<Frontend> =
        servers.iter().map(|server| server.virtual_server.frontend).collect();
    let ours = || owned.virtual_servers.keys();
    let missing_in_ipvs = ours().filter(|each| !present.contains(each)).count();
    let known = maps.and_then(|maps| maps.frontends().ok());
    let Some(known) = known else { return Drift { missing_in_ipvs, ..Drift::default() } };
    let known: std::collections::BTreeSet<Frontend> =
        known.into_iter().map(|(frontend, _)| frontend).collect();
    Drift {
        missing_in_ipvs,
        missing_in_maps: ours().filter(|each| !known.contains(each)).count(),
        stray_in_maps: known
            .iter()
            .filter(|each| !owned.virtual_servers.contains_key(each))
            .count(),
    }
}
