//! Flow entries: who has one stays with its backend, whatever the tables say.

use proxy_common::{
    abi::{HashBackend, HashFlow, HashFlowState},
    flow_place::Place,
    hash_reason::HashReason,
};

use crate::{
    entry::{Entry, Ranks},
    family::Family,
    limit,
    maps::{Asker, BACKENDS, SEED},
    parse::Packet,
    timeout,
};

/// The backend of a packet.
pub struct Chosen {
    /// Its index in `hash_backends`.
    pub index: u32,
    /// Its element there.
    pub backend: *const HashBackend,
}

/// Returns where the flow of a packet is remembered.
#[inline(always)]
pub fn place<F: Family>(packet: &Packet<F>) -> Place {
    // SAFETY: an element of an array map that is written before the program is attached.
    let seed = SEED.get_ptr(0).map_or(0, |seed| unsafe { *seed });
    packet.flow.place(seed)
}

/// Returns the backend of a flow that has an entry which holds, and notes the packet: the flow lives,
/// whoever sends it on.
#[inline(always)]
pub fn living<F: Family>(packet: &Packet<F>, place: Place, now: u32) -> Option<Chosen> {
    let entry = Entry::<F>::find(&packet.flow, place)?;
    let HashFlow { backend: index, generation, seen, state } = entry.read(place)?;
    let backend = BACKENDS.get_ptr(index)?;
    // SAFETY: an element of an array map; the word is read at once.
    if generation == 0 || unsafe { (*backend).generation } != generation {
        return None;
    }
    if state == HashFlowState::CLOSING && packet.opens() {
        return None;
    }
    if timeout::idle(seen, now) > timeout::of(packet.flow.protocol, state) {
        return None;
    }
    if !packet.is_error {
        if seen != now {
            entry.see(now);
        }
        if packet.closes() && state != HashFlowState::CLOSING {
            entry.mark(HashFlowState::CLOSING);
        }
    }
    Some(Chosen { index, backend })
}

/// Remembers that the flow of a packet goes there; returns what the packet is counted under.
#[inline(always)]
pub fn record<F: Family>(
    packet: &Packet<F>,
    place: Place,
    chosen: &Chosen,
    now: u32,
) -> HashReason {
    if !limit::admits(now) {
        return HashReason::Stateless;
    }
    let state = if packet.closes() { HashFlowState::CLOSING } else { HashFlowState::OPEN };
    // SAFETY: an element of an array map; the word is read at once. Should the index be given to
    // another destination meanwhile, the entry does not hold, or the table has changed as well.
    let generation = unsafe { (*chosen.backend).generation };
    let flow = HashFlow { backend: chosen.index, generation, seen: now, state };
    let ranks = Ranks::of(Asker::Packet);
    match ranks.and_then(|ranks| Entry::<F>::write(&packet.flow, place, &flow, now, ranks)) {
        Some(()) => HashReason::New,
        None => HashReason::Stateless,
    }
}
