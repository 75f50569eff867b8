//! Services, reduced to what decides forwarding.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{Protocol, Scheduler};

/// The identity of a Service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct ServiceName {
    /// Namespace; `default` when a manifest names none.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
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

/// The annotation `passlane.io/fast-path`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum FastPath {
    /// Established flows of the Service may be learned.
    #[default]
    On,
    /// The Service's packets all take the slow path.
    Off,
}

/// A Service with forwarding state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Identity.
    pub name: ServiceName,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.clusterIPs`; never empty.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`, in the manifest's order.
    pub ports: Vec<ServicePort>,
    /// Annotation `passlane.io/scheduler`; `None` means the agent's default.
    pub scheduler: Option<Scheduler>,
    /// Annotation `passlane.io/fast-path`.
    pub fast_path: FastPath,
    /// `metadata.creationTimestamp` as seconds since 1970, when the manifest has one: the older
    /// Service wins a frontend that two claim.
    pub created_at: Option<i64>,
}

/// One port of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
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
