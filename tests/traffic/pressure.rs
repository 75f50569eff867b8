//! Floods, scans and crowds: they get what the slow path has to give, and nobody loses by it what the
//! fast path had given.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_tests::flows::{self, Counters};
use proxy_tests::http::{Connection, get_once};
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{DNS_FRONTEND, ServiceObject, WEB_FRONTEND, WEB_NODE_PORT};
use proxy_tests::raw::{Crowd, Sender};
use proxy_tests::stage::Stage;
use proxy_tests::topology::NODE;
use proxy_tests::{ipvs, process, slow_path, wait};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    syn_flood_from_spoofed_sources_takes_no_room_and_everybody_is_served,
    port_scan_leaves_no_flow_and_disturbs_nobody,
    crowd_behind_one_interface_gets_its_share_of_the_map_and_no_more,
    full_flow_map_serves_crowds_on_all_processors,
    leases_that_end_all_at_once_are_renewed_at_once,
}

/// Room for what short connections of the test itself leave in maps that grow.
const SLACK: u64 = 64 * 1024;

fn v4(address: SocketAddr) -> Result<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err(anyhow!("{address} is no IPv4 address")),
    }
}

/// A connection on the fast path whose slow packets are counted, and what the maps held before.
struct Bystander {
    connection: Connection,
    counters: Counters,
    memory: u64,
    requests: u64,
}

impl Bystander {
    fn of(stage: &Stage) -> Result<Self> {
        let mut connection = stage.fast_connection(WEB_FRONTEND)?;
        let local = connection.local()?;
        connection.get("/")?;
        let flow = format!("ip saddr {} tcp sport {}", local.ip(), local.port());
        slow_path::watch(&stage.topology.node, "bystander", &flow)?;
        let (counters, memory) = (Counters::read(&stage.agent)?, memory(stage)?);
        Ok(Self { connection, counters, memory, requests: 0 })
    }

    /// Asks on its connection and on new ones until `done`, and a few times at least.
    fn live_until(&mut self, stage: &Stage, done: impl Fn() -> bool) -> Result<()> {
        let client = stage.client()?;
        while !done() || self.requests < 30 {
            for _ in 0..10 {
                self.connection.get("/").context("the connection that was there before")?;
                self.requests += 1;
                wait::pause(Duration::from_millis(5));
            }
            get_once(&client, WEB_FRONTEND, "/").context("a new connection")?;
        }
        Ok(())
    }

    /// Checks that its packets stayed on the fast path and that no map grew. Returns what was
    /// counted meanwhile.
    fn was_not_disturbed(&self, stage: &Stage) -> Result<Counters> {
        let slow = slow_path::seen(&stage.topology.node, "bystander")?.packets;
        let requests = self.requests;
        ensure!(slow * 5 < requests, "{slow} packets of {requests} requests went slow");
        let memory = memory(stage)?;
        ensure!(memory <= self.memory + SLACK, "maps grew from {} to {memory} bytes", self.memory);
        Ok(Counters::read(&stage.agent)?.since(&self.counters))
    }
}

/// Bytes of the maps that the agent has pinned.
fn memory(stage: &Stage) -> Result<u64> {
    let text = process::run("bpftool", &["-j", "-f", "map", "show"])?;
    let json: Value = serde_json::from_str(&text).context("bpftool -j")?;
    let pins = stage.agent.pins().display().to_string();
    let ours = json.as_array().into_iter().flatten().filter(|map| {
        let mut paths = map["pinned"].as_array().into_iter().flatten().filter_map(Value::as_str);
        paths.any(|path| path.starts_with(&pins))
    });
    let bytes: Vec<u64> = ours.filter_map(|map| map["bytes_memlock"].as_u64()).collect();
    ensure!(bytes.len() > 10, "not all maps are seen: {text}");
    Ok(bytes.iter().sum())
}

