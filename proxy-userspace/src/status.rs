//! What the agent last said of itself: a small file that any verb can read.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// The agent's own account, written after every pass.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// Process id of the agent.
    pub pid: u32,
    /// Everything that is wanted is in the kernel.
    pub ready: bool,
    /// Where Services come from.
    pub source: String,
    /// Why the source cannot be read now; the last good state stays.
    pub source_error: Option<String>,
    /// What is served was saved then, in seconds since 1970: the API server has not answered yet.
    #[serde(default)]
    pub source_stale_since: Option<u64>,
    /// Services with forwarding state.
    pub services: usize,
    /// Frontends that are served.
    pub frontends: usize,
    /// The last pass.
    pub last_reconcile: Pass,
    /// What was asked for and is not done, a sentence each.
    pub notices: Vec<String>,
    /// The fast path.
    pub fast_path: FastPathReport,
    /// The hash plane; `None` where nobody asked for one.
    #[serde(default)]
    pub hash_plane: Option<HashPlaneReport>,
    /// The leases that its programs were loaded with.
    #[serde(default)]
    pub lease: Option<Lease>,
    /// Interfaces, by index.
    pub interfaces: Vec<InterfaceReport>,
    /// What others changed of ours.
    #[serde(default)]
    pub audit: AuditReport,
}

/// What the audit did since the start of the agent.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Looks at the whole node.
    pub looks: u64,
    /// Looks after which a part of the node was read in full.
    pub readings: u64,
    /// Microseconds of processor time that the looks took.
    pub cost_us: u64,
    /// Changes that others made to what is ours.
    pub drifts: u64,
    /// The last of them, a sentence each.
    pub last: Vec<String>,
}

/// One comparison of what should be with what is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// Seconds since 1970.
    pub at: u64,
    /// Milliseconds it took.
    pub duration_ms: u64,
    /// Changes that it made.
    pub actions: usize,
    /// Changes that failed, a sentence each.
    pub errors: Vec<String>,
}

/// Whether established flows take the fast path, and if not, why.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct FastPathReport {
    /// `on`, `observe` or `off`.
    pub mode: String,
    /// Why it is off; empty when it is as wanted.
    pub reason: String,
    /// What it needs is not to be had: no interface does more than observe.
    #[serde(default)]
    pub only_observe: bool,
}

/// What XDP sends to backends by itself.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct HashPlaneReport {
    /// `on` or `off`.
    pub mode: String,
    /// Why it is off.
    pub reason: String,
    /// Slots of a table.
    pub slots: u32,
    /// Why IPVS is not told of flows that it would send elsewhere; empty when it is.
    pub untold: String,
    /// The interfaces that were asked for.
    pub interfaces: Vec<HashInterface>,
    /// The frontends that it serves, each with the backends that IPVS has to send to, and why.
    pub carried: BTreeMap<String, Vec<String>>,
    /// Frontends with scheduler `mh` that IPVS serves, and why.
    pub refused: BTreeMap<String, String>,
}

/// The hash plane on one interface.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct HashInterface {
    /// Interface name.
    pub name: String,
    /// `native`, `tc`, `generic` or `off`.
    pub mode: String,
    /// Why it is off.
    pub reason: String,
}

/// How long a flow entry holds without a packet on the kernel's path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Milliseconds until one packet is elected to renew it.
    pub soft_ms: u64,
    /// Milliseconds until it ends.
    pub hard_ms: u64,
}

/// The fast path on one interface.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct InterfaceReport {
    /// Interface name.
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// `fast`, `observe`, `forced` or `off`.
    pub mode: String,
    /// Why it is off, or what it is forced in spite of; empty when it is fast.
    pub reason: String,
    /// `on`, or why XDP does not take transit here; empty where nobody asked for it.
    #[serde(default)]
    pub xdp: String,
}

