//! How many flow entries a CPU makes in a second.

use proxy_common::abi::Installs;

use crate::{
    maps::MADE,
    settings::{NEW_FLOWS, SECOND},
};

/// Counts one more entry; true while there are not too many in this second.
#[inline(always)]
pub fn admits(now: u32) -> bool {
    let Some(made) = MADE.get_ptr_mut(0) else { return false };
    // SAFETY: the element of this CPU; programs on one CPU do not preempt each other within the
    // softirq that runs them.
    unsafe {
        if now.wrapping_sub((*made).since) >= SECOND.load() {
            *made = Installs { since: now, count: 0 };
        }
        if (*made).count >= NEW_FLOWS.load() {
            return false;
        }
        (*made).count += 1;
    }
    true
}
