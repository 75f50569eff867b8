//! `cargo xtask bench`: measurements, one file a subject.

mod audit;
mod control;
mod datapath;
mod hash;

use std::process::ExitCode;

use anyhow::Result;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subject {
    /// Watching over a large node: what it costs idle, and when a change is put back
    Audit(audit::Args),
    /// Deciding, encoding and applying, at the size of large clusters
    Control(control::Args),
    /// What a packet costs: programs natively, whole paths in counted instructions
    Datapath(datapath::Args),
    /// The tables of scheduler mh
    Hash,
}

/// Runs the verb.
pub(crate) fn main(subject: &Subject) -> Result<ExitCode> {
    match subject {
        Subject::Audit(args) => audit::main(args),
        Subject::Control(args) => control::main(args),
        Subject::Datapath(args) => datapath::main(args),
        Subject::Hash => hash::main(),
    }
}
