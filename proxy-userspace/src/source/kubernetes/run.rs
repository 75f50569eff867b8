//! The task that puts together what the watches tell, and tells the agent.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    pin, select,
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use super::{
    Options,
    connection::Connection,
    failure::{Failure, describe},
    follow::Report,
    login::ip_of,
    merge::{Merge, Told},
    status::{State, Status},
};
use crate::{
    model::{Change, Notice, Snapshot, Update},
    source::{
        SourceEvent,
        convert::Kind,
        snapshot_file::{Saved, SnapshotFile},
    },
};

/// Between two saves of the snapshot at least.
const SAVE_PERIOD: Duration = Duration::from_secs(10);
/// Saving takes at most one part in this many of the time.
const SAVE_SHARE: u32 = 50;

/// State of the task.
pub(super) struct Run {
    connection: Arc<Connection>,
    /// All addresses of the API server, for people.
    addresses: String,
    events: mpsc::Sender<SourceEvent>,
    status: watch::Sender<Status>,
    merge: Merge,
    /// The watches that cannot go on, since when and why.
    failing: BTreeMap<Kind, (SystemTime, Failure)>,
    patience: Duration,
    file: Option<Arc<SnapshotFile>>,
    /// A saved snapshot that is to be told.
    saved: Option<Update>,
    stale_since: Option<SystemTime>,
    save_at: Option<Instant>,
    /// No save before this.
    not_before: Instant,
    /// Whether the API server is reached by an address that we serve.
    circular: Option<Notice>,
    notices: Arc<[Notice]>,
    /// The error that was told last.
    told_error: Option<String>,
}

impl Run {
    pub(super) fn new(
        connection: Arc<Connection>,
        options: &Options,
        events: mpsc::Sender<SourceEvent>,
        status: watch::Sender<Status>,
    ) -> Self {
        let addresses: Vec<_> = connection.addresses().iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let file = options.state_dir.as_ref().map(|state_dir| {
            let proxy_name = options.proxy_name.as_deref().unwrap_or("-");
            let origin = format!("{addresses} {} {proxy_name}", options.node);
            Arc::new(SnapshotFile::new(state_dir, origin))
        });
        Self {
            connection,
            addresses,
            events,
            status,
            merge: Merge::default(),
            failing: BTreeMap::new(),
            patience: options.patience,
            file,
            saved: None,
            stale_since: None,
            save_at: None,
            not_before: Instant::now(),
            circular: None,
            notices: Arc::default(),
            told_error: None,
        }
    }

    /// Runs until nobody listens.
    pub(super) async fn run(mut self, mut told: mpsc::Receiver<Report>) {
        let events = self.events.clone();
        let cold = cold_start(self.file.clone(), self.patience);
        pin!(cold);
        let mut waiting = true;
        let mut saving: Option<JoinHandle<io::Result<Duration>>> = None;
        loop {
            let save_at = self.save_at.filter(|_| saving.is_none());
            select! {
                report = told.recv() => match report {
                    Some(report) => self.take(report).await,
                    None => return,
                },
                permit = events.reserve(), if self.has_news() => match permit {
                    Ok(permit) => {
                        let event = self.event();
                        self.show_status().await;
                        permit.send(event);
                    }
                    Err(_) => return,
                },
                saved = &mut cold, if waiting => {
                    waiting = false;
                    self.serve_saved(saved);
                }
                () = sleep_until(save_at.unwrap_or_else(Instant::now)), if save_at.is_some() => {
                    self.save_at = None;
                    saving = self.save();
                }
                Some(result) = finished(&mut saving), if saving.is_some() => {
                    saving = None;
                    self.saved_in(result);
                }
            }
        }
    }

    async fn take(&mut self, (kind, told): Report) {
        let told = match told {
            Ok(told) => told,
            Err(failure) => return self.fail(kind, failure).await,
        };
        // A list that begins does not say that anybody has answered.
        let answered = !matches!(told, Told::Listing);
        let recovered = answered && self.failing.remove(&kind).is_some();
        let marks = matches!(told, Told::Listing | Told::Complete | Told::Absent);
        self.merge.take(kind, told);
        if recovered || marks {
            self.show_status().await;
        }
    }

    async fn fail(&mut self, kind: Kind, failure: Failure) {
        let now = SystemTime::now();
        let text = failure.describe(kind, &self.addresses);
        self.status.send_modify(|status| status.last_error = Some((now, text.clone())));
        if matches!(failure, Failure::Forgotten { .. }) {
            info!(event = "list_anew", "{text}");
            return;
        }
        let since = self.failing.get(&kind).map_or(now, |(since, _)| *since);
        // Of one outage, each kind and each try sees another cause: the first one is told.
        let outage = |failure: &Failure| matches!(failure, Failure::Outage { .. });
        let known = self.failing.values().map(|(_, failure)| failure).find(|one| outage(one));
        let failure = match known {
            Some(known) if outage(&failure) => known.clone(),
            _ => failure,
        };
        self.failing.insert(kind, (since, failure));
        self.show_status().await;
    }

    fn has_news(&self) -> bool {
        self.merge.has_update()
            || self.saved.is_some()
            || self.told_error != self.error()
            || (self.merge.is_complete() && self.merge.notices_changed())
    }

    /// Returns why not everything can be watched at present.
    fn error(&self) -> Option<String> {
        if self.failing.is_empty() {
            return None;
        }
        let failing: Vec<_> =
            self.failing.iter().map(|(kind, (_, failure))| (*kind, failure)).collect();
        Some(describe(&failing, &self.addresses))
    }

