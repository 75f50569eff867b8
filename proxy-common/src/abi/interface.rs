//! Interfaces whose egress may be learned.

use super::layout::abi_struct;

abi_struct! {
    /// What the datapath must know of an interface.
    pub struct Interface (8) {
        /// Largest L3 packet, bytes.
        pub mtu: u32,
        /// Bits of `InterfaceFlags`.
        pub flags: u32,
    }
}

/// Bits of `Interface::flags`.
pub struct InterfaceFlags;

impl InterfaceFlags {
    /// A veth whose peer is in another network namespace, without a queueing discipline:
    /// `bpf_redirect_peer` skips nothing that anyone asked for.
    pub const PEER: u32 = 1;
    /// Flows that come in or go out here are counted as what would have been fast, and sent the
    /// slow way.
    pub const OBSERVE: u32 = 2;
    /// Programs of others are here: only flows of frontends that are forced may be learned.
    pub const FORCED_ONLY: u32 = 4;
    /// An uplink with `xdp_up`, whose filters and queueing discipline nobody asked for: transit may
    /// come in here by XDP, and go out here again.
    pub const XDP: u32 = 8;
    /// Transit that came in by XDP elsewhere may go out here: the driver sends frames of others.
    pub const XDP_SEND: u32 = 16;
}