fn syn_flood_from_spoofed_sources_takes_no_room_and_everybody_is_served() -> Result<()> {
    const SYNS: u32 = 2500;
    let stage = Stage::start(&[])?;
    let mut bystander = Bystander::of(&stage)?;
    let pod = stage.topology.pod("client-b")?.namespace.clone();
    let outside = stage.topology.outside.clone();
    let (vip, node_port) = (v4(WEB_FRONTEND)?, SocketAddrV4::new(NODE, WEB_NODE_PORT));
    watch_arrivals(&stage, "198.18.0.0/15")?;
    let floods = [
        std::thread::spawn(move || flood(&pod, [198, 18], vip, SYNS)),
        std::thread::spawn(move || flood(&outside, [198, 19], node_port, SYNS)),
    ];
    bystander.live_until(&stage, || floods.iter().all(std::thread::JoinHandle::is_finished))?;
    for flood in floods {
        flood.join().map_err(|_| anyhow!("a flood panicked"))??;
    }
    let counted = bystander.was_not_disturbed(&stage)?;
    // And their answers.
    let (syns, came) = (counted.of("syn"), arrived(&stage, u64::from(2 * SYNS))?);
    ensure!(syns > came, "{came} came in: {counted:?}");
    let made = counted.of("installed") + counted.of("activated");
    ensure!(made <= 2 * bystander.requests, "{made} entries were made: {counted:?}");
    let spoofed = |address: SocketAddr| {
        matches!(address, SocketAddr::V4(v4) if v4.ip().octets()[..2] == [198, 18]
            || v4.ip().octets()[..2] == [198, 19])
    };
    let flows = flows::flows(&stage.agent)?;
    let taken = flows.iter().find(|flow| spoofed(flow.source) || spoofed(flow.new_destination));
    ensure!(taken.is_none(), "a flow of one packet has an entry: {taken:?}");
    Ok(())
}

/// Counts what comes in from these sources. Between two links the kernel drops some of what one
/// processor sends faster than another one receives.
fn watch_arrivals(stage: &Stage, sources: &str) -> Result<()> {
    slow_path::watch(&stage.topology.node, "arrivals", &format!("ip saddr {sources}"))
}

/// Returns how many of so many packets came in: enough to be worth counting.
fn arrived(stage: &Stage, sent: u64) -> Result<u64> {
    let came = slow_path::seen(&stage.topology.node, "arrivals")?.packets;
    ensure!(came >= sent / 4, "only {came} of {sent} packets came in");
    Ok(came)
}

