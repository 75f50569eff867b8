//! The agent dies again and again, and goes back to an older version: what clients lose is counted.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_tests::dns::Resolver;
use proxy_tests::http::{Connection, get_once};
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{DNS_FRONTEND, ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{flows, ipvs, process, wait};

use crate::lifecycle::{frontend_of, write_services};
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    crash_loop_while_services_change_resets_and_loses_nothing,
    rollback_to_an_older_version_goes_on_with_what_that_knows,
}

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(15);

/// What clients saw.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answers: AtomicU64,
    /// Each reset and each lost request, as a sentence.
    lost: Mutex<Vec<String>>,
}

impl Seen {
    /// Asks until it is told to stop.
    fn ask(&self, what: &str, mut once: impl FnMut() -> Result<()>) {
        process::give_way();
        while !self.stop.load(Ordering::Relaxed) {
            match once() {
                Ok(()) => drop(self.answers.fetch_add(1, Ordering::Relaxed)),
                Err(error) => self.lost().push(format!("{what}: {error:#}")),
            }
            wait::pause(PACE);
        }
    }

    fn lost(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does `work` while clients ask: on connections that they keep, on a new one each time, and by UDP.
/// Returns how many answers there were; errs when a single one was lost.
fn under_load(client: &Namespace, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    const KEPT: usize = 3;
    let seen = Seen::default();
    let mut kept =
        (0..KEPT).map(|_| Connection::open(client, WEB_FRONTEND)).collect::<Result<Vec<_>>>()?;
    let mut resolver = Resolver::open(client, DNS_FRONTEND)?;
    let worked = std::thread::scope(|scope| {
        for connection in &mut kept {
            scope.spawn(|| seen.ask("a kept connection", || connection.get("/").map(drop)));
        }
        scope.spawn(|| {
            seen.ask("a new connection", || get_once(client, WEB_FRONTEND, "/").map(drop));
        });
        scope.spawn(|| seen.ask("a datagram", || resolver.ask().map(drop)));
        let worked = work();
        seen.stop.store(true, Ordering::Relaxed);
        worked
    });
    worked?;
    let answers = seen.answers.load(Ordering::Relaxed);
    let lost = seen.lost();
    ensure!(lost.is_empty(), "{} lost of {answers} answers: {:?}", lost.len(), *lost);
    Ok(answers)
}

/// Kills the agent after ever longer parts of its start and of the passes that follow, while Services
/// move, those under load as well.
fn crash_loop_while_services_change_resets_and_loses_nothing() -> Result<()> {
    const SERVICES: u8 = 30;
    const KILLS: u32 = 12;
    const STEP: Duration = Duration::from_millis(250);
    let mut stage = Stage::start(&[])?;
    let client = stage.client()?;
    let mut fast = stage.fast_connection(WEB_FRONTEND)?;
    let answers = under_load(&client, || {
        for kill in 1..=KILLS {
            write_services(&stage.manifests, SERVICES, if kill % 2 == 0 { 11 } else { 12 })?;
            let octets: &[u8] = if kill % 2 == 0 { &[11, 12, 13] } else { &[11, 12] };
            stage.manifests.write("web.yaml", &ServiceObject::web(octets).yaml())?;
            // The delay is the fault that is injected, not a wait for a state.
            std::thread::sleep(STEP * kill);
            stage.agent.kill()?;
            fast.get("/").context("with no agent at all")?;
            stage.agent.spawn()?;
        }
        stage.agent.wait_ready()
    })?;
    ensure!(answers > 500, "only {answers} answers: there was no load");
    eprintln!("{answers} answers over {KILLS} kills: 0 resets, 0 lost");

    // The last change drains what it takes away.
    for number in [0, SERVICES - 1] {
        let wanted = vec![(SocketAddr::from(([10, 1, 1, 11], 8080)), 1)];
        wait::until_true(&format!("many-{number} has {wanted:?}"), wait::PATIENCE, || {
            let found = ipvs::destinations(&stage.topology.node, frontend_of(number))?;
            Ok(found.as_ref() == Some(&wanted))
        })?;
    }
    is_fast_and_counted(&stage, &mut fast)
}

fn is_fast_and_counted(stage: &Stage, connection: &mut Connection) -> Result<()> {
    const ROUNDS: u64 = 60;
    let local = connection.local()?;
    let packets = || -> Result<u64> {
        let flow = flows::flow(&stage.agent, local, WEB_FRONTEND)?;
        Ok(flow.context("the connection has no flow entry")?.packets)
    };
    stage.drive_to_fast_path(local, WEB_FRONTEND, || connection.get("/").map(drop))?;
    let before = packets()?;
    for _ in 0..ROUNDS {
        connection.get("/")?;
    }
    let counted = packets()? - before;
    ensure!(counted * 10 >= ROUNDS * 9, "{counted} packets of {ROUNDS} rounds were fast");
    Ok(())
}

/// What a newer version left: pins of its layout, a kind of object that this one has not heard of, and
/// rules of its own.
fn rollback_to_an_older_version_goes_on_with_what_that_knows() -> Result<()> {
    const NEWER: &str = "{\"object\":\"hologram\",\"name\":\"later\"}\n";
    let mut stage = Stage::start(&[])?;
    let node = stage.topology.node.clone();
    let mut fast = stage.fast_connection(WEB_FRONTEND)?;
    let client = stage.client()?;
    under_load(&client, || {
        stage.agent.kill()?;
        let (pins, newer) = (stage.agent.pins(), stage.agent.pins().with_file_name("v99"));
        fs::rename(&pins, &newer).context("make it a newer version's")?;
        let ledger = stage.topology.directory().join("state/ledger.jsonl");
        OpenOptions::new().append(true).open(&ledger)?.write_all(NEWER.as_bytes())?;
        node.nft(
            "add set inet passlane later { type ipv4_addr; }\n\
             add rule inet passlane postrouting ip daddr @later drop comment \"passlane v99: later\"\n",
        )?;
        stage.agent.spawn()?;
        stage.agent.wait_ready()?;
        ensure!(!newer.exists(), "{} stays", newer.display());
        let rules = node.run("nft", &["list", "table", "inet", "passlane"])?;
        ensure!(!rules.contains("later"), "rules of another version stay:\n{rules}");
        let known = fs::read_to_string(&ledger)?;
        ensure!(known.contains(NEWER), "the newer version's record is lost:\n{known}");
        Ok(())
    })
    .and_then(|answers| {
        ensure!(answers > 20, "only {answers} answers: there was no load");
        eprintln!("{answers} answers over a rollback: 0 resets, 0 lost");
        Ok(())
    })?;
    is_fast_and_counted(&stage, &mut fast).map_err(|error| anyhow!("after the rollback: {error:#}"))
}
