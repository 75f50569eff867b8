//! What the fast path carried, by frontend and backend, as IPVS counts the rest.
//!
//! Each CPU adds to slots of its own, `recent`: one look-up in an array and no atomic. A pair that
//! needs the slot of another moves what that gathered to `served`, which all CPUs share. So nothing
//! is lost with a flow entry, and what a hit costs does not grow with CPUs, Services or endpoints.

use proxy_common::abi::{Flow, FlowFlags, Pair, Recent, Served};

use crate::{
    atomic,
    family::Family,
    maps::{RECENT, SERVED},
    parse::Packet,
};

const NO_EXIST: u64 = 1;

/// Counts a packet that takes the fast path, in its entry and for its Service and backend.
#[inline(always)]
pub fn count<F: Family>(packet: &Packet<F>, flow: *mut Flow<F::Addr>) {
    // As the IP header says: IPVS never sees the padding of a short frame.
    let bytes = u64::from(packet.ip_len);
    // SAFETY: the program runs under RCU: the element stays readable until it ends. A race between
    // CPUs loses a count of the entry, no more.
    let (pair, flags) = unsafe {
        (*flow).packets += 1;
        (*flow).bytes += bytes;
        (Pair { frontend: (*flow).frontend, backend: (*flow).backend }, (*flow).transform.flags)
    };
    let Some(recent) = RECENT.get_ptr_mut(pair.slot()) else { return };
    // SAFETY: the slot of this CPU; programs on one CPU do not preempt each other within the softirq
    // that runs them.
    let recent = unsafe { &mut *recent };
    if recent.pair != pair {
        settle(recent);
        *recent = Recent { pair, served: Served::default() };
    }
    if flags & FlowFlags::REPLY == 0 {
        recent.served.in_packets += 1;
        recent.served.in_bytes += bytes;
    } else {
        recent.served.out_packets += 1;
        recent.served.out_bytes += bytes;
    }
}

/// Moves what a slot gathered to `served`. Rare, so kept out of the way of hits.
#[inline(never)]
fn settle(recent: &mut Recent) {
    if recent.pair.frontend == 0 || add(&recent.pair, &recent.served) {
        return;
    }
    // Another CPU may be the first: then there is something to add to. A map that is full, or a
    // kernel without memory, loses the count: `hit` still has it.
    if SERVED.insert(&recent.pair, &recent.served, NO_EXIST).is_err() {
        add(&recent.pair, &recent.served);
    }
}

/// Adds to what is known of the pair; false when nothing is.
#[inline(always)]
fn add(pair: &Pair, more: &Served) -> bool {
    let Some(total) = SERVED.get_ptr_mut(pair) else { return false };
    // SAFETY: the program runs under RCU: the element stays valid until it ends. Only the agent
    // removes elements, of pairs that are gone.
    unsafe {
        atomic::add(&raw mut (*total).in_packets, more.in_packets);
        atomic::add(&raw mut (*total).in_bytes, more.in_bytes);
        atomic::add(&raw mut (*total).out_packets, more.out_packets);
        atomic::add(&raw mut (*total).out_bytes, more.out_bytes);
    }
    true
}
