//! Long flows, and flows that outlive the agent, its programs and its virtual servers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_tests::flows::Counters;
use proxy_tests::http::Connection;
use proxy_tests::objects::{DNS_FRONTEND, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::transfer::Blob;
use proxy_tests::{ipvs, slow_path, spread, wait};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    flows_of_two_hundred_leases_stay_in_ipvs_and_conntrack,
    connections_outlive_an_agent_that_is_uninstalled_for_the_next_proxy,
}

/// As 1,000 s are with the leases that the agent has by itself; no timeout is longer than a part of
/// that, so what is not renewed is forgotten many times.
fn flows_of_two_hundred_leases_stay_in_ipvs_and_conntrack() -> Result<()> {
    const LEASE: Duration = Duration::from_millis(50);
    const LEASES: u32 = 200;
    const TIMEOUT_S: &str = "2";
    let stage = Stage::start(&["--soft-lease", "30ms", "--hard-lease", "50ms"])?;
    let node = &stage.topology.node;
    node.run("ipvsadm", &["--set", TIMEOUT_S, TIMEOUT_S, TIMEOUT_S])?;
    for timeout in ["tcp_timeout_established", "udp_timeout", "udp_timeout_stream"] {
        node.set_sysctl(&format!("net/netfilter/nf_conntrack_{timeout}"), TIMEOUT_S)?;
    }
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let mut resolver = stage.fast_resolver(DNS_FRONTEND)?;
    let (local, asking) = (connection.local()?, resolver.local()?);
    let (web, dns) = (connection.get("/")?, resolver.ask()?);
    let before = Counters::read(&stage.agent)?;
    let mut moved = 0_u64;
    let rounds = wait::paced(LEASE * LEASES, Duration::from_millis(2), || {
        ensure!(connection.get("/")? == web, "the backend changed");
        ensure!(resolver.ask()? == dns, "the backend changed");
        moved += 1;
        if moved.is_multiple_of(64) {
            let size = 256 * 1024 + moved;
            ensure!(connection.download(size, |_| ())? == Blob::of(size).digest(), "download");
        }
        Ok(())
    })?;
    let counted = Counters::read(&stage.agent)?.since(&before);
    let renewals = counted.of("elected") + counted.of("lease_ended");
    ensure!(renewals >= u64::from(LEASES), "{renewals} renewals in {rounds} rounds: {counted:?}");
    ensure!(counted.hits() >= rounds, "{rounds} rounds, hardly fast: {counted:?}");
    let entry = ipvs::entry(node, local, WEB_FRONTEND)?.context("IPVS forgot the connection")?;
    ensure!(entry.state == "ESTABLISHED", "{entry:?}");
    let state = ipvs::conntrack_state(node, local, WEB_FRONTEND)?;
    ensure!(state.as_deref() == Some("ESTABLISHED"), "conntrack has it in {state:?}");
    ensure!(ipvs::entry(node, asking, DNS_FRONTEND)?.is_some(), "IPVS forgot the datagrams");
    Ok(())
}

/// What `cleanup --leave-forwarding` is for: another proxy takes the node over, and nobody notices.
fn connections_outlive_an_agent_that_is_uninstalled_for_the_next_proxy() -> Result<()> {
    const CONNECTIONS: usize = 200;
    let mut stage = Stage::start(&[])?;
    let client = stage.client()?;
    slow_path::watch(&client, "resets", "tcp flags & rst == rst")?;
    let under_way = stage.fast_connection(WEB_FRONTEND)?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Connection::open(&client, WEB_FRONTEND)?;
        let backend = connection.get("/")?;
        connections.push((connection, backend));
    }
    let stop = AtomicBool::new(false);
    let downloads = std::thread::scope(|scope| {
        let loading = scope.spawn(|| download_until(under_way, &stop));
        let uninstalled = uninstall(&mut stage);
        let asked = connections.iter_mut().enumerate().try_for_each(|(number, (one, backend))| {
            let answer = one.get("/").with_context(|| format!("connection {number}"))?;
            ensure!(answer == *backend, "connection {number} moved from {backend} to {answer}");
            Ok(())
        });
        stop.store(true, Ordering::Relaxed);
        let downloads = loading.join().map_err(|_| anyhow!("the download panicked"))?;
        uninstalled.and(asked).and(downloads)
    })?;
    ensure!(downloads > 1, "{downloads} downloads: nothing was under way");
    let resets = slow_path::seen(&client, "resets")?.packets;
    ensure!(resets == 0, "{resets} connections were reset");
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 9)?);
    ensure!(spread::is_even(&spread, &["web-a", "web-b", "web-c"], 3), "{spread:?}");
    Ok(())
}

/// Ends the agent, and takes away what only it can use.
fn uninstall(stage: &mut Stage) -> Result<()> {
    stage.agent.terminate()?;
    stage.agent.text(&["cleanup", "--leave-forwarding"])?;
    let node = &stage.topology.node;
    ensure!(!stage.agent.pins().exists(), "the fast path is left");
    // As if the next proxy had its own rules by now: the rest of the table goes.
    stage.agent.text(&["cleanup"])?;
    ensure!(!node.run("nft", &["list", "tables"])?.contains("passlane"), "the table is left");
    let left = stage.agent.text(&["cleanup", "--dry-run"])?;
    ensure!(left.is_empty(), "the next cleanup would take away: {left}");
    ensure!(ipvs::destinations(node, WEB_FRONTEND)?.is_some(), "the virtual server is gone");
    Ok(())
}

/// Downloads again and again until told to stop. Returns how often.
fn download_until(mut connection: Connection, stop: &AtomicBool) -> Result<u64> {
    const SIZE: u64 = 2 << 20;
    let expected = Blob::of(SIZE).digest();
    let mut times = 0;
    while !stop.load(Ordering::Relaxed) {
        let digest = connection.download(SIZE, |_| ());
        ensure!(digest.context("a download under way")? == expected, "bytes were lost or changed");
        times += 1;
    }
    Ok(times)
}
