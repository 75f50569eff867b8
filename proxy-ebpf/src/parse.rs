//! Ethernet, IPv4, TCP and UDP. Whatever is not plain is not a [`Packet`].

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};
use proxy_common::abi::FlowKey4;

use crate::ctx::{Skb, Window};

const ETH_P_IP_BE: u32 = 0x0800_u16.to_be() as u32;
const PACKET_HOST: u32 = 0;
const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;
const PLAIN_VERSION_AND_LENGTH: u8 = 0x45;

/// Offsets from the start of the frame.
pub mod at {
    use super::*;

    pub const IP: usize = EthHdr::LEN;
    pub const TTL: usize = IP + offset_of!(Ipv4Hdr, ttl);
    pub const IP_CHECK: usize = IP + offset_of!(Ipv4Hdr, check);
    pub const SOURCE: usize = IP + offset_of!(Ipv4Hdr, src_addr);
    pub const DESTINATION: usize = IP + offset_of!(Ipv4Hdr, dst_addr);
    pub const L4: usize = IP + Ipv4Hdr::LEN;
    pub const SOURCE_PORT: usize = L4;
    pub const DESTINATION_PORT: usize = L4 + 2;
    pub const TCP_SEQ: usize = L4 + offset_of!(TcpHdr, seq);
    pub const TCP_ACK: usize = L4 + offset_of!(TcpHdr, ack_seq);
    pub const TCP_OFFSET_AND_FLAGS: usize = L4 + 12;
    pub const TCP_CHECK: usize = L4 + offset_of!(TcpHdr, check);
    pub const UDP_CHECK: usize = L4 + offset_of!(UdpHdr, check);
    pub const UDP_PAYLOAD: usize = L4 + UdpHdr::LEN;
}

/// Bytes of a frame up to the end of the UDP header: what every packet has.
pub const SHORT: usize = at::L4 + UdpHdr::LEN;
/// Bytes of a frame up to the end of the plain TCP header.
pub const LONG: usize = at::L4 + TcpHdr::LEN;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// A plain TCP or UDP packet over IPv4, with nothing between its headers.
pub struct Packet {
    /// The flow it belongs to, as it is in the packet.
    pub key: FlowKey4,
    /// TTL.
    pub ttl: u8,
    /// Total length of the IP header's field, host order.
    pub ip_len: u16,
    /// Bytes of the TCP header; 0 for UDP.
    tcp_header: u8,
    /// TCP flags; 0 for UDP.
    tcp_flags: u8,
}

impl Packet {
    /// A TCP packet, not a UDP one.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.key.protocol == IpProto::Tcp as u8
    }

    /// The first packet of either side of a TCP connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.tcp_flags & SYN != 0
    }

    /// A packet that ends a TCP connection.
    #[inline(always)]
    pub fn closes(&self) -> bool {
        self.tcp_flags & (FIN | RST) != 0
    }

    /// A TCP packet without payload: it may be overtaken without harm.
    #[inline(always)]
    pub fn is_pure_ack(&self) -> bool {
        self.is_tcp() && usize::from(self.ip_len) == Ipv4Hdr::LEN + usize::from(self.tcp_header)
    }

    /// Bytes of the headers that every segment of a GSO packet repeats.
    #[inline(always)]
    pub fn headers(&self) -> u32 {
        let l4 = if self.is_tcp() { u32::from(self.tcp_header) } else { UdpHdr::LEN as u32 };
        Ipv4Hdr::LEN as u32 + l4
    }
}

/// Parses a packet that arrived for this host's MAC address.
#[inline(always)]
pub fn ingress(skb: &Skb<'_>) -> Option<Packet> {
    if skb.pkt_type() != PACKET_HOST {
        return None;
    }
    any(skb)
}

/// Parses a packet of either direction.
#[inline(always)]
pub fn any(skb: &Skb<'_>) -> Option<Packet> {
    if skb.protocol() != ETH_P_IP_BE || skb.vlan_present() != 0 {
        return None;
    }
    let window = match skb.window::<SHORT>() {
        Some(window) => window,
        // Headers outside the linear part are rare: pull them once, or leave the packet alone.
        None => {
            if !skb.pull(skb.len().min(LONG as u32)) {
                return None;
            }
            skb.window::<SHORT>()?
        }
    };
    headers(skb, &window)
}

#[inline(always)]
fn headers(skb: &Skb<'_>, window: &Window<SHORT>) -> Option<Packet> {
    let version_and_length: u8 = window.load::<u8, { at::IP }>();
    let fragment: u16 = window.load::<u16, { at::IP + offset_of!(Ipv4Hdr, frags) }>();
    let protocol: u8 = window.load::<u8, { at::IP + offset_of!(Ipv4Hdr, proto) }>();
    if version_and_length != PLAIN_VERSION_AND_LENGTH
        || fragment & MORE_FRAGMENTS_OR_OFFSET.to_be() != 0
    {
        return None;
    }
    let mut packet = Packet {
        key: FlowKey4 {
            source: window.load::<u32, { at::SOURCE }>().to_ne_bytes(),
            destination: window.load::<u32, { at::DESTINATION }>().to_ne_bytes(),
            source_port: u16::from_be(window.load::<u16, { at::SOURCE_PORT }>()),
            destination_port: u16::from_be(window.load::<u16, { at::DESTINATION_PORT }>()),
            interface: skb.ifindex(),
            protocol,
            _pad: [0; 3],
        },
        ttl: window.load::<u8, { at::TTL }>(),
        ip_len: u16::from_be(window.load::<u16, { at::IP + offset_of!(Ipv4Hdr, tot_len) }>()),
        tcp_header: 0,
        tcp_flags: 0,
    };
    if protocol == IpProto::Tcp as u8 {
        let window = skb.window::<LONG>()?;
        packet.tcp_header = (window.load::<u8, { at::TCP_OFFSET_AND_FLAGS }>() >> 4) * 4;
        packet.tcp_flags = window.load::<u8, { at::TCP_OFFSET_AND_FLAGS + 1 }>();
    } else if protocol != IpProto::Udp as u8 {
        return None;
    }
    Some(packet)
}
