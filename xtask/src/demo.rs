//! `cargo xtask demo`: Passlane at work, in one command on a bare machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::command::{self, Consent, progress};
use crate::vm::{self, Accelerator, Guest, Streams, kernels};
use crate::{artifacts, build_ebpf, packages};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run in a guest with this kernel series [default: this machine if it has IPVS, else 6.12]
    #[arg(long)]
    kernel: Option<String>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    /// Leave what the demo set up in place (on this machine only)
    #[arg(long)]
    keep: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the verb; the demo's exit status is ours.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    packages::ensure(&[packages::BUILD, packages::NETWORK], consent)?;
    build_ebpf::build(consent)?;
    let built = artifacts::build(&["--bin", "passlane", "--bin", "demo"])?;
    let (agent, demo) = (artifacts::one(&built, "passlane")?, artifacts::one(&built, "demo")?);
    let mut command = vec![demo.display().to_string()];
    command.extend(args.json.then(|| "--json".to_owned()));
    command.extend(args.keep.then(|| "--keep".to_owned()));
    if args.kernel.is_none() && can_run_here() {
        progress("running on this machine's kernel");
        return natively(&command, &agent);
    }
    packages::ensure(&[packages::GUEST], consent)?;
    let series = args.kernel.as_deref().unwrap_or(vm::DEFAULT_KERNEL);
    in_guest(command, &agent, series, consent)
}

fn natively(command: &[String], agent: &Path) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("the demo has a path")?;
    let status = Command::new(program)
        .args(arguments)
        .env("PASSLANE_BIN", agent)
        .status()
        .with_context(|| format!("cannot start {program}"))?;
    Ok(vm::exit_code(status.code().unwrap_or(1)))
}

fn in_guest(
    command: Vec<String>,
    agent: &Path,
    series: &str,
    consent: Consent,
) -> Result<ExitCode> {
    let text = |path: &Path| path.display().to_string();
    let guest = Guest {
        kernel: kernels::find(series)?.obtain(consent)?,
        command,
        environment: BTreeMap::from([("PASSLANE_BIN".to_owned(), text(agent))]),
        directory: std::env::current_dir()?,
        memory: "2G".to_owned(),
        cpus: 2,
        accelerator: Accelerator::Auto,
        timeout: Some(Duration::from_secs(600)),
        keep_log: false,
        consent,
    };
    Ok(vm::exit_code(guest.run(Streams::Inherit)?))
}

/// Root, and a kernel that has ip_vs loaded or as a module.
fn can_run_here() -> bool {
    let has_ip_vs = Path::new("/proc/net/ip_vs").exists()
        || command::find("modprobe").is_some_and(|modprobe: PathBuf| {
            command::output(Command::new(modprobe).args(["-n", "ip_vs"])).is_ok()
        });
    rustix::process::geteuid().is_root() && has_ip_vs
}
