//! `/metrics` of the real agent: right against other counts, and whoever else is at the port.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use prometheus_parse::{Scrape, Value};
use proxy_tests::http::{Connection, get_once};
use proxy_tests::netns::Namespace;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::{wait, wire};

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    metrics_agree_with_other_counts_while_hostile_clients_hold_the_port,
    metrics_count_what_readiness_and_liveness_answered,
}

const METRICS: SocketAddr = loopback(10249);
const HEALTH: SocketAddr = loopback(10256);
const WEB: &str = "default/web:http";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// One scrape, read by a parser that is not ours.
struct Scraped(BTreeMap<(String, BTreeMap<String, String>), Value>);

impl Scraped {
    fn of(node: &Namespace) -> Result<Self> {
        let text = get_once(node, METRICS, "/metrics")?;
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned())))?;
        let samples = scrape.samples.into_iter().map(|sample| {
            let labels = sample.labels.iter();
            let labels = labels.map(|(label, value)| (label.clone(), value.clone())).collect();
            ((sample.metric, labels), sample.value)
        });
        Ok(Self(samples.collect()))
    }

    fn number(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let wanted = labels.iter().map(|(label, value)| (label.to_string(), value.to_string()));
        match self.0.get(&(name.to_owned(), wanted.collect())) {
            Some(Value::Counter(number) | Value::Gauge(number) | Value::Untyped(number)) => {
                Ok(*number)
            }
            other => Err(anyhow::anyhow!("{name} {labels:?} is {other:?}")),
        }
    }

    fn of_service(&self, name: &str, direction: &str) -> Result<u64> {
        let plane = |plane| {
            self.number(name, &[("service", WEB), ("plane", plane), ("direction", direction)])
        };
        Ok((plane("slow")? + plane("fast")?) as u64)
    }
}

