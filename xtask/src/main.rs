//! Project automation: one file a verb.

mod build_ebpf;
mod command;
mod debian;
mod packages;
mod workspace;

use anyhow::Result;
use clap::Parser;

/// Builds, checks and runs Passlane. Installs what it needs, after asking.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = false)]
enum Verb {
    /// Build the BPF object and print its programs and maps
    BuildEbpf(build_ebpf::Args),
}

fn main() -> Result<()> {
    command::start_clock();
    match Verb::parse() {
        Verb::BuildEbpf(args) => build_ebpf::main(&args),
    }
}
