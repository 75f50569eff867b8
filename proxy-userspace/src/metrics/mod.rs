//! What the agent tells of itself at `/metrics`.

mod drift;

pub use drift::{Drift, DriftRecorder};
