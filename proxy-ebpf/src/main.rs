//! The datapath: learn what the kernel did to a flow's packets, and repeat it.
//!
//! `tc_in` runs at the ingress of an interface: a packet of a known flow is rewritten and
//! redirected, another one of a known Service is stamped and takes the slow path. `tc_out` runs
//! at egress and learns from the stamped ones. Any doubt is slow path. `xdp_up` runs at the driver of
//! an uplink and sends on what tc has learned to go from uplink to uplink.

#![no_std]
#![no_main]
#![feature(core_intrinsics, adt_const_params)]
#![allow(internal_features, reason = "compare and exchange has no stable way on BPF")]
#![allow(missing_docs, reason = "the program macros make public functions that cannot have any")]
#![expect(unreachable_pub, reason = "a binary crate: pub says what other modules use")]

mod atomic;
mod close;
mod count;
mod ctx;
mod family;
mod generation;
mod hit;
mod ipv4;
mod ipv6;
mod key;
mod learn;
mod limit;
mod maps;
mod parse;
mod served;
mod service;
mod settings;
mod token;
mod transit;
mod verdict;
mod warmup;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use proxy_common::reason::Reason;

use crate::{
    count::count,
    ctx::{Skb, XdpFrame},
    family::Family,
    ipv4::Ipv4,
    ipv6::Ipv6,
    parse::{Packet, ether_type},
    verdict::Verdict,
};

/// Ingress of pod interfaces and uplinks.
#[classifier]
pub fn tc_in(ctx: TcContext) -> i32 {
    ingress(&Skb::new(&ctx)).code()
}

/// Egress of the same interfaces.
#[classifier]
pub fn tc_out(ctx: TcContext) -> i32 {
    if let Some(reason) = learn::egress(&ctx) {
        count(&Skb::new(&ctx), reason);
    }
    Verdict::Slow.code()
}

/// Drivers of uplinks.
#[xdp]
pub fn xdp_up(ctx: XdpContext) -> u32 {
    transit::uplink(&XdpFrame::new(&ctx)).xdp_code()
}

/// Tells user space the kernel's clock by a test run: that of leases is no clock that it can read.
#[xdp]
pub fn clock(_: XdpContext) -> u32 {
    ctx::jiffies()
}

#[inline(always)]
fn ingress(skb: &Skb<'_>) -> Verdict {
    match skb.protocol() {
        ether_type::IPV4 => of_family::<Ipv4>(skb),
        ether_type::IPV6 => of_family::<Ipv6>(skb),
        _ => slow(skb, Reason::Unparsed),
    }
}

#[inline(always)]
fn of_family<F: Family>(skb: &Skb<'_>) -> Verdict {
    let Some(packet) = parse::ingress::<F>(skb) else {
        return slow(skb, Reason::Unparsed);
    };
    if !service::is_possible(&packet) {
        return slow(skb, Reason::NotService);
    }
    let Some(flow) = F::flows().get_ptr_mut(packet.key()) else {
        return unknown(skb, &packet);
    };
    if packet.opens() {
        close::forget::<F>(packet.key(), flow);
        warmup::forget::<F>(packet.key());
        return slow(skb, Reason::Syn);
    }
    if packet.closes() {
        close::close::<F>(packet.key(), flow);
        return slow(skb, Reason::FinRst);
    }
    match hit::refuse(skb, &packet, flow) {
        None if hit::is_observed(flow) => {
            count::observed(skb, flow);
            slow(skb, Reason::Observed)
        }
        None => {
            count(skb, Reason::Hit);
            hit::forward(skb, &packet, flow)
        }
        // The kernel answers these itself: nothing comes out that could be learned.
        Some(reason @ (Reason::TtlExpired | Reason::TooBig | Reason::Closing)) => slow(skb, reason),
        Some(reason) => {
            count(skb, reason);
            token::stamp(skb, &packet);
            Verdict::Slow
        }
    }
}

/// A packet without a flow entry: stamped when it belongs to a Service.
#[inline(always)]
fn unknown<F: Family>(skb: &Skb<'_>, packet: &Packet<F>) -> Verdict {
    if !service::is_known(packet) {
        return slow(skb, Reason::NotService);
    }
    if packet.opens() {
        warmup::forget::<F>(packet.key());
        return slow(skb, Reason::Syn);
    }
    if packet.closes() {
        return slow(skb, Reason::FinRst);
    }
    count(skb, Reason::NoFlow);
    token::stamp(skb, packet);
    Verdict::Slow
}

/// Sends the packet the slow way, without a token: one left by another program would be taken for
/// ours.
#[inline(always)]
fn slow(skb: &Skb<'_>, reason: Reason) -> Verdict {
    if skb.tc_index() != 0 {
        skb.set_tc_index(0);
    }
    count(skb, reason);
    Verdict::Slow
}

/// aya's entry for kernels that gate helpers by licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
