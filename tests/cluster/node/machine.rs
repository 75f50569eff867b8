//! One machine that is a whole cluster: API server, controllers, scheduler, kubelet, containers.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proxy_tests::wait;

use super::{
    daemon::Daemon,
    network::{NODE_ADDR, Outside},
    progress,
    runtime::{self, Runtime},
};
use crate::{
    cluster::{Cluster, NODE},
    on_a_node::PATIENCE,
};

/// Controllers without which a Deployment gets no pods, a Service no slices and a pod no account.
const CONTROLLERS: &str = "deployment-controller,replicaset-controller,daemonset-controller,\
                           endpointslice-controller,serviceaccount-controller,\
                           root-ca-certificate-publisher-controller,namespace-controller,\
                           garbage-collector-controller,pod-garbage-collector-controller,\
                           job-controller,taint-eviction-controller,node-lifecycle-controller";

/// The machine. Fields are dropped in this order: the kubelet before what it asks.
pub(crate) struct Machine {
    daemons: Vec<Daemon>,
    pub(crate) runtime: Runtime,
    pub(crate) cluster: Cluster,
    pub(crate) outside: Outside,
}

impl Machine {
    /// Starts everything, and waits until the node is ready for pods.
    pub(crate) fn start() -> Result<Self> {
        let tools = std::env::var_os("PASSLANE_NODE_TOOLS").map(PathBuf::from).context(
            "PASSLANE_NODE_TOOLS names no directory with kubelet, kube-scheduler and \
             kube-controller-manager; `cargo xtask test --level L5` builds one",
        )?;
        let outside = Outside::build()?;
        let cluster = Cluster::start_for(NODE_ADDR)?;
        progress("the API server is ready");
        let runtime = Runtime::start(cluster.directory())?;
        progress("containerd is ready");
        let mut machine = Self { daemons: Vec::new(), runtime, cluster, outside };
        let logins = [
            ("kube-controller-manager", "/CN=system:kube-controller-manager".to_owned()),
            ("kube-scheduler", "/CN=system:kube-scheduler".to_owned()),
            ("kubelet", format!("/O=system:nodes/CN=system:node:{NODE}")),
        ];
        for (program, subject) in logins {
            let credentials = machine.cluster.credentials();
            credentials.client(program, &subject)?;
            let login = machine.cluster.certificate_login(program)?;
            let mut arguments = vec![format!("--kubeconfig={}", login.display())];
            arguments.extend(machine.arguments(program)?);
            let directory = machine.cluster.directory();
            let daemon = Daemon::start(&tools.join(program), &arguments, directory)?;
            machine.daemons.push(daemon);
        }
        machine.wait_ready().with_context(|| machine.last_words())?;
        Ok(machine)
    }

    fn arguments(&self, program: &str) -> Result<Vec<String>> {
        let credentials = self.cluster.credentials();
        Ok(match program {
            "kube-controller-manager" => vec![
                format!("--controllers={CONTROLLERS}"),
                "--leader-elect=false".to_owned(),
                "--cluster-cidr=10.1.0.0/16".to_owned(),
                "--allocate-node-cidrs=false".to_owned(),
                format!("--root-ca-file={}", credentials.text("ca.crt")),
                format!("--service-account-private-key-file={}", credentials.text("sa.key")),
                // Each controller has a role of its own.
                "--use-service-account-credentials=true".to_owned(),
            ],
            "kube-scheduler" => vec!["--leader-elect=false".to_owned()],
            _ => vec![
                format!("--config={}", self.kubelet_configuration()?.display()),
                format!("--hostname-override={NODE}"),
                format!("--node-ip={NODE_ADDR}"),
                "--v=2".to_owned(),
            ],
        })
    }

    fn kubelet_configuration(&self) -> Result<PathBuf> {
        let path = self.cluster.directory().join("kubelet.yaml");
        let ca = self.cluster.credentials().text("ca.crt");
        let resolver = self.cluster.directory().join("resolv.conf");
        fs::write(&resolver, "nameserver 192.0.2.53\n")?;
        fs::write(&path, kubelet_configuration(NODE_ADDR, &ca, &resolver))?;
        Ok(path)
    }

    fn wait_ready(&mut self) -> Result<()> {
        wait::until_true("the node is ready", PATIENCE, || {
            self.daemons.iter_mut().try_for_each(Daemon::check)?;
            let node = self.cluster.object(&format!("/api/v1/nodes/{NODE}"))?;
            let conditions = node["status"]["conditions"].as_array();
            Ok(conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
        })
    }

    /// What everybody said last, and what kubectl says of the pods: for a test that fails.
    pub(crate) fn last_words(&self) -> String {
        let mut text: String = self.daemons.iter().map(Daemon::last_words).collect();
        text.push_str(&self.runtime.daemon.last_words());
        for words in [["get", "pods", "-A", "-o", "wide"], ["get", "events", "-A", "-o", "wide"]] {
            text.push_str(&self.cluster.kubectl(&words).unwrap_or_default());
        }
        text
    }
}

/// Everything that a kubelet does at intervals is done often; the guest's disk is its memory.
fn kubelet_configuration(node: Ipv4Addr, ca: &str, resolver: &Path) -> String {
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         address: {node}\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, \
         x509: {{clientCAFile: {ca}}}}}\n\
         authorization: {{mode: Webhook}}\n\
         cgroupDriver: cgroupfs\n\
         containerRuntimeEndpoint: unix://{}\n\
         resolvConf: {}\n\
         syncFrequency: 10s\n\
         nodeStatusUpdateFrequency: 5s\n\
         localStorageCapacityIsolation: false\n\
         imageGCHighThresholdPercent: 100\n\
         evictionHard: {{memory.available: 20Mi}}\n\
         failSwapOn: false\n\
         serializeImagePulls: false\n",
        runtime::SOCKET,
        resolver.display(),
    )
}
