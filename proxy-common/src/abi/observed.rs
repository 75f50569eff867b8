//! What would have been fast, where it is only observed.

use super::layout::abi_struct;

abi_struct! {
    /// Whose packets, and where they came in.
    pub struct ObservedKey (8) {
        /// Frontend id.
        pub frontend: u32,
        /// Index of the interface they entered by.
        pub interface: u32,
    }
}
