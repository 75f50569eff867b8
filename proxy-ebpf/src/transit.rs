//! Transit: from an uplink to an uplink, or out of the same again, before the kernel makes a packet of
//! the frame. It learns nothing and ends nothing: whatever is not plainly fast is passed on, and
//! `tc_in` treats and counts it as if this were not there.

use network_types::eth::EthHdr;
use proxy_common::{
    abi::{Flow, FlowFlags, Uplink},
    packet::checksum,
    reason::Reason,
};

use crate::{
    count::count,
    ctx::{self, Frame, XdpFrame},
    family::Family,
    hit,
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps::UPLINKS,
    parse::{self, LONG, Packet, SHORT, at, ether_type},
    served,
    verdict::Verdict,
};

/// `XDP_TX`: out of the interface that it came in by.
const TX: i32 = 3;
/// Where a frame says its EtherType.
const ETHER_TYPE: usize = EthHdr::LEN - 2;

/// Sends on a frame that came in by an uplink, or passes it on.
#[inline(always)]
pub fn uplink(frame: &XdpFrame<'_>) -> Verdict {
    // A frame of a wire is as long as this, whatever is in it: Ethernet pads.
    let Some(headers) = frame.headers::<Ipv4, SHORT>() else { return Verdict::Slow };
    let to = (headers.frame::<u32, 0>(), headers.frame::<u16, 4>());
    if !is_ours(frame.interface(), to) {
        return Verdict::Slow;
    }
    match headers.frame::<u16, ETHER_TYPE>().into() {
        ether_type::IPV4 => of_family::<Ipv4>(frame),
        ether_type::IPV6 => of_family::<Ipv6>(frame),
        _ => Verdict::Slow,
    }
}

/// Says whether transit runs on the interface, and the frame is for its MAC address: a device in
/// promiscuous mode shows those of others, too.
#[inline(always)]
fn is_ours(interface: u32, to: (u32, u16)) -> bool {
    let Some(uplink) = UPLINKS.get_ptr(Uplink::slot(interface)) else { return false };
    // SAFETY: an element of an array map. The agent may write it meanwhile: a mixture of two
    // uplinks is one that no frame is for.
    let Uplink { interface: of, mac: [a, b, c, d, e, f], .. } = unsafe { *uplink };
    of == interface && to == (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]))
}

#[inline(always)]
fn of_family<F: Family>(frame: &XdpFrame<'_>) -> Verdict {
    let Some(packet) = parse::frame::<F>(frame) else { return Verdict::Slow };
    let Some(flow) = F::flows().get_ptr_mut(packet.key()) else { return Verdict::Slow };
    if packet.opens() || packet.closes() || !is_transit(flow) || hit::is_observed(flow) {
        return Verdict::Slow;
    }
    // The election is held by tc: one that was won here would be lost there.
    if !matches!(hit::check(frame, &packet, flow), Ok(None)) {
        return Verdict::Slow;
    }
    if packet.is_tcp() {
        forward::<F, LONG, { at::TCP_CHECK }>(frame, &packet, flow)
    } else {
        forward::<F, SHORT, { at::UDP_CHECK }>(frame, &packet, flow)
    }
}

/// Says whether both ends of the flow are uplinks that allow it.
#[inline(always)]
fn is_transit<A>(flow: *mut Flow<A>) -> bool {
    // SAFETY: the program runs under RCU: the element stays readable until it ends. Transforms are
    // never edited in place.
    unsafe { (*flow).transform.flags & FlowFlags::TRANSIT != 0 }
}

/// Rewrites the frame as the kernel rewrote earlier ones, and sends it where those went. `N` bytes
/// of the L4 header have its checksum in them, at `CHECK`.
#[inline(always)]
fn forward<F: Family, const N: usize, const CHECK: usize>(
    frame: &XdpFrame<'_>,
    packet: &Packet<F>,
    flow: *mut Flow<F::Addr>,
) -> Verdict {
    let Some(headers) = frame.headers::<F, N>() else { return Verdict::Slow };
    // SAFETY: as in `is_transit`.
    let to = unsafe { &(*flow).transform };
    hit::rewrite(&headers, packet, to);
    let check = headers.l4::<u16, CHECK>();
    // A datagram without a checksum keeps none.
    if packet.is_tcp() || check != 0 {
        let check = checksum::kernel_apply(check, checksum::add(to.address_delta, to.port_delta));
        // UDP has no checksum of zero: that says that there is none.
        let check = if check == 0 && !packet.is_tcp() { 0xffff } else { check };
        headers.store_l4::<u16, CHECK>(check);
    }
    count(frame, Reason::XdpHit);
    served::count(packet, flow);
    if to.interface == packet.flow.interface {
        return Verdict::Fast(TX);
    }
    Verdict::Fast(ctx::redirect(to.interface))
}
