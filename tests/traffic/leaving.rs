//! Endpoints that leave: what becomes of connections, and who gets new ones.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::cluster::{Client, Cluster, backends};
use proxy_tests::echo::{Caller, Outcome};
use proxy_tests::exposed::{Backend, Condition, Exposed, Family, Way};
use proxy_tests::http::Connection;
use proxy_tests::objects::{ServiceObject, WEB_FRONTEND};
use proxy_tests::stage::Stage;
use proxy_tests::topology::NODE_ADDRESSES;
use proxy_tests::{flows, ipvs, wait};
use proxy_userspace::model::Protocol;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    connections_outlive_the_readiness_of_their_endpoint_and_end_with_its_drain,
    endpoint_that_drains_under_a_hash_refuses_nobody,
}

const DRAIN: &str = "8s";
const DRAIN_TIME: Duration = Duration::from_secs(8);

/// A connection that a test keeps.
struct Held {
    what: String,
    caller: Caller,
}

/// Three classes to endpoint `a`, the first of them on the fast path.
const CLASSES: [(Client, Way, Family); 4] = [
    (Client::Pod, Way::ClusterIp, Family::V4),
    (Client::Pod, Way::ClusterIp, Family::V6),
    (Client::Outside, Way::NodePort, Family::V4),
    (Client::Host, Way::ClusterIp, Family::V4),
];

fn connections_outlive_the_readiness_of_their_endpoint_and_end_with_its_drain() -> Result<()> {
    let mut known = None;
    let cluster = Cluster::start(&["--drain-timeout", DRAIN], |topology| {
        let mut service = Exposed::new("web", 1, backends(topology, &["a", "b"])?);
        service.protocols = &[Protocol::Tcp];
        known = Some(service.clone());
        Ok(vec![service])
    })?;
    let mut service = known.context("the Service was not made")?;
    let mut held = hold_connections_to_a(&cluster, &service)?;

    service.backends[0].condition = Condition::NotReady;
    cluster.put(&service)?;
    go_on(&mut held).context("after a is not ready")?;
    new_ones_go_to(&cluster, &service, &["b"]).context("after a is not ready")?;

    service.backends[0].condition = Condition::Terminating;
    cluster.put(&service)?;
    go_on(&mut held).context("while a terminates")?;
    new_ones_go_to(&cluster, &service, &["b"]).context("while a terminates")?;

    terminating_serves_when_nobody_else_does(&cluster, &mut service)?;
    go_on(&mut held).context("while a and b terminate")?;

    let gone = Instant::now();
    let b: Vec<Backend> = service.backends.split_off(1);
    service.backends = b;
    cluster.put(&service)?;
    new_ones_go_to(&cluster, &service, &["b"]).context("after a is gone")?;
    for connection in &mut held {
        ends_with_the_drain(connection, gone)?;
    }
    Ok(())
}

/// Schedulers `mh` and `sh` go on giving clients to a destination of weight 0, and IPVS refuses them,
/// unless it may fall back. By port, so that one client is many.
fn endpoint_that_drains_under_a_hash_refuses_nobody() -> Result<()> {
    const CLIENTS: usize = 30;
    for scheduler in ["mh", "sh"] {
        let yaml = |octets: &[u8]| {
            let annotations = format!("{{passlane.io/scheduler: '{scheduler},{scheduler}-port'}}");
            ServiceObject::web(octets).yaml().replacen(
                "{name: web, ",
                &format!("{{name: web, annotations: {annotations}, "),
                1,
            )
        };
        let stage = Stage::without_agent(&["--drain-timeout", "5m"])?;
        stage.manifests.write("web.yaml", &yaml(&[11, 12, 13]))?;
        let stage = stage.started()?;
        let mut held = Connection::open(&stage.client()?, WEB_FRONTEND)?;
        let backend = held.get("/")?;
        let leaving = [("web-a", 11), ("web-b", 12), ("web-c", 13)];
        let stay: Vec<u8> =
            leaving.iter().filter(|(name, _)| *name != backend).map(|(_, octet)| *octet).collect();
        ensure!(stay.len() == 2, "{backend} is no endpoint");
        stage.manifests.write("web.yaml", &yaml(&stay))?;
        wait::until_true("it drains", wait::PATIENCE, || {
            let there = ipvs::destinations(&stage.topology.node, WEB_FRONTEND)?.unwrap_or_default();
            Ok(there.len() == 3 && there.iter().any(|(_, weight)| *weight == 0))
        })?;
        let answers = stage
            .short_requests(WEB_FRONTEND, CLIENTS)
            .with_context(|| format!("{scheduler}: while {backend} drains"))?;
        ensure!(!answers.contains(&backend), "{scheduler}: {backend} drains and got new clients");
        ensure!(held.get("/")? == backend, "{scheduler}: the held connection moved");
    }
    Ok(())
}

fn hold_connections_to_a(cluster: &Cluster, service: &Exposed) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for (client, way, family) in CLASSES {
        let to = service.frontend(way, family, NODE_ADDRESSES);
        let what = format!("{client:?} to {to}");
        let dial = cluster.dial(client, Protocol::Tcp, to)?;
        let mut caller = wait::until("a connection leads to a", wait::PATIENCE, || {
            let mut caller = dial.caller()?;
            Ok((caller.answer()?.by == "a").then_some(caller))
        })?;
        if family == Family::V4 && client != Client::Host {
            let local = caller.local()?;
            flows::drive(&cluster.agent, local, to, || caller.answer().map(drop))?;
        }
        held.push(Held { what, caller });
    }
    Ok(held)
}

fn go_on(held: &mut [Held]) -> Result<()> {
    for Held { what, caller } in held {
        for _ in 0..10 {
            let by = caller.answer().with_context(|| what.clone())?.by;
            ensure!(by == "a", "{what}: {by} answers on a connection to a");
        }
    }
    Ok(())
}

fn new_ones_go_to(cluster: &Cluster, service: &Exposed, pods: &[&str]) -> Result<()> {
    for (client, way, family) in CLASSES {
        let to = service.frontend(way, family, NODE_ADDRESSES);
        let dial = cluster.dial(client, Protocol::Tcp, to)?;
        let mut found = std::collections::BTreeSet::new();
        for _ in 0..4 {
            found.insert(dial.answer().with_context(|| format!("{client:?} to {to}"))?.by);
        }
        ensure!(found.iter().eq(pods), "{client:?} to {to}: {found:?} answer");
    }
    Ok(())
}

/// KEP-1669.
fn terminating_serves_when_nobody_else_does(
    cluster: &Cluster,
    service: &mut Exposed,
) -> Result<()> {
    service.backends[1].condition = Condition::Terminating;
    cluster.put(service)?;
    new_ones_go_to(cluster, service, &["a", "b"]).context("while both terminate")?;
    service.backends[1].condition = Condition::Ready;
    cluster.put(service)?;
    new_ones_go_to(cluster, service, &["b"]).context("while only a terminates")
}

/// A connection goes on until its drain is over, and is then ended, not left in silence.
fn ends_with_the_drain(Held { what, caller }: &mut Held, gone: Instant) -> Result<()> {
    let outcome = wait::until("the connection ends", wait::PATIENCE, || {
        let outcome = caller.ask()?;
        let over = outcome.answer().is_none_or(|answer| answer.by != "a");
        Ok(over.then_some(outcome))
    })
    .with_context(|| what.clone())?;
    let lasted = gone.elapsed();
    ensure!(lasted >= DRAIN_TIME, "{what}: {outcome} {lasted:?} after a was gone");
    ensure!(outcome == Outcome::Reset, "{what}: not ended but {outcome}");
    Ok(())
}
