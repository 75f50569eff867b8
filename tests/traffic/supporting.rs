//! What somebody sees who looks after a node: rates, and a report for who helps from afar.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::objects::{DNS_FRONTEND, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::wire::{self, Wire};
use proxy_tests::{agent, process, wait};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    top_shows_the_rates_of_the_traffic_that_runs,
    top_leaves_the_terminal_as_it_was_also_when_it_is_ended,
    a_bug_report_holds_everything_and_no_secret,
}

const DNS: &str = "kube-system/dns:dns";

/// Steady questions, on the fast path and off it, against counters on the client's wire.
fn top_shows_the_rates_of_the_traffic_that_runs() -> Result<()> {
    const INTERVAL: &str = "8s";
    let stage = Stage::start(&[])?;
    let client = stage.client()?;
    let (addr, port) = (DNS_FRONTEND.ip(), DNS_FRONTEND.port());
    let to = format!("ip daddr {addr} udp dport {port}");
    wire::watch_client(&client, "dns", &to, &format!("ip saddr {addr} udp sport {port}"))?;
    let mut resolver = stage.fast_resolver(DNS_FRONTEND)?;
    let (shown, seen) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let words = ["top", "--once", "--interval", INTERVAL, "-o", "json"];
            stage.agent.text(&words)
        });
        let (started, before) = (Instant::now(), wire::counted(&client, "dns"));
        while !looking.is_finished() {
            if let Err(error) = resolver.ask() {
                return (Err(error), Err(anyhow::anyhow!("no answer")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let seen = before.and_then(|before| {
            let after = wire::counted(&client, "dns")?;
            Ok(rate(before, after, started.elapsed()))
        });
        let shown = looking.join().unwrap_or_else(|_| Err(anyhow::anyhow!("top panicked")));
        (shown, seen)
    });
    let (shown, seen) = (shown?, seen?);
    let rates: Value = serde_json::from_str(&shown).with_context(|| shown.clone())?;
    ensure!(rates["kind"] == "Rates" && rates["running"] == true, "{shown}");
    let rows = rates["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = rows.iter().find(|row| row["service"] == DNS).with_context(|| shown.clone())?;
    let packets = row["packets"].as_f64().unwrap_or_default();
    ensure!(seen > 10.0, "the questions were too slow to tell: {seen} packets a second");
    ensure!(
        (packets / seen - 1.0).abs() < 0.25,
        "top says {packets}/s, the wire {seen}/s: {shown}"
    );
    let share = row["fast_share"].as_f64().unwrap_or_default();
    ensure!(share > 0.8, "most of it was fast: {row}");
    ensure!(rows.iter().any(|row| row["service"] == "default/web:http" && row["packets"] == 0.0));
    for (key, drift) in rates["drift"].as_object().into_iter().flatten() {
        ensure!(drift == 0, "{key} is {drift}: {shown}");
    }
    let text = stage.agent.text(&["top", "--once", "--interval", "100ms"])?;
    let first = text.lines().next().unwrap_or_default();
    ensure!(first.starts_with("passlane   agent ") && first.contains(" ready "), "{text}");
    ensure!(text.contains("drift 0") && text.contains(DNS), "{text}");
    ensure!(!text.contains('\x1b'), "no escapes in text: {text:?}");
    let code = stage.agent.verb(&["top"])?.status.code();
    ensure!(code == Some(2), "without a terminal it is wrong usage: {code:?}");
    Ok(())
}

fn rate(before: Wire, after: Wire, over: Duration) -> f64 {
    let packets = |wire: Wire| wire.inwards.packets + wire.outwards.packets;
    (packets(after) - packets(before)) as f64 / over.as_secs_f64()
}

/// In a terminal of its own, made by script(1).
fn top_leaves_the_terminal_as_it_was_also_when_it_is_ended() -> Result<()> {
    let stage = Stage::start(&["--fast-path", "off"])?;
    let binary = agent::binary()?;
    let state_dir = stage.topology.state_dir();
    let bpffs = stage.topology.bpffs();
    let top = format!(
        "{} top --interval 200ms --state-dir {} --bpffs {}",
        binary.display(),
        state_dir.display(),
        bpffs.display()
    );
    let (before, after) = (scratch(&stage, "before"), scratch(&stage, "after"));
    let seen = scratch(&stage, "seen");
    for signal in ["TERM", "INT", "HUP"] {
        // In the background a command reads nothing, unless it is told to.
        let script = format!(
            "stty rows 20 cols 90; stty -g > {before}; {top} < /dev/tty & TOP=$!; \
             timeout {patience} sh -c 'until grep -q web:http {seen}; do sleep 0.2; done'; \
             kill -{signal} $TOP; wait $TOP; echo ended with $?; stty -g > {after}",
            before = before.display(),
            patience = wait::PATIENCE.as_secs(),
            seen = seen.display(),
            after = after.display()
        );
        let seen = seen.display().to_string();
        let output =
            stage.topology.node.output("script", &["-f", "-q", "-e", "-c", &script, &seen])?;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(shown.contains("ended with 0"), "{signal}: {shown:?}");
        ensure!(shown.contains("default/web:http"), "{signal}: {shown:?}");
        let entered = shown.find("\x1b[?1049h").context("the other screen is used")?;
        let left = shown.rfind("\x1b[?1049l").context("the other screen is left")?;
        ensure!(entered < left, "{signal}: {shown:?}");
        let cursor = shown.rfind("\x1b[?25h").context("the cursor is shown again")?;
        ensure!(shown.rfind("\x1b[?25l").is_none_or(|hidden| hidden < cursor), "{shown:?}");
        let modes = [&before, &after].map(std::fs::read_to_string);
        let [before, after] = modes;
        let (before, after) = (before?, after?);
        ensure!(before == after && !before.is_empty(), "{signal}: {before} became {after}");
    }
    Ok(())
}

fn scratch(stage: &Stage, name: &str) -> PathBuf {
    stage.topology.directory().join(name)
}

/// A JSON Web Token, which nothing verifies.
const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJwYXNzbGFuZSJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg";

/// What may be missing on a machine of the tests.
const OPTIONAL: [&str; 2] = ["node/bpf-net.txt", "node/nf_conntrack.txt"];

fn a_bug_report_holds_everything_and_no_secret() -> Result<()> {
    let stage = Stage::without_agent(&["--ipvs-scheduler", "wrr"])?.started()?;
    let _connection = stage.fast_connection(WEB_FRONTEND)?;
    // Somebody logs more than is good.
    let log = scratch(&stage, "own.log");
    let leaked = format!("{}\nrequest failed: Authorization: Bearer {TOKEN}\n", stage.agent.log());
    std::fs::write(&log, leaked + &format!("GET https://joe:{TOKEN}@api.example:6443/api\n"))?;
    let (file, into) = (scratch(&stage, "report.tar"), scratch(&stage, "report"));
    let names = [&file, &log, &into].map(|path| path.display().to_string());
    let [file_name, log_name, into_name] = names.each_ref().map(String::as_str);
    stage.agent.text(&["bugreport", file_name, "--log", log_name])?;
    let archive = std::fs::read(&file)?;
    let secret = b"c2lnbmF0dXJl";
    ensure!(!archive.windows(secret.len()).any(|bytes| bytes == secret), "the token is in it");

    std::fs::create_dir(&into)?;
    process::run("tar", &["-xf", file_name, "-C", into_name, "--strip-components=1"])?;
    let part = |name: &str| {
        std::fs::read_to_string(into.join(name)).with_context(|| format!("no part {name}"))
    };
    let manifest: Value = serde_json::from_str(&part("manifest.json")?)?;
    ensure!(manifest["kind"] == "BugReport", "{manifest:#}");
    for entry in manifest["parts"].as_array().context("parts")? {
        let name = entry["file"].as_str().context("the name of a part")?;
        if entry["failed"].is_string() {
            ensure!(OPTIONAL.contains(&name), "{entry}");
            continue;
        }
        ensure!(part(name)?.len() as u64 == entry["bytes"].as_u64().unwrap_or_default(), "{entry}");
    }
    for (name, words) in [
        ("status.json", ["\"ready\": true", "\"kind\": \"Status\""]),
        ("doctor.txt", ["ip_vs", "nft"]),
        ("ipvsadm.txt", ["IP Virtual Server version", "TCP  10.96.0.10:80 wrr"]),
        ("services.txt", ["default/web:http", "10.1.1.11:8080"]),
        ("maps.txt", ["flows4", "generations"]),
        ("ledger.jsonl", ["virtual_server", "10.96.0.10"]),
        ("agent/arguments.txt", ["run --source file:", "--ipvs-scheduler wrr"]),
        ("agent/config.yaml", ["kind: KubeProxyConfiguration", "scheduler: wrr"]),
        ("agent/log.txt", ["the agent starts", "Authorization: <removed>"]),
        ("node/sysctls.txt", ["net.ipv4.vs.conntrack = 1", "net.ipv4.ip_forward = 1"]),
        ("node/nft-table.txt", ["table inet passlane", "masquerade"]),
        ("node/vips.txt", ["route 10.96.0.10", "route 10.96.0.53"]),
        ("node/interfaces.txt", ["eth0", "kube-ipvs0"]),
    ] {
        let text = part(name)?;
        for word in words {
            ensure!(text.contains(word), "no {word} in {name}:\n{text}");
        }
    }
    // Another passlane can explain packets of this node from it.
    let dump = into.join("dump.json").display().to_string();
    let trace = ["trace", "tcp", "10.1.1.31:9", "10.96.0.10:80", "--dump", &dump];
    let said = stage.agent.text(&trace)?;
    ensure!(said.contains("default/web:http"), "{said}");
    without_an_agent(stage)
}

/// There is a report all the same, on stdout, and it says what is missing.
fn without_an_agent(mut stage: Stage) -> Result<()> {
    stage.agent.kill()?;
    let output = stage.agent.verb(&["bugreport"])?;
    ensure!(output.status.success(), "{}", process::complaint(&output));
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(complaints.contains("without agent/config.yaml: no agent runs"), "{complaints}");
    let file = scratch(&stage, "second.tar");
    std::fs::write(&file, &output.stdout)?;
    let listed = process::run("tar", &["-tf", &file.display().to_string()])?;
    for name in ["dump.json", "ledger.jsonl", "manifest.json", "ipvsadm.txt"] {
        ensure!(listed.lines().any(|line| line.ends_with(&format!("/{name}"))), "{listed}");
    }
    wait::until_true("forwarding goes on", wait::PATIENCE, || {
        Ok(stage.short_requests(WEB_FRONTEND, 1).is_ok())
    })
}
