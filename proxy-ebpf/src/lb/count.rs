//! Counters, one set a CPU.

use network_types::eth::EthHdr;
use proxy_common::hash_reason::HashReason;

use crate::{
    flow::Chosen,
    frame::Frame,
    maps::{COUNTS, STATS},
    verdict::Verdict,
};

/// Counts a frame under its reason: the bytes of the packet that was sent on, else all behind the
/// Ethernet header.
#[inline(always)]
pub fn verdict(frame: &impl Frame, verdict: Verdict) {
    let (reason, bytes) = match verdict {
        Verdict::Sent { reason, bytes, .. } => (reason, bytes),
        Verdict::Kernel(reason) => (reason, frame.len().saturating_sub(EthHdr::LEN as u32)),
    };
    let Some(counter) = STATS.get_ptr_mut(reason as u32) else { return };
    // SAFETY: the element of this CPU; programs on one CPU do not preempt each other within the
    // softirq that runs them.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += u64::from(bytes);
    }
}

/// Counts a packet of so many bytes for its backend.
#[inline(always)]
pub fn sent(chosen: &Chosen, reason: HashReason, bytes: u32) {
    let Some(count) = COUNTS.get_ptr_mut(chosen.index) else { return };
    // SAFETY: as in `verdict`.
    unsafe {
        (*count).packets += 1;
        (*count).bytes += u64::from(bytes);
        if reason as u32 == HashReason::New as u32 {
            (*count).flows += 1;
        }
    }
}
