//! What a run may leave behind on a machine, how it is recognised, and how it is swept.
//!
//! Everything a topology makes carries its name, `plt-<process id>-<count>`: namespaces, a
//! directory for files, a directory in bpffs. VIPs, virtual servers, nft tables and links live
//! inside the namespaces and vanish with them. A name whose process is gone is residue.

use std::fs;
use std::path::Path;

use crate::{netns, process};

/// Where the BPF file system is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The file in a topology's directory that names the process of its agent.
pub const AGENT_PID_FILE: &str = "agent.pid";

const PREFIX: &str = "plt-";

/// The name of this process' topology number `count`.
#[must_use]
pub fn own_name(count: u32) -> String {
    format!("{PREFIX}{}-{count}", std::process::id())
}

/// Removes what dead runs left, and makes sure that a BPF file system is mounted.
pub fn sweep() {
    for name in abandoned() {
        remove(&name);
    }
    mount_bpffs();
}

/// Removes everything that carries the name of one topology: its agent, its pins, its namespaces
/// and its files. What does not exist is already removed.
pub fn remove(name: &str) {
    let directory = std::env::temp_dir().join(name);
    end_agent(&directory);
    remove_tree(&Path::new(BPFFS).join(name));
    remove_namespaces(&namespaces_of(name));
    remove_tree(&directory);
}

fn remove_namespaces(namespaces: &[String]) {
    let lines: String = namespaces.iter().map(|name| format!("netns del {name}\n")).collect();
    // Goes on after one that cannot be removed.
    if !lines.is_empty()
        && let Err(error) = process::feed("ip", &["-force", "-batch", "-"], &lines)
    {
        eprintln!("residue: {error:#}");
    }
}

fn remove_tree(path: &Path) {
    if path.exists()
        && let Err(error) = fs::remove_dir_all(path)
    {
        eprintln!("residue: {}: {error}", path.display());
    }
}

/// Ends the agent a dead run left, if the process with the recorded id still is that agent.
fn end_agent(directory: &Path) {
    let Ok(pid) = fs::read_to_string(directory.join(AGENT_PID_FILE)) else { return };
    let command_line = fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
    let state_dir = directory.display().to_string();
    if !String::from_utf8_lossy(&command_line).contains(&state_dir) {
        return;
    }
    if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw)
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    {
        eprintln!("residue: agent {pid:?}: {error}");
    }
}

/// Names of topologies, by their namespaces, files and pins, whose process is gone.
fn abandoned() -> Vec<String> {
    let places = [netns::DIRECTORY.into(), std::env::temp_dir(), BPFFS.into()];
    let mut names: Vec<String> = places
        .iter()
        .flat_map(|place: &std::path::PathBuf| entries(place))
        .filter_map(|entry| topology_of(&entry))
        .filter(|(_, owner)| !Path::new(&format!("/proc/{owner}")).exists())
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names.dedup();
    names
}

fn namespaces_of(name: &str) -> Vec<String> {
    let of_this = |entry: &String| topology_of(entry).is_some_and(|(found, _)| found == name);
    entries(Path::new(netns::DIRECTORY)).into_iter().filter(of_this).collect()
}

/// Splits `plt-<pid>-<count>[-role]` into the topology's name and the process id.
fn topology_of(entry: &str) -> Option<(String, u32)> {
    let mut parts = entry.strip_prefix(PREFIX)?.splitn(3, '-');
    let owner: u32 = parts.next()?.parse().ok()?;
    let count: u32 = parts.next()?.parse().ok()?;
    Some((format!("{PREFIX}{owner}-{count}"), owner))
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn mount_bpffs() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS));
    if !mounted && let Err(error) = process::run("mount", &["-t", "bpf", "bpf", BPFFS]) {
        eprintln!("residue: {error:#}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_is_recognised_by_any_of_its_names() {
        let expected = Some(("plt-42-7".to_owned(), 42));
        assert_eq!(topology_of("plt-42-7"), expected);
        assert_eq!(topology_of("plt-42-7-client-b"), expected);
    }

    #[test]
    fn a_foreign_name_is_no_residue() {
        for name in ["plt-", "plt-x-1", "plt-42", "cni-1234", "plt-42-node"] {
            assert_eq!(topology_of(name), None, "{name}");
        }
    }
}
