//! The fast path only repeats what the kernel did at most one hard lease (5 s) ago.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_tests::http::Connection;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{ipvs, slow_path, wait};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    drop_rule_added_mid_flow_takes_effect_within_the_hard_lease,
    deleted_destination_is_left_at_once,
    ipvs_timer_survives_a_flow_longer_than_the_timeout,
}

const HARD_LEASE: Duration = Duration::from_secs(5);
/// Between two requests of a flow that is kept busy.
const PACE: Duration = Duration::from_millis(20);

/// Seen to fail with `--soft-lease 20s --hard-lease 30s`: the flow then outlives its rule.
fn drop_rule_added_mid_flow_takes_effect_within_the_hard_lease() -> Result<()> {
    let stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let (client, backend) = (connection.local()?, backend_of(&stage, &connection)?);
    connection.set_timeout(Duration::from_secs(2))?;
    // What a network policy becomes: IPVS sends requests through OUTPUT, answers come by FORWARD.
    stage.topology.node.nft(&format!(
        "table inet policy {{\n\
         chain output {{ type filter hook output priority 0;\n\
         ip saddr {client} ip daddr {backend} drop\n}}\n\
         chain forward {{ type filter hook forward priority 0;\n\
         ip saddr {backend} ip daddr {client} drop\n}}\n}}\n",
        client = client.ip(),
        backend = backend.ip(),
    ))?;
    let ruled = Instant::now();
    let last_answer = ask_until_silence(&mut connection)?;
    let outlived = last_answer.saturating_duration_since(ruled);
    ensure!(outlived <= HARD_LEASE + 10 * PACE, "the flow outlived its drop rule by {outlived:?}");
    Ok(())
}

/// Seen to fail with an agent that does not bump the backend's generation: answers then go on
/// until the hard lease ends.
fn deleted_destination_is_left_at_once() -> Result<()> {
    /// Much less than the soft lease of 3 s, more than one look with `ipvsadm` in a slow guest.
    const AT_ONCE: Duration = Duration::from_secs(1);
    let stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    connection.set_timeout(Duration::from_secs(2))?;
    let backend = backend_of(&stage, &connection)?;
    let others: Vec<u8> = [11, 12, 13].into_iter().filter(|o| *o != last_octet(backend)).collect();
    let node = stage.topology.node.clone();
    let watcher = std::thread::spawn(move || deleted_at(&node, backend));
    stage.manifests.write("web.yaml", &ServiceObject::web(&others).yaml())?;

    let last_answer = ask_until_silence(&mut connection)?;
    let deleted = watcher.join().map_err(|_| anyhow!("the watcher panicked"))??;
    let outlived = last_answer.saturating_duration_since(deleted);
    ensure!(outlived <= AT_ONCE, "answered for {outlived:?} after its destination was gone");
    let answers = stage.short_requests(WEB_FRONTEND, 4)?;
    let gone = format!("web-{}", ["a", "b", "c"][usize::from(last_octet(backend) - 11)]);
    ensure!(!answers.contains(&gone), "new connections still go to {gone}: {answers:?}");
    Ok(())
}

/// Seen to fail with `--soft-lease 20s --hard-lease 30s`: IPVS then forgets the connection.
fn ipvs_timer_survives_a_flow_longer_than_the_timeout() -> Result<()> {
    const TIMEOUT_S: &str = "5";
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    node.run("ipvsadm", &["--set", TIMEOUT_S, TIMEOUT_S, TIMEOUT_S])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let local = connection.local()?;
    slow_path::watch(node, "flow", &format!("ip saddr {} th sport {}", local.ip(), local.port()))?;
    let rounds = wait::paced(Duration::from_secs(16), PACE, || connection.get("/").map(drop))?;
    let slow = slow_path::seen(node, "flow")?.packets;
    ensure!(slow * 5 < rounds, "{slow} packets of {rounds} rounds went slow: nothing was tested");
    ensure!(slow > 0, "no packet renewed the lease in 16 s");
    let entry = ipvs::entry(node, local, WEB_FRONTEND)?;
    ensure!(entry.is_some_and(|entry| entry.state == "ESTABLISHED"), "IPVS forgot the connection");
    Ok(())
}

/// Asks until there is no answer any more and returns when the last one came.
fn ask_until_silence(connection: &mut Connection) -> Result<Instant> {
    let mut last = None;
    let silence = wait::paced(3 * HARD_LEASE, PACE, || {
        connection.get("/")?;
        last = Some(Instant::now());
        Ok(())
    });
    ensure!(silence.is_err(), "the flow was answered to the end");
    last.context("the flow was never answered")
}

fn backend_of(stage: &Stage, connection: &Connection) -> Result<SocketAddr> {
    let entry = ipvs::entry(&stage.topology.node, connection.local()?, WEB_FRONTEND)?;
    Ok(entry.context("IPVS does not know the connection")?.destination)
}

fn last_octet(address: SocketAddr) -> u8 {
    match address {
        SocketAddr::V4(address) => address.ip().octets()[3],
        SocketAddr::V6(address) => address.ip().octets()[15],
    }
}

/// Waits until `backend` is no destination of `web` and returns when that was seen.
fn deleted_at(node: &Namespace, backend: SocketAddr) -> Result<Instant> {
    wait::until("the destination is deleted", wait::PATIENCE, || {
        let destinations = ipvs::destinations(node, WEB_FRONTEND)?.unwrap_or_default();
        let gone = destinations.iter().all(|(found, _)| *found != backend);
        Ok(gone.then(Instant::now))
    })
}
