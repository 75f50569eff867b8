//! Manifests in files as a source: loaded at the start and after every change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::{LoadError, SourceEvent, Watch, load_for, watch};
use crate::model::{Notice, Snapshot, Update};

type Loaded = Result<(Snapshot, Vec<Notice>), LoadError>;

/// A manifest file or a directory of manifests.
#[derive(Debug)]
pub struct WatchedFiles {
    path: PathBuf,
    proxy_name: Option<String>,
    watch: Watch,
    /// Something may have changed that was not loaded yet.
    due: bool,
    /// What is being loaded. It outlives the future that waits for it: where other things happen
    /// more often than a load takes time, none would ever come to its end.
    loading: Option<JoinHandle<Loaded>>,
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
        let (loading, notices) = Default::default();
        Ok(Self { path, proxy_name, watch, due: true, loading, notices })
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
        if self.loading.is_none() && !self.due {
            self.watch.changed().await?;
            self.due = true;
        }
        let loading = self.loading.get_or_insert_with(|| {
            self.due = false;
            let (path, proxy_name) = (self.path.clone(), self.proxy_name.clone());
            spawn_blocking(move || load_for(&path, proxy_name.as_deref()))
        });
        let loaded = loading.await;
        self.loading = None;
        let loaded = loaded.map_err(io::Error::other)?;
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

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_load_comes_to_its_end_although_nobody_waits_for_long() {
        const SERVICES: usize = 3000;
        let directory = tempfile::tempdir().unwrap();
        let service = |number: usize| {
            let addr = format!("10.96.{}.{}", number / 250, number % 250 + 1);
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a{number}}}\n\
                 spec: {{clusterIP: {addr}, ports: [{{port: 80}}]}}\n---\n"
            )
        };
        let text: String = (0..SERVICES).map(service).collect();
        fs::write(directory.path().join("services.yaml"), text).unwrap();
        let mut files = WatchedFiles::open(directory.path(), None).unwrap();
        let mut given_up = 0;
        let event = loop {
            match timeout(Duration::from_millis(1), files.next()).await {
                Ok(event) => break event.unwrap(),
                Err(_) => given_up += 1,
            }
            assert!(given_up < 30_000, "the load never ends");
        };
        assert!(given_up > 0, "nothing was interrupted");
        assert!(
            matches!(&event.update, Some(Update::Replace(all)) if all.services.len() == SERVICES),
            "{:?}",
            event.error
        );
    }
}
