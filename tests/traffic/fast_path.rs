//! Established flows leave netfilter and IPVS behind, and IPVS still knows them.
//!
//! Each claim is checked twice: by the agent's own counters, and by an nft counter that sees only
//! what the slow path carries.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::Connection;
use proxy_tests::ipvs;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{
    DNS_FRONTEND, DNS6_FRONTEND, OVER_IPV6, WEB_FRONTEND, WEB_NODE_PORT, WEB6_FRONTEND,
};
use proxy_tests::slow_path;
use proxy_tests::stage::Stage;
use proxy_tests::topology::NODE;
use proxy_tests::transfer::{Blob, SIXTY_FOUR_MIB};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    established_tcp_flow_moves_to_the_fast_path,
    established_tcp_flow_over_ipv6_moves_to_the_fast_path,
    udp_flow_moves_to_the_fast_path,
    udp_flow_over_ipv6_moves_to_the_fast_path,
    long_transfer_is_fast_and_arrives_unchanged,
    long_transfer_over_ipv6_is_fast_and_arrives_unchanged,
    checksums_that_a_device_has_to_fill_in_are_right,
    fast_path_off_serves_everything_on_the_slow_path,
}

fn established_tcp_flow_moves_to_the_fast_path() -> Result<()> {
    tcp_flow(&Stage::start(&[])?, WEB_FRONTEND)
}

fn established_tcp_flow_over_ipv6_moves_to_the_fast_path() -> Result<()> {
    tcp_flow(&over_ipv6()?, WEB6_FRONTEND)
}

/// The examples, and the same over IPv6, served.
fn over_ipv6() -> Result<Stage> {
    let stage = Stage::without_agent(&[])?;
    stage.manifests.write("over-ipv6.yaml", OVER_IPV6)?;
    stage.started()
}

fn tcp_flow(stage: &Stage, frontend: SocketAddr) -> Result<()> {
    let mut connection = stage.fast_connection(frontend)?;
    let local = connection.local()?;
    let backend = connection.get("/")?;
    let slow_part = slow_part_of(stage, local, || {
        for _ in 0..300 {
            ensure!(connection.get("/")? == backend, "the backend changed");
        }
        Ok(())
    })?;
    ensure!(slow_part <= 0.1, "{slow_part:.2} of the packets took the slow path");

    let flow = flows::flow(&stage.agent, local, frontend)?;
    ensure!(flow.as_ref().is_some_and(|flow| flow.packets >= 250), "{flow:?}");
    let entry = ipvs::entry(&stage.topology.node, local, frontend)?;
    let known = entry.as_ref().zip(flow).is_some_and(|(entry, flow)| {
        entry.state == "ESTABLISHED" && entry.destination == flow.new_destination
    });
    ensure!(known, "IPVS lost the connection or has another backend: {entry:?}");
    Ok(())
}

fn udp_flow_moves_to_the_fast_path() -> Result<()> {
    udp_flow(&Stage::start(&[])?, DNS_FRONTEND)
}

fn udp_flow_over_ipv6_moves_to_the_fast_path() -> Result<()> {
    udp_flow(&over_ipv6()?, DNS6_FRONTEND)
}

fn udp_flow(stage: &Stage, frontend: SocketAddr) -> Result<()> {
    let mut resolver = stage.fast_resolver(frontend)?;
    let (local, backend) = (resolver.local()?, resolver.ask()?);
    let slow_part = slow_part_of(stage, local, || {
        for _ in 0..300 {
            ensure!(resolver.ask()? == backend, "the backend changed");
        }
        Ok(())
    })?;
    ensure!(slow_part <= 0.1, "{slow_part:.2} of the packets took the slow path");
    ensure!(ipvs::entry(&stage.topology.node, local, frontend)?.is_some(), "IPVS lost it");
    Ok(())
}

fn long_transfer_is_fast_and_arrives_unchanged() -> Result<()> {
    long_transfer(&Stage::start(&[])?, WEB_FRONTEND)
}

fn long_transfer_over_ipv6_is_fast_and_arrives_unchanged() -> Result<()> {
    long_transfer(&over_ipv6()?, WEB6_FRONTEND)
}

