//! Where traffic goes, and the generations that say whether an entry still holds.

use super::layout::abi_struct;

abi_struct! {
    /// A backend.
    pub struct Backend (4) {
        /// Id, from `FIRST_BACKEND_ID`: its index in `generations`.
        pub id: u32,
    }
}

/// Index of the epoch in `generations`: a change makes every flow entry stale.
pub const EPOCH_INDEX: u32 = 0;
/// Index of the edit counter: packets that were on their way through the slow path when IPVS was
/// edited are not learned, because they may have seen the state before the edit.
pub const EDITS_INDEX: u32 = 1;
/// The lowest backend id.
pub const FIRST_BACKEND_ID: u32 = 2;
/// Entries of `generations`.
pub const GENERATIONS: u32 = super::capacity::BACKENDS + FIRST_BACKEND_ID;
