//! VIPs as addresses of the device, for what looks for them there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use proxy_tests::http::get_once;
use proxy_tests::node_state::NodeState;
use proxy_tests::objects::WEB_FRONTEND;
use proxy_tests::stage::Stage;
use proxy_tests::wait;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    vips_become_addresses_and_routes_again_without_a_gap_and_cleanup_is_exact,
}

const AS_ADDRESSES: &[&str] = &["--vips", "addresses"];
const OPERATORS: &str = "10.250.0.9/32";

/// The lines of the VIP: as an address, and as a route of ours.
fn ways(stage: &Stage) -> Result<(bool, bool)> {
    let node = &stage.topology.node;
    let vip = WEB_FRONTEND.ip();
    let addrs = node.run("ip", &["-o", "addr", "show", "dev", "kube-ipvs0"])?;
    ensure!(addrs.contains(OPERATORS), "the operator's address is gone: {addrs}");
    let routes = node.run("ip", &["route", "show", "table", "local", "proto", "112"])?;
    let route = routes.lines().any(|line| line.contains(&format!("local {vip} ")));
    Ok((addrs.contains(&format!("inet {vip}/32 ")), route))
}

fn restart_with(stage: &mut Stage, options: &[&str], expected: (bool, bool)) -> Result<()> {
    stage.agent.terminate()?;
    stage.agent.set_options(options);
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    wait::until_true(&format!("(address, route) is {expected:?}"), wait::PATIENCE, || {
        Ok(ways(stage)? == expected)
    })
}

fn vips_become_addresses_and_routes_again_without_a_gap_and_cleanup_is_exact() -> Result<()> {
    let mut stage = Stage::without_agent(AS_ADDRESSES)?;
    stage.topology.node.feed(
        "ip",
        &["-batch", "-"],
        &format!(
            "link add kube-ipvs0 type dummy\n\
             link set kube-ipvs0 up\n\
             addr add {OPERATORS} dev kube-ipvs0\n"
        ),
    )?;
    let (state_dir, bpffs) = (stage.topology.state_dir(), stage.topology.bpffs());
    let photograph = |stage: &Stage| NodeState::of(&stage.topology.node, &[&state_dir, &bpffs]);
    let before = photograph(&stage)?;

    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    ensure!(ways(&stage)? == (true, false), "{:?}", ways(&stage)?);
    let client = stage.client()?;
    let over = AtomicBool::new(false);
    let requests = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut requests = 0;
            while !over.load(Ordering::Relaxed) {
                get_once(&client, WEB_FRONTEND, "/")?;
                requests += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok::<u32, anyhow::Error>(requests)
        });
        let changed = restart_with(&mut stage, &[], (false, true))
            .and_then(|()| restart_with(&mut stage, AS_ADDRESSES, (true, false)));
        over.store(true, Ordering::Relaxed);
        let requests = asking.join().map_err(|_| anyhow!("the client panicked"))?;
        changed.and(requests)
    })?;
    ensure!(requests > 20, "only {requests} requests");

    stage.agent.terminate()?;
    stage.agent.text(&["cleanup"])?;
    let after = photograph(&stage)?;
    let (left, lost) = (after.without(&before), before.without(&after));
    ensure!(left.is_empty() && lost.is_empty(), "left: {left:#?}\nlost: {lost:#?}");
    Ok(())
}
