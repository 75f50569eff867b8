//! Backends that get the packet as it was sent, and answer the client by themselves.
//!
//! The backend is on the segment of the outside host: what it answers must not come by way of the
//! node, which would not forward a packet whose source is its own address.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::http::{HttpServer, get_once};
use proxy_tests::ipvs;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::Manifests;
use proxy_tests::topology::{OUTSIDE, Topology};

use crate::scenario::{AGENT, Need, Scenario, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(AGENT => direct_routing_keeps_the_source_and_the_backend_answers_the_client),
    scenario!(AGENT_AND_IPIP => tunnel_keeps_the_source_and_the_backend_answers_the_client),
];

const AGENT_AND_IPIP: &[Need] = &[
    Need::Root,
    Need::Ipvs,
    Need::Agent,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
    Need::Program("conntrack"),
    Need::Ipip,
];

const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const BACKEND: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 9);
const PORT: u16 = 80;

/// A host on the segment of the outside host, which has the VIP and does not answer ARP for it.
struct Backend {
    namespace: Namespace,
    _server: HttpServer,
}

impl Backend {
    fn build(topology: &mut Topology, device: &str, more: &str) -> Result<Self> {
        let namespace = topology.add_host("direct", BACKEND)?;
        for (key, value) in [
            ("net/ipv4/conf/all/arp_ignore", "1"),
            ("net/ipv4/conf/all/arp_announce", "2"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/default/rp_filter", "0"),
        ] {
            namespace.set_sysctl(key, value)?;
        }
        namespace.feed(
            "ip",
            &["-batch", "-"],
            &format!("{more}addr add {VIP}/32 dev {device}\n"),
        )?;
        let server = HttpServer::start(&namespace, (VIP, PORT).into(), "direct")?;
        Ok(Self { namespace, _server: server })
    }
}

fn manifest(forwarding: &str) -> String {
    format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata: {{name: direct, namespace: default, \
         annotations: {{passlane.io/forwarding: \"{forwarding}\"}}}}\n\
         spec: {{clusterIP: 10.96.9.9, externalIPs: [{VIP}], ports: [{{port: {PORT}}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata: {{name: direct-1, namespace: default, \
         labels: {{kubernetes.io/service-name: direct}}}}\n\
         addressType: IPv4\n\
         ports: [{{port: {PORT}}}]\n\
         endpoints: [{{addresses: [{BACKEND}]}}]\n"
    )
}

/// Serves `forwarding` and asks from outside: who answers, as whom it saw the client, and what
/// IPVS says.
fn check(topology: &Topology, backend: &Backend, forwarding: &str, word: &str) -> Result<()> {
    let manifests = Manifests::empty_in(topology.directory())?;
    manifests.write("direct.yaml", &manifest(forwarding))?;
    let agent = Agent::start(topology, &manifests, &[])?;
    let node = topology.node.run("ip", &["-4", "-o", "addr", "show", "dev", "eth0"])?;
    ensure!(!node.contains(&VIP.to_string()), "{node}");
    // The outside host knows the VIP by way of the node, and by no other.
    topology.outside.run("ip", &["route", "add", &format!("{VIP}/32"), "via", "172.20.0.1"])?;
    let vip = SocketAddr::from((VIP, PORT));
    for _ in 0..5 {
        let name = get_once(&topology.outside, vip, "/")?;
        ensure!(name == "direct", "{name} answers");
        let source = get_once(&topology.outside, vip, "/source")?;
        ensure!(source.starts_with(&OUTSIDE.to_string()), "the backend saw {source}");
    }
    let list = topology.node.run("ipvsadm", &["-Ln"])?;
    let line = list.lines().find(|line| line.contains(&format!("{BACKEND}:{PORT}")));
    ensure!(line.is_some_and(|line| line.contains(word)), "{list}");
    ensure!(agent.text(&["services", "-o", "ipvsadm"])?.contains(word), "our list has no {word}");
    // Ten requests by way of IPVS, none of them past it.
    let entries = ipvs::entries(&topology.node)?;
    ensure!(entries.len() == 10, "{entries:?}");
    let addresses = backend.namespace.run("ip", &["-4", "-o", "addr"])?;
    ensure!(addresses.contains(&VIP.to_string()), "{addresses}");
    Ok(())
}

fn direct_routing_keeps_the_source_and_the_backend_answers_the_client() -> Result<()> {
    let mut topology = Topology::with_pods(&[])?;
    let backend = Backend::build(&mut topology, "lo", "")?;
    check(&topology, &backend, "route", "Route")
}

fn tunnel_keeps_the_source_and_the_backend_answers_the_client() -> Result<()> {
    let mut topology = Topology::with_pods(&[])?;
    let backend = Backend::build(&mut topology, "tunl0", "link set tunl0 up\n")?;
    check(&topology, &backend, "tunnel", "Tunnel")
}
