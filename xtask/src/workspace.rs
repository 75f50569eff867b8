//! Where things are: the workspace, its target directory, and the caches that outlive a clone.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;

use crate::command::progress;

/// The directory of the workspace's Cargo.toml.
pub(crate) fn root() -> PathBuf {
    // `cargo run` sets the variable; the compiled-in value serves an xtask started by its path.
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map(Path::to_path_buf).unwrap_or(here)
}

/// Cargo's target directory; `CARGO_TARGET_DIR` is honoured.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs us, or the one on PATH.
pub(crate) fn cargo() -> std::process::Command {
    let mut cargo =
        std::process::Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // Variables of our own package would make cargo believe that every build script changed.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// `${PASSLANE_CACHE:-${XDG_CACHE_HOME:-~/.cache}}/passlane`, or a place below target/ where that
/// cannot be written.
fn cache_root() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("PASSLANE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME"))
        .or_else(|| set("HOME").map(|home| home.join(".cache")));
    match base.map(|base| root().join(base).join("passlane")) {
        Some(dir) if fs::create_dir_all(&dir).is_ok() => dir,
        _ => target().join("cache"),
    }
}

/// A cached directory when it is already there.
pub(crate) fn cached(name: &str) -> Option<PathBuf> {
    Some(cache_root().join(name)).filter(|dir| dir.is_dir())
}

/// The cached directory `name`, made by `make` when it is not there yet.
///
/// `make` fills a temporary directory that is renamed when complete: a killed run leaves nothing
/// half-made. A lock keeps two runs from doing the same download.
pub(crate) fn cache(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let dir = cache_root().join(name);
    if dir.is_dir() {
        return Ok(dir);
    }
    let parent = dir.parent().context("a cache entry has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let lock = with_suffix(&dir, ".lock");
    let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        progress(&format!("waiting for another run that makes {name}"));
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    }
    if dir.is_dir() {
        return Ok(dir);
    }
    // Whatever lies here was left by a killed run: we hold the lock.
    let partial = with_suffix(&dir, ".partial");
    remove(&partial)?;
    fs::create_dir_all(&partial)?;
    make(&partial)?;
    fs::rename(&partial, &dir).with_context(|| format!("cannot rename to {}", dir.display()))?;
    Ok(dir)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a directory tree; one that is not there is fine.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file only when its content differs, so that dependents do not rebuild. True if written.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let partial = with_suffix(path, ".partial");
    fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}
