//! The namespaces of one mode, and the ways through them.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use proxy_tests::{
    agent::Agent,
    netns::Namespace,
    topology::{NODE, Topology},
};

use super::modes::Mode;

/// The Service whose endpoint is on the node.
pub(crate) const LOCAL_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 77);
/// The Service whose endpoint is behind the second node.
pub(crate) const REMOTE_VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 78);
pub(crate) const PORT: u16 = 5001;
pub(crate) const NODE_PORT: u16 = 30601;
pub(crate) const TARGET_PORT: u16 = 6001;

/// From where to where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Path {
    PodToPod,
    PodToRemote,
    OutsideToNodePort,
}

impl Path {
    pub(crate) const ALL: [Self; 3] = [Self::PodToPod, Self::PodToRemote, Self::OutsideToNodePort];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PodToPod => "pod -> pod",
            Self::PodToRemote => "pod -> remote",
            Self::OutsideToNodePort => "outside -> NodePort",
        }
    }
}

/// Both ends of a path.
pub(crate) struct Ends {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    /// What the client dials.
    pub(crate) dialled: SocketAddr,
}

/// A node in one mode. Fields are dropped in this order.
pub(crate) struct Scene {
    pub(crate) mode: Mode,
    pub(crate) agent: Option<Agent>,
    topology: Topology,
}

impl Scene {
    /// Makes the namespaces and sets the node up.
    pub(crate) fn set(mode: Mode) -> Result<Self> {
        let mut topology = Topology::with_pods(&[("client", 31), ("server", 21)])?;
        topology.add_remote_pod("remote", 22)?;
        // Plain routing needs a route to dial a pod from outside; it makes no difference to others.
        let route = ["route", "add", "10.1.1.0/24", "via", &NODE.to_string()];
        topology.outside.run("ip", &route).context("a route to the pods")?;
        let agent = mode.set(&topology)?;
        Ok(Self { mode, agent, topology })
    }

    /// The node that forwards.
    pub(crate) fn node(&self) -> &Namespace {
        &self.topology.node
    }

    /// Returns both ends of a path.
    pub(crate) fn ends(&self, path: Path) -> Result<Ends> {
        let pod = |name| Ok::<_, anyhow::Error>(self.topology.pod(name)?.clone());
        let (client, server, frontend) = match path {
            Path::PodToPod => {
                (pod("client")?.namespace, pod("server")?, SocketAddr::from((LOCAL_VIP, PORT)))
            }
            Path::PodToRemote => {
                (pod("client")?.namespace, pod("remote")?, SocketAddr::from((REMOTE_VIP, PORT)))
            }
            Path::OutsideToNodePort => {
                let outside = self.topology.outside.clone();
                (outside, pod("server")?, SocketAddr::from((NODE, NODE_PORT)))
            }
        };
        let dialled = if self.mode.is_direct() { server.at(TARGET_PORT) } else { frontend };
        Ok(Ends { client, server: server.namespace, dialled })
    }
}
