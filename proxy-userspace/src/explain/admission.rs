//! What table `inet passlane` does with a new connection before IPVS sees it, hook by hook.

use std::net::IpAddr;

use super::{dump::Dump, packet::Packet};
use crate::model::{Element, Frontend, Inside, Protocol};

/// What becomes of a new connection.
pub(super) struct Admission {
    pub(super) decision: Decision,
    pub(super) words: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// IPVS decides.
    Served,
    /// The same, at another frontend.
    Redirected(Frontend),
    Dropped,
    Refused,
}

fn decided(decision: Decision, words: impl Into<String>) -> Admission {
    Admission { decision, words: words.into() }
}

/// Says whether the sender is a process of the node: its packets come in by no interface.
pub(super) fn is_host_process(dump: &Dump, packet: &Packet) -> bool {
    let source = packet.source.ip();
    packet.interface.is_none() && (dump.is_own(source) || dump.has(Element::Vip(source)))
}

/// Judges a new connection to a frontend that IPVS serves.
pub(super) fn judge(dump: &Dump, packet: &Packet) -> Admission {
    let dialled = packet.dials();
    if let Some(words) = outside_ranges(dump, packet, &dialled) {
        return decided(Decision::Dropped, words);
    }
    let target = redirect(dump, &dialled);
    match (target, is_inside(dump, packet)) {
        (Some(to), Ok(true)) => {
            return match refused(dump, &to, true) {
                Some(admission) => admission,
                None => decided(
                    Decision::Redirected(to),
                    format!("served at {to}, where sources inside the cluster get all endpoints"),
                ),
            };
        }
        (Some(to), Err(words)) => {
            return decided(
                Decision::Served,
                format!(
                    "served at {dialled}, unless the source is inside the cluster: then at {to}; {words}"
                ),
            );
        }
        _ => {}
    }
    refused(dump, &dialled, false).unwrap_or_else(|| decided(Decision::Served, "served"))
}

/// Source ranges, before everything else.
fn outside_ranges(dump: &Dump, packet: &Packet, dialled: &Frontend) -> Option<String> {
    if is_host_process(dump, packet) {
        return dump.has(Element::RangedHost(*dialled)).then(|| {
            "dropped: the Service names source ranges, and none has an address of this node"
                .to_owned()
        });
    }
    if !dump.has(Element::Ranged(*dialled)) {
        return None;
    }
    let source = packet.source.ip();
    let named: Vec<_> = dump
        .elements()
        .iter()
        .filter_map(|element| match element {
            Element::Source(frontend, net) | Element::InterimSource(frontend, net)
                if frontend == dialled =>
            {
                Some(net)
            }
            _ => None,
        })
        .collect();
    if named.iter().any(|net| net.contains(&source)) {
        return None;
    }
    let list: Vec<String> = named.iter().map(ToString::to_string).collect();
    let list = if list.is_empty() { "nobody of this family".to_owned() } else { list.join(", ") };
    Some(format!("dropped: {source} is in none of the Service's source ranges ({list})"))
}

/// Where sources inside the cluster are sent instead.
fn redirect(dump: &Dump, dialled: &Frontend) -> Option<Frontend> {
    dump.elements().iter().find_map(|element| match element {
        Element::Inside(frontend, addr, port) if frontend == dialled => {
            Some(Frontend { addr: *addr, port: *port, protocol: dialled.protocol })
        }
        _ => None,
    })
}

/// Says whether the sender is inside the cluster, or what is missing to tell.
pub(super) fn is_inside(dump: &Dump, packet: &Packet) -> Result<bool, &'static str> {
    if is_host_process(dump, packet) {
        return Ok(true);
    }
    match dump.table.as_ref().map(|table| &table.rules.inside) {
        None | Some(Inside::Unknown) => Ok(false),
        Some(Inside::Cidrs) => Ok(is_pod(dump, packet.source.ip())),
        Some(Inside::Interface(pattern)) => match &packet.interface {
            Some(name) => Ok(match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            }),
            None => Err("say by which interface it comes in"),
        },
    }
}

pub(super) fn is_pod(dump: &Dump, addr: IpAddr) -> bool {
    let in_range =
        |element: &Element| matches!(element, Element::PodCidr(net) if net.contains(&addr));
    dump.elements().iter().any(in_range)
}

/// Frontends that nobody serves, or not from here.
fn refused(dump: &Dump, frontend: &Frontend, was_redirected: bool) -> Option<Admission> {
    let how = answer(frontend.protocol);
    if dump.has(Element::Shadow(*frontend)) {
        if was_redirected {
            return None;
        }
        let words = format!(
            "refused ({how}): this port is only for what is sent there from another address of the Service"
        );
        return Some(decided(Decision::Refused, words));
    }
    if dump.has(Element::Reject(*frontend)) {
        let words = format!("refused ({how}): the Service has no endpoint that could serve");
        return Some(decided(Decision::Refused, words));
    }
    if dump.has(Element::Drop(*frontend)) {
        let words = "dropped: the traffic policy is Local and no endpoint of this node serves; others elsewhere do";
        return Some(decided(Decision::Dropped, words));
    }
    None
}

/// Judges a packet to what IPVS does not serve; `None` when it is no business of ours.
pub(super) fn guard(dump: &Dump, packet: &Packet) -> Option<Admission> {
    let dialled = packet.dials();
    let how = answer(dialled.protocol);
    if let Some(admission) = refused(dump, &dialled, false) {
        return Some(admission);
    }
    if dump.has(Element::Vip(dialled.addr)) {
        let words = format!(
            "refused ({how}): {} is an address of Services, and none has port {}/{}",
            dialled.addr, dialled.port, dialled.protocol
        );
        return Some(decided(Decision::Refused, words));
    }
    let asked_for = dump.table.as_ref().is_some_and(|table| table.rules.reject_unassigned);
    let range = dump.elements().iter().find_map(|element| match element {
        Element::ServiceCidr(net) if net.contains(&dialled.addr) => Some(net),
        _ => None,
    });
    range.filter(|_| asked_for).map(|range| {
        let words = format!("refused ({how}): no Service has this address of {range}");
        decided(Decision::Refused, words)
    })
}

fn answer(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP reset",
        Protocol::Udp | Protocol::Sctp => "ICMP port unreachable",
    }
}
