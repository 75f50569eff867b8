//! Who forwards packets in the node, and how he is told.

use anyhow::Result;
use proxy_tests::{agent::Agent, netns::Namespace, objects::Manifests, topology::Topology};

use super::{
    scene::{LOCAL_VIP, NODE_PORT, PORT, REMOTE_VIP, TARGET_PORT},
    traffic::Kind,
};

/// Who forwards packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Nobody translates: clients dial the pod.
    Routing,
    /// IPVS without conntrack and without a rule.
    IpvsAlone,
    /// IPVS with conntrack, and with the rules that kube-proxy's ipvs mode has.
    Ipvs,
    /// DNAT as kube-proxy's nftables mode does it.
    Nft,
    /// The agent without its fast path.
    FastPathOff,
    /// The agent; hardly anybody answers, so every packet is stamped and learned from.
    Learning,
    /// The agent; every packet is a hit.
    Fast,
}

impl Mode {
    pub(crate) const ALL: [Self; 7] = [
        Self::Routing,
        Self::IpvsAlone,
        Self::Ipvs,
        Self::Nft,
        Self::FastPathOff,
        Self::Learning,
        Self::Fast,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Routing => "routing",
            Self::IpvsAlone => "ip_vs alone",
            Self::Ipvs => "ip_vs, conntrack, rules",
            Self::Nft => "nft DNAT",
            Self::FastPathOff => "passlane, fast path off",
            Self::Learning => "passlane, learning",
            Self::Fast => "passlane, fast",
        }
    }

    /// Streams are answered, so only datagrams can be learned from all the time.
    pub(crate) fn carries(self, kind: Kind) -> bool {
        self != Self::Learning || kind == Kind::Datagrams
    }

    /// Whether the clients dial the pod itself.
    pub(crate) fn is_direct(self) -> bool {
        self == Self::Routing
    }

    /// The agent's options, where there is an agent.
    fn options(self) -> Option<&'static [&'static str]> {
        match self {
            Self::FastPathOff => Some(&["--fast-path", "off"]),
            Self::Learning | Self::Fast => Some(&[]),
            _ => None,
        }
    }

    /// Sets the node up; returns the agent, if there is one.
    pub(crate) fn set(self, topology: &Topology) -> Result<Option<Agent>> {
        let node = &topology.node;
        match self {
            Self::Routing => {}
            Self::IpvsAlone => ipvs(node, "0")?,
            Self::Ipvs => {
                ipvs(node, "1")?;
                node.nft(&rules())?;
            }
            Self::Nft => drop(node.nft(&dnat())?),
            Self::FastPathOff | Self::Learning | Self::Fast => {}
        }
        let Some(options) = self.options() else { return Ok(None) };
        let manifests = Manifests::empty_in(topology.directory())?;
        manifests.write("bench.yaml", &objects())?;
        Ok(Some(Agent::start(topology, &manifests, options)?))
    }
}

/// The Services, as virtual servers.
fn ipvs(node: &Namespace, conntrack: &str) -> Result<()> {
    proxy_tests::process::run("modprobe", &["ip_vs_rr"])?;
    node.set_sysctl("net/ipv4/vs/conntrack", conntrack)?;
    let [local, remote] = [LOCAL_VIP, REMOTE_VIP];
    let routes = format!(
        "link add vips type dummy\nlink set vips up\n\
         route add local {local}/32 dev vips table local\n\
         route add local {remote}/32 dev vips table local\n"
    );
    node.feed("ip", &["-batch", "-"], &routes)?;
    let mut servers = String::new();
    for protocol in ["-t", "-u"] {
        for (at, to) in frontends() {
            servers += &format!("-A {protocol} {at} -s rr\n-a {protocol} {at} -r {to} -m\n");
        }
    }
    node.feed("ipvsadm", &["-R"], &servers)?;
    Ok(())
}

/// Frontends with their only backends.
fn frontends() -> [(String, String); 3] {
    let (local, remote) = (format!("10.1.1.21:{TARGET_PORT}"), format!("10.1.2.22:{TARGET_PORT}"));
    [
        (format!("{LOCAL_VIP}:{PORT}"), local.clone()),
        (format!("{REMOTE_VIP}:{PORT}"), remote),
        (format!("172.20.0.1:{NODE_PORT}"), local),
    ]
}

