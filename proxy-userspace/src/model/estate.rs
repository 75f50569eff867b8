//! What kube-proxy's `ipvs` mode leaves on a node.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Frontend, Protocol};

/// The virtual servers and addresses that kube-proxy's ip sets name as its own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Estate {
    /// Addresses that it put on its dummy device.
    pub addrs: BTreeSet<IpAddr>,
    /// Virtual servers of cluster, external and load-balancer IPs, and of SCTP node ports.
    pub frontends: BTreeSet<Frontend>,
    /// Node ports: it has a virtual server for each at each address of the node.
    pub node_ports: BTreeSet<(Protocol, u16)>,
}
