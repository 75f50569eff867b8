//! Which packets belong to a Service.

use proxy_common::abi::{Backend, FilterBit, Frontend, ServiceKey};

use crate::{family::Family, key::ServiceWords, maps::FILTER, parse::Packet};

#[inline(always)]
fn key<A>(addr: A, port: u16, protocol: u8) -> ServiceKey<A> {
    ServiceKey { addr, port, protocol, _pad: 0 }
}

/// Returns the frontend that clients dial at this address and port.
#[inline(always)]
pub fn frontend<F: Family>(addr: F::Addr, port: u16, protocol: u8) -> Option<Frontend> {
    // SAFETY: the value is copied at once. The agent replaces elements, it never edits them in
    // place, so the copy is of one element.
    unsafe { F::frontends().get(key(addr, port, protocol)).copied() }
}

/// Returns the backend at this address and port.
#[inline(always)]
pub fn backend<F: Family>(addr: F::Addr, port: u16, protocol: u8) -> Option<Backend> {
    // SAFETY: as in `frontend`.
    unsafe { F::backends().get(key(addr, port, protocol)).copied() }
}

/// A packet to a frontend, or from a backend.
#[inline(always)]
pub fn is_known<F: Family>(packet: &Packet<F>) -> bool {
    let (dialled, answering) = (packet.flow.dialled(), packet.flow.answering());
    F::frontends().get_ptr(dialled.key::<F>()).is_some()
        || F::backends().get_ptr(answering.key::<F>()).is_some()
}

/// Says whether the packet may be one of those, or of a flow of theirs. Most packets of a node are
/// not, and any look-up would cost them more.
#[inline(always)]
pub fn is_possible<F: Family>(packet: &Packet<F>) -> bool {
    may_be(&packet.flow.dialled()) || may_be(&packet.flow.answering())
}

/// Says whether this may be a frontend or a backend.
#[inline(always)]
fn may_be<W: AsRef<[u32]> + Copy>(service: &ServiceWords<W>) -> bool {
    let at = FilterBit::of(service.addr.as_ref(), service.port(), service.protocol());
    let Some(block) = FILTER.get_ptr(at.block) else { return true };
    // SAFETY: elements of an array map live as long as the map, and a word is read at once. The
    // agent writes blocks as a whole: a bit that stays set is never seen as clear.
    let word = unsafe { (*block).words[at.word as usize & 31] };
    word >> at.bit & 1 == 1
}
