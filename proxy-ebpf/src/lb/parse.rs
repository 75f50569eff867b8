//! IP, TCP, UDP, and ICMP errors about them. Whatever is not plain is not a [`Packet`].

use network_types::{icmp::Icmpv4Hdr, ip::IpProto, tcp::TcpHdr, udp::UdpHdr};
use proxy_common::hash_reason::HashReason;

use crate::{
    family::{Family, IpHeader},
    frame::Frame,
    key::{self, FlowWords},
};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Bytes of an ICMP header, of either family.
const ICMP: usize = Icmpv4Hdr::LEN;
/// Where the flags are in a TCP header.
const TCP_FLAGS: usize = 13;
/// Where its length is, in words, in the upper half of a byte.
const TCP_LENGTH: usize = 12;
/// Bytes of L4 that an ICMP error has of the packet that it is about, at least.
pub const QUOTED: usize = 8;

/// A packet of a flow from a client to a frontend, or an ICMP error about an answer of that flow.
pub struct Packet<F: Family> {
    /// The flow, as its packets from the client have it.
    pub flow: FlowWords<F::Words>,
    /// Where the IP header is in the frame.
    pub ip: usize,
    /// Bytes from the IP header on, as that says.
    pub len: u32,
    /// The same of the longest packet that it is on the wire: several may be one here.
    pub longest: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// It is an ICMP error.
    pub is_error: bool,
    /// TCP flags; 0 for others.
    tcp_flags: u8,
}

impl<F: Family> Packet<F> {
    /// A client's first packet of a TCP connection.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.tcp_flags & (SYN | ACK) == SYN
    }

    /// Several datagrams are one. Which kind of one it is, the kernel does not tell.
    #[inline(always)]
    pub fn is_datagrams(&self) -> bool {
        self.longest != self.len && self.flow.protocol != IpProto::Tcp as u32
    }

    /// A packet that ends a TCP connection.
    #[inline(always)]
    pub fn closes(&self) -> bool {
        self.tcp_flags & (FIN | RST) != 0
    }
}

/// Parses a packet whose IP header is this far into the frame.
#[inline(always)]
pub fn packet<F: Family>(frame: &impl Frame, at: usize) -> Result<Packet<F>, HashReason> {
    let ip = F::header(frame, at)?;
    // A frame may be longer: it is padded.
    if at as u32 + ip.len > frame.len() {
        return Err(HashReason::Unparsed);
    }
    if ip.protocol == F::ICMP {
        return error(frame, at, &ip);
    }
    let l4 = at + F::HEADER;
    let (tcp_flags, ports, least, header) = if ip.protocol == IpProto::Tcp as u8 {
        let header = frame.window::<{ TcpHdr::LEN }>(l4).ok_or(HashReason::Unparsed)?;
        let len = header.load::<u8, TCP_LENGTH>() >> 4 << 2;
        (header.load::<u8, TCP_FLAGS>(), header.load::<u32, 0>(), TcpHdr::LEN, len.into())
    } else if ip.protocol == IpProto::Udp as u8 {
        let header = frame.window::<{ UdpHdr::LEN }>(l4).ok_or(HashReason::Unparsed)?;
        (0, header.load::<u32, 0>(), UdpHdr::LEN, UdpHdr::LEN as u32)
    } else {
        return Err(HashReason::Unparsed);
    };
    if ip.len < (F::HEADER + least) as u32 {
        return Err(HashReason::Unparsed);
    }
    let longest = match frame.gso_size() {
        0 => ip.len,
        segment => F::HEADER as u32 + header + segment,
    };
    let flow = FlowWords {
        source: ip.source,
        destination: ip.destination,
        ports: key::ports(ports),
        protocol: ip.protocol.into(),
    };
    Ok(Packet { flow, ip: at, len: ip.len, longest, ttl: ip.ttl, is_error: false, tcp_flags })
}

/// Parses an ICMP message, which must be an error about a packet that a frontend's address sent: the
/// flow is the inverse of that.
#[inline(always)]
fn error<F: Family>(
    frame: &impl Frame,
    at: usize,
    ip: &IpHeader<F::Words>,
) -> Result<Packet<F>, HashReason> {
    let icmp = at + F::HEADER;
    let header = frame.window::<{ ICMP }>(icmp).ok_or(HashReason::Unparsed)?;
    if !F::is_error(header.load::<u8, 0>()) {
        return Err(HashReason::Unparsed);
    }
    let about = icmp + ICMP;
    let inner = F::header(frame, about)?;
    if inner.protocol != IpProto::Tcp as u8 && inner.protocol != IpProto::Udp as u8 {
        return Err(HashReason::Unparsed);
    }
    let l4 = frame.window::<QUOTED>(about + F::HEADER).ok_or(HashReason::Unparsed)?;
    if ip.len < (F::HEADER + ICMP + F::HEADER + QUOTED) as u32 {
        return Err(HashReason::Unparsed);
    }
    if inner.source != ip.destination {
        return Err(HashReason::NoFrontend);
    }
    let flow = FlowWords {
        source: inner.destination,
        destination: inner.source,
        ports: key::ports(l4.load::<u32, 0>()).rotate_left(16),
        protocol: inner.protocol.into(),
    };
    let (len, ttl) = (ip.len, ip.ttl);
    Ok(Packet { flow, ip: at, len, longest: len, ttl, is_error: true, tcp_flags: 0 })
}
