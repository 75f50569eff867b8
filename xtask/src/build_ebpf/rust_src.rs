//! The source of `core`, which no toolchain carries compiled for BPF.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{self, Consent, progress};
use crate::debian::Suite;
use crate::workspace;

/// The `library` directory of the Rust source tree.
pub(super) struct Library {
    pub(super) dir: PathBuf,
    /// Cargo finds it by itself.
    pub(super) in_sysroot: bool,
}

/// Suites that carry `rust-src`, the smallest index first.
const SUITES: &[&str] = &["trixie-backports", "trixie", "forky", "sid"];

/// Finds the source that belongs to the rustc in use, or gets it.
pub(super) fn find_or_obtain(consent: Consent) -> Result<Library> {
    if let Some(found) = in_sysroot()? {
        progress(&format!("rust-src: the toolchain's own, {}", found.dir.display()));
        return Ok(found);
    }
    let version = rustc_version()?;
    let name = format!("rust-src-{version}");
    if let Some(dir) = workspace::cached(&name) {
        progress(&format!("rust-src: cached, {}", dir.display()));
        return Ok(Library { dir: library_in(&dir, &version), in_sysroot: false });
    }
    if let Some(found) = from_rustup(consent)? {
        progress("rust-src: added to the toolchain by rustup");
        return Ok(found);
    }
    let mut source = String::new();
    let dir = workspace::cache(&name, |dir| {
        source = from_debian(&version, dir, consent)?;
        Ok(())
    })
    .with_context(|| {
        format!("no rust-src for rustc {version}; run `rustup component add rust-src`")
    })?;
    progress(&format!("rust-src: {source}, unpacked to {}", dir.display()));
    Ok(Library { dir: library_in(&dir, &version), in_sysroot: false })
}

fn library_in(dir: &Path, version: &str) -> PathBuf {
    dir.join(format!("usr/src/rustc-{version}/library"))
}

fn in_sysroot() -> Result<Option<Library>> {
    let sysroot = command::output(rustc().args(["--print", "sysroot"]))?;
    let dir = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    Ok(dir.join("core/Cargo.toml").exists().then_some(Library { dir, in_sysroot: true }))
}

fn rustc_version() -> Result<String> {
    let text = command::output(rustc().arg("--version"))?;
    let version = text.split_whitespace().nth(1);
    version.map(str::to_owned).with_context(|| format!("rustc said `{}`", text.trim()))
}

fn rustc() -> Command {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    // The workspace's rust-toolchain.toml decides which rustc answers.
    rustc.current_dir(workspace::root());
    rustc
}

fn from_rustup(consent: Consent) -> Result<Option<Library>> {
    // The machine's owner may have said that rustup installs nothing by itself.
    let forbidden = std::env::var_os("RUSTUP_AUTO_INSTALL").is_some_and(|value| value == "0");
    if forbidden || command::find("rustup").is_none() {
        return Ok(None);
    }
    consent.ask("adding rust-src to the toolchain", "rustup component add rust-src")?;
    // Without a network this fails within seconds; Debian's package is next.
    let mut rustup = Command::new("timeout");
    rustup.args(["60", "rustup", "component", "add", "rust-src"]).current_dir(workspace::root());
    match command::output(&mut rustup) {
        Ok(_) => in_sysroot(),
        Err(_) => Ok(None),
    }
}

fn from_debian(version: &str, into: &Path, consent: Consent) -> Result<String> {
    for name in SUITES {
        let suite = Suite::open(name, consent)?;
        let versions = suite.versions("rust-src")?;
        if let Some(full) = versions.iter().find(|full| upstream(full) == version) {
            suite.unpack(&format!("rust-src={full}"), into)?;
            if !library_in(into, version).join("core/Cargo.toml").exists() {
                bail!("Debian's rust-src {full} has no library/core");
            }
            return Ok(format!("Debian {name} package {full}"));
        }
    }
    bail!("Debian suites {} do not have version {version}", SUITES.join(", "))
}

/// `1.95.0+dfsg1-2~bpo13+1` is upstream's 1.95.0.
fn upstream(version: &str) -> &str {
    version.split(['+', '-', '~']).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    #[test]
    fn upstream_version_ends_at_debian_additions() {
        assert_eq!(super::upstream("1.95.0+dfsg1-2~bpo13+1"), "1.95.0");
        assert_eq!(super::upstream("1.95.0"), "1.95.0");
    }
}
