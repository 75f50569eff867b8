//! Tells when manifests may have changed.
//!
//! inotify sees names and inodes, not paths. So the manifest path and each directory above it are
//! watched, and the set is renewed after every event: that covers editors that rename, the symlink
//! swap of a mounted ConfigMap, and a path that vanishes and comes back, at any level.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use futures::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

/// No reload until nothing has happened for this long: writers touch several files.
const QUIET: Duration = Duration::from_millis(50);
/// A writer that never pauses delays a reload by at most this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Watches manifests; see [`watch`].
#[derive(Debug)]
pub struct Watch {
    events: EventStream<Vec<u8>>,
    watches: Watches,
    path: PathBuf,
    watched: HashMap<WatchDescriptor, Watched>,
    /// When the first change happened that no signal was given for.
    pending: Option<Instant>,
}

/// What a watch is for.
#[derive(Clone, Debug)]
enum Watched {
    /// The directory of manifests: everything in it matters.
    Manifests(PathBuf),
    /// The manifest file itself, which may be reached by a symlink.
    Manifest,
    /// A directory on the way: only this name in it matters, or for the directory of a manifest
    /// file, also the `..data` of a mounted ConfigMap.
    Above(OsString),
}

/// What an event means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Meaning {
    /// Not ours.
    Nothing,
    /// A writer is at work: wait for it, but do not reload because of it.
    Writing,
    /// A manifest is there, gone or written.
    Changed,
    /// A path leads elsewhere than before: the watches are to be renewed.
    Moved,
}

/// Starts to watch a manifest file or a directory of manifests, which need not exist yet.
///
/// # Errors
/// inotify or the runtime's reactor has no room for another instance, or the path is empty.
pub fn watch(path: &Path) -> io::Result<Watch> {
    let path = absolute(path)?;
    let inotify = Inotify::init()?;
    let watches = inotify.watches();
    let events = inotify.into_event_stream(vec![0; 4096])?;
    let mut watch = Watch { events, watches, path, watched: HashMap::new(), pending: None };
    watch.renew()?;
    Ok(watch)
}

impl Watch {
    /// Waits until the manifests may have changed and 50 ms have passed without another change.
    /// It is only a signal: the caller loads, and compares. A change that happens after the
    /// return and before the caller has loaded gives another signal.
    ///
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// inotify cannot be read or has no room for another watch.
    pub async fn changed(&mut self) -> io::Result<()> {
        while self.pending.is_none() {
            self.take_event().await?;
        }
        while let Some(since) = self.pending {
            let quiet_at = (Instant::now() + QUIET).min(since + PATIENCE);
            match timeout_at(quiet_at, self.take_event()).await {
                Ok(taken) => taken?,
                Err(_) => break,
            }
            if since.elapsed() >= PATIENCE {
                break;
            }
        }
        self.pending = None;
        Ok(())
    }

    /// Waits for an event that matters.
    async fn take_event(&mut self) -> io::Result<()> {
        loop {
            let event = self.events.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
            match meaning(&self.watched, &event) {
                Meaning::Nothing => continue,
                Meaning::Writing => {}
                Meaning::Changed => self.note_change(),
                Meaning::Moved => {
                    self.note_change();
                    self.renew()?;
                }
            }
            return Ok(());
        }
    }

    fn note_change(&mut self) {
        self.pending.get_or_insert_with(Instant::now);
    }

    /// Watches what is there now. A watch on what is watched already is the same watch.
    fn renew(&mut self) -> io::Result<()> {
        let mut watched = HashMap::new();
        for path in self.path.ancestors() {
            let purpose = if path != self.path {
                let Ok(below) = self.path.strip_prefix(path) else { continue };
                let Some(name) = below.iter().next() else { continue };
                Watched::Above(name.to_owned())
            } else if path.is_dir() {
                Watched::Manifests(path.to_owned())
            } else {
                Watched::Manifest
            };
            match self.watches.add(path, mask(&purpose)) {
                Ok(descriptor) => {
                    watched.entry(descriptor).or_insert(purpose);
                }
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
                // Not there, or not ours to look into: the directories above tell when it comes.
                Err(error) => {
                    debug!(event = "not_watched", path = %path.display(), %error, "not watched")
                }
            }
        }
        for descriptor in self.watched.keys().filter(|old| !watched.contains_key(*old)) {
            // The kernel has dropped the watch by itself if the inode is gone.
            let _ = self.watches.remove(descriptor.clone());
        }
        self.watched = watched;
        Ok(())
    }
}

fn mask(purpose: &Watched) -> WatchMask {
    let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
    let itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
    let content = WatchMask::CLOSE_WRITE | WatchMask::MODIFY;
    match purpose {
        Watched::Manifests(_) => names | itself | content | WatchMask::ONLYDIR,
        // The target of a symlink that is replaced loses a link, which is a change of attributes.
        Watched::Manifest => itself | content | WatchMask::ATTRIB,
        Watched::Above(_) => names | itself | WatchMask::ONLYDIR,
    }
}

fn meaning(watched: &HashMap<WatchDescriptor, Watched>, event: &EventOwned) -> Meaning {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        return Meaning::Moved;
    }
    let Some(purpose) = watched.get(&event.wd) else { return Meaning::Nothing };
    if event.mask.contains(EventMask::IGNORED) {
        return Meaning::Nothing;
    }
    match (purpose, &event.name) {
        _ if event.mask.contains(EventMask::MODIFY) => Meaning::Writing,
        (Watched::Above(expected), Some(name)) if name != expected && name != "..data" => {
            Meaning::Nothing
        }
        (Watched::Manifests(directory), Some(name)) => {
            let created = event.mask.contains(EventMask::CREATE);
            let writing = created && being_written(&directory.join(name));
            if writing { Meaning::Writing } else { Meaning::Changed }
        }
        (Watched::Manifest, _) if event.mask.contains(EventMask::CLOSE_WRITE) => Meaning::Changed,
        _ => Meaning::Moved,
    }
}

/// Returns whether a name that has just appeared is a file that its writer has still to close,
/// which is told separately. A link to a finished file is told only once.
fn being_written(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}
