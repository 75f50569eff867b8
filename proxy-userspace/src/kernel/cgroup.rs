//! The root of the cgroup hierarchy: programs attached there see the sockets of every process.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// Where systemd mounts it, alone or beside version 1.
const PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// There is no root to attach to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No mount of the file system.
    #[error("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")]
    NotMounted,
    /// The mount shows a part of the hierarchy: the agent is in a cgroup namespace.
    #[error(
        "{0} is not the root of the hierarchy but a cgroup below it: run the agent in the host's \
         cgroup namespace, or mount the host's /sys/fs/cgroup there"
    )]
    NotRoot(PathBuf),
    /// It cannot be opened.
    #[error("open cgroup {path}")]
    Open {
        /// The mount.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Opens the root of the hierarchy.
///
/// # Errors
///
/// [`Error`] says what to mount.
pub fn open_root() -> Result<fs::File, Error> {
    let path = PLACES.map(Path::new).into_iter().find(|path| is_cgroup2(path));
    let path = path.ok_or(Error::NotMounted)?;
    // Every cgroup but the root has it.
    if path.join("cgroup.type").exists() {
        return Err(Error::NotRoot(path.to_owned()));
    }
    fs::File::open(path).map_err(|source| Error::Open { path: path.to_owned(), source })
}

fn is_cgroup2(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC)
}
