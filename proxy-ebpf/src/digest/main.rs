//! What the maps of frontends and backends hold, as a sum each. The agent has it run every few
//! seconds: no packet meets it, and it is attached to nothing. It changes none of those maps.
//!
//! It is a program for raw tracepoints because those are run without holding up the CPU's packets:
//! the kernel keeps softirqs off while it tests a program of the other types.

#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the program macro makes public functions that cannot have any")]

use core::ffi::c_void;

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::generated::bpf_for_each_map_elem,
    macros::{btf_map, raw_tracepoint},
    programs::RawTracePointContext,
};
use proxy_common::{
    abi::{Backend, DIGEST, Digest, Frontend, ServiceKey, capacity},
    fingerprint,
};

type Frontends<A> = HashMap<ServiceKey<A>, Frontend, { capacity::FRONTENDS as usize }>;
type Backends<A> = HashMap<ServiceKey<A>, Backend, { capacity::BACKENDS as usize }>;

#[btf_map(name = "frontends4")]
static FRONTENDS4: Frontends<[u8; 4]> = Frontends::new();

#[btf_map(name = "frontends6")]
static FRONTENDS6: Frontends<[u8; 16]> = Frontends::new();

#[btf_map(name = "backends4")]
static BACKENDS4: Backends<[u8; 4]> = Backends::new();

#[btf_map(name = "backends6")]
static BACKENDS6: Backends<[u8; 16]> = Backends::new();

#[btf_map(name = "digest")]
static SUMS: Array<Digest, { DIGEST.max_entries as usize }> = Array::new();

/// A key of IPv4 by words, and one of IPv6.
type Words4 = [u32; size_of::<ServiceKey<[u8; 4]>>() / 4];
type Words6 = [u32; size_of::<ServiceKey<[u8; 16]>>() / 4];

/// What the kernel calls for each entry of a map whose keys and values are these.
type Visit<K, V> = extern "C" fn(*mut c_void, &K, &V, &mut u64) -> u64;

#[raw_tracepoint]
fn sums_maps(_: RawTracePointContext) -> u32 {
    let (mut frontends, mut backends) = (0, 0);
    let results = [
        walk(&FRONTENDS4, frontend::<Words4>, &mut frontends),
        walk(&FRONTENDS6, frontend::<Words6>, &mut frontends),
        walk(&BACKENDS4, backend::<Words4>, &mut backends),
        walk(&BACKENDS6, backend::<Words6>, &mut backends),
    ];
    let refused = results.map(u64::from).iter().sum();
    let _ = SUMS.set(0, Digest { frontends, backends, refused }, 0);
    0
}

/// Has the kernel visit each entry of a map; says whether it refused.
#[inline(always)]
fn walk<M, K, V>(map: &'static M, visit: Visit<K, V>, sum: &mut u64) -> bool {
    let map = core::ptr::from_ref(map).cast_mut().cast();
    let sum = core::ptr::from_mut(sum).cast();
    // SAFETY: the kernel calls the function with the map, a key and a value of it, and the sum, all of
    // which live as long as that call; the verifier checks that they are what the function takes them
    // for.
    unsafe { bpf_for_each_map_elem(map, visit as *mut c_void, sum, 0) < 0 }
}

extern "C" fn frontend<K: AsRef<[u32]>>(
    _: *mut c_void,
    key: &K,
    value: &Frontend,
    sum: &mut u64,
) -> u64 {
    let number = fingerprint::of_frontend(key.as_ref(), value.id, value.flags);
    *sum = sum.wrapping_add(number);
    0
}

extern "C" fn backend<K: AsRef<[u32]>>(
    _: *mut c_void,
    key: &K,
    value: &Backend,
    sum: &mut u64,
) -> u64 {
    *sum = sum.wrapping_add(fingerprint::of_backend(key.as_ref(), value.id));
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
