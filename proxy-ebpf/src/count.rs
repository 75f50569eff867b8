//! Counters by reason, one set a CPU.

use network_types::eth::EthHdr;
use proxy_common::reason::Reason;

use crate::{ctx::Frame, maps::STATS};

/// Counts the packet under a reason.
#[inline(always)]
pub fn count(frame: &impl Frame, reason: Reason) {
    if let Some(counter) = STATS.get_ptr_mut(reason as u32) {
        // SAFETY: the element of this CPU; programs on one CPU do not preempt each other within
        // the softirq that runs them.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(l3_len(frame));
        }
    }
}

/// Returns the packet's bytes at L3, a GSO packet's as one.
#[inline(always)]
pub fn l3_len(frame: &impl Frame) -> u32 {
    frame.len().wrapping_sub(EthHdr::LEN as u32)
}
