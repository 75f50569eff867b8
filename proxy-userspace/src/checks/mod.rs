//! Whether backends live, for Services that ask for health checks.
//!
//! ```text
//! plan::Checked ──follow()──▶ Book: one Target for each (backend, check), however many Services
//!                               │ start, stop                     ▲ state, when it changed
//!                               ▼                                 │
//!                             runner: a task each ──▶ kernel::check ──▶ State: rise and fall
//! ```
//!
//! [`state`] decides and has neither clock nor sockets; what is tried is in `kernel::check`.

pub mod state;

pub use state::{Change, State};
