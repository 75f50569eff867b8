//! Decides what changes: (snapshot, node facts, settings) → desired; (desired, observed) → actions.
//!
//! ```text
//! model::Snapshot ──desired()──▶ Desired ──┐
//!                                          ├──plan()──▶ Plan { actions, conflicts, draining }
//! kernel reads ────────────────▶ Observed ─┘               │
//!                                   ▲────Observed::apply───┘
//! ```
//!
//! Pure: no clock, no kernel, no randomness; the same input gives the same bytes. A [`Planner`]
//! keeps the desired state and takes up changes one by one, at a cost that depends on the change
//! only; a full resync is the same comparison over everything, with a freshly read [`Observed`].
//! The order of the actions is the one table in [`order`].

pub mod action;
mod adoption;
mod claims;
mod counted;
pub mod desired;
mod destinations;
mod diff;
mod display;
pub mod drift;
mod endpoints;
pub mod hash_plane;
mod ids;
pub mod interfaces;
pub mod observed;
pub mod order;
mod planner;
pub mod review;
mod servers;
pub mod settings;
mod standing;
#[cfg(test)]
mod tests;
mod unserved;
pub mod uplinks;

pub use action::{Action, Plan};
pub use adoption::{Adoption, adoption};
pub use counted::Counted;
pub use desired::{Admission, Desired, DesiredServer, HealthCheck, Origin, desired, desired_with};
pub use destinations::Destinations;
pub use diff::{Drains, plan};
pub use drift::{Drift, drift};
pub use hash_plane::{HashPlane, Plane, WhyIpvs};
pub use ids::{IdMap, Limits, Numbered};
pub use observed::{FrontendEntry, Observed, ObservedServer, ObservedTable};
pub use planner::Planner;
pub use settings::{DetectLocal, ExternalIps, NodeFacts, Settings};
pub use standing::{Checked, Failed};
pub use unserved::Unserved;
