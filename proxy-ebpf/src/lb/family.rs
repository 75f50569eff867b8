//! What IPv4 and IPv6 differ in. Everything else is written once, over this trait.

use proxy_common::{abi::Addr, hash_reason::HashReason};

use crate::{
    frame::Frame,
    maps::{Flows, Frontends, Tags},
};

/// An IP header with nothing between it and the L4 header.
pub struct IpHeader<W> {
    /// Addresses by words, as they lie in the packet.
    pub source: W,
    pub destination: W,
    /// IP protocol number of what follows.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes from this header on, as it says itself.
    pub len: u32,
}

/// What an outer header takes over.
#[derive(Clone, Copy)]
pub struct Inherited {
    /// Differentiated services and congestion notification.
    pub ds: u8,
    /// TTL or hop limit, as the packet has it now.
    pub ttl: u8,
    /// The fragment word of an outer IPv4 header, as a packet has it.
    pub fragment: u16,
}

/// An address family.
pub trait Family: Sized {
    type Addr: Addr;
    /// An address by words.
    type Words: AsRef<[u32]> + Copy + PartialEq;

    /// Bytes of the IP header.
    const HEADER: usize;
    /// Its EtherType, as a frame has it.
    const ETHER_TYPE: u16;
    /// Protocol number of it in another IP packet.
    const IN_IP: u8;
    /// Protocol number of its ICMP.
    const ICMP: u8;

    fn flows() -> &'static Flows<Self::Addr>;
    fn tags() -> &'static Tags;
    /// Sets of flows, less one.
    fn mask() -> u32;
    fn frontends() -> &'static Frontends<Self::Addr>;

    /// Says whether an ICMP message of this type is about another packet, as IPVS has it
    /// (`ip_vs_in_icmp`, `ip_vs_in_icmp_v6`).
    fn is_error(kind: u8) -> bool;

    /// Reads the IP header at this place in the frame.
    fn header(frame: &impl Frame, at: usize) -> Result<IpHeader<Self::Words>, HashReason>;

    /// Lowers the TTL by one, as the kernel does for a packet that it sends on.
    fn lower_ttl(frame: &impl Frame, at: usize) -> Option<Inherited>;
}
