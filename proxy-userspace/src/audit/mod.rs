//! Reads back what the node holds, and compares.

pub mod guard;
pub mod observe;
