//! Devices that nodes route by, besides pods' own veths and NICs: the bridge of a CNI plugin, a
//! VLAN on the uplink, a VXLAN to other nodes.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::{Connection, HttpServer};
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND, WEB_NODE_PORT, WEB_TARGET_PORT};
use proxy_tests::process;
use proxy_tests::stage::Stage;
use proxy_tests::topology::{NODE, Topology};
use proxy_tests::transfer::Blob;

use crate::interfaces::wait_mode;
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    bridges_vlans_and_vxlans_carry_the_fast_path,
}

/// The node on its bridge, and the two pods there.
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const ON_BRIDGE: [(&str, Ipv4Addr); 2] =
    [("br-a", Ipv4Addr::new(10, 7, 0, 11)), ("br-b", Ipv4Addr::new(10, 7, 0, 12))];
/// A host behind a VXLAN, and the node's end of that.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const FAR_UNDERLAY: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 9);
/// The node and the outside host on a VLAN of their segment.
const NODE_ON_VLAN: Ipv4Addr = Ipv4Addr::new(172, 21, 0, 1);
const OUTSIDE_ON_VLAN: Ipv4Addr = Ipv4Addr::new(172, 21, 0, 2);
const MIB: u64 = 1024 * 1024;

fn bridges_vlans_and_vxlans_carry_the_fast_path() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    let far = stage.topology.add_host("far", FAR_UNDERLAY)?;
    let [a, b] = pods_on_a_bridge(&mut stage.topology)?;
    vxlan(&stage.topology.node, &far)?;
    vlan(&stage.topology)?;
    let _servers = [serve(&a, "br-a")?, serve(&far, "far")?];
    let behind = |name: &str, endpoint| ServiceObject {
        name: name.to_owned(),
        endpoints: vec![endpoint],
        ..ServiceObject::web(&[])
    };
    let on_bridge = behind("web", ON_BRIDGE[0].1);
    let remote = ServiceObject {
        frontend: SocketAddr::from(([10, 96, 0, 99], 80)),
        node_port: None,
        ..behind("remote", FAR)
    };
    stage.manifests.write("web.yaml", &on_bridge.yaml())?;
    stage.manifests.write("remote.yaml", &remote.yaml())?;
    let stage = stage.started()?;
    for name in ["cni0", "eth0.7", "vxlan0", "eth0"] {
        wait_mode(&stage, name, "fast")?;
    }
    let node_port = SocketAddr::from((NODE_ON_VLAN, WEB_NODE_PORT));
    let outside = &stage.topology.outside;
    is_fast(&stage, &b, remote.frontend, "far").context("from a bridge to a VXLAN")?;
    is_fast(&stage, outside, node_port, "br-a").context("from a VLAN to a bridge")?;
    is_fast(&stage, &stage.client()?, WEB_FRONTEND, "br-a").context("from a veth to a bridge")?;
    let _bridged = FilteredBridges::load()?;
    stage.topology.node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1")?;
    is_fast(&stage, &b, remote.frontend, "far").context("from a filtered bridge to a VXLAN")?;
    // conntrack undoes the masquerade of replies on the bridge, before they are seen: they stay slow.
    let mut connection = Connection::open(outside, node_port)?;
    transfers(&mut connection).context("from a VLAN to a filtered bridge")
}

/// netfilter sees what a bridge carries, as most nodes of Kubernetes have it.
struct FilteredBridges;

impl FilteredBridges {
    fn load() -> Result<Self> {
        process::run("modprobe", &["br_netfilter"])?;
        Ok(Self)
    }
}

impl Drop for FilteredBridges {
    fn drop(&mut self) {
        if let Err(error) = process::run("modprobe", &["-r", "br_netfilter"]) {
            eprintln!("devices: {error:#}");
        }
    }
}

/// Requests and a transfer both ways, nearly all of it fast.
pub(crate) fn is_fast(
    stage: &Stage,
    client: &Namespace,
    to: SocketAddr,
    server: &str,
) -> Result<()> {
    let mut connection = Connection::open(client, to)?;
    let local = connection.local()?;
    flows::drive(&stage.agent, local, to, || {
        ensure!(connection.get("/")? == server);
        Ok(())
    })?;
    let before = Counters::read(&stage.agent)?;
    transfers(&mut connection)?;
    let counters = Counters::read(&stage.agent)?.since(&before);
    ensure!(counters.share() >= 0.8, "{:.2} of the packets: {counters:?}", counters.share());
    Ok(())
}

pub(crate) fn transfers(connection: &mut Connection) -> Result<()> {
    ensure!(connection.download(MIB, |_| ())? == Blob::of(MIB).digest(), "download");
    ensure!(connection.upload(MIB)? == Blob::of(MIB).digest(), "upload");
    (0..50).try_for_each(|_| connection.get("/").map(drop))
}

/// Pods as the bridge plugin of the CNI makes them: the node routes by the bridge's address.
fn pods_on_a_bridge(topology: &mut Topology) -> Result<[Namespace; 2]> {
    topology.node.feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link add cni0 type bridge mcast_snooping 0\n\
             addr add {BRIDGE}/24 dev cni0\n\
             link set cni0 up\n"
        ),
    )?;
    let make = |topology: &mut Topology, name, address: Ipv4Addr| -> Result<Namespace> {
        // As the others, and then moved.
        let pod = topology.add_pod(name, address.octets()[3] + 80)?;
        topology.node.run("ip", &["link", "set", &pod.interface(), "master", "cni0"])?;
        pod.namespace.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "route flush dev eth0\n\
                 addr flush dev eth0\n\
                 addr add {address}/24 dev eth0\n\
                 route add default via {BRIDGE}\n"
            ),
        )?;
        Ok(pod.namespace)
    };
    let [a, b] = ON_BRIDGE.map(|(name, address)| make(topology, name, address));
    Ok([a?, b?])
}

/// A VXLAN of two, as an overlay of a CNI plugin has it.
fn vxlan(node: &Namespace, far: &Namespace) -> Result<()> {
    for (namespace, own, underlay, other) in
        [(node, NEAR, NODE, FAR_UNDERLAY), (far, FAR, FAR_UNDERLAY, NODE)]
    {
        namespace.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add vxlan0 type vxlan id 7 local {underlay} remote {other} dstport 4789\n\
                 addr add {own}/24 dev vxlan0\n\
                 link set vxlan0 up\n"
            ),
        )?;
    }
    far.run("ip", &["route", "add", "default", "via", &NEAR.to_string()]).map(drop)
}

fn vlan(topology: &Topology) -> Result<()> {
    for (namespace, below, own) in
        [(&topology.node, "eth0", NODE_ON_VLAN), (&topology.outside, "segment", OUTSIDE_ON_VLAN)]
    {
        namespace.feed(
            "ip",
            &["-batch", "-"],
            &format!(
                "link add link {below} name {below}.7 type vlan id 7\n\
                 addr add {own}/24 dev {below}.7\n\
                 link set {below}.7 up\n"
            ),
        )?;
    }
    Ok(())
}

fn serve(namespace: &Namespace, name: &str) -> Result<HttpServer> {
    HttpServer::start(namespace, SocketAddr::from(([0, 0, 0, 0], WEB_TARGET_PORT)), name)
}
