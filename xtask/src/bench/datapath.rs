//! `cargo xtask bench datapath`: what a packet costs.

use std::process::ExitCode;

use anyhow::Result;

use crate::build_ebpf;
use crate::command::Consent;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the verb.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    let ladder = build_ebpf::build_ladder(consent)?;
    println!("{}", ladder.display());
    Ok(ExitCode::SUCCESS)
}
