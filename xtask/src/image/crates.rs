//! The crates that the agent is made of, and their licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{command, workspace};

/// A crate whose code is in the agent or in its BPF objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Crate {
    pub(super) name: String,
    pub(super) version: String,
    /// An SPDX expression.
    pub(super) license: String,
    /// The texts that it brings.
    texts: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Metadata {
    packages: Vec<Described>,
}

#[derive(serde::Deserialize)]
struct Described {
    name: String,
    version: String,
    license: Option<String>,
    manifest_path: PathBuf,
}

/// Returns the crates, sorted, without those of this workspace.
pub(super) fn collect(triple: &str) -> Result<Vec<Crate>> {
    let mut used = BTreeSet::new();
    for (package, target) in [("proxy-userspace", Some(triple)), ("proxy-ebpf", None)] {
        let mut tree = workspace::cargo();
        tree.args(["tree", "--locked", "--quiet", "--edges", "normal", "--prefix", "none"]);
        tree.args(["--format", "{p}", "--package", package]);
        tree.args(target.iter().flat_map(|target| ["--target", target]));
        used.extend(command::output(&mut tree)?.lines().filter_map(named));
    }
    let mut metadata = workspace::cargo();
    metadata.args(["metadata", "--locked", "--quiet", "--format-version", "1"]);
    let metadata: Metadata = serde_json::from_str(&command::output(&mut metadata)?)
        .context("cargo metadata wrote no JSON")?;
    let mut crates = Vec::new();
    for described in metadata.packages {
        let key = (described.name, described.version);
        if used.remove(&key) && !described.manifest_path.starts_with(workspace::root()) {
            let dir = described.manifest_path.parent().unwrap_or(Path::new("/"));
            let (name, version) = key;
            let license = described.license.unwrap_or_else(|| "NOASSERTION".to_owned());
            let license = license.replace('/', " OR ");
            crates.push(Crate { name, version, license, texts: texts(dir)? });
        }
    }
    ensure!(used.is_empty(), "cargo metadata does not know {used:?}");
    crates.sort();
    Ok(crates)
}

/// Name and version in a line such as `serde v1.0.1 (*)`. What runs in the compiler only is left out.
fn named(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let in_the_agent = words.next() != Some("(proc-macro)");
    in_the_agent.then(|| (name.to_owned(), version.to_owned()))
}

/// The licences and notices in the directory of a crate.
fn texts(dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let is_one = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_one && path.is_file() && !name.ends_with(".RS") {
            files.push(path);
        }
    }
    files.sort();
    let read = |path: &PathBuf| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim_end().to_owned())
    };
    files.iter().map(read).collect()
}

/// All crates with their licences, and each text once.
pub(super) fn notices(crates: &[Crate]) -> Result<String> {
    let mut text = String::from(
        "passlane is made of the crates below, each under the licence beside it, and of Rust's standard\n\
         library (MIT OR Apache-2.0). The texts that the crates bring follow, each once.\n\n",
    );
    let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Crate { name, version, license, texts } in crates {
        let none = if texts.is_empty() { " (brings no text)" } else { "" };
        writeln!(text, "{name} {version}: {license}{none}")?;
        for each in texts {
            users.entry(each).or_default().push(format!("{name} {version}"));
        }
    }
    for (licence, users) in users {
        let line = "-".repeat(100);
        write!(text, "\n{line}\n{}\n{line}\n\n{licence}\n", users.join(", "))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_cargo_tree_are_read_and_macros_left_out() {
        let pair = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(named("serde v1.0.1 (*)"), pair("serde", "1.0.1"));
        assert_eq!(named("proxy-common v0.1.0 (/x/y)"), pair("proxy-common", "0.1.0"));
        assert_eq!(named("serde_derive v1.0.1 (proc-macro)"), None);
        assert_eq!(named(""), None);
    }

    #[test]
    fn a_text_of_two_crates_is_printed_once_with_both() {
        let of = |name: &str, texts: &[&str]| Crate {
            name: name.to_owned(),
            version: "1".to_owned(),
            license: "MIT".to_owned(),
            texts: texts.iter().map(|&text| text.to_owned()).collect(),
        };
        let text = notices(&[of("a", &["same"]), of("b", &["same", "own"]), of("c", &[])]).unwrap();
        assert_eq!(text.matches("\nsame\n").count(), 1, "{text}");
        assert!(text.contains("\na 1, b 1\n") && text.contains("\nb 1\n"), "{text}");
        assert!(text.contains("c 1: MIT (brings no text)"), "{text}");
    }
}