    fn event(&mut self) -> SourceEvent {
        let update = match self.merge.update() {
            Some(update) => {
                self.saved = None;
                if self.stale_since.take().is_some() {
                    info!(event = "snapshot_replaced", "the API server has told everything");
                }
                self.look_for_circle(&update);
                if self.file.is_some() {
                    self.save_at.get_or_insert(self.not_before);
                }
                Some(update)
            }
            None => self.saved.take(),
        };
        self.collect_notices();
        self.told_error = self.error();
        SourceEvent {
            update,
            triggers: self.merge.take_triggers(),
            notices: Arc::clone(&self.notices),
            error: self.told_error.clone(),
            stale_since: self.stale_since,
        }
    }

    fn collect_notices(&mut self) {
        let changed = self.merge.take_notices_changed();
        let told = self.notices.iter().find(|notice| is_circular(notice));
        if changed || told != self.circular.as_ref() {
            let mut notices: Vec<_> = self.merge.notices().chain(&self.circular).cloned().collect();
            notices.sort();
            self.notices = notices.into();
        }
    }

    /// Looks whether the agent needs for its own start what it serves.
    fn look_for_circle(&mut self, update: &Update) {
        let concerned = match update {
            Update::Replace(_) => true,
            Update::Change(changes) => {
                changes.iter().any(|change| matches!(change, Change::Service(..)))
            }
        };
        if concerned {
            let addrs = self.connection.addresses().iter().filter_map(ip_of);
            let found = circle(self.merge.snapshot(), addrs);
            if let Some(notice) = found.as_ref().filter(|_| self.circular.is_none()) {
                warn!(event = "api_server_is_vip", "{notice}");
            }
            self.circular = found;
        }
    }

    fn serve_saved(&mut self, saved: Option<Saved>) {
        let Some(saved) = saved.filter(|_| !self.merge.is_complete()) else { return };
        info!(
            event = "snapshot_served",
            services = saved.snapshot.services.len(),
            "the API server has not told everything yet: the last saved snapshot is served"
        );
        self.saved = Some(Update::Replace(saved.snapshot));
        self.stale_since = Some(saved.saved_at);
    }

    fn save(&self) -> Option<JoinHandle<io::Result<Duration>>> {
        let file = Arc::clone(self.file.as_ref()?);
        let snapshot = Arc::clone(self.merge.snapshot());
        Some(spawn_blocking(move || {
            let start = Instant::now();
            file.save(&snapshot).map(|()| start.elapsed())
        }))
    }

    fn saved_in(&mut self, result: io::Result<Duration>) {
        let took = match result {
            Ok(took) => took,
            Err(error) => {
                warn!(event = "snapshot_not_saved", %error, "a cold start will have to wait");
                SAVE_PERIOD
            }
        };
        let next = Instant::now() + SAVE_PERIOD.max(took * SAVE_SHARE);
        // What changed meanwhile has asked for a save already.
        self.save_at = self.save_at.map(|_| next);
        self.not_before = next;
    }

    async fn show_status(&self) {
        let address = self.connection.address().await;
        let since = self.failing.values().map(|(since, _)| *since).min();
        let state = match since {
            Some(since) => State::Away { since },
            None if !self.merge.is_complete() => State::Connecting,
            None if self.merge.is_relisting() => State::Relisting,
            None => State::Connected,
        };
        self.status.send_if_modified(|status| {
            let new = Status {
                state,
                address,
                last_error: status.last_error.clone(),
                relists: self.merge.relists(),
                stale_since: self.stale_since,
            };
            let changed = *status != new;
            *status = new;
            changed
        });
    }
}

/// Waits as long as the API server may take, and reads the saved snapshot.
async fn cold_start(file: Option<Arc<SnapshotFile>>, patience: Duration) -> Option<Saved> {
    let file = file?;
    sleep(patience).await;
    spawn_blocking(move || file.load()).await.ok().flatten()
}

async fn finished(
    saving: &mut Option<JoinHandle<io::Result<Duration>>>,
) -> Option<io::Result<Duration>> {
    let result = saving.as_mut()?.await;
    Some(result.unwrap_or_else(|error| Err(io::Error::other(error))))
}

/// Returns the notice about an address of the API server that is a cluster IP.
fn circle(snapshot: &Snapshot, addrs: impl IntoIterator<Item = IpAddr>) -> Option<Notice> {
    addrs.into_iter().find_map(|addr| {
        let mut services = snapshot.services.values();
        let service = services.find(|service| service.cluster_ips.contains(&addr))?;
        Some(Notice::ApiServerIsVip { service: service.name.clone(), addr })
    })
}

fn is_circular(notice: &Notice) -> bool {
    matches!(notice, Notice::ApiServerIsVip { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_at_a_cluster_ip_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = "{apiVersion: v1, kind: Service, metadata: {name: kubernetes}, \
                        spec: {clusterIP: 10.96.0.1, ports: [{port: 443}]}}";
        std::fs::write(directory.path().join("a.yaml"), manifest).unwrap();
        let snapshot = crate::source::load(directory.path()).unwrap().0;
        let circle = |addr: &str| circle(&snapshot, [addr.parse().unwrap()]);
        assert_eq!(circle("192.0.2.1"), None);
        let notice = circle("10.96.0.1").unwrap();
        assert_eq!(&*notice.service().unwrap().name, "kubernetes");
        assert!(notice.to_string().contains("--kubeconfig or --master"), "{notice}");
    }
}
