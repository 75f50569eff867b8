//! The flow table is a cache: too small or foreign, it costs speed and never a connection.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::http::Connection;
use proxy_tests::objects::WEB_FRONTEND;
use proxy_tests::process;
use proxy_tests::stage::Stage;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    full_flow_map_keeps_serving,
    pinned_map_of_another_layout_is_refused_or_replaced_with_a_clear_message,
    map_dump_has_named_fields,
}

fn full_flow_map_keeps_serving() -> Result<()> {
    const CONNECTIONS: usize = 120;
    let stage = Stage::start(&["--flow-entries", "64"])?;
    let client = stage.client()?;
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        let mut connection = Connection::open(&client, WEB_FRONTEND)?;
        let backend = connection.get("/").with_context(|| format!("connection {number}"))?;
        open.push((connection, backend));
    }
    for round in 0..8 {
        for (number, (connection, backend)) in open.iter_mut().enumerate() {
            let place = || format!("connection {number}, round {round}");
            ensure!(connection.get("/").with_context(place)? == *backend, "{} moved", place());
        }
    }
    Ok(())
}

fn pinned_map_of_another_layout_is_refused_or_replaced_with_a_clear_message() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    let pin = stage.agent.pins().join("flows4");
    std::fs::create_dir_all(stage.agent.pins())?;
    let name = pin.to_string_lossy().into_owned();
    process::run(
        "bpftool",
        &[
            "map", "create", &name, "type", "hash", "key", "4", "value", "8", "entries", "16",
            "name", "flows4",
        ],
    )?;
    stage.agent.spawn()?;
    let replaced = stage.agent.wait_ready();
    let log = stage.agent.log();
    let line = log.lines().find(|line| line.contains("flows4"));
    ensure!(line.is_some(), "nothing was said about the pinned map:\n{log}");
    if replaced.is_ok() {
        stage.fast_connection(WEB_FRONTEND)?;
    } else {
        let status = stage.agent.wait_ended()?;
        ensure!(status.code() == Some(3), "it ended with {status}:\n{log}");
    }
    Ok(())
}

fn map_dump_has_named_fields() -> Result<()> {
    let stage = Stage::start(&[])?;
    let _connection = stage.fast_connection(WEB_FRONTEND)?;
    for (map, fields) in [("flows4", ["state", "packets"]), ("frontends4", ["address", "port"])] {
        let pin = stage.agent.pins().join(map);
        let dump = process::run("bpftool", &["map", "dump", "pinned", &pin.to_string_lossy()])?;
        for field in fields {
            ensure!(dump.contains(&format!("\"{field}\":")), "{map} has no {field}: {dump}");
        }
    }
    Ok(())
}