fn metrics_agree_with_other_counts_while_hostile_clients_hold_the_port() -> Result<()> {
    const REFUSED: usize = 7;
    let stage = Stage::start(&["--metrics-per-service", "1", "--flow-entries", "4096"])?;
    let (node, client) = (&stage.topology.node, stage.client()?);
    let (addr, port) = (WEB_FRONTEND.ip(), WEB_FRONTEND.port());
    let to = format!("ip daddr {addr} tcp dport {port}");
    wire::watch_client(&client, "web", &to, &format!("ip saddr {addr} tcp sport {port}"))?;
    ensure!(get_once(node, METRICS, "/proxyMode")? == "ipvs");

    // More than a port takes, some of them in the middle of a request, and some that never read.
    let words = ["", "GET /metrics HTTP/1.1\r\nHo", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"];
    let hold = |count: usize| -> Result<Vec<TcpStream>> {
        let open = |index: usize| {
            let mut stream = node.enter(|| Ok(TcpStream::connect(METRICS)?))?;
            stream.write_all(words[index % words.len()].as_bytes())?;
            anyhow::Ok(stream)
        };
        (0..count).map(open).collect()
    };
    let _hostile = hold(150)?;
    let mut connection = stage.fast_connection(WEB_FRONTEND)?;
    for round in 0..30 {
        connection.get("/")?;
        if round % 10 == 0 {
            let _more = hold(60)?;
            let started = Instant::now();
            Scraped::of(node)?;
            // A guest is slow; who holds connections would cost 5 s for each 32 of them.
            let took = started.elapsed().as_secs();
            ensure!(took < 5, "the scrape of round {round} took {took} s");
        }
    }
    stage.short_requests(WEB_FRONTEND, 10)?;

    // Nobody serves this port of the VIP.
    let unserved = SocketAddr::new(addr, 8081);
    for _ in 0..REFUSED {
        let refused = client.enter(|| Ok(TcpStream::connect(unserved).is_err()))?;
        ensure!(refused, "{unserved} accepted a connection");
    }
    agrees_with_the_wire(&stage, &client)?;
    let scraped = Scraped::of(node)?;
    let drops = scraped.0.iter().filter(|((name, _), _)| name == "passlane_datapath_drops_total");
    let dropped: f64 = drops
        .map(|(_, value)| match value {
            Value::Counter(number) => *number,
            _ => f64::NAN,
        })
        .sum();
    ensure!(dropped == REFUSED as f64, "{dropped} drops of {REFUSED}");
    fast_path_is_told(&stage, &scraped)?;

    // The loop goes on, whoever is at the port.
    let before = scraped.number("kubeproxy_sync_proxy_rules_service_changes_total", &[])?;
    let added = ServiceObject { name: "added".into(), ..ServiceObject::web(&[10]) };
    stage.manifests.write("added.yaml", &added.yaml())?;
    wait::until_true("the change is counted and done", wait::PATIENCE, || {
        let now = Scraped::of(node)?;
        let name = "kubeproxy_sync_proxy_rules_service_changes";
        let done = now.number(&format!("{name}_pending"), &[])? == 0.0;
        Ok(done && now.number(&format!("{name}_total"), &[])? > before)
    })
}

/// Waits until both planes together are what the client's own counters say.
fn agrees_with_the_wire(stage: &Stage, client: &Namespace) -> Result<()> {
    let mut last = String::new();
    let equal = wait::until("the metrics are what was on the wire", wait::PATIENCE / 3, || {
        let scraped = Scraped::of(&stage.topology.node)?;
        let wire = wire::counted(client, "web")?;
        let found = [
            scraped.of_service("passlane_service_packets_total", "in")?,
            scraped.of_service("passlane_service_packets_total", "out")?,
            scraped.of_service("passlane_service_bytes_total", "in")?,
            scraped.of_service("passlane_service_bytes_total", "out")?,
        ];
        let (inwards, outwards) = (wire.inwards, wire.outwards);
        let wanted = [inwards.packets, outwards.packets, inwards.bytes, outwards.bytes];
        last = format!("metrics {found:?}, wire {wanted:?}");
        Ok((found == wanted).then_some(()))
    });
    equal.with_context(|| last)
}

/// What the datapath counts is what the maps say, and what is left out is told.
fn fast_path_is_told(stage: &Stage, scraped: &Scraped) -> Result<()> {
    let hits = |of: &Scraped| {
        of.number("passlane_datapath_packets_total", &[("class", "fast"), ("reason", "hit")])
    };
    let stats = stage.agent.json("stats")?;
    let reasons = stats["reasons"].as_array().context("no reasons")?;
    let hit = reasons.iter().find(|row| row["reason"] == "hit").context("no hits")?;
    ensure!(hit["packets"].as_u64() == Some(hits(scraped)? as u64), "{hit}: {}", hits(scraped)?);
    ensure!(hits(scraped)? > 20.0);
    let share = scraped.number("passlane_datapath_fast_ratio", &[])?;
    ensure!(share > 0.0 && share < 1.0, "fast ratio {share}");
    let flows = scraped.number("passlane_bpf_map_entries", &[("map", "flows4")])?;
    let room = scraped.number("passlane_bpf_map_max_entries", &[("map", "flows4")])?;
    ensure!(flows >= 2.0 && room == 4096.0, "{flows} of {room} flows");
    let dropped = scraped.number("passlane_service_metrics_dropped", &[])?;
    let services = stage.agent.json("stats")?["services"].as_array().map_or(0, Vec::len);
    ensure!(dropped + 1.0 == services as f64, "{dropped} of {services} Service ports left out");
    for hook in ["tc_ingress", "tc_egress"] {
        let labels = [("interface", "eth0"), ("hook", hook), ("mode", "fast")];
        ensure!(scraped.number("passlane_attached_programs", &labels)? == 1.0);
    }
    for component in ["source", "slow_path", "fast_path", "metrics"] {
        let ready = scraped.number("passlane_ready", &[("component", component)])?;
        ensure!(ready == 1.0, "{component} is not ready");
    }
    Ok(())
}

fn metrics_count_what_readiness_and_liveness_answered() -> Result<()> {
    let stage = Stage::start(&[])?;
    let node = &stage.topology.node;
    ensure!(get_once(node, HEALTH, "/readyz")? == "{\"ready\":true}");
    for _ in 0..3 {
        get_once(node, HEALTH, "/livez")?;
    }
    get_once(node, HEALTH, "/healthz")?;
    let scraped = Scraped::of(node)?;
    let ok = [("code", "200")];
    ensure!(scraped.number("kubeproxy_proxy_livez_total", &ok)? == 3.0);
    ensure!(scraped.number("kubeproxy_proxy_healthz_total", &ok)? == 1.0);
    let synced = scraped
        .number("kubeproxy_sync_proxy_rules_last_timestamp_seconds", &[("ip_family", "IPv4")])?;
    ensure!(synced > 1.7e9, "last synced at {synced}");
    let puts = [("action", "put_virtual_server"), ("outcome", "done")];
    let servers = stage.agent.json("services")?["items"].as_array().map_or(0, Vec::len);
    let put = scraped.number("passlane_actions_total", &puts)?;
    ensure!(put == servers as f64, "{put} puts of {servers} virtual servers");
    // One answer to a connection: the next one is another.
    ensure!(Connection::open(node, METRICS)?.get("/healthz")? == "ok");
    Ok(())
}
