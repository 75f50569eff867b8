//! Transport protocols a Service port can name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A transport protocol, as Kubernetes spells it. The order is the IANA protocol number's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP, protocol number 6.
    Tcp,
    /// UDP, protocol number 17.
    Udp,
    /// SCTP, protocol number 132.
    Sctp,
}

/// A name that is not one of `TCP`, `UDP`, `SCTP`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown protocol {0:?}: use TCP, UDP or SCTP")]
pub struct ParseProtocolError(String);

impl Protocol {
    /// Returns the IANA protocol number, as the IP header carries it.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Returns the protocol with this IANA number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Returns the name in capitals, as Kubernetes and ipvsadm print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Protocol {
    type Err = ParseProtocolError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.name() == name)
            .ok_or_else(|| ParseProtocolError(name.to_owned()))
    }
}
