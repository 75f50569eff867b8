//! A whole cluster of one node in a guest: kubelet and containerd run real pods, controllers make
//! their slices, and the agent serves them.
//!
//! The guest's own network namespace is the node's, and [`network::Outside`] a host behind it.

mod account;
mod daemon;
mod image;
mod load;
mod machine;
mod network;
mod objects;
mod release;
pub(crate) mod runtime;

use std::{
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::{
    flows::Counters,
    http::{Connection, get_once},
    netns::Namespace,
    transfer::Blob,
    wait,
};
use serde_json::Value;

use self::{
    account::Poor,
    image::BULK,
    load::Load,
    machine::Machine,
    network::{LB_ADDR, NODE_ADDR},
    objects::{NODE_PORT, SOLO_VIP, SPACE, WEB_VIP},
    release::Release,
};
use crate::{
    kube_proxy::KubeProxy,
    manifests::namespace,
    on_a_node::{PATIENCE, Test},
};

pub(crate) const TESTS: &[Test] = &[(
    "pods_of_a_kubelet_are_served_by_the_chart_and_its_image_and_by_kube_proxy_again",
    pods_of_a_kubelet_are_served_by_the_chart_and_its_image_and_by_kube_proxy_again,
)];

fn pods_of_a_kubelet_are_served_by_the_chart_and_its_image_and_by_kube_proxy_again() -> Result<()> {
    progress("begin");
    let machine = Machine::start()?;
    progress("the node is ready");
    let played = Scene::set(&machine).and_then(|scene| {
        scene.served_by_a_release()?;
        scene.served_by_kube_proxy_again()
    });
    played.with_context(|| machine.last_words())
}

/// Tells how far the test is: it takes minutes.
fn progress(what: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    println!("{:5.0} s: {what}", START.get_or_init(Instant::now).elapsed().as_secs_f64());
}

/// The machine with its pods.
struct Scene<'a> {
    machine: &'a Machine,
    client: Namespace,
}

impl<'a> Scene<'a> {
    fn set(machine: &'a Machine) -> Result<Self> {
        let cluster = &machine.cluster;
        let objects = [
            namespace(SPACE),
            objects::services(),
            objects::servers("web", 2, "v1"),
            objects::servers("solo", 1, "v1"),
            objects::client(),
        ];
        // On a crowded machine the first pods take from the API server the time that it needs.
        wait::until_true("the objects are made", PATIENCE, || {
            cluster.apply(&objects.concat()).map(|()| true)
        })?;
        let announce = ["patch", "service", "web", "-n", SPACE, "--subresource=status"];
        let status = objects::announced();
        cluster.kubectl(&[announce.as_slice(), &["--type=merge", "-p", &status]].concat())?;
        for what in ["deployment/web", "deployment/solo"] {
            let words = ["rollout", "status", what, "-n", SPACE, "--timeout=400s"];
            cluster.kubectl(&words)?;
        }
        let client = namespace_of(machine, "client")?;
        progress("the pods are ready");
        Ok(Self { machine, client })
    }

    /// The chart, by helm, with the image.
    fn served_by_a_release(&self) -> Result<()> {
        let release = Release::install(self.machine)?;
        progress("the chart is installed");
        let served = self.is_served().and_then(|()| {
            self.its_events_are_seen()?;
            self.a_missing_verb_is_told(&release)
        });
        served.with_context(|| release.last_words())?;
        progress("the agent tells what it has to tell");
        release.uninstall()?;
        progress("the chart is uninstalled");
        self.is_served_by_nobody()
    }

    fn served_by_kube_proxy_again(&self) -> Result<()> {
        let cluster = &self.machine.cluster;
        cluster.add_proxier("kube-proxy")?;
        let token = cluster.token("kube-proxy")?;
        let (login, _) = cluster.login("kube-proxy", cluster.api_port(), &token)?;
        let proxy = KubeProxy::with(&login, cluster.directory())?;
        self.every_way_leads_to_the_pods()
            .and_then(|()| self.a_pod_reaches_itself())
            .context("kube-proxy")
            .with_context(|| proxy.log())?;
        progress("kube-proxy serves");
        proxy.kill()
    }

    /// The Service works in all ways, and its pods are updated without anybody noticing.
    fn is_served(&self) -> Result<()> {
        self.every_way_leads_to_the_pods()?;
        self.a_pod_reaches_itself()?;
        progress("every way leads to the pods");
        self.bulk_is_fast()?;
        self.a_rolling_update_fails_no_request()?;
        progress("the pods are updated");
        Ok(())
    }

    fn is_served_by_nobody(&self) -> Result<()> {
        for (name, from, to) in self.ways() {
            ensure!(get_once(from, to, "/").is_err(), "{name}: somebody answers");
        }
        Ok(())
    }

