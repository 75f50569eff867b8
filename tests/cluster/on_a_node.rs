//! The agent itself on a node, between a real API server and a real kernel: in a guest only, since
//! it needs IPVS. The API server listens in the node's network namespace.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::{
    agent::Agent, http::get_once, netns::Namespace, objects::Manifests, spread, topology::Topology,
    wait, workload::Workload,
};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    cluster::{Cluster, NODE},
    manifests::{namespace, node, service, slice},
};

/// Whether these tests are the ones to run.
pub(crate) fn is_wanted() -> bool {
    std::env::var_os("PASSLANE_IN_GUEST").is_some()
}

/// A test with a cluster of its own: its name, and what it does.
pub(crate) type Test = (&'static str, fn() -> Result<()>);

pub(crate) const TESTS: &[Test] = &[(
    "traffic_follows_the_api_server_and_goes_on_without_it",
    traffic_follows_the_api_server_and_goes_on_without_it,
)];

/// The API server shares an emulated guest with the agent.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);
const PODS: &[(&str, u8)] = &[("web-a", 11), ("web-b", 12), ("client", 31)];
const CLUSTER_IP: &str = "10.96.0.10";
const WEB: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)), 80);

const METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10249);

fn traffic_follows_the_api_server_and_goes_on_without_it() -> Result<()> {
    let topology = Topology::with_pods(PODS)?;
    let _servers = Workload::start(&topology)?;
    // Processes end with the thread that started them: everything happens in this one.
    topology.node.enter(|| Scene::set(&topology)?.play())
}

/// Dates an EndpointSlice, as the controller that makes them does.
fn as_of_now(slice: &str) -> Result<String> {
    let now = proxy_tests::process::run("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?;
    let dated = format!(
        "metadata: {{annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{}'}}, ",
        now.trim()
    );
    Ok(slice.replace("metadata: {", &dated))
}

/// The cluster, the agent and who asks.
struct Scene {
    agent: Agent,
    cluster: Cluster,
    client: Namespace,
    node: Namespace,
    snapshot: PathBuf,
}

impl Scene {
    fn set(topology: &Topology) -> Result<Self> {
        let cluster = Cluster::start()?;
        let objects = [
            namespace("shop"),
            node(NODE, "172.20.0.1"),
            service("shop", "web", "")
                .replace("spec: {", &format!("spec: {{clusterIP: {CLUSTER_IP}, ")),
            slice("shop", "web", &["10.1.1.11", "10.1.1.12"]),
        ];
        cluster.apply(&objects.concat())?;
        let (kubeconfig, _) = cluster.direct_login("agent")?;
        let snapshot = topology.directory().join("snapshots/snapshot.json");
        let snapshots = topology.directory().join("snapshots").display().to_string();
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let options = [&kubeconfig, "--hostname-override", NODE, "--snapshot-dir", &snapshots];
        let manifests = Manifests::empty_in(topology.directory())?;
        let mut agent = Agent::new(topology, &manifests, &options).following("kubernetes");
        agent.spawn()?;
        agent.wait_ready()?;
        let client = topology.pod("client")?.namespace.clone();
        let node = topology.node.clone();
        Ok(Self { agent, cluster, client, node, snapshot })
    }

    fn play(mut self) -> Result<()> {
        self.answered_by(&["web-a", "web-b"]).context("what was there at the start")?;
        self.cluster.apply(&as_of_now(&slice("shop", "web", &["10.1.1.12"]))?)?;
        self.answered_by(&["web-b"]).context("an endpoint went")?;
        self.tells_who_changed_something()?;
        self.counts_what_kubernetes_asks_for()?;

        // A change is on disk within seconds, not at once.
        wait::until_true("the snapshot is up to date", PATIENCE, || {
            Ok(!std::fs::read_to_string(&self.snapshot)?.contains("10.1.1.11"))
        })?;
        self.cluster.stop_api();
        self.answered_by(&["web-b"]).context("the API server is away")?;
        self.agent.kill()?;
        self.node_forgets()?;
        self.agent.spawn()?;
        self.agent.wait_log(&["snapshot"])?;
        self.answered_by(&["web-b"]).context("a cold start without the API server")?;
        let stale = &self.agent.status()?["source_stale_since"];
        ensure!(stale.is_u64(), "the status does not say that the snapshot is old: {stale}");

        self.cluster.restart_api()?;
        let annotate = ["annotate", "service", "web", "-n", "shop", "passlane.io/scheduler=best"];
        self.cluster.kubectl(&annotate)?;
        self.cluster.apply(&slice("shop", "web", &["10.1.1.11"]))?;
        self.answered_by(&["web-a"]).context("the API server is back")?;
        self.event_names("best").context("a bad annotation")?;
        self.cluster.kubectl(&["delete", "service", "web", "-n", "shop"])?;
        wait::until_true("the Service is gone", PATIENCE, || {
            Ok(get_once(&self.client, WEB, "/").is_err())
        })
    }

    /// Somebody removes a destination: it comes back, and the Service has an Event that names him.
    fn tells_who_changed_something(&self) -> Result<()> {
        self.agent.wait_log(&["witness_on"])?;
        let removed = ["-d", "-t", "10.96.0.10:80", "-r", "10.1.1.12:8080"];
        proxy_tests::process::run("ipvsadm", &removed)?;
        self.event_names("by ipvsadm[").context("a removed destination")?;
        self.answered_by(&["web-b"]).context("a destination that came back")?;
        let healed = self.metric("passlane_drift_healed_total{subsystem=\"ipvs\"")?;
        ensure!(healed >= 1.0, "{healed} drifts were counted");
        Ok(())
    }

    /// What dashboards of kube-proxy show of the way from the API server to the kernel.
    fn counts_what_kubernetes_asks_for(&self) -> Result<()> {
        for name in [
            "kubeproxy_network_programming_duration_seconds_count{",
            "rest_client_requests_total{",
            "rest_client_request_duration_seconds_count{",
        ] {
            let value = self.metric(name)?;
            ensure!(value > 0.0, "{name} is {value}");
        }
        Ok(())
    }

    /// Returns the sum of the samples whose line begins so.
    fn metric(&self, line: &str) -> Result<f64> {
        let text = get_once(&self.node, METRICS, "/metrics")?;
        let lines = text.lines().filter(|sample| sample.starts_with(line));
        let values = lines.filter_map(|sample| sample.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum())
    }

    /// Takes away what the node holds, as a reboot does.
    fn node_forgets(&self) -> Result<()> {
        proxy_tests::process::run("ipvsadm", &["-C"])?;
        ensure!(get_once(&self.client, WEB, "/").is_err(), "something else answers");
        Ok(())
    }

    /// Waits until new connections are answered by these in turn, and nobody else.
    fn answered_by(&self, pods: &[&str]) -> Result<()> {
        wait::until_true(&format!("{pods:?} answer"), PATIENCE, || {
            let answers = (0..2 * pods.len()).map(|_| get_once(&self.client, WEB, "/"));
            let answers: Result<Vec<_>> = answers.collect();
            Ok(answers.is_ok_and(|answers| spread::is_even(&spread::of(answers), pods, 2)))
        })
        .with_context(|| self.agent.log())
    }

    fn event_names(&self, word: &str) -> Result<()> {
        wait::until_true("the Service has an Event", PATIENCE, || {
            let events = self.cluster.kubectl(&["get", "events", "-n", "shop", "-o", "yaml"])?;
            Ok(events.contains(word))
        })
    }
}
