//! The hash plane: XDP sends flows to the backends that IPVS would name, and IPVS carries them on when
//! XDP, the agent or a whole gateway is gone.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::agent::Agent;
use proxy_tests::exposed::Family;
use proxy_tests::gateways::{Crowd, Gateway, Gateways, HTTP, PORT, VIP};
use proxy_tests::http::{Connection, HttpServer};
use proxy_tests::netns::Namespace;
use proxy_tests::polling::Polling;
use proxy_tests::transfer::Blob;
use proxy_tests::{ipvs, wait};
use serde_json::Value;

use crate::scenario::{Need, scenarios};

pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::Ipvs,
    Need::Agent,
    Need::Ipip,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
    Need::Program("conntrack"),
    Need::Program("ethtool"),
];

scenarios! { NEEDS =>
    a_gateway_sends_flows_to_the_backends_of_their_hash_and_says_so,
    a_gateway_keeps_flows_when_xdp_goes_and_comes_and_backends_too,
    a_gateway_loses_no_flow_when_agent_and_xdp_end_as_a_backend_comes,
    a_gateway_takes_over_what_ipvs_had_where_it_lives,
    a_gateway_keeps_a_backend_that_leaves_while_xdp_has_flows_of_it,
    a_gateway_gives_new_flows_to_no_backend_that_drains,
    a_gateway_gives_no_backend_more_connections_than_its_limit,
    a_gateway_passes_icmp_errors_to_the_backend_by_xdp_and_by_ipvs,
    a_gateway_runs_xdp_in_the_driver,
    two_gateways_keep_every_connection_to_a_backend_that_lives,
    two_gateways_keep_every_connection_to_a_backend_that_lives_over_ipv6,
}

/// Both gateways tell each other on the segment.
pub(crate) const OPTIONS: &[&str] = &[
    "--fast-path",
    "off",
    "--hash-plane-interfaces",
    "eth0",
    "--hash-plane-mode",
    "generic",
    "--hash-plane-sync-interface",
    "eth0",
    "--drain-timeout",
    "5s",
];
/// Bytes of a download.
const BLOB: u64 = 1 << 18;
/// Connections in all.
const CONNECTIONS: usize = 500;

fn a_gateway_sends_flows_to_the_backends_of_their_hash_and_says_so() -> Result<()> {
    for forwarding in ["route", "tunnel"] {
        let gateways = Gateways::build(3)?;
        if forwarding == "tunnel" {
            for backend in gateways.backends.values() {
                backend.host.run("ip", &["link", "set", "tunl0", "up"])?;
                backend.host.set_sysctl("net/ipv4/conf/tunl0/rp_filter", "0")?;
            }
        }
        gateways.serve(forwarding, ",mh-port", &["b1", "b2", "b3"])?;
        gateways.route(&[Gateway::First])?;
        let agent = Agent::start(&gateways.topology, &gateways.manifests, OPTIONS)?;
        wait_plane(&agent, "hash")?;
        let mut crowd = gateways.connect_many(30)?;
        ensure!(crowd.spread().len() == 3, "{forwarding}: {:?}", crowd.spread());
        keeps(&mut crowd, forwarding)?;
        let stats = carried(&agent)?;
        ensure!(stats.new >= 30 && stats.cached >= 90, "{forwarding}: {stats:?}\n{}", agent.log());
        let entries = ipvs::entries(&gateways.topology.node)?;
        ensure!(entries.is_empty(), "IPVS saw flows as well: {entries:?}");
        let nat = agent.json("services")?;
        let others = nat["items"].as_array().context("no items")?;
        ensure!(others.iter().all(|each| each["plane"] == "hash"), "{nat:#}");
    }
    Ok(())
}

