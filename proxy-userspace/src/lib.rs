//! The agent and command line of Passlane.
//!
//! ```text
//! source ──events──▶ model::Snapshot ──▶ plan ──Vec<Action>──▶ apply ──▶ kernel
//!                                         ▲                                │
//!                                         └── audit::observe ◀─────────────┘
//! ```
//!
//! `model` and `plan` are pure: no clock, no kernel, no randomness. All I/O on the node is in
//! `kernel`. `agent` runs the loop, `cli` has one file a verb. `cargo xtask lint` checks who may
//! import whom.

pub mod admin;
pub mod agent;
pub mod apply;
pub mod audit;
pub mod chain;
pub mod checks;
pub mod cli;
pub mod config;
pub mod explain;
pub mod health;
pub mod kernel;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod plan;
pub mod source;
pub mod status;
pub mod tally;
