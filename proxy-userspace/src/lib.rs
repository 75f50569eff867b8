//! The agent and command line of Passlane.
//!
//! ```text
//! source ──events──▶ model::Snapshot ──▶ plan ──Vec<Action>──▶ apply ──▶ kernel
//!                                         ▲                                │
//!                                         └──────── observed state ◀───────┘
//! ```
//!
//! `model` and `plan` are pure: no clock, no kernel, no randomness. All I/O on the node is in
//! `kernel`. `cargo xtask lint` checks who may import whom.

pub mod kernel;
pub mod model;
pub mod plan;
pub mod source;
pub mod config;
pub mod ledger;
