//! After how many jiffies without a packet a flow is over: those of IPVS.

use network_types::ip::IpProto;
use proxy_common::abi::HashFlowState;

use crate::settings::{CLOSING_TIMEOUT, SECOND, TCP_TIMEOUT, UDP_TIMEOUT};

/// Returns for how long no packet was seen, to be compared with a timeout: a second more than it was,
/// since another CPU may have seen a later packet, at a later time than ours.
#[inline(always)]
pub fn idle(seen: u32, now: u32) -> u32 {
    now.wrapping_add(SECOND.load()).wrapping_sub(seen)
}

/// Returns the timeout of a flow of a protocol in a `HashFlowState`, and a second.
#[inline(always)]
pub fn of(protocol: u32, state: u32) -> u32 {
    let timeout = match state {
        _ if protocol != IpProto::Tcp as u32 => UDP_TIMEOUT.load(),
        HashFlowState::CLOSING => CLOSING_TIMEOUT.load(),
        _ => TCP_TIMEOUT.load(),
    };
    timeout + SECOND.load()
}
