//! Kernel modules.

use std::{fs, io, path::Path, process::Command};

/// A module is not there and cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `modprobe` command.
    #[error("load module {name}: run modprobe; install kmod, or load the module on the host")]
    Run {
        /// The module.
        name: String,
        /// Why it could not be run.
        #[source]
        cause: io::Error,
    },
    /// `modprobe` failed.
    #[error(
        "load module {name}: {}; run `modprobe {name}` on the host, and see that /lib/modules is \
         that of the running kernel",
        complaint.trim()
    )]
    Refused {
        /// The module.
        name: String,
        /// What `modprobe` wrote to its standard error.
        complaint: String,
    },
}

/// Makes sure that the module is there: loaded, built in, or loaded now.
pub fn load(name: &str) -> Result<(), Error> {
    if is_loaded(name) {
        return Ok(());
    }
    let output = Command::new("modprobe")
        .args(["--quiet", "--", name])
        .output()
        .map_err(|cause| Error::Run { name: name.to_owned(), cause })?;
    // modprobe knows of built-in modules that have no directory in /sys for want of parameters.
    if output.status.success() || is_loaded(name) {
        return Ok(());
    }
    let complaint = match String::from_utf8_lossy(&output.stderr).trim() {
        "" => "no such module".to_owned(),
        complaint => complaint.to_owned(),
    };
    Err(Error::Refused { name: name.to_owned(), complaint })
}

/// Returns whether the module is loaded, or built in with parameters or a version.
pub fn is_loaded(name: &str) -> bool {
    // The kernel writes underscores for dashes.
    Path::new("/sys/module").join(name.replace('-', "_")).is_dir()
}

/// Returns whether the module is loaded or built in, as far as this can be told: a built-in one
/// without parameters is known from the list beside the modules only.
pub fn is_present(name: &str) -> bool {
    is_loaded(name) || built_in().is_some_and(|list| lists(&list, name))
}

fn built_in() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    fs::read_to_string(format!("/lib/modules/{}/modules.builtin", release.trim())).ok()
}

/// Says whether a list of paths such as `kernel/net/ipv4/tcp_cubic.ko` has the module.
fn lists(list: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    list.lines().any(|line| {
        let file = line.rsplit('/').next().unwrap_or_default();
        file.strip_suffix(".ko").is_some_and(|file| file.replace('-', "_") == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_in_module_counts_as_loaded() {
        // Every kernel has this directory: it holds the parameters of no module in particular.
        assert!(load("kernel").is_ok());
    }

    #[test]
    fn a_list_of_built_in_modules_is_read() {
        let list = "kernel/net/netfilter/nf_conntrack.ko\nkernel/drivers/net/dummy.ko\n";
        assert!(lists(list, "nf_conntrack") && lists(list, "nf-conntrack"));
        assert!(!lists(list, "conntrack") && !lists(list, "nf_conntrack_ftp"));
    }

    #[test]
    fn an_unknown_module_is_named_in_the_error_with_the_cure() {
        let error = load("passlane_no_such_module").unwrap_err();
        // Not every machine that builds this has kmod.
        let cure = match error {
            Error::Run { .. } => "install kmod",
            Error::Refused { .. } => "modprobe passlane_no_such_module",
        };
        let text = error.to_string();
        assert!(text.contains("passlane_no_such_module") && text.contains(cure), "{text}");
    }
}
