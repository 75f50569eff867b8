//! Decides what changes: (snapshot, node facts) → desired; (desired, observed) → actions.
//!
//! ```text
//! model::Snapshot ──desired()──▶ Desired ──┐
//!                                          ├──plan()──▶ Plan { actions, conflicts }
//! kernel reads ────────────────▶ Observed ─┘               │
//!                                   ▲────Observed::apply───┘
//! ```
//!
//! Pure: no clock, no kernel, no randomness; the same input gives the same bytes. A full resync is
//! this same function over a freshly read [`Observed`]; there is no other code path for repair.
//! The order of the actions is the one table in [`order`].

pub mod action;
mod claims;
pub mod desired;
mod diff;
mod display;
mod endpoints;
mod ids;
pub mod interfaces;
pub mod observed;
pub mod order;
#[cfg(test)]
mod tests;

pub use action::{Action, Plan};
pub use desired::{Defaults, Desired, DesiredServer, NodeFacts, Origin, desired};
pub use diff::plan;
pub use ids::Limits;
pub use observed::{FrontendEntry, Observed, ObservedServer};
