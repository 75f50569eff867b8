//! The node's network interfaces, reduced to what decides where the fast path runs.

use std::net::IpAddr;

/// What an interface is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InterfaceKind {
    /// A physical or virtual NIC (`IFLA_LINKINFO` absent): an uplink.
    Physical,
    /// One end of a veth pair.
    Veth,
    /// The loopback device.
    Loopback,
    /// Any other `IFLA_INFO_KIND`, by name: `dummy`, `bridge`, `vxlan`, `wireguard`, ...
    Other(String),
}

/// A network interface as the kernel shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Index, unique in its network namespace.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// Kind.
    pub kind: InterfaceKind,
    /// Administratively up.
    pub up: bool,
    /// Largest L3 packet in bytes.
    pub mtu: u32,
    /// Link layer is Ethernet (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Hardware address; all zero when there is none.
    pub mac: [u8; 6],
    /// `IFLA_MASTER`: the bridge, bond or VRF that owns it.
    pub master: Option<u32>,
    /// `IFLA_LINK`: the interface below it, when that is in this network namespace.
    pub lower: Option<u32>,
    /// The id of a VLAN device (802.1Q); `None` for others.
    pub vlan: Option<u16>,
    /// The peer is in another network namespace (`IFLA_LINK_NETNSID` present).
    pub peer_elsewhere: bool,
    /// Root queueing discipline, such as `noqueue`.
    pub qdisc: String,
    /// Native or generic XDP program attached, by id.
    pub xdp_program: Option<u32>,
    /// Addresses of both families.
    pub addrs: Vec<IpAddr>,
}
