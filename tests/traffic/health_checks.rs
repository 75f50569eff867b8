//! Health checks: backends that fail get nothing new and keep what they have, and a sorry server
//! stands in. Each backend answers its checks at a port of their own, so that it can be well with its
//! clients and fail its checks.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::http::Connection;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::spread;
use proxy_tests::stage::Stage;
use proxy_tests::wait::{self, PATIENCE};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    health_checks_take_a_backend_out_and_back_and_leave_connections_alone,
    health_checks_that_are_reloaded_leave_fast_flows_alone,
    health_checks_below_quorum_bring_a_sorry_server_until_it_is_back,
    health_check_command_that_hangs_is_killed_and_none_piles_up,
}

/// Where backends answer their checks.
const CHECK_PORT: u16 = 9000;
/// Emulated guests are slow: an answer may take its time, and a fall three of them.
const CHECK: &str = "http,path=/healthz,port=9000,interval=500ms,timeout=500ms,rise=2,fall=3";

/// What answers the checks of one pod.
struct Probed {
    shared: Arc<Answers>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Answers {
    /// Status codes, one after the other and again from the first.
    statuses: std::sync::Mutex<Vec<u16>>,
    given: AtomicU64,
    stop: AtomicBool,
}

impl Probed {
    fn start(stage: &Stage, pod: &str) -> Result<Self> {
        let pod = stage.topology.pod(pod)?;
        let at = SocketAddr::from(([0, 0, 0, 0], CHECK_PORT));
        let listener = pod.namespace.enter(|| Ok(TcpListener::bind(at)?))?;
        let shared = Arc::new(Answers::default());
        let answers = Arc::clone(&shared);
        let thread = std::thread::spawn(move || answer(&listener, &answers));
        let probed = Self { shared, thread: Some(thread) };
        probed.say(&[200]);
        Ok(probed)
    }

    /// Answers with these from now on, and returns how many answers there were.
    fn say(&self, statuses: &[u16]) -> u64 {
        if let Ok(mut held) = self.shared.statuses.lock() {
            *held = statuses.to_vec();
        }
        self.given()
    }

    fn given(&self) -> u64 {
        self.shared.given.load(Ordering::SeqCst)
    }

