//! SYN, FIN and RST: the ends of a connection always take the slow path, in both directions.

use proxy_common::abi::{Flow4, FlowKey4, FlowState, Transform4};

use crate::maps::FLOWS4;

/// Returns the key under which replies to a translated packet come in.
#[inline(always)]
pub fn reverse(transform: &Transform4, protocol: u8) -> FlowKey4 {
    FlowKey4 {
        source: transform.destination,
        destination: transform.source,
        source_port: transform.destination_port,
        destination_port: transform.source_port,
        interface: transform.interface,
        protocol,
        _pad: [0; 3],
    }
}

/// Drops the entries of both directions: a SYN may start another connection on the same ports.
#[inline(always)]
pub fn forget(key: &FlowKey4, flow: *mut Flow4) {
    // SAFETY: the program runs under RCU: the element stays readable until it ends.
    let reverse = unsafe { reverse(&(*flow).transform, key.protocol) };
    // An entry that is gone already is as good as removed.
    let _ = FLOWS4.remove(reverse);
    let _ = FLOWS4.remove(key);
}

/// Closes both directions: the last packets must be seen by IPVS and conntrack, and nothing is
/// learned again before a SYN.
#[inline(always)]
pub fn close(key: &FlowKey4, flow: *mut Flow4) {
    // SAFETY: as in `forget`. The state is one aligned word: readers see the old or the new one.
    unsafe {
        let reverse = reverse(&(*flow).transform, key.protocol);
        (*flow).state = FlowState::CLOSING;
        if let Some(other) = FLOWS4.get_ptr_mut(reverse) {
            (*other).state = FlowState::CLOSING;
        }
    }
}
