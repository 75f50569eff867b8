//! Reads back what the node holds, and compares.

pub mod counters;
pub mod dump;
pub mod guard;
pub mod hashed;
pub mod look;
pub mod observe;
pub mod offline;
pub mod traffic;
