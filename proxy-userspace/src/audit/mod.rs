//! Reads back what the node holds, and compares.

pub mod dump;
pub mod guard;
pub mod observe;
pub mod traffic;
