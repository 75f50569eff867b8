//! Which packets belong to a Service.

use proxy_common::abi::{Backend, FlowKey4, Frontend, ServiceKey4};

use crate::maps::{BACKENDS4, FRONTENDS4};

#[inline(always)]
fn key(addr: [u8; 4], port: u16, protocol: u8) -> ServiceKey4 {
    ServiceKey4 { addr, port, protocol, _pad: 0 }
}

/// Returns the frontend that clients dial at this address and port.
#[inline(always)]
pub fn frontend(addr: [u8; 4], port: u16, protocol: u8) -> Option<Frontend> {
    // SAFETY: the value is copied at once. The agent replaces elements, it never edits them in
    // place, so the copy is of one element.
    unsafe { FRONTENDS4.get(key(addr, port, protocol)).copied() }
}

/// Returns the backend at this address and port.
#[inline(always)]
pub fn backend(addr: [u8; 4], port: u16, protocol: u8) -> Option<Backend> {
    // SAFETY: as in `frontend`.
    unsafe { BACKENDS4.get(key(addr, port, protocol)).copied() }
}

/// A packet to a frontend, or from a backend.
#[inline(always)]
pub fn is_known(flow: &FlowKey4) -> bool {
    frontend(flow.destination, flow.destination_port, flow.protocol).is_some()
        || backend(flow.source, flow.source_port, flow.protocol).is_some()
}
