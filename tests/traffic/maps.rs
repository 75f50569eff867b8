//! The flow table is a cache: too small or foreign, it costs speed and never a connection.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::dns::Resolver;
use proxy_tests::flows;
use proxy_tests::objects::{DNS_FRONTEND, WEB_FRONTEND};
use proxy_tests::process;
use proxy_tests::spread;
use proxy_tests::stage::Stage;

use crate::preconditions::fast_path_is_off;
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    full_flow_map_keeps_serving,
    pinned_map_of_another_layout_costs_only_the_fast_path_and_is_named,
    map_dump_has_named_fields,
}

fn full_flow_map_keeps_serving() -> Result<()> {
    // Two entries a flow: more than the smallest table that the agent accepts.
    const FLOWS: usize = 700;
    let stage = Stage::start(&["--flow-entries", "1024"])?;
    let client = stage.client()?;
    let mut open = Vec::new();
    for number in 0..FLOWS {
        let mut resolver = Resolver::open(&client, DNS_FRONTEND)?;
        let backend = resolver.ask().with_context(|| format!("flow {number}"))?;
        open.push((resolver, backend));
    }
    for round in 0..8 {
        for (number, (resolver, backend)) in open.iter_mut().enumerate() {
            let place = || format!("flow {number}, round {round}");
            ensure!(resolver.ask().with_context(place)? == *backend, "{} moved", place());
        }
    }
    let flows = flows::flows(&stage.agent)?.len();
    ensure!((512..=1024).contains(&flows), "{flows} entries: the table was not full");
    Ok(())
}

fn pinned_map_of_another_layout_costs_only_the_fast_path_and_is_named() -> Result<()> {
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
    stage.agent.wait_ready()?;
    fast_path_is_off(&stage, &["flows4"])?;
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 6)?);
    ensure!(spread::is_even(&spread, &["web-a", "web-b", "web-c"], 2), "{spread:?}");
    let kept = process::run("bpftool", &["map", "show", "pinned", &name])?;
    ensure!(kept.contains("max_entries 16"), "the foreign map was replaced: {kept}");
    Ok(())
}

fn map_dump_has_named_fields() -> Result<()> {
    let stage = Stage::start(&[])?;
    let _connection = stage.fast_connection(WEB_FRONTEND)?;
    for (map, fields) in [("flows4", ["state", "packets"]), ("frontends4", ["addr", "port"])] {
        let pin = stage.agent.pins().join(map);
        let dump = process::run("bpftool", &["map", "dump", "pinned", &pin.to_string_lossy()])?;
        for field in fields {
            ensure!(dump.contains(&format!("\"{field}\":")), "{map} has no {field}: {dump}");
        }
    }
    Ok(())
}
