//! Scraped by real clients, and read by a parser that is not ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::TcpStream,
    thread::sleep,
    time::Duration,
};

use super::*;
use crate::{
    apply::{Search, Tally},
    health::ProxyHealth,
    metrics::{Passed, State, names::Kind},
    model::{Snapshot, Update},
    source::{Trigger, kubernetes::Requests},
    status::{InterfaceReport, Lease, Report},
};

struct Fixed(Duration);

impl Read for Fixed {
    async fn read(&mut self) -> (Samples, bool) {
        tokio::time::sleep(self.0).await;
        let mut samples = Samples::default();
        samples.put(&names::IPVS_CONNECTIONS, [], 42u64);
        (samples, true)
    }
}

fn served(recorder: Recorder, takes: Duration) -> (MetricsServer, SocketAddr) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let reader = Reader::start(move || Fixed(takes)).unwrap();
    let settings = Settings {
        api_servers: vec!["https://admin:hunter2@192.0.2.1:6443".into()],
        ..Settings::default()
    };
    let recorder = Arc::new(recorder);
    let exporter = Arc::new(Exporter { recorder, reader, config: config(&settings) });
    (MetricsServer::serve(addr, exporter).unwrap(), addr)
}

fn recorder() -> Recorder {
    let recorder =
        Recorder::new(Arc::new(ProxyHealth::default()), Some(Requests::default().into()));
    recorder.queued(&Update::Replace(Snapshot::default()));
    recorder.passed(Passed { whole: true, took: Duration::from_millis(3), complete: true });
    recorder.passed(Passed { whole: false, took: Duration::from_secs(100), complete: false });
    let mut tally = Tally::default();
    tally.searches.push(Search { ipv6: true, took: Duration::from_millis(1), deleted: 9 });
    recorder.tallied(&tally);
    recorder.programmed([
        Trigger { at: std::time::SystemTime::now() + Duration::from_secs(60), ipv6: false },
        Trigger { at: std::time::UNIX_EPOCH, ipv6: false },
    ]);
    recorder.drift().found([(("ipvs", "missing"), 2)]);
    let interface = |name: &str, mode: &str, xdp: &str| InterfaceReport {
        name: name.into(),
        mode: mode.into(),
        xdp: xdp.into(),
        ..InterfaceReport::default()
    };
    let interfaces = vec![interface("eth0", "fast", "on"), interface("lo", "off", "")];
    let lease = Some(Lease { soft_ms: 3000, hard_ms: 5000 });
    recorder.publish(State {
        report: Report { interfaces, lease, services: 7, ..Report::default() },
        notices: vec!["PortKept", "PortKept"],
        has_ipv6: true,
        no_local_endpoints: [[1, 2], [3, 4]],
        ..State::default()
    });
    recorder
}

fn ask(addr: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
    for _ in 0..500 {
        if let Ok(mut stream) = TcpStream::connect(addr) {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            return (head.to_lowercase(), body.to_owned());
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{addr} is not open");
}

type Parsed = BTreeMap<(String, BTreeMap<String, String>), prometheus_parse::Value>;

fn parsed(text: &str) -> Parsed {
    let scrape = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned())));
    let samples = scrape.unwrap().samples.into_iter().map(|sample| {
        let labels = sample.labels.iter();
        let labels = labels.map(|(label, value)| (label.clone(), value.clone())).collect();
        ((sample.metric, labels), sample.value)
    });
    samples.collect()
}

