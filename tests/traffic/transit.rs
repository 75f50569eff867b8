//! Uplink to uplink: NodePorts whose endpoints are elsewhere, by XDP.
//!
//! veth stands in for NICs. Two of its ways are not theirs. What XDP transmits waits at the other end
//! until something else comes, unless a program is there, too (`veth_xdp_flush`,
//! `drivers/net/veth.c`): the hosts beyond have one that passes everything on. And checksums of packets
//! that never see a wire are not filled in: ethtool takes that offload away from those hosts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::Connection;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{ServiceObject, WEB_NODE_PORT};
use proxy_tests::polling::Polling;
use proxy_tests::stage::Stage;
use proxy_tests::topology::NODE;
use proxy_tests::transfer::Blob;
use proxy_tests::{process, wait};
use serde_json::Value;

use crate::scenario::{Need, Scenario, scenario};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Ipvs,
    Need::Agent,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
    Need::Program("conntrack"),
    Need::Program("ethtool"),
];

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(NEEDS => transit_by_xdp_outlives_the_agent_and_ends_without_a_reset),
    scenario!(NEEDS => an_uplink_that_does_not_qualify_says_why_and_is_served_all_the_same),
];

/// The node on its second uplink, and the client behind that.
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 21, 0, 1);
const BEYOND: Ipv4Addr = Ipv4Addr::new(172, 21, 0, 2);
const FORCED: [&str; 4] = ["--xdp", "force", "--uplinks", "eth0,eth1"];
const MIB: u64 = 1 << 20;

fn transit_by_xdp_outlives_the_agent_and_ends_without_a_reset() -> Result<()> {
    let (mut stage, beyond) = stage(&FORCED)?;
    let _polling = [polling(&stage, &stage.topology.outside, 0)?, polling(&stage, &beyond, 1)?];
    start(&mut stage.agent)?;
    for uplink in ["eth0", "eth1"] {
        wait_report(&stage, uplink, |report| report == "on")?;
        ensure!(program(&stage, uplink)?.is_some(), "no native program on {uplink}");
    }
    // Back out of the uplink that it came in by, and from one to the other.
    let mut connections = [
        connect(&stage, &stage.topology.outside.clone(), NODE)?,
        connect(&stage, &beyond, SECOND)?,
    ];
    for connection in &mut connections {
        let counted = exchange(&stage, connection)?;
        ensure!(counted.of("xdp_hit") >= 500, "{counted:?}");
    }

    stage.agent.kill()?;
    for connection in &mut connections {
        let counted = exchange(&stage, connection).context("without the agent")?;
        ensure!(counted.of("xdp_hit") >= 500, "without the agent: {counted:?}");
    }

    let before = program(&stage, "eth0")?;
    start(&mut stage.agent)?;
    wait_report(&stage, "eth0", |report| report == "on")?;
    let after = program(&stage, "eth0")?;
    ensure!(after.is_some() && after != before, "{before:?} was not replaced: {after:?}");
    for connection in &mut connections {
        exchange(&stage, connection).context("with another agent")?;
    }

    stage.agent.kill()?;
    stage.agent.set_options(&[]);
    start(&mut stage.agent)?;
    for uplink in ["eth0", "eth1"] {
        ensure!(program(&stage, uplink)?.is_none(), "a program stays on {uplink} without --xdp");
    }
    for connection in &mut connections {
        let counted = exchange(&stage, connection).context("without XDP")?;
        ensure!(counted.of("xdp_hit") == 0 && counted.of("hit") > 0, "{counted:?}");
    }
    Ok(())
}

fn an_uplink_that_does_not_qualify_says_why_and_is_served_all_the_same() -> Result<()> {
    let (mut stage, _beyond) = stage(&["--xdp", "auto", "--uplinks", "eth*"])?;
    let _polling = polling(&stage, &stage.topology.outside, 0)?;
    start(&mut stage.agent)?;
    wait_report(&stage, "eth0", |report| report == "driver veth: only with --xdp force")?;
    ensure!(program(&stage, "eth0")?.is_none(), "auto took a veth");
    let mut connection = connect(&stage, &stage.topology.outside.clone(), NODE)?;
    let counted = exchange(&stage, &mut connection)?;
    ensure!(counted.of("xdp_hit") == 0 && counted.of("hit") > 0, "{counted:?}");

    stage.agent.kill()?;
    stage.topology.node.run("tc", &["qdisc", "add", "dev", "eth1", "root", "pfifo"])?;
    stage.agent.set_options(&FORCED);
    start(&mut stage.agent)?;
    wait_report(&stage, "eth0", |report| report == "on")?;
    wait_report(&stage, "eth1", |report| report.contains("discipline pfifo"))?;
    exchange(&stage, &mut connection)?;

    stage.agent.kill()?;
    stage.agent.set_options(&["--fast-path", "off"]);
    start(&mut stage.agent)?;
    wait::until_true("the fast path left the uplink", wait::PATIENCE, || {
        Ok(program(&stage, "eth0")?.is_none())
    })?;
    let counted = exchange(&stage, &mut connection).context("without the fast path")?;
    ensure!(counted.hits() == 0, "{counted:?}");

    stage.agent.kill()?;
    stage.agent.set_options(&FORCED);
    start(&mut stage.agent)?;
    wait_report(&stage, "eth0", |report| report == "on")?;
    stage.agent.kill()?;
    stage.agent.text(&["cleanup"])?;
    wait::until_true("the program is gone", wait::PATIENCE, || {
        Ok(program(&stage, "eth0")?.is_none())
    })
}

