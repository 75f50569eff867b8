//! One node with pods, and an outside host behind its uplink, all in namespaces of their own.
//!
//! ```text
//!  outside 172.20.0.2 ──eth0 172.20.0.1── node ──v-web-a── web-a 10.1.1.11/32
//!            │                                 ├─v-web-b── web-b 10.1.1.12/32
//!            │                                 └─ …        client 10.1.1.31/32
//!            └ the same segment ─ eth0 172.20.0.3 ─ peer ── pods 10.1.2.x, see [`peer`]
//! ```
//!
//! Pods are routed as Calico does it: a /32 in the pod, proxy ARP on the node's end, one host
//! route a pod. The outside host knows the node and nothing of pods or VIPs, so that it is served
//! only through masquerade. Everything has an IPv6 address beside the IPv4 one, with the same last
//! number: `fd00:20::1` the node, `fd00:10:1:1::11` the pod 10.1.1.11.

mod peer;
mod pod;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, anyhow};

use crate::netns::Namespace;
use crate::{process, residue};

pub use peer::PEER_NAME;
pub use pod::Pod;

/// The node's address on its uplink, where NodePorts are dialled.
pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 1);
/// The host behind the uplink.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 2);
/// The node's IPv6 address on its uplink.
pub const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 1);
/// The IPv6 address of the host behind the uplink.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 2);
/// The node's addresses on its uplink.
pub const NODE_ADDRESSES: [IpAddr; 2] = [IpAddr::V4(NODE), IpAddr::V6(NODE6)];

/// The pods of `deploy/examples`: name and last octet of the address.
pub const EXAMPLE_PODS: &[(&str, u8)] = &[
    ("web-a", 11),
    ("web-b", 12),
    ("web-c", 13),
    ("dns-a", 21),
    ("dns-b", 22),
    ("client", 31),
    ("client-b", 32),
];

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The namespaces, and the directories an agent in the node uses. Dropping it removes all.
#[derive(Debug)]
pub struct Topology {
    name: String,
    directory: PathBuf,
    /// The node: the agent and the host processes.
    pub node: Namespace,
    /// The host behind the uplink.
    pub outside: Namespace,
    pods: Vec<Pod>,
    peer: Option<Namespace>,
}

impl Topology {
    /// Makes the node, the outside host and [`EXAMPLE_PODS`].
    pub fn example() -> Result<Self> {
        Self::with_pods(EXAMPLE_PODS)
    }

    /// Makes the node, the outside host and these pods.
    pub fn with_pods(pods: &[(&str, u8)]) -> Result<Self> {
        residue::sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = residue::own_name(count);
        let directory = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let mut topology = Self {
            node: Namespace::named(format!("{name}-node")),
            outside: Namespace::named(format!("{name}-outside")),
            pods: Vec::new(),
            peer: None,
            directory,
            name,
        };
        topology.build_node().context("the node and its uplink")?;
        let pods: Vec<_> = pods.iter().map(|(name, octet)| topology.pod_of(name, *octet)).collect();
        Pod::build(&pods, &NODE_ADDRESSES)?;
        topology.pods = pods;
        Ok(topology)
    }

    fn pod_of(&self, name: &str, octet: u8) -> Pod {
        Pod::new(&self.name, name, (&self.node, 1), octet)
    }

    /// Adds a pod at 10.1.1.`octet`, as a CNI plugin would.
    pub fn add_pod(&mut self, name: &str, octet: u8) -> Result<Pod> {
        let pod = self.pod_of(name, octet);
        Pod::build(std::slice::from_ref(&pod), &NODE_ADDRESSES)?;
        self.pods.push(pod.clone());
        Ok(pod)
    }

    /// Deletes a pod with its namespace and link.
    pub fn remove_pod(&mut self, name: &str) -> Result<()> {
        let pod = self.pod(name)?.clone();
        // The link first: a namespace with sockets left in it outlives its name.
        self.node.run("ip", &["link", "del", &pod.interface()])?;
        process::run("ip", &["netns", "del", pod.namespace.name()])?;
        self.pods.retain(|other| other.name != name);
        Ok(())
    }

    /// Returns the pod of this name.
    pub fn pod(&self, name: &str) -> Result<&Pod> {
        let found = self.pods.iter().find(|pod| pod.name == name);
        found.ok_or_else(|| anyhow!("no pod {name} in the topology"))
    }

    /// All pods in the order they were made.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// A name no other topology on this machine has.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory that goes away with the topology.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The agent's state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The agent's directory in bpffs.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        Path::new(residue::BPFFS).join(&self.name)
    }

    fn build_node(&self) -> Result<()> {
        let (node, outside) = (self.node.name(), self.outside.name());
        process::feed("ip", &["-batch", "-"], &format!("netns add {node}\nnetns add {outside}\n"))?;
        route_packets(&self.node)?;
        self.node.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\n\
                 link add eth0 type veth peer name eth0 netns {outside}\n\
                 addr add {NODE}/24 dev eth0\n\
                 addr add {NODE6}/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add default via {OUTSIDE} dev eth0\n\
                 route add ::/0 via {OUTSIDE6} dev eth0\n"
            ),
        )?;
        self.outside.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\n\
                 addr add {OUTSIDE}/24 dev eth0\n\
                 addr add {OUTSIDE6}/64 dev eth0 nodad\n\
                 link set eth0 up\n"
            ),
        )?;
        Ok(())
    }
}

/// Makes a namespace forward, before it has interfaces: they take over what is set here.
fn route_packets(node: &Namespace) -> Result<()> {
    for (key, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv4/conf/all/rp_filter", "2"),
        ("net/ipv4/conf/default/rp_filter", "2"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/default/accept_dad", "0"),
    ] {
        node.set_sysctl(key, value)?;
    }
    Ok(())
}

impl Drop for Topology {
    fn drop(&mut self) {
        residue::remove(&self.name);
    }
}
