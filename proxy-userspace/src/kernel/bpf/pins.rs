//! Where pins are, and whether a map found there is the one we mean.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use proxy_common::abi::{HASH_MAPS, LOCALHOST_MAPS, MAPS, MapSpec, PIN_DIRECTORY};

use super::{Error, HashMaps, Maps, hash_plane, localhost};

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Where the kernel keeps the place for a bpffs.
const PLACE: &str = "/sys/fs/bpf";

/// A directory on a bpffs that holds the pins of one agent. Having one proves the mount.
#[derive(Clone, Debug)]
pub struct PinDirectory {
    root: PathBuf,
}

/// The properties of a map that must agree before it is used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapShape {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Capacity.
    pub max_entries: u32,
}

impl fmt::Display for MapShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, key_size, value_size, max_entries } = self;
        write!(f, "type {kind}, key {key_size} B, value {value_size} B, {max_entries} entries")
    }
}

/// A pin that holds another map than this build needs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinMismatch {
    /// Map name.
    pub name: &'static str,
    /// The pin.
    pub path: PathBuf,
    /// What is pinned.
    pub found: MapShape,
    /// What is needed.
    pub wanted: MapShape,
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has {}, wanted {}", self.found, self.wanted)
    }
}

impl PinDirectory {
    /// Names the directory without touching it: enough to read what is pinned.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the directory; mounts a bpffs at `/sys/fs/bpf` when none covers it.
    ///
    /// # Errors
    ///
    /// [`Error::PinDirectory`] when it is on no bpffs and none can be mounted.
    pub fn prepare(root: &Path) -> Result<Self, Error> {
        let failed = |source| Error::PinDirectory { path: root.to_owned(), source };
        let directory = Self::at(root);
        mount_where_absent(root)?;
        fs::create_dir_all(directory.links()).map_err(failed)?;
        if !on_bpffs(root) {
            return Err(failed(io::Error::from(io::ErrorKind::Unsupported)));
        }
        Ok(directory)
    }

    /// Returns the directory the operator named.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the directory of this ABI version.
    pub fn versioned(&self) -> PathBuf {
        self.root.join(PIN_DIRECTORY)
    }

    /// Returns the directory of pinned links.
    pub fn links(&self) -> PathBuf {
        self.versioned().join("links")
    }

    /// Returns the directory of what serves node ports at loopback addresses.
    pub fn localhost(&self) -> PathBuf {
        self.versioned().join("localhost")
    }

    /// Returns the directory of the hash plane.
    pub fn hash(&self) -> PathBuf {
        self.versioned().join("hash")
    }

    /// Returns the pin of a map of the hash plane, or of a link of its.
    pub fn hash_map(&self, name: &str) -> PathBuf {
        self.hash().join(name)
    }

    /// Returns the pin of the hash plane's link on an interface.
    pub fn hash_link(&self, index: u32) -> PathBuf {
        self.hash_map(&format!("{}{index}", hash_plane::LINK))
    }

