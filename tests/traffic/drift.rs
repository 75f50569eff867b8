//! Somebody else changes what is ours: it is named, and put back within seconds. What is not ours is
//! listed, and nothing more.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::hidden::Unloaded;
use proxy_tests::http::get_once;
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{WEB_FRONTEND, WEB_TARGET_PORT};
use proxy_tests::stage::Stage;
use proxy_tests::wait;
use proxy_userspace::admin::{Verb, client};
use proxy_userspace::kernel::bpf::{Maps, PinDirectory};
use proxy_userspace::kernel::ipvs;
use proxy_userspace::model::{Destination, DestinationKey, Forwarding, Frontend, Protocol};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    whatever_others_change_of_ours_is_named_and_put_back_within_seconds,
    what_others_have_is_listed_and_left_alone,
    what_others_changed_is_shown_with_and_without_an_agent,
}

/// What the audit promises, and what an emulated machine that runs tests beside it may add.
const PROMISE: Duration = Duration::from_secs(5);
const SLOW_MACHINE: Duration = Duration::from_secs(15);

/// The same of what no probe sees: it is read once in a sync period at least.
const UNSEEN: Duration = Duration::from_secs(30 + 15);

/// Nobody else's, and not wanted by the Service.
const STRAY: &str = "10.1.1.32:8080";

/// Session affinity, whose seconds the kernel shows as jiffies.
const STICKY: &str = "\
apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: default}
spec:
  clusterIP: 10.96.0.77
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sticky-1, namespace: default, labels: {kubernetes.io/service-name: sticky}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.1.11]}, {addresses: [10.1.1.12]}]
";

/// A scheduler with a flag, which `/proc/net/ip_vs` does not show.
const HASHED: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: hashed
  namespace: default
  annotations: {passlane.io/scheduler: 'mh,mh-port'}
spec: {clusterIP: 10.96.0.78, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: hashed-1, namespace: default, labels: {kubernetes.io/service-name: hashed}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.1.11]}, {addresses: [10.1.1.12]}]
";

/// Part of a node as text, to be compared before and after.
#[derive(Clone, Copy, Debug)]
enum View {
    Ipvs,
    Vips,
    Table,
    Maps,
    Filter,
    Programs,
    Forwarding,
}

