//! Two nodes with pods in both families, an outside host that routes to all VIPs, an echo server
//! in every pod, and a ready agent on the first node.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use proxy_userspace::model::Protocol;
use serde_json::json;

use crate::agent::Agent;
use crate::echo::{Dial, EchoServer};
use crate::exposed::{Backend, Condition, Exposed, Family, TARGET_PORT};
use crate::netns::Namespace;
use crate::objects::Manifests;
use crate::topology::{NODE, NODE_ADDRESSES, NODE6, OUTSIDE, OUTSIDE6, PEER_NAME, Topology};

/// The pods of the first node.
pub const LOCAL_PODS: &[(&str, u8)] =
    &[("a", 11), ("b", 12), ("d", 14), ("e", 15), ("client", 31), ("other", 32)];
/// The pods of the second node.
pub const REMOTE_PODS: &[(&str, u8)] = &[("c", 13), ("f", 16)];
/// The zone of the first node.
pub const ZONE: &str = "here";
/// Addresses of the outside host beside its own ones: another client.
pub const STRANGER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(172, 20, 0, 66)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, 0x66)),
];
/// The cluster IP of the Services that mark changes.
const MARKER: Ipv4Addr = Ipv4Addr::new(10, 96, 3, 1);
const OUTSIDE_ADDRESSES: [IpAddr; 2] = [IpAddr::V4(OUTSIDE), IpAddr::V6(OUTSIDE6)];

/// Everything. Fields are dropped in this order: the agent first, the namespaces last.
#[derive(Debug)]
pub struct Cluster {
    /// The agent of the first node.
    pub agent: Agent,
    servers: Mutex<BTreeMap<String, EchoServer>>,
    changes: AtomicU16,
    /// What the agent reads.
    pub manifests: Manifests,
    /// The namespaces.
    pub topology: Topology,
}

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod of the first node.
    Pod,
    /// A process of the first node.
    Host,
    /// The outside host.
    Outside,
}

impl Cluster {
    /// Starts the cluster; `services` says what is served, once the pods are known.
    pub fn start(
        options: &[&str],
        services: impl FnOnce(&Topology) -> Result<Vec<Exposed>>,
    ) -> Result<Self> {
        let mut topology = Topology::with_pods(LOCAL_PODS)?;
        for (name, octet) in REMOTE_PODS {
            topology.add_remote_pod(name, *octet)?;
        }
        route_vips(&topology)?;
        // A host gets one ICMP error a second; here one host is many clients.
        for limit in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
            topology.node.set_sysctl(limit, "0")?;
        }
        let manifests = Manifests::empty_in(topology.directory())?;
        manifests.write("node.yaml", &node_object().to_string())?;
        for service in services(&topology)? {
            manifests.write(&file_of(&service), &service.manifest())?;
        }
        let options = [&["--v", "4"], options].concat();
        let agent = Agent::new(&topology, &manifests, &options);
        let servers = Mutex::default();
        let changes = AtomicU16::new(1);
        let mut cluster = Self { agent, servers, changes, manifests, topology };
        let names = LOCAL_PODS.iter().chain(REMOTE_PODS).map(|(name, _)| *name);
        for name in names.filter(|name| name.len() == 1) {
            cluster.serve(name)?;
        }
        cluster.agent.spawn()?;
        cluster.agent.wait_ready()?;
        Ok(cluster)
    }

    /// Starts the server of a pod.
    pub fn serve(&self, pod: &str) -> Result<()> {
        let protocols = protocols();
        let namespace = &self.topology.pod(pod)?.namespace;
        let server = EchoServer::start(namespace, TARGET_PORT, pod, protocols)?;
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(pod.to_owned(), server);
        Ok(())
    }

    /// Ends the server of a pod, with its connections.
    pub fn stop(&self, pod: &str) {
        let server = self.servers.lock().unwrap_or_else(PoisonError::into_inner).remove(pod);
        drop(server);
    }

    /// Writes a Service and waits until the agent has carried it out.
    pub fn put(&self, service: &Exposed) -> Result<()> {
        self.put_all(&file_of(service), &[service])
    }

    /// Writes Services into one file, one change, and waits until the agent has carried it out.
    ///
    /// A marker goes with them: a Service with a port of its own, which the agent names in its log
    /// when the whole change is done.
    pub fn put_all(&self, file: &str, services: &[&Exposed]) -> Result<()> {
        let port = self.changes.fetch_add(1, Ordering::Relaxed);
        let mut text: Vec<_> = services.iter().map(|service| service.manifest()).collect();
        text.push(marker(file, port).to_string());
        self.manifests.write(file, &text.join("\n---\n"))?;
        let done = format!("{MARKER}:{port}/TCP");
        self.agent.wait_log(&["put-virtual-server", &done]).map(drop)
    }

    /// Writes a Service and returns at once.
    pub fn write(&self, service: &Exposed) -> Result<()> {
        self.manifests.write(&file_of(service), &service.manifest())
    }

    /// Where a client of this kind is.
    pub fn place(&self, client: Client) -> Result<&Namespace> {
        Ok(match client {
            Client::Pod => &self.topology.pod("client")?.namespace,
            Client::Host => &self.topology.node,
            Client::Outside => &self.topology.outside,
        })
    }

    /// A dial of this client; the outside host has two addresses, and dials from its first.
    pub fn dial(&self, client: Client, protocol: Protocol, to: SocketAddr) -> Result<Dial<'_>> {
        let dial = Dial::new(self.place(client)?, protocol, to);
        Ok(match client {
            Client::Outside => dial.from(Family::of_address(to.ip()).of(OUTSIDE_ADDRESSES)),
            Client::Pod | Client::Host => dial,
        })
    }

    /// A client's addresses, IPv4 first.
    pub fn addresses(&self, client: Client) -> Result<[IpAddr; 2]> {
        Ok(match client {
            Client::Pod => self.topology.pod("client")?.addresses(),
            Client::Host => NODE_ADDRESSES,
            Client::Outside => OUTSIDE_ADDRESSES,
        })
    }
}

