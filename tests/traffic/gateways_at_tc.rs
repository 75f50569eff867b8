//! The hash plane at tc, for drivers without XDP.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::gateways::{Gateway, Gateways, HTTP, VIP};
use proxy_tests::http::{Connection, HttpServer};
use proxy_tests::ipvs;
use proxy_tests::netns::Namespace;
use proxy_tests::transfer::Blob;
use proxy_tests::wait;
use serde_json::Value;

use crate::gateways::{NEEDS, OPTIONS, carried, keeps, row_of, wait_plane};
use crate::scenario::scenarios;

scenarios! { NEEDS =>
    a_gateway_sends_flows_at_tc_and_ipvs_takes_over_and_gives_back,
    a_gateway_carries_large_segments_at_tc_by_routing_and_in_a_tunnel,
    a_gateway_says_that_tc_is_the_cure_for_a_driver_without_xdp,
    a_gateway_is_cleaned_up_of_what_ran_at_tc,
}

/// Priority of the filter, where the kernel has no links for tc.
const PRIORITY: &str = "1976";
/// Bytes of an upload.
const BLOB: u64 = 4 << 20;
/// More than any packet on the wire has.
const MERGED: u64 = 2000;

fn at_tc() -> Vec<&'static str> {
    OPTIONS.iter().map(|word| if *word == "generic" { "tc" } else { word }).collect()
}

/// Backends that open tunnels, and a Service that goes through them.
fn serve(gateways: &Gateways, forwarding: &str, backends: &[&str]) -> Result<()> {
    if forwarding == "tunnel" {
        for backend in gateways.backends.values() {
            backend.host.run("ip", &["link", "set", "tunl0", "up"])?;
            backend.host.set_sysctl("net/ipv4/conf/tunl0/rp_filter", "0")?;
        }
    }
    gateways.serve(forwarding, ",mh-port", backends)?;
    gateways.route(&[Gateway::First])
}

fn a_gateway_sends_flows_at_tc_and_ipvs_takes_over_and_gives_back() -> Result<()> {
    for forwarding in ["route", "tunnel"] {
        let gateways = Gateways::build(3)?;
        serve(&gateways, forwarding, &["b1", "b2", "b3"])?;
        let node = gateways.topology.node.clone();
        let mut agent = Agent::start(&gateways.topology, &gateways.manifests, &at_tc())?;
        wait_plane(&agent, "hash")?;
        let status = agent.status()?;
        ensure!(status["hash_plane"]["interfaces"][0]["mode"] == "tc", "{status:#}");
        let mut crowd = gateways.connect_many(50)?;
        ensure!(crowd.spread().len() == 3, "{forwarding}: {:?}", crowd.spread());
        keeps(&mut crowd, forwarding)?;
        let sent = carried(&agent)?;
        ensure!(sent.new >= 50 && sent.cached >= 150, "{forwarding}: {sent:?}\n{}", agent.log());
        let entries = ipvs::entries(&node)?;
        ensure!(entries.is_empty(), "IPVS saw flows as well: {entries:?}");
        // Somebody takes it off: IPVS has the flows until the agent has seen it.
        take_off(&agent, &node)?;
        keeps(&mut crowd, "the program was taken off")?;
        agent.wait_log(&["hash_plane_detached"])?;
        wait::until_true("tc carries again", wait::PATIENCE, || {
            let before = carried(&agent)?;
            keeps(&mut crowd, "the program came back")?;
            Ok(carried(&agent)?.cached >= before.cached + 100)
        })?;
        agent.kill()?;
        let before = carried(&agent)?;
        keeps(&mut crowd, "the agent was killed")?;
        ensure!(carried(&agent)?.cached >= before.cached + 100, "it went with the agent");
        take_off(&agent, &node)?;
        let before = carried(&agent)?;
        keeps(&mut crowd, "IPVS is alone")?;
        ensure!(carried(&agent)?.all == before.all, "the program was not taken off");
        ensure!(!ipvs::entries(&node)?.is_empty(), "nothing went by IPVS");
        agent.spawn()?;
        agent.wait_ready()?;
        let before = carried(&agent)?;
        keeps(&mut crowd, "the agent came back")?;
        ensure!(carried(&agent)?.all > before.all, "nothing is carried again: {}", agent.log());
        eprintln!("{forwarding}: {} connections through tc and IPVS, 0 lost", crowd.len());
    }
    Ok(())
}

