//! Map layouts. A change of any layout, name or meaning bumps [`ABI_VERSION`], which is part of the
//! pin path: a program never meets a map of another layout.
//!
//! Addresses are byte arrays in network order, so that `bpftool map dump` prints them readably.
//! Ports are host-order `u16`: the datapath swaps once, when it parses. Times are the low 32 bits
//! of the kernel's jiffies; differences are taken modulo 2^32.

mod backend;
#[cfg(feature = "user")]
mod describe;
mod flow;
mod frontend;
mod interface;
mod layout;
mod lease;
mod settings;
mod stats;

pub use backend::{Backend, EDITS_INDEX, EPOCH_INDEX, FIRST_BACKEND_ID, GENERATIONS};
#[cfg(feature = "user")]
pub use describe::describe;
#[cfg(feature = "user")]
pub use layout::Field;
pub use flow::{Flow4, FlowFlags, FlowKey4, FlowState, Transform4};
pub use frontend::{Frontend, FrontendFlags, ServiceKey4};
pub use interface::{Interface, InterfaceFlags};
pub use lease::{Pending4, SLOTS_PER_CPU, WARMUP_SLOTS};
pub use settings::{LEARN_AFTER, Setting};
pub use stats::Counter;

/// Version of every layout in this module, part of the pin path (`v1`).
pub const ABI_VERSION: u32 = 1;

/// The directory below the bpffs root that holds this version's pins.
pub const PIN_DIRECTORY: &str = "v1";

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
    /// Default capacity; `flows4`, `frontends4` and `backends4` can be set by the operator.
    pub max_entries: u32,
}

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;

/// Default capacities.
pub mod capacity {
    /// Flow entries: two a connection. 160 bytes each, so 40 MiB.
    pub const FLOWS: u32 = 1 << 18;
    /// Frontends: one an address, port and protocol that clients dial.
    pub const FRONTENDS: u32 = 1 << 16;
    /// Backends: one an endpoint address, port and protocol.
    pub const BACKENDS: u32 = 1 << 16;
    /// Interfaces the fast path runs on.
    pub const INTERFACES: u32 = 1 << 12;
}

/// Established flows and what to do with their packets.
pub const FLOWS4: MapSpec = MapSpec {
    name: "flows4",
    kind: LRU_HASH,
    key_size: size_of::<FlowKey4>() as u32,
    value_size: size_of::<Flow4>() as u32,
    max_entries: capacity::FLOWS,
};
/// Packets on their way through the slow path, by token.
pub const PENDING4: MapSpec = MapSpec {
    name: "pending4",
    kind: ARRAY,
    key_size: 4,
    value_size: size_of::<Pending4>() as u32,
    max_entries: 1 << 16,
};
/// Number of the next token, one a CPU.
pub const SEQUENCE: MapSpec = MapSpec {
    name: "sequence",
    kind: PERCPU_ARRAY,
    key_size: 4,
    value_size: 4,
    max_entries: 1,
};
/// How often a flow was seen before it is worth an entry.
pub const WARMUP4: MapSpec =
    MapSpec { name: "warmup4", kind: ARRAY, key_size: 4, value_size: 4, max_entries: WARMUP_SLOTS };
/// What clients dial.
pub const FRONTENDS4: MapSpec = MapSpec {
    name: "frontends4",
    kind: HASH,
    key_size: size_of::<ServiceKey4>() as u32,
    value_size: size_of::<Frontend>() as u32,
    max_entries: capacity::FRONTENDS,
};
/// Where traffic goes.
pub const BACKENDS4: MapSpec = MapSpec {
    name: "backends4",
    kind: HASH,
    key_size: size_of::<ServiceKey4>() as u32,
    value_size: size_of::<Backend>() as u32,
    max_entries: capacity::BACKENDS,
};
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
/// Packets and bytes by reason.
pub const STATS: MapSpec = MapSpec {
    name: "stats",
    kind: PERCPU_ARRAY,
    key_size: 4,
    value_size: size_of::<Counter>() as u32,
    max_entries: crate::reason::Reason::SLOTS,
};

/// Every map, in the order of the table in the crate's documentation.
pub const MAPS: [MapSpec; 9] =
    [FLOWS4, PENDING4, SEQUENCE, WARMUP4, FRONTENDS4, BACKENDS4, GENERATION_MAP, INTERFACES, STATS];

const _: () = {
    let mut index = 0;
    while index < MAPS.len() {
        assert!(MAPS[index].name.len() <= 15, "the kernel keeps 15 bytes of a map name");
        index += 1;
    }
};
