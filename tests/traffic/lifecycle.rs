//! The agent stops, dies and comes back; forwarding goes on.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::http::Connection;
use proxy_tests::objects::{Manifests, ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{flows, ipvs, process, slow_path, spread, wait};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    agent_kill_9_leaves_traffic_flowing,
    stopped_agent_leaves_forwarding_in_place,
    agent_restart_adopts_pins_and_keeps_flows_fast,
    agent_killed_during_reconcile_and_restarted_converges,
}

fn agent_kill_9_leaves_traffic_flowing() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let connection = stage.fast_connection(WEB_FRONTEND)?;
    stage.agent.kill()?;
    still_served_and_fast(&stage, connection)
}

fn stopped_agent_leaves_forwarding_in_place() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let connection = stage.fast_connection(WEB_FRONTEND)?;
    let status = stage.agent.terminate()?;
    ensure!(status.success(), "SIGTERM ended the agent with {status}");
    still_served_and_fast(&stage, connection)
}

/// New connections are spread, and the old one stays on the fast path, for longer than a lease.
fn still_served_and_fast(stage: &Stage, mut connection: Connection) -> Result<()> {
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 9)?);
    ensure!(spread::is_even(&spread, &["web-a", "web-b", "web-c"], 3), "{spread:?}");
    let local = connection.local()?;
    watch(stage, local)?;
    let rounds = asked_for(Duration::from_secs(7), &mut connection)?;
    let slow = slow_path::seen(&stage.topology.node, "watched")?.packets;
    ensure!(slow * 5 < rounds, "{slow} packets of {rounds} rounds went slow");
    Ok(())
}

fn agent_restart_adopts_pins_and_keeps_flows_fast() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let local = connection.local()?;
    let before = map_id(&stage.agent.pins().join("flows4"))?;
    watch(&stage, local)?;
    stage.agent.kill()?;
    stage.agent.spawn()?;
    let mut rounds = asked_for(Duration::from_secs(1), &mut connection)?;
    stage.agent.wait_ready()?;
    rounds += asked_for(Duration::from_secs(1), &mut connection)?;
    let after = map_id(&stage.agent.pins().join("flows4"))?;
    ensure!(before == after, "the flow table was replaced: map {before} is now {after}");
    let slow = slow_path::seen(&stage.topology.node, "watched")?.packets;
    ensure!(slow * 5 < rounds, "{slow} packets of {rounds} rounds went slow");
    let flow = flows::flow(&stage.agent, local, WEB_FRONTEND)?;
    ensure!(flow.as_ref().is_some_and(flows::Flow::is_active), "{flow:?}");
    Ok(())
}

fn watch(stage: &Stage, local: SocketAddr) -> Result<()> {
    let flow = format!("ip saddr {} th sport {}", local.ip(), local.port());
    slow_path::watch(&stage.topology.node, "watched", &flow)
}

fn asked_for(duration: Duration, connection: &mut Connection) -> Result<u64> {
    wait::paced(duration, Duration::from_millis(10), || connection.get("/").map(drop))
}

fn map_id(pin: &Path) -> Result<u64> {
    let text = process::run("bpftool", &["-j", "map", "show", "pinned", &pin.to_string_lossy()])?;
    let json: Value = serde_json::from_str(&text).context("bpftool -j")?;
    json["id"].as_u64().with_context(|| text)
}

/// Kills the agent after ever longer parts of a reconcile that moves between two sets of Services.
fn agent_killed_during_reconcile_and_restarted_converges() -> Result<()> {
    const SERVICES: u8 = 40;
    const STEP: Duration = Duration::from_millis(40);
    const KILLS: u32 = 16;
    let mut stage = Stage::without_agent(&[])?;
    for kill in 1..=KILLS {
        write_services(&stage.manifests, SERVICES, if kill % 2 == 0 { 11 } else { 12 })?;
        stage.agent.spawn()?;
        // The delay is the fault that is injected, not a wait for a state.
        std::thread::sleep(STEP * kill);
        stage.agent.kill()?;
    }
    let last = write_services(&stage.manifests, SERVICES / 2, 13)?;
    for gone in SERVICES / 2..SERVICES {
        stage.manifests.remove(&file_of(gone))?;
    }
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    for service in &last {
        let expected = vec![(SocketAddr::from((service.endpoints[0], service.target_port)), 1)];
        let found = ipvs::destinations(&stage.topology.node, service.frontend)?;
        ensure!(found.as_ref() == Some(&expected), "{}: {found:?}", service.name);
    }
    let gone = frontend_of(SERVICES - 1);
    let found = ipvs::destinations(&stage.topology.node, gone)?;
    ensure!(found.is_none(), "{gone} is left: {found:?}");
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 9)?);
    ensure!(spread::is_even(&spread, &["web-a", "web-b", "web-c"], 3), "{spread:?}");
    Ok(())
}

fn write_services(manifests: &Manifests, count: u8, endpoint: u8) -> Result<Vec<ServiceObject>> {
    (0..count)
        .map(|number| {
            let service = ServiceObject {
                name: format!("many-{number}"),
                frontend: frontend_of(number),
                node_port: None,
                target_port: 8080,
                endpoints: vec![Ipv4Addr::new(10, 1, 1, endpoint)],
            };
            manifests.write(&file_of(number), &service.yaml())?;
            Ok(service)
        })
        .collect()
}

fn frontend_of(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 1, number], 80))
}

fn file_of(number: u8) -> String {
    format!("many-{number}.yaml")
}
