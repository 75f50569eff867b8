//! What a decision depends on besides the objects: the operator's settings and the node.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use crate::model::{Inside, Masquerade, RuleOptions, Scheduler, SchedulerFlags};

/// The operator's settings.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Scheduler of Services that do not say otherwise.
    pub scheduler: Scheduler,
    /// Its flags.
    pub scheduler_flags: SchedulerFlags,
    /// Connections to cluster IPs that get an address of the node as source.
    pub masquerade: Masquerade,
    /// How sources inside the cluster are told.
    pub detect_local: DetectLocal,
    /// Which external IPs of Services are served.
    pub external_ips: ExternalIps,
    /// `loadBalancerSourceRanges` hold for external IPs too.
    pub ranges_on_external_ips: bool,
    /// Virtual servers of these addresses are somebody else's, whoever made them.
    pub exclude_cidrs: Vec<IpNet>,
    /// Addresses of the service CIDRs that no Service has are refused.
    pub reject_unassigned: bool,
    /// Somebody else makes VIPs local.
    pub leave_vips: bool,
}

/// kube-proxy's `detectLocalMode`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum DetectLocal {
    /// Not at all.
    #[default]
    Nothing,
    /// Sources in these ranges: `clusterCIDR`.
    ClusterCidr(Vec<IpNet>),
    /// Sources in the node's `spec.podCIDRs`.
    NodeCidr,
    /// Sources whose packets come from this bridge.
    BridgeInterface(String),
    /// Sources whose packets come from an interface with this prefix.
    InterfacePrefix(String),
}

/// Which external IPs are served.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum ExternalIps {
    /// All.
    #[default]
    Any,
    /// Those in these ranges.
    Within(Vec<IpNet>),
    /// None.
    Off,
}

/// What the decision needs to know about the node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeFacts {
    /// Its name in the cluster: endpoints that name it are local.
    pub name: String,
    /// All addresses of its interfaces, but for the device that carries the VIPs.
    pub addrs: BTreeSet<IpAddr>,
    /// Those of them that answer NodePorts; 127.0.0.1 and ::1 stand for all loopback addresses.
    pub node_port_addrs: BTreeSet<IpAddr>,
    /// The kernel has no IPv6.
    pub no_ipv6: bool,
}

impl Settings {
    /// Returns whether virtual servers of the address are somebody else's.
    pub(super) fn excludes(&self, addr: IpAddr) -> bool {
        self.exclude_cidrs.iter().any(|cidr| cidr.contains(&addr))
    }

    /// Returns which fixed rules the nft table needs.
    pub fn rules(&self) -> RuleOptions {
        let inside = match &self.detect_local {
            DetectLocal::Nothing => Inside::Unknown,
            DetectLocal::ClusterCidr(_) | DetectLocal::NodeCidr => Inside::Cidrs,
            DetectLocal::BridgeInterface(name) => Inside::Interface(name.clone()),
            DetectLocal::InterfacePrefix(prefix) => Inside::Interface(format!("{prefix}*")),
        };
        // Without a way to tell what is inside, nothing can be told to be outside.
        let masquerade = match (self.masquerade, &inside) {
            (Masquerade::OffCluster, Inside::Unknown) => Masquerade::Needed,
            (masquerade, _) => masquerade,
        };
        RuleOptions { masquerade, inside, reject_unassigned: self.reject_unassigned }
    }
}

impl ExternalIps {
    /// Returns whether the address is served.
    pub(super) fn allow(&self, addr: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Within(cidrs) => cidrs.iter().any(|cidr| cidr.contains(&addr)),
            Self::Off => false,
        }
    }
}
