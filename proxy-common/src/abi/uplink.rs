//! Uplinks on which transit runs at the driver, before the kernel makes a packet of a frame.

use super::layout::abi_struct;

abi_struct! {
    /// An interface on which `xdp_up` may take packets.
    pub struct Uplink (12) {
        /// Interface index; 0 where there is none.
        pub interface: u32,
        /// Its MAC address: frames to others are none of our business.
        pub mac: [u8; 6],
        /// Zero.
        pub _pad: [u8; 2],
    }
}

/// Slots of `uplinks`, a power of two. An array, because it is read for each frame.
pub const UPLINK_SLOTS: u32 = 256;

impl Uplink {
    /// Returns the slot of an interface. Two interfaces of one slot cannot both be in the map.
    #[inline(always)]
    pub const fn slot(interface: u32) -> u32 {
        interface & (UPLINK_SLOTS - 1)
    }
}