fn long_transfer(stage: &Stage, frontend: SocketAddr) -> Result<()> {
    let mut connection = stage.fast_connection(frontend)?;
    let before = Counters::read(&stage.agent)?;
    let local = connection.local()?;
    let slow_part = slow_part_of(stage, local, || {
        let digest = connection.download(SIXTY_FOUR_MIB, |_| ())?;
        ensure!(digest == Blob::of(SIXTY_FOUR_MIB).digest(), "download changed on the way");
        let digest = connection.upload(SIXTY_FOUR_MIB / 4)?;
        ensure!(digest == Blob::of(SIXTY_FOUR_MIB / 4).digest(), "upload changed on the way");
        Ok(())
    })?;
    let counters = Counters::read(&stage.agent)?.since(&before);
    ensure!(slow_part <= 0.1, "{slow_part:.2} of the packets took the slow path");
    ensure!(counters.share() >= 0.9, "{:.2} of the packets: {counters:?}", counters.share());
    Ok(())
}

/// A pod leaves its checksums to the device. Here that is the node's uplink, which leaves them to the
/// kernel, and so the outside host gets all of them and verifies each.
fn checksums_that_a_device_has_to_fill_in_are_right() -> Result<()> {
    const SIZE: u64 = SIXTY_FOUR_MIB / 16;
    let stage = Stage::without_agent(&[])?;
    let node = &stage.topology.node;
    node.run("ethtool", &["-K", "eth0", "tx", "off"])?;
    // Without a queue packets would skip this device, and go to its peer as they are.
    node.run("tc", &["qdisc", "add", "dev", "eth0", "root", "pfifo"])?;
    let stage = stage.started()?;
    let outside = &stage.topology.outside;
    let to = SocketAddr::from((NODE, WEB_NODE_PORT));
    let mut connection = Connection::open(outside, to)?;
    let all_are_right = || {
        let wrong = tcp_counter(outside, "InCsumErrors")?;
        ensure!(wrong == 0, "{wrong} segments had a wrong checksum");
        Ok(())
    };
    let local = connection.local()?;
    flows::drive(&stage.agent, local, to, || connection.get("/").map(drop))?;
    for _ in 0..20 {
        connection.get("/")?;
        all_are_right()?;
    }
    let before = Counters::read(&stage.agent)?;
    let digest = connection.download(SIZE, |_| ())?;
    ensure!(digest == Blob::of(SIZE).digest(), "download changed on the way");
    let counters = Counters::read(&stage.agent)?.since(&before);
    ensure!(counters.share() >= 0.9, "{:.2} of the packets: {counters:?}", counters.share());
    all_are_right()?;
    let segments = tcp_counter(outside, "InSegs")?;
    ensure!(segments >= SIZE / 1500, "no checksum was filled in: {segments} segments came");
    Ok(())
}

/// A counter of a namespace's TCP.
fn tcp_counter(namespace: &Namespace, counter: &str) -> Result<u64> {
    let text = namespace.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let names = rows.next().context("no names of TCP's counters")?.split(' ');
    let mut counters = names.zip(rows.next().context("no counters of TCP")?.split(' '));
    let found = counters.find(|(name, _)| *name == counter).context(counter.to_owned())?;
    Ok(found.1.parse()?)
}

fn fast_path_off_serves_everything_on_the_slow_path() -> Result<()> {
    let stage = Stage::start(&["--fast-path", "off"])?;
    let mut connection = Connection::open(&stage.client()?, WEB_FRONTEND)?;
    let local = connection.local()?;
    let slow_part = slow_part_of(&stage, local, || {
        for _ in 0..50 {
            connection.get("/")?;
        }
        Ok(())
    })?;
    // The rest is ARP.
    ensure!(slow_part >= 0.9, "only {slow_part:.2} of the packets took the slow path");
    Ok(())
}

/// Runs `traffic` from the client pod's port `local` and returns the part of its packets that
/// netfilter in the node saw.
fn slow_part_of(
    stage: &Stage,
    local: SocketAddr,
    traffic: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let node = &stage.topology.node;
    let client = stage.topology.pod("client")?;
    let ip = if local.is_ipv4() { "ip" } else { "ip6" };
    let flow = format!("{ip} saddr {} th sport {}", local.ip(), local.port());
    slow_path::watch(node, "watched", &flow)?;
    let sent_before = slow_path::sent_by(&client.namespace, "eth0")?;
    traffic()?;
    let sent = slow_path::sent_by(&client.namespace, "eth0")? - sent_before;
    Ok(slow_path::seen(node, "watched")?.packets as f64 / sent as f64)
}
