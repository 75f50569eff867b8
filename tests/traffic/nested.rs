//! A pod that is a node itself, with pods, Services and an agent of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::Connection;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{Manifests, ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{process, wait};

use crate::devices::transfers;
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    packet_of_two_nested_clusters_is_translated_and_fast_in_both,
}

/// What the inner cluster calls the outer one's `web`.
const INNER_FRONTEND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 97, 0, 20)), 80);

/// The inner agent with what it reads. Fields are dropped in this order.
struct Inner {
    agent: Agent,
    client: Namespace,
}

fn packet_of_two_nested_clusters_is_translated_and_fast_in_both() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    let pod = stage.topology.add_pod("inner", 41)?;
    let stage = stage.started()?;
    let inner = inner(&stage, &pod.namespace)?;
    let mut connection = Connection::open(&inner.client, INNER_FRONTEND)?;
    let local = connection.local()?;
    let backend = connection.get("/")?;
    let inside = flows::drive(&inner.agent, local, INNER_FRONTEND, || {
        ensure!(connection.get("/")? == backend, "the backend changed");
        Ok(())
    })?;
    ensure!(inside.new_source.ip() == pod.address, "not as the pod that is its node: {inside:?}");
    ensure!(inside.new_destination == WEB_FRONTEND, "{inside:?}");
    let around = wait::until("the outer node is fast as well", wait::PATIENCE, || {
        connection.get("/")?;
        let flow = flows::flow(&stage.agent, inside.new_source, WEB_FRONTEND)?;
        Ok(flow.filter(flows::Flow::is_active))
    })?;
    ensure!(around.new_source == inside.new_source, "masqueraded twice: {around:?}");

    let read = || anyhow::Ok([Counters::read(&inner.agent)?, Counters::read(&stage.agent)?]);
    let before = read()?;
    transfers(&mut connection)?;
    for ((which, after), before) in ["inner", "outer"].into_iter().zip(read()?).zip(before) {
        let counted = after.since(&before);
        ensure!(counted.share() >= 0.8, "{which}: {:.2}: {counted:?}", counted.share());
    }
    // The agent of one is none of the other's business.
    drop(inner);
    stage.fast_connection(WEB_FRONTEND).map(drop)
}

/// A client behind the inner node, and its agent.
fn inner(stage: &Stage, node: &Namespace) -> Result<Inner> {
    let client = Namespace::named(format!("{}-innermost", stage.topology.name()));
    process::run("ip", &["netns", "add", client.name()])?;
    node.set_sysctl("net/ipv4/ip_forward", "1")?;
    let lines = format!(
        "link add v-inmost type veth peer name eth0 netns {}\n\
         addr add 10.9.31.1/24 dev v-inmost\n\
         link set v-inmost up\n",
        client.name()
    );
    node.feed("ip", &["-batch", "-"], &lines)?;
    client.feed(
        "ip",
        &["-batch", "-"],
        "link set lo up\n\
         addr add 10.9.31.2/24 dev eth0\n\
         link set eth0 up\n\
         route add default via 10.9.31.1\n",
    )?;
    let directory = stage.topology.directory().join("inner");
    fs::create_dir_all(&directory)?;
    let manifests = Manifests::empty_in(&directory)?;
    let outer = ServiceObject {
        name: "outer".to_owned(),
        frontend: INNER_FRONTEND,
        node_port: None,
        target_port: WEB_FRONTEND.port(),
        endpoints: vec![Ipv4Addr::new(10, 96, 0, 10)],
    };
    manifests.write("outer.yaml", &outer.yaml())?;
    // Nobody else knows the addresses of the innermost pods.
    let options = ["--masquerade-all"];
    let bpffs = PathBuf::from(format!("{}-inner", stage.topology.bpffs().display()));
    let mut agent = Agent::new(&stage.topology, &manifests, &options)
        .inside(node, &directory)
        .pinning_at(&bpffs);
    agent.spawn()?;
    agent.wait_ready().context("the inner agent")?;
    Ok(Inner { agent, client })
}
