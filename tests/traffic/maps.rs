//! The flow table is a cache: too small or foreign, it costs speed and never a connection.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::dns::Resolver;
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::Connection;
use proxy_tests::objects::{DNS_FRONTEND, WEB_FRONTEND};
use proxy_tests::process;
use proxy_tests::stage::Stage;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    full_flow_map_keeps_serving,
    client_that_opens_flow_after_flow_leaves_the_fast_path_to_others,
    pinned_map_of_others_is_left_alone_and_the_slow_path_serves,
    another_size_of_the_flow_map_is_taken_up_by_a_restart,
    map_dump_has_named_fields,
}

fn full_flow_map_keeps_serving() -> Result<()> {
    // Two entries a flow: more than the smallest table that the agent accepts.
    const FLOWS: usize = 700;
    let stage = Stage::start(&["--flow-entries", "1024", "--install-rate", "100000"])?;
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

fn client_that_opens_flow_after_flow_leaves_the_fast_path_to_others() -> Result<()> {
    const FLOWS: usize = 150;
    let stage = Stage::start(&["--install-rate", "8"])?;
    let greedy = stage.client()?;
    let before = Counters::read(&stage.agent)?;
    let mut open = Vec::new();
    for number in 0..FLOWS {
        let mut resolver = Resolver::open(&greedy, DNS_FRONTEND)?;
        for _ in 0..4 {
            resolver.ask().with_context(|| format!("flow {number}"))?;
        }
        open.push(resolver);
        if number == FLOWS / 2 {
            modest_client_is_fast(&stage)?;
        }
    }
    let counters = Counters::read(&stage.agent)?.since(&before);
    ensure!(counters.of("limited") > 0, "nothing was limited: {counters:?}");
    let flows = flows::flows(&stage.agent)?.len();
    ensure!(flows < 2 * FLOWS, "{flows} entries of {FLOWS} flows: each has its two");
    for resolver in &mut open {
        resolver.ask()?;
    }
    Ok(())
}

/// Another pod than the greedy one.
fn modest_client_is_fast(stage: &Stage) -> Result<()> {
    let modest = &stage.topology.pod("client-b")?.namespace;
    let mut connection = Connection::open(modest, WEB_FRONTEND)?;
    let local = connection.local()?;
    stage.drive_to_fast_path(local, WEB_FRONTEND, || connection.get("/").map(drop)).map(drop)
}

/// A map that passlane did not pin is not its to remove: the slow path serves, and says why.
fn pinned_map_of_others_is_left_alone_and_the_slow_path_serves() -> Result<()> {
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
    let status = stage.agent.status()?;
    let (mode, reason) = (&status["fast_path"]["mode"], status["fast_path"]["reason"].to_string());
    ensure!(mode == "off", "fast path {mode} with a map of another layout");
    for part in ["flows4", "16 entries", &name] {
        ensure!(reason.contains(part), "{part} is not in: {reason}");
    }
    let spread = stage.short_requests(WEB_FRONTEND, 3)?;
    ensure!(spread.len() == 3, "{spread:?}");
    ensure!(pin.exists(), "the map of somebody else was removed");
    std::fs::remove_file(pin)?;
    Ok(())
}

/// Flow entries are a cache: with another size wanted, our own maps are made anew, and flows come
/// back to the fast path.
fn another_size_of_the_flow_map_is_taken_up_by_a_restart() -> Result<()> {
    let mut stage = Stage::start(&["--flow-entries", "4096"])?;
    let _before = stage.fast_connection(WEB_FRONTEND)?;
    stage.agent.terminate()?;
    stage.agent.set_options(&["--flow-entries", "8192"]);
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    let _after = stage.fast_connection(WEB_FRONTEND)?;
    let pin = stage.agent.pins().join("flows4");
    let shown = process::run("bpftool", &["map", "show", "pinned", &pin.to_string_lossy()])?;
    ensure!(shown.contains("max_entries 8192"), "{shown}");
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