/// A node with two uplinks, whose only endpoint of `web` is on another node behind the first one;
/// and the host behind the second. The agent does not run yet.
fn stage(options: &[&str]) -> Result<(Stage, Namespace)> {
    let mut stage = Stage::without_agent(options)?;
    let pod = stage.topology.add_remote_pod("web-r", 14)?;
    stage.workload.serve(&pod)?;
    let web = ServiceObject { endpoints: vec![pod.address], ..ServiceObject::web(&[]) };
    stage.manifests.write("web.yaml", &web.yaml())?;
    let beyond = Namespace::named(format!("{}-beyond", stage.topology.name()));
    process::run("ip", &["netns", "add", beyond.name()])?;
    stage.topology.node.feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link add eth1 type veth peer name eth0 netns {}\n\
             addr add {SECOND}/24 dev eth1\n\
             link set eth1 up\n",
            beyond.name()
        ),
    )?;
    beyond.feed(
        "ip",
        &["-batch", "-"],
        &format!("link set lo up\naddr add {BEYOND}/24 dev eth0\nlink set eth0 up\n"),
    )?;
    for host in [&stage.topology.outside, &beyond] {
        host.run("ethtool", &["-K", "eth0", "tx", "off"])?;
    }
    Ok((stage, beyond))
}

fn polling(stage: &Stage, host: &Namespace, number: u8) -> Result<Polling> {
    let bpffs = PathBuf::from(format!("{}-host-{number}", stage.topology.bpffs().display()));
    Polling::at(host, bpffs)
}

fn start(agent: &mut Agent) -> Result<()> {
    agent.spawn()?;
    agent.wait_ready()
}

/// Opens a connection to the NodePort at an address of the node, on the fast path both ways.
fn connect(stage: &Stage, client: &Namespace, node: Ipv4Addr) -> Result<Connection> {
    let frontend = SocketAddr::from((node, WEB_NODE_PORT));
    let mut connection = Connection::open(client, frontend)?;
    let local = connection.local()?;
    flows::drive(&stage.agent, local, frontend, || connection.get("/").map(drop))?;
    Ok(connection)
}

/// Asks many times and moves bytes both ways; returns what was counted meanwhile.
fn exchange(stage: &Stage, connection: &mut Connection) -> Result<Counters> {
    let before = Counters::read(&stage.agent)?;
    for number in 0..300 {
        let name = connection.get("/").with_context(|| format!("request {number}"))?;
        ensure!(name == "web-r", "{name} answered");
    }
    let expected = Blob::of(MIB).digest();
    ensure!(connection.download(MIB, |_| {})? == expected, "the download is another one");
    ensure!(connection.upload(MIB)? == expected, "the upload is another one");
    Ok(Counters::read(&stage.agent)?.since(&before))
}

/// Waits until the status says this of XDP on an interface.
fn wait_report(stage: &Stage, name: &str, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let mut last = Value::Null;
    wait::until_true(&format!("the status tells of XDP on {name}"), wait::PATIENCE, || {
        last = stage.agent.status()?["interfaces"].clone();
        let found = last.as_array().into_iter().flatten().find(|each| each["name"] == name);
        Ok(found.and_then(|each| each["xdp"].as_str()).is_some_and(&wanted))
    })
    .with_context(|| format!("{last:#}\n{}", stage.agent.log()))
}

/// Returns the id of the native XDP program of an interface of the node.
fn program(stage: &Stage, name: &str) -> Result<Option<u64>> {
    let link = link(&stage.topology.node, name)?;
    let xdp = &link["xdp"];
    ensure!(xdp.is_null() || xdp["mode"] == 1, "{xdp:#}");
    Ok(xdp["prog"]["id"].as_u64())
}

fn link(namespace: &Namespace, name: &str) -> Result<Value> {
    let text = namespace.run("ip", &["-j", "link", "show", name])?;
    let links: Value = serde_json::from_str(&text)?;
    links.get(0).cloned().with_context(|| format!("no link {name}: {links}"))
}
