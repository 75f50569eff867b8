//! Who changes the node: probes of the kernel's functions that change virtual servers, the nft
//! ruleset, addresses and sysctls note the process. They change nothing, and see no packet.

#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the program macro makes public functions that cannot have any")]
#![expect(unreachable_pub, reason = "a binary crate: pub says what other modules use")]

mod task;

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::{bpf_get_current_comm, bpf_get_current_uid_gid, bpf_ktime_get_ns},
    macros::{btf_map, kprobe},
    programs::ProbeContext,
};
use proxy_common::abi::{DEEDS, Deed, Doer, LAST, Part};

use crate::task::Task;

#[btf_map(name = "deeds")]
static SEEN: LruHashMap<Deed, Doer, { DEEDS.max_entries as usize }> = LruHashMap::new();

#[btf_map(name = "last")]
static LATEST: Array<u64, { LAST.max_entries as usize }> = Array::new();

#[btf_map(name = "agent")]
static AGENT: Array<u32, 1> = Array::new();

/// Sees the agent read, which it does before it changes anything: so its process id in the first
/// PID namespace is known, and its children are.
#[kprobe]
pub fn sees_agent(_: ProbeContext) -> u32 {
    if task::is_agent() {
        let _ = AGENT.set(0, Task::current_process(), 0);
    }
    0
}

#[kprobe]
pub fn sees_ipvs(_: ProbeContext) -> u32 {
    note(Part::IPVS)
}

#[kprobe]
pub fn sees_nft(_: ProbeContext) -> u32 {
    note(Part::NFT)
}

#[kprobe]
pub fn sees_address(_: ProbeContext) -> u32 {
    note(Part::ADDRESS)
}

#[kprobe]
pub fn sees_sysctl(_: ProbeContext) -> u32 {
    note(Part::SYSCTL)
}

/// Notes when, and the process that runs, unless it is the agent or its child, or is in another
/// network namespace.
#[inline(always)]
fn note(part: u32) -> u32 {
    let task = Task::current();
    let process = Task::current_process();
    let agent = AGENT.get(0).copied().unwrap_or_default();
    // SAFETY: the helper only reads the clock.
    let at = unsafe { bpf_ktime_get_ns() };
    let by = if process == agent { Part::COUNT } else { 0 };
    let _ = LATEST.set(part + by, at, 0);
    if process == agent || task.parent() == agent || !task.is_near() {
        return 0;
    }
    let user = bpf_get_current_uid_gid() as u32;
    let command = bpf_get_current_comm().unwrap_or_default();
    let doer = Doer { at, user, _pad: [0; 4], command };
    // The map forgets the oldest; what it cannot take is not told.
    let _ = SEEN.insert(Deed { part, process }, doer, 0);
    0
}

/// aya's entry for kernels that gate helpers by licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
