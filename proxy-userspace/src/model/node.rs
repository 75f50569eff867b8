//! Nodes of the cluster, reduced to what decides forwarding on this one.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A Node object.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// `status.addresses` of type `InternalIP`, the primary one of each family first.
    pub addrs: Vec<IpAddr>,
    /// The node is going away: it has a deletion timestamp or the taint
    /// `ToBeDeletedByClusterAutoscaler` (KEP-3836).
    pub leaving: bool,
}
