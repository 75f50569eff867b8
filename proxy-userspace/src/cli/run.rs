//! `passlane run`.

use super::{Failure, logging};
use crate::{agent, config::RunFlags};

/// Runs the agent until it is stopped.
pub(super) fn run(flags: RunFlags, logging: &logging::Flags) -> Result<(), Failure> {
    flags.validate().map_err(Failure::Usage)?;
    logging.start();
    // One thread does the work: sockets of a network namespace belong to the thread that made
    // them, and so does the order of changes.
    super::block_on(async { Ok(agent::run(flags).await?) })
}
