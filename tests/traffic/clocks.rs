//! The node's clock jumps. Leases, drains and health go by clocks that cannot.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::http::{Connection, get_once};
use proxy_tests::objects::{DNS_FRONTEND, ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{slow_path, wait};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::scenario::{Need, scenarios};

scenarios! { NEEDS =>
    clock_jumps_disturb_neither_flows_nor_changes_nor_health,
    drain_lasts_as_long_as_it_should_over_a_clock_jump,
}

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Guest,
    Need::Ipvs,
    Need::Agent,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
];

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// The right time. Dropping it sets the clock back to it.
struct RightTime {
    then: Timespec,
    seen: Instant,
}

impl RightTime {
    fn of_now() -> Self {
        Self { then: clock_gettime(ClockId::Realtime), seen: Instant::now() }
    }

    /// Sets the clock to so many seconds after the right time.
    fn set_off_by(&self, seconds: i64) -> Result<()> {
        let passed = i64::try_from(self.seen.elapsed().as_secs())?;
        let time = Timespec { tv_sec: self.then.tv_sec + passed + seconds, ..self.then };
        clock_settime(ClockId::Realtime, time).context("set the clock")
    }
}

impl Drop for RightTime {
    fn drop(&mut self) {
        if let Err(error) = self.set_off_by(0) {
            eprintln!("the clock stays wrong: {error:#}");
        }
    }
}

fn clock_jumps_disturb_neither_flows_nor_changes_nor_health() -> Result<()> {
    let stage = Stage::start(&[])?;
    let (client, node) = (stage.client()?, &stage.topology.node);
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    let mut resolver = stage.fast_resolver(DNS_FRONTEND)?;
    let (tcp, udp) = (connection.local()?, resolver.local()?);
    let ports = format!("{}, {}", tcp.port(), udp.port());
    let flows = format!("ip saddr {} th sport {{ {ports} }}", tcp.ip());
    slow_path::watch(node, "watched", &flows)?;
    let clock = RightTime::of_now();
    let mut rounds = 0;
    // Forwards and back by an hour, by a day, and to before the start of the agent.
    for (jump, off) in (0..).zip([HOUR, 0, DAY, 0, -HOUR, -DAY, 0]) {
        clock.set_off_by(off)?;
        let asking = || {
            resolver.ask()?;
            connection.get("/").map(drop)
        };
        rounds += wait::paced(Duration::from_millis(1500), wait::BREATH, asking)
            .with_context(|| format!("with the clock off by {off} s"))?;
        let added = ServiceObject {
            name: format!("jump-{jump}"),
            frontend: ([10, 96, 2, jump], 80).into(),
            node_port: None,
            ..ServiceObject::web(&[12])
        };
        stage.manifests.write(&format!("jump-{jump}.yaml"), &added.yaml())?;
        wait::until_true("a new Service is served", wait::PATIENCE, || {
            Ok(get_once(&client, added.frontend, "/").is_ok_and(|by| by == "web-b"))
        })?;
        // Any other answer than 200 is an error.
        for path in ["/healthz", "/livez", "/readyz"] {
            get_once(node, HEALTH, path).with_context(|| format!("{path}, off by {off} s"))?;
        }
        let status = stage.agent.status()?;
        ensure!(status["ready"] == true && status["fast_path"]["mode"] == "on", "{status}");
    }
    let slow = slow_path::seen(node, "watched")?.packets;
    ensure!(slow * 5 < 2 * rounds, "{slow} packets of {rounds} rounds went slow");
    Ok(())
}

fn drain_lasts_as_long_as_it_should_over_a_clock_jump() -> Result<()> {
    const DRAIN: Duration = Duration::from_secs(8);
    let stage = Stage::start(&["--drain-timeout", "8s"])?;
    let client = stage.client()?;
    let mut connection = wait::until("a connection leads to web-c", wait::PATIENCE, || {
        let mut connection = Connection::open(&client, WEB_FRONTEND)?;
        Ok((connection.get("/")? == "web-c").then_some(connection))
    })?;
    connection.set_timeout(Duration::from_secs(2))?;
    let clock = RightTime::of_now();
    let gone = Instant::now();
    stage.manifests.write("web.yaml", &ServiceObject::web(&[11, 12]).yaml())?;
    wait::until_true("no new connection leads to web-c", wait::PATIENCE, || {
        let answers = stage.short_requests(WEB_FRONTEND, 4)?;
        Ok(!answers.iter().any(|by| by == "web-c"))
    })?;
    clock.set_off_by(DAY)?;
    let mut ended = None;
    while ended.is_none() && gone.elapsed() < wait::PATIENCE {
        if connection.get("/").is_err() {
            ended = Some(gone.elapsed());
        }
        wait::pause(Duration::from_millis(100));
    }
    let ended = ended.context("the drain does not end")?;
    ensure!(ended >= DRAIN, "the connection ended after {ended:?}, with {DRAIN:?} to go");
    ensure!(ended < 3 * DRAIN, "the connection ended only after {ended:?}");
    Ok(())
}
