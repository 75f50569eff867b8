//! Whether backends live, for Services that ask for health checks.
//!
//! ```text
//! plan::Checked ──▶ Book: one Target for each way to check an address, however many use it
//!                     │ start, stop            ▲ State, when it changed
//!                     ▼                        │
//!                   Runner: a task each ──▶ kernel::check
//! ```
//!
//! [`state`] and [`book`] decide, and have neither clock nor sockets. What the book says is an input
//! of the plan, `plan::Failed`, and is kept in a file for the command line and the next agent.

pub mod book;
pub mod file;
mod runner;
pub mod state;

pub use book::{Book, Target};
pub use file::BackendCheck;
pub use runner::{Changed, Runner};
pub use state::{Change, State};
