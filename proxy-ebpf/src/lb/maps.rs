//! Every map, and nothing else. Layouts and names are in `proxy_common::abi`.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE},
    btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray},
    macros::btf_map,
};
use proxy_common::{
    abi::{
        Counter, HashBackend, HashCount, HashFlowSet, HashFrontend, HashTags, HashVlan, Installs,
        ServiceKey, UPLINK_SLOTS, Uplink, hash_capacity,
    },
    flow_place::WAYS,
    hash::mh::Size,
};

/// Sets of flows. A map that could be mapped into a process begins at a page: of IPv4, no entry is in
/// two cache lines.
pub type Flows<A> = Array<
    HashFlowSet<A>,
    { hash_capacity::sets(hash_capacity::FLOWS) as usize },
    { BPF_F_MMAPABLE as usize },
>;
pub type Tags = Array<
    HashTags,
    { (hash_capacity::sets(hash_capacity::FLOWS) / hash_capacity::TAGGED) as usize },
>;
pub type Frontends<A> = HashMap<ServiceKey<A>, HashFrontend, { hash_capacity::FRONTENDS as usize }>;

/// Slots. The flag lets tables of other sizes take the place of this one (Linux 5.10).
pub type Table = Array<u32, { Size::DEFAULT.slots() as usize }, { BPF_F_INNER_MAP as usize }>;

#[btf_map(name = "hash_flows4")]
pub static FLOWS4: Flows<[u8; 4]> = Flows::new();

#[btf_map(name = "hash_flows6")]
pub static FLOWS6: Flows<[u8; 16]> = Flows::new();

#[btf_map(name = "hash_tags4")]
pub static TAGS4: Tags = Tags::new();

#[btf_map(name = "hash_tags6")]
pub static TAGS6: Tags = Tags::new();

#[btf_map(name = "hash_seed")]
pub static SEED: Array<u64, 1> = Array::new();

#[btf_map(name = "hash_frontends4")]
pub static FRONTENDS4: Frontends<[u8; 4]> = Frontends::new();

#[btf_map(name = "hash_frontends6")]
pub static FRONTENDS6: Frontends<[u8; 16]> = Frontends::new();

#[btf_map(name = "hash_tables")]
pub static TABLES: ArrayOfMaps<Table, { hash_capacity::FRONTENDS as usize }> = ArrayOfMaps::new();

#[btf_map(name = "hash_backends")]
pub static BACKENDS: Array<HashBackend, { hash_capacity::BACKENDS as usize }> = Array::new();

#[btf_map(name = "hash_counts")]
pub static COUNTS: PerCpuArray<HashCount, { hash_capacity::BACKENDS as usize }> =
    PerCpuArray::new();

#[btf_map(name = "hash_stats")]
pub static STATS: PerCpuArray<Counter, { hash_capacity::REASONS as usize }> = PerCpuArray::new();

#[btf_map(name = "hash_uplinks")]
pub static UPLINKS: Array<Uplink, { UPLINK_SLOTS as usize }> = Array::new();

#[btf_map(name = "hash_vlans")]
pub static VLANS: HashMap<HashVlan, u32, { hash_capacity::VLANS as usize }> = HashMap::new();

/// Not pinned: it is about the last second.
#[btf_map(name = "hash_made")]
pub static MADE: PerCpuArray<Installs, 1> = PerCpuArray::new();

/// Who looks for room for a flow.
#[derive(Clone, Copy)]
pub enum Asker {
    Packet,
    Agent,
}

/// Not pinned: for the moment in which room is looked for, by [`Asker`].
#[btf_map(name = "hash_ranks")]
pub static RANKS: PerCpuArray<[u32; WAYS], 2> = PerCpuArray::new();
