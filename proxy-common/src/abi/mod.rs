//! Map layouts. A change of any layout, name or meaning bumps [`ABI_VERSION`], which is part of the
//! pin path: a program never meets a map of another layout.
//!
//! Addresses are byte arrays in network order, so that `bpftool map dump` prints them readably.
//! Ports are host-order `u16`: the datapath swaps once, when it parses. Times are the low 32 bits
//! of the kernel's jiffies; differences are taken modulo 2^32.

mod backend;
#[cfg(feature = "user")]
mod describe;
mod digest;
mod filter;
mod flow;
mod frontend;
mod hash_flow;
mod hash_plane;
mod interface;
mod layout;
mod lease;
mod localhost;
mod observed;
mod served;
mod settings;
mod stats;
mod uplink;
mod witness;

pub use backend::{Backend, EDITS_INDEX, EPOCH_INDEX, FIRST_BACKEND_ID, GENERATIONS};
#[cfg(feature = "user")]
pub use describe::describe;
pub use digest::{DIGEST, Digest};
pub use filter::{FILTER, FilterBit, FilterBlock};
pub use flow::{Flow, FlowFlags, FlowKey, FlowState, Transform};
pub use frontend::{Frontend, FrontendFlags, ServiceKey};
pub use hash_flow::{HashFlow, HashFlowEntry, HashFlowKey, HashFlowSet, HashFlowState, HashTags};
pub use hash_plane::{
    HASH_BACKENDS, HASH_COUNTS, HASH_FLOWS4, HASH_FLOWS6, HASH_FRONTENDS4, HASH_FRONTENDS6,
    HASH_MAPS, HASH_SEED, HASH_STATS, HASH_TABLES, HASH_TAGS4, HASH_TAGS6, HASH_UPLINKS,
    HASH_VLANS, HashBackend, HashBackendFlags, HashCount, HashFrontend, HashFrontendFlags,
    HashMethod, HashSetting, HashSlot, HashVlan, hash_capacity,
};
pub use interface::{Interface, InterfaceFlags};
pub use layout::{Addr, Plain};
#[cfg(feature = "user")]
pub use layout::{Field, Show, Shown};
pub use lease::{INSTALL_SLOTS, Installs, Pending, SLOTS_PER_CPU, WARMUP_SLOTS};
pub use localhost::{
    LOCAL_PEERS, LOCAL_PORTS, LOCALHOST_MAPS, LocalAddress, LocalPeer, LocalPort, NAMESPACE_SETTING,
};
pub use observed::ObservedKey;
pub use served::{Pair, RECENT_SLOTS, Recent, Served};
pub use settings::{LEARN_AFTER, Setting};
pub use stats::Counter;
pub use uplink::{UPLINK_SLOTS, Uplink};
pub use witness::{AGENT, DEEDS, Deed, Doer, LAST, Part, WitnessSetting};

/// Version of every layout in this module, part of the pin path (`v7`).
pub const ABI_VERSION: u32 = 7;

/// The directory below the bpffs root that holds this version's pins.
pub const PIN_DIRECTORY: &str = "v7";

/// A map that both sides know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapSpec {
    /// Name of the map and of its pin; at most 15 bytes, the kernel's limit.
    pub name: &'static str,
    /// `enum bpf_map_type` of `linux/bpf.h`.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Default capacity; that of the flow maps can be set by the operator.
    pub max_entries: u32,
}

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LRU_PERCPU_HASH: u32 = 10;

/// Default capacities.
pub mod capacity {
    /// Flow entries of a family: two a connection. 176 bytes each over IPv4, 224 over IPv6, so 44
    /// and 56 MiB.
    pub const FLOWS: u32 = 1 << 18;
    /// The fewest that can be asked for.
    pub const LEAST_FLOWS: u32 = 1 << 10;
    /// Frontends: one an address, port and protocol that clients dial.
    pub const FRONTENDS: u32 = 1 << 16;
    /// Backends: one an endpoint address, port and protocol.
    pub const BACKENDS: u32 = 1 << 16;
    /// Interfaces the fast path runs on.
    pub const INTERFACES: u32 = 1 << 12;
    /// Pairs of frontend and backend that the fast path carried something of. Memory comes with
    /// each: 88 bytes.
    pub const PAIRS: u32 = 1 << 18;
    /// Frontends and interfaces whose observed packets are counted apart.
    pub const OBSERVED: u32 = 1 << 12;
}

/// The maps of an address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FamilyMaps {
    /// Established flows and what to do with their packets.
    pub flows: MapSpec,
    /// Packets on their way through the slow path, by token.
    pub pending: MapSpec,
    /// What clients dial.
    pub frontends: MapSpec,
    /// Where traffic goes.
    pub backends: MapSpec,
}

