//! `cargo xtask bench`: measurements, one file a subject.

mod control;
mod datapath;

use std::process::ExitCode;

use anyhow::Result;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subject {
    /// Deciding, encoding and applying, at the size of large clusters
    Control(control::Args),
    /// What a packet costs: programs natively, whole paths in counted instructions
    Datapath(datapath::Args),
}

/// Runs the verb.
pub(crate) fn main(subject: &Subject) -> Result<ExitCode> {
    match subject {
        Subject::Control(args) => control::main(args),
        Subject::Datapath(args) => datapath::main(args),
    }
}
