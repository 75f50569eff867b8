//! What the agent cannot work with or without is said before anything is touched.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::binary;
use proxy_tests::ending::{refuses, said};
use proxy_tests::hidden::{Hidden, Unloaded, output_without};
use proxy_tests::http::get_once;
use proxy_tests::objects::{Manifests, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::topology::Topology;

use crate::scenario::{AGENT, Need, Scenario, scenarios};

scenarios! { AGENT =>
    not_root_is_refused,
    flowtable_present_is_refused,
    kube_ipvs0_of_another_kind_is_refused,
    missing_bpffs_is_said_or_served_without,
    missing_btf_is_said_or_served_without,
}

/// Scenarios that unload a module. They come last: what they need is only there in a guest, or was
/// never there.
pub(crate) const UNLOADING: &[Scenario] = &[
    Scenario {
        name: "missing_ipvs_is_refused",
        needs: &[Need::Root, Need::Agent],
        run: missing_ipvs_is_refused,
    },
    Scenario { name: "missing_nft_is_refused", needs: AGENT, run: missing_nft_is_refused },
];

fn not_root_is_refused() -> Result<()> {
    let stage = Stage::without_agent(&[])?;
    let (source, binary) = (source(&stage.manifests), binary()?);
    let output = stage.topology.node.output(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            &binary.to_string_lossy(),
            "run",
            "--source",
            &source,
        ],
    )?;
    said(output.status, &String::from_utf8_lossy(&output.stderr), &["CAP_NET_ADMIN"])
}

fn missing_ipvs_is_refused() -> Result<()> {
    refused_without_module("ip_vs", "/proc/net/ip_vs")
}

fn missing_nft_is_refused() -> Result<()> {
    refused_without_module("nf_tables", "/sys/module/nf_tables")
}

/// The agent must say so when `module`, seen at `sign` when present, is missing.
fn refused_without_module(module: &'static str, sign: &str) -> Result<()> {
    // No traffic and no rules: whatever else uses the module would keep it loaded.
    let topology = Topology::with_pods(&[])?;
    let manifests = Manifests::examples_in(topology.directory())?;
    let unloaded = Path::new(sign).exists().then(|| Unloaded::enforce(module)).transpose()?;
    let (source, binary) = (source(&manifests), binary()?);
    let state_dir = topology.state_dir().display().to_string();
    let command =
        [&*binary.to_string_lossy(), "run", "--source", &source, "--state-dir", &state_dir];
    let output = output_without(&topology.node, Hidden::Modules, &command)?;
    drop(unloaded);
    said(output.status, &String::from_utf8_lossy(&output.stderr), &[module])
}

fn missing_bpffs_is_said_or_served_without() -> Result<()> {
    refused_or_served_without(Hidden::BpfFs, &["bpf"])
}

fn missing_btf_is_said_or_served_without() -> Result<()> {
    refused_or_served_without(Hidden::Btf, &["BTF"])
}

/// The slow path is complete without BPF: what is hidden may cost speed, and must be said.
fn refused_or_served_without(hidden: Hidden, words: &[&str]) -> Result<()> {
    let stage = Stage::without_agent(&[])?;
    let (source, binary) = (source(&stage.manifests), binary()?);
    let state_dir = stage.topology.state_dir().display().to_string();
    let command =
        [&*binary.to_string_lossy(), "run", "--source", &source, "--state-dir", &state_dir];
    let output = output_without(&stage.topology.node, hidden, &command)?;
    let log = String::from_utf8_lossy(&output.stderr);
    let ran_until_timeout = output.status.success() || output.status.code() == Some(124);
    if !ran_until_timeout {
        return said(output.status, &log, words);
    }
    let answer = get_once(&stage.client()?, WEB_FRONTEND, "/").context("it ran, unserved")?;
    ensure!(answer.starts_with("web-"), "{answer}");
    let lower = log.to_lowercase();
    ensure!(
        words.iter().all(|word| lower.contains(&word.to_lowercase())) || hidden == Hidden::Btf,
        "it did not say what is missing:\n{log}"
    );
    Ok(())
}

fn flowtable_present_is_refused() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    stage.topology.node.nft(
        "table inet accelerated {\n\
         flowtable fast { hook ingress priority 0; devices = { eth0 }; }\n\
         chain forward { type filter hook forward priority 0;\n\
         ip protocol tcp flow add @fast\n}\n}\n",
    )?;
    refuses(&mut stage, &["flowtable", "accelerated"])
}

fn kube_ipvs0_of_another_kind_is_refused() -> Result<()> {
    let mut stage = Stage::without_agent(&[])?;
    stage.topology.node.run("ip", &["link", "add", "kube-ipvs0", "type", "bridge"])?;
    refuses(&mut stage, &["kube-ipvs0", "dummy"])?;
    let link = stage.topology.node.run("ip", &["-d", "link", "show", "kube-ipvs0"])?;
    ensure!(link.contains("bridge"), "it was replaced: {link}");
    Ok(())
}

fn source(manifests: &Manifests) -> String {
    format!("file:{}", manifests.directory().display())
}
