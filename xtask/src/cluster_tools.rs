//! A real API server for the tests: kube-apiserver, etcd and kubectl, built from Go modules. And the
//! kube-proxy of the same version, which is taken over from, and what makes a machine a node.
//!
//! Debian carries none of them in a version that belongs together. `tests/tools/go.mod` pins them.
//! The container runtime and the CNI plugins are Debian's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Consent, progress};
use crate::debian::Suite;
use crate::workspace;

/// What a directory of these tools holds, and the Go package of each.
const PROGRAMS: [(&str, &str); 3] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
];

/// The proxy, in a directory of its own: not everybody's ready-made tools have one.
const PROXY: (&str, &str) = ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy");

/// Tells the tests where it is.
pub(crate) const PROXY_VARIABLE: &str = "PASSLANE_KUBE_PROXY";

/// What a machine needs beside an API server to be a node with pods.
const NODE_PROGRAMS: [(&str, &str); 3] = [
    ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
];

/// Tells the tests where they are.
pub(crate) const NODE_VARIABLE: &str = "PASSLANE_NODE_TOOLS";

/// The packages that run containers and give them addresses, and the suite that they are from.
const RUNTIME_PACKAGES: [&str; 3] = ["containerd", "runc", "containernetworking-plugins"];
const RUNTIME_SUITE: &str = "bookworm";

/// Tells the tests where these are unpacked.
pub(crate) const RUNTIME_VARIABLE: &str = "PASSLANE_CONTAINER_RUNTIME";

/// Names a directory with ready-made tools, as other projects of Kubernetes have it.
pub(crate) const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// Returns the directory of the tools: the one that the environment names, or one in the cache,
/// built when it is not there yet.
pub(crate) fn find_or_obtain(consent: Consent) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os(VARIABLE).filter(|dir| !dir.is_empty()) {
        let dir = workspace::root().join(dir);
        for (program, _) in PROGRAMS {
            let path = dir.join(program);
            ensure!(
                path.is_file(),
                "{VARIABLE}: {} is missing; unset it, or add it",
                path.display()
            );
        }
        progress(&format!("Kubernetes tools: {VARIABLE}, {}", dir.display()));
        return Ok(dir);
    }
    let module = fs::read_to_string(directory().join("go.mod")).context("cannot read go.mod")?;
    let kubernetes = version_of(&module, "k8s.io/kubernetes")?;
    let etcd = version_of(&module, "go.etcd.io/etcd/server/v3")?;
    let name = format!("kubernetes-{kubernetes}-etcd-{etcd}");
    if let Some(dir) = workspace::cached(&name) {
        progress(&format!("Kubernetes {kubernetes}, etcd {etcd}: cached, {}", dir.display()));
        return Ok(dir);
    }
    let cure = format!("{CURE}, or set {VARIABLE}");
    let what = format!("building Kubernetes {kubernetes} and etcd {etcd} (about 10 minutes)");
    make(&name, &PROGRAMS, &kubernetes, consent, &what, &cure)
}

/// Returns the path of kube-proxy, which is built when it is not there yet.
pub(crate) fn find_or_obtain_proxy(consent: Consent) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(PROXY_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(workspace::root().join(path));
    }
    let kubernetes = pinned_kubernetes()?;
    let name = format!("kube-proxy-{kubernetes}");
    let cure = format!("{CURE}, or set {PROXY_VARIABLE}");
    let what = format!("building kube-proxy {kubernetes} (about 3 minutes)");
    Ok(make(&name, &[PROXY], &kubernetes, consent, &what, &cure)?.join(PROXY.0))
}

/// Returns the directory of kubelet, scheduler and controller manager, which are built when they
/// are not there yet.
pub(crate) fn find_or_obtain_node(consent: Consent) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(NODE_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(workspace::root().join(path));
    }
    let kubernetes = pinned_kubernetes()?;
    let name = format!("kubernetes-node-{kubernetes}");
    let cure = format!("{CURE}, or set {NODE_VARIABLE}");
    let what = format!("building kubelet and its like {kubernetes} (about 5 minutes)");
    make(&name, &NODE_PROGRAMS, &kubernetes, consent, &what, &cure)
}

