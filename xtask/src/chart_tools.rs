//! What the tests of the image and of the chart need: helm, promtool, the definitions of the
//! Prometheus operator's objects, and an image with the agent that is tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{self, Consent, progress};
use crate::debian::Suite;
use crate::{cluster_tools, image, workspace};

/// Where each thing is, by the variable that tells the tests.
pub(crate) fn obtain(agent: &Path, consent: Consent) -> Result<BTreeMap<String, String>> {
    let here = std::env::current_exe().context("no path of this program")?;
    let all = [
        ("PASSLANE_HELM", helm(consent)?),
        ("PASSLANE_PROMTOOL", promtool(consent)?),
        ("PASSLANE_MONITOR_CRDS", definitions(consent)?),
        (
            "PASSLANE_IMAGE",
            image::write_with(agent, &workspace::target().join("tmp/image.tar"), consent)?,
        ),
        // Writes images too.
        ("PASSLANE_XTASK", here),
    ];
    let text = |path: PathBuf| path.display().to_string();
    Ok(all.into_iter().map(|(name, path)| (name.to_owned(), text(path))).collect())
}

const CURE: &str = "install Go as tests/tools/helm/go.mod asks";

fn helm(consent: Consent) -> Result<PathBuf> {
    let directory = workspace::root().join("tests/tools/helm");
    let module = fs::read_to_string(directory.join("go.mod")).context("cannot read go.mod")?;
    let version = cluster_tools::version_of(&module, "helm.sh/helm/v4")?;
    let name = format!("helm-{version}");
    let dir = match workspace::cached(&name) {
        Some(dir) => dir,
        None => {
            let go = cluster_tools::go(CURE)?;
            consent.ask(&format!("building helm {version} (about 3 minutes)"), CURE)?;
            let build = |dir: &Path| {
                let mut command = Command::new("nice");
                command.arg(&go).args(["build", "-p", "2", "-trimpath", "-buildvcs=false"]);
                command.args(["-ldflags", "-s -w", "-o"]).arg(dir.join("helm"));
                command.arg("helm.sh/helm/v4/cmd/helm").current_dir(&directory);
                command::run(command.env("GOTOOLCHAIN", "local"))
            };
            workspace::cache(&name, build)?
        }
    };
    Ok(dir.join("helm"))
}

/// Debian's package has a daemon too: it is unpacked, not installed.
fn promtool(consent: Consent) -> Result<PathBuf> {
    let name = "prometheus-bookworm";
    let dir = match workspace::cached(name) {
        Some(dir) => dir,
        None => {
            let suite = Suite::open("bookworm", consent)?;
            workspace::cache(name, |dir| suite.unpack("prometheus", dir))?
        }
    };
    Ok(dir.join("usr/bin/promtool"))
}

/// The module that carries the definitions, and its sum as Go has it.
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
const OPERATOR_SUM: &str = "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=";

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    dir: PathBuf,
    sum: String,
}

fn definitions(consent: Consent) -> Result<PathBuf> {
    let name = "prometheus-operator-crds-v0.85.0";
    if let Some(dir) = workspace::cached(name) {
        return Ok(dir);
    }
    let go = cluster_tools::go(CURE)?;
    consent.ask(&format!("downloading Go module {OPERATOR}"), CURE)?;
    workspace::cache(name, |dir| {
        progress("taking the definitions of its objects");
        let mut download = Command::new(&go);
        // Outside of any module, so that none is changed.
        download.args(["mod", "download", "-json", OPERATOR]).current_dir("/");
        let text = command::output(download.env("GOTOOLCHAIN", "local"))?;
        let Download { dir: module, sum } = serde_json::from_str(&text)?;
        ensure!(sum == OPERATOR_SUM, "{OPERATOR} has the sum {sum}");
        for kind in ["podmonitors", "prometheusrules", "servicemonitors"] {
            let file = format!("monitoring.coreos.com_{kind}.yaml");
            fs::write(
                dir.join(&file),
                fs::read(module.join("example/prometheus-operator-crd").join(&file))?,
            )?;
        }
        Ok(())
    })
}
