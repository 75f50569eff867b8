//! `cargo xtask bench audit`: builds the bench and the agent for release and runs them in a guest.
//! And reads its maps natively, which needs root.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::command::{Consent, progress};
use crate::vm::{self, Accelerator, Guest, Streams, kernels};
use crate::{artifacts, build_ebpf, packages, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Services and endpoints of each
    #[arg(long, value_name = "SERVICESxENDPOINTS", default_value = "10000x4")]
    size: String,
    /// Kernel series of the guest, as tests/kernels.toml lists them
    #[arg(long, default_value = vm::DEFAULT_KERNEL)]
    kernel: String,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the verb. Where there is no KVM the guest's instructions are emulated: times are several
/// times longer than they are natively, and so are shares of a processor.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    packages::ensure(&[packages::BUILD, packages::GUEST, packages::NETWORK], consent)?;
    build_ebpf::build(consent)?;
    let built = artifacts::build(&["--release", "--bin", "bench-audit", "--bin", "passlane"])?;
    let bench = artifacts::one(&built, "bench-audit")?;
    let agent = artifacts::one(&built, "passlane")?;
    progress("reading maps natively (root); other load on this machine shows in the numbers");
    let maps = Command::new(&bench).args(["maps", &args.size]).status();
    ensure!(maps.context("cannot start the bench")?.success(), "the native bench failed");
    let kernel = kernels::find(&args.kernel)?.obtain(consent)?;
    progress(&format!("measuring in a guest with Linux {}, about 15 minutes", args.kernel));
    let environment = [("PASSLANE_BIN".to_owned(), artifacts::text(&agent)?)];
    let guest = Guest {
        kernel,
        command: vec![artifacts::text(&bench)?, "node".to_owned(), args.size.clone()],
        environment: BTreeMap::from(environment),
        directory: workspace::root(),
        memory: "4G".to_owned(),
        cpus: 2,
        accelerator: Accelerator::Auto,
        timeout: Some(Duration::from_mins(45)),
        keep_log: false,
        consent,
    };
    let status = guest.run(Streams::Inherit)?;
    ensure!(status == 0, "the bench in the guest failed");
    Ok(ExitCode::SUCCESS)
}
