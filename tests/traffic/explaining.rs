//! What `passlane trace` says is what the kernel does.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::http::Connection;
use proxy_tests::objects::{DNS_FRONTEND, ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{ipvs, wait};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    trace_follows_a_connection_both_ways_and_a_dump_says_the_same,
    trace_foretells_whom_a_hash_chooses,
    trace_foretells_whom_a_maglev_table_chooses,
    flows_are_picked_by_service_backend_and_client,
}

fn trace(stage: &Stage, source: SocketAddr, to: SocketAddr, more: &[&str]) -> Result<Value> {
    let (source, to) = (source.to_string(), to.to_string());
    let words = [&["trace", "tcp", &source, &to, "-o", "json"], more].concat();
    let text = stage.agent.text(&words)?;
    serde_json::from_str(&text).with_context(|| text)
}

fn expect(trace: &Value, wanted: &[(&str, &str)]) -> Result<()> {
    for (key, value) in wanted {
        ensure!(trace[*key] == *value, "{key} is {}, not {value}: {trace:#}", trace[*key]);
    }
    Ok(())
}

fn trace_follows_a_connection_both_ways_and_a_dump_says_the_same() -> Result<()> {
    let stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let local = connection.local()?;
    let entry = ipvs::entry(&stage.topology.node, local, WEB_FRONTEND)?;
    let backend = entry.context("IPVS has the connection")?.destination;
    let backend_text = backend.to_string();
    let fast = [
        ("verdict", "forwarded"),
        ("service", "default/web:http"),
        ("frontend", "10.96.0.10:80/TCP"),
        ("chosen_by", "connection"),
        ("backend", backend_text.as_str()),
        ("plane", "fast"),
        ("reason", "hit"),
    ];
    let interface = ["--interface", "v-client"];
    // A lease is short and an emulated guest slow: what was fast a moment ago need not be now.
    let request = wait::until("the trace finds the request fast", wait::PATIENCE, || {
        connection.get("/")?;
        let trace = trace(&stage, local, WEB_FRONTEND, &interface)?;
        expect(&trace, &fast).map(|()| Some(trace))
    })?;
    ensure!(request["masqueraded"] == false, "{request:#}");
    let lease = &request["directions"][0]["standing"]["left_ms"];
    ensure!(lease.as_u64().is_some_and(|left| (1..=5000).contains(&left)), "{request:#}");
    wait::until("the trace finds the reply fast", wait::PATIENCE, || {
        connection.get("/")?;
        expect(&trace(&stage, backend, local, &[])?, &fast).map(Some)
    })?;

    // The same backend, and somebody it has no connection with.
    let stray = trace(&stage, backend, SocketAddr::new(local.ip(), 9), &[])?;
    expect(&stray, &[("verdict", "not_service")])?;
    let words = stray["steps"].to_string();
    ensure!(words.contains("the sender is a backend of default/web:http"), "{words}");

    let file = stage.topology.directory().join("dump.json");
    let name = file.to_string_lossy().into_owned();
    let dumped = ["--interface", "v-client", "--dump", &name];
    wait::until("a dump has the request fast", wait::PATIENCE, || {
        connection.get("/")?;
        std::fs::write(&file, stage.agent.text(&["dump"])?)?;
        expect(&trace(&stage, local, WEB_FRONTEND, &dumped)?, &fast).map(Some)
    })?;
    // Somebody else at the same address, of whom no connection is known.
    let port = SocketAddr::new(local.ip(), 9);
    let scheduled = trace(&stage, port, WEB_FRONTEND, &["--dump", &name])?;
    expect(&scheduled, &[("chosen_by", "scheduler"), ("plane", "slow"), ("reason", "no_flow")])?;
    ensure!(scheduled["candidates"].as_array().is_some_and(|all| all.len() == 3), "{scheduled:#}");

    // The connection ends, and nobody is left to serve: the node says so, the dump is of before.
    drop(connection);
    stage.manifests.write("web.yaml", &ServiceObject::web(&[]).yaml())?;
    let refused = wait::until("the frontend refuses", wait::PATIENCE, || {
        let trace = trace(&stage, port, WEB_FRONTEND, &[])?;
        Ok((trace["verdict"] == "refused").then_some(trace))
    })?;
    ensure!(refused["plane"].is_null() && refused["backend"].is_null(), "{refused:#}");
    let error = Connection::open(&stage.client()?, WEB_FRONTEND).err().context("it is refused")?;
    ensure!(format!("{error:#}").contains("refused"), "{error:#}");
    expect(&trace(&stage, local, WEB_FRONTEND, &dumped)?, &fast)
}

