//! Egress: what did the kernel do to the packet that ingress stamped?

use core::mem::offset_of;

use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use network_types::eth::EthHdr;
use proxy_common::{
    abi::{
        Addr, Flow, FlowFlags, FlowKey, FlowState, Frontend, FrontendFlags, Interface,
        InterfaceFlags, Pending, Plain, Transform,
    },
    packet::checksum,
    reason::Reason,
};

use crate::{
    atomic, close,
    ctx::{self, Frame, Headers, Skb},
    family::Family,
    generation,
    ipv4::Ipv4,
    ipv6::Ipv6,
    limit,
    maps::INTERFACES,
    parse::{self, Packet, SHORT, ether_type},
    service, token, warmup,
};

const NO_CPU: u32 = u32::MAX;
const ANY: u64 = 0;

/// Takes the token off the packet and learns from it. Returns what came of it, or nothing for a
/// packet without a token.
#[inline(always)]
pub fn egress(ctx: &TcContext) -> Option<Reason> {
    let skb = Skb::new(ctx);
    let number = skb.tc_index();
    if number == 0 {
        return None;
    }
    skb.set_tc_index(0);
    match skb.protocol() {
        ether_type::IPV4 => of_family::<Ipv4>(&skb, ctx, number),
        ether_type::IPV6 => of_family::<Ipv6>(&skb, ctx, number),
        _ => None,
    }
}

/// What is put together about a packet. It would not fit on the stack.
pub struct Draft<A> {
    pending: Pending<A>,
    entry: Flow<A>,
}

/// A function of its own for either family: together they would not fit on the stack either.
#[inline(never)]
fn of_family<F: Family>(skb: &Skb<'_>, ctx: &TcContext, number: u32) -> Option<Reason> {
    let slot = F::pending().get_ptr_mut(number)?;
    let draft = F::draft().get_ptr_mut(0)?;
    // SAFETY: the slot of this CPU, or one that the checks below tell apart; it is used once. The
    // draft is this CPU's, and no other packet is at this point on this CPU: a program ends before
    // the next one begins.
    let draft = unsafe {
        copy_words(slot, &raw mut (*draft).pending);
        (*slot).cpu = NO_CPU;
        &mut *draft
    };
    Some(match learn::<F>(skb, ctx, draft) {
        Ok(reason) | Err(reason) => reason,
    })
}

/// Copies a map value by words. What the compiler makes of an assignment between elements of maps,
/// which might overlap, is a call that copies byte by byte.
///
/// # Safety
///
/// Both are valid and aligned to words.
#[inline(always)]
unsafe fn copy_words<T: Plain>(from: *const T, to: *mut T) {
    const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>() >= 4) }
    for word in 0..size_of::<T>() / 4 {
        // SAFETY: within both values, by the caller's word.
        unsafe {
            let value = from.cast::<u32>().add(word).read_volatile();
            to.cast::<u32>().add(word).write_volatile(value);
        }
    }
}

#[inline(always)]
fn learn<F: Family>(
    skb: &Skb<'_>,
    ctx: &TcContext,
    draft: &mut Draft<F::Addr>,
) -> Result<Reason, Reason> {
    let Draft { pending, entry } = draft;
    let packet: Packet<F> = parse::any(skb).ok_or(Reason::Mismatch)?;
    recognise(skb, &packet, pending)?;
    let left = interface(packet.flow.interface)?;
    let entered = interface(pending.key.interface)?;
    explain(skb, &packet, pending, &left, &mut entry.transform)?;
    entry.transform.flags |= transit(&pending.key, &entry.transform, &entered, &left);
    let mut owner = attribute::<F>(&pending.key, &entry.transform)?;
    owner.flags |= restrict(entered.flags | left.flags, owner.frontend.flags)?;
    // The generation is read before the edit counter: the agent raises them in the other order.
    let generation = generation::of_backend(owner.backend).ok_or(Reason::Unexplained)?;
    if generation::edits() != Some(pending.edits) {
        return Err(Reason::EditRace);
    }
    entry.state = FlowState::LEARNING;
    entry.renewed_at = ctx::jiffies();
    entry.elected_at = ctx::jiffies();
    entry.epoch = pending.epoch;
    entry.generation = generation;
    entry.backend = owner.backend;
    entry.transform.flags |= owner.flags;
    entry.frontend = owner.frontend.id;
    entry.packets = 0;
    entry.bytes = 0;
    let reason = record::<F>(&pending.key, entry)?;
    debug!(
        ctx,
        "flow to port {} by interface {}: {}",
        pending.key.destination_port,
        entry.transform.interface,
        reason.name()
    );
    Ok(reason)
}

