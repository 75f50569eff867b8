//! The fast path: may this packet take it, and then the rewrite and the redirect.

use core::mem::offset_of;

use proxy_common::{
    abi::{Flow, FlowFlags, FlowState, Transform},
    reason::Reason,
};

use crate::{
    atomic,
    ctx::{self, Frame, Headers, Skb},
    family::Family,
    generation,
    parse::{LONG, Packet, SHORT, at},
    served,
    settings::{ELECTION, HARD_LEASE, SOFT_LEASE},
    verdict::Verdict,
};

/// A packet that may renew the lease, if it wins.
pub struct Candidate {
    now: u32,
    /// When the last packet was elected.
    last: u32,
}

/// Says why the packet must take the slow path, or that it need not.
#[inline(always)]
pub fn refuse<F: Family>(
    skb: &Skb<'_>,
    packet: &Packet<F>,
    flow: *mut Flow<F::Addr>,
) -> Option<Reason> {
    match check(skb, packet, flow) {
        Err(reason) => Some(reason),
        Ok(None) => None,
        Ok(Some(Candidate { now, last })) => {
            // SAFETY: an aligned word of a map element, as in `check`.
            let won = unsafe { atomic::replace(&raw mut (*flow).elected_at, last, now) };
            won.then_some(Reason::Elected)
        }
    }
}

/// Says why the packet must take the slow path; else whether it is one of those that may be elected
/// to renew the lease.
#[inline(always)]
pub fn check<F: Family>(
    frame: &impl Frame,
    packet: &Packet<F>,
    flow: *mut Flow<F::Addr>,
) -> Result<Option<Candidate>, Reason> {
    // SAFETY: the program runs under RCU: the element stays readable until it ends. It may be
    // recycled for another flow meanwhile, which the LRU allows only after it was unlinked; the
    // lease, the epoch and the state are words of their own, so no torn value can arise.
    let entry = unsafe { &*flow };
    match entry.state {
        FlowState::ACTIVE => {}
        FlowState::CLOSING => return Err(Reason::Closing),
        _ => return Err(Reason::Learning),
    }
    if generation::epoch() != Some(entry.epoch) {
        return Err(Reason::StaleEpoch);
    }
    if generation::of_backend(entry.backend) != Some(entry.generation) {
        return Err(Reason::StaleGeneration);
    }
    if packet.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    if segment(frame, packet) > entry.transform.mtu {
        return Err(Reason::TooBig);
    }
    let now = ctx::jiffies();
    let age = now.wrapping_sub(entry.renewed_at);
    if age < SOFT_LEASE.load() {
        return Ok(None);
    }
    if age >= HARD_LEASE.load() {
        return Err(Reason::LeaseEnded);
    }
    Ok(candidate(packet, flow, now, age))
}

/// Says whether packets of the flow are only counted.
#[inline(always)]
pub fn is_observed<A>(flow: *mut Flow<A>) -> bool {
    // SAFETY: as in `refuse`. Transforms are never edited in place.
    unsafe { (*flow).transform.flags & FlowFlags::OBSERVE != 0 }
}

/// Returns the bytes of the largest L3 packet that this one makes on the wire.
#[inline(always)]
fn segment<F: Family>(frame: &impl Frame, packet: &Packet<F>) -> u32 {
    match frame.gso_size() {
        0 => packet.ip_len.into(),
        payload => payload + packet.headers(),
    }
}

/// One packet a period is elected to renew the lease by the slow path. It may be overtaken there, so
/// a pure ACK goes first when one comes in time.
#[inline(always)]
fn candidate<F: Family>(
    packet: &Packet<F>,
    flow: *mut Flow<F::Addr>,
    now: u32,
    age: u32,
) -> Option<Candidate> {
    let period = ELECTION.load();
    if !packet.is_pure_ack() && age < SOFT_LEASE.load() + period {
        return None;
    }
    // SAFETY: an aligned word of a map element, as in `check`.
    let last = unsafe { (&raw const (*flow).elected_at).read_volatile() };
    (now.wrapping_sub(last) >= period).then_some(Candidate { now, last })
}

/// Rewrites the packet as the kernel rewrote earlier ones, and sends it where those went.
#[inline(always)]
pub fn forward<F: Family>(skb: &Skb<'_>, packet: &Packet<F>, flow: *mut Flow<F::Addr>) -> Verdict {
    let Some(headers) = skb.headers::<F, SHORT>() else { return Verdict::Slow };
    // SAFETY: as in `check`. Transforms are never edited in place.
    let to = unsafe { &(*flow).transform };
    rewrite(&headers, packet, to);
    let (addresses, ports) = (to.address_delta, to.port_delta);
    if packet.is_tcp() {
        skb.fix_l4_checksum::<F, LONG, { at::TCP_CHECK }>(false, addresses, ports);
    } else {
        skb.fix_l4_checksum::<F, SHORT, { at::UDP_CHECK }>(true, addresses, ports);
    }
    F::correct_sum(skb, to);
    skb.set_mark_and_priority(to.mark, to.priority);
    served::count(packet, flow);
    Verdict::Fast(match to.flags & FlowFlags::PEER {
        0 => ctx::redirect(to.interface),
        _ => ctx::redirect_peer(to.interface),
    })
}

/// Writes everything up to the ports, and what depends on it in the IP header.
#[inline(always)]
pub fn rewrite<F: Family, const N: usize>(
    headers: &Headers<F, N>,
    packet: &Packet<F>,
    to: &Transform<F::Addr>,
) {
    store_ethernet(headers, to);
    F::rewrite(headers, to, packet.ttl - to.ttl_delta);
    headers.store_l4::<u16, { at::SOURCE_PORT }>(to.source_port.to_be());
    headers.store_l4::<u16, { at::DESTINATION_PORT }>(to.destination_port.to_be());
}

#[inline(always)]
fn store_ethernet<F: Family, const N: usize>(headers: &Headers<F, N>, to: &Transform<F::Addr>) {
    const { assert!(offset_of!(Transform<F::Addr>, ethernet).is_multiple_of(4)) }
    let bytes: *const u8 = to.ethernet.as_ptr();
    // SAFETY: the 14 bytes of the header, each in one load only, aligned as the entry is. By bytes
    // the compiler would load them one by one.
    let (words, ether_type) =
        unsafe { (bytes.cast::<[u32; 3]>().read(), bytes.add(12).cast::<u16>().read()) };
    headers.store_frame::<u32, 0>(words[0]);
    headers.store_frame::<u32, 4>(words[1]);
    headers.store_frame::<u32, 8>(words[2]);
    headers.store_frame::<u16, 12>(ether_type);
}
