//! ICMP errors as a host receives them: who sent one, and what the packet in it was.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::netns::Namespace;

/// Long enough for a packet through an emulated node.
const PATIENCE: Duration = Duration::from_secs(5);

/// An error about a packet that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Who sent it.
    pub from: Ipv4Addr,
    /// Type and code.
    pub kind: (u8, u8),
    /// For [`IcmpError::TOO_BIG`], what would fit, in bytes.
    pub mtu: u16,
    /// The source of the packet it is about, as its header says.
    pub source: SocketAddr,
    /// The destination of that packet.
    pub destination: SocketAddr,
}

impl IcmpError {
    /// Destination unreachable, port unreachable.
    pub const PORT_UNREACHABLE: (u8, u8) = (3, 3);
    /// Destination unreachable, fragmentation needed.
    pub const TOO_BIG: (u8, u8) = (3, 4);
    /// Time exceeded, in transit.
    pub const TTL_EXPIRED: (u8, u8) = (11, 0);

    /// Reads an IPv4 packet; `None` when it is no error about TCP or UDP.
    fn read(packet: &[u8]) -> Option<Self> {
        let (header, icmp) = split_ipv4(packet)?;
        let kind = (*icmp.first()?, *icmp.get(1)?);
        let mtu = u16::from_be_bytes(icmp.get(6..8)?.try_into().ok()?);
        let (inner, ports) = split_ipv4(icmp.get(8..)?)?;
        let port = |at: usize| Some(u16::from_be_bytes(ports.get(at..at + 2)?.try_into().ok()?));
        Some(Self {
            from: address(header, 12)?,
            kind,
            mtu,
            source: (address(inner, 12)?, port(0)?).into(),
            destination: (address(inner, 16)?, port(2)?).into(),
        })
    }
}

/// Returns header and content.
fn split_ipv4(packet: &[u8]) -> Option<(&[u8], &[u8])> {
    packet.split_at_checked(usize::from(packet.first()? & 0xf) * 4)
}

fn address(header: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// Hears the ICMP errors that come to a namespace.
#[derive(Debug)]
pub struct Listener {
    socket: File,
}

impl Listener {
    /// Listens from now on.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.enter(|| {
            let protocol = Some(ipproto::ICMP);
            Ok(socket(AddressFamily::INET, SocketType::RAW, protocol)?)
        })?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket: socket.into() })
    }

    /// Waits for an error of this kind about a packet of `source`; others are passed over.
    pub fn next(&mut self, kind: (u8, u8), source: SocketAddr) -> Result<IcmpError> {
        let mut packet = [0; 2048];
        loop {
            let length = self.socket.read(&mut packet).with_context(|| {
                format!("no ICMP error {kind:?} about a packet of {source} within {PATIENCE:?}")
            })?;
            let error = IcmpError::read(&packet[..length]);
            if let Some(error) = error.filter(|error| error.kind == kind)
                && IpAddr::from(error.from) != source.ip()
                && error.source == source
            {
                return Ok(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_packet_that_it_is_about() {
        let mut packet = vec![0x45, 0, 0, 56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 1, 1, 31];
        packet.extend([3, 4, 0, 0, 0, 0, 0x05, 0x14]);
        packet.extend([0x45, 0, 5, 220, 0, 0, 0, 0, 63, 6, 0, 0, 10, 1, 1, 31, 10, 96, 0, 10]);
        packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0]);
        let error = IcmpError {
            from: [10, 0, 0, 1].into(),
            kind: IcmpError::TOO_BIG,
            mtu: 1300,
            source: ([10, 1, 1, 31], 40000).into(),
            destination: ([10, 96, 0, 10], 80).into(),
        };
        assert_eq!(IcmpError::read(&packet), Some(error));
        assert_eq!(IcmpError::read(&packet[..40]), None);
        assert_eq!(IcmpError::read(&[]), None);
    }
}
