//! An agent that is expected to refuse: how it ended and what it said.

use anyhow::{Result, ensure};

use crate::agent::Agent;

/// Exit code of a missing precondition.
pub const PRECONDITION: i32 = 3;

/// Starts an agent that must end by itself with [`PRECONDITION`], without a panic, and say all of
/// `words`, in any case.
pub fn refuses(agent: &mut Agent, words: &[&str]) -> Result<()> {
    agent.spawn()?;
    let status = agent.wait_ended()?;
    let log = agent.log();
    let lower = log.to_lowercase();
    for word in words {
        ensure!(lower.contains(&word.to_lowercase()), "{word:?} is not mentioned:\n{log}");
    }
    ensure!(!lower.contains("panicked"), "it panicked:\n{log}");
    ensure!(status.code() == Some(PRECONDITION), "it ended with {status}:\n{log}");
    Ok(())
}
