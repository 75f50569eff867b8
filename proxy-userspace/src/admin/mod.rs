//! The admin socket: what the command line asks a running agent.
//!
//! One question on one line of JSON, one answer on one line, and the connection ends. Only root and
//! the agent's own user may ask.

pub mod client;
mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use server::{Error, Request, open};

use crate::plan::review::Row;

/// The version of the questions and answers; another one is refused.
pub const VERSION: u32 = 1;
/// Its name in the state directory.
pub const SOCKET: &str = "admin.sock";

/// What may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// What the agent says of itself.
    Status,
    /// What is wanted, the kernel's tables and the BPF maps side by side, read now.
    Diff,
    /// An audit now, with what it finds put back.
    Fix,
}

/// A question.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub verb: Verb,
    /// With `diff`: also what agrees.
    #[serde(default)]
    pub all: bool,
}

/// An answer: one of the two is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Value>,
    /// Why there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The answer to `diff`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// An agent compared; otherwise nobody knows what is wanted.
    pub agent: bool,
    /// Objects that differ, or all that were asked for.
    pub rows: Vec<Row>,
    /// How many virtual servers and destinations agree.
    pub same: usize,
    /// What is there of others; it is never touched.
    pub foreign: Vec<Foreign>,
    /// What could not be compared, a sentence each.
    pub unknown: Vec<String>,
}

/// Something that is not ours.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Foreign {
    /// What kind of thing.
    pub kind: String,
    /// Which one.
    pub object: String,
}

/// The answer to `fix`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Fixed {
    /// What others had changed, a sentence each.
    pub drifts: Vec<String>,
    /// What could not be put back, a sentence each.
    pub errors: Vec<String>,
}
