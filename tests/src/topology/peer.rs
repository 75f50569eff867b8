//! A second node: a router with pods of its own, on the segment of the outside host.
//!
//! It runs no agent. Its pods are what the first node calls remote endpoints.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::{NODE, NODE6, OUTSIDE, OUTSIDE6, Pod, Topology, route_packets};
use crate::netns::Namespace;
use crate::process;

/// The second node's name in the cluster.
pub const PEER_NAME: &str = "peer";

/// The segment's own MAC address. A bridge without one takes the lowest of its ports: a host that is
/// added later might change it, and what others send to the one they know is lost for half a minute.
const SEGMENT: &str = "02:00:ac:14:00:02";
const PEER: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 3);
const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 3);

impl Topology {
    /// Adds a pod at 10.1.2.`octet`, behind the second node; the first one makes the node.
    pub fn add_remote_pod(&mut self, name: &str, octet: u8) -> Result<Pod> {
        let peer = match &self.peer {
            Some(peer) => peer.clone(),
            None => self.build_peer().context("the second node")?,
        };
        let pod = Pod::new(&self.name, name, (&peer, 2), octet);
        let addresses = [IpAddr::V4(PEER), IpAddr::V6(PEER6)];
        Pod::build(std::slice::from_ref(&pod), &addresses)?;
        self.pods.push(pod.clone());
        Ok(pod)
    }

    /// Adds a host on the segment of the outside host, with this address on its `eth0` and no route
    /// beyond the segment. It goes away with the topology.
    pub fn add_host(&mut self, name: &str, address: Ipv4Addr) -> Result<Namespace> {
        if self.peer.is_none() {
            self.peer = Some(self.build_peer().context("the segment")?);
        }
        let host = Namespace::named(format!("{}-{name}", self.name));
        process::run("ip", &["netns", "add", host.name()])?;
        self.outside.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add to-{name} type veth peer name eth0 netns {}\n\
                 link set to-{name} master segment up\n",
                host.name()
            ),
        )?;
        host.feed(
            "ip",
            &["-batch", "-"],
            &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"),
        )?;
        Ok(host)
    }

    /// Turns the uplink into a segment of three: node, outside host and the second node.
    fn build_peer(&mut self) -> Result<Namespace> {
        let peer = Namespace::named(format!("{}-{PEER_NAME}", self.name));
        let name = peer.name();
        process::run("ip", &["netns", "add", name])?;
        route_packets(&peer)?;
        self.outside.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add segment address {SEGMENT} type bridge mcast_snooping 0\n\
                 link add to-peer type veth peer name eth0 netns {name}\n\
                 addr flush dev eth0\n\
                 link set eth0 master segment\n\
                 link set to-peer master segment up\n\
                 addr add {OUTSIDE}/24 dev segment\n\
                 addr add {OUTSIDE6}/64 dev segment nodad\n\
                 link set segment up\n"
            ),
        )?;
        peer.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link set lo up\n\
                 addr add {PEER}/24 dev eth0\n\
                 addr add {PEER6}/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add default via {OUTSIDE} dev eth0\n\
                 route add 10.1.1.0/24 via {NODE} dev eth0\n\
                 route add fd00:10:1:1::/64 via {NODE6} dev eth0\n"
            ),
        )?;
        self.node.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "route add 10.1.2.0/24 via {PEER} dev eth0\n\
                 route add fd00:10:1:2::/64 via {PEER6} dev eth0\n"
            ),
        )?;
        self.peer = Some(peer.clone());
        Ok(peer)
    }
}
