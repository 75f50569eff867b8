//! The fast path only repeats what the kernel did at most one hard lease (5 s) ago.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_tests::http::Connection;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{flows, ipvs, slow_path, wait};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    drop_rule_added_mid_flow_takes_effect_within_the_hard_lease,
    flow_with_a_longer_lease_outlives_a_drop_rule_for_longer,
    deleted_destination_is_left_at_once,
    deleted_conntrack_entry_comes_back_and_flushed_ipvs_ends_the_flow_within_the_hard_lease,
    ipvs_timer_survives_a_flow_longer_than_the_timeout,
    ipvs_forgets_a_flow_whose_lease_is_longer_than_its_timeout,
}

const SOFT_LEASE: Duration = Duration::from_secs(3);
const HARD_LEASE: Duration = Duration::from_secs(5);
/// The longest that the agent accepts.
const LONG_LEASE: &[&str] = &["--soft-lease", "8s", "--hard-lease", "9s"];
/// Much less than the soft lease of 3 s, more than one look with a tool in a slow guest.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Between two requests of a flow that is kept busy.
const PACE: Duration = Duration::from_millis(20);

fn drop_rule_added_mid_flow_takes_effect_within_the_hard_lease() -> Result<()> {
    let outlived = outlived_drop_rule(&[])?;
    ensure!(outlived <= HARD_LEASE + 10 * PACE, "the flow outlived its drop rule by {outlived:?}");
    Ok(())
}

/// The treatment taken out, as far as the agent's flags let it be: the same flow with the longest
/// lease there is. Without any lease it would never end.
fn flow_with_a_longer_lease_outlives_a_drop_rule_for_longer() -> Result<()> {
    let outlived = outlived_drop_rule(LONG_LEASE)?;
    ensure!(outlived > HARD_LEASE + 10 * PACE, "something else ended the flow after {outlived:?}");
    Ok(())
}

/// Returns for how long a flow on the fast path is answered after a rule that drops it.
fn outlived_drop_rule(options: &[&str]) -> Result<Duration> {
    let stage = Stage::start(options)?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let (client, backend) = (connection.local()?, backend_of(&stage, &connection)?);
    connection.set_timeout(Duration::from_secs(2))?;
    // What a network policy becomes: IPVS sends requests through OUTPUT, answers come by FORWARD.
    stage.topology.node.nft(&format!(
        "table inet netpol {{\n\
         chain output {{ type filter hook output priority 0;\n\
         ip saddr {client} ip daddr {backend} drop\n}}\n\
         chain forward {{ type filter hook forward priority 0;\n\
         ip saddr {backend} ip daddr {client} drop\n}}\n}}\n",
        client = client.ip(),
        backend = backend.ip(),
    ))?;
    let ruled = Instant::now();
    let last_answer = ask_until_silence(&mut connection)?;
    Ok(last_answer.saturating_duration_since(ruled))
}

/// A destination goes while its connection lives when its time to drain is over. Without the
/// generation check answers would go on until the hard lease ends; the bound is below the soft
/// lease to tell the two apart. No public setting takes the check out.
fn deleted_destination_is_left_at_once() -> Result<()> {
    let stage = Stage::start(&["--drain-timeout=2s"])?;
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

/// Nobody listens for what conntrack forgets: the lease is what bounds it.
fn deleted_conntrack_entry_comes_back_and_flushed_ipvs_ends_the_flow_within_the_hard_lease()
-> Result<()> {
    let mut stage = Stage::start(&[])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    connection.set_timeout(Duration::from_secs(2))?;
    let (local, backend) = (connection.local()?, connection.get("/")?);
    let node = stage.topology.node.clone();
    let (client, port) = (local.ip().to_string(), local.port().to_string());
    node.run("conntrack", &["-D", "-p", "tcp", "--orig-src", &client, "--orig-port-src", &port])?;
    let deleted = Instant::now();
    let known = || Ok(ipvs::conntrack_state(&node, local, WEB_FRONTEND)?.is_some());
    ensure!(!known()?, "it was not deleted, or was back before anybody could look");
    wait::until_true("conntrack knows the flow again", 2 * HARD_LEASE, || {
        ensure!(connection.get("/")? == backend, "the backend changed");
        known()
    })?;
    let unknown = deleted.elapsed();
    ensure!(unknown <= HARD_LEASE + AT_ONCE, "conntrack did not know the flow for {unknown:?}");

    // The agent would put everything back. Its end takes a while, and the datapath renews leases
    // without it: IPVS goes when no packet has to go the kernel's way, which would end it at once.
    stage.agent.kill()?;
    wait::until_true("no packet has to go the kernel's way soon", wait::PATIENCE, || {
        connection.get("/")?;
        let left = flows::lease_left(&stage.agent, local, WEB_FRONTEND)?;
        Ok(left.is_some_and(|left| left >= HARD_LEASE - SOFT_LEASE + AT_ONCE))
    })?;
    node.run("ipvsadm", &["-C"])?;
    let flushed = Instant::now();
    let outlived = ask_until_silence(&mut connection)?.saturating_duration_since(flushed);
    ensure!(outlived <= HARD_LEASE + 10 * PACE, "answered for {outlived:?} without IPVS");
    Ok(())
}

fn ipvs_timer_survives_a_flow_longer_than_the_timeout() -> Result<()> {
    let (rounds, slow, known) = flow_longer_than_the_timeout(&[])?;
    ensure!(slow * 5 < rounds, "{slow} packets of {rounds} rounds went slow: nothing was tested");
    ensure!(slow > 0, "no packet renewed the lease");
    ensure!(known, "IPVS forgot the connection");
    Ok(())
}

/// The treatment taken out: renewals that come later than IPVS's timeout.
fn ipvs_forgets_a_flow_whose_lease_is_longer_than_its_timeout() -> Result<()> {
    let (_, _, known) = flow_longer_than_the_timeout(LONG_LEASE)?;
    ensure!(!known, "something else kept the connection in IPVS");
    Ok(())
}

/// Keeps a flow busy for longer than IPVS's timeout of 5 s. Returns the rounds, the packets that
/// went slow, and whether IPVS knew the connection all the time.
fn flow_longer_than_the_timeout(options: &[&str]) -> Result<(u64, u64, bool)> {
    const TIMEOUT_S: &str = "5";
    let stage = Stage::start(options)?;
    let node = &stage.topology.node;
    node.run("ipvsadm", &["--set", TIMEOUT_S, TIMEOUT_S, TIMEOUT_S])?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    connection.set_timeout(Duration::from_secs(2))?;
    let local = connection.local()?;
    slow_path::watch(
        node,
        "watched",
        &format!("ip saddr {} th sport {}", local.ip(), local.port()),
    )?;
    let mut known = true;
    let mut rounds = 0;
    // Two looks, each after more than one timeout. A flow that IPVS forgot may break meanwhile.
    for _ in 0..2 {
        let asked = wait::paced(Duration::from_secs(7), PACE, || {
            rounds += 1;
            connection.get("/").map(drop)
        });
        let entry = ipvs::entry(node, local, WEB_FRONTEND)?;
        known &= asked.is_ok() && entry.is_some_and(|entry| entry.state == "ESTABLISHED");
    }
    Ok((rounds, slow_path::seen(node, "watched")?.packets, known))
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
