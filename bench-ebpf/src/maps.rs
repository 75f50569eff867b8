//! Every map.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, ProgramArray},
    macros::btf_map,
};
use proxy_common::abi::{self, Pending, capacity};

use crate::template::Template;

/// A flow, as large as the datapath's key. Addresses and ports are as they lie in the packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FlowKey<A> {
    pub source: A,
    pub destination: A,
    pub ports: u32,
    pub interface: u32,
    pub protocol: u32,
}

/// What to make of a flow's packet, about as large as the datapath's entry.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Rewrite<A> {
    pub destination: A,
    pub port: u32,
    pub interface: u32,
    pub ip_delta: u32,
    pub l4_delta: u32,
    pub ethernet: [u32; 3],
    pub rest: [u32; 18],
}

/// What is dialled, as large as the datapath's key.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ServiceKey<A> {
    pub addr: A,
    pub port_and_protocol: u32,
}

pub type Flows<A> = LruHashMap<FlowKey<A>, Rewrite<A>, { capacity::FLOWS as usize }>;
pub type Services<A> = HashMap<ServiceKey<A>, u32, { capacity::FRONTENDS as usize }>;
pub type PendingPackets<A> = Array<Pending<A>, { abi::IPV4.pending.max_entries as usize }>;

#[btf_map(name = "template")]
pub static TEMPLATE: Array<Template, 1> = Array::new();

/// The program under test.
#[btf_map(name = "tested")]
pub static TESTED: ProgramArray<1> = ProgramArray::new();

/// The same at XDP.
#[btf_map(name = "xdp_template")]
pub static XDP_TEMPLATE: Array<Template, 1> = Array::new();

/// Programs of another type cannot be in one map.
#[btf_map(name = "xdp_tested")]
pub static XDP_TESTED: ProgramArray<1> = ProgramArray::new();

#[btf_map(name = "rung_flows4")]
pub static FLOWS4: Flows<u32> = Flows::new();

#[btf_map(name = "rung_flows6")]
pub static FLOWS6: Flows<[u32; 4]> = Flows::new();

#[btf_map(name = "rung_services4")]
pub static SERVICES4: Services<u32> = Services::new();

#[btf_map(name = "rung_services6")]
pub static SERVICES6: Services<[u32; 4]> = Services::new();

/// The datapath's own, reused by its pin: learning takes a slot, which must be there again for the
/// next packet.
#[btf_map(name = "pending4")]
pub static PENDING4: PendingPackets<[u8; 4]> = PendingPackets::new();

#[btf_map(name = "pending6")]
pub static PENDING6: PendingPackets<[u8; 16]> = PendingPackets::new();
