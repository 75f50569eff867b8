//! The stage itself, without any proxy: what the other scenarios take for granted.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::dns::{Resolver, ask_over_tcp};
use proxy_tests::http::{Connection, Source, get_once};
use proxy_tests::objects::{DNS_TARGET_PORT, WEB_TARGET_PORT};
use proxy_tests::topology::{NODE, Topology};
use proxy_tests::transfer::Blob;
use proxy_tests::workload::Workload;

use crate::scenario::{Need, scenarios};

scenarios! { &[Need::Root] =>
    pods_reach_each_other_by_address,
    outside_host_does_not_reach_pods,
    bytes_arrive_unchanged_both_ways,
    dropped_topology_leaves_nothing,
}

fn pods_reach_each_other_by_address() -> Result<()> {
    let topology = Topology::example()?;
    let _workload = Workload::start(&topology)?;
    let client = topology.pod("client")?;
    let web = topology.pod("web-b")?.at(WEB_TARGET_PORT);
    ensure!(get_once(&client.namespace, web, "/")? == "web-b");
    let source = Source::Port(45_000);
    let seen = Connection::open_from(&client.namespace, source, web)?.get("/source")?;
    ensure!(seen == client.at(45_000).to_string(), "the pod's own address is changed: {seen}");
    ensure!(get_once(&topology.node, web, "/source")?.starts_with(&NODE.to_string()));
    let dns = topology.pod("dns-a")?.at(DNS_TARGET_PORT);
    ensure!(Resolver::open(&client.namespace, dns)?.ask()? == "dns-a");
    ensure!(ask_over_tcp(&client.namespace, dns)? == "dns-a");
    Ok(())
}

fn outside_host_does_not_reach_pods() -> Result<()> {
    let topology = Topology::example()?;
    let _workload = Workload::start(&topology)?;
    let web = topology.pod("web-a")?.at(WEB_TARGET_PORT);
    ensure!(get_once(&topology.outside, web, "/").is_err(), "outside has a route to {web}");
    Ok(())
}

fn bytes_arrive_unchanged_both_ways() -> Result<()> {
    const SIZE: u64 = (3 << 20) + 17;
    let topology = Topology::example()?;
    let _workload = Workload::start(&topology)?;
    let web = topology.pod("web-a")?.at(WEB_TARGET_PORT);
    let mut connection = Connection::open(&topology.pod("client")?.namespace, web)?;
    let expected = Blob::of(SIZE).digest();
    ensure!(connection.download(SIZE, |_| ())? == expected, "download");
    ensure!(connection.upload(SIZE)? == expected, "upload");
    Ok(())
}

fn dropped_topology_leaves_nothing() -> Result<()> {
    let topology = Topology::example()?;
    let (node, directory) = (topology.node.path(), topology.directory().to_owned());
    let pods: Vec<_> = topology.pods().iter().map(|pod| pod.namespace.path()).collect();
    ensure!(node.exists() && directory.exists());
    drop(topology);
    for path in pods.into_iter().chain([node, directory]) {
        let left = path.try_exists().context("look for residue")?;
        ensure!(!left, "{} is left", path.display());
    }
    Ok(())
}
