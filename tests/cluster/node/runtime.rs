//! containerd with runc and the CNI plugins, as Debian has them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use proxy_tests::{process, wait};

use super::{daemon::Daemon, image};
use crate::on_a_node::PATIENCE;

/// Where it listens.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
/// What it stores; in memory, since one overlay cannot be the upper layer of another.
const STORE: &str = "/var/lib/containerd";
const NETWORKS: &str = "/etc/cni/net.d";

/// Each pod has a link of its own to the node, as most CNIs do it.
const NETWORK: &str = r#"{
  "cniVersion": "0.4.0", "name": "pods", "plugins": [
    {"type": "ptp", "ipMasq": false, "mtu": 1500,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]],
              "routes": [{"dst": "0.0.0.0/0"}]}}]}"#;

/// Returns where the packages of the runtime are unpacked.
pub(crate) fn root() -> Result<PathBuf> {
    std::env::var_os("PASSLANE_CONTAINER_RUNTIME").map(PathBuf::from).context(
        "PASSLANE_CONTAINER_RUNTIME names no containerd; `cargo xtask test --level L5` gets one",
    )
}

/// The running containerd. Dropping it ends it, and what it keeps.
pub(crate) struct Runtime {
    pub(crate) daemon: Daemon,
    root: PathBuf,
}

impl Runtime {
    /// Starts it, and gives it the image of the pods.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let root = root()?;
        for path in [STORE, NETWORKS] {
            fs::create_dir_all(path)?;
        }
        process::run("mount", &["-t", "tmpfs", "store", STORE])?;
        // As systemd does it on a node: what is mounted later is seen in containers.
        process::run("mount", &["--make-rshared", "/"])?;
        fs::write(Path::new(NETWORKS).join("10-pods.conflist"), NETWORK)?;
        let settings = directory.join("containerd.toml");
        fs::write(&settings, configuration(&root))?;
        let arguments = [format!("--config={}", settings.display())];
        let daemon = Daemon::start(&root.join("usr/bin/containerd"), &arguments, directory)?;
        let mut runtime = Self { daemon, root };
        wait::until_true("containerd answers", PATIENCE, || {
            runtime.daemon.check()?;
            runtime.control(&["version"]).map(|_| true)
        })?;
        runtime.import(&image::write(directory)?)?;
        Ok(runtime)
    }

    /// Adds the image of an OCI archive.
    pub(crate) fn import(&self, archive: &Path) -> Result<()> {
        self.control(&["images", "import", &archive.display().to_string()]).map(drop)
    }

    /// Adds the image of an OCI archive that names only its version.
    pub(crate) fn import_as(&self, name: &str, archive: &Path) -> Result<()> {
        let archive = archive.display().to_string();
        self.control(&["images", "import", "--base-name", name, &archive]).map(drop)
    }

    /// Runs containerd's own tool.
    pub(crate) fn control(&self, words: &[&str]) -> Result<String> {
        let program = self.root.join("usr/bin/ctr").display().to_string();
        process::run(&program, &[&["--namespace", "k8s.io"], words].concat())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Containers outlive containerd: all of them are in the kubelet's group.
        let _ = fs::write("/sys/fs/cgroup/kubepods/cgroup.kill", "1");
        let _ = process::run("umount", &["--lazy", STORE]);
    }
}

fn configuration(root: &Path) -> String {
    format!(
        "version = 2\n\
         root = \"{STORE}\"\n\
         state = \"/run/containerd\"\n\
         [grpc]\naddress = \"{SOCKET}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"overlayfs\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
         BinaryName = \"{}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{}\"\nconf_dir = \"{NETWORKS}\"\n",
        image::NAME,
        root.join("usr/sbin/runc").display(),
        root.join("usr/lib/cni").display(),
    )
}