/// The maps of IPv4.
pub const IPV4: FamilyMaps = family::<[u8; 4]>(["flows4", "pending4", "frontends4", "backends4"]);
/// The maps of IPv6.
pub const IPV6: FamilyMaps = family::<[u8; 16]>(["flows6", "pending6", "frontends6", "backends6"]);

const fn family<A: Addr>(names: [&'static str; 4]) -> FamilyMaps {
    let [flows, pending, frontends, backends] = names;
    FamilyMaps {
        flows: MapSpec {
            name: flows,
            kind: LRU_HASH,
            key_size: size_of::<FlowKey<A>>() as u32,
            value_size: size_of::<Flow<A>>() as u32,
            max_entries: capacity::FLOWS,
        },
        pending: MapSpec {
            name: pending,
            kind: ARRAY,
            key_size: 4,
            value_size: size_of::<Pending<A>>() as u32,
            max_entries: 1 << 16,
        },
        frontends: MapSpec {
            name: frontends,
            kind: HASH,
            key_size: size_of::<ServiceKey<A>>() as u32,
            value_size: size_of::<Frontend>() as u32,
            max_entries: capacity::FRONTENDS,
        },
        backends: MapSpec {
            name: backends,
            kind: HASH,
            key_size: size_of::<ServiceKey<A>>() as u32,
            value_size: size_of::<Backend>() as u32,
            max_entries: capacity::BACKENDS,
        },
    }
}

/// Number of the next token, one a CPU.
pub const SEQUENCE: MapSpec =
    MapSpec { name: "sequence", kind: PERCPU_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
/// How often a flow was seen before it is worth an entry.
pub const WARMUP: MapSpec =
    MapSpec { name: "warmup", kind: ARRAY, key_size: 4, value_size: 4, max_entries: WARMUP_SLOTS };
/// Epoch, edit counter and one generation a backend.
pub const GENERATION_MAP: MapSpec = MapSpec {
    name: "generations",
    kind: ARRAY,
    key_size: 4,
    value_size: 4,
    max_entries: GENERATIONS,
};
/// Interfaces whose egress may be learned.
pub const INTERFACES: MapSpec = MapSpec {
    name: "interfaces",
    kind: HASH,
    key_size: 4,
    value_size: size_of::<Interface>() as u32,
    max_entries: capacity::INTERFACES,
};
/// Uplinks on which `xdp_up` may take packets.
pub const UPLINKS: MapSpec = MapSpec {
    name: "uplinks",
    kind: ARRAY,
    key_size: 4,
    value_size: size_of::<Uplink>() as u32,
    max_entries: UPLINK_SLOTS,
};
/// Packets and bytes that would have been fast, by frontend and interface. The least used go first.
pub const OBSERVED: MapSpec = MapSpec {
    name: "observed",
    kind: LRU_PERCPU_HASH,
    key_size: size_of::<ObservedKey>() as u32,
    value_size: size_of::<Counter>() as u32,
    max_entries: capacity::OBSERVED,
};
/// Packets and bytes by reason.
pub const STATS: MapSpec = MapSpec {
    name: "stats",
    kind: PERCPU_ARRAY,
    key_size: 4,
    value_size: size_of::<Counter>() as u32,
    max_entries: crate::reason::Reason::SLOTS,
};
/// What each CPU carried of the pairs that are busy on it.
pub const RECENT: MapSpec = MapSpec {
    name: "recent",
    kind: PERCPU_ARRAY,
    key_size: 4,
    value_size: size_of::<Recent>() as u32,
    max_entries: RECENT_SLOTS,
};
/// What the fast path carried of each pair, without `recent`.
pub const SERVED: MapSpec = MapSpec {
    name: "served",
    kind: HASH,
    key_size: size_of::<Pair>() as u32,
    value_size: size_of::<Served>() as u32,
    max_entries: capacity::PAIRS,
};

/// Every map, in the order of the table in the crate's documentation.
pub const MAPS: [MapSpec; 18] = [
    IPV4.flows,
    IPV6.flows,
    IPV4.pending,
    IPV6.pending,
    SEQUENCE,
    WARMUP,
    IPV4.frontends,
    IPV6.frontends,
    IPV4.backends,
    IPV6.backends,
    FILTER,
    GENERATION_MAP,
    INTERFACES,
    OBSERVED,
    UPLINKS,
    STATS,
    RECENT,
    SERVED,
];

const _: () = {
    let mut index = 0;
    while index < MAPS.len() {
        assert!(MAPS[index].name.len() <= 15, "the kernel keeps 15 bytes of a map name");
        index += 1;
    }
};