    /// Waits until so many more were answered.
    fn wait_for(&self, more: u64) -> Result<()> {
        let before = self.given();
        wait::until_true("checks go on", PATIENCE, || Ok(self.given() >= before + more))
    }
}

impl Drop for Probed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(listener: &TcpListener, answers: &Answers) {
    // Looks from time to time whether it is to stop.
    drop(listener.set_nonblocking(true));
    while !answers.stop.load(Ordering::SeqCst) {
        let Ok((mut stream, _)) = listener.accept() else {
            wait::pause(wait::BREATH);
            continue;
        };
        drop(stream.set_nonblocking(false));
        drop(stream.set_read_timeout(Some(Duration::from_secs(5))));
        let mut request = [0; 4096];
        if !stream.read(&mut request).is_ok_and(|read| request[..read].starts_with(b"GET /healthz"))
        {
            continue;
        }
        let Ok(statuses) = answers.statuses.lock() else { return };
        let turn = answers.given.fetch_add(1, Ordering::SeqCst);
        let turn = usize::try_from(turn).unwrap_or(0) % statuses.len();
        let status = statuses.get(turn).copied().unwrap_or(500);
        drop(write!(stream, "HTTP/1.1 {status} so\r\nContent-Length: 0\r\n\r\n"));
    }
}

/// Writes the Service `web` with these endpoints and annotations.
fn write(stage: &Stage, octets: &[u8], annotations: &str) -> Result<()> {
    let plain = ServiceObject::web(octets).yaml();
    let metadata = "metadata: {name: web, namespace: default";
    let annotated = format!("{metadata}, annotations: {{{annotations}}}");
    ensure!(plain.contains(metadata), "{plain}");
    stage.manifests.write("web.yaml", &plain.replacen(metadata, &annotated, 1))
}

fn checked(check: &str, more: &str) -> String {
    format!("passlane.io/health-check: \"{check}\"{more}")
}

/// Returns what `passlane backends` says of the one at 10.1.1.`octet`.
fn backend(stage: &Stage, octet: u8) -> Result<Value> {
    let list = stage.agent.json("backends")?;
    let items = list["items"].as_array().context("items")?;
    let name = format!("10.1.1.{octet}:8080/TCP");
    items.iter().find(|item| item["backend"] == name.as_str()).cloned().context(name)
}

/// Waits until the check of a backend says so, and returns it.
fn wait_check(stage: &Stage, octet: u8, up: bool) -> Result<Value> {
    wait::until(&format!("10.1.1.{octet} up: {up}"), PATIENCE, || {
        let check = backend(stage, octet)?["checks"][0].clone();
        Ok((check["up"] == up).then_some(check))
    })
}

/// The weight of a backend in the virtual server of `web`; `None` when it is not there.
fn weight(stage: &Stage, octet: u8) -> Result<Option<u64>> {
    let vip = WEB_FRONTEND.to_string();
    let list = stage.topology.node.run("ipvsadm", &["-Ln", "-t", &vip])?;
    let name = format!("10.1.1.{octet}:8080");
    let line = list.lines().find(|line| line.split_whitespace().any(|word| word == name));
    let Some(line) = line else { return Ok(None) };
    Ok(Some(line.split_whitespace().nth(3).context("weight")?.parse()?))
}

fn wait_weight(stage: &Stage, octet: u8, wanted: Option<u64>) -> Result<()> {
    wait::until_true(&format!("10.1.1.{octet} has weight {wanted:?}"), PATIENCE, || {
        Ok(weight(stage, octet)? == wanted)
    })
}

/// Opens a connection that this pod serves.
fn connection_to(stage: &Stage, pod: &str) -> Result<Connection> {
    for _ in 0..20 {
        let mut connection = Connection::open(&stage.client()?, WEB_FRONTEND)?;
        if connection.get("/")? == pod {
            return Ok(connection);
        }
    }
    anyhow::bail!("{pod} serves nobody")
}

/// Who serves new connections.
fn ensure_served_by(stage: &Stage, pods: &[&str]) -> Result<()> {
    let spread = spread::of(stage.short_requests(WEB_FRONTEND, 4 * pods.len())?);
    ensure!(spread::is_even(&spread, pods, 4), "{spread:?}, and not {pods:?}");
    Ok(())
}

fn health_checks_take_a_backend_out_and_back_and_leave_connections_alone() -> Result<()> {
    let stage = Stage::start(&[])?;
    let (a, b) = (Probed::start(&stage, "web-a")?, Probed::start(&stage, "web-b")?);
    write(&stage, &[11, 12], &checked(CHECK, ""))?;
    wait_check(&stage, 11, true)?;
    a.wait_for(2)?;
    let mut through_a = connection_to(&stage, "web-a")?;
    let mut through_b = connection_to(&stage, "web-b")?;

    a.say(&[503]);
    let check = wait_check(&stage, 11, false)?;
    ensure!(check["why"] == "status 503, not 200-299", "{check}");
    wait_weight(&stage, 11, Some(0))?;
    stage.agent.wait_log(&["backend_down", "10.1.1.11:8080/TCP", "status 503"])?;
    ensure_served_by(&stage, &["web-b"])?;
    ensure!(through_a.get("/")? == "web-a" && through_b.get("/")? == "web-b");

    // Two bad answers and a good one, again and again, are less than a fall.
    b.say(&[503, 503, 200]);
    b.wait_for(9)?;
    b.say(&[200]);
    b.wait_for(2)?;
    let check = wait_check(&stage, 12, true)?;
    ensure!(check["changes"] == 0, "{check}");
    // Nor do good ones that never come two in a row make a rise.
    a.say(&[503, 200]);
    a.wait_for(8)?;
    ensure!(weight(&stage, 11)? == Some(0));

    a.say(&[200]);
    let check = wait_check(&stage, 11, true)?;
    ensure!(check["changes"] == 2 && check["history"][1]["why"] == "status 200", "{check}");
    wait_weight(&stage, 11, Some(1))?;
    ensure_served_by(&stage, &["web-a", "web-b"])?;
    ensure!(through_a.get("/")? == "web-a" && through_b.get("/")? == "web-b");
    let metrics = stage.topology.node.run("curl", &["-s", "127.0.0.1:10249/metrics"])?;
    for line in [
        "passlane_backend_check_up{service=\"default/web\",backend=\"10.1.1.11:8080/TCP\"} 1",
        "passlane_backend_check_transitions_total{service=\"default/web\",\
         backend=\"10.1.1.11:8080/TCP\"} 2",
    ] {
        ensure!(metrics.contains(line), "{line}\n{metrics}");
    }
    // A server that is gone, of which nobody says anything.
    drop(b);
    let check = wait_check(&stage, 12, false)?;
    ensure!(check["why"].as_str().is_some_and(|why| why.starts_with("connect: ")), "{check}");
    wait_weight(&stage, 12, Some(0))?;
    ensure!(through_b.get("/")? == "web-b");
    Ok(())
}

fn health_checks_that_are_reloaded_leave_fast_flows_alone() -> Result<()> {
    let mut stage = Stage::start(&[])?;
    let (a, _b) = (Probed::start(&stage, "web-a")?, Probed::start(&stage, "web-b")?);
    write(&stage, &[11, 12], &checked(CHECK, ""))?;
    a.say(&[503]);
    wait_weight(&stage, 11, Some(0))?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let before = backend(&stage, 12)?;

    write(&stage, &[11, 12], &checked(&CHECK.replace("interval=500ms", "interval=700ms"), ""))?;
    wait::until_true("the new check runs", PATIENCE, || {
        let check = backend(&stage, 11)?["checks"][0]["check"].to_string();
        Ok(check.contains("interval=700ms"))
    })?;
    // What was down is so still, without a moment of being up.
    ensure!(backend(&stage, 11)?["checks"][0]["changes"] == 1);
    a.wait_for(4)?;
    ensure!(weight(&stage, 11)? == Some(0));
    ensure!(connection.get("/")? == "web-b");
    let after = backend(&stage, 12)?;
    ensure!(before["generation"] == after["generation"], "{before}\n{after}");

    // Nor does the next agent forget what this one knew.
    stage.agent.terminate()?;
    let stage = stage.started()?;
    ensure!(weight(&stage, 11)? == Some(0));
    ensure!(backend(&stage, 11)?["checks"][0]["changes"] == 1);
    ensure!(connection.get("/")? == "web-b");
    // Without a check everything that is ready serves.
    write(&stage, &[11, 12], "")?;
    wait_weight(&stage, 11, Some(1))?;
    ensure_served_by(&stage, &["web-a", "web-b"])
}

fn health_checks_below_quorum_bring_a_sorry_server_until_it_is_back() -> Result<()> {
    // Connections that were closed stay in IPVS for two minutes.
    let stage = Stage::start(&["--drain-timeout", "30s"])?;
    let (a, b) = (Probed::start(&stage, "web-a")?, Probed::start(&stage, "web-b")?);
    let sorry = ", passlane.io/health-quorum: \"2\", passlane.io/sorry-server: \"10.1.1.13:8080\"";
    write(&stage, &[11, 12], &checked(CHECK, sorry))?;
    wait_check(&stage, 12, true)?;
    wait_weight(&stage, 13, None)?;
    let mut through_b = connection_to(&stage, "web-b")?;

    a.say(&[503]);
    wait_weight(&stage, 13, Some(1))?;
    wait_weight(&stage, 12, Some(0))?;
    ensure_served_by(&stage, &["web-c"])?;
    let mut through_sorry = connection_to(&stage, "web-c")?;
    ensure!(through_b.get("/")? == "web-b");

    a.say(&[200]);
    wait_weight(&stage, 11, Some(1))?;
    wait_weight(&stage, 12, Some(1))?;
    ensure_served_by(&stage, &["web-a", "web-b"])?;
    ensure!(through_sorry.get("/")? == "web-c" && through_b.get("/")? == "web-b");
    // It goes when its time to drain is over.
    wait_weight(&stage, 13, None)?;

    // One that is removed is gone at once, and all new ones go elsewhere.
    let remove = ", passlane.io/on-failure: remove";
    write(&stage, &[11, 12], &checked(CHECK, remove))?;
    let _through_a = connection_to(&stage, "web-a")?;
    a.say(&[503]);
    wait_weight(&stage, 11, None)?;
    wait::until_true("it is shown", PATIENCE, || {
        Ok(stage.agent.text(&["backends"])?.contains("removed"))
    })?;
    ensure_served_by(&stage, &["web-b"])?;
    ensure!(through_b.get("/")? == "web-b");
    // With nobody left clients are told at once.
    b.say(&[503]);
    wait_weight(&stage, 12, None)?;
    let refused = Connection::open(&stage.client()?, WEB_FRONTEND);
    ensure!(format!("{:#}", refused.err().context("served")?).contains("refused"));
    Ok(())
}

/// Processes whose command line has this, by id.
fn processes_with(marker: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // Most are no processes, and some have just ended.
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&line).replace('\0', " ");
        if words.split(' ').any(|word| word == marker) {
            found.push(path);
        }
    }
    Ok(found)
}

