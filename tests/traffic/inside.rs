//! Who counts as inside the cluster, in each way to tell, and what load balancers are told.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxy_tests::cluster::{Client, Cluster, backend, backends};
use proxy_tests::exposed::{Exposed, Family, Way};
use proxy_tests::http::get_once;
use proxy_tests::topology::NODE_ADDRESSES;
use proxy_tests::wait;
use proxy_userspace::model::Protocol;

use crate::promise::{Expected, Row, check};
use crate::scenario::{AGENT, scenarios};

scenarios! { AGENT =>
    who_is_inside_the_cluster_is_told_in_every_way_and_who_is_not_is_masqueraded,
    load_balancers_are_told_how_many_endpoints_the_node_has,
}

use Expected::{Kept, Masqueraded};

/// A way to tell, and what the endpoints of a cluster IP see of a pod. Of an outside client they see
/// an address of the node, where somebody tells: it would hear from the other node otherwise, which
/// it did not ask.
struct Mode {
    flags: &'static [&'static str],
    pod: Expected,
    outsiders_are_known: bool,
    /// Pods that dial a load-balancer IP of policy Local count as inside.
    pods_are_inside: bool,
}

const ALL: &[&str] = &["a", "c"];

const fn by(flags: &'static [&'static str]) -> Mode {
    Mode { flags, pod: Kept(ALL), outsiders_are_known: true, pods_are_inside: true }
}

const MODES: &[Mode] = &[
    Mode { outsiders_are_known: false, pods_are_inside: false, ..by(&[]) },
    by(&["--detect-local-mode=ClusterCIDR", "--cluster-cidr=10.1.0.0/16,fd00:10:1::/48"]),
    by(&["--detect-local-mode=NodeCIDR"]),
    by(&["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=v-client"]),
    by(&["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=v-"]),
    Mode { pod: Masqueraded(ALL), pods_are_inside: false, ..by(&["--masquerade-all"]) },
];

fn who_is_inside_the_cluster_is_told_in_every_way_and_who_is_not_is_masqueraded() -> Result<()> {
    let mut known = None;
    let mut cluster = Cluster::start(&[], |topology| {
        let mut service = Exposed::new("web", 1, backends(topology, ALL)?);
        service.external_local = true;
        known = Some(service.clone());
        Ok(vec![service])
    })?;
    let service = known.context("the Service was not made")?;
    for mode in MODES {
        cluster.agent.terminate()?;
        cluster.agent.set_options(mode.flags);
        cluster.agent.spawn()?;
        cluster.agent.wait_ready()?;
        let local = if mode.pods_are_inside { Kept(ALL) } else { Kept(&["a"]) };
        let classes = [
            (Client::Pod, Way::ClusterIp, mode.pod),
            (Client::Outside, Way::ClusterIp, Masqueraded(ALL)),
            (Client::Pod, Way::LoadBalancer, local),
            (Client::Outside, Way::LoadBalancer, Kept(&["a"])),
        ];
        let asked = classes.into_iter().filter(|(client, way, _)| {
            mode.outsiders_are_known || (*client, *way) != (Client::Outside, Way::ClusterIp)
        });
        let rows = asked.flat_map(|(client, way, expected)| {
            Family::BOTH.map(|family| {
                let (service, protocol) = (&service, Protocol::Tcp);
                Row { service, client, way, protocol, family, expected }
            })
        });
        check(&cluster, &rows.collect::<Vec<_>>()).with_context(|| format!("{:?}", mode.flags))?;
    }
    Ok(())
}

fn load_balancers_are_told_how_many_endpoints_the_node_has() -> Result<()> {
    const PORT: u16 = 32_100;
    let mut known = None;
    let cluster = Cluster::start(&[], |topology| {
        let mut service = Exposed::new("web", 1, backends(topology, &["a", "b", "c"])?);
        service.external_local = true;
        service.health_check_port = Some(PORT);
        known = Some(service.clone());
        Ok(vec![service])
    })?;
    let mut service = known.context("the Service was not made")?;
    let ask = |family: Family| {
        let to = SocketAddr::new(family.of(NODE_ADDRESSES), PORT);
        get_once(&cluster.topology.outside, to, "/")
    };
    for family in Family::BOTH {
        let body: serde_json::Value = serde_json::from_str(&ask(family)?)?;
        ensure!(body["localEndpoints"] == 2, "{body}");
        ensure!(body["service"]["name"] == "web", "{body}");
    }
    service.backends = vec![backend(&cluster.topology, "c")?];
    cluster.put(&service)?;
    let told = ask(Family::V4);
    ensure!(format!("{told:?}").contains("503"), "no endpoint here: {told:?}");
    for (family, policy, services) in
        [("IPv4", "external", 1), ("IPv6", "external", 1), ("IPv4", "internal", 0)]
    {
        let wanted = format!(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{{ip_family=\"{family}\",\
             traffic_policy=\"{policy}\"}} {services}"
        );
        let metrics = SocketAddr::from(([127, 0, 0, 1], 10249));
        let told = get_once(&cluster.topology.node, metrics, "/metrics")?;
        ensure!(told.lines().any(|line| line == wanted), "no {wanted}:\n{told}");
    }
    service.external_local = false;
    cluster.put(&service)?;
    wait::until_true("the port is closed", wait::PATIENCE, || {
        Ok(format!("{:?}", ask(Family::V4)).contains("refused"))
    })
}
