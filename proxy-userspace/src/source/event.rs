//! The one face of all sources.

use std::{io, path::Path, sync::Arc, time::SystemTime};

use super::{
    kubernetes::{Kubernetes, LoginError, Options, Publisher, Requests, Status},
    watched_files::WatchedFiles,
};
use crate::model::{Notice, Update};

/// Why an EndpointSlice changed, for the time that it took to bring it into the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Trigger {
    /// When the Pods or the Service changed.
    pub at: SystemTime,
    /// The slice has IPv6 addresses.
    pub ipv6: bool,
}

/// News of a source.
///
/// Apply `update` when there is one, and take the other fields as they are: each replaces what
/// the event before said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SourceEvent {
    /// What changed; `None` when only the rest of the event did.
    ///
    /// The first is an [`Update::Replace`], and before it nothing is known: a caller that plans
    /// nothing until it comes leaves alone what an earlier run has put into the kernel.
    pub update: Option<Update>,
    /// What brought the update about, as far as its EndpointSlices say so. Those of lists are not
    /// told: they may be old.
    pub triggers: Vec<Trigger>,
    /// What there is to say about the objects as they are now, sorted: a notice goes when its
    /// object is mended or deleted.
    pub notices: Arc<[Notice]>,
    /// Why the source can tell nothing, or not everything, at present, for people; what it told
    /// last stays in force. `None` when all is well again.
    pub error: Option<String>,
    /// What is known comes from a snapshot that was saved then, since the API server has not
    /// answered yet.
    pub stale_since: Option<SystemTime>,
}

/// A source that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The files cannot be watched.
    #[error("watch {path}: {source}; raise fs.inotify.max_user_watches and max_user_instances")]
    Watch {
        /// The path.
        path: String,
        /// Cause.
        source: io::Error,
    },
    /// The API server cannot be found.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The tasks of the source are gone, which is an error of ours.
    #[error("the Kubernetes source ended by itself; start the agent again, and report this")]
    Ended,
}

/// Where Services come from.
///
/// ```no_run
/// # async fn example() -> Result<(), proxy_userspace::source::SourceError> {
/// use proxy_userspace::{model::{Snapshot, Update}, source::Source};
///
/// let mut source = Source::file("/etc/passlane".as_ref(), None)?;
/// let mut known: Option<Snapshot> = None;
/// loop {
///     let event = source.next().await?;
///     match event.update {
///         Some(Update::Replace(snapshot)) => known = Some(snapshot),
///         Some(Update::Change(changes)) => {
///             let known = known.get_or_insert_default();
///             changes.into_iter().for_each(|change| known.apply(change));
///         }
///         None => {}
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub enum Source {
    /// Manifests in files.
    File(WatchedFiles),
    /// A cluster.
    Kubernetes(Kubernetes),
}

impl Source {
    /// Watches a manifest file or a directory of manifests, which need not exist yet.
    ///
    /// # Errors
    ///
    /// [`SourceError::Watch`].
    pub fn file(path: &Path, proxy_name: Option<String>) -> Result<Self, SourceError> {
        WatchedFiles::open(path, proxy_name)
            .map(Self::File)
            .map_err(|source| SourceError::Watch { path: path.display().to_string(), source })
    }

    /// Watches a cluster, whose API server need not answer yet.
    ///
    /// # Errors
    ///
    /// [`SourceError::Login`].
    pub async fn kubernetes(options: Options) -> Result<Self, SourceError> {
        Ok(Self::Kubernetes(Kubernetes::start(options).await?))
    }

    /// Waits for news. Nothing is lost when the future is dropped, so that it may wait beside
    /// other things.
    ///
    /// # Errors
    ///
    /// The source cannot go on. What it cannot read at present is no error but part of an event.
    pub async fn next(&mut self) -> Result<SourceEvent, SourceError> {
        match self {
            Self::File(files) => {
                let path = files.path().display().to_string();
                files.next().await.map_err(|source| SourceError::Watch { path, source })
            }
            Self::Kubernetes(kubernetes) => kubernetes.next().await.ok_or(SourceError::Ended),
        }
    }

    /// Returns what the source is, as the agent's report names it.
    pub fn name(&self) -> String {
        match self {
            Self::File(files) => format!("file:{}", files.path().display()),
            Self::Kubernetes(kubernetes) => format!("kubernetes:{}", kubernetes.addresses()),
        }
    }

    /// Returns how a cluster's source stands with its API server; `None` for files.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::File(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.status().borrow().clone()),
        }
    }

    /// Returns what is counted of requests to the API server; `None` for files.
    pub fn requests(&self) -> Option<Arc<Requests>> {
        match self {
            Self::File(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.requests()),
        }
    }

    /// Starts what puts notices as Events into the cluster; `None` for files. Call it once.
    pub fn publisher(&mut self) -> Option<Publisher> {
        match self {
            Self::File(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.publisher()),
        }
    }
}
