//! Frames, built and checksummed by an implementation that is not ours.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type, IpDscp, IpEcn, IpHeaders, IpNumber,
    Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder, SingleVlanHeader,
    UdpHeader, VlanId, VlanPcp,
};
use proxy_common::abi::{HashBackend, HashMethod};

use crate::packets::Net;

/// MAC address of who sends the frames.
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
/// Where the next hop is, and the MAC address of the way out.
pub(super) const NEXT_HOP: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub(super) const OUT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What is behind the IP header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum L4 {
    Udp,
    Tcp {
        syn: bool,
        ack: bool,
        fin: bool,
        rst: bool,
    },
    /// An ICMP message of this type about what the frontend sent to the client, by UDP or by TCP.
    Icmp {
        kind: u8,
        udp: bool,
    },
}

pub(super) const ACK: L4 = L4::Tcp { syn: false, ack: true, fin: false, rst: false };
pub(super) const SYN: L4 = L4::Tcp { syn: true, ack: false, fin: false, rst: false };
pub(super) const SYN_ACK: L4 = L4::Tcp { syn: true, ack: true, fin: false, rst: false };
pub(super) const FIN: L4 = L4::Tcp { syn: false, ack: true, fin: true, rst: false };
pub(super) const RST: L4 = L4::Tcp { syn: false, ack: false, fin: false, rst: true };

/// A packet to a frontend.
#[derive(Clone, Debug)]
pub(super) struct Packet<A> {
    pub(super) to_mac: [u8; 6],
    /// Tag (priority and id), if any.
    pub(super) vlan: Option<u16>,
    pub(super) source: (A, u16),
    pub(super) destination: (A, u16),
    pub(super) ttl: u8,
    /// Differentiated services and congestion notification.
    pub(super) ds: u8,
    /// Only IPv4 has it.
    pub(super) dont_fragment: bool,
    pub(super) l4: L4,
    pub(super) payload: Vec<u8>,
    /// Bytes behind the packet.
    pub(super) padding: usize,
}

impl<A: Net> Packet<A> {
    /// A packet of a client to port 80 of the VIP.
    pub(super) fn new(l4: L4) -> Self {
        Self {
            to_mac: [0; 6],
            vlan: None,
            source: (A::client(5), 40_000),
            destination: (A::VIP, 80),
            ttl: 64,
            ds: 0,
            dont_fragment: true,
            l4,
            payload: b"hello, service".to_vec(),
            padding: 0,
        }
    }

    /// The frame.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut frame = link(self.to_mac, CLIENT_MAC, self.vlan, A::ETHER_TYPE);
        frame.extend(self.ip());
        frame.extend(vec![0xa5; self.padding]);
        frame
    }

    /// Bytes from the IP header on.
    pub(super) fn len(&self) -> usize {
        self.ip().len()
    }

    /// The protocol of its flow.
    pub(super) fn protocol(&self) -> u8 {
        match self.l4 {
            L4::Udp | L4::Icmp { udp: true, .. } => 17,
            _ => 6,
        }
    }

    /// It ends its connection.
    pub(super) fn closes(&self) -> bool {
        matches!(self.l4, L4::Tcp { fin, rst, .. } if fin || rst)
    }

    /// The packet from the IP header on.
    fn ip(&self) -> Vec<u8> {
        // An ICMP error comes from a router on the way.
        let source = match self.l4 {
            L4::Icmp { .. } => A::client(99),
            _ => self.source.0,
        };
        let ip = self.headers(source, self.destination.0);
        let (from, to) = (self.source.1, self.destination.1);
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ip(ip);
        match self.l4 {
            L4::Udp => builder.udp(from, to).write(&mut bytes, &self.payload),
            L4::Tcp { syn, ack, fin, rst } => {
                let mut tcp = builder.tcp(from, to, 1_000, 65_000);
                tcp = if syn { tcp.syn() } else { tcp };
                tcp = if ack { tcp.ack(2_000) } else { tcp };
                tcp = if fin { tcp.fin() } else { tcp };
                tcp = if rst { tcp.rst() } else { tcp };
                tcp.write(&mut bytes, &self.payload)
            }
            L4::Icmp { kind, udp } => {
                let about = self.answer(if udp { L4::Udp } else { ACK });
                match A::VIP.into() {
                    IpAddr::V4(_) => builder.icmpv4(icmpv4(kind)).write(&mut bytes, &about),
                    IpAddr::V6(_) => builder.icmpv6(icmpv6(kind)).write(&mut bytes, &about),
                }
            }
        }
        .expect("a vector takes any packet");
        bytes
    }

    /// What a backend sent to the client, as far as an ICMP error has it.
    fn answer(&self, l4: L4) -> Vec<u8> {
        let answer = Self {
            source: self.destination,
            destination: self.source,
            // Whatever it has left when it meets the router.
            ttl: 1,
            l4,
            payload: Vec::new(),
            ..self.clone()
        };
        answer.ip()
    }

    fn headers(&self, source: A, destination: A) -> IpHeaders {
        match (source.into(), destination.into()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ip = ipv4(self.ttl, self.ds, self.dont_fragment, 0);
                let (source, destination) = (source.octets(), destination.octets());
                let ip = Ipv4Header { source, destination, identification: 4711, ..ip };
                IpHeaders::Ipv4(ip, Ipv4Extensions::default())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => IpHeaders::Ipv6(
                Ipv6Header {
                    traffic_class: self.ds,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                },
                Ipv6Extensions::default(),
            ),
            _ => unreachable!("both addresses are of one type"),
        }
    }

    /// The frame that a backend shall get. The source port of GUE is the program's choice.
    pub(super) fn sent(&self, backend: &HashBackend, gue_source: u16) -> Vec<u8> {
        let mut inner = Self { ttl: self.ttl - 1, ..self.clone() }.ip();
        let len = inner.len();
        inner.extend(vec![0xa5; self.padding]);
        wrap::<A>(&inner, len, backend, gue_source)
    }
}

