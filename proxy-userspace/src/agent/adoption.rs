//! Taking over from kube-proxy's `ipvs` mode, and who may not run beside it.
//!
//! | step | what | when it is interrupted |
//! |---|---|---|
//! | 1 | what is kube-proxy's goes into the ledger: virtual servers, device, addresses | its chains and sets are still there, so it begins anew |
//! | 2 | a pass as every other: our table, then what differs in IPVS, routes, then addresses away | the next pass goes on |
//! | 3 | its chains go, in one transaction, and then its ip sets | the same; the sets are the last |
//!
//! Connections outlive all of it: those of IPVS stay with their destinations, which are edited and
//! never made anew, and the translation of those that were masqueraded is in conntrack.
//!
//! Beside a kube-proxy that still runs only the virtual servers are taken over: it would put
//! everything else there again. The rest follows within seconds of its end.

use std::{collections::BTreeSet, net::IpAddr, net::SocketAddr};

use tracing::{info, warn};

use super::{Agent, Fatal};
use crate::{
    audit::observe::{self, observe},
    chain::chain,
    config::Settings,
    kernel::{
        kube_proxy::{
            self, Remains,
            live::{self, Live},
        },
        link,
        nft::Ruleset,
    },
    ledger::{self, Record},
    plan::{Adoption, adoption},
};

/// The mode whose state can be taken over.
const MODE: &str = "ipvs";

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stage: Stage,
    /// What an agent may have left that was killed is gone.
    swept: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    /// Not begun, or to be looked at again.
    #[default]
    Open,
    /// Recorded; kube-proxy still runs.
    Beside,
    /// Recorded; its chains and sets go after the next pass that succeeds as a whole.
    Recorded,
    /// Nothing of kube-proxy is left that could be taken over.
    Done,
}

