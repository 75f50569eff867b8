//! Services and endpoints from the API server.
//!
//! ```text
//! connection ──▶ follow, one task a kind ──Told──▶ merge, one task ──SourceEvent──▶ the agent
//!  addresses,      kube's watcher, backoff,         lists whole or not at all,
//!  credentials     `convert` of each object         changes coalesced, snapshot on disk
//! ```
//!
//! What the API server says last stays in force while it is away. At a start without it, the
//! snapshot that was saved last is served; see [`super::snapshot_file`].

mod backoff;
mod connection;
pub mod events;
mod failure;
mod follow;
#[cfg(test)]
mod hanging;
mod login;
mod merge;
mod objects;
mod pace;
mod requests;
mod run;
mod silence;
pub mod status;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinSet,
};

use tracing::error;

pub use self::{
    events::Publisher,
    login::{Login, LoginError},
    requests::{BUCKETS as REQUEST_BUCKETS, Requests},
    silence::Limits,
    status::{State, Status},
};

use self::{
    connection::Connection,
    follow::Report,
    objects::{Wanted, Watched},
    pace::Pace,
    run::Run,
};
use super::SourceEvent;

/// How the Kubernetes source is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the API server is, and as whom to log in.
    pub login: Login,
    /// The name of the node that the agent runs on, as its Node object has it.
    pub node: String,
    /// The name in the label `service.kubernetes.io/service-proxy-name` of the Services that are
    /// ours; `None` means those without the label.
    pub proxy_name: Option<String>,
    /// Requests a second after the first `burst`; 0 is no limit. Watches are one request each.
    pub qps: f32,
    /// Requests that may be sent at once.
    pub burst: u32,
    /// A directory that survives a reboot, for the last good snapshot; `None` saves none.
    pub state_dir: Option<PathBuf>,
    /// How long to wait for the API server at the start before the saved snapshot is served.
    pub patience: Duration,
    /// How long the API server may take for what.
    pub limits: Limits,
}

impl Options {
    /// Returns kube-proxy's defaults for a node of this name.
    pub fn new(login: Login, node: String) -> Self {
        let patience = Duration::from_secs(3);
        let limits = Limits::default();
        let (proxy_name, state_dir) = (None, None);
        Self { login, node, proxy_name, qps: 5.0, burst: 10, state_dir, patience, limits }
    }
}

/// The running source. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Kubernetes {
    events: mpsc::Receiver<SourceEvent>,
    status: watch::Receiver<Status>,
    connection: Arc<Connection>,
    node: String,
    tasks: JoinSet<()>,
    /// What puts notices as Events; the source goes on without.
    publishing: JoinSet<()>,
}

impl Kubernetes {
    /// Starts to watch. The API server need not be there yet.
    ///
    /// # Errors
    ///
    /// Nothing says where the API server is, or the kubeconfig cannot be read.
    pub async fn start(options: Options) -> Result<Self, LoginError> {
        let pace = Pace::new(options.qps, options.burst);
        let connection = Connection::new(options.login.clone(), pace, options.limits).await?;
        let (tell, told) = mpsc::channel(1024);
        // One: what comes while the agent is busy is put together with what follows.
        let (events, received) = mpsc::channel(1);
        let (status, status_seen) = watch::channel(Status::default());
        let wanted = Wanted { node: options.node.clone(), proxy_name: options.proxy_name.clone() };
        let wanted = Arc::new(wanted);
        let mut tasks = JoinSet::new();
        spawn::<objects::Service>(&mut tasks, &connection, &wanted, &tell);
        spawn::<objects::EndpointSlice>(&mut tasks, &connection, &wanted, &tell);
        spawn::<objects::Node>(&mut tasks, &connection, &wanted, &tell);
        spawn::<objects::ServiceCidr>(&mut tasks, &connection, &wanted, &tell);
        let node = options.node.clone();
        let run = Run::new(Arc::clone(&connection), &options, events, status);
        tasks.spawn(run.run(told));
        let publishing = JoinSet::new();
        Ok(Self { events: received, status: status_seen, connection, node, tasks, publishing })
    }

    /// Waits for news. `None` when a task of the source has ended, which none does by itself:
    /// without the watch of one kind, the rest would tell half of the truth.
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<SourceEvent> {
        select! {
            event = self.events.recv() => event,
            Some(ended) = self.tasks.join_next() => {
                let how = ended.map_or_else(|error| error.to_string(), |()| "by itself".to_owned());
                error!(event = "source_task_ended", "a task of the source ended: {how}");
                None
            }
        }
    }

    /// Returns how the source stands with the API server, now and at every change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Returns what is counted of requests.
    pub fn requests(&self) -> Arc<Requests> {
        self.connection.requests()
    }

    /// Starts what puts notices as Events on Services and on the node. It ends with the source.
    pub fn publisher(&mut self) -> Publisher {
        let (publisher, task) = events::start(self.connection.client(None), &self.node);
        self.publishing.spawn(task);
        publisher
    }

    /// Returns the addresses of the API servers, for people.
    pub fn addresses(&self) -> String {
        let addresses = self.connection.addresses().iter().map(ToString::to_string);
        addresses.collect::<Vec<_>>().join(", ")
    }
}

fn spawn<W: Watched>(
    tasks: &mut JoinSet<()>,
    connection: &Arc<Connection>,
    wanted: &Arc<Wanted>,
    tell: &mpsc::Sender<Report>,
) {
    let answered = (tell.clone(), W::KIND);
    let client = connection.client(Some(answered));
    tasks.spawn(follow::follow::<W>(client, Arc::clone(wanted), tell.clone()));
}
