//! The last good snapshot on the disk, so that a node that starts while the API server is away
//! serves what it served before.
//!
//! One JSON object with a version. A file of another version, of another cluster or node, or a
//! broken one is ignored: then the node waits for the API server, as it would without the file.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::model::{EndpointSlice, Node, Service, Snapshot};

/// Raised when a field of the model changes its meaning; new fields with a default do not.
const VERSION: u32 = 1;
/// 50,000 Services with 250,000 endpoints take about a quarter of this.
const MAX_BYTES: u64 = 512 << 20;

/// Where the snapshot is saved, and for whom.
#[derive(Debug)]
pub struct SnapshotFile {
    path: PathBuf,
    /// API servers and node; a snapshot of others is none of ours.
    origin: String,
}

/// A snapshot that was saved.
#[derive(Debug, Eq, PartialEq)]
pub struct Saved {
    /// What was known.
    pub snapshot: Snapshot,
    /// When it was known.
    pub saved_at: SystemTime,
}

/// What is read first: it says whether the rest can be.
#[derive(Deserialize)]
struct Head {
    version: u32,
    #[serde(default)]
    origin: String,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    origin: &'a str,
    saved_at: u64,
    services: Vec<&'a Service>,
    slices: Vec<&'a EndpointSlice>,
    nodes: Vec<&'a Node>,
    service_cidrs: Vec<IpNet>,
}

#[derive(Deserialize)]
struct Read {
    saved_at: u64,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    nodes: Vec<Node>,
    service_cidrs: Vec<IpNet>,
}

/// Why a file is ignored.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("read: {0}")]
    Read(#[from] io::Error),
    #[error("{0} bytes are more than the limit of {MAX_BYTES}")]
    TooLarge(u64),
    #[error("broken: {0}")]
    Broken(#[from] serde_json::Error),
    #[error("version {0}, this is {VERSION}")]
    Version(u32),
    #[error("saved from {0:?}, not from the API servers and the node of now")]
    Origin(String),
}

/// The file's name within its directory.
const NAME: &str = "snapshot.json";

/// Returns the snapshot that was saved in a directory, if there is one.
pub fn saved_in(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(NAME)).filter(|path| path.exists())
}

/// Removes the snapshot that was saved in a directory. Removing the absent succeeds.
///
/// # Errors
///
/// The file is there and cannot be removed.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(NAME)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl SnapshotFile {
    /// Names the file in a directory, which is made when something is saved.
    pub fn new(state_dir: &Path, origin: String) -> Self {
        Self { path: state_dir.join(NAME), origin }
    }

    /// Returns the saved snapshot; `None` when there is none that can be used, after a warning if
    /// there is a file.
    pub fn load(&self) -> Option<Saved> {
        match self.read() {
            Ok(saved) => saved,
            Err(error) => {
                let path = self.path.display();
                warn!(event = "snapshot_ignored", %path, "the saved snapshot is ignored: {error}");
                None
            }
        }
    }

    fn read(&self) -> Result<Option<Saved>, Unusable> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                return Err(Unusable::TooLarge(metadata.len()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let bytes = fs::read(&self.path)?;
        // The first pass knows nothing of what another version has.
        let head: Head = serde_json::from_slice(&bytes)?;
        if head.version != VERSION {
            return Err(Unusable::Version(head.version));
        }
        if head.origin != self.origin {
            return Err(Unusable::Origin(head.origin));
        }
        let read: Read = serde_json::from_slice(&bytes)?;
        let saved_at = UNIX_EPOCH + Duration::from_secs(read.saved_at);
        Ok(Some(Saved { snapshot: snapshot(read), saved_at }))
    }

    /// Saves a snapshot. A reader finds the old file or the new one, also after a power failure.
    ///
    /// # Errors
    ///
    /// The directory or the file cannot be written, or the snapshot is larger than 512 MiB; then
    /// the old file is kept.
    pub fn save(&self, snapshot: &Snapshot) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let result = self.write(&beside, snapshot);
        if result.is_err() {
            // A full disk is no better for half a snapshot.
            let _ = fs::remove_file(&beside);
        }
        result.map_err(|error| {
            io::Error::new(error.kind(), format!("save {}: {error}", self.path.display()))
        })
    }

    fn write(&self, beside: &Path, snapshot: &Snapshot) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let written = Written {
            version: VERSION,
            origin: &self.origin,
            saved_at: since_1970.as_secs(),
            services: snapshot.services.values().collect(),
            slices: snapshot.slices.values().collect(),
            nodes: snapshot.nodes.values().collect(),
            service_cidrs: snapshot.service_cidrs.iter().copied().collect(),
        };
        let file = File::create(beside)?;
        let mut bounded = Bounded { inner: BufWriter::new(&file), left: MAX_BYTES };
        serde_json::to_writer(&mut bounded, &written)?;
        bounded.flush()?;
        file.sync_data()?;
        fs::rename(beside, &self.path)
    }
}

