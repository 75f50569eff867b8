//! What a running agent may do: three capabilities, a root that it cannot write, no new namespaces,
//! and no port beyond the documented ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::ending::refuses;
use proxy_tests::http::get_once;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{flows, slow_path, wait};

use crate::preconditions::{fast_path_is_off, stage_through};
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    agent_of_root_gives_up_all_but_three_capabilities,
    agent_with_three_capabilities_and_a_read_only_root_is_fast_and_stays_so_over_a_restart,
    missing_cap_net_admin_is_refused,
    missing_cap_bpf_costs_only_the_fast_path,
}

/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, as `linux/capability.h` numbers them.
const KEPT: u64 = 1 << 12 | 1 << 38 | 1 << 39;

/// Where an agent listens, by default.
const LISTENS: [&str; 2] = ["127.0.0.1:10249", "0.0.0.0:10256"];

fn agent_of_root_gives_up_all_but_three_capabilities() -> Result<()> {
    let stage = Stage::start(&[])?;
    stage.fast_connection(WEB_FRONTEND)?;
    holds_only_what_it_keeps(&stage)?;
    listens_where_it_says(&stage)
}

fn agent_with_three_capabilities_and_a_read_only_root_is_fast_and_stays_so_over_a_restart()
-> Result<()> {
    let mut stage = confined()?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    is_confined(&stage)?;

    // IPVS, nft and maps follow the Services.
    let mut added = ServiceObject::web(&[12]);
    added.name = "added".to_owned();
    added.frontend = ([10, 96, 0, 77], 80).into();
    added.node_port = None;
    stage.manifests.write("added.yaml", &added.yaml())?;
    let client = stage.client()?;
    wait::until_true("a new Service is served", wait::PATIENCE, || {
        Ok(get_once(&client, added.frontend, "/")? == "web-b")
    })?;

    let local = connection.local()?;
    let flow = format!("ip saddr {} th sport {}", local.ip(), local.port());
    slow_path::watch(&stage.topology.node, "watched", &flow)?;
    stage.agent.kill()?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    let rounds = wait::paced(std::time::Duration::from_secs(4), wait::BREATH, || {
        connection.get("/").map(drop)
    })?;
    let slow = slow_path::seen(&stage.topology.node, "watched")?.packets;
    ensure!(slow * 5 < rounds, "{slow} packets of {rounds} rounds went slow");
    let flow = flows::flow(&stage.agent, local, WEB_FRONTEND)?;
    ensure!(flow.as_ref().is_some_and(flows::Flow::is_active), "{flow:?}");
    no_interface_is_off(&stage)?;
    is_confined(&stage)?;
    let log = stage.agent.log();
    ensure!(!log.contains("action_failed"), "{log}");
    Ok(())
}

fn missing_cap_net_admin_is_refused() -> Result<()> {
    let mut stage = stage_through(&["setpriv", "--bounding-set=-net_admin"])?;
    refuses(&mut stage.agent, &["CAP_NET_ADMIN is missing", "sudo"])
}

fn missing_cap_bpf_costs_only_the_fast_path() -> Result<()> {
    let mut stage = stage_through(&["setpriv", "--bounding-set=-bpf"])?;
    stage.agent.spawn()?;
    stage.agent.wait_ready()?;
    fast_path_is_off(&stage, &["CAP_BPF missing"])?;
    stage.short_requests(WEB_FRONTEND, 3).map(drop)
}

/// The examples, with an agent as an unprivileged container would run it, after an init container that
/// was privileged.
fn confined() -> Result<Stage> {
    let stage = Stage::with_agent(|topology, manifests| {
        let prefix = confinement(&topology.directory().join("state"));
        let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
        Agent::new(topology, manifests, &[]).through(&prefix)
    })?;
    fs::create_dir_all(stage.topology.directory().join("state"))?;
    let init = stage.agent.verb(&["run", "--init-only", "--source", "file:/nowhere"])?;
    let said = String::from_utf8_lossy(&init.stderr);
    ensure!(init.status.success(), "--init-only ended with {}: {said}", init.status);
    ensure!(said.contains("initialized"), "{said}");
    Ok(stage)
}

