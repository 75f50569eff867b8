//! Every map.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, ProgramArray},
    macros::btf_map,
};
use proxy_common::abi::{self, Flow, FlowKey, Pending, ServiceKey, capacity};

use crate::template::Template;

pub type Flows<A> = LruHashMap<FlowKey<A>, Flow<A>, { capacity::FLOWS as usize }>;
pub type Services<A> = HashMap<ServiceKey<A>, u32, { capacity::FRONTENDS as usize }>;
pub type PendingPackets<A> = Array<Pending<A>, { abi::IPV4.pending.max_entries as usize }>;

#[btf_map(name = "template")]
pub static TEMPLATE: Array<Template, 1> = Array::new();

/// The program under test.
#[btf_map(name = "tested")]
pub static TESTED: ProgramArray<1> = ProgramArray::new();

#[btf_map(name = "rung_flows4")]
pub static FLOWS4: Flows<[u8; 4]> = Flows::new();

#[btf_map(name = "rung_flows6")]
pub static FLOWS6: Flows<[u8; 16]> = Flows::new();

#[btf_map(name = "rung_services4")]
pub static SERVICES4: Services<[u8; 4]> = Services::new();

#[btf_map(name = "rung_services6")]
pub static SERVICES6: Services<[u8; 16]> = Services::new();

/// The datapath's own, reused by its pin: learning takes a slot, which must be there again for the
/// next packet.
#[btf_map(name = "pending4")]
pub static PENDING4: PendingPackets<[u8; 4]> = PendingPackets::new();

#[btf_map(name = "pending6")]
pub static PENDING6: PendingPackets<[u8; 16]> = PendingPackets::new();
