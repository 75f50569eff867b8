//! Manifests in files as a source: loaded at the start and after every change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{SourceEvent, Watch, load_for, watch};
use crate::model::{Notice, Update};

/// A manifest file or a directory of manifests.
#[derive(Debug)]
pub struct WatchedFiles {
    path: PathBuf,
    proxy_name: Option<String>,
    watch: Watch,
    /// Something may have changed that was not loaded yet.
    due: bool,
    notices: Arc<[Notice]>,
}

impl WatchedFiles {
    /// Starts to watch; the path need not exist yet. `proxy_name` as in
    /// [`super::kubernetes::Options`].
    ///
    /// # Errors
    ///
    /// See [`watch`].
    pub fn open(path: &Path, proxy_name: Option<String>) -> io::Result<Self> {
        let watch = watch(path)?;
        let path = path.to_owned();
        Ok(Self { path, proxy_name, watch, due: true, notices: Arc::default() })
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Loads at once the first time, and then waits for a change. Nothing is lost when the future
    /// is dropped.
    ///
    /// # Errors
    ///
    /// inotify cannot be read or has no room for another watch.
    pub async fn next(&mut self) -> io::Result<SourceEvent> {
        if !self.due {
            self.watch.changed().await?;
            self.due = true;
        }
        let (path, proxy_name) = (self.path.clone(), self.proxy_name.clone());
        let load = move || load_for(&path, proxy_name.as_deref());
        let loaded = tokio::task::spawn_blocking(load).await.map_err(io::Error::other)?;
        self.due = false;
        let (update, error) = match loaded {
            Ok((snapshot, notices)) => {
                self.notices = notices.into();
                (Some(Update::Replace(snapshot)), None)
            }
            Err(error) => (None, Some(error.to_string())),
        };
        let notices = Arc::clone(&self.notices);
        Ok(SourceEvent { update, notices, error, ..SourceEvent::default() })
    }
}
