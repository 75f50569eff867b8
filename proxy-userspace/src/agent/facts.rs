//! What plans need to know about the node.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use crate::{model::interface::Interface, plan::NodeFacts};

/// Returns the node's own name: its host name in lower case, as kubelet registers it.
pub(super) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase()
}

/// Returns the facts. All addresses but loopback ones and those of the device that carries the VIPs
/// answer NodePorts.
pub(super) fn facts(name: &str, present: &[Interface], device: &str) -> NodeFacts {
    let addrs: BTreeSet<IpAddr> = present
        .iter()
        .filter(|interface| interface.name != device)
        .flat_map(|interface| interface.addrs.iter().copied())
        .collect();
    let node_port_addrs = addrs.iter().filter(|addr| !addr.is_loopback() && !is_link_local(addr));
    NodeFacts {
        name: name.to_owned(),
        node_port_addrs: node_port_addrs.copied().collect(),
        addrs,
        no_ipv6: !Path::new("/proc/sys/net/ipv6").exists(),
    }
}

/// A link-local IPv6 address means nothing without its interface.
fn is_link_local(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}