    /// The ways of a client to the Service of two pods.
    fn ways(&self) -> [(&'static str, &Namespace, SocketAddr); 4] {
        let outside = &self.machine.outside.0;
        let at =
            |addr: &str, port| SocketAddr::new(addr.parse().unwrap_or(IpAddr::V4(LB_ADDR)), port);
        [
            ("pod to cluster IP", &self.client, at(WEB_VIP, 80)),
            ("pod to load balancer", &self.client, SocketAddr::from((LB_ADDR, 80))),
            ("outside to node port", outside, SocketAddr::from((NODE_ADDR, NODE_PORT))),
            ("outside to load balancer", outside, SocketAddr::from((LB_ADDR, 80))),
        ]
    }

    fn every_way_leads_to_the_pods(&self) -> Result<()> {
        for (name, from, to) in self.ways() {
            wait::until_true(&format!("{name}: two pods answer"), PATIENCE, || {
                let mut answers = Vec::new();
                for _ in 0..4 {
                    answers.push(get_once(from, to, "/")?);
                }
                answers.sort();
                answers.dedup();
                Ok(answers.len() == 2)
            })?;
        }
        Ok(())
    }

    fn a_pod_reaches_itself(&self) -> Result<()> {
        let pods = self.pods_of("solo")?;
        let [addr] = pods.as_slice() else { anyhow::bail!("solo has {pods:?}") };
        let itself = network::of_pod(addr)?.context("the pod has a namespace")?;
        let to = SocketAddr::new(SOLO_VIP.parse()?, 80);
        let answer = get_once(&itself, to, "/").context("hairpin")?;
        ensure!(answer.starts_with("v1 solo-"), "{answer}");
        Ok(())
    }

    /// The fast path carries what is long, and changes nothing of it.
    fn bulk_is_fast(&self) -> Result<()> {
        let expected = Blob::of(BULK).digest();
        for (name, from, to) in self.ways() {
            let before = counters()?;
            let digest = Connection::open(from, to)?.download(BULK, |_| ()).context(name)?;
            ensure!(digest == expected, "{name}: the file changed on the way");
            let counters = counters()?.since(&before);
            println!("{name}: a long answer took {} fast packets: {counters:?}", counters.hits());
            // None is larger than this; replies to the kubelet's probes count as slow meanwhile.
            ensure!(counters.hits() >= BULK >> 16, "{name}: {counters:?}");
        }
        Ok(())
    }

    fn a_rolling_update_fails_no_request(&self) -> Result<()> {
        let load = Load::start(&self.ways());
        let cluster = &self.machine.cluster;
        let updated = cluster.apply(&objects::servers("web", 2, "v2")).and_then(|()| {
            let status = ["rollout", "status", "deployment/web", "-n", SPACE, "--timeout=400s"];
            cluster.kubectl(&status)
        });
        let gone = wait::until_true("the old pods are gone", PATIENCE, || {
            Ok(self.pods_of("web")?.len() == 2)
        });
        let counts = load.end()?;
        updated.and(gone)?;
        for (name, count) in &counts {
            println!(
                "{name}: {} requests, {} failed, answers {:?}",
                count.asked,
                count.failed.len(),
                count.by_version
            );
        }
        for (name, count) in &counts {
            ensure!(count.failed.is_empty(), "{name}: {:#?}", count.failed);
            for version in ["v1", "v2"] {
                let answers = count.by_version.get(version).copied().unwrap_or_default();
                ensure!(answers > 0, "{name}: nobody of {version} answered: {count:?}");
            }
        }
        Ok(())
    }

    /// What the agent has to say of a Service is shown with the Service.
    fn its_events_are_seen(&self) -> Result<()> {
        let cluster = &self.machine.cluster;
        let annotate = ["annotate", "service", "solo", "-n", SPACE];
        cluster.kubectl(&[annotate.as_slice(), &["passlane.io/scheduler=rocket"]].concat())?;
        wait::until_true("the Service has an Event", PATIENCE, || {
            let path = format!("/apis/events.k8s.io/v1/namespaces/{SPACE}/events");
            Ok(cluster.get(&path)?.contains("UnknownScheduler"))
        })?;
        let shown = cluster.kubectl(&["describe", "service", "solo", "-n", SPACE])?;
        ensure!(shown.contains("unknown scheduler \"rocket\""), "kubectl shows {shown}");
        cluster.kubectl(&[annotate.as_slice(), &["passlane.io/scheduler-"]].concat()).map(drop)
    }

    /// An agent that starts without a permission says which one; pods are served all the same.
    fn a_missing_verb_is_told(&self, release: &Release<'_>) -> Result<()> {
        let cluster = &self.machine.cluster;
        let poor = Poor::without(cluster, "watch", "endpointslices")?;
        release.restart()?;
        release::wait_for("the refusal is told", |status| {
            let error = status["source_error"].as_str().unwrap_or_default();
            ["no permission", "watch", "endpointslices.discovery.k8s.io", "ClusterRole"]
                .iter()
                .all(|word| error.contains(word))
        })?;
        println!("without a verb: {}", release::status()?["source_error"]);
        self.every_way_leads_to_the_pods().context("without a permission")?;
        poor.mend()?;
        release::wait_for("the permission is used", |status| {
            status["ready"] == true && status["source_error"].is_null()
        })
    }

    /// The addresses of the pods of a Deployment, those that end too.
    fn pods_of(&self, app: &str) -> Result<Vec<String>> {
        let path = format!("/api/v1/namespaces/{SPACE}/pods?labelSelector=app%3D{app}");
        let pods = self.machine.cluster.object(&path)?;
        let addr = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
        Ok(pods["items"].as_array().into_iter().flatten().filter_map(addr).collect())
    }
}

fn counters() -> Result<Counters> {
    Counters::of_status(&release::status()?)
}

/// Waits until a pod runs, and returns its network namespace.
fn namespace_of(machine: &Machine, pod: &str) -> Result<Namespace> {
    wait::until(&format!("pod {pod} has its network"), PATIENCE, || {
        let pod = machine.cluster.object(&format!("/api/v1/namespaces/{SPACE}/pods/{pod}"))?;
        pod["status"]["podIP"].as_str().map_or(Ok(None), network::of_pod)
    })
}
