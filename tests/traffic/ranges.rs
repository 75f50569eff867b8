//! `loadBalancerSourceRanges` and session affinity: who may, and where he stays.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::cluster::{Client, Cluster, STRANGER, backends};
use proxy_tests::echo::Outcome;
use proxy_tests::exposed::{Exposed, Family, Way};
use proxy_tests::topology::{NODE_ADDRESSES, Topology};
use proxy_tests::{process, wait};
use proxy_userspace::model::Protocol;

use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    source_ranges_admit_whom_they_name_and_a_change_opens_to_nobody_else,
    a_client_with_affinity_stays_with_its_endpoint_until_that_goes,
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
/// How long a client waits that should hear nothing.
const SILENCE: Duration = Duration::from_secs(2);

/// Ranges, and of these who may: outside host, stranger, pod, host process.
const ADMISSIONS: &[(&str, &[&str], [bool; 4])] = &[
    ("for-outside", &["172.20.0.2/32", "fd00:20::2/128"], [true, false, false, false]),
    ("for-pods", &["10.1.1.0/24", "fd00:10:1:1::/64"], [false, false, true, false]),
    ("for-node", &["172.20.0.1/32", "fd00:20::1/128"], [false, false, false, true]),
];

fn ranged(topology: &Topology, name: &'static str, number: u8, ranges: &[&str]) -> Result<Exposed> {
    let mut service = Exposed::new(name, number, backends(topology, &["a", "c"])?);
    service.ranges = ranges.iter().map(|&range| range.to_owned()).collect();
    Ok(service)
}

fn source_ranges_admit_whom_they_name_and_a_change_opens_to_nobody_else() -> Result<()> {
    let mut services = Vec::new();
    let cluster = Cluster::start(&[], |topology| {
        for ((name, ranges, _), number) in ADMISSIONS.iter().zip(1..) {
            services.push(ranged(topology, name, number, ranges)?);
        }
        Ok(services.clone())
    })?;
    let mut asked = Vec::new();
    for (service, (_, _, admitted)) in services.iter().zip(ADMISSIONS) {
        for (who, admitted) in (0..).zip(admitted) {
            for family in Family::BOTH {
                asked.extend(PROTOCOLS.map(|protocol| (service, who, family, protocol, *admitted)));
            }
        }
    }
    // Side by side, because those who are not admitted wait.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> = asked
            .iter()
            .map(|&(service, who, family, protocol, admitted)| {
                let cluster = &cluster;
                scope.spawn(move || {
                    let outcome = ask_as(cluster, who, service, family, protocol, admitted);
                    let right = outcome.as_ref().is_ok_and(|outcome| match outcome {
                        Outcome::Answered(_) => admitted,
                        outcome => !admitted && *outcome == Outcome::Silence,
                    });
                    let name = service.name;
                    let what =
                        || format!("{name}: client {who}, {protocol} IP{family:?}: {outcome:?}");
                    (!right).then(what)
                })
            })
            .collect();
        asking.into_iter().filter_map(|thread| thread.join().unwrap_or(None)).collect()
    });
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    other_ways_have_no_ranges(&cluster, &services[0])?;
    a_change_opens_to_nobody_else(&cluster, &services[0])
}

/// Client 0 is the outside host, 1 a stranger beside it, 2 a pod, 3 a process of the node.
fn ask_as(
    cluster: &Cluster,
    who: usize,
    service: &Exposed,
    family: Family,
    protocol: Protocol,
    admitted: bool,
) -> Result<Outcome> {
    let clients = [Client::Outside, Client::Outside, Client::Pod, Client::Host];
    let to = service.frontend(Way::LoadBalancer, family, NODE_ADDRESSES);
    let mut dial = cluster.dial(clients[who], protocol, to)?;
    if who == 1 {
        dial = dial.from(family.of(STRANGER));
    }
    if !admitted {
        dial = dial.within(SILENCE);
    }
    dial.ask()
}

fn other_ways_have_no_ranges(cluster: &Cluster, service: &Exposed) -> Result<()> {
    for family in Family::BOTH {
        let to = |way| service.frontend(way, family, NODE_ADDRESSES);
        let stranger = cluster.dial(Client::Outside, Protocol::Tcp, to(Way::NodePort))?;
        stranger.from(family.of(STRANGER)).answer().context("a stranger to the node port")?;
        let pod = cluster.dial(Client::Pod, Protocol::Tcp, to(Way::ClusterIp))?;
        pod.answer().context("a pod to the cluster IP")?;
    }
    Ok(())
}

