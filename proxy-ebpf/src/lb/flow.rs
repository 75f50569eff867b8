//! Flow entries: who has one stays with its backend, whatever the tables say.

use proxy_common::{
    abi::{HashBackend, HashFlow, HashFlowState},
    hash_reason::HashReason,
};

use crate::{
    family::Family,
    limit,
    maps::BACKENDS,
    parse::Packet,
    settings::{CLOSING_TIMEOUT, SECOND, TCP_TIMEOUT, UDP_TIMEOUT},
};

/// The backend of a packet.
pub struct Chosen {
    /// Its index in `hash_backends`.
    pub index: u32,
    /// Its element there.
    pub backend: *const HashBackend,
    /// The entry that says so; none when the tables do.
    pub flow: Option<*mut HashFlow>,
}

/// Returns the backend of a flow that has an entry which holds.
#[inline(always)]
pub fn living<F: Family>(packet: &Packet<F>, now: u32) -> Option<Chosen> {
    let flow = F::flows().get_ptr_mut(packet.key())?;
    // SAFETY: the program runs under RCU: the element stays readable until it ends. It may be
    // recycled for another flow meanwhile, which the LRU allows only after it was unlinked; the index
    // and the generation are compared with what the backend says.
    let HashFlow { backend: index, generation, seen, state } = unsafe { *flow };
    let backend = BACKENDS.get_ptr(index)?;
    // SAFETY: an element of an array map; the word is read at once.
    if generation == 0 || unsafe { (*backend).generation } != generation {
        return None;
    }
    let timeout = match state {
        HashFlowState::CLOSING if packet.opens() => return None,
        _ if !packet.is_tcp() => UDP_TIMEOUT.load(),
        HashFlowState::CLOSING => CLOSING_TIMEOUT.load(),
        _ => TCP_TIMEOUT.load(),
    };
    // Another CPU may have seen a later packet, at a later time than ours.
    let slack = SECOND.load();
    let idle = now.wrapping_add(slack).wrapping_sub(seen);
    (idle <= timeout + slack).then_some(Chosen { index, backend, flow: Some(flow) })
}

/// Writes down that the packet goes there; returns what it is counted under.
#[inline(always)]
pub fn record<F: Family>(packet: &Packet<F>, chosen: &Chosen, now: u32) -> HashReason {
    if packet.is_error {
        return HashReason::IcmpError;
    }
    let Some(flow) = chosen.flow else { return open(packet, chosen, now) };
    // SAFETY: as in `living`. Both are aligned words: readers see the old or the new one.
    unsafe {
        if (*flow).seen != now {
            (*flow).seen = now;
        }
        if packet.closes() && (*flow).state != HashFlowState::CLOSING {
            (*flow).state = HashFlowState::CLOSING;
        }
    }
    HashReason::Cached
}

/// Makes the entry of a flow, in place of one that does not hold any more.
#[inline(always)]
fn open<F: Family>(packet: &Packet<F>, chosen: &Chosen, now: u32) -> HashReason {
    if !limit::admits(now) {
        return HashReason::Stateless;
    }
    let state = if packet.closes() { HashFlowState::CLOSING } else { HashFlowState::OPEN };
    // SAFETY: an element of an array map; the word is read at once. Should the index be given to
    // another destination meanwhile, the entry does not hold, or the table has changed as well.
    let generation = unsafe { (*chosen.backend).generation };
    let flow = HashFlow { backend: chosen.index, generation, seen: now, state };
    match F::flows().insert(packet.key(), flow, 0) {
        Ok(()) => HashReason::New,
        Err(_) => HashReason::Stateless,
    }
}
