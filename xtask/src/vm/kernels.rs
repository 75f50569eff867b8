//! Stock kernels: the list in tests/kernels.toml, and their unpacked packages.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Consent, progress};
use crate::debian::Suite;
use crate::workspace;

/// One entry of tests/kernels.toml.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listed {
    /// What `--kernel` calls it.
    pub(crate) series: String,
    suite: String,
    package: String,
    /// Package names up to the version, unpacked beside it: a kernel may come in several packages.
    #[serde(default)]
    beside: Vec<String>,
    /// What may take the package's place: names with this start. The default is its series.
    #[serde(default)]
    else_newest_of: Option<String>,
    /// Tests run on it unless told otherwise.
    #[serde(default)]
    pub(crate) default: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kernel: Vec<Listed>,
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// `/lib/modules/<release>` of the package.
    pub(crate) modules: PathBuf,
    /// What `uname -r` will say.
    pub(crate) release: String,
}

/// All entries of tests/kernels.toml.
pub(crate) fn listed() -> Result<Vec<Listed>> {
    let path = workspace::root().join("tests/kernels.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File =
        toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))?;
    Ok(file.kernel)
}

/// The entry of one series.
pub(crate) fn find(series: &str) -> Result<Listed> {
    let all = listed()?;
    let known: Vec<&str> = all.iter().map(|kernel| kernel.series.as_str()).collect();
    let known = known.join(", ");
    all.into_iter().find(|kernel| kernel.series == series).with_context(|| {
        format!("kernel `{series}` is not in tests/kernels.toml; it lists {known}")
    })
}

impl Listed {
    /// The unpacked kernel, downloaded when it is not in the cache.
    pub(crate) fn obtain(&self, consent: Consent) -> Result<Kernel> {
        if let Some(dir) = workspace::cached(&format!("kernels/{}", self.package)) {
            return unpacked(&dir);
        }
        let suite = Suite::open(&self.suite, consent)?;
        let package = self.in_archive(&suite)?;
        let dir = workspace::cache(&format!("kernels/{package}"), |dir| {
            suite.unpack(&package, dir)?;
            for prefix in &self.beside {
                suite.unpack(&format!("{prefix}{}", version(&package)), dir)?;
            }
            prepare(dir)
        })?;
        unpacked(&dir)
    }

    /// The listed package, or the newest of its series.
    fn in_archive(&self, suite: &Suite) -> Result<String> {
        let (before, after) = (self.stem(), "-cloud-amd64");
        let matching = || -> Result<Vec<String>> {
            let mut names = suite.packages(&before)?;
            // Not -unsigned, -rt or -dbg.
            names.retain(|name| {
                let version_next = name
                    .strip_prefix(&before)
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                name.ends_with(after) && version_next
            });
            Ok(names)
        };
        let mut names = matching()?;
        if !names.contains(&self.package) {
            // Perhaps only our index is old.
            suite.update()?;
            names = matching()?;
        }
        if names.contains(&self.package) {
            return Ok(self.package.clone());
        }
        names.sort_by_key(|name| Reverse(numbers(name)));
        let newest = names.into_iter().next().with_context(|| {
            format!("no package {before}*{after} in {}; correct tests/kernels.toml", self.suite)
        })?;
        progress(&format!("{} has left the archive, taking {newest}", self.package));
        Ok(newest)
    }

    /// `linux-image-6.12.` of `linux-image-6.12.117+deb12-cloud-amd64`.
    fn stem(&self) -> String {
        if let Some(stem) = &self.else_newest_of {
            return stem.clone();
        }
        let version = version(&self.package);
        let series: Vec<&str> = version.split('.').take(2).collect();
        let before = self.package.strip_suffix(version).unwrap_or_default();
        format!("{before}{}.", series.join("."))
    }
}

/// A package name from its first digit on.
fn version(package: &str) -> &str {
    let start = package.find(|c: char| c.is_ascii_digit()).unwrap_or(package.len());
    package.get(start..).unwrap_or_default()
}

/// The numbers in a package name, for comparing versions.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Makes an unpacked package usable by modprobe.
fn prepare(dir: &Path) -> Result<()> {
    let kernel = unpacked(dir)?;
    // Documentation and signatures of the package serve nobody here.
    workspace::remove(&dir.join("usr/share"))?;
    // depmod looks below /lib, which newer packages leave to be a link.
    if !dir.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", dir.join("lib"))?;
    }
    command::run(Command::new("depmod").arg("-b").arg(dir).arg(&kernel.release))
}

fn unpacked(dir: &Path) -> Result<Kernel> {
    let bad = || format!("no kernel in {}; remove that directory and try again", dir.display());
    let parent = ["lib/modules", "usr/lib/modules"]
        .map(|path| dir.join(path))
        .into_iter()
        .find(|path| path.is_dir())
        .with_context(bad)?;
    let modules = fs::read_dir(parent)?.next().with_context(bad)??.path();
    let release = modules.file_name().with_context(bad)?.to_string_lossy().into_owned();
    let in_modules = modules.join("vmlinuz");
    let image = Some(dir.join(format!("boot/vmlinuz-{release}")))
        .filter(|path| path.exists())
        .unwrap_or(in_modules);
    ensure!(image.exists(), bad());
    Ok(Kernel { image, modules, release })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> Listed {
        Listed {
            series: String::new(),
            suite: String::new(),
            package: name.to_owned(),
            beside: Vec::new(),
            else_newest_of: None,
            default: false,
        }
    }

    #[test]
    fn stem_keeps_the_series() {
        assert_eq!(package("linux-image-6.1.0-56-cloud-amd64").stem(), "linux-image-6.1.");
        assert_eq!(package("linux-image-6.12.117+deb12-cloud-amd64").stem(), "linux-image-6.12.");
    }

    #[test]
    fn numbers_order_versions() {
        assert!(numbers("linux-image-6.12.117+deb12") > numbers("linux-image-6.12.99+deb12"));
    }
}
