//! Packets, built and checksummed by an implementation that is not ours.

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;

/// A plain TCP or UDP packet.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) ethernet: ([u8; 6], [u8; 6]),
    pub(crate) source: ([u8; 4], u16),
    pub(crate) destination: ([u8; 4], u16),
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

impl Plain {
    /// A request of 10.1.0.5:40000 to 10.96.0.10:80, for the loopback device's MAC address.
    pub(crate) fn request(l4: L4) -> Self {
        Self {
            ethernet: ([2, 0, 0, 0, 0, 5], [0; 6]),
            source: ([10, 1, 0, 5], 40000),
            destination: ([10, 96, 0, 10], 80),
            ttl: 64,
            payload: b"hello, service".to_vec(),
            l4,
        }
    }

    /// Returns the frame, with checksums.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2(self.ethernet.0, self.ethernet.1).ipv4(
            Ipv4Addr::from(self.source.0).octets(),
            Ipv4Addr::from(self.destination.0).octets(),
            self.ttl,
        );
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
