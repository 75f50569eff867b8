//! How many entries the clients of one interface may cause in a second, so that one pod that opens
//! flow after flow does not crowd out those of all others. What is refused stays slow.

use proxy_common::abi::{INSTALL_SLOTS, Installs};

use crate::{
    ctx,
    maps::INSTALLS,
    settings::{INSTALL_RATE, SECOND},
};

/// Counts one more entry for the clients of an interface; true while they are within their share.
/// Interfaces whose indexes are `INSTALL_SLOTS` apart share one.
#[inline(always)]
pub fn admits(interface: u32) -> bool {
    let Some(slot) = INSTALLS.get_ptr_mut(interface & (INSTALL_SLOTS - 1)) else { return true };
    let now = ctx::jiffies();
    // SAFETY: an element of an array map; a race between CPUs miscounts by a few, no more.
    unsafe {
        if now.wrapping_sub((*slot).since) >= SECOND.load() {
            *slot = Installs { since: now, count: 1 };
            return true;
        }
        (*slot).count += 1;
        (*slot).count <= INSTALL_RATE.load()
    }
}