/// One gateway: XDP is taken off, backends come and go, the agent is killed, XDP comes back.
fn a_gateway_keeps_flows_when_xdp_goes_and_comes_and_backends_too() -> Result<()> {
    let mut gateways = Gateways::build(3)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3"])?;
    gateways.route(&[Gateway::First])?;
    let mut agent = Agent::start(&gateways.topology, &gateways.manifests, OPTIONS)?;
    wait_plane(&agent, "hash")?;
    let node = gateways.topology.node.clone();
    let mut crowd = gateways.connect_many(100)?;
    gateways.add_backend(4)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3", "b4"])?;
    wait_destinations(&node, gateways.frontend(), 4)?;
    crowd.join(gateways.connect_many(40)?);
    ensure!(crowd.spread().len() == 4, "{:?}", crowd.spread());
    keeps(&mut crowd, "a backend came")?;
    take_off(&agent, &node)?;
    keeps(&mut crowd, "XDP was taken off")?;
    ensure!(!ipvs::entries(&node)?.is_empty(), "nothing went by IPVS");
    agent.kill()?;
    keeps(&mut crowd, "the agent was killed")?;
    agent.spawn()?;
    agent.wait_ready()?;
    let before = carried(&agent)?;
    keeps(&mut crowd, "the agent and XDP came back")?;
    ensure!(carried(&agent)?.all > before.all, "XDP carries nothing again: {}", agent.log());
    // A backend leaves: its connections go on until its time is over, the others for ever.
    gateways.serve("route", ",mh-port", &["b1", "b3", "b4"])?;
    wait_destinations(&node, gateways.frontend(), 3)?;
    let _gone = crowd.of("b2");
    keeps(&mut crowd, "a backend went")?;
    take_off(&agent, &node)?;
    keeps(&mut crowd, "XDP was taken off again")?;
    // Nobody wants a hash plane any more.
    agent.terminate()?;
    agent.set_options(&["--fast-path", "off"]);
    agent.spawn()?;
    agent.wait_ready()?;
    keeps(&mut crowd, "IPVS serves alone")?;
    wait_plane(&agent, "ipvs")?;
    Ok(())
}

/// IPVS has to know where flows live before its table says otherwise: nobody may be there any more to
/// tell it afterwards.
fn a_gateway_loses_no_flow_when_agent_and_xdp_end_as_a_backend_comes() -> Result<()> {
    let mut gateways = Gateways::build(3)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3"])?;
    gateways.route(&[Gateway::First])?;
    let mut agent = Agent::start(&gateways.topology, &gateways.manifests, OPTIONS)?;
    wait_plane(&agent, "hash")?;
    let mut crowd = gateways.connect_many(150)?;
    let node = gateways.topology.node.clone();
    ensure!(ipvs::entries(&node)?.is_empty(), "IPVS knows of flows that it shall be told of");
    gateways.add_backend(4)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3", "b4"])?;
    wait_destinations(&node, gateways.frontend(), 4)?;
    agent.kill()?;
    take_off(&agent, &node)?;
    ensure!(!ipvs::entries(&node)?.is_empty(), "IPVS was told of nothing");
    keeps(&mut crowd, "agent and XDP ended as a backend came")
}

/// Connections began without a hash plane, some of them before a backend came.
fn a_gateway_takes_over_what_ipvs_had_where_it_lives() -> Result<()> {
    let mut gateways = Gateways::build(2)?;
    gateways.serve("route", ",mh-port", &["b1", "b2"])?;
    gateways.route(&[Gateway::First])?;
    let mut agent = Agent::start(&gateways.topology, &gateways.manifests, &OPTIONS[..2])?;
    let mut crowd = gateways.connect_many(60)?;
    gateways.add_backend(3)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3"])?;
    wait_destinations(&gateways.topology.node, gateways.frontend(), 3)?;
    keeps(&mut crowd, "IPVS alone")?;
    agent.terminate()?;
    agent.set_options(OPTIONS);
    agent.spawn()?;
    agent.wait_ready()?;
    wait_plane(&agent, "hash")?;
    agent.wait_log(&["connections_adopted", &format!("{VIP}:{PORT}/TCP")])?;
    let before = carried(&agent)?;
    keeps(&mut crowd, "XDP took them over")?;
    // None is left to IPVS: no slot is marked.
    ensure!(counted(&agent, "asked")? == 0, "{:#}", agent.json("stats")?["hash_plane"]);
    ensure!(carried(&agent)?.all >= before.all + 120, "XDP carries few: {:?}", carried(&agent)?);
    Ok(())
}

/// IPVS counts none of its connections, and must not be taken at its word.
fn a_gateway_keeps_a_backend_that_leaves_while_xdp_has_flows_of_it() -> Result<()> {
    let gateways = Gateways::build(2)?;
    gateways.serve("route", ",mh-port", &["b1", "b2"])?;
    gateways.route(&[Gateway::First])?;
    let options: Vec<&str> = OPTIONS.iter().map(|word| long_drain(word)).collect();
    let agent = Agent::start(&gateways.topology, &gateways.manifests, &options)?;
    wait_plane(&agent, "hash")?;
    let mut crowd = gateways.connect_many(20)?;
    ensure!(crowd.spread().contains_key("b2"), "{:?}", crowd.spread());
    // What IPVS is told when the weight falls would count there: it shall not be.
    gateways.topology.node.run("ipvsadm", &["--stop-daemon", "backup"])?;
    gateways.serve("route", ",mh-port", &["b1"])?;
    wait_weight(&gateways, "b2", 0)?;
    wait::paced(Duration::from_secs(8), wait::BREATH, || keeps(&mut crowd, "b2 leaves"))?;
    let backend = (gateways.backends["b2"].address, PORT).into();
    let held = ipvs::destinations(&gateways.topology.node, (VIP, PORT).into())?;
    ensure!(held.is_some_and(|held| held.contains(&(backend, 0))), "b2 went: {}", agent.log());
    ensure!(ipvs::entries(&gateways.topology.node)?.is_empty(), "IPVS knows of flows");
    Ok(())
}

