//! Interfaces come and go, and some belong to other BPF programs.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::flows;
use proxy_tests::http::Connection;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::wait;
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    pod_that_appears_gets_the_fast_path,
    pod_that_vanishes_disturbs_nobody,
    foreign_bpf_on_an_interface_turns_its_fast_path_off,
    foreign_bpf_that_comes_later_turns_the_fast_path_off,
}

fn pod_that_appears_gets_the_fast_path() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let pod = stage.topology.add_pod("web-d", 14)?;
    stage.workload.serve(&pod)?;
    wait_mode(&stage, &pod.interface(), "fast")?;
    stage.manifests.write("web.yaml", &ServiceObject::web(&[14]).yaml())?;
    wait::until_true("the new pod answers", wait::PATIENCE, || {
        Ok(stage.short_requests(WEB_FRONTEND, 3)?.iter().all(|name| *name == pod.name))
    })?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    ensure!(connection.get("/")? == pod.name);
    Ok(())
}

fn pod_that_vanishes_disturbs_nobody() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let backend = connection.get("/")?;
    let (gone, octets) = if backend == "web-c" { ("web-b", [11, 13]) } else { ("web-c", [11, 12]) };
    let gone_interface = stage.topology.pod(gone)?.interface();
    stage.workload.stop(gone);
    stage.topology.remove_pod(gone)?;
    wait::until_true("the interface is forgotten", wait::PATIENCE, || {
        Ok(interface(&stage.agent.status()?, &gone_interface).is_none())
    })?;
    stage.manifests.write("web.yaml", &ServiceObject::web(&octets).yaml())?;
    for _ in 0..50 {
        ensure!(connection.get("/")? == backend, "the backend changed");
    }
    wait::until_true("only live pods answer", wait::PATIENCE, || {
        let answers = stage.short_requests(WEB_FRONTEND, 4)?;
        Ok(answers.iter().all(|name| name != gone))
    })
}

fn foreign_bpf_on_an_interface_turns_its_fast_path_off() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    let interface = attach_foreign_bpf(&stage)?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    wait_mode(&stage, &interface, "off")?;
    wait_mode(&stage, "v-client-b", "fast")?;
    served_without_a_flow_from(&stage, &interface)
}

fn foreign_bpf_that_comes_later_turns_the_fast_path_off() -> Result<()> {
    let stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let interface = attach_foreign_bpf(&stage)?;
    wait_mode(&stage, &interface, "off")?;
    for _ in 0..50 {
        connection.get("/")?;
    }
    drop(connection);
    served_without_a_flow_from(&stage, &interface)
}

/// Puts a classic BPF classifier that passes everything on the client's interface.
fn attach_foreign_bpf(stage: &Stage) -> Result<String> {
    let interface = stage.topology.pod("client")?.interface();
    let node = &stage.topology.node;
    // The agent may have made the qdisc already.
    let _exists = node.output("tc", &["qdisc", "add", "dev", &interface, "clsact"])?;
    let filter = ["filter", "add", "dev", &interface, "ingress", "bpf", "da"];
    let program = ["bytecode", "1,6 0 0 0,"];
    node.run("tc", &[&filter[..], &program[..]].concat())?;
    Ok(interface)
}

fn served_without_a_flow_from(stage: &Stage, interface: &str) -> Result<()> {
    let mut connection = Connection::open(&stage.client()?, WEB_FRONTEND)?;
    for _ in 0..50 {
        connection.get("/")?;
    }
    let local: SocketAddr = connection.local()?;
    let flows = flows::flows(&stage.agent)?;
    let fast = flows
        .iter()
        .find(|flow| flow.interface == interface && flow.source == local && flow.packets > 0);
    ensure!(fast.is_none(), "{fast:?}");
    Ok(())
}

/// Waits until the status has the interface in this mode, and checks that `off` has a reason.
pub(crate) fn wait_mode(stage: &Stage, name: &str, mode: &str) -> Result<()> {
    let mut last = Value::Null;
    wait::until_true(&format!("{name} is {mode}"), wait::PATIENCE, || {
        last = stage.agent.status()?["interfaces"].clone();
        let status = serde_json::json!({ "interfaces": last });
        Ok(interface(&status, name).is_some_and(|interface| interface["mode"] == mode))
    })
    .with_context(|| format!("{last:#}\n{}", stage.agent.log()))?;
    let status = serde_json::json!({ "interfaces": last });
    let reason = interface(&status, name).map(|interface| interface["reason"].clone());
    let said = reason.is_some_and(|reason| reason.as_str().is_some_and(|text| !text.is_empty()));
    ensure!(mode == "fast" || said, "{name} is {mode} without a reason");
    Ok(())
}

/// Waits until the fast path is off on the interface for a reason with these words.
pub(crate) fn wait_reason(stage: &Stage, name: &str, words: &str) -> Result<()> {
    let mut last = None;
    wait::until_true(&format!("{name} is off: {words}"), wait::PATIENCE, || {
        last = interface(&stage.agent.status()?, name);
        let found = last.as_ref().filter(|found| found["mode"] == "off");
        Ok(found.and_then(|found| found["reason"].as_str()).is_some_and(|it| it.contains(words)))
    })
    .with_context(|| format!("{last:?}"))
}

/// The interface of this name in a status.
pub(crate) fn interface(status: &Value, name: &str) -> Option<Value> {
    let interfaces = status["interfaces"].as_array()?;
    interfaces.iter().find(|interface| interface["name"] == name).cloned()
}
