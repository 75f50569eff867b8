//! What plans need to know, of the node and of the settings.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use crate::{
    config::{self, Settings},
    model::{Masquerade, Node, interface::Interface},
    plan::{self, DetectLocal, ExternalIps, NodeFacts},
};

/// They stand for all addresses of their kind.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Says whether node ports are asked for at loopback addresses.
pub(super) fn wants_localhost(settings: &Settings) -> bool {
    LOOPBACK.iter().any(|addr| settings.nodeport_addresses.selects(*addr, &[]))
}

/// Returns the node's name in the cluster: its host name in lower case, as kubelet registers it,
/// unless the settings say otherwise.
pub(super) fn node_name(settings: &Settings) -> String {
    let name = settings.hostname_override.clone();
    let name =
        name.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    name.trim().to_lowercase()
}

/// Returns what is known of the node before its interfaces are.
pub(super) fn nameless_addresses(name: &str) -> NodeFacts {
    NodeFacts { name: name.to_owned(), no_ipv6: no_ipv6(), ..NodeFacts::default() }
}

/// Returns the facts. Addresses of the device that carries the VIPs are not the node's own.
pub(super) fn facts(
    name: &str,
    present: &[Interface],
    settings: &Settings,
    node: Option<&Node>,
) -> NodeFacts {
    let addrs: BTreeSet<IpAddr> = present
        .iter()
        .filter(|interface| interface.name != settings.dummy_device)
        .flat_map(|interface| interface.addrs.iter().copied())
        // One comes with every pod's interface, and everything would be decided anew for it.
        .filter(|addr| !is_link_local(addr))
        .collect();
    let primary = primary(settings, node);
    let selected = |addr: &IpAddr| settings.nodeport_addresses.selects(*addr, &primary);
    let of_interfaces = addrs.iter().filter(|addr| !addr.is_loopback()).copied();
    let node_port_addrs = of_interfaces.chain(LOOPBACK).filter(selected).collect();
    NodeFacts { name: name.to_owned(), node_port_addrs, addrs, no_ipv6: no_ipv6() }
}

/// The first address of each family, of the settings or else of the Node.
fn primary(settings: &Settings, node: Option<&Node>) -> Vec<IpAddr> {
    if let Some(addr) = settings.bind_address.filter(|addr| !addr.is_unspecified()) {
        return vec![addr];
    }
    let addrs = node.map(|node| node.addrs.as_slice()).unwrap_or_default();
    let first = |ipv6| addrs.iter().find(|addr| addr.is_ipv6() == ipv6).copied();
    [first(false), first(true)].into_iter().flatten().collect()
}

pub(super) fn no_ipv6() -> bool {
    !Path::new("/proc/sys/net/ipv6").exists()
}

/// A link-local IPv6 address means nothing without its interface.
fn is_link_local(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// Returns the part of the settings that decides.
pub(super) fn decisive(settings: &Settings) -> plan::Settings {
    let detect_local = match &settings.detect_local {
        config::DetectLocal::None => DetectLocal::Nothing,
        config::DetectLocal::ClusterCidr(cidrs) => DetectLocal::ClusterCidr(cidrs.clone()),
        config::DetectLocal::NodeCidr => DetectLocal::NodeCidr,
        config::DetectLocal::BridgeInterface(name) => DetectLocal::BridgeInterface(name.clone()),
        config::DetectLocal::InterfacePrefix(name) => DetectLocal::InterfacePrefix(name.clone()),
    };
    let external_ips = match &settings.external_ips {
        config::ExternalIps { enabled: false, .. } => ExternalIps::Off,
        config::ExternalIps { cidrs, .. } if cidrs.is_empty() => ExternalIps::Any,
        config::ExternalIps { cidrs, .. } => ExternalIps::Within(cidrs.clone()),
    };
    let masquerade = if settings.masquerade_all { Masquerade::All } else { Masquerade::OffCluster };
    plan::Settings {
        scheduler: settings.scheduler.0,
        scheduler_flags: settings.scheduler.1,
        masquerade,
        detect_local,
        external_ips,
        ranges_on_external_ips: settings.source_ranges_on_external_ips,
        exclude_cidrs: settings.exclude_cidrs.clone(),
        reject_unassigned: settings.reject_unassigned,
        leave_vips: settings.vips == config::Vips::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::interface::InterfaceKind;

    fn interface(name: &str, addrs: &[&str]) -> Interface {
        Interface {
            index: 1,
            name: name.into(),
            kind: InterfaceKind::Physical,
            up: true,
            mtu: 1500,
            ethernet: true,
            mac: [0; 6],
            master: None,
            lower: None,
            peer_elsewhere: false,
            qdisc: String::new(),
            xdp_program: None,
            vlan: None,
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_pods_interface_changes_nothing_about_the_node() {
        let settings = Settings::default();
        let node = interface("eth0", &["192.0.2.1", "2001:db8::1", "fe80::1"]);
        let pod = interface("veth-a", &["fe80::2"]);
        let before = facts("a", std::slice::from_ref(&node), &settings, None);
        assert_eq!(facts("a", &[node, pod], &settings, None), before);
    }

    #[test]
    fn vips_and_loopback_addresses_answer_no_node_ports() {
        let settings = Settings::default();
        let present = [
            interface("lo", &["127.0.0.1"]),
            interface("kube-ipvs0", &["10.96.0.1"]),
            interface("eth0", &["192.0.2.1"]),
        ];
        let facts = facts("a", &present, &settings, None);
        assert_eq!(facts.node_port_addrs, ["192.0.2.1".parse().unwrap()].into());
        assert!(!facts.addrs.contains(&"10.96.0.1".parse::<IpAddr>().unwrap()));
    }

    #[test]
    fn primary_is_the_first_address_of_each_family() {
        let primary =
            crate::config::NodePortAddresses(vec![crate::config::NodePortAddress::Primary]);
        let settings = Settings { nodeport_addresses: primary, ..Settings::default() };
        let addrs = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
        let node = Node {
            addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
            ..Node::default()
        };
        let facts = facts("a", &[interface("eth0", &addrs)], &settings, Some(&node));
        let expected = ["192.0.2.1", "2001:db8::1"].map(|addr| addr.parse().unwrap());
        assert_eq!(facts.node_port_addrs, expected.into());
    }
}
