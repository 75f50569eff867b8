//! Where Services come from.
