//! Every map, and nothing else. Layouts and names are in `proxy_common::abi`.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LruPerCpuHashMap, PerCpuArray},
    macros::btf_map,
};
use proxy_common::{
    abi::{
        self, Counter, FilterBlock, GENERATIONS, INSTALL_SLOTS, Installs, Interface, ObservedKey,
        Pair, RECENT_SLOTS, Recent, Served, UPLINK_SLOTS, Uplink, WARMUP_SLOTS, capacity,
    },
    reason::Reason,
};

use crate::family::{Backends, Drafts, Flows, Frontends, PendingPackets};

#[btf_map(name = "flows4")]
pub static FLOWS4: Flows<[u8; 4]> = Flows::new();

#[btf_map(name = "flows6")]
pub static FLOWS6: Flows<[u8; 16]> = Flows::new();

#[btf_map(name = "pending4")]
pub static PENDING4: PendingPackets<[u8; 4]> = PendingPackets::new();

#[btf_map(name = "pending6")]
pub static PENDING6: PendingPackets<[u8; 16]> = PendingPackets::new();

/// Not pinned, as it means nothing from one packet to the next.
#[btf_map(name = "draft4")]
pub static DRAFT4: Drafts<[u8; 4]> = Drafts::new();

/// As `draft4`.
#[btf_map(name = "draft6")]
pub static DRAFT6: Drafts<[u8; 16]> = Drafts::new();

#[btf_map(name = "sequence")]
pub static SEQUENCE: PerCpuArray<u32, 1> = PerCpuArray::new();

#[btf_map(name = "warmup")]
pub static WARMUP: Array<u32, { WARMUP_SLOTS as usize }> = Array::new();

/// Not pinned: it is about the last second.
#[btf_map(name = "installs")]
pub static INSTALLS: Array<Installs, { INSTALL_SLOTS as usize }> = Array::new();

#[btf_map(name = "frontends4")]
pub static FRONTENDS4: Frontends<[u8; 4]> = Frontends::new();

#[btf_map(name = "frontends6")]
pub static FRONTENDS6: Frontends<[u8; 16]> = Frontends::new();

#[btf_map(name = "backends4")]
pub static BACKENDS4: Backends<[u8; 4]> = Backends::new();

#[btf_map(name = "backends6")]
pub static BACKENDS6: Backends<[u8; 16]> = Backends::new();

#[btf_map(name = "filter")]
pub static FILTER: Array<FilterBlock, { abi::FILTER.max_entries as usize }> = Array::new();

#[btf_map(name = "generations")]
pub static GENERATION_MAP: Array<u32, { GENERATIONS as usize }> = Array::new();

#[btf_map(name = "interfaces")]
pub static INTERFACES: HashMap<u32, Interface, { capacity::INTERFACES as usize }> = HashMap::new();

#[btf_map(name = "observed")]
pub static OBSERVED: LruPerCpuHashMap<ObservedKey, Counter, { capacity::OBSERVED as usize }> =
    LruPerCpuHashMap::new();

#[btf_map(name = "uplinks")]
pub static UPLINKS: Array<Uplink, { UPLINK_SLOTS as usize }> = Array::new();

#[btf_map(name = "stats")]
pub static STATS: PerCpuArray<Counter, { Reason::SLOTS as usize }> = PerCpuArray::new();

#[btf_map(name = "recent")]
pub static RECENT: PerCpuArray<Recent, { RECENT_SLOTS as usize }> = PerCpuArray::new();

/// Memory comes with each pair: few nodes see many of all that there could be.
#[btf_map(name = "served")]
pub static SERVED: HashMap<
    Pair,
    Served,
    { capacity::PAIRS as usize },
    { BPF_F_NO_PREALLOC as usize },
> = HashMap::new();
