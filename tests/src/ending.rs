//! An agent that is expected to refuse: how it ended and what it said.

use std::process::ExitStatus;

use anyhow::{Result, ensure};

use crate::stage::Stage;

/// Exit code of a missing precondition.
pub const PRECONDITION: i32 = 3;

/// Starts the agent of `stage`, which must end by itself with [`PRECONDITION`] and say all of
/// `words` in its log.
pub fn refuses(stage: &mut Stage, words: &[&str]) -> Result<()> {
    stage.agent.spawn()?;
    let status = stage.agent.wait_ended()?;
    said(status, &stage.agent.log(), words)
}

/// Checks that a process ended with [`PRECONDITION`] and said all of `words`, in any case.
pub fn said(status: ExitStatus, text: &str, words: &[&str]) -> Result<()> {
    let lower = text.to_lowercase();
    for word in words {
        ensure!(lower.contains(&word.to_lowercase()), "{word:?} is not mentioned:\n{text}");
    }
    ensure!(!lower.contains("panicked"), "it panicked:\n{text}");
    ensure!(status.code() == Some(PRECONDITION), "it ended with {status}:\n{text}");
    Ok(())
}
