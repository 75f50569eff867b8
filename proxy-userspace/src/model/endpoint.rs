//! EndpointSlices, reduced to what decides forwarding.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Protocol, ServiceName};

/// The identity of an EndpointSlice.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct SliceName {
    /// Namespace, which is also the Service's.
    pub namespace: Arc<str>,
    /// Name within the namespace.
    pub name: Arc<str>,
}

impl fmt::Display for SliceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A part of a Service's endpoints; a Service may have several slices.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct EndpointSlice {
    /// Identity.
    pub name: SliceName,
    /// The Service that the label `kubernetes.io/service-name` names.
    pub service: ServiceName,
    /// Ports that every endpoint of the slice serves.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice. It belongs to the Service port of the same name and protocol.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Name; empty when the Service's port is unnamed.
    pub name: String,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port the endpoint listens on, host order.
    pub port: u16,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The first address of `addresses`; the others are the same endpoint (KEP-752).
    pub addr: IpAddr,
    /// Condition `ready`; unset counts as true.
    pub ready: bool,
    /// Condition `serving`; unset counts as `ready`.
    pub serving: bool,
    /// Condition `terminating`; unset counts as false.
    pub terminating: bool,
    /// Node that runs the endpoint.
    pub node: Option<Box<str>>,
    /// Topology zone of that node.
    pub zone: Option<Box<str>>,
    /// `hints.forZones`: nodes of these zones should use the endpoint (KEP-2433).
    pub zone_hints: Box<[String]>,
    /// `hints.forNodes`: these nodes should use the endpoint (KEP-3015).
    pub node_hints: Box<[String]>,
}

/// How many ready endpoints of a Service are on a node, by family: kube-proxy, which has a proxy for
/// either, tells a load balancer those of the family that it asks in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LocalEndpoints {
    /// Over IPv4; `None` when the Service has no cluster IP of the family.
    pub ipv4: Option<u32>,
    /// Over IPv6, likewise.
    pub ipv6: Option<u32>,
}

impl LocalEndpoints {
    /// Returns what to tell who asks in a family; one that the Service does not have is told of the
    /// other.
    pub fn asked_over(&self, ipv6: bool) -> u32 {
        let (asked, other) = if ipv6 { (self.ipv6, self.ipv4) } else { (self.ipv4, self.ipv6) };
        asked.or(other).unwrap_or_default()
    }
}

impl fmt::Display for LocalEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ipv4, self.ipv6) {
            (Some(ipv4), Some(ipv6)) => write!(f, "{ipv4},{ipv6}"),
            (one, other) => write!(f, "{}", one.or(other).unwrap_or_default()),
        }
    }
}