fn trace_foretells_whom_a_hash_chooses() -> Result<()> {
    foretells("sh,sh-port", &[]).map(drop)
}

fn trace_foretells_whom_a_maglev_table_chooses() -> Result<()> {
    let stage = foretells("mh,mh-port", &["--ipvs-scheduler", "mh"])?;
    // How large the kernel's tables are was found out before the agent gave up its privileges.
    stage.agent.wait_log(&["mh_table", "index=12", "slots=4093"])?;
    let doctor = stage.agent.json("doctor")?;
    let checks = doctor["items"].as_array().into_iter().flatten();
    let check = checks.clone().find(|check| check["check"] == "tables of mh");
    let found = check.and_then(|check| check["found"].as_str()).unwrap_or_default();
    ensure!(found.starts_with("4093 slots"), "{doctor:#}");
    Ok(())
}

fn foretells(scheduler: &str, options: &[&str]) -> Result<Stage> {
    let stage = Stage::without_agent(options)?;
    let plain = ServiceObject::web(&[11, 12, 13]).yaml();
    let hashed = plain.replacen(
        "namespace: default}",
        &format!("namespace: default, annotations: {{passlane.io/scheduler: '{scheduler}'}}}}"),
        1,
    );
    ensure!(hashed != plain, "{plain}");
    stage.manifests.write("web.yaml", &hashed)?;
    let stage = stage.started()?;
    // From before the connections: afterwards IPVS has them.
    let file = stage.topology.directory().join("dump.json");
    std::fs::write(&file, stage.agent.text(&["dump"])?)?;
    let name = file.to_string_lossy().into_owned();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let mut connection = Connection::open(&stage.client()?, WEB_FRONTEND)?;
        let local = connection.local()?;
        let answered = connection.get("/")?;
        let pod = stage.topology.pod(answered.trim())?.at(8080).to_string();
        let foretold = trace(&stage, local, WEB_FRONTEND, &["--dump", &name])?;
        expect(&foretold, &[("chosen_by", "scheduler"), ("backend", &pod)])?;
        seen.insert(pod);
    }
    ensure!(seen.len() > 1, "all went to {seen:?}: nothing was foretold");
    Ok(stage)
}

fn flows_are_picked_by_service_backend_and_client() -> Result<()> {
    let stage = Stage::start(&[])?;
    let mut web = stage.fast_connection(WEB_FRONTEND)?;
    let mut dns = stage.fast_resolver(DNS_FRONTEND)?;
    let local = web.local()?;
    let picked = |words: &[&str]| {
        let text = stage.agent.text(&[&["flows", "-o", "json"], words].concat())?;
        let mut document: Value = serde_json::from_str(&text).with_context(|| text)?;
        Ok::<Vec<Value>, anyhow::Error>(serde_json::from_value(document["items"].take())?)
    };
    let flows = wait::until("all flows are fast and of a lease", wait::PATIENCE, || {
        web.get("/")?;
        dns.ask()?;
        let flows = picked(&[])?;
        let left = |flow: &Value| flow["lease_left_ms"].as_u64().unwrap_or_default();
        let fast = |flow: &Value| {
            flow["next"] == "hit"
                && flow["epoch_current"] == true
                && flow["generation_current"] == true
                && (1..=5000).contains(&left(flow))
        };
        ensure!(flows.iter().all(fast), "{flows:#?}");
        Ok(Some(flows))
    })?;
    ensure!(flows.len() == 4, "two connections have four directions: {flows:#?}");
    let entry = ipvs::entry(&stage.topology.node, local, WEB_FRONTEND)?;
    let backend = entry.context("IPVS has the connection")?.destination;
    for words in [
        ["--service", "default/web"],
        ["--service", "web:http"],
        ["--backend", &backend.to_string()],
        ["--backend", &backend.ip().to_string()],
        ["--client", &local.to_string()],
    ] {
        let flows = picked(&words)?;
        let web = flows.iter().filter(|flow| flow["service"] == "default/web:http").count();
        ensure!((web, flows.len()) == (2, 2), "{words:?} picks {flows:#?}");
    }
    for words in [["--service", "default/other"], ["--client", "10.9.9.9"]] {
        ensure!(picked(&words)?.is_empty(), "{words:?}");
    }
    let table = stage.agent.text(&["flows", "-o", "wide", "--service", "web"])?;
    for column in ["NEXT", "LEASE", "BACKEND", "GENERATION"] {
        ensure!(table.contains(column), "{table}");
    }
    Ok(())
}
