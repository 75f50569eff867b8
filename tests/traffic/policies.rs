//! Every class of traffic under every traffic policy: who serves it, and as whom.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::cluster::{self, Client, Cluster, ZONE, backends};
use proxy_tests::echo::{EchoServer, Outcome};
use proxy_tests::exposed::{Exposed, Family, Way, load_balancer_ips};
use proxy_tests::topology::{NODE_ADDRESSES, Topology};
use proxy_userspace::model::Protocol;

use crate::promise::{Expected, Promise, check, rows};
use crate::scenario::{AGENT, Need, Scenario, scenario};

pub(crate) const SCENARIOS: &[Scenario] = &[
    scenario!(AGENT => traffic_policies_decide_who_serves_each_class_and_as_whom),
    scenario!(AGENT => pods_that_the_cluster_range_tells_reach_all_endpoints_of_a_local_service),
    scenario!(AGENT_AND_SCTP => sctp_is_served_and_refused_in_every_class),
];

const AGENT_AND_SCTP: &[Need] = &[
    Need::Root,
    Need::Ipvs,
    Need::Agent,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
    Need::Program("conntrack"),
    Need::Sctp,
];

use Expected::{Kept, Masqueraded, Refused, Silence};

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Pods `a` and `b` are on the node of the agent, `c` is on the other one.
struct Case {
    name: &'static str,
    external_local: bool,
    internal_local: bool,
    pods: &'static [&'static str],
    promise: Promise,
}

const CASES: &[Case] = &[
    Case {
        name: "all",
        external_local: false,
        internal_local: false,
        pods: &["a", "b", "c"],
        promise: Promise {
            pod_to_cluster_ip: Kept(&["a", "b", "c"]),
            ..Promise::all(Masqueraded(&["a", "b", "c"]))
        },
    },
    Case {
        name: "external-local",
        external_local: true,
        internal_local: false,
        pods: &["a", "c"],
        promise: Promise {
            pod_to_cluster_ip: Kept(&["a", "c"]),
            host_to_cluster_ip: Masqueraded(&["a", "c"]),
            outside: Kept(&["a"]),
            // Without a way to tell pods from others, pods are others.
            pod: Kept(&["a"]),
            host: Masqueraded(&["a", "c"]),
        },
    },
    Case {
        name: "external-local-remote-only",
        external_local: true,
        internal_local: false,
        pods: &["c"],
        promise: Promise {
            pod_to_cluster_ip: Kept(&["c"]),
            host_to_cluster_ip: Masqueraded(&["c"]),
            outside: Silence,
            pod: Silence,
            host: Masqueraded(&["c"]),
        },
    },
    Case {
        name: "internal-local",
        external_local: false,
        internal_local: true,
        pods: &["a", "c"],
        promise: Promise {
            pod_to_cluster_ip: Kept(&["a"]),
            host_to_cluster_ip: Masqueraded(&["a"]),
            ..Promise::all(Masqueraded(&["a", "c"]))
        },
    },
    Case {
        name: "internal-local-remote-only",
        external_local: false,
        internal_local: true,
        pods: &["c"],
        promise: Promise {
            pod_to_cluster_ip: Silence,
            host_to_cluster_ip: Silence,
            ..Promise::all(Masqueraded(&["c"]))
        },
    },
    Case {
        name: "both-local",
        external_local: true,
        internal_local: true,
        pods: &["a", "c"],
        promise: Promise {
            pod_to_cluster_ip: Kept(&["a"]),
            host_to_cluster_ip: Masqueraded(&["a"]),
            outside: Kept(&["a"]),
            pod: Kept(&["a"]),
            host: Masqueraded(&["a", "c"]),
        },
    },
    Case {
        name: "both-local-remote-only",
        external_local: true,
        internal_local: true,
        pods: &["c"],
        promise: Promise { host: Masqueraded(&["c"]), ..Promise::all(Silence) },
    },
    Case {
        name: "without-endpoints",
        external_local: false,
        internal_local: false,
        pods: &[],
        promise: Promise::all(Refused),
    },
    Case {
        name: "both-local-without-endpoints",
        external_local: true,
        internal_local: true,
        pods: &[],
        promise: Promise::all(Refused),
    },
];

fn services(topology: &Topology, protocols: &'static [Protocol]) -> Result<Vec<Exposed>> {
    let numbered = CASES.iter().zip(1..);
    let services = numbered.map(|(case, number)| {
        let mut service = Exposed::new(case.name, number, backends(topology, case.pods)?);
        service.protocols = protocols;
        service.external_local = case.external_local;
        service.internal_local = case.internal_local;
        Ok(service)
    });
    services.collect()
}