fn health_check_command_that_hangs_is_killed_and_none_piles_up() -> Result<()> {
    // Seconds that nobody else sleeps.
    const MARKER: &str = "86753.09";
    let mut stage = Stage::start(&[])?;
    let script = stage.topology.directory().join("check");
    // It leaves a child behind, and waits for ever itself.
    fs::write(&script, format!("#!/bin/sh\necho hangs\nsleep {MARKER} &\nsleep {MARKER}\n"))?;
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let command = format!("command,run={} %addr %port", script.display());
    let times = ",interval=1s,timeout=500ms,fall=2";
    write(&stage, &[11, 12], &checked(&format!("{command}{times}"), ""))?;
    for octet in [11, 12] {
        let check = wait_check(&stage, octet, false)?;
        ensure!(check["why"] == "ended after 500 ms: hangs", "{check}");
    }
    // Two backends, and two processes each at most.
    wait::paced(Duration::from_secs(8), Duration::from_millis(100), || {
        let running = processes_with(MARKER)?;
        ensure!(running.len() <= 4, "they pile up: {running:?}");
        Ok(())
    })?;

    // Another command takes their place: what was running ends.
    fs::write(
        stage.topology.directory().join("well"),
        "#!/bin/sh\n[ \"$1:$2\" = \"$PASSLANE_ADDR:8080\" ]\n",
    )?;
    let well = stage.topology.directory().join("well");
    fs::set_permissions(&well, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let command = format!("command,run={} %addr %port,interval=1s,rise=1", well.display());
    write(&stage, &[11, 12], &checked(&command, ""))?;
    wait_check(&stage, 11, true)?;
    wait_check(&stage, 12, true)?;
    ensure_served_by(&stage, &["web-a", "web-b"])?;
    wait::until_true("the old ones are gone", PATIENCE, || Ok(processes_with(MARKER)?.is_empty()))?;

    // An agent that ends takes along what runs.
    let command = format!("command,run={} %addr %port,interval=30s,timeout=30s", script.display());
    write(&stage, &[11, 12], &checked(&command, ""))?;
    wait::until_true("they run again", PATIENCE, || Ok(!processes_with(MARKER)?.is_empty()))?;
    stage.agent.terminate()?;
    wait::until_true("none is left", PATIENCE, || Ok(processes_with(MARKER)?.is_empty()))
}