/// Returns the frame that a backend gets of a packet of so many bytes, whose TTL was lowered; there may
/// be padding behind it.
pub(super) fn wrap<A: Net>(
    inner: &[u8],
    len: usize,
    backend: &HashBackend,
    gue_source: u16,
) -> Vec<u8> {
    let vlan = (backend.vlan != 0).then_some(backend.vlan);
    let ether_type = [backend.ethernet[12], backend.ethernet[13]];
    let mut frame = link(NEXT_HOP, OUT_MAC, vlan, ether_type);
    let in_ip = if A::SUFFIX.is_empty() { 4 } else { 41 };
    let (protocol, between) = match backend.method {
        HashMethod::ROUTE => (None, Vec::new()),
        HashMethod::IPIP => (Some(in_ip), Vec::new()),
        HashMethod::GUE => {
            let header = UdpHeader {
                source_port: gue_source,
                destination_port: backend.port,
                length: (8 + 4 + len) as u16,
                checksum: 0,
            };
            (Some(17), [&header.to_bytes()[..], &[0, in_ip, 0, 0]].concat())
        }
        _ => (Some(47), [&[0, 0][..], &A::ETHER_TYPE].concat()),
    };
    if let Some(protocol) = protocol {
        frame.extend(outer::<A>(inner, backend, protocol, between.len() + len));
    }
    frame.extend(between);
    frame.extend(inner);
    frame
}

/// The outer IP header of a packet.
fn outer<A: Net>(inner: &[u8], backend: &HashBackend, protocol: u8, payload: usize) -> Vec<u8> {
    let (ttl, ds, dont_fragment) = if A::SUFFIX.is_empty() {
        (inner[8], inner[1], inner[6] & 0x40 != 0)
    } else {
        (inner[7], inner[0] << 4 | inner[1] >> 4, false)
    };
    // Congestion that was experienced is not told outside: ECT(0) (RFC 3168, section 9.1.1).
    let ds = if ds & 3 == 3 { ds & !3 | 2 } else { ds };
    let (protocol, addrs) = (IpNumber(protocol), backend.addrs);
    let part = |at: usize, len: usize| addrs[at..at + len].to_vec();
    if backend.family == 6 {
        let header = Ipv6Header {
            traffic_class: ds,
            payload_length: payload as u16,
            next_header: protocol,
            hop_limit: ttl,
            source: part(0, 16).try_into().expect("16 bytes"),
            destination: part(16, 16).try_into().expect("16 bytes"),
            ..Ipv6Header::default()
        };
        return header.to_bytes().to_vec();
    }
    let mut header = Ipv4Header {
        protocol,
        source: part(0, 4).try_into().expect("4 bytes"),
        destination: part(4, 4).try_into().expect("4 bytes"),
        ..ipv4(ttl, ds, dont_fragment, payload)
    };
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

fn ipv4(ttl: u8, ds: u8, dont_fragment: bool, payload: usize) -> Ipv4Header {
    Ipv4Header {
        dscp: IpDscp::try_new(ds >> 2).expect("6 bits"),
        ecn: IpEcn::try_new(ds & 3).expect("2 bits"),
        total_len: (20 + payload) as u16,
        dont_fragment,
        time_to_live: ttl,
        ..Ipv4Header::default()
    }
}

fn icmpv4(kind: u8) -> Icmpv4Type {
    Icmpv4Type::Unknown { type_u8: kind, code_u8: 1, bytes5to8: [0; 4] }
}

fn icmpv6(kind: u8) -> Icmpv6Type {
    Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: [0; 4] }
}

/// Everything before the IP header.
fn link(to: [u8; 6], from: [u8; 6], vlan: Option<u16>, ether_type: [u8; 2]) -> Vec<u8> {
    let ether_type = EtherType(u16::from_be_bytes(ether_type));
    let outermost = if vlan.is_some() { EtherType::VLAN_TAGGED_FRAME } else { ether_type };
    let header = Ethernet2Header { source: from, destination: to, ether_type: outermost };
    let mut bytes = header.to_bytes().to_vec();
    if let Some(tag) = vlan {
        let tag = SingleVlanHeader {
            pcp: VlanPcp::try_new((tag >> 13) as u8).expect("3 bits"),
            drop_eligible_indicator: tag & 0x1000 != 0,
            vlan_id: VlanId::try_new(tag & 0xfff).expect("12 bits"),
            ether_type,
        };
        bytes.extend(tag.to_bytes());
    }
    bytes
}
