//! The hash plane: a packet to a frontend of scheduler `mh` goes on from the driver, or from tc, to the
//! backend that the kernel would choose, by direct routing or in a tunnel. Nothing of it is translated.
//!
//! `frame.rs` -> `parse.rs` -> `flow.rs`, or `choose.rs` for a flow that has no entry -> `send.rs`. Any
//! doubt is the kernel's: it gets the frame untouched, and IPVS sends it to the same backend.

#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the program macro makes public functions that cannot have any")]
#![expect(unreachable_pub, reason = "a binary crate: pub says what other modules use")]

mod adopt;
mod choose;
mod count;
mod entry;
mod family;
mod flow;
mod frame;
mod ipv4;
mod ipv6;
mod key;
mod limit;
mod maps;
mod outer;
mod parse;
mod send;
mod settings;
mod skb;
mod tags;
mod timeout;
mod uplink;
mod verdict;
mod xdp;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use proxy_common::hash_reason::HashReason;

use crate::{
    choose::choose, family::Family, frame::Frame, ipv4::Ipv4, ipv6::Ipv6, send::Way, skb::Skb,
    verdict::Verdict, xdp::XdpFrame,
};

/// Drivers of uplinks.
#[xdp]
pub fn xdp_lb(ctx: XdpContext) -> u32 {
    run(&XdpFrame::new(&ctx))
}

/// Ingress of uplinks whose driver has no XDP.
#[classifier]
pub fn tc_lb(ctx: TcContext) -> i32 {
    run(&Skb::new(&ctx)) as i32
}

/// Tells user space the kernel's clock by a test run: that of flows is no clock that it can read.
#[xdp]
pub fn clock(_: XdpContext) -> u32 {
    frame::jiffies()
}

/// Takes over a flow that IPVS knows: it is run on an entry of `hash_flows4`.
#[xdp]
pub fn adopt4(ctx: XdpContext) -> u32 {
    adopt::from::<Ipv4>(&XdpFrame::new(&ctx))
}

/// The same of IPv6.
#[xdp]
pub fn adopt6(ctx: XdpContext) -> u32 {
    adopt::from::<Ipv6>(&XdpFrame::new(&ctx))
}

/// Returns the action code for a frame.
#[inline(always)]
fn run<P: Frame>(frame: &P) -> u32 {
    let verdict = carry(frame);
    count::verdict(frame, verdict);
    verdict.code::<P>()
}

#[inline(always)]
fn carry(frame: &impl Frame) -> Verdict {
    let Some((ip, ether_type)) = uplink::payload(frame) else {
        return Verdict::Kernel(HashReason::NotOurs);
    };
    let carried = match ether_type {
        Ipv4::ETHER_TYPE => of_family::<Ipv4>(frame, ip),
        Ipv6::ETHER_TYPE => of_family::<Ipv6>(frame, ip),
        _ => Err(HashReason::NotOurs),
    };
    carried.unwrap_or_else(Verdict::Kernel)
}

/// Sends on a packet whose IP header is this far into the frame, or says why the kernel gets it.
#[inline(always)]
fn of_family<F: Family>(frame: &impl Frame, ip: usize) -> Result<Verdict, HashReason> {
    if !frame.pull() {
        return Err(HashReason::Unparsed);
    }
    let packet = parse::packet::<F>(frame, ip)?;
    let now = frame::jiffies();
    let place = flow::place(&packet);
    let (chosen, is_known) = match flow::living(&packet, place, now) {
        Some(living) => (living, true),
        None => (choose(&packet)?, false),
    };
    let way = Way::of(&packet, chosen.backend, now)?;
    if !frame.grow(&way.headers, packet.ip) {
        return Err(HashReason::NoRoom);
    }
    let code = way.send(frame, &packet);
    // After the ways, which the verifier would take the search for room through one by one.
    let reason = match is_known {
        _ if packet.is_error => HashReason::IcmpError,
        true => HashReason::Cached,
        false => flow::record(&packet, place, &chosen, now),
    };
    count::sent(&chosen, reason, packet.len);
    Ok(Verdict::Sent { reason, code, bytes: packet.len })
}

/// aya's entry for kernels that gate helpers by licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
