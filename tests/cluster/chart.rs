//! The Helm chart in `deploy/chart`: by the real helm, and against the real API server.

pub(crate) mod installed;
pub(crate) mod monitoring;
pub(crate) mod rendered;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proxy_tests::process;
use serde_json::Value;

/// The release that the tests make: the tests' cluster has an account `passlane` of its own.
const RELEASE: &str = "cluster-a";
/// What the chart calls its objects then.
const NAME: &str = "cluster-a-passlane";

/// Where the chart is.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart")
}

/// What `cargo xtask test` has obtained for these tests.
pub(crate) fn tool(variable: &str) -> Result<String> {
    env::var(variable).with_context(|| {
        format!("{variable} is not set; `cargo xtask test --level L5` builds what it names")
    })
}

/// Runs helm on the chart: `helm VERB [RELEASE] CHART ARGUMENTS…`.
fn helm(before: &[&str], arguments: &[&str]) -> Result<String> {
    let chart = directory().display().to_string();
    let all: Vec<&str> =
        before.iter().copied().chain([chart.as_str()]).chain(arguments.iter().copied()).collect();
    process::run(&tool("PASSLANE_HELM")?, &all)
}

/// Renders the chart as for an API server of the version that the tests have.
pub(crate) fn template(arguments: &[&str]) -> Result<String> {
    let fixed = ["--namespace", "kube-system", "--kube-version", "1.37.0"];
    helm(&["template", RELEASE], &[&fixed[..], arguments].concat())
}

/// The sets of values in `ci/`, by name.
fn values() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory().join("ci"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix("-values.yaml") {
            found.push((name.to_owned(), path.display().to_string()));
        }
    }
    found.sort();
    Ok(found)
}

/// A file of the chart, read as YAML or JSON.
fn read(name: &str) -> Result<Value> {
    let path = directory().join(name);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))
}

/// The entries of a list; none where there is none.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
