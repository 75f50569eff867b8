//! Counters.

use super::layout::abi_struct;

abi_struct! {
    /// Packets and bytes, one a CPU. They wrap; they are never reset.
    pub struct Counter (16) {
        /// Packets; a GSO super-packet is one.
        pub packets: u64,
        /// Bytes at L3.
        pub bytes: u64,
    }
}