/// Endpoints on these pods, all ready.
pub fn backends(topology: &Topology, pods: &[&str]) -> Result<Vec<Backend>> {
    pods.iter().map(|pod| backend(topology, pod)).collect()
}

/// An endpoint on this pod, ready.
pub fn backend(topology: &Topology, pod: &str) -> Result<Backend> {
    let remote = REMOTE_PODS.iter().any(|(name, _)| *name == pod);
    Ok(Backend {
        addresses: topology.pod(pod)?.addresses(),
        node: if remote { PEER_NAME.to_owned() } else { node_name() },
        condition: Condition::Ready,
        zone_hint: None,
    })
}

/// The protocols this kernel has; loads SCTP once.
#[must_use]
pub fn protocols() -> &'static [Protocol] {
    const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    if has_sctp() { &ALL } else { &ALL[..2] }
}

/// Whether this kernel has SCTP.
#[must_use]
pub fn has_sctp() -> bool {
    static SCTP: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *SCTP.get_or_init(|| {
        let loaded = || Path::new("/proc/net/sctp").exists();
        loaded() || crate::process::run("modprobe", &["sctp"]).is_ok() && loaded()
    })
}

/// The first node's name: the host name, as the agent has it.
fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

fn marker(file: &str, port: u16) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("marker-{}", file.trim_end_matches(".yaml")),
                     "namespace": "default"},
        "spec": {"type": "ClusterIP", "clusterIP": MARKER, "clusterIPs": [MARKER],
                 "ports": [{"protocol": "TCP", "port": port}]},
    })
}

fn node_object() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node_name(), "labels": {"topology.kubernetes.io/zone": ZONE}},
        "spec": {"podCIDR": "10.1.1.0/24", "podCIDRs": ["10.1.1.0/24", "fd00:10:1:1::/64"]},
        "status": {"addresses": [
            {"type": "InternalIP", "address": NODE}, {"type": "InternalIP", "address": NODE6},
        ]},
    })
}

/// The outside host reaches VIPs by the node, as routers do behind a load balancer.
fn route_vips(topology: &Topology) -> Result<()> {
    let [stranger, stranger6] = STRANGER;
    topology.outside.feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "addr add {stranger}/24 dev segment\n\
             addr add {stranger6}/64 dev segment nodad\n\
             route add 10.96.0.0/16 via {NODE}\n\
             route add 192.0.2.0/24 via {NODE}\n\
             route add 198.51.100.0/24 via {NODE}\n\
             route add fd00:96::/64 via {NODE6} src {outside6}\n\
             route add 2001:db8::/32 via {NODE6} src {outside6}\n",
            outside6 = OUTSIDE6,
        ),
    )?;
    Ok(())
}

fn file_of(service: &Exposed) -> String {
    format!("{}.yaml", service.name)
}
