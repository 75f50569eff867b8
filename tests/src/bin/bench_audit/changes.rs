//! Single changes to what is ours, each of another part of the node.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use proxy_tests::stage::Stage;
use proxy_tests::wait;
use proxy_userspace::kernel::bpf::{Maps, PinDirectory};

use super::cluster::{cluster_ip, endpoint};

/// The Service whose state is changed.
const SERVICE: u32 = 0;
/// The longest that anything may take.
const LIMIT: Duration = Duration::from_mins(5);

/// One change, and how to tell whether everything is as it was.
pub(crate) struct Change {
    /// What it is.
    pub(crate) what: &'static str,
    inject: fn(&Stage) -> Result<()>,
    state: fn(&Stage) -> Result<String>,
}

fn node(stage: &Stage, program: &str, words: &[&str]) -> Result<()> {
    stage.topology.node.run(program, words).map(drop)
}

fn frontend() -> String {
    format!("{}:80", cluster_ip(SERVICE))
}

fn destination() -> String {
    format!("{}:8080", endpoint(SERVICE, 0))
}

fn vip() -> String {
    cluster_ip(SERVICE).to_string()
}

fn maps(stage: &Stage) -> Result<Maps> {
    Ok(Maps::open(&PinDirectory::at(&stage.topology.bpffs()))?)
}

/// The virtual server without its counters, its destinations in no order.
fn ipvs(stage: &Stage) -> Result<String> {
    let text = stage.topology.node.run("ipvsadm", &["-Ln", "-t", &frontend()])?;
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    Ok(lines.join("\n"))
}

fn route(stage: &Stage) -> Result<String> {
    stage.topology.node.run("ip", &["route", "show", "table", "local", "exact", &vip()])
}

fn element(stage: &Stage) -> Result<String> {
    let one = format!("{{ {} }}", vip());
    stage.topology.node.run("nft", &["get", "element", "inet", "passlane", "vips4", &one])
}

fn entry(stage: &Stage) -> Result<String> {
    let all = maps(stage)?.frontends()?;
    let there = all.iter().any(|(frontend, _)| frontend.addr == cluster_ip(SERVICE));
    Ok(there.to_string())
}

fn setting(stage: &Stage) -> Result<String> {
    stage.topology.node.sysctl("net/ipv4/vs/conntrack")
}

#[rustfmt::skip]
pub(crate) const CHANGES: &[Change] = &[
    Change { what: "a destination removed", state: ipvs,
        inject: |stage| node(stage, "ipvsadm", &["-d", "-t", &frontend(), "-r", &destination()]) },
    Change { what: "a weight", state: ipvs,
        inject: |stage| node(stage, "ipvsadm", &["-e", "-t", &frontend(), "-r", &destination(), "-m", "-w", "7"]) },
    Change { what: "the scheduler", state: ipvs,
        inject: |stage| node(stage, "ipvsadm", &["-E", "-t", &frontend(), "-s", "wlc"]) },
    Change { what: "a virtual server removed", state: ipvs,
        inject: |stage| node(stage, "ipvsadm", &["-D", "-t", &frontend()]) },
    Change { what: "a VIP removed", state: route,
        inject: |stage| node(stage, "ip", &["route", "del", "local", &vip(), "table", "local"]) },
    Change { what: "an nft element removed", state: element,
        inject: |stage| node(stage, "nft", &["delete", "element", "inet", "passlane", "vips4", &format!("{{ {} }}", vip())]) },
    Change { what: "a frontend entry removed", state: entry,
        inject: |stage| {
            let mut maps = maps(stage)?;
            let all = maps.frontends()?;
            let ours = all.iter().find(|(frontend, _)| frontend.addr == cluster_ip(SERVICE));
            Ok(maps.remove_frontend(&ours.context("no such entry")?.0)?)
        } },
    Change { what: "a sysctl", state: setting,
        inject: |stage| stage.topology.node.set_sysctl("net/ipv4/vs/conntrack", "0").map(drop) },
];

/// Changes something and returns how long it took until everything was as before.
pub(crate) fn injure(stage: &Stage, change: &Change) -> Result<Duration> {
    let before = (change.state)(stage)?;
    (change.inject)(stage)?;
    let injected = Instant::now();
    wait::until_true(change.what, LIMIT, || Ok((change.state)(stage)? == before))?;
    Ok(injected.elapsed())
}
