//! The token: how egress knows a packet again that ingress saw.

use proxy_common::abi::{Pending, SLOTS_PER_CPU};

use crate::{
    ctx::{self, Frame, Skb},
    family::Family,
    generation,
    maps::SEQUENCE,
    parse::{LONG, Packet, at},
};

/// A fingerprint of the L4 content that no translation changes: TCP sequence and acknowledgement
/// numbers, or the first payload words of a UDP datagram.
#[inline(always)]
pub fn fingerprint<F: Family>(skb: &Skb<'_>, packet: &Packet<F>) -> (u32, u32) {
    if packet.is_tcp() {
        match skb.headers::<F, LONG>() {
            Some(headers) => {
                (headers.l4::<u32, { at::TCP_SEQ }>(), headers.l4::<u32, { at::TCP_ACK }>())
            }
            None => (0, 0),
        }
    } else {
        match skb.headers::<F, { at::UDP_PAYLOAD + 8 }>() {
            Some(headers) => (
                headers.l4::<u32, { at::UDP_PAYLOAD }>(),
                headers.l4::<u32, { at::UDP_PAYLOAD + 4 }>(),
            ),
            None => (0, 0),
        }
    }
}

/// Stamps the packet, so that egress can learn what the kernel does to it.
#[inline(always)]
pub fn stamp<F: Family>(skb: &Skb<'_>, packet: &Packet<F>) {
    let cpu = ctx::cpu();
    let Some(sequence) = SEQUENCE.get_ptr_mut(0) else { return };
    // SAFETY: the element of this CPU.
    let number = unsafe {
        *sequence = (*sequence).wrapping_add(1);
        *sequence % SLOTS_PER_CPU
    };
    let token = (cpu * SLOTS_PER_CPU + number) & 0xffff;
    let (Some(slot), Some(epoch), Some(edits)) =
        (F::pending().get_ptr_mut(token), generation::epoch(), generation::edits())
    else {
        return;
    };
    let (first, second) = fingerprint(skb, packet);
    let pending = Pending {
        key: *packet.key(),
        stamped_at: ctx::jiffies(),
        epoch,
        edits,
        cpu,
        fingerprint: first,
        fingerprint2: second,
        ip_first: packet.ip_first,
        ip_len: packet.ip_len.into(),
        ttl: packet.ttl.into(),
    };
    // SAFETY: only this CPU writes the slot, or, beyond 64 CPUs, one that egress tells apart by
    // `cpu` and the fingerprint.
    unsafe { *slot = pending };
    // Token 0 is no token: that packet is not learned.
    skb.set_tc_index(token);
}
