//! `cargo xtask bench`: measurements, one file a subject.

mod control;

use std::process::ExitCode;

use anyhow::Result;

/// What to measure.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subject {
    /// Deciding and encoding, at the size of large clusters, with a kernel that is made up
    Control(control::Args),
}

/// Runs the verb.
pub(crate) fn main(subject: &Subject) -> Result<ExitCode> {
    match subject {
        Subject::Control(args) => control::main(args),
    }
}