/// An error of the state directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the state directory cannot be read or written.
    #[error("{operation} {path}")]
    File {
        /// `read`, `write` or `lock`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Another agent holds the lock.
    #[error(
        "another passlane agent runs with state directory {0}: stop it, or give this one its own \
         --state-dir, --bpffs and network namespace"
    )]
    Running(PathBuf),
    /// The report is not one that this version wrote.
    #[error("read {path}: not a report of this version; restart the agent")]
    Format {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
}

/// How long an agent tries for its lock.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// The lock that says an agent runs; released when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { operation, path: path.to_owned(), source }
}

fn report_path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.json")
}

fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.lock")
}

impl Lock {
    /// Takes the lock, making the directory when it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Running`] when another agent has it.
    pub fn take(state_dir: &Path) -> Result<Self, Error> {
        let path = lock_path(state_dir);
        fs::create_dir_all(state_dir).map_err(failed("write", state_dir))?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("lock", &path))?;
        let patience_ends = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                // Perhaps nobody has it, and somebody looks: see `is_taken`.
                Err(fs::TryLockError::WouldBlock) if Instant::now() < patience_ends => {
                    thread::sleep(PAUSE);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::Running(state_dir.to_owned()));
                }
                Err(fs::TryLockError::Error(source)) => {
                    return Err(failed("lock", &path)(source));
                }
            }
        }
    }

    /// Says whether an agent holds the lock. It shares the lock for a moment to find out.
    pub fn is_taken(state_dir: &Path) -> bool {
        File::open(lock_path(state_dir))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }
}

impl Report {
    /// Writes the report; a reader sees the old one or the new one.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn write(&self, state_dir: &Path) -> Result<(), Error> {
        let path = report_path(state_dir);
        let beside = path.with_extension("new");
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::Format { path: path.clone(), source })?;
        fs::write(&beside, text)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(failed("write", &path))
    }

    /// Reads the last report; `None` when no agent has written one.
    ///
    /// # Errors
    ///
    /// [`Error::File`] and [`Error::Format`].
    pub fn read(state_dir: &Path) -> Result<Option<Self>, Error> {
        let path = report_path(state_dir);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|source| Error::Format { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Removes what the agent left in the state directory, and the directory when it is empty.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn remove(state_dir: &Path) -> Result<(), Error> {
        let names = [
            "ledger.jsonl",
            "admin.sock",
            "admin.new",
            "checks.json",
            "hash-plane.json",
            "hash-plane.new",
        ];
        let others = names.map(|name| state_dir.join(name));
        for path in [report_path(state_dir), lock_path(state_dir)].into_iter().chain(others) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &path)(error));
                }
                _ => {}
            }
        }
        // What else is in there is not ours.
        let _ = fs::remove_dir(state_dir);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_while_the_first_runs() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!Lock::is_taken(directory.path()));
        let lock = Lock::take(directory.path()).unwrap();
        assert!(Lock::is_taken(directory.path()));
        assert!(matches!(Lock::take(directory.path()), Err(Error::Running(_))));
        drop(lock);
        assert!(!Lock::is_taken(directory.path()));
        assert!(Lock::take(directory.path()).is_ok());
    }

    #[test]
    fn a_look_at_the_lock_keeps_no_agent_from_starting() {
        let directory = tempfile::tempdir().unwrap();
        drop(Lock::take(directory.path()).unwrap());
        let looking = File::open(lock_path(directory.path())).unwrap();
        looking.try_lock_shared().unwrap();
        let looker = thread::spawn(move || {
            thread::sleep(PATIENCE / 4);
            drop(looking);
        });
        assert!(Lock::take(directory.path()).is_ok());
        looker.join().unwrap();
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Report::read(directory.path()).unwrap(), None);
        let report = Report { version: "1".into(), services: 3, ..Report::default() };
        report.write(directory.path()).unwrap();
        assert_eq!(Report::read(directory.path()).unwrap(), Some(report));
    }
}