/// A command that leaves its arguments a root, a /proc/sys and everything else that they cannot write,
/// but for `state` and the bpffs; three capabilities; and a filter of system calls.
fn confinement(state: &Path) -> Vec<String> {
    let script = format!(
        "state={state}; mount --bind $state $state || exit; \
         mount --bind /proc/sys /proc/sys || exit; \
         while read -r device place rest; do \
         case $place in $state|/proc|/sys/fs/bpf*) ;; \
         *) mount -o remount,bind,ro $place || exit;; esac; \
         done < /proc/self/mounts; exec \"$@\"",
        state = state.display()
    );
    let apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    let caps = ["setpriv", "--bounding-set=-all,+net_admin,+bpf,+perfmon", "--inh-caps=-all"];
    let confined = ["--no-new-privs", "--", env!("CARGO_BIN_EXE_confined")];
    [&apart[..], &caps, &confined].concat().into_iter().map(str::to_owned).collect()
}

fn is_confined(stage: &Stage) -> Result<()> {
    holds_only_what_it_keeps(stage)?;
    listens_where_it_says(stage)?;
    let pid = stage.agent.pid()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    ensure!(field(&status, "Seccomp")? == "2", "no filter of system calls:\n{status}");
    let state = stage.topology.directory().join("state").display().to_string();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    for mount in mounts.lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        let [_, _, _, _, place, options, ..] = fields[..] else { continue };
        let may_write = [state.as_str(), "/proc"].contains(&place) || place.contains("/sys/fs/bpf");
        ensure!(may_write || options.split(',').any(|option| option == "ro"), "{mount}");
    }
    Ok(())
}

/// Every thread of the agent has what is documented, and nothing can give it more.
fn holds_only_what_it_keeps(stage: &Stage) -> Result<()> {
    let tasks = format!("/proc/{}/task", stage.agent.pid()?);
    wait::until_true("the thread that attaches probes has ended", wait::PATIENCE, || {
        let mut names = fs::read_dir(&tasks)?.flatten().map(|task| task.path().join("comm"));
        Ok(names.all(|name| fs::read_to_string(name).is_ok_and(|name| name.trim() != "witness")))
    })?;
    let mut threads = 0;
    for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            let found = u64::from_str_radix(field(&status, set)?, 16)?;
            ensure!(found == KEPT, "{set} is {found:#x}, not {KEPT:#x}:\n{status}");
        }
        ensure!(field(&status, "NoNewPrivs")? == "1", "{status}");
        threads += 1;
    }
    ensure!(threads > 1, "only one thread: what others have is not shown");
    Ok(())
}

fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).with_context(|| format!("no {name} in\n{status}"))
}

/// No socket of the agent takes anything from anybody but at the documented places.
fn listens_where_it_says(stage: &Stage) -> Result<()> {
    let mark = format!("pid={},", stage.agent.pid()?);
    let sockets = |options: &str| -> Result<Vec<Vec<String>>> {
        let text = stage.topology.node.run("ss", &[options])?;
        let ours = text.lines().filter(|line| line.contains(&mark));
        Ok(ours.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
    };
    // Netid State Recv-Q Send-Q Local:Port …
    let column = |lines: Vec<Vec<String>>, at: usize| -> BTreeSet<String> {
        lines.into_iter().filter_map(|line| line.get(at).cloned()).collect()
    };
    let tcp = column(sockets("-Hltnp")?, 3);
    ensure!(tcp == LISTENS.map(str::to_owned).into(), "it listens at {tcp:?}");
    let others = [sockets("-Hanup")?, sockets("-Hanwp")?, sockets("-Ha0np")?].concat();
    ensure!(others.is_empty(), "UDP, raw or packet sockets: {others:?}");
    let unix = column(sockets("-Hlxp")?, 4);
    let admin = stage.topology.directory().join("state/admin.new").display().to_string();
    ensure!(unix == BTreeSet::from([admin]), "it listens at {unix:?}");
    Ok(())
}

fn no_interface_is_off(stage: &Stage) -> Result<()> {
    let status = stage.agent.status()?;
    let reports = status["interfaces"].as_array().context("no interfaces")?;
    let foreign = reports.iter().filter(|report| report["reason"].to_string().contains("foreign"));
    let foreign: Vec<_> = foreign.collect();
    ensure!(foreign.is_empty(), "its own programs are taken for those of others: {foreign:?}");
    Ok(())
}
