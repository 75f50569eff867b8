//! Counts the first packets of a flow in a small direct-mapped table, so that flows of one or two
//! packets, as of scans and floods, never reach the flow map. A collision restarts a count; nothing else.

use proxy_common::{
    abi::{FlowKey, LEARN_AFTER, WARMUP_SLOTS},
    packet::hash,
};

use crate::{family::Family, maps::WARMUP};

const COUNT_BITS: u32 = 8;
const COUNT_MASK: u32 = (1 << COUNT_BITS) - 1;

/// Counts one more packet; true when the flow has shown enough of them.
#[inline(always)]
pub fn is_warm<F: Family>(flow: &FlowKey<F::Addr>) -> bool {
    let hash = hash::flow(flow, F::word);
    let Some(slot) = WARMUP.get_ptr_mut(hash & (WARMUP_SLOTS - 1)) else { return false };
    let tag = hash & !COUNT_MASK;
    // SAFETY: an element of an array map; a race between CPUs loses a count, no more.
    unsafe {
        let seen = if *slot & !COUNT_MASK == tag { *slot & COUNT_MASK } else { 0 };
        if seen + 1 >= LEARN_AFTER {
            *slot = 0;
            return true;
        }
        *slot = tag | (seen + 1);
    }
    false
}

/// Forgets the flow: a new connection counts anew.
#[inline(always)]
pub fn forget<F: Family>(flow: &FlowKey<F::Addr>) {
    let hash = hash::flow(flow, F::word);
    if let Some(slot) = WARMUP.get_ptr_mut(hash & (WARMUP_SLOTS - 1)) {
        // SAFETY: as in `is_warm`.
        unsafe {
            if *slot & !COUNT_MASK == hash & !COUNT_MASK {
                *slot = 0;
            }
        }
    }
}
