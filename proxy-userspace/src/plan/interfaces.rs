//! On which interfaces the fast path runs.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::interface::{Interface, InterfaceKind};

/// Which interfaces the operator wants: `--interfaces`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Selection {
    /// Pods' veths and uplinks.
    #[default]
    Auto,
    /// Names, each with at most one `*` for any characters.
    Patterns(Vec<String>),
}

/// What was found on interfaces that a redirect would skip, by interface index.
pub type Foreign = BTreeMap<u32, Vec<String>>;

/// Whether the fast path runs on an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// It runs.
    On {
        /// Packets may go straight to the peer of the interface.
        peer: bool,
    },
    /// It does not, for this reason.
    Off(String),
}

/// Decides for every interface, by index.
pub fn interfaces(
    present: &[Interface],
    selection: &Selection,
    device: &str,
    foreign: &Foreign,
) -> BTreeMap<u32, Decision> {
    present
        .iter()
        .map(|interface| (interface.index, decide(interface, selection, device, foreign)))
        .collect()
}

fn decide(
    interface: &Interface,
    selection: &Selection,
    device: &str,
    foreign: &Foreign,
) -> Decision {
    let refused = unfit(interface, device)
        .or_else(|| unwanted(interface, selection))
        .or_else(|| Some(foreign.get(&interface.index)?.first()?.clone()));
    match refused {
        Some(reason) => Decision::Off(reason),
        None => Decision::On { peer: to_peer(interface) },
    }
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
            _ if interface.master.is_some() => Some("port of a bridge, bond or VRF".into()),
            InterfaceKind::Physical => None,
            InterfaceKind::Veth if interface.peer_elsewhere => None,
            InterfaceKind::Veth => Some("veth whose peer is in this namespace".into()),
            InterfaceKind::Other(kind) => Some(format!("{kind} device")),
            InterfaceKind::Loopback => Some("loopback".into()),
        },
        Selection::Patterns(patterns) => {
            let wanted = patterns.iter().any(|pattern| matches(pattern, &interface.name));
            (!wanted).then(|| "not in --interfaces".into())
        }
    }
}

/// The redirect to a peer skips the host side of the pair: right only when nothing waits there
/// that the operator put, such as a bandwidth limit.
fn to_peer(interface: &Interface) -> bool {
    interface.kind == InterfaceKind::Veth
        && interface.peer_elsewhere
        && interface.qdisc == "noqueue"
}

pub(super) fn matches(pattern: &str, name: &str) -> bool {
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
mod tests {
    use super::*;

    fn veth() -> Interface {
        Interface {
            index: 7,
            name: "veth-a".into(),
            kind: InterfaceKind::Veth,
            up: true,
            mtu: 1500,
            ethernet: true,
            mac: [2, 0, 0, 0, 0, 1],
            master: None,
            lower: None,
            peer_elsewhere: true,
            qdisc: "noqueue".into(),
            xdp_program: None,
            addrs: Vec::new(),
        }
    }

    fn decision(interface: Interface, selection: &Selection) -> Decision {
        decide(&interface, selection, "kube-ipvs0", &Foreign::new())
    }

    #[test]
    fn a_pods_veth_runs_with_redirects_to_its_peer() {
        assert_eq!(decision(veth(), &Selection::Auto), Decision::On { peer: true });
    }

    #[test]
    fn a_bandwidth_limit_on_a_veth_is_never_skipped() {
        let limited = Interface { qdisc: "tbf".into(), ..veth() };
        assert_eq!(decision(limited, &Selection::Auto), Decision::On { peer: false });
    }

    #[test]
    fn foreign_programs_turn_an_interface_off_by_name() {
        let foreign = Foreign::from([(7, vec!["tcx ingress program cil (id 3)".to_owned()])]);
        let decision = decide(&veth(), &Selection::Auto, "kube-ipvs0", &foreign);
        assert_eq!(decision, Decision::Off("tcx ingress program cil (id 3)".into()));
    }

    #[test]
    fn auto_leaves_bridges_tunnels_ports_and_the_vip_device_alone() {
        for kind in ["bridge", "vxlan", "dummy", "wireguard"] {
            let other = Interface { kind: InterfaceKind::Other(kind.into()), ..veth() };
            assert!(matches!(decision(other, &Selection::Auto), Decision::Off(_)), "{kind}");
        }
        let port = Interface { master: Some(3), ..veth() };
        assert!(matches!(decision(port, &Selection::Auto), Decision::Off(_)));
        let device = Interface { name: "kube-ipvs0".into(), ..veth() };
        let everything = Selection::Patterns(vec!["*".into()]);
        assert!(matches!(decision(device, &everything), Decision::Off(_)));
    }

    #[test]
    fn patterns_select_by_name() {
        for (pattern, wanted) in
            [("veth-a", true), ("veth*", true), ("*-a", true), ("*", true), ("eth*", false)]
        {
            let selection = Selection::Patterns(vec![pattern.into()]);
            let on = matches!(decision(veth(), &selection), Decision::On { .. });
            assert_eq!(on, wanted, "{pattern}");
        }
    }
}
