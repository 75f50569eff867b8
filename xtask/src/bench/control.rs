//! `cargo xtask bench control`: builds the bench for release and runs it here, with a kernel that is
//! made up, and in a guest with the real one. Needs no root.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::command::{Consent, progress};
use crate::vm::{self, Accelerator, Guest, Streams, kernels};
use crate::{artifacts, build_ebpf, packages, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
    /// Measure this size (repeatable) [default: 1000x4 10000x10 30000x4 50000x5]
    #[arg(long, value_name = "SERVICESxENDPOINTS")]
    size: Vec<String>,
    /// Measure this size in the guest (repeatable) [default: 1000x4 10000x10 50000x5]
    #[arg(long, value_name = "SERVICESxENDPOINTS", conflicts_with = "no_guest")]
    guest_size: Vec<String>,
    /// Kernel series of the guest, as tests/kernels.toml lists them
    #[arg(long, default_value = vm::DEFAULT_KERNEL)]
    kernel: String,
    /// Do not measure in a guest
    #[arg(long)]
    no_guest: bool,
    /// Measure changes of a size for so many seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the verb; the exit status of a bench that fails is ours.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    packages::ensure(&[packages::BUILD], consent)?;
    build_ebpf::build(consent)?;
    let built = artifacts::build(&["--release", "--bin", "bench-control"])?;
    let bench = artifacts::one(&built, "bench-control")?;
    if !args.no_guest {
        in_guest(args, &bench, consent)?;
    }
    let mut command = Command::new(bench);
    command.args(["--seconds", &args.seconds.to_string()]);
    command.args(args.json.then_some("--json"));
    for size in &args.size {
        command.args(["--size", size]);
    }
    progress("measuring natively; other load on this machine shows in the numbers");
    let status = command.status().context("cannot start the bench")?;
    Ok(vm::exit_code(status.code().unwrap_or(1)))
}

/// Measures against a real kernel. Where there is no KVM its instructions are emulated, so only the
/// ratios of these times say something.
fn in_guest(args: &Args, bench: &Path, consent: Consent) -> Result<()> {
    packages::ensure(&[packages::GUEST], consent)?;
    let kernel = kernels::find(&args.kernel)?.obtain(consent)?;
    let mut command = vec![artifacts::text(bench)?];
    command.extend(["--kernel", "real", "--seconds"].map(str::to_owned));
    command.push(args.seconds.to_string());
    let default = ["1000x4", "10000x10", "50000x5"].map(str::to_owned);
    let sizes = if args.guest_size.is_empty() { &default[..] } else { &args.guest_size };
    for size in sizes {
        command.extend(["--size".to_owned(), size.clone()]);
    }
    progress(&format!("measuring in a guest with Linux {}", args.kernel));
    let guest = Guest {
        kernel,
        command,
        environment: BTreeMap::new(),
        directory: workspace::root(),
        memory: "4G".to_owned(),
        cpus: 2,
        accelerator: Accelerator::Auto,
        timeout: Some(Duration::from_mins(30)),
        keep_log: false,
        consent,
    };
    let status = guest.run(Streams::Inherit)?;
    ensure!(status == 0, "the bench in the guest failed");
    Ok(())
}
