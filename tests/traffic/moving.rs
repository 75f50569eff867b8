//! Services and endpoints that move under load: no request fails.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_tests::cluster::{Client, Cluster, backend, backends};
use proxy_tests::exposed::{Condition, Exposed, Family, Way, load_balancer_ips};
use proxy_tests::topology::NODE_ADDRESSES;
use proxy_tests::{process, wait};
use proxy_userspace::model::Protocol;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    services_and_endpoints_move_without_a_failed_request,
}

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(20);

/// A client: where it is, what it dials, and how.
type Class = (Client, Way, Family, Protocol);

const OF_THE_UPDATE: [Class; 6] = [
    (Client::Pod, Way::ClusterIp, Family::V4, Protocol::Tcp),
    (Client::Pod, Way::ClusterIp, Family::V6, Protocol::Tcp),
    (Client::Outside, Way::NodePort, Family::V4, Protocol::Tcp),
    (Client::Outside, Way::LoadBalancer, Family::V6, Protocol::Tcp),
    (Client::Host, Way::ClusterIp, Family::V4, Protocol::Tcp),
    (Client::Pod, Way::ClusterIp, Family::V4, Protocol::Udp),
];

const OF_THE_MOVE: [Class; 3] = [
    (Client::Outside, Way::LoadBalancer, Family::V4, Protocol::Tcp),
    (Client::Outside, Way::LoadBalancer, Family::V6, Protocol::Tcp),
    (Client::Pod, Way::LoadBalancer, Family::V4, Protocol::Tcp),
];

fn services_and_endpoints_move_without_a_failed_request() -> Result<()> {
    let mut known = None;
    let cluster = Cluster::start(&[], |topology| {
        let web = Exposed::new("web", 1, backends(topology, &["a", "b", "c"])?);
        known = Some(web.clone());
        Ok(vec![web])
    })?;
    rolling_update(&cluster, known.context("the Service was not made")?)?;
    load_balancer_ip_moves(&cluster)
}

/// Replaces three endpoints one by one, and stops the server of each that is gone.
fn rolling_update(cluster: &Cluster, mut service: Exposed) -> Result<()> {
    let dialled = service.clone();
    under_load(cluster, &dialled, &OF_THE_UPDATE, || {
        for (old, new) in [("a", "d"), ("b", "e"), ("c", "f")] {
            service.backends.push(backend(&cluster.topology, new)?);
            service.backends[0].condition = Condition::Terminating;
            cluster.put(&service).with_context(|| format!("{new} comes, {old} terminates"))?;
            service.backends.remove(0);
            cluster.put(&service).with_context(|| format!("{old} goes"))?;
            cluster.stop(old);
        }
        Ok(())
    })?;
    let after = under_load(cluster, &dialled, &OF_THE_UPDATE, || Ok(()))?;
    ensure!(after.iter().eq(&["d", "e", "f"]), "after the update {after:?} answer");
    Ok(())
}

/// Two Services of which one has the load-balancer IPs, until the other has them: one change.
fn load_balancer_ip_moves(cluster: &Cluster) -> Result<()> {
    let mut blue = Exposed::new("blue", 2, backends(&cluster.topology, &["d"])?);
    let mut green = Exposed::new("green", 3, backends(&cluster.topology, &["e"])?);
    let moving = load_balancer_ips(blue.number).to_vec();
    blue.protocols = &[Protocol::Tcp];
    green.protocols = &[Protocol::Tcp];
    let dialled = blue.clone();
    green.load_balancer = Some(Vec::new());
    cluster.put_all("moving.yaml", &[&blue, &green])?;
    for to_green in [true, false, true, false] {
        under_load(cluster, &dialled, &OF_THE_MOVE, || {
            let (given, taken) =
                if to_green { (&mut green, &mut blue) } else { (&mut blue, &mut green) };
            given.load_balancer = Some(moving.clone());
            taken.load_balancer = Some(Vec::new());
            cluster.put_all("moving.yaml", &[&blue, &green])
        })?;
        let owner = if to_green { "e" } else { "d" };
        let after = under_load(cluster, &dialled, &OF_THE_MOVE, || Ok(()))?;
        ensure!(after.iter().eq(&[owner]), "after the move {after:?} answer, not {owner}");
    }
    Ok(())
}

/// Does `work` while clients of all classes dial anew for each request. Returns who answered;
/// errs when a single request had no answer.
fn under_load(
    cluster: &Cluster,
    service: &Exposed,
    classes: &[Class],
    work: impl FnOnce() -> Result<()>,
) -> Result<BTreeSet<String>> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = classes
            .iter()
            .map(|class| scope.spawn(|| request_until(cluster, service, class, &stop)))
            .collect();
        let worked = work();
        stop.store(true, Ordering::Relaxed);
        let mut seen = BTreeSet::new();
        for client in clients {
            seen.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        worked.map(|()| seen)
    })
}

/// Asks at least as often as there are endpoints.
fn request_until(
    cluster: &Cluster,
    service: &Exposed,
    class: &Class,
    stop: &AtomicBool,
) -> Result<BTreeSet<String>> {
    const LEAST: u32 = 6;
    process::give_way();
    let &(client, way, family, protocol) = class;
    let to = service.frontend(way, family, NODE_ADDRESSES);
    let dial = cluster.dial(client, protocol, to)?;
    let mut seen = BTreeSet::new();
    let mut asked = 0;
    while asked < LEAST || !stop.load(Ordering::Relaxed) {
        asked += 1;
        let answer = dial.answer();
        let answer = answer.with_context(|| format!("{client:?} to {to}, request {asked}"))?;
        seen.insert(answer.by);
        wait::pause(PACE);
    }
    Ok(seen)
}