/// Sends first packets of connections, each from a source of its own, as fast as others can take them.
fn flood(from: &Namespace, net: [u8; 2], to: SocketAddrV4, count: u32) -> Result<()> {
    let sender = Sender::open(from)?;
    for number in 0..count {
        let [_, _, third, fourth] = (number + 1).to_be_bytes();
        let source = Ipv4Addr::new(net[0], net[1], third, fourth);
        sender.syn(SocketAddrV4::new(source, 1024 + (number % 60_000) as u16), to)?;
        if number.is_multiple_of(16) {
            wait::pause(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// All ports of a VIP over TCP and UDP, an address of the range that no Service has, and a Service
/// whose endpoint has closed its port.
fn port_scan_leaves_no_flow_and_disturbs_nobody() -> Result<()> {
    const STEP: usize = 24;
    let stage = Stage::without_agent(&[])?;
    let closed = ServiceObject {
        name: "closed".to_owned(),
        frontend: SocketAddr::from(([10, 96, 0, 77], 80)),
        node_port: None,
        target_port: 9999,
        ..ServiceObject::web(&[11])
    };
    stage.manifests.write("closed.yaml", &closed.yaml())?;
    let stage = stage.started()?;
    let mut bystander = Bystander::of(&stage)?;
    let pod = stage.topology.pod("client-b")?;
    let (scanner, address) = (pod.namespace.clone(), pod.address);
    watch_arrivals(&stage, &format!("{address} th sport >= 20000"))?;
    let scan = std::thread::spawn(move || {
        let sender = Sender::open(&scanner)?;
        let mut sent = 0_u64;
        for port in (1..=u16::MAX).step_by(STEP) {
            let from = SocketAddrV4::new(address, 20_000 + port % 20_000);
            for last in [10, 200] {
                sender.syn(from, SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, last), port))?;
            }
            let to = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 53), port);
            sender.datagram(from, to, b"anybody?")?;
            sender.syn(from, SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 77), 80))?;
            sent += 4;
            if sent.is_multiple_of(32) {
                // A scan is not in a hurry, and what is lost on the way here tests nothing.
                wait::pause(Duration::from_millis(1));
            }
        }
        anyhow::Ok(sent)
    });
    bystander.live_until(&stage, || scan.is_finished())?;
    let sent = scan.join().map_err(|_| anyhow!("the scan panicked"))??;
    let counted = bystander.was_not_disturbed(&stage)?;
    // Three of four are for nobody.
    let (unknown, syns) = (counted.of("not_service"), counted.of("syn"));
    let came = arrived(&stage, sent)?;
    ensure!(unknown >= came * 6 / 10, "{came} of {sent} came in: {counted:?}");
    ensure!(syns >= came / 6, "{came} of {sent} came in: {counted:?}");
    ensure!(unknown + syns >= came, "{came} of {sent} came in: {counted:?}");
    let flows = flows::flows(&stage.agent)?;
    let taken = flows
        .iter()
        .find(|flow| flow.source.ip() == address || flow.new_destination.ip() == address);
    ensure!(taken.is_none(), "the scan has an entry: {taken:?}");
    let entries = ipvs::entries(&stage.topology.node)?;
    let scanned = entries.iter().filter(|entry| entry.source.ip() == address).count() as u64;
    ensure!(scanned <= sent / 4 + 3, "{scanned} connections in IPVS of {sent} packets");
    Ok(())
}

/// Runs on one processor from now on.
fn stay_on(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).with_context(|| format!("processor {processor}"))
}

fn crowd_of(stage: &Stage, pod: &str) -> Result<Crowd> {
    let pod = stage.topology.pod(pod)?;
    Crowd::open(&pod.namespace, pod.address, v4(DNS_FRONTEND)?)
}

/// Ports of one client: `PASSLANE_CROWD` says how many flows it opens, 3,000 when it says nothing.
fn ports_of_a_crowd() -> Result<Range<u16>> {
    const FIRST: u16 = 2000;
    let flows: u16 = match std::env::var("PASSLANE_CROWD") {
        Ok(text) => text.parse().with_context(|| format!("PASSLANE_CROWD={text}"))?,
        Err(_) => 3000,
    };
    let last = FIRST.checked_add(flows).context("PASSLANE_CROWD: at most 63,535")?;
    Ok(FIRST..last)
}

fn crowd_behind_one_interface_gets_its_share_of_the_map_and_no_more() -> Result<()> {
    /// An eighth of the entries a second.
    const ENTRIES: u64 = 1024;
    const SHARE: u64 = ENTRIES / 8;
    let stage = Stage::start(&["--flow-entries", &ENTRIES.to_string()])?;
    let mut bystander = Bystander::of(&stage)?;
    let mut crowd = crowd_of(&stage, "client-b")?;
    let ports = ports_of_a_crowd()?;
    let all = ports.clone();
    let began = Instant::now();
    let asking = std::thread::spawn(move || {
        for first in all.clone().step_by(500) {
            for _ in 0..4 {
                crowd.ask(first..first.saturating_add(500).min(all.end))?;
            }
        }
        anyhow::Ok(crowd)
    });
    bystander.live_until(&stage, || asking.is_finished())?;
    let mut crowd = asking.join().map_err(|_| anyhow!("the crowd panicked"))??;
    let counted = bystander.was_not_disturbed(&stage)?;
    let seconds = began.elapsed().as_secs() + 2;
    // The bystander's own short connections take some, too: each at most two.
    let own = 2 * bystander.requests / 10;
    let made = counted.of("installed") + counted.of("activated");
    let limited = counted.of("limited");
    ensure!(limited > SHARE, "{limited} were refused: nothing was limited");
    ensure!(made <= SHARE * seconds + own, "{made} entries in {seconds} s: {counted:?}");
    crowd.ask(ports.step_by(20)).context("flows without an entry")
}

