//! Flow entries: what the kernel did to earlier packets of a flow, under a lease.

use super::layout::abi_struct;

abi_struct! {
    /// A flow as it enters the node: the 5-tuple before translation, and where it came in.
    pub struct FlowKey<A> (20, 44) {
        /// Source address, network order.
        pub source: A,
        /// Destination address, network order.
        pub destination: A,
        /// Source port, host order.
        pub source_port: u16,
        /// Destination port, host order.
        pub destination_port: u16,
        /// Index of the interface it enters by: a spoofed tuple from elsewhere is another flow.
        pub interface: u32,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub _pad: [u8; 3],
    }

    /// Everything the slow path changed about a packet. Two packets with equal transforms can be
    /// treated alike.
    pub struct Transform<A> (60, 84) {
        /// Source address after translation, network order.
        pub source: A,
        /// Destination address after translation, network order.
        pub destination: A,
        /// Source port after translation, host order.
        pub source_port: u16,
        /// Destination port after translation, host order.
        pub destination_port: u16,
        /// Index of the interface it leaves by.
        pub interface: u32,
        /// Bits of `FlowFlags`.
        pub flags: u32,
        /// Largest L3 packet of that interface, bytes.
        pub mtu: u32,
        /// One's complement sum to add to the inverted checksum of an IPv4 header; over IPv6 what
        /// the change of the IP header adds to the sum of the packet.
        pub ip_delta: u32,
        /// Checksum difference of the addresses, for `bpf_l4_csum_replace` with size 0.
        pub address_delta: u32,
        /// Checksum difference of the ports, likewise.
        pub port_delta: u32,
        /// `skb->mark` at egress; 0 where the kernel clears it on the way to a peer.
        pub mark: u32,
        /// `skb->priority` at egress.
        pub priority: u32,
        /// Ethernet header at egress.
        pub ethernet: [u8; 14],
        /// By how much the slow path lowers the TTL.
        pub ttl_delta: u8,
        /// Zero.
        pub _pad: u8,
    }

    /// The entry of a flow. What a hit reads comes first.
    pub struct Flow<A> (104, 128) {
        /// A `FlowState`.
        pub state: u32,
        /// Jiffies when a packet last crossed the slow path: both leases start here.
        pub renewed_at: u32,
        /// Jiffies when a packet was last elected to renew the lease.
        pub elected_at: u32,
        /// Epoch the entry was learned in.
        pub epoch: u32,
        /// Generation of the backend the entry was learned in.
        pub generation: u32,
        /// Backend id.
        pub backend: u32,
        /// What to do with a packet.
        pub transform: Transform<A>,
        /// Frontend id.
        pub frontend: u32,
        /// Packets carried by the fast path with this entry. Not atomic: exact while one CPU serves
        /// the flow. They end with the entry; `recent` and `served` keep what was carried.
        pub packets: u64,
        /// Bytes from the IP header on, likewise.
        pub bytes: u64,
    }
}

/// States of a flow entry.
pub struct FlowState;

impl FlowState {
    /// The transform is known; the reverse direction is not yet.
    pub const LEARNING: u32 = 1;
    /// Both directions are known: packets may take the fast path.
    pub const ACTIVE: u32 = 2;
    /// A FIN or RST was seen: slow path until a SYN starts anew.
    pub const CLOSING: u32 = 3;
}

/// Bits of `Transform::flags`.
pub struct FlowFlags;

impl FlowFlags {
    /// Redirect to the peer of the interface, past its host side.
    pub const PEER: u32 = 1;
    /// The reply direction: the source, not the destination, is translated from a backend.
    pub const REPLY: u32 = 2;
    /// Packets are counted as what would have been fast, and sent the slow way.
    pub const OBSERVE: u32 = 4;
    /// From uplink to uplink, or back out of the same: `xdp_up` may take its packets.
    pub const TRANSIT: u32 = 8;
}