/// What kube-proxy's ipvs mode does with iptables and ipset, with the same matches in the same hooks:
/// mark what comes from outside the cluster, masquerade the marked and the hairpins, let both pass.
fn rules() -> String {
    format!(
        "table ip kube {{\n\
         set cluster_ip {{ type ipv4_addr . inet_proto . inet_service; elements = {{\n\
         {LOCAL_VIP} . tcp . {PORT}, {LOCAL_VIP} . udp . {PORT},\n\
         {REMOTE_VIP} . tcp . {PORT}, {REMOTE_VIP} . udp . {PORT} }} }}\n\
         set node_port {{ type inet_proto . inet_service; elements = {{\n\
         tcp . {NODE_PORT}, udp . {NODE_PORT} }} }}\n\
         set loop_back {{ type ipv4_addr . inet_proto . inet_service . ipv4_addr; elements = {{\n\
         10.1.1.21 . tcp . {TARGET_PORT} . 10.1.1.21, 10.1.1.21 . udp . {TARGET_PORT} . 10.1.1.21 }} }}\n\
         chain mark_masq {{ meta mark set meta mark | 0x4000; }}\n\
         chain services {{\n\
         ip saddr 127.0.0.0/8 return\n\
         ip saddr != 10.1.0.0/16 ip daddr . meta l4proto . th dport @cluster_ip jump mark_masq\n\
         fib daddr type local meta l4proto . th dport @node_port jump mark_masq\n\
         ip daddr . meta l4proto . th dport @cluster_ip accept\n\
         }}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
         chain output {{ type nat hook output priority -100; jump services; }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat;\n\
         ip daddr . meta l4proto . th dport . ip saddr @loop_back masquerade\n\
         meta mark & 0x4000 != 0x4000 return\n\
         meta mark set meta mark ^ 0x4000\n\
         masquerade fully-random\n\
         }}\n\
         chain input {{ type filter hook input priority filter;\n\
         meta mark & 0x8000 == 0x8000 drop\n\
         ip daddr . meta l4proto . th dport @cluster_ip return\n\
         fib daddr type local meta l4proto . th dport @node_port return\n\
         }}\n\
         chain forward {{ type filter hook forward priority filter;\n\
         meta mark & 0x4000 == 0x4000 accept\n\
         ct state related,established accept\n\
         }}\n\
         }}\n"
    )
}

/// The Services as kube-proxy's nftables mode writes them: verdict maps to a chain for each Service,
/// which goes to one for each endpoint.
fn dnat() -> String {
    let services: String =
        [("tcp", "local"), ("udp", "local"), ("tcp", "remote"), ("udp", "remote")]
            .map(|(protocol, name)| {
                let vip = if name == "local" { LOCAL_VIP } else { REMOTE_VIP };
                format!("{vip} . {protocol} . {PORT} : goto service_{name},\n")
            })
            .concat();
    format!(
        "table ip kube {{\n\
         chain endpoint_local {{ ip saddr 10.1.1.21 jump mark_masq\n\
         meta l4proto {{ tcp, udp }} dnat to 10.1.1.21:{TARGET_PORT}; }}\n\
         chain endpoint_remote {{ ip saddr 10.1.2.22 jump mark_masq\n\
         meta l4proto {{ tcp, udp }} dnat to 10.1.2.22:{TARGET_PORT}; }}\n\
         chain mark_masq {{ meta mark set meta mark | 0x4000; }}\n\
         chain service_local {{ ip daddr {LOCAL_VIP} ip saddr != 10.1.0.0/16 jump mark_masq\n\
         goto endpoint_local; }}\n\
         chain service_remote {{ ip daddr {REMOTE_VIP} ip saddr != 10.1.0.0/16 jump mark_masq\n\
         goto endpoint_remote; }}\n\
         chain external_local {{ jump mark_masq; goto service_local; }}\n\
         map service_ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{\n\
         {services}}} }}\n\
         map node_ports {{ type inet_proto . inet_service : verdict; elements = {{\n\
         tcp . {NODE_PORT} : goto external_local, udp . {NODE_PORT} : goto external_local }} }}\n\
         chain services {{\n\
         ip daddr . meta l4proto . th dport vmap @service_ips\n\
         ip daddr 172.20.0.1 meta l4proto . th dport vmap @node_ports\n\
         }}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}\n\
         chain output {{ type nat hook output priority -100; jump services; }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat;\n\
         meta mark & 0x4000 == 0 return\n\
         meta mark set meta mark ^ 0x4000\n\
         masquerade fully-random\n\
         }}\n\
         chain forward {{ type filter hook forward priority filter; ct state invalid drop; }}\n\
         }}\n"
    )
}

/// The same for the agent.
fn objects() -> String {
    let service = |name: &str, vip, node_port: &str, kind: &str, pod: &str, node: &str| {
        format!(
            "apiVersion: v1\n\
             kind: Service\n\
             metadata: {{name: {name}, namespace: default}}\n\
             spec:\n  type: {kind}\n  clusterIP: {vip}\n  ports:\n  \
             - {{name: u, protocol: UDP, port: {PORT}, targetPort: {TARGET_PORT}{node_port}}}\n  \
             - {{name: t, protocol: TCP, port: {PORT}, targetPort: {TARGET_PORT}{node_port}}}\n\
             ---\n\
             apiVersion: discovery.k8s.io/v1\n\
             kind: EndpointSlice\n\
             metadata:\n  name: {name}-1\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: IPv4\n\
             ports:\n  - {{name: u, protocol: UDP, port: {TARGET_PORT}}}\n  \
             - {{name: t, protocol: TCP, port: {TARGET_PORT}}}\n\
             endpoints:\n  - {{addresses: [{pod}]{node}, conditions: {{ready: true}}}}\n"
        )
    };
    let node_port = format!(", nodePort: {NODE_PORT}");
    let local = service("bench-local", LOCAL_VIP, &node_port, "NodePort", "10.1.1.21", "");
    let remote =
        service("bench-remote", REMOTE_VIP, "", "ClusterIP", "10.1.2.22", ", nodeName: peer");
    format!("{local}---\n{remote}")
}
