//! Project automation: one file a verb.

mod abi;
mod artifacts;
mod bench;
mod build_ebpf;
mod chart_tools;
mod cluster_tools;
mod command;
mod debian;
mod demo;
mod image;
mod lint;
mod packages;
mod test;
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
    /// Check formatting, clippy and the workspace's own rules
    Lint(lint::Args),
    /// Write proxy-common/ABI.md from the types, or check it
    Abi(abi::Args),
    /// Run the tests and sum them up
    Test(test::Args),
    /// Write the container image, an OCI archive, without a daemon
    Image(image::Args),
    /// Show Passlane at work, in a guest when this kernel has no IPVS
    Demo(demo::Args),
    /// Measure, in numbers that can be compared
    #[command(subcommand)]
    Bench(bench::Subject),
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
        Verb::Lint(args) => lint::main(&args)?,
        Verb::Abi(args) => abi::main(&args)?,
        Verb::Test(args) => return test::main(args),
        Verb::Image(args) => image::main(&args)?,
        Verb::Demo(args) => return demo::main(&args),
        Verb::Bench(subject) => return bench::main(&subject),
        Verb::GuestInit => vm::guest_init::main()?,
    }
    Ok(ExitCode::SUCCESS)
}
