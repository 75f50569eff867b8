//! Which packets belong to a Service.

use proxy_common::abi::{Backend, Frontend, ServiceKey};

use crate::{family::Family, parse::Packet};

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
