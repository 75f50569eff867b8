//! Ways out that are no plain NIC: WireGuard, links bundled to one, and a way back that is another
//! than the way in.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::{Connection, HttpServer};
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{ServiceObject, WEB_NODE_PORT, WEB_TARGET_PORT};
use proxy_tests::stage::Stage;
use proxy_tests::topology::{NODE, OUTSIDE};
use proxy_tests::{process, slow_path, wait};

use crate::devices::{is_fast, transfers};
use crate::interfaces::{wait_mode, wait_reason};
use crate::scenario::{AGENT, Need, Scenario, scenario};

const WIREGUARD: &[Need] = &[
    Need::Root,
    Need::Ipvs,
    Need::Agent,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
    Need::Program("wg"),
];
const BUNDLES: &[Need] = &[
    Need::Root,
    Need::Ipvs,
    Need::Agent,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
    Need::Program("teamnl"),
];

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(WIREGUARD => endpoints_behind_wireguard_are_served_the_slow_way_and_the_status_says_so),
    scenario!(BUNDLES => bonds_and_teams_are_fast_and_outlive_a_link),
    scenario!(AGENT => replies_by_another_uplink_keep_a_flow_slow_and_whole),
];

const FAR: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const FAR_UNDERLAY: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 9);
/// Private and public keys of the example of RFC 7748, section 6.1.
const NEAR_KEYS: [&str; 2] = [
    "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
    "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
];
const FAR_KEYS: [&str; 2] = [
    "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
    "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
];

fn endpoints_behind_wireguard_are_served_the_slow_way_and_the_status_says_so() -> Result<()> {
    // Not even where the operator asks for it: there is no Ethernet header to repeat.
    let options = ["--interfaces", "v-*,eth0,wg0", "--interface-modes", "wg0=force"];
    let mut stage = Stage::without_agent(&options)?;
    let far = stage.topology.add_host("far", FAR_UNDERLAY)?;
    wireguard(&stage.topology.node, (NODE, NEAR, NEAR_KEYS), (FAR_UNDERLAY, FAR, FAR_KEYS))?;
    wireguard(&far, (FAR_UNDERLAY, FAR, FAR_KEYS), (NODE, NEAR, NEAR_KEYS))?;
    far.run("ip", &["route", "add", "default", "dev", "wg0"])?;
    let _server = serve(&far, "far")?;
    let remote = ServiceObject {
        name: "remote".to_owned(),
        frontend: SocketAddr::from(([10, 96, 0, 99], 80)),
        node_port: None,
        endpoints: vec![FAR],
        ..ServiceObject::web(&[])
    };
    stage.manifests.write("remote.yaml", &remote.yaml())?;
    let stage = stage.started()?;
    wait_reason(&stage, "wg0", "no Ethernet link layer")?;
    let shown = stage.agent.text(&["status"])?;
    let line = shown.lines().find(|line| line.contains("wg0")).unwrap_or_default();
    ensure!(line.contains("off") && line.contains("no Ethernet link layer"), "{shown}");

    let before = Counters::read(&stage.agent)?;
    let mut connection = Connection::open(&stage.client()?, remote.frontend)?;
    for _ in 0..20 {
        ensure!(connection.get("/")? == "far", "somebody else answered");
    }
    transfers(&mut connection)?;
    let counted = Counters::read(&stage.agent)?.since(&before);
    ensure!(counted.hits() == 0, "there is no way to be fast: {counted:?}");
    ensure!(counted.of("no_flow") > 100, "not even seen: {counted:?}");
    let local = connection.local()?;
    let flows = flows::flows(&stage.agent)?;
    let learned = flows.iter().find(|flow| flow.source == local || flow.new_destination == local);
    ensure!(learned.is_none(), "learned: {learned:?}");
    // What carries it is a flow between the nodes, of no Service.
    let sent = slow_path::sent_by(&stage.topology.node, "wg0")?;
    ensure!(sent > 100, "only {sent} packets went by WireGuard");
    stage.fast_connection(proxy_tests::objects::WEB_FRONTEND).context("beside it").map(drop)
}

