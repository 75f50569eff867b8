//! The agent as helm installs it: the chart of this tree, and the image of `cargo xtask image`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proxy_tests::{agent::binary, process, wait};
use serde_json::Value;

use super::{machine::Machine, network::NODE_ADDR};
use crate::{cluster::Cluster, on_a_node::PATIENCE};

const NAME: &str = "passlane";
/// What its pods are found by.
const LABEL: &str = "app.kubernetes.io/name=passlane";
/// What the kubelet makes of a name without a registry.
const IMAGE: &str = "docker.io/library/passlane";

/// The installed chart.
pub(crate) struct Release<'a> {
    cluster: &'a Cluster,
}

impl<'a> Release<'a> {
    /// Gives the node the image, installs the chart, and waits until its pod is ready.
    pub(crate) fn install(machine: &'a Machine) -> Result<Self> {
        let image = named("PASSLANE_IMAGE")?;
        machine.runtime.import_as(IMAGE, &image)?;
        let release = Self { cluster: &machine.cluster };
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("deploy").join("chart");
        let values = format!(
            "k8sServiceHost={NODE_ADDR},k8sServicePort={},image.tag={},cleanup.onDelete=true,\
             cleanup.leaveForwarding=false",
            release.cluster.api_port(),
            env!("CARGO_PKG_VERSION"),
        );
        release.helm(&["install", NAME, &chart.display().to_string(), "--set", &values])?;
        let status = ["rollout", "status", "daemonset/passlane", "-n", "kube-system"];
        release.cluster.kubectl(&[status.as_slice(), &["--timeout=400s"]].concat())?;
        Ok(release)
    }

    /// Ends the agent's pod; its DaemonSet makes another.
    pub(crate) fn restart(&self) -> Result<()> {
        let words = ["delete", "pod", "-n", "kube-system", "-l", LABEL];
        self.cluster.kubectl(&words).map(drop)
    }

    /// Uninstalls it; its hook takes away from the node what the agent made.
    pub(crate) fn uninstall(self) -> Result<()> {
        self.helm(&["uninstall", NAME, "--timeout", "400s"]).map(drop)
    }

    /// What the agent said, and what became of its pod.
    pub(crate) fn last_words(&self) -> String {
        let of_pod = ["-n", "kube-system", "-l", LABEL];
        let say = |words: &[&str]| {
            let said = self.cluster.kubectl(&[words, &of_pod].concat());
            said.unwrap_or_else(|error| format!("{error:#}\n"))
        };
        say(&["describe", "pod"]) + &say(&["logs", "--all-containers", "--tail=30"])
    }

    fn helm(&self, words: &[&str]) -> Result<String> {
        let home = |name: &str| {
            format!("{name}={}", self.cluster.directory().join(name.to_lowercase()).display())
        };
        let mut all = ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(home).to_vec();
        all.push(named("PASSLANE_HELM")?.display().to_string());
        let login = self.cluster.certificate_login("admin")?.display().to_string();
        all.extend(["--kubeconfig", &login, "--namespace", "kube-system"].map(str::to_owned));
        all.extend(words.iter().map(|&word| word.to_owned()));
        process::run("env", &all)
    }
}

fn named(variable: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.with_context(|| format!("{variable} is not set; `cargo xtask test --level L5` sets it"))
}

/// `passlane status`, whether the agent is well or not; it reads what the pod writes on the node.
pub(crate) fn status() -> Result<Value> {
    let output = process::output(&binary()?.to_string_lossy(), &["status", "-o", "json"])?;
    serde_json::from_slice(&output.stdout).with_context(|| process::complaint(&output))
}

/// Waits until its status is as wanted.
pub(crate) fn wait_for(what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
    wait::until_true(what, PATIENCE, || Ok(wanted(&status()?)))
        .with_context(|| format!("{:#}", status().unwrap_or_default()))
}