fn a_gateway_carries_large_segments_at_tc_by_routing_and_in_a_tunnel() -> Result<()> {
    for forwarding in ["route", "tunnel"] {
        let gateways = Gateways::build(1)?;
        serve(&gateways, forwarding, &["b1"])?;
        let server = SocketAddr::from((VIP, HTTP));
        let _server = HttpServer::start(&gateways.backends["b1"].host, server, "b1")?;
        // The client lets its device cut, and each segment leaves room for an outer header.
        gateways.client.run("ethtool", &["-K", "eth0", "tx", "on", "tso", "on"])?;
        gateways.client.run("ip", &["link", "set", "eth0", "mtu", "1400"])?;
        let agent = Agent::start(&gateways.topology, &gateways.manifests, &at_tc())?;
        wait_plane(&agent, "hash")?;
        let mut connection = Connection::open(&gateways.client, server)?;
        let expected = Blob::of(BLOB).digest();
        ensure!(connection.upload(BLOB)? == expected, "{forwarding}: another blob came");
        let row = row_of(&agent, "cached")?;
        let (packets, bytes) = (row["packets"].as_u64(), row["bytes"].as_u64());
        let (packets, bytes) = (packets.context("packets")?, bytes.context("bytes")?);
        ensure!(bytes > BLOB, "{forwarding}: {bytes} bytes went by tc: {:#}", agent.json("stats")?);
        ensure!(bytes / packets > MERGED, "{forwarding}: {packets} packets of {bytes} bytes");
        ensure!(ipvs::entries(&gateways.topology.node)?.is_empty(), "{forwarding}: IPVS saw it");
        eprintln!("{forwarding}: {bytes} bytes in {packets} packets through tc");
    }
    Ok(())
}

/// A bridge forwards nothing that a driver would see.
fn a_gateway_says_that_tc_is_the_cure_for_a_driver_without_xdp() -> Result<()> {
    let gateways = Gateways::build(1)?;
    serve(&gateways, "route", &["b1"])?;
    let node = &gateways.topology.node;
    node.feed("ip", &["-batch", "-"], "link add name bare type dummy\nlink set bare up\n")?;
    let mut options = at_tc();
    for word in &mut options {
        *word = match *word {
            "tc" => "native",
            "eth0" => "bare",
            other => other,
        };
    }
    let agent = Agent::start(&gateways.topology, &gateways.manifests, &options)?;
    let why = wait::until("the status says why", wait::PATIENCE, || {
        let status = agent.status()?;
        let interface = &status["hash_plane"]["interfaces"][0];
        Ok(interface["reason"].as_str().filter(|_| interface["mode"] == "off").map(str::to_owned))
    })?;
    ensure!(why.contains("passlane.hashPlane.mode tc"), "{why}");
    gateways.connect()?;
    Ok(())
}

fn a_gateway_is_cleaned_up_of_what_ran_at_tc() -> Result<()> {
    let gateways = Gateways::build(2)?;
    serve(&gateways, "route", &["b1", "b2"])?;
    let node = &gateways.topology.node;
    let mut agent = Agent::start(&gateways.topology, &gateways.manifests, &at_tc())?;
    wait_plane(&agent, "hash")?;
    let mut crowd = gateways.connect_many(20)?;
    keeps(&mut crowd, "tc")?;
    ensure!(carried(&agent)?.cached > 0, "nothing went by tc");
    // Nothing stays at tc when XDP takes over, nor the other way round.
    for (options, mode) in [(OPTIONS.to_vec(), "generic"), (at_tc(), "tc")] {
        agent.terminate()?;
        agent.set_options(&options);
        agent.spawn()?;
        agent.wait_ready()?;
        keeps(&mut crowd, mode)?;
        let status = agent.status()?;
        ensure!(status["hash_plane"]["interfaces"][0]["mode"] == mode, "{status:#}");
        let link = node.run("ip", &["link", "show", "eth0"])?;
        ensure!(link.contains("xdpgeneric") == (mode == "generic"), "{mode}: {link}");
        let filters = node.run("tc", &["filter", "show", "dev", "eth0", "ingress"])?;
        ensure!(mode == "tc" || !filters.contains("tc_lb"), "{mode}: {filters}");
        let attached = attachments(&agent)?;
        ensure!(attached.len() == 1, "{mode}: {attached:?}");
    }
    agent.terminate()?;
    agent.text(&["cleanup"])?;
    let qdiscs = node.run("tc", &["qdisc", "show", "dev", "eth0"])?;
    ensure!(!qdiscs.contains("clsact"), "{qdiscs}");
    ensure!(!std::fs::exists(agent.pins())?, "pins are left");
    ensure!(!gateways.is_answered()?, "somebody still sends to backends");
    Ok(())
}

/// The pins of what is attached.
fn attachments(agent: &Agent) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(agent.pins().join("hash"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        found.extend((name.starts_with("link-") || name.starts_with("filter-")).then_some(name));
    }
    Ok(found)
}

/// Takes the program off: the pin of its link, or its filter.
fn take_off(agent: &Agent, gateway: &Namespace) -> Result<()> {
    let text = gateway.run("ip", &["-j", "link", "show", "eth0"])?;
    let index = serde_json::from_str::<Value>(&text)?[0]["ifindex"].as_u64();
    let pin = format!("link-{}", index.context("no ifindex")?);
    let pin = agent.pins().join("hash").join(pin);
    if std::fs::exists(&pin)? {
        return Ok(std::fs::remove_file(pin)?);
    }
    gateway.run("tc", &["filter", "del", "dev", "eth0", "ingress", "pref", PRIORITY]).map(drop)
}
