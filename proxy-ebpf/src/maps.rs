//! Every map, and nothing else. Layouts and names are in `proxy_common::abi`.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use proxy_common::{
    abi::{
        self, Backend, Counter, Flow4, FlowKey4, Frontend, GENERATIONS, Interface, Pending4,
        ServiceKey4, WARMUP_SLOTS, capacity,
    },
    reason::Reason,
};

#[btf_map(name = "flows4")]
pub static FLOWS4: LruHashMap<FlowKey4, Flow4, { capacity::FLOWS as usize }> = LruHashMap::new();

#[btf_map(name = "pending4")]
pub static PENDING4: Array<Pending4, { abi::PENDING4.max_entries as usize }> = Array::new();

#[btf_map(name = "sequence")]
pub static SEQUENCE: PerCpuArray<u32, 1> = PerCpuArray::new();

#[btf_map(name = "warmup4")]
pub static WARMUP4: Array<u32, { WARMUP_SLOTS as usize }> = Array::new();

#[btf_map(name = "frontends4")]
pub static FRONTENDS4: HashMap<ServiceKey4, Frontend, { capacity::FRONTENDS as usize }> =
    HashMap::new();

#[btf_map(name = "backends4")]
pub static BACKENDS4: HashMap<ServiceKey4, Backend, { capacity::BACKENDS as usize }> =
    HashMap::new();

#[btf_map(name = "generations")]
pub static GENERATION_MAP: Array<u32, { GENERATIONS as usize }> = Array::new();

#[btf_map(name = "interfaces")]
pub static INTERFACES: HashMap<u32, Interface, { capacity::INTERFACES as usize }> = HashMap::new();

#[btf_map(name = "stats")]
pub static STATS: PerCpuArray<Counter, { Reason::SLOTS as usize }> = PerCpuArray::new();