/// Changes the ranges again and again, while a stranger whom none of them names and a client whom
/// all of them name dial without pause.
fn a_change_opens_to_nobody_else(cluster: &Cluster, service: &Exposed) -> Result<()> {
    const RANGES: [&[&str]; 4] = [
        &["172.20.0.0/26", "fd00:20::/122"],
        &["172.20.0.2/32", "10.77.0.0/16", "fd00:20::2/128", "fd00:77::/32"],
        &["172.20.0.0/27", "172.20.0.2/32", "fd00:20::/123"],
        &["172.20.0.2/32", "fd00:20::2/128"],
    ];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut dialling = Vec::new();
        for family in Family::BOTH {
            for protocol in PROTOCOLS {
                for admitted in [true, false] {
                    let stop = &stop;
                    let dial = move || dial_on(cluster, service, family, protocol, admitted, stop);
                    dialling.push(scope.spawn(dial));
                }
            }
        }
        let changed = (0..3).flat_map(|_| RANGES).try_for_each(|ranges| {
            let mut service = service.clone();
            service.ranges = ranges.iter().map(|&range| range.to_owned()).collect();
            cluster.put(&service)
        });
        stop.store(true, Ordering::Relaxed);
        for thread in dialling {
            let attempts = thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            ensure!(attempts >= 3, "only {attempts} attempts during the changes");
        }
        changed
    })
}

/// Dials until told to stop; returns how often.
fn dial_on(
    cluster: &Cluster,
    service: &Exposed,
    family: Family,
    protocol: Protocol,
    admitted: bool,
    stop: &AtomicBool,
) -> Result<u32> {
    process::give_way();
    let to = service.frontend(Way::LoadBalancer, family, NODE_ADDRESSES);
    let mut dial = cluster.dial(Client::Outside, protocol, to)?;
    if !admitted {
        dial = dial.from(family.of(STRANGER)).within(Duration::from_millis(200));
    }
    let mut attempts = 0;
    while !stop.load(Ordering::Relaxed) {
        let outcome = dial.ask()?;
        let right = outcome.answer().is_some() == admitted;
        ensure!(right, "attempt {attempts} of {protocol} to {to}, admitted {admitted}: {outcome}");
        attempts += 1;
        wait::pause(Duration::from_millis(20));
    }
    Ok(attempts)
}

fn a_client_with_affinity_stays_with_its_endpoint_until_that_goes() -> Result<()> {
    let mut known = None;
    let cluster = Cluster::start(&[], |topology| {
        let mut sticky = Exposed::new("sticky", 1, backends(topology, &["a", "b", "c"])?);
        sticky.sticky = true;
        known = Some(sticky.clone());
        Ok(vec![sticky])
    })?;
    let mut service = known.context("the Service was not made")?;
    let ways = [
        (Client::Pod, Way::ClusterIp),
        (Client::Outside, Way::NodePort),
        (Client::Outside, Way::LoadBalancer),
        (Client::Host, Way::ClusterIp),
    ];
    let mut classes = Vec::new();
    for (client, way) in ways {
        for family in Family::BOTH {
            classes.extend(PROTOCOLS.map(|protocol| (client, way, family, protocol)));
        }
    }
    let asked = |service: &Exposed| -> Result<Vec<String>> {
        let each = classes.iter().map(|&(client, way, family, protocol)| {
            let to = service.frontend(way, family, NODE_ADDRESSES);
            let dial = cluster.dial(client, protocol, to)?;
            let first = dial.answer().with_context(|| format!("{client:?} {protocol} {to}"))?.by;
            for _ in 0..4 {
                let next = dial.answer()?.by;
                ensure!(next == first, "{client:?} {protocol} {to}: {first}, then {next}");
            }
            Ok(first)
        });
        each.collect()
    };
    let before = asked(&service)?;
    two_clients_get_two_endpoints(&cluster, &service)?;
    // The endpoint of the first class goes, and with it that of others.
    let gone = before[0].clone();
    let gone_at: [IpAddr; 2] = cluster.topology.pod(&gone)?.addresses();
    service.backends.retain(|backend| backend.addresses != gone_at);
    cluster.put(&service)?;
    let after = asked(&service)?;
    for ((class, before), after) in classes.iter().zip(&before).zip(&after) {
        ensure!(*after != gone, "{class:?}: {gone} is gone and still answers");
        ensure!(
            *before == gone || before == after,
            "{class:?}: {before} is there, {after} answers"
        );
    }
    Ok(())
}

fn two_clients_get_two_endpoints(cluster: &Cluster, service: &Exposed) -> Result<()> {
    let to = service.frontend(Way::ClusterIp, Family::V4, NODE_ADDRESSES);
    let first = cluster.dial(Client::Pod, Protocol::Tcp, to)?.answer()?.by;
    let mut dial = cluster.dial(Client::Pod, Protocol::Tcp, to)?;
    dial.namespace = &cluster.topology.pod("other")?.namespace;
    let second = dial.answer()?.by;
    ensure!(first != second, "affinity is by client: both have {first}");
    Ok(())
}
