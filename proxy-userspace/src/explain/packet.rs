//! The packet that is asked about.

use std::{fmt, net::SocketAddr};

use serde::Serialize;

use crate::model::{Frontend, Protocol};

/// A packet by its 5-tuple, and where it comes in if that is known.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Packet {
    /// Protocol.
    pub protocol: Protocol,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Name of the interface it comes in by.
    pub interface: Option<String>,
}

/// Words that name no packet.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParsePacketError {
    /// Not a protocol that Services have.
    #[error("protocol {0:?}: use tcp, udp or sctp")]
    Protocol(String),
    /// Not an address with a port.
    #[error("{place} {text:?}: write ADDRESS:PORT, such as 10.96.0.10:53 or [fd00::10]:53")]
    Socket {
        /// `source` or `destination`.
        place: &'static str,
        /// What was written.
        text: String,
    },
    /// An IPv4 and an IPv6 address.
    #[error("source {0} and destination {1} are of different address families")]
    Families(SocketAddr, SocketAddr),
}

impl Packet {
    /// Reads protocol, source and destination as people write them.
    ///
    /// # Errors
    ///
    /// [`ParsePacketError`] naming the word that is wrong.
    pub fn parse(
        protocol: &str,
        source: &str,
        destination: &str,
    ) -> Result<Self, ParsePacketError> {
        let known = protocol.to_uppercase().parse();
        let protocol: Protocol =
            known.map_err(|_| ParsePacketError::Protocol(protocol.to_owned()))?;
        let socket = |place, text: &str| {
            let wrong = |_| ParsePacketError::Socket { place, text: text.to_owned() };
            text.parse::<SocketAddr>().map_err(wrong)
        };
        let source = socket("source", source)?;
        let destination = socket("destination", destination)?;
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(ParsePacketError::Families(source, destination));
        }
        Ok(Self { protocol, source, destination, interface: None })
    }

    /// Returns what it dials.
    pub(super) fn dials(&self) -> Frontend {
        let Self { destination, protocol, .. } = self;
        Frontend { addr: destination.ip(), port: destination.port(), protocol: *protocol }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} to {}", self.protocol, self.source, self.destination)?;
        match &self.interface {
            Some(name) => write!(f, ", coming in by {name}"),
            None => Ok(()),
        }
    }
}