/// Returns the root that the container runtime is unpacked below. It is not installed: this machine
/// gets no daemon.
pub(crate) fn find_or_obtain_runtime(consent: Consent) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(RUNTIME_VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(workspace::root().join(path));
    }
    let name = format!("containers-{RUNTIME_SUITE}");
    if let Some(dir) = workspace::cached(&name) {
        return Ok(dir);
    }
    let suite = Suite::open(RUNTIME_SUITE, consent)?;
    workspace::cache(&name, |dir| {
        RUNTIME_PACKAGES.iter().try_for_each(|package| suite.unpack(package, dir))
    })
}

fn pinned_kubernetes() -> Result<String> {
    let module = fs::read_to_string(directory().join("go.mod")).context("cannot read go.mod")?;
    version_of(&module, "k8s.io/kubernetes")
}

const CURE: &str = "install Go as tests/tools/go.mod asks";

fn make(
    name: &str,
    programs: &[(&str, &str)],
    kubernetes: &str,
    consent: Consent,
    what: &str,
    cure: &str,
) -> Result<PathBuf> {
    if let Some(dir) = workspace::cached(name) {
        return Ok(dir);
    }
    let go = go(cure)?;
    consent.ask(what, cure)?;
    workspace::cache(name, |dir| build(&go, dir, programs, kubernetes))
        .with_context(|| format!("no Kubernetes {kubernetes}; {cure}"))
}

/// The Go of this machine.
pub(crate) fn go(cure: &str) -> Result<PathBuf> {
    command::find("go")
        .or_else(|| command::find("/usr/local/go/bin/go"))
        .with_context(|| format!("no Go to build with; {cure}"))
}

fn build(go: &Path, dir: &Path, programs: &[(&str, &str)], kubernetes: &str) -> Result<()> {
    // The API server tells clients its version, and decides by it which features it has.
    let [major, minor, ..] = kubernetes.trim_start_matches('v').split('.').collect::<Vec<_>>()[..]
    else {
        anyhow::bail!("go.mod: {kubernetes} is no version");
    };
    let variable = "k8s.io/component-base/version";
    let flags = format!(
        "-s -w -X {variable}.gitVersion={kubernetes} -X {variable}.gitMajor={major} \
         -X {variable}.gitMinor={minor}"
    );
    for (program, package) in programs {
        progress(&format!("building {program}"));
        command::run(
            Command::new("nice")
                .arg(go)
                .args([
                    "build",
                    "-p",
                    "2",
                    "-trimpath",
                    "-buildvcs=false",
                    "-ldflags",
                    &flags,
                    "-o",
                ])
                .arg(dir.join(program))
                .arg(package)
                .current_dir(directory())
                // The toolchain is the machine's own: none is downloaded.
                .env("GOTOOLCHAIN", "local"),
        )?;
    }
    Ok(())
}

fn directory() -> PathBuf {
    workspace::root().join("tests/tools")
}

/// The version that a go.mod requires of a module.
pub(crate) fn version_of(module: &str, name: &str) -> Result<String> {
    module
        .lines()
        .filter(|line| !line.contains("=>"))
        .map(|line| line.trim().trim_start_matches("require "))
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next())
        .map(str::to_owned)
        .with_context(|| format!("go.mod requires no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_module_is_read_from_its_requirement() {
        let module = "require (\n\tk8s.io/a v1.2.3\n\tk8s.io/ab v9 // indirect\n)\n\
                      require k8s.io/c v4\nreplace k8s.io/d => k8s.io/d v5\n";
        for (name, version) in [("k8s.io/a", Some("v1.2.3")), ("k8s.io/c", Some("v4"))] {
            assert_eq!(version_of(module, name).ok().as_deref(), version);
        }
        assert!(version_of(module, "k8s.io/d").is_err());
    }
}
