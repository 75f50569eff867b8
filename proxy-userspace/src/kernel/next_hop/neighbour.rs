//! Neighbours: the MAC addresses of next hops, and how sure the kernel is of them. No I/O.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use crate::kernel::link::neighbours::{has_address, key, mac};

/// Somebody on the link of a device.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Neighbour {
    /// Index of the device.
    pub device: u32,
    /// The neighbour's address.
    pub addr: IpAddr,
}

/// What the kernel holds of a neighbour.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Held {
    /// Its MAC address, if it has one that is used.
    pub(super) mac: Option<[u8; 6]>,
    /// Nobody need ask it again: it answered not long ago, or is set for good.
    pub(super) sure: bool,
}

/// Reads one entry of the listing.
pub(super) fn read(message: &NeighbourMessage) -> Option<(Neighbour, Held)> {
    let (device, addr) = key(message)?;
    let state = message.header.state;
    let mac = mac(message).filter(|_| has_address(state));
    // Asking for one that is permanent would make it a common one (`__neigh_update`).
    let settled = matches!(
        state,
        NeighbourState::Reachable | NeighbourState::Permanent | NeighbourState::Noarp
    );
    let sure = mac.is_some() && settled;
    Some((Neighbour { device, addr }, Held { mac, sure }))
}

/// Has the kernel behave as if it had a packet for the neighbour: it asks for the address, or makes
/// sure of it.
pub(super) fn use_request(neighbour: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = match neighbour.addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = neighbour.device;
    message.header.flags = NeighbourFlags::Use;
    message.attributes = vec![NeighbourAttribute::Destination(neighbour.addr.into())];
    message
}
