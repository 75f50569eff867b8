//! Outer headers, as `ip_vs_tunnel_xmit` writes them (`net/netfilter/ipvs/ip_vs_xmit.c`).

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};
use proxy_common::{
    abi::HashBackend,
    packet::{checksum, hash},
};

use crate::{
    family::{Family, Inherited},
    frame::{Frame, Window},
    ipv4, ipv6,
    parse::Packet,
    uplink::TAG,
};

/// What goes in front of a packet.
#[derive(Clone, Copy)]
pub struct Headers {
    /// Family of the outer header.
    pub outer: Outer,
    /// How the packet is wrapped: `HashMethod`.
    pub method: u8,
    /// Bytes of all outer headers.
    pub len: usize,
    /// VLAN tag, host order; 0 for none.
    pub vlan: u16,
}

impl Headers {
    /// Returns the bytes of the frame before IP.
    #[inline(always)]
    pub fn link<P: Frame>(&self, _: &P) -> usize {
        if self.vlan == 0 || !P::TAG_INSIDE { EthHdr::LEN } else { EthHdr::LEN + TAG }
    }
}

/// Family of the outer header.
#[derive(Clone, Copy)]
pub enum Outer {
    V4,
    V6,
}

/// Bytes of an outer header of IPv4.
pub const V4: usize = Ipv4Hdr::LEN;
/// Bytes of an outer header of IPv6.
pub const V6: usize = Ipv6Hdr::LEN;
/// Bytes of UDP and of Generic UDP Encapsulation without options.
pub const GUE: usize = UdpHdr::LEN + 4;
/// Bytes of Generic Routing Encapsulation without options.
pub const GRE: usize = 4;
/// Protocol numbers.
pub const UDP: u8 = IpProto::Udp as u8;
pub const GRE_PROTOCOL: u8 = IpProto::Gre as u8;

/// Source ports of GUE: those that the kernel gives to its own sockets, which it takes as well
/// (`udp_flow_src_port`).
const FIRST_PORT: u32 = 32_768;
const PORTS: u32 = 61_000 - FIRST_PORT;

/// Writes a header of IPv4; returns where the next one begins.
///
/// The identification is 0: a packet that fits its way out is not put into fragments by us.
#[inline(always)]
pub fn write_v4(
    frame: &impl Frame,
    at: usize,
    backend: &HashBackend,
    inherited: Inherited,
    payload: u16,
    protocol: u8,
) -> Option<usize> {
    let header: Window<V4> = frame.window(at)?;
    let [source, destination, ..] = words(backend);
    let [high, low] = (payload + V4 as u16).to_be_bytes();
    let first = u32::from_ne_bytes([0x45, services(inherited), high, low]);
    let [fragment_high, fragment_low] = inherited.fragment.to_ne_bytes();
    let second = u32::from_ne_bytes([0, 0, fragment_high, fragment_low]);
    let third = u32::from_ne_bytes([inherited.ttl, protocol, 0, 0]);
    let sum = [second, third, source, destination].into_iter().fold(first, checksum::add);
    header.store::<u32, 0>(first);
    header.store::<u32, 4>(second);
    header.store::<u32, 8>(third);
    header.store::<u16, { ipv4::at::CHECK }>(!checksum::fold(sum));
    header.store::<u32, { ipv4::at::SOURCE }>(source);
    header.store::<u32, { ipv4::at::DESTINATION }>(destination);
    Some(at + V4)
}

/// Writes a header of IPv6; returns where the next one begins.
#[inline(always)]
pub fn write_v6(
    frame: &impl Frame,
    at: usize,
    backend: &HashBackend,
    inherited: Inherited,
    payload: u16,
    protocol: u8,
) -> Option<usize> {
    let header: Window<V6> = frame.window(at)?;
    let first = 6 << 28 | u32::from(services(inherited)) << 20;
    header.store::<u32, 0>(first.to_be());
    header.store::<u16, { ipv6::at::PAYLOAD_LENGTH }>(payload.to_be());
    header.store::<u8, { ipv6::at::NEXT_HEADER }>(protocol);
    header.store::<u8, { ipv6::at::HOP_LIMIT }>(inherited.ttl);
    let words = words(backend);
    header.store::<u32, { ipv6::at::SOURCE }>(words[0]);
    header.store::<u32, { ipv6::at::SOURCE + 4 }>(words[1]);
    header.store::<u32, { ipv6::at::SOURCE + 8 }>(words[2]);
    header.store::<u32, { ipv6::at::SOURCE + 12 }>(words[3]);
    header.store::<u32, { ipv6::at::DESTINATION }>(words[4]);
    header.store::<u32, { ipv6::at::DESTINATION + 4 }>(words[5]);
    header.store::<u32, { ipv6::at::DESTINATION + 8 }>(words[6]);
    header.store::<u32, { ipv6::at::DESTINATION + 12 }>(words[7]);
    Some(at + V6)
}

/// Writes UDP without a checksum, and GUE: version 0, no options, the protocol of what follows.
#[inline(always)]
pub fn write_gue<F: Family>(
    frame: &impl Frame,
    at: usize,
    port: u16,
    len: u16,
    packet: &Packet<F>,
) -> Option<()> {
    let header: Window<GUE> = frame.window(at)?;
    header.store::<u16, { offset_of!(UdpHdr, src) }>(source_port(packet).to_be());
    header.store::<u16, { offset_of!(UdpHdr, dst) }>(port.to_be());
    header.store::<u16, { offset_of!(UdpHdr, len) }>(len.to_be());
    header.store::<u16, { offset_of!(UdpHdr, check) }>(0);
    header.store::<u32, { UdpHdr::LEN }>(u32::from_ne_bytes([0, F::IN_IP, 0, 0]));
    Some(())
}

/// Writes GRE: no options, the EtherType of what follows.
#[inline(always)]
pub fn write_gre<F: Family>(frame: &impl Frame, at: usize) -> Option<()> {
    let header: Window<GRE> = frame.window(at)?;
    header.store::<u16, 0>(0);
    header.store::<u16, 2>(F::ETHER_TYPE);
    Some(())
}

/// Returns the differentiated services of an outer header, those of the packet; of congestion, that it
/// was experienced stays inside: ECT(0) stands for it (`INET_ECN_encapsulate`).
#[inline(always)]
fn services(inherited: Inherited) -> u8 {
    // Only CE has both bits. No branch: the verifier would go through all that follows twice.
    inherited.ds & !(inherited.ds >> 1 & 1)
}

/// Returns the source port of a flow's outer packets: always the same, so that they take one way.
#[inline(always)]
fn source_port<F: Family>(packet: &Packet<F>) -> u16 {
    let flow = &packet.flow;
    let hash = hash::socket(flow.source.as_ref(), flow.client_port(), flow.protocol as u8);
    (FIRST_PORT + ((hash >> 16) * PORTS >> 16)) as u16
}

/// Returns the addresses of the outer header by words, each in one load.
#[inline(always)]
fn words(backend: &HashBackend) -> [u32; 8] {
    const { assert!(offset_of!(HashBackend, addrs).is_multiple_of(4)) }
    // SAFETY: the 32 bytes, aligned as the element is.
    unsafe { (&raw const backend.addrs).cast::<[u32; 8]>().read() }
}
