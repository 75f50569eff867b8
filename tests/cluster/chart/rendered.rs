//! What the chart makes of values, and which it refuses.

use std::collections::BTreeSet;
use std::{env, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::{agent, process};
use serde_json::Value;

use super::{helm, read, template, values};
use crate::cluster::Cluster;

crate::tests![
    chart_lints_and_renders_what_was_reviewed,
    chart_gives_the_agent_a_configuration_that_it_takes,
    chart_refuses_values_that_it_does_not_know,
    chart_schema_and_values_have_the_same_keys,
    chart_has_the_version_of_the_agent,
];

fn chart_lints_and_renders_what_was_reviewed(_: &Cluster) -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/chart/golden");
    let bless = env::var_os("PASSLANE_BLESS").is_some_and(|bless| bless == "1");
    let sets = values()?;
    ensure!(sets.len() == 6, "{sets:?}");
    for (name, values) in sets {
        helm(&["lint", "--strict"], &["--values", &values])?;
        let rendered = template(&["--values", &values])?;
        let path = golden.join(format!("{name}.yaml"));
        if bless {
            fs::create_dir_all(&golden)?;
            fs::write(&path, &rendered)?;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        let differs = expected.lines().zip(rendered.lines()).find(|(old, new)| old != new);
        ensure!(
            expected == rendered,
            "{} is not what the chart renders, from {differs:?} on: run `PASSLANE_BLESS=1 cargo xtask \
             test --level L5 --filter chart_lints` and read the diff",
            path.display()
        );
    }
    Ok(())
}

fn chart_gives_the_agent_a_configuration_that_it_takes(_: &Cluster) -> Result<()> {
    let directory = tempfile::tempdir()?;
    for (name, values) in values()? {
        let map = template(&["--values", &values, "--show-only", "templates/configmap.yaml"])?;
        let file = directory.path().join(format!("{name}.yaml"));
        fs::write(&file, map)?;
        let binary = agent::binary()?.display().to_string();
        let convert = ["config", "convert", &file.display().to_string()].map(str::to_owned);
        let said = process::run(&binary, &convert).with_context(|| name.clone())?;
        // The pod has no such file, so the chart leaves it out.
        ensure!(!said.contains("kubeconfig.conf"), "{name}: {said}");
        if name == "kubeadm" {
            let scheduler = said.lines().find(|line| line.contains("ipvs.scheduler"));
            ensure!(scheduler.is_some_and(|line| line.contains("wlc")), "{said}");
        }
    }
    Ok(())
}

fn chart_refuses_values_that_it_does_not_know(_: &Cluster) -> Result<()> {
    let server = "k8sServiceHost=192.0.2.1";
    helm(&["template", "x"], &["--set", server])?;
    for (set, words) in [
        ("nonsense=1", "nonsense"),
        ("image.tagg=1", "tagg"),
        ("podMonitor.enable=true", "enable"),
        ("privileged=yes please", "privileged"),
        ("k8sServicePort=0", "k8sServicePort"),
        ("image.digest=sha256:12", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("cleanup.deadline=0", "deadline"),
        ("kubeProxyConfig=a: b: c", "kubeProxyConfig"),
        ("kubeProxyConfig.kind=ConfigMap", "config.conf"),
    ] {
        let Err(error) = helm(&["template", "x"], &["--set", server, "--set", set]) else {
            anyhow::bail!("{set} was taken");
        };
        ensure!(format!("{error:#}").contains(words), "{set}: {error:#}");
    }
    let Err(error) = helm(&["template", "x"], &[]) else {
        anyhow::bail!("the chart goes without an address of the API server");
    };
    ensure!(format!("{error:#}").contains("without any Service"), "{error:#}");
    Ok(())
}

fn chart_schema_and_values_have_the_same_keys(_: &Cluster) -> Result<()> {
    let (schema, values) = (read("values.schema.json")?, read("values.yaml")?);
    let mut known = BTreeSet::new();
    keys_of_schema(&schema, "", &mut known);
    let mut used = BTreeSet::new();
    keys_of_values(&schema, &values, "", &mut used);
    // What is only refused when it is wrong has no default.
    let without_default = known.iter().filter(|key| {
        let is_free = ["appArmorProfile.", "seccompProfile.", "seLinuxOptions.", "resources."];
        !is_free.iter().any(|start| key.starts_with(start)) && *key != "global"
    });
    let missing: Vec<_> = without_default.filter(|key| !used.contains(*key)).collect();
    ensure!(missing.is_empty(), "values.yaml lacks {missing:?}");
    let unknown: Vec<_> = used.iter().filter(|key| !known.contains(*key)).collect();
    ensure!(unknown.is_empty(), "values.schema.json lacks {unknown:?}");
    Ok(())
}

/// Adds the dotted names of all properties. Every object with properties must refuse others.
fn keys_of_schema(schema: &Value, at: &str, known: &mut BTreeSet<String>) {
    let Some(properties) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"] != false {
        known.insert(format!("{at}: does not refuse others"));
    }
    for (name, schema) in properties {
        let key = format!("{at}{name}");
        keys_of_schema(schema, &format!("{key}."), known);
        known.insert(key);
    }
}

/// Adds the dotted names of the values, down to where the schema takes anything.
fn keys_of_values(schema: &Value, values: &Value, at: &str, used: &mut BTreeSet<String>) {
    for (name, value) in values.as_object().into_iter().flatten() {
        let key = format!("{at}{name}");
        let schema = &schema["properties"][name];
        if schema["properties"].is_object() {
            keys_of_values(schema, value, &format!("{key}."), used);
        }
        used.insert(key);
    }
}

fn chart_has_the_version_of_the_agent(_: &Cluster) -> Result<()> {
    let chart = read("Chart.yaml")?;
    for key in ["version", "appVersion"] {
        ensure!(chart[key] == env!("CARGO_PKG_VERSION"), "{key} is {}", chart[key]);
    }
    Ok(())
}
