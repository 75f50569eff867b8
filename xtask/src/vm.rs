//! `cargo xtask vm`: runs a command as root on a stock kernel, with the host's files.

mod console;
mod frame;
mod guest;
pub(crate) mod guest_init;
pub(crate) mod initramfs;
pub(crate) mod kernels;
mod qemu;
mod terminal;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

pub(crate) use guest::{Guest, Streams};
pub(crate) use qemu::Accelerator;

use crate::command::Consent;
use crate::packages;

/// The kernel that guests run when none is named.
pub(crate) const DEFAULT_KERNEL: &str = "6.12";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernel series, as tests/kernels.toml lists them
    #[arg(long, default_value = DEFAULT_KERNEL)]
    kernel: String,
    /// Memory of the guest
    #[arg(long, default_value = "2G")]
    memory: String,
    /// Virtual CPUs of the guest
    #[arg(long, default_value_t = 2)]
    cpus: u8,
    /// End the guest after this many seconds; 0 is never [default: 600, never for a terminal]
    #[arg(long)]
    timeout: Option<u64>,
    /// How the guest's instructions are executed
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accelerator,
    /// Keep the console log of a good run too
    #[arg(long)]
    keep_log: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

/// Runs the verb; the command's exit status is ours.
pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    packages::ensure(&[packages::GUEST], consent)?;
    let kernel = kernels::find(&args.kernel)?.obtain(consent)?;
    let default = if io::stdin().is_terminal() { 0 } else { 600 };
    let timeout = Some(args.timeout.unwrap_or(default)).filter(|seconds| *seconds > 0);
    let guest = Guest {
        kernel,
        command: args.command,
        environment: BTreeMap::new(),
        directory: std::env::current_dir()?,
        memory: args.memory,
        cpus: args.cpus,
        accelerator: args.accel,
        timeout: timeout.map(Duration::from_secs),
        keep_log: args.keep_log,
        consent,
    };
    let status = guest.run(Streams::Inherit)?;
    Ok(exit_code(status))
}

/// An exit status as ours; what does not fit one byte is a plain failure.
pub(crate) fn exit_code(status: i32) -> ExitCode {
    u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
}
