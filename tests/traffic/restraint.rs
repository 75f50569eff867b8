//! What the agent is told not to do: touch ranges of others, and change the kernel too often.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{ipvs, wait};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    excluded_ranges_are_left_alone_even_by_cleanup,
    changes_wait_until_the_least_time_between_passes_is_over,
}

fn saved(stage: &Stage) -> Result<Vec<String>> {
    let text = stage.topology.node.run("ipvsadm", &["-Sn"])?;
    let ours = text.lines().filter(|line| line.contains(&WEB_FRONTEND.to_string()));
    Ok(ours.map(str::to_owned).collect())
}

fn excluded_ranges_are_left_alone_even_by_cleanup() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let before = saved(&stage)?;
    ensure!(before.len() == 4, "one server and three destinations: {before:?}");
    stage.agent.terminate()?;
    stage.manifests.write("web.yaml", &ServiceObject::web(&[11]).yaml())?;
    stage.agent.set_options(&["--ipvs-exclude-cidrs", &format!("{}/32", WEB_FRONTEND.ip())]);
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    let vip = WEB_FRONTEND.ip().to_string();
    stage.agent.wait_log(&["AddressExcluded", "default/web", &vip])?;
    ensure!(saved(&stage)? == before, "changed: {:?}", saved(&stage)?);
    stage.manifests.remove("web.yaml")?;
    wait::until_true("the node port is gone", wait::PATIENCE, || {
        let text = stage.topology.node.run("ipvsadm", &["-Sn"])?;
        Ok(!text.contains(":30080"))
    })?;
    ensure!(saved(&stage)? == before, "removed: {:?}", saved(&stage)?);
    stage.agent.terminate()?;
    stage.agent.text(&["cleanup"])?;
    ensure!(saved(&stage)? == before, "removed by cleanup: {:?}", saved(&stage)?);
    Ok(())
}

fn changes_wait_until_the_least_time_between_passes_is_over() -> Result<()> {
    const LEAST: Duration = Duration::from_secs(4);
    let stage = Stage::start(&["--ipvs-min-sync-period", "4s"])?;
    let put = |octets: &[u8]| {
        stage.manifests.write("web.yaml", &ServiceObject::web(octets).yaml())?;
        wait::until_true("IPVS has the endpoints", wait::PATIENCE, || {
            let held = ipvs::destinations(&stage.topology.node, WEB_FRONTEND)?;
            let live = held.iter().flatten().filter(|(_, weight)| *weight > 0);
            Ok(live.count() == octets.len())
        })?;
        Ok::<Instant, anyhow::Error>(Instant::now())
    };
    let first = put(&[11])?;
    let second = put(&[11, 12])?;
    let third = put(&[11, 12, 13])?;
    for (one, next) in [(first, second), (second, third)] {
        // What a test sees is later than the pass by up to the time of a look.
        ensure!(next - one > LEAST - Duration::from_secs(2), "only {:?} between", next - one);
        ensure!(next - one < LEAST + Duration::from_secs(8), "{:?} between", next - one);
    }
    Ok(())
}
