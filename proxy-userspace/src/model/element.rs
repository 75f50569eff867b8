//! What the one nft table holds besides its fixed rules.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Frontend;

/// One element of one set or map of table `inet passlane`. Rules are fixed; only elements change.
/// Each kind has a set for either address family: `vips4` and `vips6`, and so on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Element {
    /// `vips`: an address that carries frontends and belongs to no interface. Its unassigned ports
    /// are refused; a host process that the kernel gave it as source is masqueraded.
    Vip(IpAddr),
    /// `clusters`: a cluster IP; only where connections to cluster IPs may need masquerade.
    ClusterIp(IpAddr),
    /// `hairpin`: an endpoint of this node, which may connect to itself.
    Hairpin(IpAddr),
    /// `masquerade`: connections to this frontend get an address of the node as source.
    Masquerade(Frontend),
    /// `reject`: no endpoint anywhere serves this frontend.
    Reject(Frontend),
    /// `drop`: a traffic policy keeps connections here, and no endpoint here serves the frontend.
    Drop(Frontend),
    /// `ranged`: only the sources in `sources` may reach this frontend.
    Ranged(Frontend),
    /// `ranged_host`: nor may processes of this node.
    RangedHost(Frontend),
    /// `sources`: these may.
    Source(Frontend, IpNet),
    /// `interim_sources`: these may as well, while `sources` changes. Never desired: see
    /// `plan::diff::elements`.
    InterimSource(Frontend, IpNet),
    /// Map `inside`: who is inside the cluster and dials the first reaches the second instead,
    /// where all endpoints are.
    Inside(Frontend, IpAddr, u16),
    /// `shadows`: reached by way of `inside` only.
    Shadow(Frontend),
    /// `pods`: sources that are inside the cluster.
    PodCidr(IpNet),
    /// `service_cidrs`: addresses of these ranges that no Service has are refused.
    ServiceCidr(IpNet),
}

impl Element {
    /// Returns whether the element belongs to the IPv6 set of its kind.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Vip(addr) | Self::ClusterIp(addr) | Self::Hairpin(addr) => addr.is_ipv6(),
            Self::Masquerade(frontend)
            | Self::Reject(frontend)
            | Self::Drop(frontend)
            | Self::Ranged(frontend)
            | Self::RangedHost(frontend)
            | Self::Source(frontend, _)
            | Self::InterimSource(frontend, _)
            | Self::Inside(frontend, ..)
            | Self::Shadow(frontend) => frontend.addr.is_ipv6(),
            Self::PodCidr(cidr) | Self::ServiceCidr(cidr) => matches!(cidr, IpNet::V6(_)),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vip(addr) => write!(f, "vip {addr}"),
            Self::ClusterIp(addr) => write!(f, "cluster-ip {addr}"),
            Self::Hairpin(addr) => write!(f, "hairpin {addr}"),
            Self::Masquerade(frontend) => write!(f, "masquerade {frontend}"),
            Self::Reject(frontend) => write!(f, "reject {frontend}"),
            Self::Drop(frontend) => write!(f, "drop {frontend}"),
            Self::Ranged(frontend) => write!(f, "ranged {frontend}"),
            Self::RangedHost(frontend) => write!(f, "ranged-host {frontend}"),
            Self::Source(frontend, net) => write!(f, "source {frontend} from {net}"),
            Self::InterimSource(frontend, net) => {
                write!(f, "interim-source {frontend} from {net}")
            }
            Self::Inside(frontend, addr, port) => {
                let to = std::net::SocketAddr::new(*addr, *port);
                write!(f, "inside {frontend} to {to}")
            }
            Self::Shadow(frontend) => write!(f, "shadow {frontend}"),
            Self::PodCidr(cidr) => write!(f, "pods {cidr}"),
            Self::ServiceCidr(cidr) => write!(f, "service-cidr {cidr}"),
        }
    }
}

/// Which of the fixed rules the table has.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct RuleOptions {
    /// Which connections to cluster IPs get an address of the node as source.
    pub masquerade: Masquerade,
    /// How sources inside the cluster are told.
    pub inside: Inside,
    /// Unassigned addresses of the service CIDRs are refused.
    pub reject_unassigned: bool,
}

/// Which connections to cluster IPs are masqueraded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Masquerade {
    /// Those that need it to work at all: hairpins, and host processes that have a VIP as source.
    #[default]
    Needed,
    /// Also those whose source is not inside the cluster.
    OffCluster,
    /// All.
    All,
}

/// How sources inside the cluster are told: kube-proxy's `detectLocalMode`. Processes of the node
/// always are inside.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Inside {
    /// By nothing: only processes of the node are inside.
    #[default]
    Unknown,
    /// By their address: set `pods`.
    Cidrs,
    /// By the interface that their packets come from, one name; a last `*` stands for anything.
    Interface(String),
}
