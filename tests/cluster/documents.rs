//! What the documents tell an operator to ask an API server, asked of a real one: by kubectl and helm,
//! in the order of the documents, in a cluster like kubeadm's without nodes that run.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command as Process, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use proxy_tests::{
    documents::{self, Command, Place},
    objects::WEB,
    process,
};
use tempfile::TempDir;

use crate::{chart, cluster::Cluster};

crate::tests![
    commands_of_the_documents_work_against_an_api_server,
    values_of_the_documents_are_what_the_chart_takes,
];

/// What is the operator's own, in the documents in capitals.
const PLACEHOLDERS: &[(&str, &str)] = &[
    ("ADDRESS-OF-THE-API-SERVER", "192.0.2.1"),
    ("REPOSITORY", "registry.example/passlane"),
    ("NODE-NAME", "node-a"),
];
/// The ConfigMap of kubeadm's clusters.
const KUBEADM: &str = include_str!("../../proxy-userspace/src/config/golden/kubeadm.yaml");
/// What kubeadm and EKS have besides, as far as the documents name it, and a node.
const FURNITURE: &str = "\
apiVersion: v1
kind: Node
metadata: {name: node-a, labels: {kubernetes.io/os: linux}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy-config, namespace: kube-system}
data:
  config: |-
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig}
    mode: ipvs
    ipvs: {scheduler: rr}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: kube-proxy, namespace: kube-system}
spec:
  selector: {matchLabels: {k8s-app: kube-proxy}}
  template:
    metadata: {labels: {k8s-app: kube-proxy}}
    spec:
      nodeSelector: {kubernetes.io/os: linux}
      containers: [{name: kube-proxy, image: registry.example/kube-proxy}]
";
/// Verbs of kubectl that need a node which runs: they are only understood here, and their object is
/// looked for. What `exec` runs is run on a node, in `traffic/documents.rs`.
const ON_NODES: [&str; 3] = ["exec", "logs", "rollout"];

fn commands_of_the_documents_work_against_an_api_server(_: &Cluster) -> Result<()> {
    let desk = Desk::open()?;
    let mut installing = None;
    for command in documents::commands(Place::Cluster)? {
        desk.type_in(&command)?;
        if command.text.starts_with("helm upgrade --install") {
            installing = Some(command);
        } else if command.text.starts_with("helm uninstall") {
            // The next page is about a cluster that has it.
            desk.type_in(installing.as_ref().context("uninstalled before it is installed")?)?;
        }
    }
    Ok(())
}

/// An operator's shell, with a cluster of its own: the chart's account is the tests' in the other.
struct Desk {
    cluster: Cluster,
    here: TempDir,
}

impl Desk {
    fn open() -> Result<Self> {
        let cluster = Cluster::start_empty()?;
        for objects in [KUBEADM, FURNITURE, WEB] {
            cluster.apply(objects)?;
        }
        let here = tempfile::tempdir()?;
        let programs = here.path().join("bin");
        fs::create_dir(&programs)?;
        symlink(chart::tool("PASSLANE_HELM")?, programs.join("helm"))?;
        let assets = chart::tool("KUBEBUILDER_ASSETS")?;
        symlink(Path::new(&assets).join("kubectl"), programs.join("kubectl"))?;
        // As in a clone of the repository.
        symlink(documents::root().join("deploy"), here.path().join("deploy"))?;
        Ok(Self { cluster, here })
    }

    fn type_in(&self, command: &Command) -> Result<()> {
        let parts = command.parts();
        let on_nodes = |part: &&Vec<String>| {
            part[0] == "kubectl" && part.iter().any(|word| ON_NODES.contains(&word.as_str()))
        };
        if let Some(part) = parts.iter().find(on_nodes) {
            return self.understood(part).with_context(|| command.at.clone());
        }
        let mut shell = self.shell("sh");
        shell.args(["-c", &replaced(&command.text)]);
        command.judge(&shell.output().context("start a shell")?)
    }

    /// kubectl knows the flags, and its object is there.
    fn understood(&self, words: &[String]) -> Result<()> {
        let ours = words.iter().skip(1).take_while(|word| *word != "--");
        let mut ours: Vec<&str> = ours.map(String::as_str).collect();
        let mut all = ours.iter().copied().skip_while(|word| *word != "-n").skip(1);
        let namespace = all.next().context("no -n before the verb")?;
        let rest: Vec<&str> = all.collect();
        let object = rest.iter().position(|word| word.contains('/'));
        let (verb, objects) = rest.split_at(object.context("names no KIND/NAME")?);
        self.cluster.kubectl(&["get", objects[0], "-n", namespace])?;
        ours.push("--help");
        let output = self.shell("kubectl").args(&ours).output()?;
        ensure!(output.status.success(), "{ours:?}: {}", process::complaint(&output));
        // Of a verb that it does not know, kubectl shows the help of what stands before it.
        let usage = format!("kubectl {} ", verb.join(" "));
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains(&usage), "{ours:?}: no {usage}in {said}");
        Ok(())
    }

    fn shell(&self, program: &str) -> Process {
        let file = |name: &str| self.here.path().join(name);
        let programs = file("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let own = programs.join(program);
        let mut shell = Process::new(if own.exists() { own } else { program.into() });
        shell
            .current_dir(self.here.path())
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("KUBECONFIG", self.cluster.admin())
            .env("KUBECACHEDIR", file("kube-cache"))
            .env("HELM_CACHE_HOME", file("helm-cache"))
            .env("HELM_CONFIG_HOME", file("helm-config"))
            .env("HELM_DATA_HOME", file("helm-data"))
            .stdin(Stdio::null());
        shell
    }
}

/// With values in place of names. No node runs here that could end a cleanup of the chart's;
/// `node` has that.
fn replaced(text: &str) -> String {
    let text = text.replace("helm uninstall ", "helm uninstall --no-hooks ");
    PLACEHOLDERS.iter().fold(text, |text, (name, value)| text.replace(name, value))
}

/// Blocks of YAML that begin as values of the chart.
fn values_of_the_documents_are_what_the_chart_takes(_: &Cluster) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().display().to_string();
    let mut count = 0;
    for block in documents::blocks()? {
        if block.language != "yaml" || !block.text.starts_with("# values.yaml") {
            continue;
        }
        fs::write(&path, replaced(&block.text))?;
        let arguments = ["--values", &path, "--set", "k8sServiceHost=192.0.2.1"];
        chart::template(&arguments).with_context(|| format!("{}:{}", block.file, block.line))?;
        count += 1;
    }
    if count == 0 {
        bail!("no document has values of the chart");
    }
    Ok(())
}
