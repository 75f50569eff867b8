//! What became of each field that was set.

use std::fmt;

use serde::Serialize;

/// What became of one field.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct FieldReport {
    /// Path of the field, such as `ipvs.scheduler`, or the flag with its dashes.
    pub field: String,
    /// The value as it was written.
    pub value: String,
    /// Where: `FILE:LINE`, or the flag.
    pub place: String,
    /// What became of it.
    #[serde(serialize_with = "as_text")]
    pub verdict: Verdict,
}

/// Whether a value is in force.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is.
    Used,
    /// It says nothing: empty, or what the field has anyhow.
    Unset,
    /// It is not, and nothing is lost, for this reason.
    Ignored(&'static str),
    /// It is not, and something is lost, for this reason.
    Unsupported(&'static str),
}

impl FieldReport {
    /// Says whether the operator should be told at the start.
    pub fn is_notable(&self) -> bool {
        matches!(self.verdict, Verdict::Ignored(_) | Verdict::Unsupported(_))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Used => f.write_str("used"),
            Self::Unset => f.write_str("not set"),
            Self::Ignored(reason) => write!(f, "ignored because {reason}"),
            Self::Unsupported(reason) => write!(f, "unsupported because {reason}"),
        }
    }
}

impl fmt::Display for FieldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.field, self.value, self.verdict)
    }
}

fn as_text<S: serde::Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(verdict)
}
