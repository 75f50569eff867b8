//! Node ports that processes of the node dial at a loopback address, and where they lead.

use super::{MapSpec, layout::abi_struct};

abi_struct! {
    /// A node port at the loopback addresses of a family.
    pub struct LocalPort (4) {
        /// Port, host order.
        pub port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// 4 or 6.
        pub family: u8,
    }

    /// An address and a port.
    pub struct LocalAddress (20) {
        /// Address, network order; that of IPv4 is IPv4-mapped.
        pub addr: [u8; 16],
        /// Port, host order.
        pub port: u16,
        /// Zero.
        pub _pad: [u8; 2],
    }

    /// An address that a UDP socket gets its answers from.
    pub struct LocalPeer (32) {
        /// Cookie of the socket.
        pub socket: u64,
        /// Who answers.
        pub answers: LocalAddress,
        /// Zero.
        pub _pad: [u8; 4],
    }
}

/// What each node port leads to.
pub const LOCAL_PORTS: MapSpec = MapSpec {
    name: "local_ports",
    kind: super::HASH,
    key_size: size_of::<LocalPort>() as u32,
    value_size: size_of::<LocalAddress>() as u32,
    // Every port of either family, over TCP and UDP.
    max_entries: 1 << 14,
};

/// What a UDP socket dialled, by who answers.
pub const LOCAL_PEERS: MapSpec = MapSpec {
    name: "local_peers",
    kind: super::LRU_HASH,
    key_size: size_of::<LocalPeer>() as u32,
    value_size: size_of::<LocalAddress>() as u32,
    max_entries: 1 << 14,
};

/// The maps of the programs for loopback addresses: pinned in a directory of their own, and made
/// only where they are asked for.
pub const LOCALHOST_MAPS: [MapSpec; 2] = [LOCAL_PORTS, LOCAL_PEERS];

/// A read-only global of those programs: the cookie of the network namespace that they serve.
pub const NAMESPACE_SETTING: &str = "NAMESPACE";
