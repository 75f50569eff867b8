//! `cargo xtask bench control`: builds the bench for release and runs it here. Needs no root.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::command::{Consent, progress};
use crate::{artifacts, build_ebpf, packages, vm};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
    /// Measure this size (repeatable) [default: 1000x4 10000x10 30000x4 50000x5]
    #[arg(long, value_name = "SERVICESxENDPOINTS")]
    size: Vec<String>,
    /// Measure changes of a size for so many seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the verb; the bench's exit status is ours.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    packages::ensure(&[packages::BUILD], consent)?;
    build_ebpf::build(consent)?;
    let built = artifacts::build(&["--release", "--bin", "bench-control"])?;
    let mut bench = Command::new(artifacts::one(&built, "bench-control")?);
    bench.args(["--seconds", &args.seconds.to_string()]);
    bench.args(args.json.then_some("--json"));
    for size in &args.size {
        bench.args(["--size", size]);
    }
    progress("measuring; other load on this machine shows in the numbers");
    let status = bench.status().context("cannot start the bench")?;
    Ok(vm::exit_code(status.code().unwrap_or(1)))
}