fn full_flow_map_serves_crowds_on_all_processors() -> Result<()> {
    const ENTRIES: usize = 1024;
    const FLOWS: u16 = 1000;
    let options = ["--flow-entries", &ENTRIES.to_string(), "--install-rate", "100000"];
    let stage = Stage::start(&options)?;
    let processors = std::thread::available_parallelism()?.get();
    ensure!(processors > 1, "one processor shows nothing");
    let before = (Counters::read(&stage.agent)?, memory(&stage)?);
    let crowds = [crowd_of(&stage, "client")?, crowd_of(&stage, "client-b")?];
    let asking: Vec<_> = (0..processors)
        .zip(crowds)
        .map(|(processor, mut crowd)| {
            std::thread::spawn(move || {
                stay_on(processor)?;
                for _ in 0..4 {
                    crowd.ask(2000..2000 + FLOWS)?;
                }
                // Few enough to have room.
                for _ in 0..8 {
                    crowd.ask(2000..2064)?;
                }
                ensure!(crowd.len() == usize::from(FLOWS), "{} were answered", crowd.len());
                anyhow::Ok(())
            })
        })
        .collect();
    for crowd in asking {
        crowd.join().map_err(|_| anyhow!("a crowd panicked"))??;
    }
    let counted = Counters::read(&stage.agent)?.since(&before.0);
    ensure!(counted.of("map_full") == 0, "an LRU that is full made no room: {counted:?}");
    let made = counted.of("installed") + counted.of("activated");
    ensure!(made > 2 * ENTRIES as u64, "{made} entries were made: it was never full {counted:?}");
    ensure!(counted.hits() > 100, "nothing was fast any more: {counted:?}");
    let entries = flows::flows(&stage.agent)?.len();
    ensure!(entries <= ENTRIES, "{entries} entries of {ENTRIES}");
    ensure!(memory(&stage)? <= before.1 + SLACK, "maps grew");
    stage.fast_connection(WEB_FRONTEND).context("afterwards").map(drop)
}

fn leases_that_end_all_at_once_are_renewed_at_once() -> Result<()> {
    const FLOWS: u16 = 400;
    const ALL: u64 = 2 * FLOWS as u64;
    let stage = Stage::start(&["--soft-lease", "2s", "--hard-lease", "3s"])?;
    let mut crowd = crowd_of(&stage, "client")?;
    let ports = 2000..2000 + FLOWS;
    let mut round = |times: usize| -> Result<Counters> {
        let before = Counters::read(&stage.agent)?;
        (0..times).try_for_each(|_| crowd.ask(ports.clone()))?;
        Ok(Counters::read(&stage.agent)?.since(&before))
    };
    // Two flows whose first packets are counted in one place wait for each other.
    let most = |packets: u64| packets >= ALL * 8 / 10;
    round(4)?;
    let fast = round(1)?;
    ensure!(most(fast.hits()), "not fast: {fast:?}");
    // The time that passes is what is tested.
    wait::pause(Duration::from_millis(3200));
    let ended = round(1)?;
    ensure!(most(ended.of("lease_ended")), "leases did not end: {ended:?}");
    let again = round(1)?;
    ensure!(most(again.hits()), "not fast again: {again:?}");
    wait::pause(Duration::from_millis(2300));
    let renewed = round(1)?;
    // One of each flow; a slow guest may be late for some.
    let (elected, ended) = (renewed.of("elected"), renewed.of("lease_ended"));
    ensure!(most(elected + ended), "soft leases did not end: {renewed:?}");
    ensure!(elected <= ALL, "{elected} were elected of {ALL}: {renewed:?}");
    let again = round(1)?;
    ensure!(most(again.hits()), "not fast in the end: {again:?}");
    Ok(())
}
