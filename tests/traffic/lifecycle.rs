//! The agent stops, dies and comes back; forwarding goes on.

use std::fs;
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
    agent_ends_what_another_version_left_and_connections_go_on,
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

/// The next version has other maps, so that nothing can be taken over: old programs would go on by
/// what they know, which nobody would change any more.
fn agent_ends_what_another_version_left_and_connections_go_on() -> Result<()> {
    const CONNECTIONS: usize = 200;
    let mut stage = Stage::start(&[])?;
    let client = stage.client()?;
    let fast = stage.fast_connection(WEB_FRONTEND)?;
    let open = |_| Connection::open(&client, WEB_FRONTEND);
    let mut connections: Vec<_> = (1..CONNECTIONS).map(open).collect::<Result<_>>()?;
    connections.push(fast);
    let mut all_answer = |when: &str| -> Result<()> {
        let mut answers = connections.iter_mut().map(|connection| connection.get("/"));
        answers.try_for_each(|answer| answer.map(drop)).with_context(|| when.to_owned())
    };
    all_answer("before")?;

    stage.agent.kill()?;
    let (pins, old) = (stage.agent.pins(), stage.agent.pins().with_file_name("v1"));
    let left = map_id(&pins.join("flows4"))?;
    fs::rename(&pins, &old).context("make it another version's")?;
    all_answer("with the old programs alone")?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    ensure!(!old.exists(), "{} stays", old.display());
    all_answer("with the new version")?;
    ensure!(map_id(&pins.join("flows4"))? != left, "the flow table was taken over");
    stage.fast_connection(WEB_FRONTEND)?;
    wait::until_true("the old programs end", wait::PATIENCE, || {
        let args = ["-j", "map", "show", "id", &left.to_string()];
        Ok(process::run("bpftool", &args).is_err())
    })?;

    stage.agent.terminate()?;
    stage.agent.set_options(&["--fast-path", "off"]);
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    ensure!(!pins.join("flows4").exists(), "the flow table stays");
    slow_path::watch(&stage.topology.node, "rest", &format!("ip daddr {}", WEB_FRONTEND.ip()))?;
    all_answer("without a fast path")?;
    let slow = slow_path::seen(&stage.topology.node, "rest")?.packets;
    ensure!(slow >= CONNECTIONS as u64, "{slow} packets of {CONNECTIONS} requests went slow");
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

pub(crate) fn write_services(
    manifests: &Manifests,
    count: u8,
    endpoint: u8,
) -> Result<Vec<ServiceObject>> {
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

pub(crate) fn frontend_of(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 1, number], 80))
}

fn file_of(number: u8) -> String {
    format!("many-{number}.yaml")
}
