//! Hiding parts of a machine from one process, by a mount namespace of its own.

use anyhow::{Context as _, Result};

use crate::{process, wait};

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

/// A command that executes its arguments without seeing `hidden`.
#[must_use]
pub fn without(hidden: Hidden) -> Vec<String> {
    // What does not exist is hidden already.
    let path = hidden.path();
    let script =
        format!("if [ -d {path} ]; then mount -t tmpfs none {path} || exit; fi; exec \"$@\"");
    let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    words.map(str::to_owned).to_vec()
}

/// A module unloaded and kept from being loaded again, for as long as this lives.
#[derive(Debug)]
pub struct Unloaded {
    module: &'static str,
    modprobe: String,
}

/// The program the kernel runs to load a module.
const MODPROBE: &str = "/proc/sys/kernel/modprobe";

impl Unloaded {
    /// Unloads `module` and what uses it. Errs when something else uses it.
    pub fn enforce(module: &'static str) -> Result<Self> {
        let modprobe = std::fs::read_to_string(MODPROBE).context(MODPROBE)?;
        let guard = Self { module, modprobe: modprobe.trim().to_owned() };
        unload(module)?;
        std::fs::write(MODPROBE, "/bin/false").context(MODPROBE)?;
        Ok(guard)
    }
}

impl Drop for Unloaded {
    fn drop(&mut self) {
        let restored = std::fs::write(MODPROBE, &self.modprobe).context(MODPROBE);
        let loaded = process::run("modprobe", &[self.module]);
        for error in [restored.err(), loaded.err()].into_iter().flatten() {
            eprintln!("hidden: {error:#}");
        }
    }
}

/// Unloads a module after those that use it. One that is not loaded is already unloaded.
fn unload(module: &str) -> Result<()> {
    // nf_tables 303104 12 nft_masq,nft_ct, Live 0x0
    let modules = std::fs::read_to_string("/proc/modules").context("/proc/modules")?;
    let found = modules.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(words) = found.into_iter().find(|words| words.first() == Some(&module)) else {
        return Ok(());
    };
    let users = words.get(3).copied().unwrap_or_default();
    for user in users.split(',').filter(|user| !matches!(*user, "" | "-")) {
        unload(user)?;
    }
    // A namespace that was just deleted may still hold it.
    wait::until(&format!("{module} is unloaded"), wait::PATIENCE, || {
        process::run("rmmod", &[module]).map(Some)
    })?;
    Ok(())
}
