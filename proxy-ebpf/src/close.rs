//! SYN, FIN and RST: the ends of a connection always take the slow path, in both directions.

use proxy_common::abi::{Addr, Flow, FlowKey, FlowState, Transform};

use crate::family::Family;

/// Returns the key under which replies to a translated packet come in.
#[inline(always)]
pub fn reverse<A: Addr>(transform: &Transform<A>, protocol: u8) -> FlowKey<A> {
    FlowKey {
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
pub fn forget<F: Family>(key: &FlowKey<F::Addr>, flow: *mut Flow<F::Addr>) {
    // SAFETY: the program runs under RCU: the element stays readable until it ends.
    let reverse = unsafe { reverse(&(*flow).transform, key.protocol) };
    // An entry that is gone already is as good as removed.
    let _ = F::flows().remove(reverse);
    let _ = F::flows().remove(key);
}

/// Closes both directions: the last packets must be seen by IPVS and conntrack, and nothing is
/// learned again before a SYN.
#[inline(always)]
pub fn close<F: Family>(key: &FlowKey<F::Addr>, flow: *mut Flow<F::Addr>) {
    // SAFETY: as in `forget`. The state is one aligned word: readers see the old or the new one.
    unsafe {
        let reverse = reverse(&(*flow).transform, key.protocol);
        (*flow).state = FlowState::CLOSING;
        if let Some(other) = F::flows().get_ptr_mut(reverse) {
            (*other).state = FlowState::CLOSING;
        }
    }
}
