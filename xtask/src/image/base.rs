//! The Debian packages below the agent: their list, fetched, checked and unpacked.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::oci;
use crate::command::{Consent, progress};
use crate::debian::Suite;
use crate::workspace;

/// A processor architecture, as everybody calls it.
pub(super) struct Architecture {
    /// Debian's packages, and our files.
    pub(super) debian: &'static str,
    /// Images.
    pub(super) oci: &'static str,
    /// Debian's directories of libraries.
    pub(super) triplet: &'static str,
}

/// That of this machine, and so of the image.
pub(super) const ARCHITECTURE: Architecture = if cfg!(target_arch = "aarch64") {
    Architecture { debian: "arm64", oci: "arm64", triplet: "aarch64-linux-gnu" }
} else {
    Architecture { debian: "amd64", oci: "amd64", triplet: "x86_64-linux-gnu" }
};

/// An unpacked package.
#[derive(Clone, Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Of the package file.
    pub(super) sha256: String,
    root: PathBuf,
}

#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    version: String,
    sha256: String,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    suite: String,
    package: Vec<Listed>,
}

const PACKAGE: &str = "package.deb";

/// Returns all listed packages, unpacked in the cache.
pub(super) fn obtain(locked: bool, consent: Consent) -> Result<Vec<Package>> {
    let (_, list) = read()?;
    let mut suite = None;
    let mut packages = Vec::new();
    for listed in &list.package {
        if let Some(dir) = workspace::cached(&cache_name(&listed.name, &listed.version)) {
            packages.push(package(&listed.name, &listed.version, &dir, Some(&listed.sha256))?);
            continue;
        }
        let suite = match &suite {
            Some(suite) => suite,
            None => {
                let opened = Suite::open(&list.suite, consent)?;
                opened.update()?;
                suite.insert(opened)
            }
        };
        packages.push(fetch(suite, listed, locked)?);
    }
    Ok(packages)
}

fn fetch(suite: &Suite, listed: &Listed, locked: bool) -> Result<Package> {
    let Listed { name, version, sha256 } = listed;
    let offered = suite.versions(name)?;
    if offered.contains(version) {
        return unpack(suite, name, version, Some(sha256));
    }
    let newest = offered.first().with_context(|| format!("Debian has no package {name}"))?;
    let gone = format!("{name} {version} has left the archive, which has {newest}");
    ensure!(!locked, "{gone}; run `cargo xtask image --update`");
    progress(&format!("{gone} now: taking that"));
    unpack(suite, name, newest, None)
}

fn unpack(suite: &Suite, name: &str, version: &str, sha256: Option<&str>) -> Result<Package> {
    let dir = workspace::cache(&cache_name(name, version), |dir| {
        let deb = suite.download(&format!("{name}={version}"), dir)?;
        Suite::unpack_file(&deb, &dir.join("root"))?;
        fs::rename(&deb, dir.join(PACKAGE)).context("cannot rename the package")
    })?;
    package(name, version, &dir, sha256)
}

fn package(name: &str, version: &str, dir: &Path, expected: Option<&str>) -> Result<Package> {
    let deb = dir.join(PACKAGE);
    let bytes = fs::read(&deb).with_context(|| format!("cannot read {}", deb.display()))?;
    let sha256 = oci::sha256(&bytes);
    ensure!(
        expected.is_none_or(|expected| expected == sha256),
        "{} is not what deploy/image lists: sha256 {sha256}; remove {} if it was damaged",
        deb.display(),
        dir.display()
    );
    Ok(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        sha256,
        root: dir.join("root"),
    })
}

fn cache_name(name: &str, version: &str) -> String {
    format!("image/{name}_{version}_{}", ARCHITECTURE.debian)
}

/// Writes the list anew, with what the archive offers now.
pub(super) fn update(consent: Consent) -> Result<()> {
    let (path, list) = read()?;
    let suite = Suite::open(&list.suite, consent)?;
    suite.update()?;
    let old = fs::read_to_string(&path)?;
    let (head, _) = old.split_once("[[package]]").unwrap_or((&old, ""));
    let mut text = head.to_owned();
    for Listed { name, .. } in &list.package {
        let versions = suite.versions(name)?;
        let version = versions.first().with_context(|| format!("Debian has no package {name}"))?;
        let sha256 = unpack(&suite, name, version, None)?.sha256;
        let gap = if text.ends_with("\n\n") { "" } else { "\n" };
        write!(
            text,
            "{gap}[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsha256 = \"{sha256}\"\n"
        )?;
    }
    let changed = workspace::write_if_changed(&path, text.as_bytes())?;
    println!("{} {}", path.display(), if changed { "updated" } else { "unchanged" });
    Ok(())
}

fn read() -> Result<(PathBuf, List)> {
    let name = format!("deploy/image/packages.{}.toml", ARCHITECTURE.debian);
    let path = workspace::root().join(name);
    let text = fs::read_to_string(&path).with_context(|| {
        format!("no {}: copy the list of another architecture, and `--update` it", path.display())
    })?;
    let list = toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
    Ok((path, list))
}

impl Package {
    /// Where the package has the file of this path, whose directory may be below `/usr` or not.
    pub(super) fn find(&self, path: &str) -> Option<PathBuf> {
        let below_root = path.strip_prefix("usr/").unwrap_or(path);
        [path, below_root].map(|path| self.root.join(path)).into_iter().find(|path| {
            // Links to other files of the package are followed; those that leave it lead nowhere.
            path.symlink_metadata().is_ok() && self.within(path).is_some_and(|path| path.is_file())
        })
    }

    /// The file, with links followed as if the package were the root.
    pub(super) fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let Some(found) = self.find(path) else { return Ok(None) };
        let Some(file) = self.within(&found) else { return Ok(None) };
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Some(bytes))
    }

    /// The name that a link of the package leads to.
    pub(super) fn linked(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.root.join(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    fn within(&self, path: &Path) -> Option<PathBuf> {
        let mut path = path.to_owned();
        // As many links as the kernel would follow.
        for _ in 0..40 {
            let Ok(target) = fs::read_link(&path) else { return Some(path) };
            path = match target.strip_prefix("/") {
                Ok(absolute) => self.root.join(absolute),
                Err(_) => path.parent()?.join(target),
            };
        }
        None
    }

    /// The files in a directory of the package, sorted by name.
    pub(super) fn list(&self, directory: &str) -> Result<Vec<String>> {
        let path = self.root.join(directory);
        let entries =
            fs::read_dir(&path).with_context(|| format!("{} has no {directory}", self.name))?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}
