//! Which backend a flow without an entry goes to: the one that `ip_vs_mh.c` finds.

use proxy_common::{
    abi::{HashBackend, HashBackendFlags, HashFrontend, HashFrontendFlags, HashSlot},
    hash::{UNSCHEDULED_PORT, mh},
    hash_reason::HashReason,
};

use crate::{
    family::Family,
    flow::Chosen,
    maps::{BACKENDS, TABLES, Table},
    parse::Packet,
    settings::SLOTS,
};

/// Slots that a search for another backend looks at. The kernel looks at all of them.
const TURNS: u32 = 8;

/// Returns the backend that the table of the frontend names for a packet.
#[inline(always)]
pub fn choose<F: Family>(packet: &Packet<F>) -> Result<Chosen, HashReason> {
    // SAFETY: the value is copied at once. The agent replaces elements, it never edits them in
    // place, so the copy is of one element.
    let frontend = unsafe { F::frontends().get(packet.flow.dialled().key::<F>()).copied() };
    let HashFrontend { table, flags } = frontend.ok_or(HashReason::NoFrontend)?;
    let port = packet.flow.client_port();
    if port == UNSCHEDULED_PORT {
        return Err(HashReason::Unscheduled);
    }
    let port = if flags & HashFrontendFlags::PORT != 0 { port } else { 0 };
    let client = word(packet.flow.source.as_ref()).wrapping_add(port.into());
    let table = TABLES.get(table).ok_or(HashReason::NoBackend)?;
    let first = mh::slot_of(client, 0, SLOTS.load());
    let asks = !packet.opens();
    let named = named(table, first, asks)?;
    if takes_new(named.backend) {
        return Ok(named);
    }
    if flags & HashFrontendFlags::FALLBACK == 0 {
        return Err(HashReason::NoBackend);
    }
    fall_back(table, client, first, asks)
}

/// The word of an address, which `proxy_common::hash` describes.
#[inline(always)]
fn word(addr: &[u32]) -> u32 {
    u32::from_be(addr.iter().fold(0, |folded, word| folded ^ word))
}

/// Looks for another backend, in the order of the kernel (`ip_vs_mh_get_fallback`).
#[inline(always)]
fn fall_back(table: &Table, client: u32, first: u32, asks: bool) -> Result<Chosen, HashReason> {
    let slots = SLOTS.load();
    for turn in 0..TURNS {
        let offset = (first + turn).checked_rem(slots).unwrap_or(0);
        let named = named(table, mh::slot_of(client, offset, slots), asks)?;
        if takes_new(named.backend) {
            return Ok(named);
        }
    }
    Err(HashReason::NoBackend)
}

/// Returns the backend of a slot, unless the kernel must be asked.
#[inline(always)]
fn named(table: &Table, slot: u32, asks: bool) -> Result<Chosen, HashReason> {
    let entry = *table.get(slot).ok_or(HashReason::NoBackend)?;
    let index = entry & HashSlot::BACKEND;
    if index == 0 {
        return Err(HashReason::NoBackend);
    }
    if asks && entry & HashSlot::ASK != 0 {
        return Err(HashReason::Asked);
    }
    let backend = BACKENDS.get_ptr(index).ok_or(HashReason::NoBackend)?;
    Ok(Chosen { index, backend })
}

#[inline(always)]
fn takes_new(backend: *const HashBackend) -> bool {
    // SAFETY: an element of an array map; the words are read at once.
    unsafe { (*backend).generation != 0 && (*backend).flags & HashBackendFlags::TAKES_NEW != 0 }
}