/// What went wrong. The next pass tries again.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    KubeProxy(#[from] kube_proxy::Error),
    #[error(transparent)]
    Link(#[from] link::Error),
    #[error(transparent)]
    Route(#[from] crate::kernel::route::Error),
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    #[error(transparent)]
    Observe(#[from] observe::Error),
}

/// Refuses to run beside a kube-proxy, unless it is to be taken over and can be.
///
/// # Errors
///
/// [`Fatal::KubeProxyRuns`] and [`Fatal::NothingToAdopt`].
pub(super) fn check(settings: &Settings) -> Result<(), Fatal> {
    let Some(live) = find_live(settings) else { return Ok(()) };
    if !settings.adopt {
        return Err(Fatal::KubeProxyRuns { live: live.to_string() });
    }
    match live.mode.as_deref() {
        None | Some(MODE) => Ok(()),
        Some(_) => Err(Fatal::NothingToAdopt { live: live.to_string() }),
    }
}

/// Says what a kube-proxy has left that nobody is going to take over: it goes on translating,
/// masquerading and refusing as it last saw the Services.
pub(super) async fn tell_of_remains(settings: &Settings, ruleset: &Ruleset) {
    let Ok(remains) = Remains::find(ruleset).await else { return };
    if let Some(mode) = &remains.other_mode {
        warn!(
            event = "remains_found",
            mode,
            "kube-proxy has left rules: run `kube-proxy --cleanup` while passlane does not run"
        );
    } else if !settings.adopt && !remains.is_empty() {
        warn!(
            event = "remains_found",
            mode = MODE,
            remains = remains.summary(),
            "kube-proxy has left rules: --adopt takes over what it served, and removes them"
        );
    }
}

/// Looks for a kube-proxy that runs.
pub(crate) fn find_live(settings: &Settings) -> Option<Live> {
    Live::find(&served_at(settings))
}

/// Returns where we answer what kube-proxy answers.
fn served_at(settings: &Settings) -> Vec<SocketAddr> {
    let configured = [settings.metrics_bind_address, settings.healthz_bind_address];
    configured.into_iter().flatten().collect()
}

impl Agent {
    /// Takes up what is kube-proxy's into the ledger, before a plan may touch it.
    pub(super) async fn take_over(&mut self) {
        // What a snapshot of yesterday does not want, a Service may want today.
        let is_stale = self.source.stale_since.is_some();
        let waits = matches!(self.adoption.stage, Stage::Open | Stage::Beside);
        if !self.settings.adopt || !waits || is_stale {
            return;
        }
        match self.record_adoption().await {
            Ok(stage) => self.adoption.stage = stage,
            Err(error) => {
                let error = chain(&error);
                warn!(event = "adoption_failed", error, "nothing was taken over; tried again");
            }
        }
    }

    async fn record_adoption(&mut self) -> Result<Stage, Error> {
        let live = self.beside(|addrs| Live::find(&addrs)).await.flatten();
        let remains = Remains::find(&self.node.ruleset).await?;
        let held = self.held_by_others().await?;
        let estate = kube_proxy::estate().await?;
        let (desired, node) = self.planner.desired_with_facts();
        let taken = adoption(desired, &self.observed, &estate, &held, &node.addrs);
        // A kube-proxy whose rules and sets somebody has removed.
        let device = &self.node.device;
        let left = !self.ledger.owned().devices.contains(device)
            && taken.servers.keys().any(|frontend| held.contains(&frontend.addr));
        let was_beside = self.adoption.stage == Stage::Beside;
        let beside = live.is_some() || was_beside && !self.kube_proxy_has_ended().await;
        if !beside && !left && !remains.tell_of_service() {
            // What is in IPVS has another owner.
            return Ok(if remains.is_empty() { Stage::Done } else { Stage::Recorded });
        }
        self.record_taken(&taken, beside)?;
        self.observed = observe(&self.node, self.ledger.owned(), &self.planner.rules()).await?;
        self.whole_next = true;
        match &live {
            Some(live) if self.adoption.stage == Stage::Open => warn!(
                event = "beside_kube_proxy",
                kube_proxy = %live,
                servers = taken.servers.len(),
                "virtual servers are taken over; the rest follows when kube-proxy ends: stop it"
            ),
            _ if !taken.is_empty() || !beside => info!(
                event = "adopted",
                servers = taken.servers.len(),
                addresses = taken.addrs.len(),
                remains = remains.summary(),
                "what kube-proxy has left is taken over"
            ),
            _ => {}
        }
        Ok(if beside { Stage::Beside } else { Stage::Recorded })
    }

    async fn kube_proxy_has_ended(&self) -> bool {
        self.beside(|addrs| live::has_ended(&addrs)).await.unwrap_or_default()
    }

    /// Asks at the ports beside the loop: our own servers answer at some of them, and are in it.
    async fn beside<T: Send + 'static>(
        &self,
        ask: impl FnOnce(Vec<SocketAddr>) -> T + Send + 'static,
    ) -> Option<T> {
        let addrs = served_at(&self.settings);
        tokio::task::spawn_blocking(move || ask(addrs)).await.ok()
    }

    /// A live kube-proxy puts addresses and its device there again: they stay its own.
    fn record_taken(&mut self, taken: &Adoption, beside: bool) -> Result<(), ledger::Error> {
        let servers = taken.servers.iter().map(|(frontend, service)| Record::VirtualServer {
            frontend: *frontend,
            service: Some(service.clone()),
        });
        let mut records: Vec<Record> = servers.collect();
        if !beside {
            let name = self.node.device.clone();
            records.push(Record::Device { name: name.clone(), owned: true });
            let addrs = taken.addrs.iter().copied().collect();
            records.push(Record::Addresses { device: name, addrs, owned: true });
        }
        self.ledger.record(records)
    }

    /// Returns the addresses on the device that are not ours.
    async fn held_by_others(&self) -> Result<BTreeSet<IpAddr>, link::Error> {
        let Some(index) = self.node.links.index_of(&self.node.device).await? else {
            return Ok(BTreeSet::new());
        };
        let mut held = self.node.links.addresses(index).await?;
        if let Some(ours) = self.ledger.owned().addresses.get(&self.node.device) {
            held.retain(|addr| !ours.contains(addr));
        }
        // The kernel's own.
        held.retain(|addr| !matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local()));
        Ok(held)
    }

    /// Takes up that a pass succeeded as a whole: everything stands without what kube-proxy has left
    /// in iptables, and without what an agent left that was killed.
    pub(super) async fn clear_away(&mut self) {
        if !std::mem::replace(&mut self.adoption.swept, true)
            && let Err(error) = self.remove_spares().await
        {
            warn!(event = "spares_failed", error = chain(&error), "spare routes on lo stay");
        }
        if self.adoption.stage != Stage::Recorded {
            return;
        }
        match kube_proxy::clear_away(&self.node.ruleset).await {
            Ok(kept) => {
                for what in &kept {
                    warn!(event = "remains_kept", "{what}");
                }
                info!(event = "adoption_done", "kube-proxy's chains and ip sets are gone");
                self.adoption.stage = Stage::Done;
            }
            Err(error) => {
                let error = chain(&error);
                warn!(event = "remains_failed", error, "kube-proxy's remains stay; tried again");
            }
        }
    }

    /// An agent that was killed while addresses went may have left routes that stood in for others.
    async fn remove_spares(&self) -> Result<(), Error> {
        if let Some(loopback) = self.node.links.index_of("lo").await? {
            self.node.routes.remove_spares(loopback).await?;
        }
        Ok(())
    }

    /// Looks whether kube-proxy has ended meanwhile, or what failed can be done now.
    pub(super) async fn go_on_adopting(&mut self) {
        let waits = match self.adoption.stage {
            Stage::Open => self.has_snapshot && self.source.stale_since.is_none(),
            Stage::Beside => self.settings.adopt && self.kube_proxy_has_ended().await,
            Stage::Recorded => true,
            Stage::Done => false,
        };
        if self.settings.adopt && waits {
            self.reconcile(super::pass::Scope::All).await;
        }
    }
}
