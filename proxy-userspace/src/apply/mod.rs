//! Carries out plans: the one place where an action becomes a change of the node.

mod batch;
mod executor;
pub mod sync_daemon;
mod tally;

pub use executor::{Executor, Failure, Outcome, forget_counts};
pub use tally::{Search, Tally, Tries};
