//! Backends: the endpoints as the BPF maps know them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::{DestinationKey, Protocol};

/// Where translated packets go, whichever virtual server sent them there. The key of the backend
/// map; two virtual servers with the same destination share one backend.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Backend {
    /// Address of the endpoint.
    pub addr: IpAddr,
    /// Port the endpoint listens on, host order.
    pub port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

impl Backend {
    /// Returns the backend of a destination of a virtual server with this protocol.
    pub fn new(key: DestinationKey, protocol: Protocol) -> Self {
        Self { addr: key.addr, port: key.port, protocol }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.addr, self.port), self.protocol)
    }
}
