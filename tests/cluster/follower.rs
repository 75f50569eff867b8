//! The source as the agent uses it: what it tells, put together.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use proxy_userspace::{
    model::{Notice, ServiceName, SliceName, Snapshot, Update},
    source::{
        Source, SourceEvent,
        kubernetes::{Login, Options, Publisher, Status},
    },
};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    PATIENCE,
    cluster::{Cluster, NODE},
    relay::Relay,
};

/// A running source and what it has told.
pub(crate) struct Follower {
    runtime: Runtime,
    source: Source,
    /// Everything that is known; `None` before the first update.
    pub(crate) known: Option<Snapshot>,
    /// The last event, without its update.
    pub(crate) last: SourceEvent,
    /// How many updates told everything anew.
    pub(crate) replaced: usize,
    /// How many updates told changes.
    pub(crate) changed: usize,
}

/// Returns options for the account that this test's cluster has for the agent.
pub(crate) fn options(cluster: &Cluster, name: &str, relay: &Relay) -> Result<Options> {
    let token = cluster.token("passlane")?;
    let (kubeconfig, _) = cluster.login(name, relay.port(), &token)?;
    Ok(with_kubeconfig(kubeconfig))
}

/// Returns options for a kubeconfig.
pub(crate) fn with_kubeconfig(kubeconfig: PathBuf) -> Options {
    let login = Login { kubeconfig: Some(kubeconfig), api_servers: Vec::new() };
    Options::new(login, NODE.to_owned())
}

impl Follower {
    /// Starts the source; nothing need be known yet.
    pub(crate) fn start(options: Options) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let source = runtime.block_on(Source::kubernetes(options))?;
        let last = SourceEvent::default();
        Ok(Self { runtime, source, known: None, last, replaced: 0, changed: 0 })
    }

    /// Starts the source and waits until everything is known.
    pub(crate) fn connect(options: Options) -> Result<Self> {
        let mut follower = Self::start(options)?;
        follower.until("everything is known", |follower| follower.known.is_some())?;
        Ok(follower)
    }

    /// Takes events until it `holds`, which is looked at before the first and after each.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.take(left)? {
                let Status { state, last_error, .. } = self.status()?;
                bail!(
                    "waited {PATIENCE:?} in vain until {what}: {state:?}, {last_error:?}, {} \
                     services known, error {:?}",
                    self.services().len(),
                    self.last.error
                );
            }
        }
        Ok(())
    }

    /// Takes what comes for so long.
    pub(crate) fn listen(&mut self, duration: Duration) -> Result<()> {
        let deadline = Instant::now() + duration;
        while self.take(deadline.saturating_duration_since(Instant::now()))? {}
        Ok(())
    }

    fn take(&mut self, limit: Duration) -> Result<bool> {
        let next = async { timeout(limit, self.source.next()).await };
        let Ok(event) = self.runtime.block_on(next) else { return Ok(false) };
        let mut event = event?;
        match event.update.take() {
            Some(Update::Replace(snapshot)) => {
                self.known = Some(snapshot);
                self.replaced += 1;
            }
            Some(Update::Change(changes)) => {
                let known = self.known.as_mut().context("a change before everything is known")?;
                changes.into_iter().for_each(|change| known.apply(change));
                self.changed += 1;
            }
            None => {}
        }
        self.last = event;
        Ok(true)
    }

    /// Returns how the source stands with the API server.
    pub(crate) fn status(&self) -> Result<Status> {
        self.source.status().context("a cluster's source has a status")
    }

    /// Starts the source's publisher of Events.
    pub(crate) fn publisher(&mut self) -> Result<Publisher> {
        let _runtime = self.runtime.enter();
        self.source.publisher().context("a cluster's source has a publisher")
    }

    pub(crate) fn notices(&self) -> &[Notice] {
        &self.last.notices
    }

    /// Returns the names of the Services of a namespace, sorted.
    pub(crate) fn services_in(&self, namespace: &str) -> Vec<&str> {
        let in_it = self.services().into_iter().filter(|name| *name.namespace == *namespace);
        in_it.map(|name| &*name.name).collect()
    }

    pub(crate) fn services(&self) -> Vec<&ServiceName> {
        self.known.iter().flat_map(|known| known.services.keys()).collect()
    }

    /// Returns the addresses of the ready endpoints of a slice; none if it is not known.
    pub(crate) fn endpoints(&self, namespace: &str, name: &str) -> Vec<String> {
        let key = SliceName { namespace: namespace.into(), name: name.into() };
        let slice = self.known.as_ref().and_then(|known| known.slices.get(&key));
        let endpoints = slice.into_iter().flat_map(|slice| &slice.endpoints);
        endpoints.filter(|one| one.ready).map(|one| one.addr.to_string()).collect()
    }
}
