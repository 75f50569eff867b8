//! The chart's objects in the real API server: no controller and no node acts on them.

use anyhow::{Context as _, Result, ensure};
use proxy_tests::process;
use serde_json::{Value, json};

use super::{NAME, RELEASE, directory, list, template, tool, values};
use crate::cluster::Cluster;

crate::tests![
    chart_objects_are_what_the_api_server_takes,
    chart_installs_upgrades_and_leaves_nothing,
];

/// Definitions of what the Prometheus operator watches.
fn define_monitors(cluster: &Cluster) -> Result<()> {
    let definitions = tool("PASSLANE_MONITOR_CRDS")?;
    // Each is longer than an annotation may be.
    cluster.kubectl(&["apply", "--server-side", "-f", &definitions])?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "-f",
        &definitions,
    ])?;
    Ok(())
}

fn chart_objects_are_what_the_api_server_takes(cluster: &Cluster) -> Result<()> {
    define_monitors(cluster)?;
    let directory = tempfile::tempdir()?;
    for (name, values) in values()? {
        let file = directory.path().join(format!("{name}.yaml"));
        std::fs::write(&file, template(&["--values", &values])?)?;
        let file = file.display().to_string();
        // Unknown and doubled fields are errors, and defaults and admission are the real ones.
        let dry = ["apply", "--dry-run=server", "--validate=strict", "-f", &file];
        let said = cluster.kubectl(&dry).with_context(|| name.clone())?;
        let count = std::fs::read_to_string(&file)?.matches("\nkind: ").count();
        ensure!(said.lines().count() == count, "{name}: {count} objects, but {said}");
    }
    Ok(())
}

fn chart_installs_upgrades_and_leaves_nothing(cluster: &Cluster) -> Result<()> {
    define_monitors(cluster)?;
    let release = Release { cluster, home: tempfile::tempdir()? };
    release.helm(&["install", RELEASE, "CHART", "--values", "VALUES/minimal-values.yaml"])?;
    release.may_do_what_kube_proxy_may()?;
    let first = release.daemon_set(NAME)?;
    is_least_privileged(&first, &["BPF", "NET_ADMIN", "PERFMON"])?;

    release.helm(&["upgrade", RELEASE, "CHART", "--values", "VALUES/kubeadm-values.yaml"])?;
    let second = release.daemon_set(NAME)?;
    is_least_privileged(&second, &["BPF", "NET_ADMIN", "NET_RAW", "PERFMON"])?;
    let sum =
        |set: &Value| set["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone();
    ensure!(sum(&first) != sum(&second), "another configuration restarts nobody");

    release.helm(&["upgrade", RELEASE, "CHART", "--values", "VALUES/monitoring-values.yaml"])?;
    for kind in ["podmonitors", "prometheusrules"] {
        let names = cluster.kubectl(&["get", kind, "-n", "kube-system", "-o", "name"])?;
        ensure!(names.contains(NAME), "no {kind}: {names}");
    }
    release.cleans_up_every_linux_node()?;
    release.helm(&["uninstall", RELEASE, "--no-hooks"])?;
    release.left_nothing()
}

/// The agent's container has these capabilities and no others, a root that it cannot write, and starts
/// after one that does what takes more.
fn is_least_privileged(set: &Value, capabilities: &[&str]) -> Result<()> {
    let pod = &set["spec"]["template"]["spec"];
    let agent = &list(&pod["containers"])[0];
    let context = &agent["securityContext"];
    ensure!(
        context["capabilities"] == json!({ "add": capabilities, "drop": ["ALL"] }),
        "{context}"
    );
    ensure!(
        context["privileged"] == false && context["allowPrivilegeEscalation"] == false,
        "{context}"
    );
    ensure!(context["readOnlyRootFilesystem"] == true, "{context}");
    ensure!(
        pod["hostNetwork"] == true && pod["priorityClassName"] == "system-node-critical",
        "{pod}"
    );
    let seccomp = &pod["securityContext"]["seccompProfile"]["type"];
    ensure!(seccomp == "RuntimeDefault", "{seccomp}");
    let init = &list(&pod["initContainers"])[0];
    ensure!(list(&init["args"]).contains(&json!("--init-only")), "{init}");
    let env = list(&agent["env"]);
    ensure!(env.iter().any(|each| each["name"] == "KUBERNETES_SERVICE_HOST"), "{env:?}");
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        ensure!(agent[probe]["httpGet"]["path"] == path, "{probe}: {}", agent[probe]);
    }
    Ok(())
}

