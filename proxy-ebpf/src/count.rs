//! Counters by reason, one set a CPU.

use network_types::eth::EthHdr;
use proxy_common::{
    abi::{Counter, Flow, ObservedKey},
    reason::Reason,
};

use crate::{
    ctx::Frame,
    maps::{OBSERVED, STATS},
};

const NO_EXIST: u64 = 1;

/// Counts the packet under a reason.
#[inline(always)]
pub fn count(frame: &impl Frame, reason: Reason) {
    if let Some(counter) = STATS.get_ptr_mut(reason as u32) {
        // SAFETY: the element of this CPU; programs on one CPU do not preempt each other within
        // the softirq that runs them.
        unsafe { add(counter, frame) };
    }
}

/// Counts a packet that would have been fast, for its frontend and interface.
#[inline(always)]
pub fn observed<A>(frame: &impl Frame, flow: *mut Flow<A>) {
    // SAFETY: the program runs under RCU: the element stays readable until it ends. The frontend
    // of an entry is never edited.
    let frontend = unsafe { (*flow).frontend };
    let key = ObservedKey { frontend, interface: frame.interface() };
    if OBSERVED.get_ptr_mut(key).is_none() {
        // Another CPU may be first: its element serves as well.
        let _ = OBSERVED.insert(key, Counter { packets: 0, bytes: 0 }, NO_EXIST);
    }
    if let Some(counter) = OBSERVED.get_ptr_mut(key) {
        // SAFETY: the value of this CPU, as in `count`.
        unsafe { add(counter, frame) };
    }
}

/// Adds a packet.
///
/// # Safety
///
/// `counter` is this CPU's part of a map element that is alive.
#[inline(always)]
unsafe fn add(counter: *mut Counter, frame: &impl Frame) {
    // SAFETY: the caller upholds it.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += u64::from(l3_len(frame));
    }
}

/// Returns the packet's bytes at L3, a GSO packet's as one.
#[inline(always)]
pub fn l3_len(frame: &impl Frame) -> u32 {
    frame.len().wrapping_sub(EthHdr::LEN as u32)
}
