//! `cargo xtask bench hash`: what the tables of scheduler `mh` cost. Natively, as no root and no kernel
//! is needed for it.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::command::progress;
use crate::{vm, workspace};

/// Runs the verb; the exit status of a bench that fails is ours.
pub(crate) fn main() -> Result<ExitCode> {
    progress("measuring natively; other load on this machine shows in the numbers");
    let mut cargo = workspace::cargo();
    cargo.args(["bench", "--quiet", "--package", "proxy-common"]);
    cargo.args(["--features", "user", "--bench", "hash"]);
    let status = cargo.status().context("cannot start cargo")?;
    Ok(vm::exit_code(status.code().unwrap_or(1)))
}