/// What helm makes in a cluster, with helm's own files in a directory of the test.
struct Release<'a> {
    cluster: &'a Cluster,
    home: tempfile::TempDir,
}

impl Release<'_> {
    fn helm(&self, arguments: &[&str]) -> Result<String> {
        let chart = directory();
        let replaced = |word: &&str| {
            word.replace("CHART", &chart.display().to_string())
                .replace("VALUES", &chart.join("ci").display().to_string())
        };
        let home = |name: &str| format!("{name}={}", self.home.path().join(name).display());
        let mut words =
            vec![home("HELM_CACHE_HOME"), home("HELM_CONFIG_HOME"), home("HELM_DATA_HOME")];
        words.push(tool("PASSLANE_HELM")?);
        words.extend(["--kubeconfig".to_owned(), self.cluster.admin().display().to_string()]);
        words.extend(["--namespace".to_owned(), "kube-system".to_owned()]);
        words.extend(arguments.iter().map(replaced));
        process::run("env", &words)
    }

    fn daemon_set(&self, name: &str) -> Result<Value> {
        let text = self.cluster.kubectl(&["get", "ds", name, "-n", "kube-system", "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    fn may_do_what_kube_proxy_may(&self) -> Result<()> {
        let account = format!("--as=system:serviceaccount:kube-system:{NAME}");
        for (verb, resource, may) in [
            ("watch", "services", true),
            ("watch", "endpointslices.discovery.k8s.io", true),
            ("watch", "servicecidrs.networking.k8s.io", true),
            ("get", "nodes", true),
            ("create", "events.events.k8s.io", true),
            ("list", "secrets", false),
            ("list", "pods", false),
            ("patch", "services", false),
            ("patch", "nodes", false),
        ] {
            let ask = ["auth", "can-i", verb, resource, "-A", &account];
            // The answer no is an exit code too.
            let said = self.cluster.kubectl(&ask);
            let answer = match &said {
                Ok(text) => text.trim() == "yes",
                Err(error) if format!("{error:#}").contains("exit status: 1") => false,
                Err(error) => anyhow::bail!("{error:#}"),
            };
            ensure!(answer == may, "{verb} {resource}: {said:?}");
        }
        Ok(())
    }

    /// The hook has a pod for each Linux node, which helm asks the API server for.
    fn cleans_up_every_linux_node(&self) -> Result<()> {
        let node = |name: &str, os: &str| {
            format!(
                "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/os: {os}}}}}\n---\n"
            )
        };
        let nodes =
            [node("chart-a", "linux"), node("chart-b", "linux"), node("chart-c", "windows")];
        self.cluster.apply(&nodes.concat())?;
        let text = self.cluster.kubectl(&[
            "get",
            "nodes",
            "-l",
            "kubernetes.io/os=linux",
            "-o",
            "name",
        ])?;
        let count = text.lines().count();
        self.helm(&["upgrade", RELEASE, "CHART", "--values", "VALUES/cleanup-values.yaml"])?;
        let hooks = self.helm(&["get", "hooks", RELEASE])?;
        let expected = format!("\n  completions: {count}\n");
        ensure!(count >= 2 && hooks.contains(&expected), "{count} nodes:\n{hooks}");
        self.cluster.kubectl(&["delete", "node", "chart-a", "chart-b", "chart-c"]).map(drop)
    }

    fn left_nothing(&self) -> Result<()> {
        let kinds = "ds,cm,sa,svc,job,podmonitors,servicemonitors,prometheusrules,clusterrolebinding,secret";
        let label = format!("app.kubernetes.io/instance={RELEASE}");
        let left = self.cluster.kubectl(&["get", kinds, "-A", "-l", &label, "-o", "name"])?;
        ensure!(left.is_empty(), "helm uninstall left {left}");
        Ok(())
    }
}
