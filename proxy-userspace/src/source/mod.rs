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

mod convert;
mod document;
pub mod file;
mod manifest;
pub mod problem;
#[cfg(test)]
mod tests;
pub mod watch;

pub use file::load;
pub use problem::{Fault, Found, LoadError, Place, Problem};
pub use watch::{Watch, watch};