/// A tunnel: underlay address, own address and keys of this end and of the other.
fn wireguard(
    namespace: &Namespace,
    (_, own, [private, _]): (Ipv4Addr, Ipv4Addr, [&str; 2]),
    (underlay, _, [_, public]): (Ipv4Addr, Ipv4Addr, [&str; 2]),
) -> Result<()> {
    const PORT: &str = "51820";
    namespace.run("ip", &["link", "add", "wg0", "type", "wireguard"])?;
    let endpoint = format!("{underlay}:{PORT}");
    let own_side = ["set", "wg0", "listen-port", PORT, "private-key", "/dev/stdin"];
    let peer = ["peer", public, "endpoint", &endpoint, "allowed-ips", "0.0.0.0/0"];
    namespace.feed("wg", &[&own_side[..], &peer].concat(), private)?;
    namespace.feed(
        "ip",
        &["-batch", "-"],
        &format!("addr add {own}/24 dev wg0\nlink set wg0 up\n"),
    )?;
    Ok(())
}

fn serve(namespace: &Namespace, name: &str) -> Result<HttpServer> {
    HttpServer::start(namespace, SocketAddr::from(([0, 0, 0, 0], WEB_TARGET_PORT)), name)
}

/// A host of its own behind the node, joined by two pairs of veths for each bundle.
fn bonds_and_teams_are_fast_and_outlive_a_link() -> Result<()> {
    let stage = Stage::without_agent(&[])?;
    let node = &stage.topology.node;
    let far = Namespace::named(format!("{}-far", stage.topology.name()));
    process::run("ip", &["netns", "add", far.name()])?;
    far.run("ip", &["link", "set", "lo", "up"])?;
    let round_robin = ["type", "bond", "mode", "balance-rr", "miimon", "20"];
    for (name, subnet) in [("bond0", 22), ("team0", 23)] {
        far.run("ip", &[&["link", "add", name][..], &round_robin].concat())?;
        if name == "bond0" {
            node.run("ip", &[&["link", "add", name][..], &round_robin].concat())?;
        } else {
            node.run("ip", &["link", "add", name, "type", "team"])?;
            node.run("teamnl", &[name, "setoption", "mode", "roundrobin"])?;
        }
        bundle(node, &far, name, subnet)?;
    }
    let stage = stage.started()?;
    for (name, subnet) in [("bond0", 22), ("team0", 23)] {
        wait_mode(&stage, name, "fast")?;
        let kind = name.trim_end_matches('0');
        for number in 0..2 {
            wait_reason(&stage, &port(name, number), &format!("port of {kind} {name}"))?;
        }
        let to = SocketAddr::from(([172, subnet, 0, 1], WEB_NODE_PORT));
        outlives_a_link(&stage, &far, name, to).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn port(bundle: &str, number: usize) -> String {
    format!("{bundle}p{number}")
}

/// Two links between the node and a host below a bundle that either has already.
fn bundle(node: &Namespace, far: &Namespace, name: &str, subnet: u8) -> Result<()> {
    let mut links = String::new();
    for port in [0, 1].map(|number| port(name, number)) {
        let far = far.name();
        links += &format!("link add {port} type veth peer name {port} netns {far}\n");
    }
    node.feed("ip", &["-batch", "-"], &links)?;
    for (namespace, last) in [(node, 1), (far, 2)] {
        let mut lines = format!("addr add 172.{subnet}.0.{last}/24 dev {name}\n");
        for port in [0, 1].map(|number| port(name, number)) {
            lines += &format!("link set {port} master {name}\nlink set {port} up\n");
        }
        lines += &format!("link set {name} up\n");
        namespace.feed("ip", &["-batch", "-"], &lines)?;
    }
    Ok(())
}

/// Fast over both links, then over the one that is left.
fn outlives_a_link(stage: &Stage, far: &Namespace, name: &str, to: SocketAddr) -> Result<()> {
    let node = &stage.topology.node;
    let web = ServiceObject::web(&[11]);
    stage.manifests.write("web.yaml", &web.yaml())?;
    wait::until_true("only one endpoint is left", wait::PATIENCE, || {
        Ok((0..3).all(|_| proxy_tests::http::get_once(far, to, "/").is_ok_and(|by| by == "web-a")))
    })?;
    is_fast(stage, far, to, "web-a")?;
    for number in 0..2 {
        let sent = slow_path::sent_by(node, &port(name, number))?;
        ensure!(sent > 50, "only {sent} packets went by link {number}");
    }
    let mut connection = Connection::open(far, to)?;
    for _ in 0..10 {
        connection.get("/")?;
    }
    node.run("ip", &["link", "set", &port(name, 0), "down"])?;
    transfers(&mut connection).context("with one link")?;
    is_fast(stage, far, to, "web-a").context("with one link")
}

fn replies_by_another_uplink_keep_a_flow_slow_and_whole() -> Result<()> {
    const SECOND: &str = "172.21.0";
    let stage = Stage::without_agent(&[])?;
    let (node, outside) = (&stage.topology.node, &stage.topology.outside);
    node.feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link add eth1 type veth peer name eth1 netns {}\n\
             addr add {SECOND}.1/24 dev eth1\n\
             link set eth1 up\n",
            outside.name()
        ),
    )?;
    outside.run("ip", &["addr", "add", &format!("{SECOND}.2/24"), "dev", "eth1"])?;
    outside.run("ip", &["link", "set", "eth1", "up"])?;
    for name in ["all", "eth0", "eth1"] {
        outside.set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
    }
    let back = [&OUTSIDE.to_string(), "via", &format!("{SECOND}.2"), "dev", "eth1"];
    let stage = stage.started()?;
    let (node, outside) = (&stage.topology.node, &stage.topology.outside);
    node.run("ip", &[&["route", "add"][..], &back].concat())?;
    wait_mode(&stage, "eth1", "fast")?;

    let to = SocketAddr::from((NODE, WEB_NODE_PORT));
    let mut connection = Connection::open(outside, to)?;
    let local = connection.local()?;
    let by_eth1 = slow_path::sent_by(node, "eth1")?;
    let before = Counters::read(&stage.agent)?;
    transfers(&mut connection).context("back by the other uplink")?;
    let counted = Counters::read(&stage.agent)?.since(&before);
    let sent = slow_path::sent_by(node, "eth1")? - by_eth1;
    ensure!(sent > 50, "only {sent} packets went back by the other uplink");
    ensure!(counted.hits() == 0, "one direction went past what sees the other: {counted:?}");
    ensure!(counted.of("learning") > 50, "not said why: {counted:?}");
    let flow = flows::flow(&stage.agent, local, to)?;
    ensure!(flow.as_ref().is_some_and(|flow| flow.state == "learning"), "{flow:?}");

    node.run("ip", &[&["route", "del"][..], &back].concat())?;
    flows::drive(&stage.agent, local, to, || connection.get("/").map(drop))
        .context("back by the same uplink")?;
    transfers(&mut connection).context("back by the same uplink")?;
    // And away again, in the middle of it.
    node.run("ip", &[&["route", "add"][..], &back].concat())?;
    let by_eth1 = slow_path::sent_by(node, "eth1")?;
    wait::paced(Duration::from_secs(1), Duration::from_millis(10), || {
        connection.get("/").map(drop)
    })?;
    transfers(&mut connection).context("back by the other uplink again")?;
    let sent = slow_path::sent_by(node, "eth1")? - by_eth1;
    ensure!(sent > 50, "only {sent} packets went back by the other uplink again");
    Ok(())
}
