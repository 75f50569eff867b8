//! `cargo xtask lint`: rustfmt, clippy, and the rules of this workspace that no tool knows.

mod imports;
mod sizes;
mod source;
mod unsafe_code;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Consent, progress};
use crate::{abi, build_ebpf, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    text: String,
}

/// Members whose source the rules read.
const MEMBERS: &[&str] = &[
    "bench-ebpf/src",
    "proxy-common/src",
    "proxy-ebpf/src",
    "proxy-userspace/src",
    "tests",
    "xtask/src",
];

/// Runs the verb: everything is checked before it fails.
pub(crate) fn main(args: &Args) -> Result<()> {
    let mut failed = Vec::new();
    let mut step = |name: &'static str, done: Result<()>| {
        if let Err(error) = done {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    };
    step("rules", rules());
    step("abi", abi::check());
    progress("rustfmt");
    step("rustfmt", command::run(workspace::cargo().args(["fmt", "--all", "--check"])));
    // The agent embeds the object, so clippy cannot compile it without.
    let object = build_ebpf::build(Consent::new(args.yes));
    step("build-ebpf", object.map(|_| ()));
    progress("clippy");
    step("clippy", clippy());
    ensure!(failed.is_empty(), "lint failed: {}", failed.join(", "));
    Ok(())
}

fn clippy() -> Result<()> {
    let arguments = ["clippy", "--quiet", "--all-targets", "--", "-D", "warnings"];
    command::run(workspace::cargo().args(arguments))
}

fn rules() -> Result<()> {
    let root = workspace::root();
    let dependencies = dependencies(&root.join("proxy-userspace/Cargo.toml"))?;
    let mut files = Vec::new();
    for member in MEMBERS {
        rust_files(&root.join(member), &mut files)?;
    }
    files.sort();
    let mut violations = Vec::new();
    let mut with_unsafe = Vec::new();
    for path in &files {
        let file = path.strip_prefix(&root)?.to_string_lossy().into_owned();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        let tokens = source::tokens(&text);
        violations.extend(unsafe_code::check(&file, &tokens));
        if tokens.iter().any(|token| token.text == "unsafe") {
            with_unsafe.push(file.clone());
        }
        // Tests may be long, and may look everywhere.
        if file.starts_with("tests/") || file.ends_with("tests.rs") {
            continue;
        }
        violations.extend(sizes::check(&file, &tokens));
        if let Some(path) = file.strip_prefix("proxy-userspace/src/") {
            violations.extend(imports::check(path, &tokens, &dependencies));
        }
    }
    violations.extend(unsafe_code::stale(|file| with_unsafe.iter().any(|known| known == file)));
    for Violation { file, line, text } in &violations {
        println!("{file}:{line}: {text}");
    }
    ensure!(violations.is_empty(), "{} rules broken in {} files", violations.len(), files.len());
    progress(&format!("rules hold in {} files", files.len()));
    Ok(())
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

/// The names under which a crate's dependencies appear in its source.
fn dependencies(manifest: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    let manifest: toml::Table = toml::from_str(&text)?;
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    let names = table.into_iter().flat_map(toml::Table::keys);
    Ok(names.map(|name| name.replace('-', "_")).collect())
}
