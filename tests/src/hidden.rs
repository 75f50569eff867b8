//! Hiding parts of a machine from one process, by a mount namespace of its own.

use std::process::Output;

use anyhow::{Context as _, Result};

use crate::netns::Namespace;
use crate::process;

/// A part of the machine that a process does not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// `/lib/modules`: no module can be loaded from it.
    Modules,
    /// `/sys/kernel/btf`: the kernel describes no types.
    Btf,
    /// `/sys/fs/bpf`: no BPF file system is mounted.
    BpfFs,
}

impl Hidden {
    fn path(self) -> &'static str {
        match self {
            Self::Modules => "/lib/modules",
            Self::Btf => "/sys/kernel/btf",
            Self::BpfFs => "/sys/fs/bpf",
        }
    }
}

/// Runs `command` inside `namespace` without seeing `hidden`, for at most ten seconds.
pub fn output_without(namespace: &Namespace, hidden: Hidden, command: &[&str]) -> Result<Output> {
    let script = format!("mount -t tmpfs none {} && exec timeout 10 \"$@\"", hidden.path());
    let mut args = vec!["--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    args.extend(command);
    namespace.output("unshare", &args)
}

/// IPVS unloaded and kept from being loaded again, for as long as this lives.
#[derive(Debug)]
pub struct NoIpvs {
    modprobe: String,
}

/// The program the kernel runs to load a module.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

impl NoIpvs {
    /// Unloads IPVS. Errs when something still uses it.
    pub fn enforce() -> Result<Self> {
        let modprobe = std::fs::read_to_string(MODPROBE).context(MODPROBE)?;
        let guard = Self { modprobe: modprobe.trim().to_owned() };
        let modules = std::fs::read_to_string("/proc/modules").context("/proc/modules")?;
        let loaded = |name: &&str| name.starts_with("ip_vs_");
        let schedulers = modules.lines().filter_map(|line| line.split(' ').next()).filter(loaded);
        for module in schedulers.chain(["ip_vs"]) {
            process::run("rmmod", &[module])?;
        }
        std::fs::write(MODPROBE, "/bin/false").context(MODPROBE)?;
        Ok(guard)
    }
}

impl Drop for NoIpvs {
    fn drop(&mut self) {
        let restored = std::fs::write(MODPROBE, &self.modprobe).context(MODPROBE);
        let loaded = process::run("modprobe", &["ip_vs"]);
        for error in [restored.err(), loaded.err()].into_iter().flatten() {
            eprintln!("hidden: {error:#}");
        }
    }
}
