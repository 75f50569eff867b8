//! Arithmetic on header fields, shared by both sides.

pub mod checksum;
pub mod hash;