fn snapshot(read: Read) -> Snapshot {
    Snapshot {
        services: read.services.into_iter().map(|one| (one.name.clone(), one)).collect(),
        slices: read.slices.into_iter().map(|one| (one.name.clone(), one)).collect(),
        nodes: read.nodes.into_iter().map(|one| (one.name.clone(), one)).collect(),
        service_cidrs: read.service_cidrs.into_iter().collect(),
    }
}

/// A writer that takes so many bytes and no more.
struct Bounded<W> {
    inner: W,
    left: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let size = bytes.len() as u64;
        self.left = self.left.checked_sub(size).ok_or(io::ErrorKind::FileTooLarge)?;
        self.inner.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::load;

    const MANIFESTS: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations:
    passlane.io/weights: 10.1.0.5=3, node-b=2
    passlane.io/health-check: http,host=a.example
    passlane.io/sorry-server: 192.0.2.9
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}], sessionAffinity: ClientIP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.1.0.5], hints: {forZones: [{name: a}]}}]
---
apiVersion: v1
kind: Node
metadata: {name: node-a, labels: {topology.kubernetes.io/zone: a}}
spec: {podCIDRs: [10.1.0.0/24]}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16]}
";

    fn example() -> Snapshot {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.yaml"), MANIFESTS).unwrap();
        load(directory.path()).unwrap().0
    }

    fn file(directory: &Path) -> SnapshotFile {
        SnapshotFile::new(directory, "https://10.0.0.1:6443 node-a".to_owned())
    }

    #[test]
    fn a_snapshot_is_read_as_it_was_saved() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(&directory.path().join("made/for/it"));
        let snapshot = example();
        assert_eq!(snapshot.services.len() + snapshot.slices.len() + snapshot.nodes.len(), 3);
        file.save(&snapshot).unwrap();
        let saved = file.load().unwrap();
        assert_eq!(saved.snapshot, snapshot);
        assert!(saved.saved_at.elapsed().unwrap() < Duration::from_secs(60));
        let names: Vec<_> = fs::read_dir(directory.path().join("made/for/it")).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside the file");
    }

    #[test]
    fn what_cannot_be_used_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        assert_eq!(file.load(), None, "there is none yet");
        file.save(&example()).unwrap();
        let text = fs::read_to_string(&file.path).unwrap();
        let other_version = text.replace("\"version\":1", "\"version\":2,\"later\":[]");
        let other_node = text.replace("node-a\"", "node-b\"");
        let cut = &text[..text.len() / 2];
        for (what, text) in [("version", &*other_version), ("node", &other_node), ("half", cut)] {
            fs::write(&file.path, text).unwrap();
            assert_eq!(file.load(), None, "{what}");
        }
        fs::write(&file.path, &text).unwrap();
        assert!(file.load().is_some());
    }

    #[test]
    fn a_writer_takes_no_more_than_its_limit() {
        let mut bounded = Bounded { inner: Vec::new(), left: 4 };
        bounded.write_all(b"abcd").unwrap();
        let error = bounded.write_all(b"e").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
