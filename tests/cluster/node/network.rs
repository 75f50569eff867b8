//! The guest's own network namespace as a node's, and a host behind its uplink.

use std::net::Ipv4Addr;

use anyhow::Result;
use proxy_tests::{netns::Namespace, process};

/// The node's address on its uplink.
pub(crate) const NODE_ADDR: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
/// An address that is announced for a Service.
pub(crate) const LB_ADDR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const OUTSIDE_ADDR: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 2);

/// The host behind the uplink. Dropping it takes the uplink away too.
pub(crate) struct Outside(pub(crate) Namespace);

impl Outside {
    /// Makes the uplink, and the host that routes announced addresses to the node.
    pub(crate) fn build() -> Result<Self> {
        process::run("ip", &["netns", "add", "outside"])?;
        let outside = Self(Namespace::named("outside"));
        process::feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add eth0 type veth peer name eth0 netns outside\n\
                 addr add {NODE_ADDR}/24 dev eth0\n\
                 link set eth0 up\n\
                 route add default via {OUTSIDE_ADDR} dev eth0\n"
            ),
        )?;
        outside.0.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\n\
                 addr add {OUTSIDE_ADDR}/24 dev eth0\n\
                 link set eth0 up\n\
                 route add {LB_ADDR}/32 via {NODE_ADDR}\n"
            ),
        )?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        Ok(outside)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = process::run("ip", &["netns", "del", "outside"]);
    }
}

/// Returns the network namespace of the pod with this address: the runtime made it under a name.
pub(crate) fn of_pod(addr: &str) -> Result<Option<Namespace>> {
    let wanted = format!(" {addr}/");
    for entry in std::fs::read_dir(proxy_tests::netns::DIRECTORY)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("cni-") {
            continue;
        }
        let namespace = Namespace::named(name);
        // It may go meanwhile, with its pod.
        let addrs = namespace.run("ip", &["-o", "-4", "addr", "show"]).unwrap_or_default();
        if addrs.contains(&wanted) {
            return Ok(Some(namespace));
        }
    }
    Ok(None)
}
