//! Packets of nobody's socket: floods, scans, and thousands of flows that need no file each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::PacketBuilder;
use rustix::fd::OwnedFd;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::netns::Namespace;

/// Long enough for a packet through an emulated node that is flooded.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions under way at a time: what a server's socket holds without dropping any.
const WINDOW: usize = 32;
const TTL: u8 = 64;

/// Sends IPv4 packets as they are, from whatever source they name.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Sends from inside `namespace`.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let open = || Ok(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW))?);
        Ok(Self { socket: namespace.enter(open).context("raw socket")? })
    }

    /// Sends the first packet of a TCP connection.
    pub fn syn(&self, from: SocketAddrV4, to: SocketAddrV4) -> Result<()> {
        let packet = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), TTL)
            .tcp(from.port(), to.port(), 1, 64_240)
            .syn();
        let mut bytes = Vec::with_capacity(packet.size(0));
        packet.write(&mut bytes, &[])?;
        self.send(&bytes, to)
    }

    /// Sends a datagram.
    pub fn datagram(&self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Result<()> {
        let packet = PacketBuilder::ipv4(from.ip().octets(), to.ip().octets(), TTL)
            .udp(from.port(), to.port());
        let mut bytes = Vec::with_capacity(packet.size(payload.len()));
        packet.write(&mut bytes, payload)?;
        self.send(&bytes, to)
    }

    fn send(&self, packet: &[u8], to: SocketAddrV4) -> Result<()> {
        let sent = sendto(&self.socket, packet, SendFlags::empty(), &SocketAddr::V4(to));
        let sent = sent.with_context(|| format!("send to {to}"))?;
        ensure!(sent == packet.len(), "{sent} of {} bytes were sent to {to}", packet.len());
        Ok(())
    }
}

/// A client of [`crate::dns`] that asks from as many ports as it likes, each a flow of its own.
#[derive(Debug)]
pub struct Crowd {
    sender: Sender,
    answers: File,
    address: Ipv4Addr,
    server: SocketAddrV4,
    /// Who answered each port, from its first question on.
    known: BTreeMap<u16, String>,
}

impl Crowd {
    /// Asks `server` from `address`, which is that of `namespace`.
    pub fn open(namespace: &Namespace, address: Ipv4Addr, server: SocketAddrV4) -> Result<Self> {
        // The kernel knows of no socket at those ports, and would complain to the server.
        namespace.nft(
            "table inet crowd {\n\
             chain output { type filter hook output priority 0;\n\
             icmp type destination-unreachable drop\n}\n}\n",
        )?;
        let answers = namespace
            .enter(|| Ok(socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::UDP))?))?;
        set_socket_timeout(&answers, Timeout::Recv, Some(PATIENCE))?;
        let (sender, known) = (Sender::open(namespace)?, BTreeMap::new());
        Ok(Self { sender, answers: answers.into(), address, server, known })
    }

    /// Asks once from each port. Errs on a question that nobody answers, and when another backend
    /// than before answers a port.
    pub fn ask(&mut self, ports: impl IntoIterator<Item = u16>) -> Result<()> {
        let ports: Vec<u16> = ports.into_iter().collect();
        for window in ports.chunks(WINDOW) {
            for &port in window {
                let from = SocketAddrV4::new(self.address, port);
                self.sender.datagram(from, self.server, &question(port))?;
            }
            for number in 0..window.len() {
                let (port, by) = self
                    .answer()
                    .with_context(|| format!("answer {number} to the ports {window:?}"))?;
                let before = self.known.entry(port).or_insert_with(|| by.clone());
                ensure!(*before == by, "port {port} was answered by {before} and now by {by}");
            }
        }
        Ok(())
    }

    /// Ports that were answered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no port was answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn answer(&mut self) -> Result<(u16, String)> {
        let mut packet = [0; 512];
        loop {
            let length = self.answers.read(&mut packet).context("no answer")?;
            if let Some((port, from, message)) = udp(&packet[..length])
                && from == self.server
            {
                let Some((id, name)) = message.split_first_chunk() else { bail!("empty answer") };
                ensure!(u16::from_be_bytes(*id) == port, "an answer to another port's question");
                return Ok((port, String::from_utf8_lossy(name).into_owned()));
            }
        }
    }
}

/// A question whose number is the port that it is asked from.
fn question(port: u16) -> Vec<u8> {
    [&port.to_be_bytes()[..], b"who answers?"].concat()
}

/// Returns the port that a packet is for, who sent it, and what it says.
fn udp(packet: &[u8]) -> Option<(u16, SocketAddrV4, &[u8])> {
    let (header, rest) = packet.split_at_checked(usize::from(packet.first()? & 0xf) * 4)?;
    let source: [u8; 4] = header.get(12..16)?.try_into().ok()?;
    let (ports, message) = rest.split_at_checked(8)?;
    let port = |at: usize| Some(u16::from_be_bytes(ports.get(at..at + 2)?.try_into().ok()?));
    Some((port(2)?, SocketAddrV4::new(source.into(), port(0)?), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_with_its_ends() {
        let mut packet =
            vec![0x45, 0, 0, 31, 0, 0, 0, 0, 64, 17, 0, 0, 10, 96, 0, 53, 10, 1, 1, 31];
        packet.extend([0, 53, 0x9c, 0x40, 0, 11, 0, 0, b'y', b'e', b's']);
        let server = SocketAddrV4::new([10, 96, 0, 53].into(), 53);
        assert_eq!(udp(&packet), Some((40_000, server, &b"yes"[..])));
        assert_eq!(udp(&packet[..24]), None);
    }
}
