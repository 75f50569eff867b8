//! What IPVS and conntrack make of a connection whose middle they did not see.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::http::{Connection, Source};
use proxy_tests::objects::WEB_FRONTEND;
use proxy_tests::stage::Stage;
use proxy_tests::transfer::Blob;
use proxy_tests::{ipvs, spread, wait};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    fin_of_the_client_leaves_ipvs_and_conntrack_in_time_wait,
    fin_of_the_server_leaves_ipvs_and_conntrack_in_time_wait,
    rst_leaves_ipvs_in_close_and_both_forget_the_flow,
    invalid_drop_rules_do_not_hang_a_flow,
    without_liberal_conntrack_slow_packets_after_fast_ones_are_invalid,
    port_reused_after_fin_gets_a_new_connection,
    port_reused_after_rst_gets_a_new_connection,
}

fn fin_of_the_client_leaves_ipvs_and_conntrack_in_time_wait() -> Result<()> {
    let stage = Stage::start(&[])?;
    let connection = stage.fast_connection(WEB_FRONTEND)?;
    let local = connection.local()?;
    drop(connection);
    wait_states(&stage, local, "TIME_WAIT", "TIME_WAIT")
}

fn fin_of_the_server_leaves_ipvs_and_conntrack_in_time_wait() -> Result<()> {
    let stage = Stage::start(&[])?;
    let connection = stage.fast_connection(WEB_FRONTEND)?;
    let local = connection.local()?;
    connection.get_and_let_server_close("/")?;
    wait_states(&stage, local, "TIME_WAIT", "TIME_WAIT")
}

/// conntrack has not seen the packets before the RST, takes it for one out of sequence and keeps its
/// state; IPVS does not ask for sequence numbers, and takes conntrack's entry with its own.
fn rst_leaves_ipvs_in_close_and_both_forget_the_flow() -> Result<()> {
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let local = connection.local()?;
    for _ in 0..5 {
        connection.get("/")?;
    }
    connection.abort()?;
    let state = || -> Result<Option<String>> {
        Ok(ipvs::entry(node, local, WEB_FRONTEND)?.map(|entry| entry.state))
    };
    wait::until_true("IPVS is in CLOSE", wait::PATIENCE, || {
        Ok(state()?.as_deref() == Some("CLOSE"))
    })?;
    wait::until_true("IPVS and conntrack forget the flow", wait::PATIENCE, || {
        Ok(state()?.is_none() && ipvs::conntrack_state(node, local, WEB_FRONTEND)?.is_none())
    })
}

/// The treatment is `net.netfilter.nf_conntrack_tcp_be_liberal`: without it conntrack takes slow
/// packets after fast ones for INVALID.
fn invalid_drop_rules_do_not_hang_a_flow() -> Result<()> {
    let stage = Stage::start(&[])?;
    let local = past_strict_rules(&stage)?;
    let dropped = invalid_packets(&stage)?;
    ensure!(dropped == 0, "{dropped} packets were taken for INVALID");
    wait_states(&stage, local, "TIME_WAIT", "TIME_WAIT")
}

/// The treatment taken out: the same traffic, with conntrack as strict as it was before the agent.
fn without_liberal_conntrack_slow_packets_after_fast_ones_are_invalid() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    // An agent would put it back.
    stage.agent.kill()?;
    stage.topology.node.set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")?;
    let hung = past_strict_rules(&stage).is_err();
    let dropped = invalid_packets(&stage)?;
    ensure!(dropped > 0, "nothing was INVALID (hung: {hung}): the treatment is not needed");
    Ok(())
}

/// Runs one connection for longer than two hard leases, with data in both directions between the
/// renewals, past rules that drop what conntrack takes for INVALID. Returns its address.
fn past_strict_rules(stage: &Stage) -> Result<SocketAddr> {
    const SIZE: u64 = 8 << 20;
    stage.topology.node.nft(
        "table inet strict {\n\
         counter invalid {}\n\
         chain input { type filter hook input priority 0;\n\
         ct state invalid counter name invalid drop\n}\n\
         chain forward { type filter hook forward priority 0;\n\
         ct state invalid counter name invalid drop\n}\n\
         chain output { type filter hook output priority 0;\n\
         ct state invalid counter name invalid drop\n}\n}\n",
    )?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let local = connection.local()?;
    let expected = Blob::of(SIZE).digest();
    wait::paced(Duration::from_secs(11), Duration::from_millis(100), || {
        ensure!(connection.download(SIZE, |_| ())? == expected, "download changed on the way");
        ensure!(connection.upload(SIZE / 8)? == Blob::of(SIZE / 8).digest(), "upload changed");
        Ok(())
    })?;
    Ok(local)
}

/// Returns how many packets the strict rules dropped.
fn invalid_packets(stage: &Stage) -> Result<u64> {
    let listed =
        stage.topology.node.run("nft", &["list", "counter", "inet", "strict", "invalid"])?;
    let packets = listed.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    Ok(packets.context("the counter says packets")?.parse()?)
}

fn port_reused_after_fin_gets_a_new_connection() -> Result<()> {
    // The server closes first, so that TIME_WAIT is in the server, IPVS and conntrack, and the
    // client may dial again at once.
    reuse_port(|connection| connection.get_and_let_server_close("/").map(drop))
}

fn port_reused_after_rst_gets_a_new_connection() -> Result<()> {
    reuse_port(Connection::abort)
}

/// Dials six times from one port; `end` ends each connection once it is on the fast path.
fn reuse_port(mut end: impl FnMut(Connection) -> Result<()>) -> Result<()> {
    let stage = Stage::start(&[])?;
    let client = stage.client()?;
    let mut answers = Vec::new();
    for round in 0..6 {
        let mut connection = Connection::open_from(&client, Source::Port(45_000), WEB_FRONTEND)
            .with_context(|| format!("round {round}"))?;
        let backend = connection.get("/").with_context(|| format!("round {round}"))?;
        let local = connection.local()?;
        stage.drive_to_fast_path(local, WEB_FRONTEND, || {
            ensure!(connection.get("/")? == backend, "the backend changed");
            Ok(())
        })?;
        let entry = ipvs::entry(&stage.topology.node, local, WEB_FRONTEND)?;
        ensure!(entry.is_some(), "round {round}: IPVS does not know the connection");
        answers.push(backend);
        end(connection)?;
    }
    let spread = spread::of(answers);
    ensure!(spread.len() == 3, "IPVS did not choose anew: {spread:?}");
    Ok(())
}

/// Waits until IPVS and conntrack have the connection in these states.
fn wait_states(stage: &Stage, local: SocketAddr, of_ipvs: &str, of_ct: &str) -> Result<()> {
    let node = &stage.topology.node;
    let mut last = (None, None);
    wait::until_true(&format!("IPVS is in {of_ipvs}, conntrack in {of_ct}"), wait::PATIENCE, || {
        let entry = ipvs::entry(node, local, WEB_FRONTEND)?;
        last = (entry.map(|entry| entry.state), ipvs::conntrack_state(node, local, WEB_FRONTEND)?);
        Ok(last.0.as_deref() == Some(of_ipvs) && last.1.as_deref() == Some(of_ct))
    })
    .with_context(|| format!("IPVS and conntrack: {last:?}"))
}