fn of(parsed: &Parsed, name: &str, labels: &[(&str, &str)]) -> f64 {
    let labels = labels.iter().map(|(label, value)| (String::from(*label), String::from(*value)));
    match &parsed[&(name.to_owned(), labels.collect())] {
        prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => *value,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_scrape_is_read_by_a_parser_of_prometheus_and_follows_the_list() {
    let (_server, addr) = served(recorder(), Duration::ZERO);
    let (head, text) = ask(addr, "/metrics", "Accept: text/plain\r\n");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let parsed = parsed(&text);
    for ((name, labels), value) in &parsed {
        // The parser tells sum and count of a histogram apart from its buckets.
        let whole = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
        if whole.is_some_and(|name| names::ALL.iter().any(|metric| metric.name == name)) {
            continue;
        }
        let metric = names::ALL.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is in no list"));
        let found: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
        assert_eq!(found, metric.labels.iter().copied().collect(), "{name}");
        let kind = match value {
            prometheus_parse::Value::Counter(_) => "counter",
            prometheus_parse::Value::Gauge(_) => "gauge",
            prometheus_parse::Value::Histogram(_) => "histogram",
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(kind, metric.kind.word(), "{name}");
        if let (Kind::Histogram(ends), prometheus_parse::Value::Histogram(buckets)) =
            (metric.kind, value)
        {
            let found: Vec<f64> = buckets.iter().map(|bucket| bucket.less_than).collect();
            let expected: Vec<f64> = ends.iter().copied().chain([f64::INFINITY]).collect();
            assert_eq!(found, expected, "{name}");
            assert!(buckets.is_sorted_by(|one, next| one.count <= next.count), "{name}");
        }
    }
    assert_eq!(of(&parsed, "passlane_ipvs_connections_total", &[]), 42.0);
    assert_eq!(of(&parsed, "passlane_services", &[]), 7.0);
    assert_eq!(of(&parsed, "passlane_notices", &[("reason", "PortKept")]), 2.0);
    let drift = [("subsystem", "ipvs"), ("kind", "missing")];
    assert_eq!(of(&parsed, "passlane_drift_objects", &drift), 2.0);
    let labels = [("ip_family", "IPv6"), ("traffic_policy", "internal")];
    let name = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
    assert_eq!(of(&parsed, name, &labels), 3.0);
    let deleted = "kubeproxy_conntrack_reconciler_deleted_entries_total";
    assert_eq!(of(&parsed, deleted, &[("ip_family", "IPv6")]), 9.0);
    assert_eq!(of(&parsed, deleted, &[("ip_family", "IPv4")]), 0.0);
    let line = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    line("kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"+Inf\",ip_family=\"IPv4\"} 2");
    line("kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"16.384\",ip_family=\"IPv4\"} 1");
    line("kubeproxy_network_programming_duration_seconds_bucket{le=\"1\",ip_family=\"IPv4\"} 1");
    line("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1");
    line("passlane_attached_programs{interface=\"eth0\",hook=\"xdp\",mode=\"native\"} 1.0");
    assert!(!text.contains("interface=\"lo\""), "{text}");
}

#[test]
fn who_asks_for_openmetrics_gets_it_and_the_other_paths_answer_as_kube_proxys() {
    let (_server, addr) = served(recorder(), Duration::ZERO);
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let (head, text) = ask(addr, "/metrics", accept);
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    assert_eq!(ask(addr, "/proxyMode", "").1, "ipvs");
    assert_eq!(ask(addr, "/healthz", "").1, "ok");
    assert!(ask(addr, "/nothing", "").0.starts_with("http/1.1 404"));
    let (_, config) = ask(addr, "/configz", "");
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let config = &config["kubeproxy.config.k8s.io"];
    assert_eq!(config["kind"], "KubeProxyConfiguration");
    assert_eq!(config["passlane"]["apiServers"][0], "https://192.0.2.1:6443");
    assert!(!config.to_string().contains("hunter2"), "{config}");
}

#[test]
fn clients_that_say_nothing_or_never_read_keep_no_scrape_waiting() {
    let (_server, addr) = served(recorder(), Duration::ZERO);
    ask(addr, "/metrics", "");
    let mut hostile = Vec::new();
    for round in 0..10 {
        for index in 0..40 {
            let mut stream = TcpStream::connect(addr).unwrap();
            let words = ["", "GET /metrics HT", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"];
            let _ = stream.write_all(words[index % words.len()].as_bytes());
            hostile.push(stream);
        }
        let started = Instant::now();
        let (head, text) = ask(addr, "/metrics", "");
        assert!(head.starts_with("http/1.1 200"), "round {round}: {head}");
        assert!(text.contains("passlane_services 7"), "round {round}: {text}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "round {round}: {took:?}");
    }
}

#[test]
fn a_kernel_that_does_not_answer_costs_only_what_comes_from_it() {
    let (_server, addr) = served(recorder(), Duration::from_secs(60));
    let (head, text) = ask(addr, "/metrics", "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let parsed = parsed(&text);
    assert_eq!(of(&parsed, "passlane_services", &[]), 7.0);
    assert_eq!(of(&parsed, "passlane_ready", &[("component", "metrics")]), 0.0);
    assert_eq!(of(&parsed, "passlane_scrapes_total", &[("reading", "late")]), 1.0);
    assert!(!text.contains("passlane_ipvs_connections"), "{text}");
}
