//! The samples of one scrape, and their text.

use std::{collections::HashMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use super::names::{self, Kind, Metric};
use crate::tally::Distribution;

/// What a sample is worth.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a counter of seconds, or of a gauge.
    Number(f64),
    /// Of a histogram.
    Durations(Distribution),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Number(f64::from(u8::from(flag)))
    }
}

impl From<Distribution> for Value {
    fn from(durations: Distribution) -> Self {
        Self::Durations(durations)
    }
}

#[derive(Clone, Debug)]
struct Sample {
    labels: Vec<String>,
    value: Value,
}

/// Samples by metric.
#[derive(Clone, Debug, Default)]
pub struct Samples(HashMap<&'static str, Vec<Sample>>);

impl Samples {
    /// Puts a sample. `labels` are the values of the metric's labels, in their order.
    pub fn put<const N: usize>(
        &mut self,
        metric: &Metric,
        labels: [&str; N],
        value: impl Into<Value>,
    ) {
        debug_assert_eq!(metric.labels.len(), N, "labels of {}", metric.name);
        let labels = labels.map(str::to_owned).to_vec();
        self.0.entry(metric.name).or_default().push(Sample { labels, value: value.into() });
    }

    /// Puts all samples of others.
    pub fn extend(&mut self, others: &Self) {
        for (name, samples) in &others.0 {
            self.0.entry(name).or_default().extend(samples.iter().cloned());
        }
    }

    /// Returns the text in a format.
    ///
    /// # Errors
    ///
    /// A metric and its sample do not go together, which is an error of ours.
    pub fn encode(self, format: Format) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(match format {
            Format::OpenMetrics => text,
            Format::Text => plain(&text),
        })
    }
}

impl Collector for Samples {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in names::ALL {
            let Some(samples) = self.0.get(metric.name) else { continue };
            let (name, kind) = match metric.kind {
                // The encoder puts the suffix where the format wants it.
                Kind::Counter => (metric.name.trim_end_matches("_total"), MetricType::Counter),
                Kind::Gauge => (metric.name, MetricType::Gauge),
                Kind::Histogram(_) => (metric.name, MetricType::Histogram),
            };
            let mut family = encoder.encode_descriptor(name, metric.help, None, kind)?;
            for sample in samples {
                let labels = metric.labels.iter().copied().zip(&sample.labels);
                let labels: Vec<(&str, &str)> =
                    labels.map(|(label, value)| (label, value.as_str())).collect();
                match labels.is_empty() {
                    true => put(&sample.value, metric, &mut family)?,
                    false => put(&sample.value, metric, &mut family.encode_family(&labels)?)?,
                }
            }
        }
        Ok(())
    }
}

fn put(value: &Value, metric: &Metric, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;
    match (metric.kind, value) {
        (Kind::Counter, Value::Count(count)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(count, NO_EXEMPLAR)
        }
        (Kind::Counter, Value::Number(number)) => {
            encoder.encode_counter::<NoLabelSet, _, f64>(number, NO_EXEMPLAR)
        }
        (Kind::Gauge, Value::Number(number)) => encoder.encode_gauge(number),
        (Kind::Gauge, Value::Count(count)) => encoder.encode_gauge(count),
        (Kind::Histogram(_), Value::Durations(durations)) => encoder
            .encode_histogram::<NoLabelSet>(
                durations.sum,
                durations.count(),
                &durations.buckets,
                None,
            ),
        _ => Err(fmt::Error),
    }
}

/// The formats of Prometheus.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// Chooses by the request's header `Accept`: OpenMetrics for who names it, and does not like
    /// text better.
    pub fn accepted(accept: Option<&str>) -> Self {
        let (mut open, mut text) = (0.0, 0.0f32);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0, "1.0.0");
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value,
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if ["1.0.0", "0.0.1"].contains(&version) => {
                    open = f32::max(open, quality);
                }
                "text/plain" | "text/*" | "*/*" => text = text.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Turns OpenMetrics into the text format that is older: there the name of a counter has its suffix
/// in its description too, whole numbers have no fraction, and nothing says the end.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let described = line.strip_prefix("# ").and_then(|rest| {
            let (word, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            counters.contains(&name).then_some((word, name, rest))
        });
        match described {
            Some((word, name, rest)) => plain.push_str(&format!("# {word} {name}_total {rest}")),
            None => match bound(line) {
                Some((before, end, after)) => plain.extend([before, end, after]),
                None => plain.push_str(line),
            },
        }
        plain.push('\n');
    }
    plain
}

/// Splits a line of a bucket whose end is a whole number around that number.
fn bound(line: &str) -> Option<(&str, &str, &str)> {
    let end = line.find("{le=\"")? + "{le=\"".len();
    let (before, rest) = line.split_at(end);
    let (number, after) = rest.split_at(rest.find('"')?);
    Some((before, number.strip_suffix(".0")?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_openmetrics_gets_it() {
        let cases = [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain;version=0.0.4"), Format::Text),
            (Some("application/json"), Format::Text),
            (Some("application/openmetrics-text; version=1.0.0"), Format::OpenMetrics),
            (Some("application/openmetrics-text;version=2.0.0"), Format::Text),
            (Some("application/openmetrics-text;q=0.1,text/plain;q=0.9"), Format::Text),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;\
                     q=0.4,*/*;q=0.3",
                ),
                Format::OpenMetrics,
            ),
        ];
        for (accept, expected) in cases {
            assert_eq!(Format::accepted(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn both_formats_are_as_prometheus_writes_them() {
        let mut samples = Samples::default();
        samples.put(&names::SERVICE_CHANGES, [], 3u64);
        samples.put(&names::HEALTHZ, ["200"], 7u64);
        samples.put(&names::NOTICES, ["a \"b\"\\\nc"], 1.5);
        let buckets = vec![(0.001, 1), (1.0, 2), (f64::INFINITY, 0)];
        samples.put(&names::SYNC_DURATION, ["IPv4"], Distribution { sum: 1.25, buckets });
        let open = samples.clone().encode(Format::OpenMetrics).unwrap();
        for line in [
            "# TYPE kubeproxy_sync_proxy_rules_service_changes counter",
            "kubeproxy_sync_proxy_rules_service_changes_total 3",
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"1.0\",ip_family=\"IPv4\"} 3",
            "# EOF",
        ] {
            assert!(open.lines().any(|found| found == line), "{line}\n{open}");
        }
        let text = samples.encode(Format::Text).unwrap();
        for line in [
            "# TYPE kubeproxy_sync_proxy_rules_service_changes_total counter",
            "# TYPE kubeproxy_proxy_healthz_total counter",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 7",
            "passlane_notices{reason=\"a \\\"b\\\"\\\\\\nc\"} 1.5",
            "kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family=\"IPv4\"} 1.25",
            "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("EOF") && !text.contains("1.0\""), "{text}");
    }
}
