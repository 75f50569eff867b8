//! Egress: what did the kernel do to the packet that ingress stamped?

use aya_ebpf::programs::TcContext;
use aya_log_ebpf::debug;
use network_types::eth::EthHdr;
use proxy_common::{
    abi::{
        Flow4, FlowFlags, FlowKey4, FlowState, Frontend, FrontendFlags, Interface, InterfaceFlags,
        Pending4, Transform4,
    },
    packet::checksum,
    reason::Reason,
};

use crate::{
    atomic, close,
    ctx::{self, Skb},
    generation,
    maps::{FLOWS4, INTERFACES, PENDING4},
    parse::{self, Packet, at},
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
    let slot = PENDING4.get_ptr_mut(number)?;
    // SAFETY: the slot of this CPU, or one that the checks below tell apart; it is used once.
    let pending = unsafe {
        let pending = *slot;
        (*slot).cpu = NO_CPU;
        pending
    };
    Some(match learn(&skb, ctx, &pending) {
        Ok(reason) | Err(reason) => reason,
    })
}

#[inline(always)]
fn learn(skb: &Skb<'_>, ctx: &TcContext, pending: &Pending4) -> Result<Reason, Reason> {
    let packet = parse::any(skb).ok_or(Reason::Mismatch)?;
    recognise(skb, &packet, pending)?;
    // SAFETY: the value is copied at once; the agent replaces elements, it never edits them.
    let interface = unsafe { INTERFACES.get(packet.key.interface).copied() };
    let interface = interface.ok_or(Reason::InterfaceOff)?;
    let transform = explain(skb, &packet, pending, &interface)?;
    let owner = attribute(&pending.key, &transform)?;
    // The generation is read before the edit counter: the agent raises them in the other order.
    let generation = generation::of_backend(owner.backend).ok_or(Reason::Unexplained)?;
    if generation::edits() != Some(pending.edits) {
        return Err(Reason::EditRace);
    }
    let entry = Flow4 {
        state: FlowState::LEARNING,
        renewed_at: ctx::jiffies(),
        elected_at: ctx::jiffies(),
        epoch: pending.epoch,
        generation,
        backend: owner.backend,
        transform: Transform4 { flags: transform.flags | owner.flags, ..transform },
        frontend: owner.frontend.id,
        packets: 0,
        bytes: 0,
    };
    let reason = record(&pending.key, &entry)?;
    debug!(
        ctx,
        "flow to port {} by interface {}: {}",
        pending.key.destination_port,
        entry.transform.interface,
        reason.name()
    );
    Ok(reason)
}

/// Is this the packet that was stamped, on the same CPU, just now?
#[inline(always)]
fn recognise(skb: &Skb<'_>, packet: &Packet, pending: &Pending4) -> Result<(), Reason> {
    let same = pending.cpu == ctx::cpu()
        && ctx::jiffies().wrapping_sub(pending.stamped_at) <= 1
        && packet.key.protocol == pending.key.protocol
        && token::fingerprint(skb, packet) == (pending.fingerprint, pending.fingerprint2);
    if same { Ok(()) } else { Err(Reason::Mismatch) }
}

/// Returns the change as something that can be repeated: addresses, ports, TTL and Ethernet header
/// only, and not nothing at all.
#[inline(always)]
fn explain(
    skb: &Skb<'_>,
    packet: &Packet,
    pending: &Pending4,
    interface: &Interface,
) -> Result<Transform4, Reason> {
    let (from, to) = (&pending.key, &packet.key);
    let ttl_delta = pending.ttl.wrapping_sub(packet.ttl.into());
    if ttl_delta > 1 || token::ip_first(skb) != pending.ip_first || packet.opens() {
        return Err(Reason::Unexplained);
    }
    let address_delta = checksum::add(
        checksum::replace(u32::from_ne_bytes(from.source), u32::from_ne_bytes(to.source)),
        checksum::replace(u32::from_ne_bytes(from.destination), u32::from_ne_bytes(to.destination)),
    );
    let ports = |key: &FlowKey4| {
        checksum::add(key.source_port.to_be().into(), key.destination_port.to_be().into())
    };
    let same_ports =
        from.source_port == to.source_port && from.destination_port == to.destination_port;
    let port_delta = if same_ports { 0 } else { checksum::add(!ports(from), ports(to)) };
    let window = skb.window::<{ at::IP }>().ok_or(Reason::Mismatch)?;
    let peer = interface.flags & InterfaceFlags::PEER != 0;
    Ok(Transform4 {
        source: to.source,
        destination: to.destination,
        source_port: to.source_port,
        destination_port: to.destination_port,
        interface: to.interface,
        flags: if peer { FlowFlags::PEER } else { 0 },
        mtu: interface.mtu,
        ip_delta: checksum::add(address_delta, checksum::lower_ttl(ttl_delta as u8)),
        address_delta,
        port_delta,
        // The kernel clears the mark on the way into another namespace; the redirect does not.
        mark: if peer { 0 } else { skb.mark() },
        priority: skb.priority(),
        ethernet: window.load::<[u8; EthHdr::LEN], 0>(),
        ttl_delta: ttl_delta as u8,
        _pad: 0,
    })
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
fn attribute(from: &FlowKey4, to: &Transform4) -> Result<Owner, Reason> {
    let request = service::frontend(from.destination, from.destination_port, from.protocol)
        .zip(service::backend(to.destination, to.destination_port, from.protocol));
    let (frontend, backend, flags) = match request {
        Some((frontend, backend)) => (frontend, backend, 0),
        None => {
            let backend = service::backend(from.source, from.source_port, from.protocol);
            let frontend = service::frontend(to.source, to.source_port, from.protocol);
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
fn record(key: &FlowKey4, entry: &Flow4) -> Result<Reason, Reason> {
    let Some(flow) = FLOWS4.get_ptr_mut(key) else {
        if !warmup::is_warm(key) {
            return Err(Reason::Warming);
        }
        FLOWS4.insert(key, entry, ANY).map_err(|_| Reason::MapFull)?;
        return Ok(activate(key, entry).unwrap_or(Reason::Installed));
    };
    // SAFETY: the program runs under RCU: the element stays valid until it ends. Renewal writes
    // single words; a transform is never edited in place, because a hit on another CPU may be
    // reading it.
    unsafe {
        if (*flow).state == FlowState::CLOSING {
            return Err(Reason::Closed);
        }
        if (*flow).transform != entry.transform || (*flow).backend != entry.backend {
            FLOWS4.insert(key, entry, ANY).map_err(|_| Reason::MapFull)?;
            return Ok(activate(key, entry).unwrap_or(Reason::Replaced));
        }
        (*flow).epoch = entry.epoch;
        (*flow).generation = entry.generation;
        (*flow).renewed_at = entry.renewed_at;
        if (*flow).state == FlowState::LEARNING {
            return Ok(activate(key, entry).unwrap_or(Reason::Renewed));
        }
    }
    Ok(Reason::Renewed)
}

/// Lets both directions take the fast path once both are known, and each undoes the other.
#[inline(always)]
fn activate(key: &FlowKey4, entry: &Flow4) -> Option<Reason> {
    let flow = FLOWS4.get_ptr_mut(key)?;
    let other = FLOWS4.get_ptr_mut(close::reverse(&entry.transform, key.protocol))?;
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
