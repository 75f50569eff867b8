//! bpf-linker, in the one version that fits the LLVM of our rustc.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{self, Consent, progress};
use crate::workspace;

/// Newer versions want a newer LLVM than rustc 1.95 has.
const VERSION: &str = "0.10.4";

/// Finds bpf-linker on PATH or in the cache, or installs it into the cache.
pub(super) fn find_or_obtain(consent: Consent) -> Result<PathBuf> {
    if let Some(path) = command::find("bpf-linker")
        && version_of(&path).as_deref() == Some(VERSION)
    {
        progress(&format!("bpf-linker {VERSION}: {}", path.display()));
        return Ok(path);
    }
    let name = format!("bpf-linker-{VERSION}");
    if let Some(dir) = workspace::cached(&name) {
        let path = dir.join("bin/bpf-linker");
        progress(&format!("bpf-linker {VERSION}: cached, {}", path.display()));
        return Ok(path);
    }
    let by_hand = format!("cargo install --locked bpf-linker --version {VERSION}");
    consent
        .ask(&format!("installing bpf-linker {VERSION} with cargo (about 2 minutes)"), &by_hand)?;
    let dir = workspace::cache(&name, install)
        .with_context(|| format!("no bpf-linker {VERSION}; run `{by_hand}`"))?;
    Ok(dir.join("bin/bpf-linker"))
}

fn install(root: &Path) -> Result<()> {
    let objects = workspace::target().join("bpf-linker-build");
    command::run(
        workspace::cargo()
            .args(["install", "--locked", "--quiet", "bpf-linker", "--version", VERSION, "--root"])
            .arg(root)
            .env("CARGO_TARGET_DIR", &objects)
            .env_remove("RUSTFLAGS"),
    )?;
    // Built once a machine: its half gigabyte of objects serves nobody.
    workspace::remove(&objects)
}

fn version_of(path: &Path) -> Option<String> {
    let text = command::output(Command::new(path).arg("--version")).ok()?;
    text.split_whitespace().last().map(str::to_owned)
}
