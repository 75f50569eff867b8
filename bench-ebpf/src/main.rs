//! What `cargo xtask bench datapath` measures the datapath against. Not part of the product.

#![no_std]
#![no_main]
#![feature(core_intrinsics, adt_const_params)]
#![allow(internal_features, reason = "adding atomically has no stable way on BPF")]
#![allow(missing_docs, reason = "the classifier macro makes public functions that cannot have any")]
#![expect(unreachable_pub, reason = "a binary crate: pub says what other modules use")]

mod frame;
mod ladder;
mod maps;
mod restore;
mod template;
mod xdp;

/// aya's entry for kernels that gate helpers by licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