    /// Returns the pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.versioned().join(name)
    }

    /// Returns the pinned maps whose shape is not the wanted one.
    pub fn mismatches(&self, capacity: impl Fn(&MapSpec) -> u32) -> Vec<PinMismatch> {
        let pins = MAPS.iter().map(|spec| (spec, self.map(spec.name), capacity(spec)));
        pins.filter_map(|(spec, path, capacity)| mismatch(spec, path, capacity)).collect()
    }

    /// The same of the maps of the programs for loopback addresses.
    pub(super) fn localhost_mismatches(&self) -> Vec<PinMismatch> {
        let pins = LOCALHOST_MAPS.iter().map(|spec| (spec, self.localhost().join(spec.name)));
        pins.filter_map(|(spec, path)| mismatch(spec, path, spec.max_entries)).collect()
    }

    /// The same of the maps of the hash plane.
    pub fn hash_mismatches(&self, capacity: impl Fn(&MapSpec) -> u32) -> Vec<PinMismatch> {
        let pins = HASH_MAPS.iter().map(|spec| (spec, self.hash_map(spec.name), capacity(spec)));
        pins.filter_map(|(spec, path, capacity)| mismatch(spec, path, capacity)).collect()
    }

    /// Removes the pins of the hash plane, which ends it.
    ///
    /// # Errors
    ///
    /// Any error of the file system but "not found".
    pub fn remove_hash(&self) -> io::Result<()> {
        // An uplink that has lost its program may drop what another one still sends to it.
        if let Ok(mut maps) = HashMaps::open(self) {
            maps.remove_uplinks().map_err(io::Error::other)?;
        }
        for pin in pins_in(&self.hash())? {
            hash_plane::detach_filter(&pin);
            ignore_missing(fs::remove_file(pin))?;
        }
        remove_empty(&[self.hash()])
    }

    /// Removes the pins of what serves node ports at loopback addresses, which ends it.
    ///
    /// # Errors
    ///
    /// Any error of the file system but "not found".
    pub fn remove_localhost(&self) -> io::Result<()> {
        let directory = self.localhost();
        for name in localhost::PROGRAMS {
            ignore_missing(fs::remove_file(directory.join(name)))?;
            ignore_missing(fs::remove_file(directory.join(format!("{name}-new"))))?;
        }
        for spec in LOCALHOST_MAPS {
            ignore_missing(fs::remove_file(directory.join(spec.name)))?;
        }
        remove_empty(&[directory])
    }

    /// Removes every pin of ours, of other ABI versions too, and the directories when they are empty.
    /// Foreign files below it stay.
    ///
    /// # Errors
    ///
    /// Any error of the file system but "not found".
    pub fn remove_pins(&self) -> io::Result<()> {
        self.remove_other_versions()?;
        self.remove_localhost()?;
        self.remove_hash()?;
        self.remove_fast_path()?;
        remove_empty(&[self.versioned(), self.root.clone()])
    }

    /// Removes the pins of the fast path, which ends it where its links are pinned; filters of clsact
    /// stay with their interfaces.
    ///
    /// # Errors
    ///
    /// As of [`Self::remove_pins`].
    pub fn remove_fast_path(&self) -> io::Result<()> {
        // An uplink that has lost its program may drop what another one still sends to it.
        if let Ok(mut maps) = Maps::open(self) {
            maps.remove_uplinks().map_err(io::Error::other)?;
        }
        for link in pins_in(&self.links())? {
            ignore_missing(fs::remove_file(link))?;
        }
        for spec in MAPS {
            ignore_missing(fs::remove_file(self.map(spec.name)))?;
        }
        remove_empty(&[self.links()])
    }

    /// Removes what agents of other ABI versions left: their programs would go on, and nobody would
    /// tell them of what changes. Says whether there was something.
    ///
    /// # Errors
    ///
    /// As of [`Self::remove_pins`].
    pub fn remove_other_versions(&self) -> io::Result<bool> {
        let versions = self.other_versions()?;
        for version in &versions {
            // Links first: a program without its maps' pins still runs.
            let inner = ["links", "localhost", "hash"].map(|inner| version.join(inner));
            for directory in inner.into_iter().chain([version.clone()]) {
                for pin in pins_in(&directory)?.into_iter().filter(|pin| !pin.is_dir()) {
                    hash_plane::detach_filter(&pin);
                    ignore_missing(fs::remove_file(pin))?;
                }
                remove_empty(&[directory])?;
            }
        }
        Ok(!versions.is_empty())
    }

    fn other_versions(&self) -> io::Result<Vec<PathBuf>> {
        let is_version = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_prefix('v'));
            name != Some(PIN_DIRECTORY)
                && number.is_some_and(|number| number.parse::<u32>().is_ok())
        };
        Ok(pins_in(&self.root)?.into_iter().filter(is_version).collect())
    }
}

/// Removes directories, the inner ones first, up to one that is not empty.
fn remove_empty(directories: &[PathBuf]) -> io::Result<()> {
    for directory in directories {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
            result => ignore_missing(result)?,
        }
    }
    Ok(())
}

/// Returns the pins in a directory; none when there is no directory.
pub(super) fn pins_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

pub(super) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Says whether the path, or the nearest directory above it that exists, is on a bpffs.
pub fn on_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find_map(|path| rustix::fs::statfs(path).ok())
        .is_some_and(|stat| stat.f_type == BPF_FS_MAGIC)
}

/// Mounts a bpffs at `/sys/fs/bpf` when none covers a directory below it. It takes CAP_SYS_ADMIN.
///
/// # Errors
///
/// [`Error::PinDirectory`] when there is none and none can be mounted.
pub fn mount_where_absent(root: &Path) -> Result<(), Error> {
    if on_bpffs(root) {
        return Ok(());
    }
    mount_over(root).map_err(|source| Error::PinDirectory { path: root.to_owned(), source })?;
    tracing::info!(event = "bpffs_mounted", "no bpffs was there: mounted one at {PLACE}");
    Ok(())
}

/// Mounts a bpffs where the kernel keeps the place for it, when the path is below.
fn mount_over(root: &Path) -> io::Result<()> {
    if !root.starts_with(PLACE) {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC;
    Ok(rustix::mount::mount("bpf", PLACE, "bpf", flags, None)?)
}

fn mismatch(spec: &MapSpec, path: PathBuf, max_entries: u32) -> Option<PinMismatch> {
    let found = shape_of_pin(&path)?;
    let MapSpec { kind, key_size, value_size, .. } = *spec;
    let wanted = MapShape { kind, key_size, value_size, max_entries };
    (found != wanted).then_some(PinMismatch { name: spec.name, path, found, wanted })
}

fn shape_of_pin(path: &Path) -> Option<MapShape> {
    let info = MapInfo::from_pin(path).ok()?;
    Some(MapShape {
        kind: info.map_type().ok()? as u32,
        key_size: info.key_size(),
        value_size: info.value_size(),
        max_entries: info.max_entries(),
    })
}
