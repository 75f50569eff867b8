//! What cargo builds, and where it puts it.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::command::{self, progress};
use crate::workspace;

/// A built executable.
#[derive(Debug)]
pub(crate) struct Executable {
    /// The name of its Cargo target.
    pub(crate) target: String,
    pub(crate) path: PathBuf,
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds targets such as `--bin passlane` and returns the executables, made or found fresh.
///
/// No package is named: cargo would then choose other features for the shared dependencies than
/// `cargo test` does, and compile all of them again.
///
/// The agent's build script takes the BPF object from where `build-ebpf` puts it.
pub(crate) fn build(targets: &[&str]) -> Result<Vec<Executable>> {
    build_as(targets, |_| ())
}

/// The same, by a cargo that `prepare` gave an environment.
pub(crate) fn build_as(
    targets: &[&str],
    prepare: impl FnOnce(&mut Command),
) -> Result<Vec<Executable>> {
    progress(&format!("building {}", targets.join(" ")));
    let mut cargo = workspace::cargo();
    prepare(&mut cargo);
    cargo
        .arg("build")
        .args(targets)
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let shown = command::shown(&cargo);
    let mut child = cargo.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut built = Vec::new();
    for message in serde_json::Deserializer::from_reader(BufReader::new(stdout)).into_iter() {
        let message: Message = message.with_context(|| format!("`{shown}` wrote no JSON"))?;
        if let (Some(path), Some(target)) = (message.executable, message.target)
            && message.reason == "compiler-artifact"
        {
            built.push(Executable { target: target.name, path });
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "`{shown}` failed: {status}");
    Ok(built)
}

/// The path as text, as command lines and environments of guests are.
pub(crate) fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| format!("{}: not text", path.display()))
}

/// The executable of the target `name`.
pub(crate) fn one(built: &[Executable], name: &str) -> Result<PathBuf> {
    built
        .iter()
        .find(|executable| executable.target == name)
        .map(|executable| executable.path.clone())
        .with_context(|| format!("cargo built no executable `{name}`"))
}