/// One change by somebody else.
struct Row {
    what: &'static str,
    /// Subsystem, kind and a part of the object, as the log has them.
    named: [&'static str; 3],
    view: View,
    /// The program that does it, where the kernel tells.
    by: Option<&'static str>,
    inject: fn(&Stage) -> Result<()>,
}

const WEB: &str = "10.96.0.10:80";

fn node<const N: usize>(stage: &Stage, program: &str, args: [&str; N]) -> Result<()> {
    stage.topology.node.run(program, &args).map(drop)
}

fn maps(stage: &Stage) -> Result<Maps> {
    Ok(Maps::open(&PinDirectory::at(&stage.topology.bpffs()))?)
}

fn index_of_uplink(stage: &Stage) -> Result<u32> {
    let text = stage.topology.node.run("ip", &["-j", "link", "show", "eth0"])?;
    let json: Value = serde_json::from_str(&text)?;
    let index = json[0]["ifindex"].as_u64().context("index of eth0")?;
    Ok(u32::try_from(index)?)
}

/// Takes a program off: by its link, or below Linux 6.6 by its filter.
fn detach(stage: &Stage) -> Result<()> {
    let pin = stage.agent.pins().join("links").join(format!("{}-tc_in", index_of_uplink(stage)?));
    if pin.exists() {
        return Ok(fs::remove_file(pin)?);
    }
    node(stage, "tc", ["filter", "del", "dev", "eth0", "ingress"])
}

/// Changes a weight by a socket of the node, in a process that is not in its network namespace: so
/// do container runtimes.
fn change_from_elsewhere(stage: &Stage) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = stage.topology.node.enter(|| Ok(runtime.block_on(ipvs::Client::open())?))?;
    let frontend = WEB_FRONTEND;
    let frontend = Frontend { addr: frontend.ip(), port: frontend.port(), protocol: Protocol::Tcp };
    let key = DestinationKey { addr: [10, 1, 1, 13].into(), port: WEB_TARGET_PORT };
    let destination =
        Destination { limits: Default::default(), key, weight: 7, forwarding: Forwarding::Masq };
    Ok(runtime.block_on(client.put_destination(&frontend, &destination))?)
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { what: "a destination removed", named: ["ipvs", "missing", "10.1.1.11:8080"], view: View::Ipvs, by: Some("ipvsadm"),
        inject: |stage| node(stage, "ipvsadm", ["-d", "-t", WEB, "-r", "10.1.1.11:8080"]) },
    Row { what: "a weight", named: ["ipvs", "weight", "10.1.1.12:8080"], view: View::Ipvs, by: Some("ipvsadm"),
        inject: |stage| node(stage, "ipvsadm", ["-e", "-t", WEB, "-r", "10.1.1.12:8080", "-m", "-w", "7"]) },
    Row { what: "a weight, from elsewhere", named: ["ipvs", "weight", "10.1.1.13:8080"], view: View::Ipvs, by: None,
        inject: change_from_elsewhere },
    Row { what: "a stray destination", named: ["ipvs", "added", STRAY], view: View::Ipvs, by: Some("ipvsadm"),
        inject: |stage| node(stage, "ipvsadm", ["-a", "-t", WEB, "-r", STRAY, "-m", "-w", "0"]) },
    Row { what: "the scheduler", named: ["ipvs", "scheduler", WEB], view: View::Ipvs, by: Some("ipvsadm"),
        inject: |stage| node(stage, "ipvsadm", ["-E", "-t", WEB, "-s", "wlc"]) },
    Row { what: "a flag of a scheduler", named: ["ipvs", "flags", "10.96.0.78:80"], view: View::Ipvs, by: Some("ipvsadm"),
        inject: |stage| node(stage, "ipvsadm", ["-E", "-t", "10.96.0.78:80", "-s", "mh", "-b", "mh-fallback"]) },
    Row { what: "session affinity", named: ["ipvs", "persistence", "10.96.0.77:80"], view: View::Ipvs, by: Some("ipvsadm"),
        inject: |stage| node(stage, "ipvsadm", ["-E", "-t", "10.96.0.77:80", "-s", "rr", "-p", "60"]) },
    Row { what: "a virtual server removed", named: ["ipvs", "missing", "virtual server 10.96.0.10:80"], view: View::Ipvs, by: Some("ipvsadm"),
        inject: |stage| node(stage, "ipvsadm", ["-D", "-t", WEB]) },
    Row { what: "a VIP removed", named: ["address", "missing", "vip 10.96.0.10"], view: View::Vips, by: Some("ip"),
        inject: |stage| node(stage, "ip", ["route", "del", "local", "10.96.0.10", "table", "local"]) },
    Row { what: "the device down", named: ["address", "missing", "device"], view: View::Vips, by: Some("ip"),
        inject: |stage| node(stage, "ip", ["link", "set", "kube-ipvs0", "down"]) },
    Row { what: "an nft set flushed", named: ["nft", "missing", "element vip 10.96.0.10"], view: View::Table, by: Some("nft"),
        inject: |stage| node(stage, "nft", ["flush", "set", "inet", "passlane", "vips4"]) },
    Row { what: "the nft table removed", named: ["nft", "missing", "table inet passlane"], view: View::Table, by: Some("nft"),
        inject: |stage| node(stage, "nft", ["delete", "table", "inet", "passlane"]) },
    Row { what: "the frontend map cleared", named: ["bpf", "missing", "frontend entry 10.96.0.10:80"], view: View::Maps, by: None,
        inject: |stage| {
            let mut maps = maps(stage)?;
            let all = maps.frontends()?;
            Ok(all.iter().try_for_each(|(frontend, _)| maps.remove_frontend(frontend))?)
        } },
    Row { what: "the filter cleared", named: ["bpf", "value", "filter of Services"], view: View::Filter, by: None,
        inject: |stage| Ok(maps(stage)?.filter.rebuild([]).map(drop)?) },
    Row { what: "a backend of a map removed", named: ["bpf", "missing", "backend entry 10.1.1.13:8080"], view: View::Maps, by: None,
        inject: |stage| {
            let mut maps = maps(stage)?;
            let all = maps.backends()?;
            let addr = std::net::IpAddr::from([10, 1, 1, 13]);
            let (backend, _) = all.iter().find(|(backend, _)| backend.addr == addr).context("no such backend")?;
            Ok(maps.remove_backend(backend)?)
        } },
    Row { what: "an interface of a map removed", named: ["bpf", "missing", "interface entry eth0"], view: View::Maps, by: None,
        inject: |stage| Ok(maps(stage)?.remove_interface(index_of_uplink(stage)?)?) },
    Row { what: "a program detached", named: ["program", "missing", "tc_in on eth0"], view: View::Programs, by: None,
        inject: detach },
    Row { what: "a sysctl", named: ["sysctl", "value", "net.ipv4.vs.conntrack"], view: View::Forwarding, by: Some("sh"),
        inject: |stage| node(stage, "sh", ["-c", "echo 0 > /proc/sys/net/ipv4/vs/conntrack"]) },
    Row { what: "the device removed", named: ["address", "missing", "device"], view: View::Vips, by: Some("ip"),
        inject: |stage| node(stage, "ip", ["link", "del", "kube-ipvs0"]) },
];

