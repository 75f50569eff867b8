//! Where Services come from. A [`Source`] turns what it watches into [`crate::model::Update`]s; it
//! never learns what became of it.
//!
//! `file` reads manifests of the objects Kubernetes itself uses, so that a gateway without a
//! cluster is configured with the words of one; `kubernetes` watches the API server:
//!
//! ```text
//! files ──document──▶ manifest ──┐
//! API server ──kubernetes──▶ ────┴─convert──▶ model::Update + notices
//!                                      └──▶ problem: file, line, column, object, field, cure
//! ```
//!
//! What the API server has stored is read by the same code, see [`Stored`].

mod convert;
mod document;
mod event;
pub mod file;
pub mod kubernetes;
mod manifest;
pub mod problem;
pub mod snapshot_file;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod watched_files;

pub use convert::{Converted, Identity, Kind, Stored, StoredOutcome};
pub use event::{Source, SourceError, SourceEvent, Trigger};
pub use file::{load, load_for};
pub use problem::{Fault, Found, LoadError, Place, Problem};
pub use watch::{Watch, watch};