/// Returns what is known of an interface that the fast path runs on.
#[inline(always)]
fn interface(index: u32) -> Result<Interface, Reason> {
    // SAFETY: the value is copied at once; the agent replaces elements, it never edits them.
    unsafe { INTERFACES.get(index).copied() }.ok_or(Reason::InterfaceOff)
}

/// Says whether XDP may take the flow's packets: both ends are uplinks that allow it, and nothing
/// at egress asks for a mark, which a frame cannot carry.
#[inline(always)]
fn transit<A: Addr>(
    from: &FlowKey<A>,
    to: &Transform<A>,
    entered: &Interface,
    left: &Interface,
) -> u32 {
    let sends =
        if from.interface == to.interface { InterfaceFlags::XDP } else { InterfaceFlags::XDP_SEND };
    let allowed = entered.flags & InterfaceFlags::XDP != 0 && left.flags & sends != 0;
    if allowed && to.mark == 0 { FlowFlags::TRANSIT } else { 0 }
}

/// Says whether a flow may be learned that passes interfaces with these flags, and which flags
/// its entry gets.
#[inline(always)]
fn restrict(interfaces: u32, frontend: u32) -> Result<u32, Reason> {
    if interfaces & InterfaceFlags::FORCED_ONLY != 0 && frontend & FrontendFlags::FORCE == 0 {
        return Err(Reason::InterfaceOff);
    }
    let observe =
        interfaces & InterfaceFlags::OBSERVE != 0 || frontend & FrontendFlags::OBSERVE != 0;
    Ok(if observe { FlowFlags::OBSERVE } else { 0 })
}

/// Is this the packet that was stamped, on the same CPU, just now?
#[inline(always)]
fn recognise<F: Family>(
    skb: &Skb<'_>,
    packet: &Packet<F>,
    pending: &Pending<F::Addr>,
) -> Result<(), Reason> {
    let same = pending.cpu == ctx::cpu()
        && ctx::jiffies().wrapping_sub(pending.stamped_at) <= 1
        && packet.key().protocol == pending.key.protocol
        && token::fingerprint(skb, packet) == (pending.fingerprint, pending.fingerprint2);
    if same { Ok(()) } else { Err(Reason::Mismatch) }
}

/// Writes down the change as something that can be repeated: addresses, ports, TTL and Ethernet
/// header only, and not nothing at all.
#[inline(always)]
fn explain<F: Family>(
    skb: &Skb<'_>,
    packet: &Packet<F>,
    pending: &Pending<F::Addr>,
    interface: &Interface,
    transform: &mut Transform<F::Addr>,
) -> Result<(), Reason> {
    let (from, to) = (&pending.key, packet.key());
    let ttl_delta = pending.ttl.wrapping_sub(packet.ttl.into());
    let same_size =
        packet.ip_first == pending.ip_first && u32::from(packet.ip_len) == pending.ip_len;
    if ttl_delta > 1 || !same_size || packet.opens() {
        return Err(Reason::Unexplained);
    }
    let address_delta = checksum::add(
        F::replace(from.source, to.source),
        F::replace(from.destination, to.destination),
    );
    let ports = |key: &FlowKey<F::Addr>| {
        checksum::add(key.source_port.to_be().into(), key.destination_port.to_be().into())
    };
    let same_ports =
        from.source_port == to.source_port && from.destination_port == to.destination_port;
    let port_delta = if same_ports { 0 } else { checksum::add(!ports(from), ports(to)) };
    let headers = skb.headers::<F, SHORT>().ok_or(Reason::Mismatch)?;
    let peer = interface.flags & InterfaceFlags::PEER != 0;
    *transform = Transform {
        source: to.source,
        destination: to.destination,
        source_port: to.source_port,
        destination_port: to.destination_port,
        interface: to.interface,
        flags: if peer { FlowFlags::PEER } else { 0 },
        mtu: interface.mtu,
        ip_delta: checksum::add(address_delta, F::lower_ttl(ttl_delta as u8)),
        address_delta,
        port_delta,
        // The kernel clears the mark on the way into another namespace; the redirect does not.
        mark: if peer { 0 } else { skb.mark() },
        priority: skb.priority(),
        ethernet: [0; EthHdr::LEN],
        ttl_delta: ttl_delta as u8,
        _pad: 0,
    };
    store_ethernet(&headers, transform);
    Ok(())
}

