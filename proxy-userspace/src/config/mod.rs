//! Settings, checked once.

pub mod flags;

pub use flags::{FastPathMode, Paths, RunFlags};