fn traffic_policies_decide_who_serves_each_class_and_as_whom() -> Result<()> {
    let mut known = Vec::new();
    let cluster = Cluster::start(&[], |topology| {
        known = services(topology, &PROTOCOLS)?;
        let mut all = known.clone();
        all.push(zoned(topology)?);
        Ok(all)
    })?;
    let classes = known.iter().zip(CASES);
    let mut table: Vec<_> =
        classes.flat_map(|(service, case)| rows(service, &case.promise, &PROTOCOLS)).collect();
    let zoned = zoned(&cluster.topology)?;
    let near = Promise { pod_to_cluster_ip: Kept(&["a"]), ..Promise::all(Masqueraded(&["a"])) };
    table.extend(rows(&zoned, &near, &[Protocol::Tcp]));
    check(&cluster, &table)?;
    ports_of_vips_without_service_are_refused(&cluster, &known[0])
}

/// k8s#93456: with a way to tell pods from others, they are inside: policy Local is not for them, and
/// their source is kept.
fn pods_that_the_cluster_range_tells_reach_all_endpoints_of_a_local_service() -> Result<()> {
    let mut known = Vec::new();
    let flags = ["--detect-local-mode=ClusterCIDR", "--cluster-cidr=10.1.0.0/16,fd00:10:1::/48"];
    let cluster = Cluster::start(&flags, |topology| {
        known = services(topology, &PROTOCOLS)?;
        Ok(known.clone())
    })?;
    let mut table = Vec::new();
    for (name, all) in [
        ("external-local", &["a", "c"][..]),
        ("external-local-remote-only", &["c"]),
        ("both-local", &["a", "c"]),
        ("both-local-remote-only", &["c"]),
    ] {
        let position = CASES.iter().position(|case| case.name == name).context(name)?;
        let promise = Promise { pod: Kept(all), ..CASES[position].promise };
        table.extend(rows(&known[position], &promise, &PROTOCOLS));
    }
    check(&cluster, &table)
}

/// Hints for zones: only `a` is meant for this one.
fn zoned(topology: &Topology) -> Result<Exposed> {
    let mut zoned = Exposed::new("zoned", 100, backends(topology, &["a", "b", "c"])?);
    for (backend, zone) in zoned.backends.iter_mut().zip([ZONE, "elsewhere", "elsewhere"]) {
        backend.zone_hint = Some(zone);
    }
    Ok(zoned)
}

/// A port of a VIP that belongs to no Service is refused, although a process of the node listens on
/// that port of every address.
fn ports_of_vips_without_service_are_refused(cluster: &Cluster, service: &Exposed) -> Result<()> {
    const UNASSIGNED: u16 = 8081;
    let _host = EchoServer::start(&cluster.topology.node, UNASSIGNED, "host", &PROTOCOLS)?;
    let ask = |client, protocol, address: IpAddr| {
        cluster.dial(client, protocol, SocketAddr::new(address, UNASSIGNED))?.ask()
    };
    for family in Family::BOTH {
        for protocol in PROTOCOLS {
            let node = ask(Client::Pod, protocol, family.of(NODE_ADDRESSES))?;
            let served = node.answer().is_some_and(|answer| answer.by == "host");
            ensure!(served, "{protocol} IP{family:?}: it listens, but not on the VIPs: {node}");
            for client in [Client::Pod, Client::Host, Client::Outside] {
                for vips in [service.cluster_ips(), load_balancer_ips(service.number)] {
                    let vip = family.of(vips);
                    let outcome = ask(client, protocol, vip)?;
                    ensure!(
                        outcome == Outcome::Refused,
                        "{client:?} to {protocol} {vip} port {UNASSIGNED}: {outcome}"
                    );
                }
            }
        }
    }
    Ok(())
}

fn sctp_is_served_and_refused_in_every_class() -> Result<()> {
    let mut known = Vec::new();
    let cluster = Cluster::start(&[], |topology| {
        known = services(topology, &[Protocol::Sctp])?;
        Ok(known.clone())
    })?;
    let find = |name: &str| {
        let position = CASES.iter().position(|case| case.name == name);
        position.map(|position| (&known[position], &CASES[position])).context(name.to_owned())
    };
    let mut table = Vec::new();
    for name in ["all", "external-local"] {
        let (service, case) = find(name)?;
        table.extend(rows(service, &case.promise, &[Protocol::Sctp]));
    }
    // An SCTP client takes ICMP port unreachable for a passing fault and goes on asking.
    let (service, _) = find("without-endpoints")?;
    let refused = rows(service, &Promise::all(Silence), &[Protocol::Sctp]);
    table.extend(refused.into_iter().filter(|row| row.way != Way::ExternalIp));
    ensure!(cluster::has_sctp(), "the scenario was started without SCTP");
    check(&cluster, &table)
}
