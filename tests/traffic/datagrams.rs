//! UDP has no connections that could end: a client that keeps its socket has to be moved.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::cluster::{Client, Cluster, backend};
use proxy_tests::echo::{Caller, Outcome};
use proxy_tests::exposed::{Exposed, Family, Way};
use proxy_tests::topology::NODE_ADDRESSES;
use proxy_tests::{flows, wait};
use proxy_userspace::model::Protocol;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    udp_client_that_keeps_its_socket_follows_the_endpoints,
}

/// Changes that are timed.
const CHANGES: usize = 24;
/// Between two questions of a client that waits for its new endpoint.
const PACE: Duration = Duration::from_millis(2);
/// How long such a client waits for an answer before it asks anew.
const ANSWER: Duration = Duration::from_millis(10);

/// Clients that keep their socket.
const CLASSES: [(Client, Way, Family); 5] = [
    (Client::Pod, Way::ClusterIp, Family::V4),
    (Client::Pod, Way::ClusterIp, Family::V6),
    (Client::Outside, Way::NodePort, Family::V4),
    (Client::Outside, Way::LoadBalancer, Family::V6),
    (Client::Host, Way::ClusterIp, Family::V4),
];

fn udp_client_that_keeps_its_socket_follows_the_endpoints() -> Result<()> {
    let mut known = None;
    let cluster = Cluster::start(&[], |_| {
        let mut service = Exposed::new("dns", 1, Vec::new());
        service.protocols = &[Protocol::Udp];
        known = Some(service.clone());
        Ok(vec![service])
    })?;
    let mut service = known.context("the Service was not made")?;
    let mut callers = Vec::new();
    for (client, way, family) in CLASSES {
        let to = service.frontend(way, family, NODE_ADDRESSES);
        let mut caller = cluster.dial(client, Protocol::Udp, to)?.caller()?;
        caller.set_patience(Duration::from_secs(2));
        for _ in 0..3 {
            let outcome = caller.ask()?;
            ensure!(outcome == Outcome::Refused, "{client:?} to {to}, no endpoint: {outcome}");
        }
        callers.push((format!("{client:?} to {to}"), to, caller));
    }

    service.backends = vec![backend(&cluster.topology, "a")?];
    cluster.put(&service)?;
    for (what, _, caller) in &mut callers {
        let by = caller.answer().with_context(|| format!("{what}, first endpoint"))?.by;
        ensure!(by == "a", "{what}: {by} answers");
    }

    let (_, to, caller) = &mut callers[0];
    let local = caller.local()?;
    flows::drive(&cluster.agent, local, *to, || caller.answer().map(drop))?;
    for (pod, before) in [("b", "a"), ("c", "b"), ("a", "c")] {
        service.backends = vec![backend(&cluster.topology, pod)?];
        cluster.put(&service)?;
        for (what, _, caller) in &mut callers {
            let by = caller.answer().with_context(|| format!("{what}, from {before} to {pod}"))?.by;
            ensure!(by == pod, "{what}: {by} answers after the change from {before} to {pod}");
        }
    }
    let (_, to, caller) = &mut callers[0];
    let mut times = Vec::new();
    for number in 0..CHANGES {
        let pod = if number % 2 == 0 { "b" } else { "a" };
        service.backends = vec![backend(&cluster.topology, pod)?];
        times.push(time_of_move(&cluster, &service, caller, pod)?);
    }
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    eprintln!(
        "UDP {to}: from a change of the file to the new endpoint's first answer, {CHANGES} \
         changes: median {:?}, p99 {:?}; the agent's last passes: {} ms",
        at(0.5),
        at(0.99),
        durations_of_passes(&cluster.agent.log()).join(", ")
    );
    Ok(())
}

/// Writes the Service and returns the time until `pod` answers.
fn time_of_move(
    cluster: &Cluster,
    service: &Exposed,
    caller: &mut Caller,
    pod: &str,
) -> Result<Duration> {
    caller.set_patience(ANSWER);
    let start = Instant::now();
    cluster.write(service)?;
    while start.elapsed() < wait::PATIENCE {
        if caller.ask()?.answer().is_some_and(|answer| answer.by == pod) {
            return Ok(start.elapsed());
        }
        wait::pause(PACE);
    }
    anyhow::bail!("{pod} does not answer")
}

/// How long the last passes took that changed something, in milliseconds, the last first.
fn durations_of_passes(log: &str) -> Vec<&str> {
    let words = log.split_whitespace().filter_map(|word| word.strip_prefix("duration_ms="));
    let mut all: Vec<_> = words.collect();
    all.reverse();
    all.truncate(6);
    all
}
