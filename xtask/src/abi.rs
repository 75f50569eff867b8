//! `cargo xtask abi`: proxy-common/ABI.md, written from the types, and its version.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use proxy_common::abi::{ABI_VERSION, describe};

use crate::command::{self, progress};
use crate::workspace;

const FILE: &str = "proxy-common/ABI.md";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail when the file is not what the types say
    #[arg(long)]
    check: bool,
}

/// Runs the verb.
pub(crate) fn main(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    if workspace::write_if_changed(&path(), describe().as_bytes())? {
        progress(&format!("wrote {FILE}"));
    }
    versioned(committed().as_deref(), &describe(), ABI_VERSION)
}

/// Fails when the file differs from the types, or the types from the last commit without a new
/// version.
pub(crate) fn check() -> Result<()> {
    let file = fs::read_to_string(path()).unwrap_or_default();
    ensure!(file == describe(), "{FILE} is not what the types say; run `cargo xtask abi`");
    versioned(committed().as_deref(), &file, ABI_VERSION)
}

fn path() -> PathBuf {
    workspace::root().join(FILE)
}

/// The file as last committed; none in a tree without it or without git.
fn committed() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["show", &format!("HEAD:{FILE}")]).current_dir(workspace::root());
    command::output(&mut git).ok()
}

/// A changed layout under an old version would let a new agent use old maps.
fn versioned(committed: Option<&str>, now: &str, version: u32) -> Result<()> {
    let Some(before) = committed.filter(|before| *before != now) else { return Ok(()) };
    let old = version_in(before).with_context(|| format!("{FILE} in HEAD names no version"))?;
    if old == version {
        bail!("the map ABI changed and ABI_VERSION is still {version}; raise it in proxy-common");
    }
    Ok(())
}

/// The number in the first line, which reads `# Map ABI, version 1`.
fn version_in(text: &str) -> Option<u32> {
    text.lines().next()?.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_in_the_first_line() {
        assert_eq!(version_in(&describe()), Some(ABI_VERSION));
    }

    #[test]
    fn a_change_needs_a_new_version() {
        let before = "# Map ABI, version 1\na u32\n";
        assert!(versioned(Some(before), before, 1).is_ok());
        assert!(versioned(None, before, 1).is_ok());
        assert!(versioned(Some(before), "# Map ABI, version 2\na u64\n", 2).is_ok());
        let error = versioned(Some(before), "# Map ABI, version 1\na u64\n", 1).unwrap_err();
        assert!(error.to_string().contains("ABI_VERSION is still 1"), "{error}");
    }
}
