//! Services, reduced to what decides forwarding.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Forwarding, Protocol, Scheduler, SchedulerFlags, Thresholds, Watching};

/// The identity of a Service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace; `default` when a manifest names none.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The identity of one port of a Service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ServicePortName {
    /// The Service.
    pub service: ServiceName,
    /// Port name; empty when the Service has one unnamed port.
    pub port: String,
}

impl fmt::Display for ServicePortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port.as_str() {
            "" => write!(f, "{}", self.service),
            port => write!(f, "{}:{port}", self.service),
        }
    }
}

/// `spec.type` of a Service that gets forwarding state. ExternalName and headless Services never
/// become a [`Service`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Reached at its cluster IPs only.
    #[default]
    ClusterIP,
    /// Reached at a port of every node as well.
    NodePort,
    /// Reached at load-balancer IPs as well.
    LoadBalancer,
}

/// What established flows may do: the annotation `passlane.io/fast-path`, and what the operator
/// says of the node and its interfaces.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum FastPath {
    /// They are learned, wherever nothing of others would be skipped.
    #[default]
    #[serde(alias = "On")]
    Auto,
    /// All packets take the slow path.
    Off,
    /// They are learned and counted; all packets take the slow path.
    Observe,
    /// They are learned, also where programs of others are skipped.
    Force,
}

impl FastPath {
    /// Every mode by the word that chooses it.
    pub const WORDS: [(&str, Self); 4] = [
        ("auto", Self::Auto),
        ("off", Self::Off),
        ("observe", Self::Observe),
        ("force", Self::Force),
    ];

    /// Returns the word that chooses it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Force => "force",
        }
    }

    /// Reads a word.
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find_map(|(each, mode)| (*each == word).then_some(*mode))
    }
}

/// `spec.internalTrafficPolicy` and `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// All endpoints of the cluster.
    #[default]
    Cluster,
    /// The endpoints of this node, or none.
    Local,
}

/// The annotation `passlane.io/weights`: `10.244.1.5=3, node-b=2`, by address or by node name.
/// What is not named has weight 1.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// By address of the endpoint; goes before `by_node`.
    pub by_addr: BTreeMap<IpAddr, u32>,
    /// By the name of the node that runs the endpoint.
    pub by_node: BTreeMap<String, u32>,
}

/// Who may reach the load-balancer IPs: `spec.loadBalancerSourceRanges`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Sources {
    /// Everyone.
    #[default]
    Any,
    /// Only these. None at all is possible: then all that was written could not be read, and
    /// nothing is opened that somebody wanted closed.
    Only(Vec<IpNet>),
}

/// A Service with forwarding state.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Identity.
    pub name: ServiceName,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.clusterIPs`; never empty.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress` whose `ipMode` is not `Proxy` (KEP-1860).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`.
    pub sources: Sources,
    /// `spec.ports`, in the manifest's order.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`: the endpoints behind the cluster IPs.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: the endpoints behind all other addresses.
    pub external_policy: TrafficPolicy,
    /// `spec.sessionAffinityConfig.clientIP.timeoutSeconds` where `spec.sessionAffinity` is
    /// `ClientIP`.
    pub affinity_secs: Option<u32>,
    /// `spec.healthCheckNodePort`, host order.
    pub health_check_port: Option<u16>,
    /// Annotation `passlane.io/scheduler`, as `mh` or `mh,mh-port`; `None` means the agent's
    /// default.
    pub scheduler: Option<(Scheduler, SchedulerFlags)>,
    /// Annotation `passlane.io/weights`.
    pub weights: Weights,
    /// Annotation `passlane.io/forwarding`.
    pub forwarding: Forwarding,
    /// Annotation `passlane.io/connection-limits`, of each backend.
    #[serde(default)]
    pub limits: Thresholds,
    /// Annotation `passlane.io/fast-path`.
    pub fast_path: FastPath,
    /// Health checks and a sorry server, where annotations ask for them.
    #[serde(default)]
    pub watching: Option<Box<Watching>>,
    /// `metadata.creationTimestamp` as seconds since 1970, when the manifest has one: the older
    /// Service wins a frontend that two claim.
    pub created_at: Option<i64>,
}

/// One port of a Service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Name; empty when the Service has one unnamed port.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port on the cluster IPs, host order.
    pub port: u16,
    /// Port on the node's addresses, host order.
    pub node_port: Option<u16>,
}
