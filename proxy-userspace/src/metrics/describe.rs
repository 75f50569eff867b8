//! The text of `METRICS.md`.

use super::names::{ALL, Kind, LEAST_INTERVAL, Metric};

/// Returns the Markdown of `METRICS.md`, from the list that the exposition follows.
pub fn describe() -> String {
    let (theirs, ours): (Vec<&Metric>, Vec<&Metric>) =
        ALL.iter().partition(|metric| !metric.name.starts_with("passlane_"));
    let mut text = format!(
        "# Metrics\n\nGenerated from `proxy-userspace/src/metrics/names.rs` by \
         `PASSLANE_BLESS=1 cargo test -p proxy-userspace --lib metrics_md`; do not edit.\n\nServed at `/metrics` on `metricsBindAddress` (127.0.0.1:10249), as Prometheus text or \
         OpenMetrics. Counters begin\nwith the agent, those of packets with the kernel's objects. What comes \
         from the kernel is read at most once in {} s\nfor all scrapes together, and no scrape waits for \
         the agent's loop. `kubeproxy_` metrics have kube-proxy's meaning;\nthe others of its dashboards \
         follow. `--metrics-per-service N` adds the metrics of the first N Service ports.\n",
        LEAST_INTERVAL.as_secs(),
    );
    for (title, metrics) in [("kube-proxy's, and of every process", theirs), ("Ours", ours)] {
        text += &format!("\n## {title}\n\n| name | type | labels | meaning |\n|---|---|---|---|\n");
        for metric in metrics {
            let labels: Vec<String> =
                metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let Metric { name, kind, help, .. } = metric;
            let (kind, labels) = (kind.word(), labels.join(", "));
            let help = help.replace('<', "&lt;");
            text += &format!("| `{name}` | {kind} | {labels} | {help} |\n");
        }
    }
    text += "\n## Buckets\n\n| name | upper ends in seconds |\n|---|---|\n";
    for metric in ALL {
        if let Kind::Histogram(ends) = metric.kind {
            let ends: Vec<String> = ends.iter().map(f64::to_string).collect();
            text += &format!("| `{}` | {} |\n", metric.name, ends.join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn metrics_md_is_what_the_list_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../METRICS.md");
        if env::var_os("PASSLANE_BLESS").is_some_and(|bless| bless == "1") {
            fs::write(&path, describe()).unwrap();
        }
        let file = fs::read_to_string(&path).unwrap_or_default();
        let cure = "run `PASSLANE_BLESS=1 cargo test -p proxy-userspace --lib metrics_md`";
        assert!(file == describe(), "METRICS.md is not what names.rs says: {cure}");
    }
}
