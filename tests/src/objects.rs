//! Kubernetes objects as manifests: the examples, and variations a test writes over them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// `deploy/examples/web.yaml`.
pub const WEB: &str = include_str!("../../deploy/examples/web.yaml");
/// `deploy/examples/dns.yaml`.
pub const DNS: &str = include_str!("../../deploy/examples/dns.yaml");

/// The ClusterIP frontend of `web`.
pub const WEB_FRONTEND: SocketAddr = frontend([10, 96, 0, 10], 80);
/// The NodePort of `web`.
pub const WEB_NODE_PORT: u16 = 30080;
/// The port the pods of `web` listen on.
pub const WEB_TARGET_PORT: u16 = 8080;
/// The ClusterIP frontend of `dns`.
pub const DNS_FRONTEND: SocketAddr = frontend([10, 96, 0, 53], 53);
/// The port the pods of `dns` listen on.
pub const DNS_TARGET_PORT: u16 = 5353;

/// `web` and `dns` once more, over IPv6.
pub const OVER_IPV6: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web6, namespace: default}
spec: {clusterIP: 'fd00:96::10', ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web6-1, namespace: default, labels: {kubernetes.io/service-name: web6}}
addressType: IPv6
ports: [{name: http, port: 8080}]
endpoints:
  - addresses: ['fd00:10:1:1::11']
  - addresses: ['fd00:10:1:1::12']
  - addresses: ['fd00:10:1:1::13']
---
apiVersion: v1
kind: Service
metadata: {name: dns6, namespace: default}
spec: {clusterIP: 'fd00:96::53', ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dns6-1, namespace: default, labels: {kubernetes.io/service-name: dns6}}
addressType: IPv6
ports: [{name: dns, port: 5353, protocol: UDP}]
endpoints:
  - addresses: ['fd00:10:1:1::21']
  - addresses: ['fd00:10:1:1::22']
";

/// The ClusterIP frontend of `web6`.
pub const WEB6_FRONTEND: SocketAddr = frontend6(0x10, 80);
/// The ClusterIP frontend of `dns6`.
pub const DNS6_FRONTEND: SocketAddr = frontend6(0x53, 53);

const fn frontend6(number: u16, port: u16) -> SocketAddr {
    let address = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, number);
    SocketAddr::new(std::net::IpAddr::V6(address), port)
}

const fn frontend(address: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::from_octets(address)), port)
}

/// A TCP Service with one port and its endpoints, to be written as one manifest.
#[derive(Clone, Debug)]
pub struct ServiceObject {
    /// Name, in the namespace `default`.
    pub name: String,
    /// ClusterIP and port.
    pub frontend: SocketAddr,
    /// NodePort, if it has one.
    pub node_port: Option<u16>,
    /// Port of every endpoint.
    pub target_port: u16,
    /// Ready endpoints.
    pub endpoints: Vec<Ipv4Addr>,
}

impl ServiceObject {
    /// The `web` of the examples with these endpoints (10.1.1.x) instead.
    #[must_use]
    pub fn web(octets: &[u8]) -> Self {
        Self {
            name: "web".to_owned(),
            frontend: WEB_FRONTEND,
            node_port: Some(WEB_NODE_PORT),
            target_port: WEB_TARGET_PORT,
            endpoints: octets.iter().map(|octet| Ipv4Addr::new(10, 1, 1, *octet)).collect(),
        }
    }

    /// Service and EndpointSlice in YAML.
    #[must_use]
    pub fn yaml(&self) -> String {
        let Self { name, frontend, target_port, .. } = self;
        let (address, port) = (frontend.ip(), frontend.port());
        let kind = if self.node_port.is_some() { "NodePort" } else { "ClusterIP" };
        let node_port =
            self.node_port.map_or_else(String::new, |port| format!(", nodePort: {port}"));
        let endpoints: String = self
            .endpoints
            .iter()
            .map(|endpoint| {
                format!("  - {{addresses: [{endpoint}], conditions: {{ready: true}}}}\n")
            })
            .collect();
        let endpoints = if endpoints.is_empty() { "  []\n".to_owned() } else { endpoints };
        format!(
            "apiVersion: v1\n\
             kind: Service\n\
             metadata: {{name: {name}, namespace: default}}\n\
             spec:\n  type: {kind}\n  clusterIP: {address}\n  clusterIPs: [{address}]\n  \
             ports:\n  - {{name: http, protocol: TCP, port: {port}, \
             targetPort: {target_port}{node_port}}}\n\
             ---\n\
             apiVersion: discovery.k8s.io/v1\n\
             kind: EndpointSlice\n\
             metadata:\n  name: {name}-1\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: IPv4\n\
             ports:\n  - {{name: http, protocol: TCP, port: {target_port}}}\n\
             endpoints:\n{endpoints}"
        )
    }
}

/// The directory an agent reads its manifests from.
#[derive(Clone, Debug)]
pub struct Manifests {
    directory: PathBuf,
}

impl Manifests {
    /// An empty directory below `parent`.
    pub fn empty_in(parent: &Path) -> Result<Self> {
        let directory = parent.join("manifests");
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self { directory })
    }

    /// The examples, copied below `parent`.
    pub fn examples_in(parent: &Path) -> Result<Self> {
        let manifests = Self::empty_in(parent)?;
        manifests.write("web.yaml", WEB)?;
        manifests.write("dns.yaml", DNS)?;
        Ok(manifests)
    }

    /// A directory that exists already.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes one manifest, whole or not at all.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let draft = self.directory.join(format!(".{file}.draft"));
        fs::write(&draft, text).with_context(|| draft.display().to_string())?;
        fs::rename(&draft, self.directory.join(file)).with_context(|| file.to_owned())
    }

    /// Removes one manifest.
    pub fn remove(&self, file: &str) -> Result<()> {
        fs::remove_file(self.directory.join(file)).with_context(|| file.to_owned())
    }
}
