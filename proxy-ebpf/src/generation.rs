//! Epoch, edit counter and generations: whether what was learned still holds.

use proxy_common::abi::{EDITS_INDEX, EPOCH_INDEX};

use crate::maps::GENERATION_MAP;

/// Reads an element that the agent may change at any time.
#[inline(always)]
fn read(index: u32) -> Option<u32> {
    // SAFETY: elements of an array map live as long as the map. The read is volatile so that the
    // order in which the learner reads generation and edit counter is the order in the program.
    GENERATION_MAP.get_ptr(index).map(|value| unsafe { value.read_volatile() })
}

/// Returns the epoch: it changes with links, routes, addresses and neighbours.
#[inline(always)]
pub fn epoch() -> Option<u32> {
    read(EPOCH_INDEX)
}

/// Returns the edit counter: it changes after each edit of IPVS.
#[inline(always)]
pub fn edits() -> Option<u32> {
    read(EDITS_INDEX)
}

/// Returns the generation of a backend.
#[inline(always)]
pub fn of_backend(id: u32) -> Option<u32> {
    read(id)
}
