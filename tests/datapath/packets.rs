//! Packets, built and checksummed by an implementation that is not ours.

use std::net::IpAddr;

use etherparse::{PacketBuilder, PacketBuilderStep};
use proxy_common::abi::Addr;
use proxy_userspace::kernel::bpf::{Maps, ServiceMaps};

/// An address family, and the addresses of one small Service.
pub(crate) trait Net: Addr + Into<IpAddr> + AsRef<[u8]> {
    /// What the names of its tests end in.
    const SUFFIX: &'static str;
    const ETHER_TYPE: [u8; 2];
    /// Bytes of a frame before the L4 header.
    const L4: usize;
    /// Where the low byte of the IP header's length is in a frame.
    const LENGTH: usize;
    /// Where the L4 protocol is in a frame.
    const PROTOCOL: usize;
    const VIP: Self;
    const POD: Self;

    fn client(number: u16) -> Self;
    /// The address of these bytes, if it is of this family.
    fn read(bytes: &[u8]) -> Option<Self>;
    fn maps(maps: &Maps) -> &ServiceMaps<Self>;
    fn maps_mut(maps: &mut Maps) -> &mut ServiceMaps<Self>;
}

impl Net for [u8; 4] {
    const SUFFIX: &'static str = "";
    const ETHER_TYPE: [u8; 2] = [8, 0];
    const L4: usize = 34;
    const LENGTH: usize = 17;
    const PROTOCOL: usize = 23;
    const VIP: Self = [10, 96, 0, 10];
    const POD: Self = [10, 2, 0, 9];

    fn client(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        [10, 1, high, low]
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }

    fn maps(maps: &Maps) -> &ServiceMaps<Self> {
        &maps.ipv4
    }

    fn maps_mut(maps: &mut Maps) -> &mut ServiceMaps<Self> {
        &mut maps.ipv4
    }
}

impl Net for [u8; 16] {
    const SUFFIX: &'static str = "_over_ipv6";
    const ETHER_TYPE: [u8; 2] = [0x86, 0xdd];
    const L4: usize = 54;
    const LENGTH: usize = 19;
    const PROTOCOL: usize = 20;
    const VIP: Self = [0xfd, 0, 0, 0x96, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 0x10];
    const POD: Self = [0xfd, 0, 0, 2, 0, 6, 0, 7, 0, 8, 0, 9, 0, 10, 0, 9];

    fn client(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        [0xfd, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, high, low]
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }

    fn maps(maps: &Maps) -> &ServiceMaps<Self> {
        &maps.ipv6
    }

    fn maps_mut(maps: &mut Maps) -> &mut ServiceMaps<Self> {
        &mut maps.ipv6
    }
}

/// A plain TCP or UDP packet.
#[derive(Clone, Debug)]
pub(crate) struct Plain<A> {
    pub(crate) ethernet: ([u8; 6], [u8; 6]),
    pub(crate) source: (A, u16),
    pub(crate) destination: (A, u16),
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) l4: L4,
}

/// The transport header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum L4 {
    Udp,
    Tcp { syn: bool, fin: bool, rst: bool },
}

pub(crate) const ACK: L4 = L4::Tcp { syn: false, fin: false, rst: false };
pub(crate) const SYN: L4 = L4::Tcp { syn: true, fin: false, rst: false };
pub(crate) const FIN: L4 = L4::Tcp { syn: false, fin: true, rst: false };
pub(crate) const RST: L4 = L4::Tcp { syn: false, fin: false, rst: true };

impl<A: Net> Plain<A> {
    /// A request of a client to port 80 of the VIP, for the loopback device's MAC address.
    pub(crate) fn request(l4: L4) -> Self {
        Self {
            ethernet: ([2, 0, 0, 0, 0, 5], [0; 6]),
            source: (A::client(5), 40000),
            destination: (A::VIP, 80),
            ttl: 64,
            payload: b"hello, service".to_vec(),
            l4,
        }
    }

    fn ip(&self) -> PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.ethernet.0, self.ethernet.1);
        match (self.source.0.into(), self.destination.0.into()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ethernet.ipv4(from.octets(), to.octets(), self.ttl)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ethernet.ipv6(from.octets(), to.octets(), self.ttl)
            }
            _ => unreachable!("both addresses are of one type"),
        }
    }

    /// Returns the frame, with checksums.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let ip = self.ip();
        let mut frame = Vec::new();
        match self.l4 {
            L4::Udp => ip
                .udp(self.source.1, self.destination.1)
                .write(&mut frame, &self.payload)
                .expect("a vector takes any packet"),
            L4::Tcp { syn, fin, rst } => {
                let mut tcp = ip.tcp(self.source.1, self.destination.1, 1_000, 65_000).ack(2_000);
                if syn {
                    tcp = tcp.syn();
                }
                if fin {
                    tcp = tcp.fin();
                }
                if rst {
                    tcp = tcp.rst();
                }
                tcp.write(&mut frame, &self.payload).expect("a vector takes any packet");
            }
        }
        frame
    }
}

/// Returns a hex dump that shows two packets line by line where they differ.
pub(crate) fn difference(got: &[u8], wanted: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut text = format!("got {} bytes, wanted {}\n", got.len(), wanted.len());
    for at in (0..got.len().max(wanted.len())).step_by(16) {
        let part = |bytes: &[u8]| line(bytes.get(at..bytes.len().min(at + 16)).unwrap_or(&[]));
        let (got, wanted) = (part(got), part(wanted));
        let mark = if got == wanted { ' ' } else { '!' };
        text += &format!("{mark} {at:04x}  got {got:32}  wanted {wanted:32}\n");
    }
    text
}