/// Notes the Ethernet header, by words as in [`copy_words`].
#[inline(always)]
fn store_ethernet<F: Family>(headers: &Headers<F, SHORT>, transform: &mut Transform<F::Addr>) {
    const { assert!(offset_of!(Transform<F::Addr>, ethernet).is_multiple_of(4)) }
    let at = transform.ethernet.as_mut_ptr();
    // SAFETY: the 14 bytes of the field, aligned as the entry is.
    unsafe {
        at.cast::<u32>().write_volatile(headers.frame::<u32, 0>());
        at.add(4).cast::<u32>().write_volatile(headers.frame::<u32, 4>());
        at.add(8).cast::<u32>().write_volatile(headers.frame::<u32, 8>());
        at.add(12).cast::<u16>().write_volatile(headers.frame::<u16, 12>());
    }
}

/// Whose flow it is.
struct Owner {
    frontend: Frontend,
    backend: u32,
    flags: u32,
}

/// Finds frontend and backend of a translation: a request goes from the frontend to the backend, a
/// reply the other way. Anything else is not ours to repeat.
#[inline(always)]
fn attribute<F: Family>(from: &FlowKey<F::Addr>, to: &Transform<F::Addr>) -> Result<Owner, Reason> {
    let request = service::frontend::<F>(from.destination, from.destination_port, from.protocol)
        .zip(service::backend::<F>(to.destination, to.destination_port, from.protocol));
    let (frontend, backend, flags) = match request {
        Some((frontend, backend)) => (frontend, backend, 0),
        None => {
            let backend = service::backend::<F>(from.source, from.source_port, from.protocol);
            let frontend = service::frontend::<F>(to.source, to.source_port, from.protocol);
            let (frontend, backend) = frontend.zip(backend).ok_or(Reason::Unexplained)?;
            (frontend, backend, FlowFlags::REPLY)
        }
    };
    if frontend.flags & FrontendFlags::LEARN == 0 {
        return Err(Reason::Unexplained);
    }
    Ok(Owner { frontend, backend: backend.id, flags })
}

/// Makes, renews or replaces the entry of the flow.
#[inline(always)]
fn record<F: Family>(key: &FlowKey<F::Addr>, entry: &Flow<F::Addr>) -> Result<Reason, Reason> {
    let Some(flow) = F::flows().get_ptr_mut(key) else {
        if !warmup::is_warm::<F>(key) {
            return Err(Reason::Warming);
        }
        // A reply leaves by the interface that its client is at.
        let reply = entry.transform.flags & FlowFlags::REPLY != 0;
        if !limit::admits(if reply { entry.transform.interface } else { key.interface }) {
            return Err(Reason::Limited);
        }
        F::flows().insert(key, entry, ANY).map_err(|_| Reason::MapFull)?;
        return Ok(activate::<F>(key, entry).unwrap_or(Reason::Installed));
    };
    // SAFETY: the program runs under RCU: the element stays valid until it ends. Renewal writes
    // single words; a transform is never edited in place, because a hit on another CPU may be
    // reading it.
    unsafe {
        if (*flow).state == FlowState::CLOSING {
            return Err(Reason::Closed);
        }
        if (*flow).transform != entry.transform || (*flow).backend != entry.backend {
            F::flows().insert(key, entry, ANY).map_err(|_| Reason::MapFull)?;
            return Ok(activate::<F>(key, entry).unwrap_or(Reason::Replaced));
        }
        (*flow).epoch = entry.epoch;
        (*flow).generation = entry.generation;
        (*flow).renewed_at = entry.renewed_at;
        if (*flow).state == FlowState::LEARNING {
            return Ok(activate::<F>(key, entry).unwrap_or(Reason::Renewed));
        }
    }
    Ok(Reason::Renewed)
}

/// Lets both directions take the fast path once both are known, and each undoes the other.
#[inline(always)]
fn activate<F: Family>(key: &FlowKey<F::Addr>, entry: &Flow<F::Addr>) -> Option<Reason> {
    let flow = F::flows().get_ptr_mut(key)?;
    let other = F::flows().get_ptr_mut(close::reverse(&entry.transform, key.protocol))?;
    // SAFETY: as in `record`. Only LEARNING turns into ACTIVE: a FIN that closes the pair on
    // another CPU meanwhile wins.
    unsafe {
        let back = &(*other).transform;
        let inverse = back.source == key.destination
            && back.destination == key.source
            && back.source_port == key.destination_port
            && back.destination_port == key.source_port
            && back.interface == key.interface;
        if !inverse || (*other).state == FlowState::CLOSING {
            return None;
        }
        atomic::replace(&raw mut (*other).state, FlowState::LEARNING, FlowState::ACTIVE);
        atomic::replace(&raw mut (*flow).state, FlowState::LEARNING, FlowState::ACTIVE);
    }
    Some(Reason::Activated)
}
