//! Ethernet, IP, TCP and UDP. Whatever is not plain is not a [`Packet`].

use core::mem::offset_of;

use network_types::{eth::EthHdr, ip::IpProto, tcp::TcpHdr, udp::UdpHdr};
use proxy_common::abi::FlowKey;

use crate::{
    ctx::{Frame, Headers, Skb},
    family::Family,
    key::{self, FlowWords},
};

const PACKET_HOST: u32 = 0;

/// EtherTypes, network order.
pub mod ether_type {
    pub const IPV4: u32 = 0x0800_u16.to_be() as u32;
    pub const IPV6: u32 = 0x86dd_u16.to_be() as u32;
}

/// Offsets from the start of the L4 header.
pub mod at {
    use super::*;

    pub const SOURCE_PORT: usize = 0;
    pub const DESTINATION_PORT: usize = 2;
    pub const TCP_SEQ: usize = offset_of!(TcpHdr, seq);
    pub const TCP_ACK: usize = offset_of!(TcpHdr, ack_seq);
    pub const TCP_OFFSET_AND_FLAGS: usize = 12;
    pub const TCP_CHECK: usize = offset_of!(TcpHdr, check);
    pub const UDP_CHECK: usize = offset_of!(UdpHdr, check);
    pub const UDP_PAYLOAD: usize = UdpHdr::LEN;
}

/// Bytes of the UDP header: every packet has as many.
pub const SHORT: usize = UdpHdr::LEN;
/// Bytes of the plain TCP header.
pub const LONG: usize = TcpHdr::LEN;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// A plain TCP or UDP packet, with nothing between its headers.
pub struct Packet<F: Family> {
    /// The flow it belongs to, as it is in the packet.
    pub flow: FlowWords<F::Words>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes from the IP header on, as that says.
    pub ip_len: u16,
    /// The first word of the IP header, as it is in the packet.
    pub ip_first: u32,
    /// Bytes of the TCP header; 0 for UDP.
    tcp_header: u8,
    /// TCP flags; 0 for UDP.
    tcp_flags: u8,
}

impl<F: Family> Packet<F> {
    /// The key of its flow.
    #[inline(always)]
    pub fn key(&self) -> &FlowKey<F::Addr> {
        self.flow.key::<F>()
    }

    /// A TCP packet, not a UDP one.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.flow.protocol == IpProto::Tcp as u32
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
        self.is_tcp() && u32::from(self.ip_len) == self.headers()
    }

    /// Bytes of the headers that every segment of a GSO packet repeats.
    #[inline(always)]
    pub fn headers(&self) -> u32 {
        F::HEADER + if self.is_tcp() { u32::from(self.tcp_header) } else { UdpHdr::LEN as u32 }
    }
}

/// Parses a packet that arrived for this host's MAC address.
#[inline(always)]
pub fn ingress<F: Family>(skb: &Skb<'_>) -> Option<Packet<F>> {
    if skb.pkt_type() != PACKET_HOST {
        return None;
    }
    any(skb)
}

/// Parses a packet of either direction, whose EtherType is the family's.
#[inline(always)]
pub fn any<F: Family>(skb: &Skb<'_>) -> Option<Packet<F>> {
    if skb.vlan_present() != 0 {
        return None;
    }
    let headers = match skb.headers::<F, SHORT>() {
        Some(headers) => headers,
        // Headers outside the linear part are rare: pull them once, or leave the packet alone.
        None => {
            if !skb.pull(skb.len().min((F::L4 + LONG) as u32)) {
                return None;
            }
            skb.headers::<F, SHORT>()?
        }
    };
    packet(skb, &headers)
}

/// Parses a frame at the driver, whose EtherType is the family's.
#[inline(always)]
pub fn frame<F: Family>(frame: &impl Frame) -> Option<Packet<F>> {
    packet(frame, &frame.headers::<F, SHORT>()?)
}

#[inline(always)]
fn packet<F: Family>(frame: &impl Frame, headers: &Headers<F, SHORT>) -> Option<Packet<F>> {
    let ip = F::ip_header(headers)?;
    let mut packet = Packet {
        flow: FlowWords {
            source: ip.source,
            destination: ip.destination,
            ports: key::ports(headers.l4::<u32, { at::SOURCE_PORT }>()),
            interface: frame.interface(),
            protocol: ip.protocol.into(),
        },
        ttl: ip.ttl,
        ip_len: ip.len,
        ip_first: ip.first,
        tcp_header: 0,
        tcp_flags: 0,
    };
    if ip.protocol == IpProto::Tcp as u8 {
        let headers = frame.headers::<F, LONG>()?;
        packet.tcp_header = (headers.l4::<u8, { at::TCP_OFFSET_AND_FLAGS }>() >> 4) * 4;
        packet.tcp_flags = headers.l4::<u8, { at::TCP_OFFSET_AND_FLAGS + 1 }>();
        if usize::from(packet.tcp_header) < LONG {
            return None;
        }
    } else if ip.protocol != IpProto::Udp as u8 {
        return None;
    }
    // The kernel drops what is shorter than its header says, or has no room for its headers. A
    // frame may be longer: it is padded.
    let len = u32::from(packet.ip_len);
    (len >= packet.headers() && len + EthHdr::LEN as u32 <= frame.len()).then_some(packet)
}
