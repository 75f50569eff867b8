//! Which frames are this host's.

use network_types::eth::EthHdr;
use proxy_common::abi::{HashVlan, Uplink};

use crate::{
    frame::Frame,
    maps::{UPLINKS, VLANS},
};

/// Bytes of a VLAN tag.
pub const TAG: usize = 4;
/// EtherType of a VLAN tag, as a frame has it.
pub const VLAN: u16 = 0x8100_u16.to_be();
/// Bits of a tag that are the VLAN.
const ID: u16 = 0x0fff;

/// Where things are in a frame with a tag; without one, the first is the EtherType of the payload.
pub mod at {
    use super::*;

    pub const ETHER_TYPE: usize = EthHdr::LEN - 2;
    pub const TAG: usize = EthHdr::LEN;
    pub const TAGGED_ETHER_TYPE: usize = EthHdr::LEN + 2;
}

/// Returns where the payload of a frame begins, and its EtherType as the frame has it; nothing when
/// the frame is not for this host.
#[inline(always)]
pub fn payload<P: Frame>(frame: &P) -> Option<(usize, u16)> {
    let headers = frame.window::<{ EthHdr::LEN }>(0)?;
    let interface = frame.interface();
    if !is_ours(interface, (headers.load::<u32, 0>(), headers.load::<u16, 4>())) {
        return None;
    }
    let ether_type = headers.load::<u16, { at::ETHER_TYPE }>();
    if let Some(vlan) = frame.vlan_beside() {
        VLANS.get_ptr(HashVlan { interface, vlan })?;
    }
    // At tc a tag in the frame is a second one, which is nobody's.
    if ether_type != VLAN || !P::TAG_INSIDE {
        return Some((EthHdr::LEN, ether_type));
    }
    let headers = frame.window::<{ EthHdr::LEN + TAG }>(0)?;
    let id = u16::from_be(headers.load::<u16, { at::TAG }>()) & ID;
    VLANS.get_ptr(HashVlan { interface, vlan: id.into() })?;
    Some((EthHdr::LEN + TAG, headers.load::<u16, { at::TAGGED_ETHER_TYPE }>()))
}

/// Says whether the hash plane runs on the interface, and the frame is for its MAC address: a device
/// in promiscuous mode shows those of others, too.
#[inline(always)]
fn is_ours(interface: u32, to: (u32, u16)) -> bool {
    let Some(uplink) = UPLINKS.get_ptr(Uplink::slot(interface)) else { return false };
    // SAFETY: an element of an array map. The agent may write it meanwhile: a mixture of two
    // uplinks is one that no frame is for.
    let Uplink { interface: of, mac: [a, b, c, d, e, f], .. } = unsafe { *uplink };
    of == interface && to == (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
}
