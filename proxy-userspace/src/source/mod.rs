//! Where Services come from. A source turns what it watches into a [`crate::model::Snapshot`]; it
//! never learns what became of it.
//!
//! `file` reads manifests of the objects Kubernetes itself uses, so that a gateway without a
//! cluster is configured with the words of one:
//!
//! ```text
//! files ──document──▶ manifest ──convert──▶ model::Snapshot + notices
//!                        └────────┴──▶ problem: file, line, column, object, field, cure
//! ```
//!
//! What the API server has stored is read by the same code, see [`Stored`].

mod convert;
mod document;
pub mod file;
mod manifest;
pub mod problem;
#[cfg(test)]
mod tests;
pub mod watch;

pub use convert::{Converted, Identity, Kind, Stored, StoredOutcome};
pub use file::{load, load_for};
pub use problem::{Fault, Found, LoadError, Place, Problem};
pub use watch::{Watch, watch};
