//! The agent owns what it made and touches nothing else.

use anyhow::{Result, ensure};
use proxy_tests::http::get_once;
use proxy_tests::node_state::NodeState;
use proxy_tests::objects::WEB_FRONTEND;
use proxy_tests::stage::Stage;
use proxy_tests::{ipvs, process};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    cleanup_removes_exactly_what_it_made,
    cleanup_of_a_clean_node_succeeds,
    virtual_server_of_an_operator_is_left_alone,
}

const OPERATORS_SERVER: &str = "10.250.0.1:7777";

/// An operator's own virtual server, address, nft table and sysctl, beside the agent's.
fn make_operators_things(stage: &Stage) -> Result<()> {
    let node = &stage.topology.node;
    let destination = "10.1.1.11:8080";
    node.feed(
        "ipvsadm",
        &["-R"],
        &format!(
            "-A -t {OPERATORS_SERVER} -s wlc\n\
             -a -t {OPERATORS_SERVER} -r {destination} -m -w 7\n"
        ),
    )?;
    node.feed(
        "ip",
        &["-batch", "-"],
        "link add operator type dummy\nlink set operator up\naddr add 10.250.0.1/32 dev operator\n",
    )?;
    node.nft(
        "table inet operator {\n\
         set friends { type ipv4_addr; elements = { 10.1.1.31 } }\n\
         chain input { type filter hook input priority 10; policy accept;\n\
         ip saddr @friends ct state new accept\n}\n}\n",
    )?;
    Ok(())
}

fn cleanup_removes_exactly_what_it_made() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    make_operators_things(&stage)?;
    let (state_dir, bpffs) = (stage.topology.state_dir(), stage.topology.bpffs());
    let photograph = |stage: &Stage| NodeState::of(&stage.topology.node, &[&state_dir, &bpffs]);
    let before = photograph(&stage)?;

    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    drop(stage.fast_connection(WEB_FRONTEND)?);
    let running = photograph(&stage)?;
    ensure!(running != before, "the agent made nothing");
    ensure!(
        before.without(&running).iter().all(|line| line.starts_with("/proc/sys/")
            || line.starts_with("tc ")
            || line.starts_with("bpftool ")
            || line.starts_with("ip ")),
        "the agent removed: {:#?}",
        before.without(&running)
    );
    stage.agent.terminate()?;
    stage.agent.text(&["cleanup"])?;

    let after = photograph(&stage)?;
    let (left, lost) = (after.without(&before), before.without(&after));
    ensure!(left.is_empty() && lost.is_empty(), "left: {left:#?}\nlost: {lost:#?}");
    Ok(())
}

fn cleanup_of_a_clean_node_succeeds() -> Result<()> {
    let stage = Stage::without_agent(&[])?;
    for round in ["first", "second"] {
        let output = stage.agent.verb(&["cleanup"])?;
        ensure!(output.status.success(), "{round} cleanup: {}", process::complaint(&output));
    }
    Ok(())
}

fn virtual_server_of_an_operator_is_left_alone() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    make_operators_things(&stage)?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    let frontend = OPERATORS_SERVER.parse()?;
    let found = ipvs::destinations(&stage.topology.node, frontend)?;
    ensure!(found == Some(vec![("10.1.1.11:8080".parse()?, 7)]), "{found:?}");
    ensure!(get_once(&stage.client()?, frontend, "/")? == "web-a", "it does not serve any more");
    Ok(())
}
