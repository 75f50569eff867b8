//! Everything that decides about a packet on one node, at one moment. The form of `passlane dump`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::{
    Backend, Destination, DestinationKey, Element, Frontend, Protocol, RuleOptions, VirtualServer,
};

/// The form of a dump. A reader takes its own version only; fields it does not know are skipped.
pub const VERSION: u32 = 1;

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dump {
    /// [`VERSION`].
    pub version: u32,
    /// Seconds since 1970.
    pub taken_at: u64,
    /// Version of the passlane that wrote it.
    pub passlane: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Virtual servers in IPVS, ours and others'.
    pub servers: Vec<Server>,
    /// Connections and persistence templates in IPVS.
    pub connections: Vec<Connection>,
    /// Our nft table; absent when there is none.
    pub table: Option<Table>,
    /// Interfaces of the node.
    pub interfaces: Vec<Interface>,
    /// The fast path as the agent reported it last.
    pub fast_path: FastPath,
    /// The BPF maps; absent when they are not there.
    pub maps: Option<Maps>,
    /// Size of the tables of scheduler `mh`, as the kernel was built: `CONFIG_IP_VS_MH_TAB_INDEX`.
    /// Absent where no virtual server uses it, or nobody could find out.
    #[serde(default)]
    pub mh_index: Option<u8>,
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Its settings.
    pub virtual_server: VirtualServer,
    /// The Service port it serves; absent when it is somebody else's.
    pub service: Option<String>,
    /// Its destinations in the kernel's order, the newest first.
    pub destinations: Vec<Target>,
}

/// A destination with its connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// It.
    pub destination: Destination,
    /// Established connections.
    pub active: u32,
    /// All others.
    pub inactive: u32,
}

/// An entry of IPVS's connection table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Client; port 0 in a persistence template.
    pub client: SocketAddr,
    /// What the client dialled, as IPVS saw it.
    pub frontend: Frontend,
    /// Where its packets go.
    pub destination: DestinationKey,
    /// State, such as `ESTABLISHED`.
    pub state: String,
    /// Seconds until it expires, unless a packet comes.
    pub expires_secs: u64,
}

/// Table `inet passlane`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Which of the fixed rules it has.
    pub rules: RuleOptions,
    /// Its elements.
    pub elements: Vec<Element>,
    /// Everything in it could be read.
    pub whole: bool,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Addresses.
    pub addrs: Vec<IpAddr>,
    /// `fast` or `off` as the agent reported it; absent when it said nothing.
    pub mode: Option<String>,
    /// Why it is off.
    pub reason: String,
}

/// The fast path of the node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FastPath {
    /// `on`, `observe` or `off`; empty when no agent has run.
    pub mode: String,
    /// Why it is not on.
    pub reason: String,
    /// The leases; absent when no agent has run.
    pub lease: Option<Lease>,
}

/// How long an entry holds without a packet on the kernel's path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Milliseconds until a packet is elected to renew it.
    pub soft_ms: u64,
    /// Milliseconds until it ends.
    pub hard_ms: u64,
}

/// The BPF maps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Maps {
    /// The kernel's time; absent when it could not be read.
    pub clock: Option<Clock>,
    /// Entries of another epoch are stale.
    pub epoch: u32,
    /// What clients can dial.
    pub frontends: Vec<FrontendEntry>,
    /// Where traffic goes.
    pub backends: Vec<BackendEntry>,
    /// The flow entries.
    pub flows: Vec<Flow>,
}

/// The kernel's time, in its own unit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// The low 32 bits of its jiffies.
    pub jiffies: u32,
    /// Microseconds of a jiffy.
    pub tick_us: u32,
}

/// An entry of the frontend map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontendEntry {
    /// What clients dial.
    pub frontend: Frontend,
    /// Its id.
    pub id: u32,
    /// Its flows may be learned.
    pub learn: bool,
}

/// An entry of the backend map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendEntry {
    /// Where traffic goes.
    pub backend: Backend,
    /// Its id.
    pub id: u32,
    /// Entries of another generation are stale.
    pub generation: u32,
}

/// A flow entry: one direction of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Protocol.
    pub protocol: Protocol,
    /// Sender, as packets come in.
    pub source: SocketAddr,
    /// Receiver, as packets come in.
    pub destination: SocketAddr,
    /// Index of the interface they come in by.
    pub interface: u32,
    /// Sender, as packets leave.
    pub new_source: SocketAddr,
    /// Receiver, as packets leave.
    pub new_destination: SocketAddr,
    /// Index of the interface they leave by.
    pub out_interface: u32,
    /// Redirected to the peer of that interface.
    pub peer: bool,
    /// From the backend to the client.
    pub reply: bool,
    /// Its packets are counted as what would have been fast, and sent the slow way.
    #[serde(default)]
    pub observed: bool,
    /// What it is good for.
    pub state: FlowState,
    /// Jiffies when the kernel's path last carried a packet.
    pub renewed_at: u32,
    /// Epoch it was learned in.
    pub epoch: u32,
    /// Generation of its backend it was learned in.
    pub generation: u32,
    /// Frontend id.
    pub frontend: u32,
    /// Backend id.
    pub backend: u32,
    /// Largest packet of the way out, bytes from the IP header on.
    pub mtu: u32,
    /// Packets the fast path carried with this entry.
    pub packets: u64,
    /// Bytes of them, from the IP header on.
    pub bytes: u64,
}

/// State of a flow entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// The other direction is not known.
    Learning,
    /// Packets may take the fast path.
    Active,
    /// A FIN or RST was seen.
    Closing,
    /// A state of another version.
    Unknown,
}

impl FlowState {
    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Active => "active",
            Self::Closing => "closing",
            Self::Unknown => "unknown",
        }
    }
}

impl Dump {
    /// Returns the name of an interface, or its number when it is gone.
    pub fn interface_name(&self, index: u32) -> String {
        let found = self.interfaces.iter().find(|interface| interface.index == index);
        found.map_or_else(|| format!("#{index}"), |interface| interface.name.clone())
    }

    /// Returns the Service port that a frontend serves.
    pub fn service_of(&self, frontend: &Frontend) -> Option<&str> {
        self.server(frontend)?.service.as_deref()
    }

    pub(super) fn server(&self, frontend: &Frontend) -> Option<&Server> {
        self.servers.iter().find(|server| server.virtual_server.frontend == *frontend)
    }

    pub(super) fn elements(&self) -> &[Element] {
        self.table.as_ref().map_or(&[], |table| &table.elements)
    }

    pub(super) fn has(&self, element: Element) -> bool {
        self.elements().contains(&element)
    }

    /// Says whether an address is one of the node's own.
    pub(super) fn is_own(&self, addr: IpAddr) -> bool {
        self.interfaces.iter().any(|interface| interface.addrs.contains(&addr))
    }
}
