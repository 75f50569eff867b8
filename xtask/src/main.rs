//! Project automation: one file a verb.

mod build_ebpf;
mod command;
mod debian;
mod packages;
mod vm;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Builds, checks and runs Passlane. Installs what it needs, after asking.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Build the BPF object and print its programs and maps
    BuildEbpf(build_ebpf::Args),
    /// Run a command as root on a stock kernel, in a guest with this machine's files
    Vm(vm::Args),
    #[command(hide = true)]
    GuestInit,
}

fn main() -> ExitCode {
    command::start_clock();
    let done = dispatch(Verb::parse());
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::BuildEbpf(args) => build_ebpf::main(&args)?,
        Verb::Vm(args) => return vm::main(args),
        Verb::GuestInit => vm::guest_init::main()?,
    }
    Ok(ExitCode::SUCCESS)
}
