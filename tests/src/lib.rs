//! Specification harness.
