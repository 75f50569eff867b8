//! On which interfaces the fast path runs, and how.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::model::{
    FastPath,
    interface::{Interface, InterfaceKind},
};

/// Which interfaces the operator wants: `--interfaces`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Selection {
    /// Pods' veths, bridges, and uplinks: NICs, bonds, VLANs and VXLANs.
    #[default]
    Auto,
    /// Names, each with at most one `*` for any characters.
    Patterns(Vec<String>),
}

/// What the operator says of some interfaces: `--interface-modes`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InterfaceMode {
    /// A name with at most one `*` for any characters.
    pub pattern: String,
    /// What the fast path may do there.
    pub mode: FastPath,
}

impl fmt::Display for InterfaceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.pattern, self.mode.word())
    }
}

/// What decides about interfaces, besides what is found on them.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'a> {
    /// Which the operator wants.
    pub selection: &'a Selection,
    /// The mode of those that no rule names.
    pub mode: FastPath,
    /// The first that fits a name counts.
    pub rules: &'a [InterfaceMode],
    /// Something that the fast path needs is not to be had: it may observe at most.
    pub only_observe: bool,
    /// A Service wants the fast path also where programs of others are.
    pub forced_services: bool,
    /// The device that carries the VIPs.
    pub device: &'a str,
}

/// What was found that a redirect would skip.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Foreign {
    /// On every interface.
    pub everywhere: Vec<String>,
    /// By interface index.
    pub on: BTreeMap<u32, Vec<String>>,
}

impl Foreign {
    fn first(&self, index: u32) -> Option<&String> {
        self.everywhere.first().or_else(|| self.on.get(&index)?.first())
    }
}

/// Whether the fast path runs on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It runs.
    On {
        /// Packets may go straight to the peer of the interface.
        peer: bool,
        /// What flows may do there.
        manner: Manner,
    },
    /// It does not, for this reason.
    Off(String),
}

/// What flows may do on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Manner {
    /// They are fast.
    Fast,
    /// They are learned and counted, and stay slow.
    Observe,
    /// They are fast, although this is skipped: the operator wants it so.
    Forced(String),
    /// Those of forced Services are fast, although this is skipped.
    ForcedServices(String),
}

/// Decides for every interface, by index.
pub fn interfaces(
    present: &[Interface],
    policy: &Policy<'_>,
    foreign: &Foreign,
) -> BTreeMap<u32, Decision> {
    let decide = |interface| decide(interface, present, policy, foreign);
    present.iter().map(|interface| (interface.index, decide(interface))).collect()
}

fn decide(
    interface: &Interface,
    present: &[Interface],
    policy: &Policy<'_>,
    foreign: &Foreign,
) -> Decision {
    let mode = mode_of(&interface.name, policy);
    let refused = unfit(interface, policy.device)
        .or_else(|| (mode == FastPath::Off).then(|| "off by configuration".to_owned()))
        .or_else(|| unwanted(interface, policy.selection));
    if let Some(reason) = refused {
        return Decision::Off(reason);
    }
    let skipped = foreign.first(interface.index).cloned().or_else(|| taken(interface, present));
    let manner = match (skipped, mode) {
        (Some(reason), FastPath::Auto | FastPath::Observe) if !policy.forced_services => {
            return Decision::Off(reason);
        }
        (Some(reason), FastPath::Observe) => return Decision::Off(reason),
        _ if policy.only_observe || mode == FastPath::Observe => Manner::Observe,
        (Some(reason), FastPath::Force) => Manner::Forced(reason),
        (Some(reason), _) => Manner::ForcedServices(reason),
        (None, _) => Manner::Fast,
    };
    Decision::On { peer: to_peer(interface), manner }
}

fn mode_of(name: &str, policy: &Policy<'_>) -> FastPath {
    let rule = policy.rules.iter().find(|rule| matches(&rule.pattern, name));
    rule.map_or(policy.mode, |rule| rule.mode)
}

/// Says why the fast path cannot run there, whatever the operator wants.
fn unfit(interface: &Interface, device: &str) -> Option<String> {
    if interface.name == device {
        return Some("carries the VIPs".into());
    }
    if interface.kind == InterfaceKind::Loopback {
        return Some("loopback".into());
    }
    if !interface.ethernet {
        return Some("no Ethernet link layer".into());
    }
    if !interface.up {
        return Some("down".into());
    }
    None
}

fn unwanted(interface: &Interface, selection: &Selection) -> Option<String> {
    match selection {
        Selection::Auto => match &interface.kind {
            InterfaceKind::Physical => None,
            InterfaceKind::Veth if interface.peer_elsewhere => None,
            InterfaceKind::Veth => Some("veth whose peer is in this namespace".into()),
            InterfaceKind::Other(kind) if kind == NETKIT || ROUTED.contains(&&**kind) => None,
            InterfaceKind::Other(kind) => Some(format!("{kind} device")),
            InterfaceKind::Loopback => Some("loopback".into()),
        },
        Selection::Patterns(patterns) => {
            let wanted = patterns.iter().any(|pattern| matches(pattern, &interface.name));
            (!wanted).then(|| "not in --interfaces".into())
        }
    }
}

const NETKIT: &str = "netkit";
/// Devices above others that are routed to and from as any uplink is: what they add to a packet,
/// or which port they send it by, follows from its Ethernet header alone.
const ROUTED: [&str; 5] = ["bond", "bridge", "team", "vlan", "vxlan"];
/// Devices that take the packets of the one below them.
const TAKERS: [&str; 4] = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

/// Says what decides about the packets of an interface before routing does: the receive handler of
/// a device above it, or the programs that a netkit device is made for.
fn taken(interface: &Interface, present: &[Interface]) -> Option<String> {
    if interface.kind == InterfaceKind::Other(NETKIT.into()) {
        return Some("netkit device: its own programs decide".into());
    }
    if let Some(index) = interface.master {
        let master = present.iter().find(|other| other.index == index);
        return Some(match master.map(|master| (&master.kind, &master.name)) {
            Some((InterfaceKind::Other(kind), name)) => format!("port of {kind} {name}"),
            _ => "port of a bridge, bond or VRF".into(),
        });
    }
    let above = present.iter().find(|other| {
        other.lower == Some(interface.index)
            && matches!(&other.kind, InterfaceKind::Other(kind) if TAKERS.contains(&kind.as_str()))
    })?;
    Some(format!("{} takes its packets", above.name))
}

/// The redirect to a peer skips the host side of the pair: right only when nothing waits there
/// that the operator put, such as a bandwidth limit.
fn to_peer(interface: &Interface) -> bool {
    interface.kind == InterfaceKind::Veth
        && interface.peer_elsewhere
        && interface.qdisc == "noqueue"
}

/// Says whether a name fits a pattern with at most one `*`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        }
    }
}

/// Returns the indexes where the fast path runs.
pub fn running(decisions: &BTreeMap<u32, Decision>) -> BTreeSet<u32> {
    decisions
        .iter()
        .filter(|(_, decision)| matches!(decision, Decision::On { .. }))
        .map(|(index, _)| *index)
        .collect()
}

#[cfg(test)]
mod tests;