fn photograph(stage: &Stage, view: View) -> Result<String> {
    let here = &stage.topology.node;
    let sorted = |text: String| {
        let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    Ok(match view {
        View::Ipvs => sorted(here.run("ipvsadm", &["-Sn"])?),
        View::Vips => sorted(here.run("ip", &["route", "show", "table", "local", "proto", "112"])?),
        View::Table => sorted(here.run("nft", &["-s", "list", "table", "inet", "passlane"])?),
        View::Maps => {
            let maps = maps(stage)?;
            let shown = |entry: &dyn std::fmt::Debug| format!("{entry:?}");
            let mut all: Vec<String> = maps.frontends()?.iter().map(|e| shown(&e.0)).collect();
            all.extend(maps.backends()?.iter().map(|entry| shown(&entry.0)));
            all.extend(maps.interfaces()?.iter().map(|entry| shown(&entry.0)));
            sorted(all.join("\n"))
        }
        View::Filter => stage.agent.text(&["maps", "filter"])?,
        View::Programs => {
            let text = here.run("bpftool", &["net", "show", "dev", "eth0"])?;
            let names = text.split_whitespace().filter(|word| word.contains("tc_"));
            sorted(names.collect::<Vec<_>>().join("\n"))
        }
        View::Forwarding => here.sysctl("net/ipv4/vs/conntrack")?,
    })
}

/// A client that asks without end.
struct Traffic {
    stop: AtomicBool,
    answered: AtomicU64,
    lost: AtomicU64,
}

impl Traffic {
    fn run(&self, client: &Namespace, to: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            let counter = match get_once(client, to, "/") {
                Ok(_) => &self.answered,
                Err(_) => &self.lost,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            wait::pause(Duration::from_millis(50));
        }
    }
}

fn audit(stage: &Stage) -> Result<Value> {
    let status: Value = client::ask(&stage.topology.state_dir(), Verb::Status, false)?;
    Ok(status["audit"].clone())
}

fn whatever_others_change_of_ours_is_named_and_put_back_within_seconds() -> Result<()> {
    let stage = Stage::without_agent(&[])?;
    stage.manifests.write("sticky.yaml", STICKY)?;
    let stage = stage.started()?;
    nothing_drifts_by_itself(&stage)?;
    stage.agent.wait_log(&["witness_on"])?;
    stage.manifests.write("hashed.yaml", HASHED)?;
    wait::until_true("IPVS has the flag", wait::PATIENCE, || {
        Ok(stage.topology.node.run("ipvsadm", &["-Sn"])?.contains("mh-port"))
    })?;
    let traffic = Traffic {
        stop: AtomicBool::new(false),
        answered: AtomicU64::new(0),
        lost: AtomicU64::new(0),
    };
    let client = stage.client()?;
    let table = thread::scope(|scope| {
        scope.spawn(|| traffic.run(&client, WEB_FRONTEND));
        let table = ROWS.iter().map(|row| injure(&stage, row, &traffic)).collect::<Result<_>>();
        traffic.stop.store(true, Ordering::Relaxed);
        table
    });
    let table: Vec<Healed> = table.with_context(|| stage.agent.log())?;
    eprintln!("{:32} {:>10} {:>9} {:>6}", "change", "healed ms", "answered", "lost");
    for healed in &table {
        let Healed { what, after, answered, lost } = healed;
        eprintln!("{what:32} {:>10} {answered:>9} {lost:>6}", after.as_millis());
    }
    let found = audit(&stage)?;
    eprintln!("audit: {found}");
    for Healed { what, after, .. } in &table {
        ensure!(*after < PROMISE + SLOW_MACHINE, "{what}: put back after {after:?}");
    }
    ensure!(found["drifts"].as_u64() >= Some(ROWS.len() as u64), "{found}");
    stage.short_requests(WEB_FRONTEND, 3)?;
    let diff = stage.agent.text(&["diff"])?;
    ensure!(!diff.contains("drift"), "{diff}");
    Ok(())
}

/// Connections come and go, and nobody changes anything.
fn nothing_drifts_by_itself(stage: &Stage) -> Result<()> {
    let looks = |at_least: u64| {
        wait::until("the node is looked at", wait::PATIENCE, || {
            let audit = audit(stage)?;
            Ok((audit["looks"].as_u64() >= Some(at_least)).then_some(audit))
        })
    };
    let before = looks(3)?;
    stage.short_requests(WEB_FRONTEND, 6)?;
    stage.short_requests(SocketAddr::from(([10, 96, 0, 77], 80)), 3)?;
    let after = looks(6)?;
    ensure!(after["drifts"] == 0, "{after}\n{}", stage.agent.log());
    ensure!(after["readings"] == before["readings"], "{before}, then {after}");
    eprintln!("audit without a change: {after}");
    Ok(())
}

struct Healed {
    what: &'static str,
    after: Duration,
    answered: u64,
    lost: u64,
}

fn injure(stage: &Stage, row: &Row, traffic: &Traffic) -> Result<Healed> {
    let counts = || {
        let (answered, lost) = (&traffic.answered, &traffic.lost);
        (answered.load(Ordering::Relaxed), lost.load(Ordering::Relaxed))
    };
    let before = photograph(stage, row.view)?;
    let lines = stage.agent.log().lines().count();
    let (answered, lost) = counts();
    (row.inject)(stage).with_context(|| row.what)?;
    let injected = Instant::now();
    wait::until_true(row.what, wait::PATIENCE, || Ok(photograph(stage, row.view)? == before))
        .with_context(|| format!("it is\n{:?}\nnot\n{before}", photograph(stage, row.view)))?;
    let after = injected.elapsed();
    // It may have been put back before it could be looked at, but not without a word.
    let [subsystem, kind, object] = row.named;
    let mut words = vec![
        "drift".to_owned(),
        format!("subsystem=\"{subsystem}\""),
        format!("kind=\"{kind}\""),
        object.to_owned(),
    ];
    words.extend(row.by.map(|by| format!("{by}[")));
    wait::until_true(&format!("{words:?} are logged"), wait::PATIENCE, || {
        let log = stage.agent.log();
        // The same drift is told once a minute only.
        let told = if row.what == "the device removed" { 0 } else { lines };
        let mut lines = log.lines().skip(told);
        Ok(lines.any(|line| words.iter().all(|word| line.contains(word.as_str()))))
    })?;
    let (answered, lost) = (counts().0 - answered, counts().1 - lost);
    Ok(Healed { what: row.what, after, answered, lost })
}

fn what_others_have_is_listed_and_left_alone() -> Result<()> {
    let stage = Stage::without_agent(&["--vips", "addresses"])?;
    let here = &stage.topology.node;
    here.run("ip", &["link", "add", "kube-ipvs0", "type", "dummy"])?;
    here.run("ip", &["addr", "add", "192.0.2.99/32", "dev", "kube-ipvs0"])?;
    here.nft(
        "add table ip foreign\nadd chain ip foreign theirs\nadd rule ip foreign theirs counter\n",
    )?;
    here.run("ipvsadm", &["-A", "-t", "192.0.2.99:443", "-s", "sed"])?;
    here.run("ipvsadm", &["-a", "-t", "192.0.2.99:443", "-r", "10.1.1.11:8443", "-m"])?;
    let stage = stage.started()?;
    let theirs = || -> Result<String> {
        let here = &stage.topology.node;
        let saved = here.run("ipvsadm", &["-Sn"])?;
        let servers: Vec<&str> = saved.lines().filter(|line| line.contains("192.0.2.99")).collect();
        let table = here.run("nft", &["-s", "list", "table", "ip", "foreign"])?;
        let addrs = here.run("ip", &["-o", "addr", "show", "dev", "kube-ipvs0"])?;
        let addrs: Vec<&str> = addrs.lines().filter(|line| line.contains("192.0.2.99")).collect();
        Ok(format!("{servers:?}\n{table}\n{}", addrs.len()))
    };
    let before = theirs()?;
    // A drift beside them is healed, and an audit is asked for as well.
    stage.topology.node.run("ipvsadm", &["-D", "-t", WEB])?;
    stage.agent.wait_log(&["subsystem=\"ipvs\"", "virtual server 10.96.0.10:80"])?;
    stage.agent.text(&["diff", "--fix"])?;
    ensure!(theirs()? == before, "{}, not {before}", theirs()?);
    let diff: Value = serde_json::from_str(&stage.agent.text(&["diff", "-o", "json"])?)?;
    let foreign: Vec<(&str, &str)> = diff["foreign"]
        .as_array()
        .context("no list")?
        .iter()
        .filter_map(|each| Some((each["kind"].as_str()?, each["object"].as_str()?)))
        .collect();
    for expected in [
        ("virtual server", "192.0.2.99:443/TCP sed"),
        ("address", "192.0.2.99"),
        ("nft table", "ip foreign"),
    ] {
        ensure!(foreign.contains(&expected), "{expected:?} is not in {foreign:?}");
    }
    ensure!(!foreign.iter().any(|(_, object)| object.contains("passlane")), "{foreign:?}");
    Ok(())
}

/// The probes of the module's functions end with it, and its netlink family gets another number.
pub(crate) fn ip_vs_that_is_loaded_anew_is_filled_and_watched_again() -> Result<()> {
    let stage = Stage::start(&[])?;
    let servers = || photograph(&stage, View::Ipvs);
    let before = servers()?;
    ensure!(before.contains(WEB), "{before}");
    let agent = i32::try_from(stage.agent.pid()?).ok().and_then(Pid::from_raw);
    let agent = agent.context("no process id")?;
    // It would put back what keeps the module from being unloaded.
    kill_process(agent, Signal::STOP)?;
    let reloaded = reload(&stage);
    kill_process(agent, Signal::CONT)?;
    reloaded?;
    wait::until_true("the virtual servers are back", wait::PATIENCE, || Ok(servers()? == before))
        .with_context(|| format!("{:?}\n{}", servers(), stage.agent.log()))?;
    stage.short_requests(WEB_FRONTEND, 3)?;
    // Without the probes, or with others.
    for destination in ["10.1.1.11:8080", "10.1.1.12:8080"] {
        node(&stage, "ipvsadm", ["-d", "-t", WEB, "-r", destination])?;
        let removed = Instant::now();
        wait::until_true(destination, UNSEEN, || Ok(servers()? == before))
            .with_context(|| stage.agent.log())?;
        eprintln!("{destination} put back after {:?}", removed.elapsed());
    }
    let settings = photograph(&stage, View::Forwarding)?;
    ensure!(settings.trim() == "1", "net.ipv4.vs.conntrack is {settings}");
    Ok(())
}

fn reload(stage: &Stage) -> Result<()> {
    node(stage, "ipvsadm", ["-C"])?;
    drop(Unloaded::enforce("ip_vs")?);
    ensure!(Path::new("/proc/net/ip_vs").exists(), "the module was not loaded again");
    Ok(())
}

fn what_others_changed_is_shown_with_and_without_an_agent() -> Result<()> {
    // It looks again and again: what is asked for in between is seen sooner or later.
    const TRIES: u32 = 6;
    let mut stage = Stage::start(&[])?;
    let destination = format!("10.1.1.12:{WEB_TARGET_PORT}");
    let injure = |stage: &Stage, weight: u32| {
        let weight = weight.to_string();
        let args = ["-e", "-t", WEB, "-r", &destination, "-m", "-w", &weight];
        stage.topology.node.run("ipvsadm", &args)
    };
    let mut seen = false;
    for weight in 2..2 + TRIES {
        injure(&stage, weight)?;
        let output = stage.agent.verb(&["diff"])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.starts_with("drift"));
        if let Some(line) = line {
            ensure!(output.status.code() == Some(1), "{}: {text}", output.status);
            let columns = [&destination, "default/web:http", "weight 1", "id "];
            let all = columns.iter().all(|column| line.contains(*column));
            ensure!(all && line.contains(&format!("weight {weight}")), "{text}");
            seen = true;
            break;
        }
    }
    ensure!(seen, "never seen in {TRIES} tries:\n{}", stage.agent.log());
    let mut fixed = false;
    for weight in 20..20 + TRIES {
        injure(&stage, weight)?;
        let text = stage.agent.text(&["diff", "--fix"])?;
        let weights = stage.topology.node.run("ipvsadm", &["-Sn"])?;
        ensure!(!weights.contains(&format!("-w {weight}")), "{text}\n{weights}");
        if text.contains("put back: ") && text.contains(&destination) {
            fixed = true;
            break;
        }
    }
    ensure!(fixed, "never put back in {TRIES} tries:\n{}", stage.agent.log());

    stage.agent.kill()?;
    let text = stage.agent.text(&["diff"])?;
    ensure!(text.contains("No agent runs") && text.contains("Not known"), "{text}");
    let mut maps = maps(&stage)?;
    let web = maps.frontends()?;
    let (web, _) = web.iter().find(|(each, _)| each.to_string().starts_with(WEB)).context("web")?;
    maps.remove_frontend(web)?;
    let output = stage.agent.verb(&["diff"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {text}", output.status);
    let line = text.lines().find(|line| line.starts_with("drift")).context(text.clone())?;
    ensure!(line.contains(WEB) && line.contains("nothing"), "{text}");
    let output = stage.agent.verb(&["diff", "--fix"])?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(complaint.contains("no agent runs"), "{complaint}");
    Ok(())
}
