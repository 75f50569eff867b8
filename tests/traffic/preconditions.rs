//! What the agent cannot work with or without is said before anything is touched; what costs only
//! the fast path is said while everything is served.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::ending::refuses;
use proxy_tests::hidden::{Hidden, Unloaded, without};
use proxy_tests::objects::{Manifests, WEB_FRONTEND};
use proxy_tests::spread;
use proxy_tests::stage::Stage;
use proxy_tests::topology::Topology;

use crate::scenario::{AGENT, Need, Scenario, scenarios};

scenarios! { AGENT =>
    not_root_is_refused,
    flowtable_present_is_refused,
    kube_ipvs0_of_another_kind_is_refused,
    missing_nft_command_is_refused,
    missing_bpffs_is_no_obstacle,
    pins_outside_bpffs_cost_only_the_fast_path,
    missing_btf_costs_at_most_the_fast_path,
}

/// Scenarios that unload a module of which nothing else makes use yet: they come first.
pub(crate) const RELOADING: &[Scenario] = &[Scenario {
    name: "ip_vs_that_is_loaded_anew_under_the_agent_is_filled_and_watched_again",
    needs: &[
        Need::Root,
        Need::Ipvs,
        Need::Agent,
        Need::Guest,
        Need::Program("ipvsadm"),
        Need::Program("nft"),
    ],
    run: crate::drift::ip_vs_that_is_loaded_anew_is_filled_and_watched_again,
}];

/// Scenarios that unload a module. They come last: what they need is only there in a guest, or was
/// never there.
pub(crate) const UNLOADING: &[Scenario] = &[
    Scenario {
        name: "missing_ipvs_is_refused",
        needs: &[Need::Root, Need::Agent],
        run: missing_ipvs_is_refused,
    },
    Scenario {
        name: "missing_nf_tables_is_refused",
        needs: AGENT,
        run: missing_nf_tables_is_refused,
    },
];

fn not_root_is_refused() -> Result<()> {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    refuses(&mut stage_through(&nobody)?.agent, &["root", "CAP_NET_ADMIN"])
}

fn missing_nft_command_is_refused() -> Result<()> {
    refuses(&mut stage_through(&["env", "PATH=/nowhere"])?.agent, &["nft", "install"])
}

fn missing_ipvs_is_refused() -> Result<()> {
    refused_without_module("ip_vs", "/proc/net/ip_vs", &["ip_vs"])
}

fn missing_nf_tables_is_refused() -> Result<()> {
    refused_without_module("nf_tables", "/sys/module/nf_tables", &["nft"])
}

/// The agent must say so when `module`, seen at `sign` when present, is missing.
fn refused_without_module(module: &'static str, sign: &str, words: &[&str]) -> Result<()> {
    // No traffic and no rules: whatever else uses the module would keep it loaded.
    let topology = Topology::with_pods(&[])?;
    let manifests = Manifests::examples_in(topology.directory())?;
    let _unloaded = Path::new(sign).exists().then(|| Unloaded::enforce(module)).transpose()?;
    let prefix = without(Hidden::Modules);
    let mut agent = Agent::new(&topology, &manifests, &[]).through(&words_of(&prefix));
    refuses(&mut agent, words)
}

fn missing_bpffs_is_no_obstacle() -> Result<()> {
    let mut stage = stage_through(&words_of(&without(Hidden::BpfFs)))?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    all_served(&stage)
}

fn pins_outside_bpffs_cost_only_the_fast_path() -> Result<()> {
    let mut stage = Stage::with_agent(|topology, manifests| {
        let no_bpffs = topology.directory().join("pins");
        Agent::new(topology, manifests, &[]).pinning_at(&no_bpffs)
    })?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    fast_path_is_off(&stage, &["bpf"])?;
    all_served(&stage)
}

fn missing_btf_costs_at_most_the_fast_path() -> Result<()> {
    let mut stage = stage_through(&words_of(&without(Hidden::Btf)))?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    all_served(&stage)?;
    let on = stage.agent.status()?["fast_path"]["mode"] == "on";
    if on {
        stage.fast_connection(WEB_FRONTEND).map(drop)
    } else {
        fast_path_is_off(&stage, &["BTF"])
    }
}

fn flowtable_present_is_refused() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    stage.topology.node.nft(
        "table inet accelerated {\n\
         flowtable fast { hook ingress priority 0; devices = { eth0 }; }\n\
         chain forward { type filter hook forward priority 0;\n\
         ip protocol tcp flow add @fast\n}\n}\n",
    )?;
    refuses(&mut stage.agent, &["flowtable", "accelerated"])
}

fn kube_ipvs0_of_another_kind_is_refused() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    stage.topology.node.run("ip", &["link", "add", "kube-ipvs0", "type", "bridge"])?;
    refuses(&mut stage.agent, &["kube-ipvs0", "dummy"])?;
    let link = stage.topology.node.run("ip", &["-d", "link", "show", "kube-ipvs0"])?;
    ensure!(link.contains("bridge"), "it was replaced: {link}");
    Ok(())
}

/// The examples with an agent that is started through `prefix`.
pub(crate) fn stage_through(prefix: &[&str]) -> Result<Stage> {
    Stage::with_agent(|topology, manifests| Agent::new(topology, manifests, &[]).through(prefix))
}

fn words_of(prefix: &[String]) -> Vec<&str> {
    prefix.iter().map(String::as_str).collect()
}

/// Checks that the status says that the fast path is off, and all of `words` as the reason.
pub(crate) fn fast_path_is_off(stage: &Stage, words: &[&str]) -> Result<()> {
    let status = stage.agent.status()?;
    let report = &status["fast_path"];
    let reason = report["reason"].as_str().context("no reason")?;
    let said = words.iter().all(|word| reason.to_lowercase().contains(&word.to_lowercase()));
    ensure!(report["mode"] == "off" && said, "{report}");
    Ok(())
}

fn all_served(stage: &Stage) -> Result<()> {
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 6)?);
    ensure!(spread::is_even(&spread, &["web-a", "web-b", "web-c"], 2), "{spread:?}");
    Ok(())
}
