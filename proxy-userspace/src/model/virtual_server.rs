//! Virtual servers and destinations: the objects IPVS holds.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::{Protocol, Scheduler, SchedulerFlags};

/// What clients dial: the key of an IPVS virtual server and of a frontend in the BPF maps.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Frontend {
    /// Address clients dial.
    pub addr: IpAddr,
    /// Port clients dial, host order.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.addr, self.port), self.protocol)
    }
}

/// An IPVS virtual server without its destinations.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct VirtualServer {
    /// Its key.
    pub frontend: Frontend,
    /// Picks the destination of a new connection.
    pub scheduler: Scheduler,
    /// Scheduler flags such as `mh-port`.
    pub flags: SchedulerFlags,
    /// Session affinity timeout in seconds; 0 means none.
    pub persistent_secs: u32,
}

/// The key of a destination within its virtual server.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct DestinationKey {
    /// Backend address.
    pub addr: IpAddr,
    /// Backend port, host order.
    pub port: u16,
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.addr, self.port).fmt(f)
    }
}

/// How IPVS hands a packet to the destination.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Forwarding {
    /// NAT, `Masq` in ipvsadm's words.
    #[default]
    Masq,
    /// The destination is on this host, `Local`. The kernel decides this itself.
    Local,
    /// In an outer packet, `Tunnel`.
    Tunnel(Tunnel),
    /// Direct routing, `Route`.
    Route,
}

/// How a packet is wrapped on its way to the destination.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// UDP port of the destination, host order; the kernel takes any but 0.
        port: u16,
    },
    /// Generic routing encapsulation.
    Gre,
}

impl Forwarding {
    /// Says whether the destination may listen on another port than the one dialled: only a packet
    /// that is translated can be sent to another port.
    pub fn changes_port(self) -> bool {
        self == Self::Masq
    }
}

impl fmt::Display for Forwarding {
    /// Writes what the annotation `passlane.io/forwarding` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masq => f.write_str("masq"),
            Self::Local => f.write_str("local"),
            Self::Route => f.write_str("route"),
            Self::Tunnel(Tunnel::Ipip) => f.write_str("tunnel"),
            Self::Tunnel(Tunnel::Gue { port }) => write!(f, "tunnel,gue:{port}"),
            Self::Tunnel(Tunnel::Gre) => f.write_str("tunnel,gre"),
        }
    }
}

/// An IPVS destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// Its key.
    pub key: DestinationKey,
    /// 0 drains: no new connections, existing ones go on.
    pub weight: u32,
    /// How packets reach it.
    pub forwarding: Forwarding,
    /// How many connections it takes.
    #[serde(default)]
    pub limits: Thresholds,
}

/// When a destination counts as overloaded, and gets no new connections: the thresholds of IPVS
/// (`ip_vs_dest_totalconns`), which counts connections of all states.
#[derive(
    Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize,
)]
pub struct Thresholds {
    /// Connections from which on it is overloaded; 0 means never.
    pub upper: u32,
    /// Connections below which it is so no more; 0 means three quarters of the upper one.
    pub lower: u32,
}

impl fmt::Display for Thresholds {
    /// Writes what the annotation `passlane.io/connection-limits` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lower {
            0 => write!(f, "{}", self.upper),
            lower => write!(f, "{},{lower}", self.upper),
        }
    }
}
