//! Off, observe, auto and force: for the node, for an interface, for a Service.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::dns::Resolver;
use proxy_tests::http::Connection;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{DNS, DNS_FRONTEND, WEB, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{flows, foreign, slow_path, wait};
use serde_json::Value;

use crate::interfaces::wait_mode;
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    observed_interface_and_observed_service_are_counted_and_stay_slow,
    forced_service_is_fast_beside_foreign_programs_and_others_are_not,
    forced_interface_is_fast_beside_foreign_programs_and_says_so,
}

/// Writes an example with a mode in its annotations.
fn annotate(stage: &Stage, file: &str, yaml: &str, mode: &str) -> Result<()> {
    let annotation = format!("  annotations: {{passlane.io/fast-path: {mode}}}\n");
    let (head, tail) = yaml.split_once("metadata:\n").context("the example has metadata")?;
    stage.manifests.write(file, &format!("{head}metadata:\n{annotation}{tail}"))
}

fn namespace(stage: &Stage, pod: &str) -> Result<Namespace> {
    Ok(stage.topology.pod(pod)?.namespace.clone())
}

/// Sends requests and checks that netfilter saw each of them.
fn stays_slow(stage: &Stage, name: &str, connection: &mut Connection) -> Result<()> {
    const REQUESTS: u64 = 60;
    let node = &stage.topology.node;
    let local = connection.local()?;
    let flow = format!("ip saddr {} tcp sport {}", local.ip(), local.port());
    slow_path::watch(node, name, &flow)?;
    for _ in 0..REQUESTS {
        connection.get("/")?;
    }
    let seen = slow_path::seen(node, name)?.packets;
    ensure!(seen >= REQUESTS, "netfilter saw {seen} packets of {REQUESTS} requests");
    Ok(())
}

/// Returns how many packets of a Service from an interface would have been fast.
fn observed(status: &Value, service: &str, interface: &str) -> u64 {
    let rows = status["observed"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = rows.iter().filter(|row| {
        row["service"].as_str().is_some_and(|name| name.starts_with(service))
            && row["interface"] == interface
    });
    ours.filter_map(|row| row["packets"].as_u64()).sum()
}

fn observed_interface_and_observed_service_are_counted_and_stay_slow() -> Result<()> {
    let stage = Stage::start(&["--interface-modes", "v-client-b=observe"])?;
    wait_mode(&stage, "v-client-b", "observe")?;
    stage.fast_connection(WEB_FRONTEND).context("the rest is fast")?;
    let mut connection = Connection::open(&namespace(&stage, "client-b")?, WEB_FRONTEND)?;
    stays_slow(&stage, "interface", &mut connection)?;
    let status = stage.agent.status()?;
    let counted = observed(&status, "default/web", "v-client-b");
    ensure!(counted >= 40, "{counted} packets would have been fast: {:#}", status["observed"]);

    annotate(&stage, "dns.yaml", DNS, "observe")?;
    let mut resolver = Resolver::open(&stage.client()?, DNS_FRONTEND)?;
    let asked = wait::until("questions are counted", wait::PATIENCE, || {
        resolver.ask()?;
        let counted = observed(&stage.agent.status()?, "kube-system/dns", "v-client");
        Ok((counted > 10).then_some(counted))
    })?;
    let flow = flows::flow(&stage.agent, resolver.local()?, DNS_FRONTEND)?;
    ensure!(flow.as_ref().is_some_and(|flow| flow.packets == 0), "{asked} asked: {flow:?}");
    let web = observed(&stage.agent.status()?, "default/web", "v-client");
    ensure!(web == 0, "{web} packets of a Service that nobody observes were counted");

    annotate(&stage, "dns.yaml", DNS, "auto")?;
    let local = resolver.local()?;
    wait::until_true("questions are fast", wait::PATIENCE, || {
        resolver.ask()?;
        let flow = flows::flow(&stage.agent, local, DNS_FRONTEND)?;
        Ok(flow.is_some_and(|flow| flow.packets > 0))
    })?;
    carried(&stage, local, DNS_FRONTEND, || resolver.ask().map(drop))
}

/// Checks that most of 60 exchanges are carried by the fast path.
fn carried(
    stage: &Stage,
    local: SocketAddr,
    frontend: SocketAddr,
    mut exchange: impl FnMut() -> Result<()>,
) -> Result<()> {
    for _ in 0..60 {
        exchange()?;
    }
    let flow = flows::flow(&stage.agent, local, frontend)?;
    ensure!(flow.as_ref().is_some_and(|flow| flow.packets >= 40), "not fast: {flow:?}");
    Ok(())
}

fn forced_service_is_fast_beside_foreign_programs_and_others_are_not() -> Result<()> {
    let stage = Stage::start(&[])?;
    let _foreign = foreign::classifier(&stage.topology.node, "v-client")?;
    wait_mode(&stage, "v-client", "off")?;
    annotate(&stage, "web.yaml", WEB, "force")?;
    wait_mode(&stage, "v-client", "forced")?;
    stage.agent.wait_log(&["interface_forced", "v-client", "foreign"])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    carried(&stage, connection.local()?, WEB_FRONTEND, || connection.get("/").map(drop))?;
    let mut resolver = Resolver::open(&stage.client()?, DNS_FRONTEND)?;
    for _ in 0..60 {
        resolver.ask()?;
    }
    let flow = flows::flow(&stage.agent, resolver.local()?, DNS_FRONTEND)?;
    ensure!(flow.is_none(), "learned although nobody forced it: {flow:?}");
    annotate(&stage, "web.yaml", WEB, "auto")?;
    wait_mode(&stage, "v-client", "off")?;
    stays_slow(&stage, "after", &mut connection)
}

fn forced_interface_is_fast_beside_foreign_programs_and_says_so() -> Result<()> {
    let mut stage = Stage::without_agent(&["--interface-modes", "v-client=force"])?;
    let _foreign = foreign::classifier(&stage.topology.node, "v-client")?;
    stage = stage.started()?;
    wait_mode(&stage, "v-client", "forced")?;
    let text = stage.agent.text(&["status"])?;
    ensure!(text.contains("FORCED") && text.contains("in spite of: foreign"), "{text}");
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    carried(&stage, connection.local()?, WEB_FRONTEND, || connection.get("/").map(drop))
}
