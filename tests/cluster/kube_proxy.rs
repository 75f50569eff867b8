//! The real kube-proxy, in its `ipvs` mode.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use proxy_tests::{process, wait};

use crate::{
    cluster::{Cluster, NODE},
    on_a_node::PATIENCE,
};

/// A kube-proxy in the network namespace of this thread. Dropping it ends the process; what it made
/// stays.
pub(crate) struct KubeProxy {
    child: Child,
    log: PathBuf,
}

impl KubeProxy {
    /// Starts it, and waits until it has written its rules.
    pub(crate) fn start(cluster: &Cluster, directory: &Path) -> Result<Self> {
        let (kubeconfig, _) = cluster.direct_login("kube-proxy")?;
        Self::with(&kubeconfig, directory)
    }

    /// Starts it with another login.
    pub(crate) fn with(kubeconfig: &Path, directory: &Path) -> Result<Self> {
        let program = std::env::var_os("PASSLANE_KUBE_PROXY").context(
            "PASSLANE_KUBE_PROXY names no kube-proxy; `cargo xtask test --level L5` builds one",
        )?;
        let path = directory.join("kube-proxy.log");
        let log = File::options().create(true).append(true).open(&path)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args([
                &format!("--kubeconfig={}", kubeconfig.display()),
                &format!("--hostname-override={NODE}"),
                "--proxy-mode=ipvs",
                // It would delete an operator's virtual servers elsewhere.
                "--ipvs-exclude-cidrs=10.250.0.0/16",
                "--cluster-cidr=10.1.0.0/16",
                "--detect-local-mode=ClusterCIDR",
                // Another network namespace's limits are not to be had.
                "--conntrack-max-per-core=0",
                "--conntrack-tcp-timeout-established=0",
                "--conntrack-tcp-timeout-close-wait=0",
                "--v=2",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start kube-proxy")?;
        let mut proxy = Self { child, log: path };
        wait::until_true("kube-proxy has written its rules", PATIENCE, || {
            if let Some(status) = proxy.child.try_wait()? {
                bail!("kube-proxy ended, {status}: {}", proxy.log());
            }
            for program in ["iptables-save", "ip6tables-save"] {
                let rules = process::run(program, &["-t", "filter"])?;
                if !rules.contains("-A KUBE-IPVS-FILTER") {
                    return Ok(false);
                }
            }
            Ok(process::run("ip", &["-o", "addr", "show"])?.contains("kube-ipvs0"))
        })
        .with_context(|| proxy.log())?;
        Ok(proxy)
    }

    /// Ends it as a node does that loses it.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
