//! Alerts and the dashboard: that they ask for metrics that there are, in Prometheus's own words.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::process;
use proxy_userspace::metrics::names::{ALL, Kind};
use serde_json::Value;

use super::{directory, list, read, tool};
use crate::cluster::Cluster;

crate::tests![
    alerts_fire_where_they_should_and_only_there,
    alerts_say_how_bad_it_is_and_what_to_do,
    queries_name_metrics_and_labels_that_there_are,
    dashboard_is_one_that_grafana_takes_anywhere,
];

fn promtool(arguments: &[&str]) -> Result<String> {
    process::run(&tool("PASSLANE_PROMTOOL")?, arguments)
}

fn alerts_fire_where_they_should_and_only_there(_: &Cluster) -> Result<()> {
    let file = |name: &str| directory().join(name).display().to_string();
    promtool(&["check", "rules", "--lint-fatal", &file("files/alerts.yaml")])?;
    promtool(&["test", "rules", &file("ci/alerts.test.yaml")])?;
    let tests = fs::read_to_string(directory().join("ci/alerts.test.yaml"))?;
    for alert in alerts()? {
        let name = alert["alert"].as_str().context("an alert has a name")?;
        let quiet = tests.contains(&format!("alertname: {name}}}"));
        ensure!(quiet, "no test sees {name} keep quiet");
        ensure!(tests.contains(&format!("alertname=\"{name}\"")), "no test sees {name} fire");
    }
    Ok(())
}

fn alerts_say_how_bad_it_is_and_what_to_do(_: &Cluster) -> Result<()> {
    for alert in alerts()? {
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(["critical", "warning", "info"].contains(&severity), "{alert}");
        ensure!(alert["for"].is_string(), "{alert}");
        for key in ["summary", "description"] {
            ensure!(alert["annotations"][key].is_string(), "no {key}: {alert}");
        }
    }
    Ok(())
}

fn queries_name_metrics_and_labels_that_there_are(_: &Cluster) -> Result<()> {
    let mut queries: Vec<String> = Vec::new();
    for alert in alerts()? {
        queries.extend(alert["expr"].as_str().map(str::to_owned));
    }
    let alerts = queries.len();
    for panel in list(&read("files/dashboard.json")?["panels"]) {
        let targets = list(&panel["targets"]);
        ensure!(
            panel["type"] == "row" || !targets.is_empty(),
            "a panel that shows nothing: {panel}"
        );
        queries.extend(targets.iter().filter_map(|target| target["expr"].as_str()).map(plain));
    }
    ensure!(alerts > 0 && queries.len() > alerts, "{} queries, {alerts} of alerts", queries.len());
    for query in &queries {
        let found = metrics_of(query);
        ensure!(!found.is_empty(), "no metric in {query}");
        for (name, labels) in found {
            check(&name, &labels).with_context(|| query.clone())?;
        }
    }
    are_promql(&queries)
}

/// A query as Grafana sends it.
fn plain(query: &str) -> String {
    query.replace("$__rate_interval", "5m").replace("$instance", ".+")
}

/// Prometheus reads each as the rule of a series.
fn are_promql(queries: &[String]) -> Result<()> {
    let mut rules = "groups:\n- name: queries\n  rules:\n".to_owned();
    for (number, query) in queries.iter().enumerate() {
        let query = serde_json::to_string(query)?;
        rules.push_str(&format!("  - {{record: 'query:{number}', expr: {query}}}\n"));
    }
    let file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    fs::write(file.path(), rules)?;
    promtool(&["check", "rules", &file.path().display().to_string()]).map(drop)
}

/// The metrics in a query, each with the labels that it selects by.
fn metrics_of(query: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if let Some(labels) = after.strip_prefix('{') {
            let (labels, after) = labels.split_once('}').unwrap_or((labels, ""));
            rest = after;
            let names = labels.split(',').filter_map(|each| each.split(['=', '!']).next());
            found.push((word.to_owned(), names.map(|name| name.trim().to_owned()).collect()));
        } else if word == "up" || word.starts_with("passlane_") || word.starts_with("kubeproxy_") {
            found.push((word.to_owned(), BTreeSet::new()));
        }
    }
    found
}

/// The metric is one of METRICS.md, or Prometheus's own, and has these labels.
fn check(name: &str, labels: &BTreeSet<String>) -> Result<()> {
    // Prometheus adds these itself.
    let mut known = BTreeSet::from(["job", "instance", "node"]);
    if name != "up" {
        let of_histogram =
            ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        let metric = ALL.iter().find(|metric| match metric.kind {
            Kind::Histogram(_) => Some(metric.name) == of_histogram,
            _ => metric.name == name,
        });
        let metric = metric.with_context(|| format!("there is no metric {name}"))?;
        known.extend(metric.labels);
        if name.ends_with("_bucket") {
            known.insert("le");
        }
    }
    let unknown: Vec<_> = labels.iter().filter(|label| !known.contains(label.as_str())).collect();
    ensure!(unknown.is_empty(), "{name} has no label {unknown:?}");
    Ok(())
}

fn dashboard_is_one_that_grafana_takes_anywhere(_: &Cluster) -> Result<()> {
    let dashboard = read("files/dashboard.json")?;
    ensure!(dashboard["uid"] == "passlane" && dashboard.get("id").is_none(), "its identity");
    ensure!(dashboard["schemaVersion"].as_u64() >= Some(39), "{}", dashboard["schemaVersion"]);
    ensure!(dashboard["time"]["from"] == "now-1h", "an absolute time: {}", dashboard["time"]);
    let variables = list(&dashboard["templating"]["list"]).iter();
    let variables: Vec<_> = variables.filter_map(|each| each["name"].as_str()).collect();
    ensure!(variables == ["datasource", "instance"], "{variables:?}");
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        ensure!(ids.insert(panel["id"].as_u64()), "a doubled id: {panel}");
        let source = &panel["datasource"]["uid"];
        ensure!(panel["type"] == "row" || source == "${datasource}", "its own source: {panel}");
        let place = &panel["gridPos"];
        let edge = place["x"].as_u64().zip(place["w"].as_u64()).map(|(x, w)| x + w);
        ensure!(edge.is_some_and(|edge| edge <= 24), "beyond the edge: {panel}");
    }
    Ok(())
}

fn alerts() -> Result<Vec<Value>> {
    let file = read("files/alerts.yaml")?;
    let groups = list(&file["groups"]).iter();
    Ok(groups.flat_map(|group| list(&group["rules"]).to_vec()).collect())
}