fn long_drain(word: &'static str) -> &'static str {
    if word == "5s" { "10m" } else { word }
}

/// Weight 0: what is open goes on, what is new goes to others, by XDP and by IPVS.
fn a_gateway_gives_new_flows_to_no_backend_that_drains() -> Result<()> {
    let gateways = Gateways::build(3)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3"])?;
    gateways.route(&[Gateway::First])?;
    let mut agent = Agent::start(&gateways.topology, &gateways.manifests, OPTIONS)?;
    wait_plane(&agent, "hash")?;
    let mut crowd = gateways.connect_many(60)?;
    ensure!(crowd.spread().contains_key("b2"), "{:?}", crowd.spread());
    gateways.drain("route", ",mh-port,mh-fallback", &["b1", "b2", "b3"], "b2")?;
    wait_weight(&gateways, "b2", 0)?;
    // IPVS goes first, XDP follows.
    wait::until_true("the hash plane follows", wait::PATIENCE, || {
        Ok(agent.log().matches("hash_plane_changed").count() >= 2)
    })?;
    keeps(&mut crowd, "a backend drains")?;
    let later = gateways.connect_many(60)?;
    ensure!(!later.spread().contains_key("b2"), "{:?}", later.spread());
    crowd.join(later);
    agent.kill()?;
    take_off(&agent, &gateways.topology.node)?;
    keeps(&mut crowd, "a backend drains, and IPVS is alone")?;
    let later = gateways.connect_many(60)?;
    ensure!(!later.spread().contains_key("b2"), "by IPVS: {:?}", later.spread());
    Ok(())
}

/// IPVS counts, so IPVS serves.
fn a_gateway_gives_no_backend_more_connections_than_its_limit() -> Result<()> {
    let gateways = Gateways::build(2)?;
    gateways.limit(&["b1", "b2"], 5)?;
    gateways.route(&[Gateway::First])?;
    let agent = Agent::start(&gateways.topology, &gateways.manifests, OPTIONS)?;
    let services = agent.json("services")?;
    let items = services["items"].as_array().context("no items")?;
    let reason = "counting connections is IPVS's";
    ensure!(items.iter().all(|each| each["plane_reason"] == reason), "{services:#}");
    let mut crowd = gateways.connect_many(10)?;
    let even = [("b1".to_owned(), 5), ("b2".to_owned(), 5)].into();
    ensure!(crowd.spread() == even, "{:?}", crowd.spread());
    ensure!(!gateways.is_answered()?, "an eleventh connection was answered");
    keeps(&mut crowd, "both backends are full")?;
    gateways.limit(&["b1", "b2"], 50)?;
    wait::until_true("there is room again", wait::PATIENCE, || gateways.is_answered())
}

/// A link to clients that is narrower than their segments say: the router tells the VIP.
fn a_gateway_passes_icmp_errors_to_the_backend_by_xdp_and_by_ipvs() -> Result<()> {
    let gateways = Gateways::build(2)?;
    gateways.serve("route", ",mh-port", &["b1", "b2"])?;
    gateways.route(&[Gateway::First])?;
    let servers = gateways
        .backends
        .iter()
        .map(|(name, backend)| HttpServer::start(&backend.host, (VIP, HTTP).into(), name));
    let _servers: Vec<HttpServer> = servers.collect::<Result<_>>()?;
    let mut agent = Agent::start(&gateways.topology, &gateways.manifests, OPTIONS)?;
    wait_plane(&agent, "hash")?;
    gateways.topology.outside.run("ip", &["link", "set", "clients", "mtu", "1300"])?;
    let download = || -> Result<()> {
        // What a backend learned of the path is forgotten: the next big packet is one too big.
        for backend in gateways.backends.values() {
            backend.host.run("ip", &["route", "flush", "cache"])?;
        }
        for _ in 0..4 {
            let mut connection = Connection::open(&gateways.client, (VIP, HTTP).into())?;
            let expected = Blob::of(BLOB).digest();
            ensure!(connection.download(BLOB, |_| {})? == expected, "another blob came");
        }
        Ok(())
    };
    download().context("by XDP")?;
    let errors = counted(&agent, "icmp_error")?;
    ensure!(errors > 0, "no error went by XDP: {:#}", agent.json("stats")?["hash_plane"]);
    agent.kill()?;
    take_off(&agent, &gateways.topology.node)?;
    download().context("by IPVS")?;
    Ok(())
}

fn a_gateway_runs_xdp_in_the_driver() -> Result<()> {
    let gateways = Gateways::build(2)?;
    gateways.serve("route", ",mh-port", &["b1", "b2"])?;
    gateways.route(&[Gateway::First])?;
    let bpffs = PathBuf::from(format!("{}-segment", gateways.topology.bpffs().display()));
    let _polling = Polling::at(&gateways.topology.outside, bpffs)?;
    let native: Vec<&str> = OPTIONS.iter().map(|word| native(word)).collect();
    let agent = Agent::start(&gateways.topology, &gateways.manifests, &native)?;
    wait_plane(&agent, "hash")?;
    let status = agent.status()?;
    ensure!(status["hash_plane"]["interfaces"][0]["mode"] == "native", "{status:#}");
    let mut crowd = gateways.connect_many(30)?;
    keeps(&mut crowd, "native XDP")?;
    let sent = carried(&agent)?;
    ensure!(sent.new >= 30 && sent.cached >= 60, "{sent:?}");
    take_off(&agent, &gateways.topology.node)?;
    keeps(&mut crowd, "native XDP was taken off")?;
    // Somebody else's doing is mended.
    agent.wait_log(&["hash_plane_detached"])?;
    wait::until_true("XDP carries again", wait::PATIENCE, || {
        let before = carried(&agent)?;
        keeps(&mut crowd, "native XDP came back")?;
        Ok(carried(&agent)?.cached >= before.cached + 60)
    })
}

fn native(word: &'static str) -> &'static str {
    if word == "generic" { "native" } else { word }
}

fn two_gateways_keep_every_connection_to_a_backend_that_lives() -> Result<()> {
    two_gateways_keep_every_connection(Family::V4)
}

fn two_gateways_keep_every_connection_to_a_backend_that_lives_over_ipv6() -> Result<()> {
    two_gateways_keep_every_connection(Family::V6)
}

fn two_gateways_keep_every_connection(family: Family) -> Result<()> {
    let mut gateways = Gateways::build_over(family, 4)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3", "b4"])?;
    gateways.route(&Gateways::both())?;
    let mut first = Agent::start(&gateways.topology, &gateways.manifests, OPTIONS)?;
    let mut second = gateways.second_agent(OPTIONS)?;
    second.spawn()?;
    second.wait_ready()?;
    for agent in [&first, &second] {
        wait_plane(agent, "hash")?;
    }
    let (one, two) = (gateways.topology.node.clone(), gateways.second.clone());
    let mut crowd = gateways.connect_many(CONNECTIONS - 100)?;
    keeps(&mut crowd, "both gateways")?;
    for agent in [&first, &second] {
        ensure!(carried(agent)?.new > 50, "a gateway had next to nothing: {:?}", carried(agent)?);
    }

    gateways.route(&[Gateway::Second])?;
    keeps(&mut crowd, "the first gateway went")?;
    gateways.route(&Gateways::both())?;
    keeps(&mut crowd, "the first gateway came back")?;

    gateways.add_backend(5)?;
    gateways.serve("route", ",mh-port", &["b1", "b2", "b3", "b4", "b5"])?;
    for gateway in [&one, &two] {
        wait_destinations(gateway, gateways.frontend(), 5)?;
    }
    crowd.join(gateways.connect_many(100)?);
    ensure!(crowd.len() == CONNECTIONS && crowd.spread().len() == 5, "{:?}", crowd.spread());
    keeps(&mut crowd, "a backend came")?;
    gateways.route(&[Gateway::First])?;
    keeps(&mut crowd, "then the second gateway went")?;
    gateways.route(&[Gateway::Second])?;
    keeps(&mut crowd, "then the first one instead")?;

    take_off(&second, &two)?;
    keeps(&mut crowd, "XDP of the second was taken off")?;
    second.kill()?;
    gateways.route(&Gateways::both())?;
    keeps(&mut crowd, "the second agent was killed")?;
    second.spawn()?;
    second.wait_ready()?;
    wait_plane(&second, "hash")?;
    keeps(&mut crowd, "the second agent and XDP came back")?;

    gateways.serve("route", ",mh-port", &["b1", "b3", "b4", "b5"])?;
    for gateway in [&one, &two] {
        wait_destinations(gateway, gateways.frontend(), 4)?;
    }
    let gone = crowd.of("b2").len();
    ensure!(gone > 0, "b2 had no connection");
    keeps(&mut crowd, "a backend went")?;
    gateways.route(&[Gateway::First])?;
    keeps(&mut crowd, "and the second gateway again")?;
    first.kill()?;
    take_off(&first, &one)?;
    keeps(&mut crowd, "and IPVS of the first alone")?;
    eprintln!(
        "two gateways, {family:?}: {} connections to backends that lived, 0 lost; {gone} to one that left",
        crowd.len()
    );
    Ok(())
}

/// Asks on all connections; none may be lost.
pub(crate) fn keeps(crowd: &mut Crowd, when: &str) -> Result<()> {
    // Twice: an answer that goes astray the first time is one that was lost the second time.
    for _ in 0..2 {
        let lost = crowd.lost()?;
        let (count, of) = (lost.len(), crowd.len());
        ensure!(lost.is_empty(), "{when}: {count} of {of} lost, e.g. {:?}", lost.first());
    }
    Ok(())
}

/// Removes the pin of the link, and with it the program from the interface.
fn take_off(agent: &Agent, gateway: &Namespace) -> Result<()> {
    let link = || -> Result<Value> {
        let text = gateway.run("ip", &["-j", "link", "show", "eth0"])?;
        Ok(serde_json::from_str::<Value>(&text)?[0].clone())
    };
    let index = link()?["ifindex"].as_u64().context("no ifindex")?;
    let pin = agent.pins().join("hash").join(format!("link-{index}"));
    std::fs::remove_file(&pin)?;
    // An agent that lives puts it back, sooner than a busy machine may look.
    let is_gone = || Ok(link()?["xdp"].is_null() || pin.exists());
    wait::until_true("XDP is gone", wait::PATIENCE, is_gone)
}

/// Waits until TCP of the Service is on a plane at all its addresses, without any but.
pub(crate) fn wait_plane(agent: &Agent, plane: &str) -> Result<()> {
    let port = format!(":{PORT}/TCP");
    wait::until_true(&format!("plane {plane} serves {port}"), wait::PATIENCE, || {
        let services = agent.json("services")?;
        let items = services["items"].as_array().context("no items")?;
        let of_port =
            |each: &&Value| each["frontend"].as_str().is_some_and(|at| at.ends_with(&port));
        let all = |each: &Value| each["plane"] == plane && each["plane_reason"].is_null();
        let mut found = items.iter().filter(of_port).peekable();
        Ok(found.peek().is_some() && found.all(all))
    })
    .with_context(|| agent.log())
}

pub(crate) fn wait_destinations(
    gateway: &Namespace,
    frontend: SocketAddr,
    count: usize,
) -> Result<()> {
    wait::until_true(&format!("{count} destinations"), wait::PATIENCE, || {
        Ok(ipvs::destinations(gateway, frontend)?.is_some_and(|found| found.len() == count))
    })
}

/// What XDP sent to backends.
#[derive(Debug)]
pub(crate) struct Carried {
    pub(crate) new: u64,
    pub(crate) cached: u64,
    pub(crate) all: u64,
}

pub(crate) fn carried(agent: &Agent) -> Result<Carried> {
    let of = |name: &str| counted(agent, name);
    let (new, cached) = (of("new")?, of("cached")?);
    Ok(Carried { new, cached, all: new + cached + of("stateless")? })
}

/// Returns how many packets were counted under a reason of the hash plane.
fn counted(agent: &Agent, reason: &str) -> Result<u64> {
    row_of(agent, reason)?["packets"].as_u64().with_context(|| format!("no {reason}"))
}

/// Returns what the statistics say of a reason of the hash plane.
pub(crate) fn row_of(agent: &Agent, reason: &str) -> Result<Value> {
    let stats = agent.json("stats")?;
    let rows = stats["hash_plane"].as_array().context("no hash plane in the statistics")?;
    let row = rows.iter().find(|row| row["reason"] == reason);
    row.cloned().with_context(|| format!("no {reason}"))
}

fn wait_weight(gateways: &Gateways, name: &str, weight: u32) -> Result<()> {
    let backend = (gateways.backends[name].address, PORT).into();
    wait::until_true(&format!("{name} has weight {weight}"), wait::PATIENCE, || {
        let found = ipvs::destinations(&gateways.topology.node, (VIP, PORT).into())?;
        Ok(found.is_some_and(|found| found.contains(&(backend, weight))))
    })
}
