//! A Service that can be reached in every way there is, in both families, over several protocols.
//!
//! All its addresses follow from its number: Service 7 has cluster IPs 10.96.2.7 and fd00:96::7,
//! load-balancer IPs 192.0.2.7 and 2001:db8:2::7, external IPs 198.51.100.7 and 2001:db8:51::7 and
//! node port 30007.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proxy_userspace::model::Protocol;
use serde_json::{Value, json};

/// The port of every Service.
pub const PORT: u16 = 80;
/// The port of every endpoint.
pub const TARGET_PORT: u16 = 8080;

/// How a client reaches a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Its cluster IP.
    ClusterIp,
    /// A port of the node.
    NodePort,
    /// Its load-balancer IP.
    LoadBalancer,
    /// Its external IP.
    ExternalIp,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of_address(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Of a pair of addresses, IPv4 first, the one of this family.
    #[must_use]
    pub fn of(self, addresses: [IpAddr; 2]) -> IpAddr {
        addresses[usize::from(self == Self::V6)]
    }
}

/// What an EndpointSlice says of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// It takes connections.
    #[default]
    Ready,
    /// It takes none.
    NotReady,
    /// It is about to go, and still serves.
    Terminating,
}

/// One endpoint, in both families.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
    /// The node it is on.
    pub node: String,
    /// Whether it serves.
    pub condition: Condition,
    /// The zone it is meant for, if hinted at.
    pub zone_hint: Option<&'static str>,
}

/// A Service of type LoadBalancer with everything it is reached by, and its endpoints.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// Name, in the namespace `default`.
    pub name: &'static str,
    /// What all its addresses follow from.
    pub number: u8,
    /// The protocols of [`PORT`].
    pub protocols: &'static [Protocol],
    /// `externalTrafficPolicy: Local` instead of Cluster.
    pub external_local: bool,
    /// `internalTrafficPolicy: Local` instead of Cluster.
    pub internal_local: bool,
    /// `sessionAffinity: ClientIP`.
    pub sticky: bool,
    /// `loadBalancerSourceRanges`.
    pub ranges: Vec<String>,
    /// `healthCheckNodePort`.
    pub health_check_port: Option<u16>,
    /// Its load-balancer IPs, if not those of its number; none at all if empty.
    pub load_balancer: Option<Vec<IpAddr>>,
    /// Its endpoints.
    pub backends: Vec<Backend>,
}

impl Exposed {
    /// A Service that serves everybody with all of these endpoints, over TCP and UDP.
    #[must_use]
    pub fn new(name: &'static str, number: u8, backends: Vec<Backend>) -> Self {
        Self {
            name,
            number,
            protocols: &[Protocol::Tcp, Protocol::Udp],
            external_local: false,
            internal_local: false,
            sticky: false,
            ranges: Vec::new(),
            health_check_port: None,
            load_balancer: None,
            backends,
        }
    }

    /// Where a client dials it; `node` are the node's addresses.
    #[must_use]
    pub fn frontend(&self, way: Way, family: Family, node: [IpAddr; 2]) -> SocketAddr {
        let address = |addresses| (family.of(addresses), PORT);
        SocketAddr::from(match way {
            Way::ClusterIp => address(self.cluster_ips()),
            Way::LoadBalancer => address(load_balancer_ips(self.number)),
            Way::ExternalIp => address(self.external_ips()),
            Way::NodePort => (family.of(node), self.node_port()),
        })
    }

    /// Its cluster IPs, IPv4 first.
    #[must_use]
    pub fn cluster_ips(&self) -> [IpAddr; 2] {
        both(Ipv4Addr::new(10, 96, 2, self.number), [0xfd00, 0x96, 0], self.number)
    }

    /// Its node port.
    #[must_use]
    pub fn node_port(&self) -> u16 {
        30_000 + u16::from(self.number)
    }

    fn external_ips(&self) -> [IpAddr; 2] {
        both(Ipv4Addr::new(198, 51, 100, self.number), [0x2001, 0xdb8, 0x51], self.number)
    }

    /// Service and EndpointSlices, one document each.
    #[must_use]
    pub fn manifest(&self) -> String {
        let [slice4, slice6] = Family::BOTH.map(|family| self.slice(family));
        [self.service(), slice4, slice6].map(|object| object.to_string()).join("\n---\n")
    }

    fn service(&self) -> Value {
        let policy = |local| if local { "Local" } else { "Cluster" };
        let ports = self.protocols.iter().map(|&protocol| {
            json!({
                "name": port_name(protocol), "protocol": protocol.name(), "port": PORT,
                "targetPort": TARGET_PORT, "nodePort": self.node_port(),
            })
        });
        let ports: Vec<_> = ports.collect();
        let own = load_balancer_ips(self.number);
        let ingress = self.load_balancer.as_deref().unwrap_or(&own);
        let ingress: Vec<_> = ingress.iter().map(|ip| json!({"ip": ip})).collect();
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": self.name, "namespace": "default"},
            "spec": {
                "type": "LoadBalancer",
                "clusterIP": self.cluster_ips()[0], "clusterIPs": self.cluster_ips(),
                "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack",
                "externalIPs": self.external_ips(),
                "externalTrafficPolicy": policy(self.external_local),
                "internalTrafficPolicy": policy(self.internal_local),
                "sessionAffinity": if self.sticky { "ClientIP" } else { "None" },
                "ports": ports,
            },
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        if let Some(port) = self.health_check_port.filter(|_| self.external_local) {
            service["spec"]["healthCheckNodePort"] = json!(port);
        }
        if !self.ranges.is_empty() {
            service["spec"]["loadBalancerSourceRanges"] = json!(self.ranges);
        }
        service
    }

    fn slice(&self, family: Family) -> Value {
        let endpoints: Vec<_> = self.backends.iter().map(|backend| backend.json(family)).collect();
        let ports = self.protocols.iter().map(|&protocol| {
            json!({
                "name": port_name(protocol), "protocol": protocol.name(), "port": TARGET_PORT,
            })
        });
        let ports: Vec<_> = ports.collect();
        let (suffix, kind) = match family {
            Family::V4 => ("4", "IPv4"),
            Family::V6 => ("6", "IPv6"),
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{suffix}", self.name), "namespace": "default",
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": kind, "ports": ports, "endpoints": endpoints,
        })
    }
}

impl Backend {
    fn json(&self, family: Family) -> Value {
        let (ready, serving, terminating) = match self.condition {
            Condition::Ready => (true, true, false),
            Condition::NotReady => (false, false, false),
            Condition::Terminating => (false, true, true),
        };
        let mut endpoint = json!({
            "addresses": [family.of(self.addresses)],
            "nodeName": self.node,
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        });
        if let Some(zone) = self.zone_hint {
            endpoint["hints"] = json!({"forZones": [{"name": zone}]});
        }
        endpoint
    }
}

/// The load-balancer IPs of the Service of this number, IPv4 first.
#[must_use]
pub fn load_balancer_ips(number: u8) -> [IpAddr; 2] {
    both(Ipv4Addr::new(192, 0, 2, number), [0x2001, 0xdb8, 2], number)
}

fn both(v4: Ipv4Addr, prefix: [u16; 3], number: u8) -> [IpAddr; 2] {
    let [first, second, third] = prefix;
    let last = number.into();
    [v4.into(), Ipv6Addr::new(first, second, third, 0, 0, 0, 0, last).into()]
}

fn port_name(protocol: Protocol) -> String {
    protocol.name().to_lowercase()
}
