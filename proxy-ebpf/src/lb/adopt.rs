//! Entries that the agent has: it could not write one without what a program writes beside it at that
//! moment.

use proxy_common::abi::HashFlowEntry;

use crate::{
    entry::Entry,
    family::Family,
    frame::{self, Frame},
    maps::SEED,
};

/// Written.
const PASS: u32 = 2;
/// Not written: the frame is no entry.
const ABORTED: u32 = 0;

/// Writes the entry that the frame is, with its proof; one without a generation removes that of its
/// flow.
#[inline(always)]
pub fn from<F: Family>(frame: &impl Frame) -> u32 {
    match written::<F>(frame) {
        Some(()) => PASS,
        None => ABORTED,
    }
}

#[inline(always)]
fn written<F: Family>(frame: &impl Frame) -> Option<()> {
    let entry = frame.whole::<HashFlowEntry<F::Addr>>()?;
    let seed = SEED.get_ptr(0)?;
    // SAFETY: an element of an array map that is written before the program is run.
    Entry::<F>::adopt(entry, unsafe { *seed }, frame::jiffies())
}
