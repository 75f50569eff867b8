//! Everything on a node that an agent could leave behind, as lines that can be compared.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::netns::Namespace;
use crate::wait;

/// A photograph of a node. Two of them differ exactly in what was changed in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState(BTreeSet<String>);

/// Programs whose output describes a part of the node.
const VIEWS: &[(&str, &[&str])] = &[
    ("ipvsadm", &["-Sn"]),
    ("nft", &["-s", "list", "ruleset"]),
    ("ip", &["-o", "link"]),
    ("ip", &["-o", "addr"]),
    ("ip", &["route", "show", "table", "all"]),
    ("ip", &["rule"]),
    ("tc", &["qdisc", "show"]),
    ("bpftool", &["net"]),
];

/// Sysctls below these are compared, and those that count something are not.
const SYSCTLS: &[&str] = &["/proc/sys/net/ipv4", "/proc/sys/net/netfilter"];
const COUNTING_SYSCTLS: &[&str] = &["nf_conntrack_count"];

impl NodeState {
    /// Looks at everything in `node`, and at the files below `directories`.
    ///
    /// Waits until the kernel has made up its mind about IPv6 addresses: for the first second or
    /// two of an interface they are tentative, and have no route yet.
    pub fn of(node: &Namespace, directories: &[&Path]) -> Result<Self> {
        wait::until_true("no address is tentative", wait::PATIENCE, || {
            Ok(node.run("ip", &["-6", "-o", "addr", "show", "tentative"])?.trim().is_empty())
        })?;
        let mut lines = BTreeSet::new();
        for (program, args) in VIEWS {
            let text = node.run(program, args)?;
            lines.extend(text.lines().map(|line| format!("{program} {}: {line}", args.join(" "))));
        }
        for root in SYSCTLS {
            node.enter(|| {
                walk(Path::new(root), &mut |path| {
                    if COUNTING_SYSCTLS.iter().all(|name| !path.ends_with(name)) {
                        // Some sysctls can only be written.
                        let value = std::fs::read_to_string(path).unwrap_or_default();
                        lines.insert(format!("{}={}", path.display(), value.trim()));
                    }
                })
            })?;
        }
        for directory in directories.iter().filter(|directory| directory.exists()) {
            walk(directory, &mut |path| {
                lines.insert(path.display().to_string());
            })?;
        }
        Ok(Self(lines))
    }

    /// What `self` has and `other` has not.
    #[must_use]
    pub fn without<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        self.0.difference(&other.0).map(String::as_str).collect()
    }
}

/// Calls `visit` with every file below `directory`.
fn walk(directory: &Path, visit: &mut impl FnMut(&Path)) -> Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), visit)?;
        } else {
            visit(&entry.path());
        }
    }
    Ok(())
}
